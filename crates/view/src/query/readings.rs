//! Readings: rows with everything the sender wrote, or two columns for a chart, decimated if asked.

use std::collections::BTreeMap;

use farol_event::{AlertLevel, Position, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::ViewError;
use crate::query::Queries;
use crate::query::sensors::SensorLocation;

/// The default number of readings in an answer.
pub const DEFAULT_LIMIT: usize = 1000;
/// The largest number of readings in an answer.
pub const MAX_LIMIT: usize = 100_000;
/// The largest number of points that a decimated answer may be asked to have.
pub const MAX_POINTS: usize = 20_000;

/// Which readings are given.
#[derive(Debug, Clone, Default)]
pub struct ReadingFilter {
    /// Of this sensor. Required for columns.
    pub sensor_id: Option<String>,
    /// At or after this instant.
    pub from: Option<Timestamp>,
    /// At or before this instant.
    pub to: Option<Timestamp>,
    /// The newest so many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Columns only: keep at most so many points of the *whole* range (then `limit` doesn't count), the smallest and largest
    /// value of each stretch of time among them. From 2 to [`MAX_POINTS`].
    pub max_points: Option<usize>,
}

/// Readings as rows.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadingRows {
    /// The newest readings of the range, oldest first.
    pub readings: Vec<ReadingRow>,
    /// Whether the range has older readings than these.
    pub truncated: bool,
}

/// One reading as its sender wrote it, with where it stands in the log.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadingRow {
    /// When it was measured.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub timestamp: Timestamp,
    /// Who measured.
    pub sensor_id: String,
    /// What is measured.
    pub sensor_type: String,
    /// Where the sensor stands.
    #[serde(skip_serializing_if = "SensorLocation::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub location: SensorLocation,
    /// The measured value.
    pub value: f64,
    /// Its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// How far the sender trusts the value, 0..=1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// What the sender thinks of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert_level: Option<AlertLevel>,
    /// The sender's own notes, as they were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub metadata: Option<Box<RawValue>>,
    /// Fields that Farol doesn't know, as they were written. (One called `position` is not shown: the name is taken.)
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(additional_properties, value_type = Object))]
    pub unknown: BTreeMap<String, Box<RawValue>>,
    /// Where it stands in the log.
    pub position: Position,
}

/// Readings of one sensor as two columns of equal length.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadingColumns {
    /// When, in milliseconds since the Unix epoch, ascending.
    pub timestamps_ms: Vec<i64>,
    /// How much.
    pub values: Vec<f64>,
    /// How many readings the points stand for: all of the range if `max_points` was given, else those in the answer.
    pub total: u64,
    /// Whether the range has older readings than these.
    pub truncated: bool,
    /// Whether readings were left out between the points.
    pub decimated: bool,
}

impl Queries<'_> {
    /// The newest readings of a range, oldest first.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::Query`], [`ViewError::TimedOut`], [`ViewError::Corrupt`].
    pub fn reading_rows(&self, filter: &ReadingFilter) -> Result<ReadingRows, ViewError> {
        todo!()
    }

    /// The readings of one sensor for a chart.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn reading_columns(&self, filter: &ReadingFilter) -> Result<ReadingColumns, ViewError> {
        todo!()
    }
}

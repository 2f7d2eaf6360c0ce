//! Sensors: the list with search, filters and order, one sensor, and how many there are in each state.

use std::str::FromStr;

use farol_event::{AlertLevel, Severity, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::Queries;

/// The default number of sensors on a page.
pub const DEFAULT_LIMIT: usize = 200;
/// The largest number of sensors on a page.
pub const MAX_LIMIT: usize = 1000;
/// How many of its newest values a sensor is shown with.
pub const RECENT_VALUES: usize = 32;

/// How a sensor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SensorState {
    /// It reports, and no alert fires.
    Normal,
    /// No reading arrived for [`crate::StoreOptions::stale_after`], and no alert fires.
    Stale,
    /// Its worst firing alert is of severity INFO.
    Info,
    /// Its worst firing alert is of severity WARNING.
    Warning,
    /// Its worst firing alert is of severity ERROR.
    Error,
    /// Its worst firing alert is of severity CRITICAL.
    Critical,
}

impl SensorState {
    /// Every state, in the order of sorting by state.
    pub const ALL: [SensorState; 6] = [
        SensorState::Normal,
        SensorState::Stale,
        SensorState::Info,
        SensorState::Warning,
        SensorState::Error,
        SensorState::Critical,
    ];

    /// The lower-case word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            SensorState::Normal => "normal",
            SensorState::Stale => "stale",
            SensorState::Info => "info",
            SensorState::Warning => "warning",
            SensorState::Error => "error",
            SensorState::Critical => "critical",
        }
    }
}

impl FromStr for SensorState {
    type Err = ViewError;

    fn from_str(text: &str) -> Result<Self, ViewError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| ViewError::InvalidFilter {
            field: "state",
            problem: "must be one of normal, info, warning, error, critical, stale".into(),
        })
    }
}

/// What the list of sensors is ordered by. Ties are broken by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SensorSortKey {
    /// The sensor's id.
    #[default]
    Id,
    /// The sensor's type.
    Type,
    /// The newest value.
    Value,
    /// The state, mildest first.
    State,
    /// When the newest reading arrived.
    LastSeen,
}

/// The order of the list of sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SensorSort {
    /// By what.
    pub key: SensorSortKey,
    /// Largest first.
    pub descending: bool,
}

impl FromStr for SensorSort {
    type Err = ViewError;

    /// `id`, `type`, `value`, `state` or `last_seen`; `-` in front turns the order around.
    fn from_str(text: &str) -> Result<Self, ViewError> {
        let (descending, word) = match text.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, text),
        };
        let key = match word {
            "id" => SensorSortKey::Id,
            "type" => SensorSortKey::Type,
            "value" => SensorSortKey::Value,
            "state" => SensorSortKey::State,
            "last_seen" => SensorSortKey::LastSeen,
            _ => {
                return Err(ViewError::InvalidFilter {
                    field: "sort",
                    problem: "must be one of id, type, value, state, last_seen, with `-` in front for descending".into(),
                });
            }
        };
        Ok(Self { key, descending })
    }
}

/// Which sensors are listed.
#[derive(Debug, Clone, Default)]
pub struct SensorFilter {
    /// Id, type or a part of the location contains this text, in any letter case (ASCII).
    pub search: Option<String>,
    /// Of exactly this type.
    pub sensor_type: Option<String>,
    /// In this state.
    pub state: Option<SensorState>,
    /// In which order.
    pub sort: SensorSort,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor. Only good for the same order.
    pub cursor: Option<String>,
}

/// One sensor with its newest reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sensor {
    /// Its id.
    pub sensor_id: String,
    /// What it measures, by its newest reading.
    pub sensor_type: String,
    /// Where it stands, by its newest reading.
    pub location: SensorLocation,
    /// The unit of its newest reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The value of its newest reading (by the reading's own time).
    pub last_value: f64,
    /// The time of its newest reading.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_timestamp: Timestamp,
    /// When a reading of it last arrived.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_arrival: Timestamp,
    /// What the sender thought of the newest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert_level: Option<AlertLevel>,
    /// How far the sender trusted the newest value, 0..=1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// How many readings have come from it, deleted ones included.
    pub readings: u64,
    /// The time of its oldest reading, deleted ones included.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub first_timestamp: Timestamp,
    /// How it stands: the severity of its worst firing alert, else whether it still reports.
    pub state: SensorState,
    /// How many of its alerts fire.
    pub firing: u64,
    /// Its newest values that are still stored, oldest first, at most [`RECENT_VALUES`].
    pub recent: Vec<f64>,
}

/// Where a sensor stands. Every part is optional.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorLocation {
    /// Section of the plant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factory_section: Option<String>,
    /// The machine that carries the sensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<String>,
    /// Zone within the section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl SensorLocation {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.factory_section.is_none() && self.machine_id.is_none() && self.zone.is_none()
    }
}

/// A page of sensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorPage {
    /// The sensors, in the order asked for.
    pub sensors: Vec<Sensor>,
    /// How many fit the filter, on all pages.
    pub total: u64,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// How many sensors there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorCounts {
    /// In all.
    pub total: u64,
    /// In each state.
    pub by_state: SensorStateCounts,
}

/// How many sensors are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SensorStateCounts {
    /// Reporting, without a firing alert.
    pub normal: u64,
    /// Worst firing alert INFO.
    pub info: u64,
    /// Worst firing alert WARNING.
    pub warning: u64,
    /// Worst firing alert ERROR.
    pub error: u64,
    /// Worst firing alert CRITICAL.
    pub critical: u64,
    /// Silent, without a firing alert.
    pub stale: u64,
}

impl Queries<'_> {
    /// The sensors that fit the filter. `now` decides who is stale.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn sensors(&self, filter: &SensorFilter, now: Timestamp) -> Result<SensorPage, ViewError> {
        todo!()
    }

    /// One sensor, if a reading of it was ever applied.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn sensor(&self, sensor_id: &str, now: Timestamp) -> Result<Option<Sensor>, ViewError> {
        todo!()
    }

    /// How many sensors are in each state.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn sensor_counts(&self, now: Timestamp) -> Result<SensorCounts, ViewError> {
        todo!()
    }
}

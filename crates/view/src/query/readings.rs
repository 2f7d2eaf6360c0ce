//! Readings: rows with everything the sender wrote, or two columns for a chart, decimated if asked.

use std::collections::BTreeMap;

use std::sync::Arc;

use farol_event::{AlertLevel, Position, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::ViewError;
use crate::query::decimate::Decimator;
use crate::query::sensors::{RECENT_VALUES, SensorLocation};
use crate::query::{Queries, instant, json_if_any, page_size, sql_limit};

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
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
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
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let range = TimeRange::of(filter)?;
        let failed = self.failed("sensor_readings");
        let number = match &filter.sensor_id {
            None => None,
            Some(sensor_id) => match self.sensor_number(sensor_id)? {
                Some(number) => Some(number),
                None => return Ok(ReadingRows { readings: Vec::new(), truncated: false }),
            },
        };
        let of_sensor = if number.is_some() { "reading.sensor = ?4" } else { "?4 IS NULL" };
        let sql = format!(
            "SELECT {ROW_COLUMNS} FROM {ROW_TABLES}
             WHERE reading.slot = ?1 AND {of_sensor} AND reading.time BETWEEN ?2 AND ?3
             ORDER BY reading.time DESC, reading.partition DESC, reading.offset DESC LIMIT ?5"
        );
        let mut newest = Newest::new(limit);
        for slot in self.slots(range)? {
            if newest.is_settled(&slot) {
                break;
            }
            let values = vec![
                Value::Integer(slot.number),
                Value::Integer(range.from),
                Value::Integer(range.to),
                number.map_or(Value::Null, Value::Integer),
                sql_limit(limit + 1),
            ];
            let rows = self.rows(&sql, values, |row| self.reading_of_row(row)).map_err(&failed)?;
            newest.add(rows.into_iter().map(|row| {
                (Age(row.timestamp.as_micros(), row.position.partition, row.position.offset), row)
            }));
        }
        let (readings, truncated) = newest.oldest_first();
        Ok(ReadingRows { readings, truncated })
    }

    /// The readings of one sensor for a chart.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn reading_columns(&self, filter: &ReadingFilter) -> Result<ReadingColumns, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let range = TimeRange::of(filter)?;
        let Some(sensor_id) = &filter.sensor_id else {
            return Err(ViewError::InvalidFilter { field: "sensor_id", problem: "is required for columns".into() });
        };
        if filter.max_points.is_some_and(|points| !(2..=MAX_POINTS).contains(&points)) {
            let problem = format!("must be between 2 and {MAX_POINTS}");
            return Err(ViewError::InvalidFilter { field: "max_points", problem });
        }
        let Some(number) = self.sensor_number(sensor_id)? else { return Ok(ReadingColumns::default()) };
        match filter.max_points {
            Some(max_points) => self.decimated_columns(number, range, max_points),
            None => self.newest_columns(number, range, limit),
        }
    }

    /// The reading at a position, looked for among those of one sensor.
    pub(crate) fn reading_at(&self, sensor_id: &str, position: &Position) -> Result<Option<ReadingRow>, ViewError> {
        if position.topic != self.topics.sensor_data {
            return Ok(None);
        }
        let Some(number) = self.sensor_number(sensor_id)? else { return Ok(None) };
        let sql = format!(
            "SELECT {ROW_COLUMNS} FROM {ROW_TABLES}
             WHERE reading.slot = ? AND reading.sensor = ? AND reading.partition = ? AND reading.offset = ?"
        );
        for slot in self.slots(TimeRange::ALL)? {
            let values = [slot.number, number, position.partition.into(), position.offset];
            let values = values.into_iter().map(Value::Integer).collect();
            let found = self.rows(&sql, values, |row| self.reading_of_row(row));
            if let Some(reading) = found.map_err(self.failed("sensor_readings"))?.pop() {
                return Ok(Some(reading));
            }
        }
        Ok(None)
    }

    /// For looking up the newest values of several sensors.
    pub(crate) fn recent_values(&self) -> Result<RecentValues<'_>, ViewError> {
        Ok(RecentValues { queries: self, slots: self.slots(TimeRange::ALL)? })
    }

    fn newest_columns(&self, number: i64, range: TimeRange, limit: usize) -> Result<ReadingColumns, ViewError> {
        let mut newest = Newest::new(limit);
        for slot in self.slots(range)? {
            if newest.is_settled(&slot) {
                break;
            }
            newest.add(self.points_of_slot(&slot, number, range, limit + 1)?);
        }
        let (points, truncated) = newest.oldest_first_with_age();
        Ok(ReadingColumns {
            timestamps_ms: points.iter().map(|(age, _)| age.0.div_euclid(1000)).collect(),
            total: u64::try_from(points.len()).unwrap_or(u64::MAX),
            values: points.into_iter().map(|(_, value)| value).collect(),
            truncated,
            decimated: false,
        })
    }

    fn decimated_columns(
        &self,
        number: i64,
        range: TimeRange,
        max_points: usize,
    ) -> Result<ReadingColumns, ViewError> {
        let failed = self.failed("sensor_readings");
        let mut decimator = Decimator::new(max_points);
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT time, value FROM reading WHERE slot = ?1 AND sensor = ?2 AND time BETWEEN ?3 AND ?4",
            )
            .map_err(&failed)?;
        for slot in self.slots(range)? {
            let mut rows = statement.query(params![slot.number, number, range.from, range.to]).map_err(&failed)?;
            while let Some(row) = rows.next().map_err(&failed)? {
                decimator.add((row.get(0).map_err(&failed)?, row.get(1).map_err(&failed)?));
            }
        }
        let (total, points) = decimator.finish();
        Ok(ReadingColumns {
            timestamps_ms: points.iter().map(|(time, _)| time.div_euclid(1000)).collect(),
            decimated: u64::try_from(points.len()).is_ok_and(|kept| kept < total),
            values: points.into_iter().map(|(_, value)| value).collect(),
            total,
            truncated: false,
        })
    }

    /// The newest points of one sensor in one slot, with their order of age.
    fn points_of_slot(
        &self,
        slot: &SlotSpan,
        number: i64,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<(Age, f64)>, ViewError> {
        let values = [slot.number, number, range.from, range.to].into_iter().map(Value::Integer);
        self.rows(
            "SELECT time, partition, offset, value FROM reading
             WHERE slot = ? AND sensor = ? AND time BETWEEN ? AND ?
             ORDER BY time DESC, partition DESC, offset DESC LIMIT ?",
            values.chain([sql_limit(limit)]).collect(),
            |row| Ok((Age(row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)),
        )
        .map_err(self.failed("sensor_readings"))
    }

    /// The slots that may hold readings of that range, the one that reaches furthest first.
    fn slots(&self, range: TimeRange) -> Result<Vec<SlotSpan>, ViewError> {
        self.rows(
            "SELECT slot, first_time, last_time FROM reading_slot WHERE first_time <= ?2 AND last_time >= ?1
             ORDER BY last_time DESC, slot DESC",
            vec![Value::Integer(range.from), Value::Integer(range.to)],
            |row| Ok(SlotSpan { number: row.get(0)?, first_time: row.get(1)?, last_time: row.get(2)? }),
        )
        .map_err(self.failed("sensor_readings"))
    }

    fn sensor_number(&self, sensor_id: &str) -> Result<Option<i64>, ViewError> {
        let sql = "SELECT number FROM sensor_name WHERE sensor_id = ?";
        let found = self.rows(sql, vec![Value::Text(sensor_id.to_owned())], |row| row.get(0));
        Ok(found.map_err(self.failed("sensor_readings"))?.pop())
    }

    fn reading_of_row(&self, row: &Row<'_>) -> rusqlite::Result<ReadingRow> {
        let mut extra: Extra = json_if_any(row, 12)?.unwrap_or_default();
        extra.unknown.remove("position");
        Ok(ReadingRow {
            sensor_id: row.get(0)?,
            timestamp: instant(row, 1)?,
            value: row.get(2)?,
            sensor_type: row.get(3)?,
            unit: row.get(4)?,
            location: SensorLocation { factory_section: row.get(5)?, machine_id: row.get(6)?, zone: row.get(7)? },
            quality: row.get(8)?,
            alert_level: level(row, 9)?,
            position: Position {
                topic: Arc::clone(&self.topics.sensor_data),
                partition: row.get(10)?,
                offset: row.get(11)?,
            },
            metadata: extra.metadata,
            unknown: extra.unknown,
        })
    }
}

const ROW_COLUMNS: &str = "name.sensor_id, reading.time, reading.value, description.sensor_type, description.unit,
    description.factory_section, description.machine_id, description.zone, reading.quality, reading.level,
    reading.partition, reading.offset, reading.extra";

/// Readings first, whatever the planner thinks of it: their key is what narrows the search.
const ROW_TABLES: &str = "reading
    CROSS JOIN sensor_name AS name ON name.number = reading.sensor
    CROSS JOIN sensor_description AS description ON description.number = reading.description";

/// What a row keeps beyond its columns.
#[derive(Default, Deserialize)]
struct Extra {
    #[serde(default)]
    metadata: Option<Box<RawValue>>,
    #[serde(default)]
    unknown: BTreeMap<String, Box<RawValue>>,
}

/// From and to, both included, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
struct TimeRange {
    from: i64,
    to: i64,
}

impl TimeRange {
    const ALL: TimeRange = TimeRange { from: i64::MIN, to: i64::MAX };

    fn of(filter: &ReadingFilter) -> Result<Self, ViewError> {
        let range = Self {
            from: filter.from.map_or(i64::MIN, Timestamp::as_micros),
            to: filter.to.map_or(i64::MAX, Timestamp::as_micros),
        };
        if range.from > range.to {
            return Err(ViewError::InvalidFilter { field: "from", problem: "is after `to`".into() });
        }
        Ok(range)
    }
}

/// The span of time of one slot.
struct SlotSpan {
    number: i64,
    first_time: i64,
    last_time: i64,
}

/// Time, partition, offset: orders readings, the newest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age(i64, i32, i64);

/// The newest of what slots give, slot after slot.
struct Newest<T> {
    limit: usize,
    kept: Vec<(Age, T)>,
    more: bool,
}

impl<T> Newest<T> {
    fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), more: false }
    }

    /// Whether no reading of this slot, or of one that reaches less far, can be among the newest, and it is known
    /// that there are older ones than those.
    fn is_settled(&self, slot: &SlotSpan) -> bool {
        self.more && self.kept.last().is_some_and(|(oldest, _)| oldest.0 > slot.last_time)
    }

    fn add(&mut self, rows: impl IntoIterator<Item = (Age, T)>) {
        self.kept.extend(rows);
        if self.kept.len() > self.limit {
            self.kept.sort_unstable_by(|a, b| b.0.cmp(&a.0));
            self.kept.truncate(self.limit);
            self.more = true;
        }
    }

    fn oldest_first_with_age(mut self) -> (Vec<(Age, T)>, bool) {
        self.kept.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        (self.kept, self.more)
    }

    fn oldest_first(self) -> (Vec<T>, bool) {
        let (kept, more) = self.oldest_first_with_age();
        (kept.into_iter().map(|(_, row)| row).collect(), more)
    }
}

/// How many slots are searched for one sensor's newest values: a sensor that reports seldom among many that report often is
/// shown with fewer of them.
const RECENT_SLOTS: usize = 16;

/// Looks up the newest values of sensors.
pub(crate) struct RecentValues<'q> {
    queries: &'q Queries<'q>,
    slots: Vec<SlotSpan>,
}

impl RecentValues<'_> {
    /// The newest values of the sensor with that number, whose newest reading is of `last_time`, oldest first.
    pub(crate) fn of(&mut self, number: i64, last_time: i64) -> Result<Vec<f64>, ViewError> {
        let mut newest = Newest::new(RECENT_VALUES);
        let range = TimeRange { from: i64::MIN, to: last_time };
        // A slot that begins after the sensor's newest reading holds none of it.
        for slot in self.slots.iter().filter(|slot| slot.first_time <= last_time).take(RECENT_SLOTS) {
            if newest.kept.len() >= RECENT_VALUES && newest.kept.iter().all(|(age, _)| age.0 > slot.last_time) {
                break;
            }
            newest.add(self.queries.points_of_slot(slot, number, range, RECENT_VALUES)?);
        }
        Ok(newest.oldest_first().0)
    }
}

/// A column of what the sender thought of its reading.
pub(crate) fn level(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<AlertLevel>> {
    Ok(match row.get::<_, Option<i64>>(column)? {
        Some(0) => Some(AlertLevel::Normal),
        Some(1) => Some(AlertLevel::Warning),
        Some(2) => Some(AlertLevel::Critical),
        _ => None,
    })
}

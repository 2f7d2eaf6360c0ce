//! Readings: rows with everything the sender wrote, or two columns for a chart, decimated if asked.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use farol_event::{AlertLevel, Position, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::block::StoredReading;
use crate::error::ViewError;
use crate::query::decimate::Decimator;
use crate::query::sensors::{RECENT_VALUES, SensorLocation};
use crate::query::stored::{SlotSpan, StoredReadings, TimeRange, Wanted};
use crate::query::{Queries, page_size};

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
        let range = filter.range()?;
        let sensor = match &filter.sensor_id {
            None => None,
            Some(sensor_id) => match self.sensor_number(sensor_id)? {
                Some(number) => Some(number),
                None => return Ok(ReadingRows { readings: Vec::new(), truncated: false }),
            },
        };
        let (stored, truncated) = self.newest(sensor, range, limit, |reading| reading)?.oldest_first();
        let mut texts = Texts::default();
        let readings = stored.iter().map(|stored| self.row(stored, &mut texts)).collect::<Result<_, _>>()?;
        Ok(ReadingRows { readings, truncated })
    }

    /// The readings of one sensor for a chart.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn reading_columns(&self, filter: &ReadingFilter) -> Result<ReadingColumns, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let range = filter.range()?;
        let Some(sensor_id) = &filter.sensor_id else {
            return Err(ViewError::InvalidFilter {
                field: "sensor_id",
                problem: "is required for columns".into(),
            });
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
    pub(crate) fn reading_at(
        &self,
        sensor_id: &str,
        position: &Position,
    ) -> Result<Option<ReadingRow>, ViewError> {
        if position.topic != self.topics.sensor_data {
            return Ok(None);
        }
        let Some(sensor) = self.sensor_number(sensor_id)? else { return Ok(None) };
        let mut stored = StoredReadings::new(self)?;
        let mut found = None;
        self.for_each_slot(TimeRange::ALL, |slot| {
            found = stored.find(slot, sensor, position.partition, position.offset)?;
            Ok(found.is_none())
        })?;
        found.map(|found| self.row(&found, &mut Texts::default())).transpose()
    }

    /// The newest readings of a range, each as `keep` makes it.
    fn newest<T>(
        &self,
        sensor: Option<i64>,
        range: TimeRange,
        limit: usize,
        keep: impl Fn(StoredReading) -> T,
    ) -> Result<Newest<T>, ViewError> {
        let mut newest = Newest::new(limit);
        let mut stored = StoredReadings::new(self)?;
        let wanted = Wanted { sensor, range, newest: Some(limit + 1) };
        self.for_each_slot(range, |slot| {
            if newest.is_settled(slot) {
                return Ok(false);
            }
            stored.visit(slot, wanted, &mut |reading| {
                newest.add(Age::of(&reading), keep(reading));
                newest.not_before()
            })?;
            newest.trim();
            Ok(true)
        })?;
        Ok(newest)
    }

    fn newest_columns(
        &self,
        sensor: i64,
        range: TimeRange,
        limit: usize,
    ) -> Result<ReadingColumns, ViewError> {
        let newest = self.newest(Some(sensor), range, limit, |reading| (reading.time, reading.value))?;
        let (points, truncated) = newest.oldest_first();
        Ok(ReadingColumns {
            timestamps_ms: points.iter().map(|(time, _)| time.div_euclid(1000)).collect(),
            total: u64::try_from(points.len()).unwrap_or(u64::MAX),
            values: points.into_iter().map(|(_, value)| value).collect(),
            truncated,
            decimated: false,
        })
    }

    fn decimated_columns(
        &self,
        sensor: i64,
        range: TimeRange,
        max_points: usize,
    ) -> Result<ReadingColumns, ViewError> {
        let mut decimator = Decimator::new(max_points);
        let mut stored = StoredReadings::new(self)?;
        self.for_each_slot(range, |slot| {
            stored.visit_points(slot, sensor, range, &mut |time, value| decimator.add((time, value)))?;
            Ok(true)
        })?;
        let (total, points) = decimator.finish();
        Ok(ReadingColumns {
            timestamps_ms: points.iter().map(|(time, _)| time.div_euclid(1000)).collect(),
            decimated: u64::try_from(points.len()).is_ok_and(|kept| kept < total),
            values: points.into_iter().map(|(_, value)| value).collect(),
            total,
            truncated: false,
        })
    }

    fn sensor_number(&self, sensor_id: &str) -> Result<Option<i64>, ViewError> {
        let sql = "SELECT number FROM sensor_name WHERE sensor_id = ?";
        let found = self.rows(sql, vec![Value::Text(sensor_id.to_owned())], |row| row.get(0));
        Ok(found.map_err(self.failed("sensor_readings"))?.pop())
    }

    /// Puts the texts back.
    fn row(&self, stored: &StoredReading, texts: &mut Texts) -> Result<ReadingRow, ViewError> {
        let failed = self.failed("sensor_readings");
        let corrupt = |problem: String| ViewError::Corrupt { table: "sensor_readings", problem };
        let mut extra: Extra = match stored.extra.as_deref() {
            Some(extra) => serde_json::from_str(extra).map_err(|error| corrupt(error.to_string()))?,
            None => Extra::default(),
        };
        extra.unknown.remove("position");
        let name = match texts.names.entry(stored.sensor) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.sensor_name(stored.sensor).map_err(&failed)?),
        };
        let description = match texts.descriptions.entry(stored.description) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.description(stored.description).map_err(&failed)?),
        };
        Ok(ReadingRow {
            timestamp: Timestamp::from_micros(stored.time).map_err(|error| corrupt(error.to_string()))?,
            sensor_id: name.clone(),
            sensor_type: description.sensor_type.clone(),
            location: description.location.clone(),
            value: stored.value,
            unit: description.unit.clone(),
            quality: stored.quality,
            alert_level: level_of(stored.level),
            metadata: extra.metadata,
            unknown: extra.unknown,
            position: Position {
                topic: Arc::clone(&self.topics.sensor_data),
                partition: stored.partition,
                offset: stored.offset,
            },
        })
    }

    fn sensor_name(&self, number: i64) -> rusqlite::Result<String> {
        self.connection
            .prepare_cached("SELECT sensor_id FROM sensor_name WHERE number = ?1")?
            .query_row([number], |row| row.get(0))
    }

    fn description(&self, number: i64) -> rusqlite::Result<Description> {
        self.connection
            .prepare_cached(
                "SELECT sensor_type, unit, factory_section, machine_id, zone FROM sensor_description
                 WHERE number = ?1",
            )?
            .query_row([number], |row| {
                let location = SensorLocation {
                    factory_section: row.get(2)?,
                    machine_id: row.get(3)?,
                    zone: row.get(4)?,
                };
                Ok(Description { sensor_type: row.get(0)?, unit: row.get(1)?, location })
            })
    }
}

impl ReadingFilter {
    fn range(&self) -> Result<TimeRange, ViewError> {
        let range = TimeRange {
            from: self.from.map_or(i64::MIN, Timestamp::as_micros),
            to: self.to.map_or(i64::MAX, Timestamp::as_micros),
        };
        if range.from > range.to {
            return Err(ViewError::InvalidFilter { field: "from", problem: "is after `to`".into() });
        }
        Ok(range)
    }
}

/// The texts behind the numbers, as far as an answer has needed them.
#[derive(Default)]
struct Texts {
    names: HashMap<i64, String>,
    descriptions: HashMap<i64, Description>,
}

struct Description {
    sensor_type: String,
    unit: Option<String>,
    location: SensorLocation,
}

/// What a reading keeps beyond its columns.
#[derive(Default, Deserialize)]
struct Extra {
    #[serde(default)]
    metadata: Option<Box<RawValue>>,
    #[serde(default)]
    unknown: BTreeMap<String, Box<RawValue>>,
}

/// Time, partition, offset: orders readings, the newest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Age(i64, i32, i64);

impl Age {
    fn of(reading: &StoredReading) -> Self {
        Self(reading.time, reading.partition, reading.offset)
    }
}

/// The newest of what slots give, slot after slot. Holds at most some two times as many as asked for, and one slot's share.
struct Newest<T> {
    limit: usize,
    kept: Vec<(Age, T)>,
    /// The oldest of the newest, once it is known that there are older ones.
    settled: Option<Age>,
}

impl<T> Newest<T> {
    fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new(), settled: None }
    }

    /// Whether neither this slot nor one that reaches less far can have one of the newest, and it is known that there
    /// are older ones.
    fn is_settled(&self, slot: &SlotSpan) -> bool {
        self.settled.is_some_and(|oldest| oldest.0 > slot.last_time)
    }

    /// What is older than this instant isn't wanted.
    fn not_before(&self) -> i64 {
        self.settled.map_or(i64::MIN, |oldest| oldest.0)
    }

    fn add(&mut self, age: Age, reading: T) {
        if self.settled.is_some_and(|oldest| age < oldest) {
            return;
        }
        self.kept.push((age, reading));
        if self.kept.len() > 2 * self.limit + 64 {
            self.trim();
        }
    }

    fn trim(&mut self) {
        if self.kept.len() > self.limit {
            self.kept.sort_unstable_by_key(|(age, _)| Reverse(*age));
            self.kept.truncate(self.limit);
            self.settled = self.kept.last().map(|(age, _)| *age);
        }
    }

    /// The newest, oldest first, and whether there are older ones.
    fn oldest_first(mut self) -> (Vec<T>, bool) {
        self.trim();
        self.kept.sort_unstable_by_key(|(age, _)| *age);
        (self.kept.into_iter().map(|(_, reading)| reading).collect(), self.settled.is_some())
    }
}

/// How many slots are searched for one sensor's newest values: a sensor that reports seldom among many that report often is
/// shown with fewer of them.
const RECENT_SLOTS: usize = 16;
/// How many slots are remembered for that; sensors that last reported before those are shown without recent values.
const REMEMBERED_SLOTS: usize = 4096;

/// Looks up the newest values of several sensors.
pub(crate) struct RecentValues<'q> {
    stored: StoredReadings<'q>,
    slots: Vec<SlotSpan>,
}

impl<'q> RecentValues<'q> {
    pub(crate) fn new(queries: &'q Queries<'q>) -> Result<Self, ViewError> {
        let mut slots = Vec::new();
        queries.for_each_slot(TimeRange::ALL, |slot| {
            slots.push(*slot);
            Ok(slots.len() < REMEMBERED_SLOTS)
        })?;
        Ok(Self { stored: StoredReadings::new(queries)?, slots })
    }

    /// The newest values of the sensor with that number, whose newest reading is of `last_time`, oldest first.
    pub(crate) fn of(&mut self, sensor: i64, last_time: i64) -> Result<Vec<f64>, ViewError> {
        let mut newest = Newest::new(RECENT_VALUES);
        let range = TimeRange { from: i64::MIN, to: last_time };
        let wanted = Wanted { sensor: Some(sensor), range, newest: Some(RECENT_VALUES) };
        // A slot that begins after the sensor's newest reading holds none of it.
        for slot in self.slots.iter().filter(|slot| slot.first_time <= last_time).take(RECENT_SLOTS) {
            if newest.kept.len() >= RECENT_VALUES && newest.kept.iter().all(|(age, _)| age.0 > slot.last_time)
            {
                break;
            }
            self.stored.visit(slot, wanted, &mut |reading| {
                newest.add(Age::of(&reading), reading.value);
                newest.not_before()
            })?;
            newest.trim();
        }
        Ok(newest.oldest_first().0)
    }
}

/// A column of what the sender thought of its reading.
pub(crate) fn level(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<AlertLevel>> {
    row.get(column).map(level_of)
}

fn level_of(number: Option<i64>) -> Option<AlertLevel> {
    match number {
        Some(0) => Some(AlertLevel::Normal),
        Some(1) => Some(AlertLevel::Warning),
        Some(2) => Some(AlertLevel::Critical),
        _ => None,
    }
}

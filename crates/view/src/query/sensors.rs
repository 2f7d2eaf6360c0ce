//! Sensors: the list with search, filters and order, one sensor, and how many there are in each state.

use std::str::FromStr;

use farol_event::{AlertLevel, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::condition::{Conditions, containing};
use crate::query::readings::{RecentValues, level};
use crate::query::{Queries, count, instant, page_size, sql_limit};

mod order;

use order::Order;
pub use order::{SensorSort, SensorSortKey};

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
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let failed = self.failed("sensors");
        let stale_before = self.stale_before(now);
        let mut conditions = filter.conditions(stale_before);
        let total = if conditions.is_empty() {
            self.number("SELECT count(*) FROM sensor_state", Vec::new())
        } else {
            self.number(
                &format!("SELECT count(*) FROM {TABLES} {}", conditions.sql()),
                conditions.values_and([]),
            )
        };
        let total = total.map_err(&failed)?;
        let order = Order::of(filter.sort);
        if let Some(text) = &filter.cursor {
            order.after(&mut conditions, text, stale_before)?;
        }
        let sql =
            format!("SELECT {COLUMNS} FROM {TABLES} {} ORDER BY {} LIMIT ?", conditions.sql(), order.sql());
        // The values of the order's own question marks come between those of the conditions and the limit.
        let values =
            conditions.values_and(order.values(stale_before).into_iter().chain([sql_limit(limit + 1)]));
        let mut rows =
            self.rows(&sql, values, |row| SensorRow::of_row(row, stale_before)).map_err(&failed)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| order.cursor(&last.sensor));
        let sensors = self.with_recent_values(rows)?;
        Ok(SensorPage { sensors, total, next_cursor })
    }

    /// One sensor, if a reading of it was ever applied.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn sensor(&self, sensor_id: &str, now: Timestamp) -> Result<Option<Sensor>, ViewError> {
        let stale_before = self.stale_before(now);
        let rows = self
            .rows(
                &format!("SELECT {COLUMNS} FROM {TABLES} WHERE name.sensor_id = ?"),
                vec![Value::Text(sensor_id.to_owned())],
                |row| SensorRow::of_row(row, stale_before),
            )
            .map_err(self.failed("sensors"))?;
        Ok(self.with_recent_values(rows)?.pop())
    }

    /// How many sensors are in each state.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn sensor_counts(&self, now: Timestamp) -> Result<SensorCounts, ViewError> {
        let failed = self.failed("sensors");
        let stale_before = self.stale_before(now);
        let counts = |row: &Row<'_>| Ok((count(row, 0)?, count(row, 1)?));
        let all = self
            .rows(
                "SELECT count(*), coalesce(sum(last_arrival < ?), 0) FROM sensor_state",
                vec![Value::Integer(stale_before)],
                counts,
            )
            .map_err(&failed)?;
        let (total, silent) = all.first().copied().unwrap_or_default();
        let mut by_state = SensorStateCounts { stale: silent, normal: total - silent, ..Default::default() };
        // Few sensors alert, so those are looked up and moved to where they belong.
        let firing = self
            .rows(
                &format!(
                    "SELECT count(*), sum(state.last_arrival < ?), firing.severity FROM {FIRING} AS firing
                     CROSS JOIN sensor_name AS name ON name.sensor_id = firing.sensor_id
                     CROSS JOIN sensor_state AS state ON state.sensor = name.number
                     GROUP BY firing.severity"
                ),
                vec![Value::Integer(stale_before)],
                |row| Ok((counts(row)?, row.get::<_, i64>(2)?)),
            )
            .map_err(&failed)?;
        for ((sensors, silent), severity) in firing {
            by_state.stale -= silent.min(by_state.stale);
            by_state.normal -= (sensors - silent).min(by_state.normal);
            match SensorState::of(Some(severity), false) {
                SensorState::Info => by_state.info += sensors,
                SensorState::Warning => by_state.warning += sensors,
                SensorState::Error => by_state.error += sensors,
                _ => by_state.critical += sensors,
            }
        }
        Ok(SensorCounts { total, by_state })
    }

    /// Who last reported before this instant, in microseconds, is stale.
    fn stale_before(&self, now: Timestamp) -> i64 {
        now.saturating_sub(self.settings.stale_after).as_micros()
    }

    fn with_recent_values(&self, rows: Vec<SensorRow>) -> Result<Vec<Sensor>, ViewError> {
        let mut recent = RecentValues::new(self)?;
        rows.into_iter()
            .map(|row| {
                let values = recent.of(row.number, row.sensor.last_timestamp.as_micros())?;
                Ok(Sensor { recent: values, ..row.sensor })
            })
            .collect()
    }
}

/// The worst firing alert of each series, and how many fire.
const FIRING: &str = "(SELECT sensor_id, max(severity) AS severity, count(*) AS firing FROM alerts
    WHERE status = 'firing' GROUP BY sensor_id)";

/// Where the columns come from. Alerts are looked up, not stored with the sensor, so that both always agree.
const TABLES: &str = "sensor_state AS state
    JOIN sensor_name AS name ON name.number = state.sensor
    JOIN sensor_description AS description ON description.number = state.description
    LEFT JOIN (SELECT sensor_id, max(severity) AS severity, count(*) AS firing FROM alerts
        WHERE status = 'firing' GROUP BY sensor_id) AS firing ON firing.sensor_id = name.sensor_id";

const COLUMNS: &str = "name.number, name.sensor_id, description.sensor_type, description.unit,
    description.factory_section, description.machine_id, description.zone, state.last_value, state.last_time,
    state.last_arrival, state.level, state.quality, state.readings, state.first_time, firing.severity,
    coalesce(firing.firing, 0)";

/// A state's place in [`SensorState::ALL`]. The question mark stands for the instant before which silence is staleness.
const STATE: &str = "CASE WHEN firing.severity IS NOT NULL THEN firing.severity + 1 WHEN state.last_arrival < ? THEN 1 ELSE 0 END";

impl SensorState {
    fn of(severity: Option<i64>, stale: bool) -> Self {
        match severity {
            Some(..=1) => SensorState::Info,
            Some(2) => SensorState::Warning,
            Some(3) => SensorState::Error,
            Some(_) => SensorState::Critical,
            None if stale => SensorState::Stale,
            None => SensorState::Normal,
        }
    }

    fn rank(self) -> i64 {
        (0..).zip(Self::ALL).find(|(_, state)| *state == self).map_or(0, |(rank, _)| rank)
    }
}

impl SensorFilter {
    fn conditions(&self, stale_before: i64) -> Conditions {
        let mut conditions = Conditions::default();
        if let Some(text) = self.search.as_deref().filter(|text| !text.is_empty()) {
            let columns = [
                "name.sensor_id",
                "description.sensor_type",
                "description.factory_section",
                "description.machine_id",
                "description.zone",
            ];
            let clauses = columns.map(|column| format!("{column} LIKE ? ESCAPE '\\'")).join(" OR ");
            let pattern = Value::Text(containing(text));
            conditions.and(format!("({clauses})"), columns.map(|_| pattern.clone()));
        }
        conditions.and_if("description.sensor_type = ?", self.sensor_type.clone());
        if let Some(state) = self.state {
            conditions
                .and(format!("{STATE} = ?"), [Value::Integer(stale_before), Value::Integer(state.rank())]);
        }
        conditions
    }
}

/// A sensor without its recent values, and its number.
struct SensorRow {
    number: i64,
    sensor: Sensor,
}

impl SensorRow {
    fn of_row(row: &Row<'_>, stale_before: i64) -> rusqlite::Result<Self> {
        let last_arrival = instant(row, 9)?;
        let stale = last_arrival.as_micros() < stale_before;
        let sensor = Sensor {
            sensor_id: row.get(1)?,
            sensor_type: row.get(2)?,
            unit: row.get(3)?,
            location: SensorLocation {
                factory_section: row.get(4)?,
                machine_id: row.get(5)?,
                zone: row.get(6)?,
            },
            last_value: row.get(7)?,
            last_timestamp: instant(row, 8)?,
            last_arrival,
            alert_level: level(row, 10)?,
            quality: row.get(11)?,
            readings: count(row, 12)?,
            first_timestamp: instant(row, 13)?,
            state: SensorState::of(row.get(14)?, stale),
            firing: count(row, 15)?,
            recent: Vec::new(),
        };
        Ok(Self { number: row.get(0)?, sensor })
    }
}

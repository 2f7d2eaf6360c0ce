//! View `sensors`: every sensor with its newest reading.
//!
//! The newest reading is the one with the latest time (then partition, then offset), so that a late one doesn't replace it.
//! What changes with every reading is one narrow row per sensor, touched once per apply: a hundred thousand sensors fit
//! into some 1500 pages. Alerts are not kept here; queries look them up in `alerts`, so that both always agree.

use hashbrown::HashMap;
use rusqlite::{OptionalExtension, Transaction, params};

use crate::decode::{Decoded, ReadingRecord, Starts};
use crate::fold::Tally;

pub(crate) const CREATE: &str = "
CREATE TABLE sensor_state (
    sensor INTEGER PRIMARY KEY,
    description INTEGER NOT NULL,
    readings INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    last_partition INTEGER NOT NULL,
    last_offset INTEGER NOT NULL,
    last_arrival INTEGER NOT NULL,
    last_value REAL NOT NULL,
    quality REAL,
    level INTEGER
);
CREATE VIEW sensors AS
SELECT name.sensor_id AS sensor_id,
       description.sensor_type AS sensor_type,
       description.unit AS unit,
       description.factory_section AS factory_section,
       description.machine_id AS machine_id,
       description.zone AS zone,
       state.last_value AS last_value,
       state.last_time AS last_timestamp,
       state.last_arrival AS last_arrival,
       CASE state.level WHEN 0 THEN 'normal' WHEN 1 THEN 'warning' WHEN 2 THEN 'critical' END AS alert_level,
       state.quality AS quality,
       state.readings AS readings,
       state.first_time AS first_timestamp
FROM sensor_state AS state
JOIN sensor_name AS name ON name.number = state.sensor
JOIN sensor_description AS description ON description.number = state.description;
";

pub(crate) const DROP: &str = "
DROP VIEW IF EXISTS sensors;
DROP TABLE IF EXISTS sensor_state;
";

/// How many sensors' rows are remembered; beyond that all are forgotten and read again as they come.
const REMEMBERED: usize = 200_000;

/// A row of `sensor_state`.
#[derive(Debug, Clone, Copy)]
struct State {
    description: u32,
    readings: i64,
    first_time: i64,
    last: Age,
    last_arrival: i64,
    last_value: f64,
    quality: Option<f64>,
    level: Option<i64>,
}

/// Time, partition, offset: orders readings of one sensor, the newest last.
type Age = (i64, i32, i64);

/// The rows as they stand in the table, as far as they are remembered: reading a row costs as much as writing it.
#[derive(Default)]
pub(crate) struct Remembered(HashMap<u32, State>);

impl State {
    fn of(reading: &ReadingRecord) -> Self {
        Self {
            description: reading.description,
            readings: 1,
            first_time: reading.time,
            last: (reading.time, reading.partition, reading.offset),
            last_arrival: reading.arrival,
            last_value: reading.value,
            quality: reading.quality,
            level: reading.level.map(super::level_number),
        }
    }

    /// The two together, in whatever order they came.
    fn with(self, other: &State) -> Self {
        let newest = if other.last > self.last { other } else { &self };
        Self {
            readings: self.readings + other.readings,
            first_time: self.first_time.min(other.first_time),
            last_arrival: self.last_arrival.max(other.last_arrival),
            ..*newest
        }
    }

    fn read(transaction: &Transaction<'_>, sensor: u32) -> rusqlite::Result<Option<Self>> {
        transaction
            .prepare_cached(
                "SELECT description, readings, first_time, last_time, last_partition, last_offset, last_arrival,
                     last_value, quality, level
                 FROM sensor_state WHERE sensor = ?1",
            )?
            .query_row([sensor], |row| {
                Ok(Self {
                    description: row.get(0)?,
                    readings: row.get(1)?,
                    first_time: row.get(2)?,
                    last: (row.get(3)?, row.get(4)?, row.get(5)?),
                    last_arrival: row.get(6)?,
                    last_value: row.get(7)?,
                    quality: row.get(8)?,
                    level: row.get(9)?,
                })
            })
            .optional()
    }
}

impl Remembered {
    /// Adds what one apply says of a sensor to its row.
    fn add(&mut self, transaction: &Transaction<'_>, sensor: u32, change: &State) -> rusqlite::Result<()> {
        let known = match self.0.get(&sensor) {
            Some(known) => Some(*known),
            None => State::read(transaction, sensor)?,
        };
        let state = known.map_or(*change, |known| known.with(change));
        let sql = if known.is_some() {
            "UPDATE sensor_state SET description = ?2, readings = ?3, first_time = ?4, last_time = ?5,
                 last_partition = ?6, last_offset = ?7, last_arrival = ?8, last_value = ?9, quality = ?10, level = ?11
             WHERE sensor = ?1"
        } else {
            "INSERT INTO sensor_state (sensor, description, readings, first_time, last_time, last_partition,
                 last_offset, last_arrival, last_value, quality, level)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        };
        transaction.prepare_cached(sql)?.execute(params![
            sensor,
            state.description,
            state.readings,
            state.first_time,
            state.last.0,
            state.last.1,
            state.last.2,
            state.last_arrival,
            state.last_value,
            state.quality,
            state.level,
        ])?;
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(sensor, state);
        Ok(())
    }
}

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    remembered: &mut Remembered,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let mut change: Option<(u32, State)> = None;
    for reading in decoded.readings_from(starts) {
        tally.applied += 1;
        match &mut change {
            Some((sensor, state)) if *sensor == reading.sensor => *state = state.with(&State::of(reading)),
            _ => {
                if let Some((sensor, state)) = change.replace((reading.sensor, State::of(reading))) {
                    remembered.add(transaction, sensor, &state)?;
                }
            }
        }
    }
    match change {
        Some((sensor, state)) => remembered.add(transaction, sensor, &state),
        None => Ok(()),
    }
}

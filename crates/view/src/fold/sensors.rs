//! View `sensors`: every sensor with its newest reading.
//!
//! The newest reading is the one with the latest time (then partition, then offset), so that a late one doesn't replace it.
//! What changes with every reading is one narrow row per sensor, touched once per apply: a hundred thousand sensors fit
//! into some 1500 pages. Alerts are not kept here; queries look them up in `alerts`, so that both always agree.

use rusqlite::{Transaction, params};

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

/// What one apply says of one sensor.
struct Change<'a> {
    newest: &'a ReadingRecord,
    readings: i64,
    first_time: i64,
    last_arrival: i64,
}

impl<'a> Change<'a> {
    fn of(reading: &'a ReadingRecord) -> Self {
        Self { newest: reading, readings: 1, first_time: reading.time, last_arrival: reading.arrival }
    }

    fn add(&mut self, reading: &'a ReadingRecord) {
        self.readings += 1;
        self.first_time = self.first_time.min(reading.time);
        self.last_arrival = self.last_arrival.max(reading.arrival);
        if age(reading) > age(self.newest) {
            self.newest = reading;
        }
    }
}

/// Orders readings of one sensor, the newest last.
fn age(reading: &ReadingRecord) -> (i64, i32, i64) {
    (reading.time, reading.partition, reading.offset)
}

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO sensor_state (sensor, description, readings, first_time, last_time, last_partition, last_offset,
             last_arrival, last_value, quality, level)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (sensor) DO UPDATE SET
             readings = readings + excluded.readings,
             first_time = min(first_time, excluded.first_time),
             last_arrival = max(last_arrival, excluded.last_arrival),
             (description, last_time, last_partition, last_offset, last_value, quality, level) = (
                 SELECT excluded.description, excluded.last_time, excluded.last_partition, excluded.last_offset,
                     excluded.last_value, excluded.quality, excluded.level
                 WHERE (excluded.last_time, excluded.last_partition, excluded.last_offset)
                     > (sensor_state.last_time, sensor_state.last_partition, sensor_state.last_offset)
                 UNION ALL
                 SELECT description, last_time, last_partition, last_offset, last_value, quality, level LIMIT 1)",
    )?;
    let mut save = |change: &Change<'_>| {
        let newest = change.newest;
        upsert.execute(params![
            newest.sensor,
            newest.description,
            change.readings,
            change.first_time,
            newest.time,
            newest.partition,
            newest.offset,
            change.last_arrival,
            newest.value,
            newest.quality,
            newest.level.map(super::level_number),
        ])
    };
    let mut change: Option<Change<'_>> = None;
    for reading in decoded.readings_from(starts) {
        tally.applied += 1;
        match &mut change {
            Some(change) if change.newest.sensor == reading.sensor => change.add(reading),
            _ => {
                if let Some(finished) = change.replace(Change::of(reading)) {
                    save(&finished)?;
                }
            }
        }
    }
    if let Some(finished) = change {
        save(&finished)?;
    }
    Ok(())
}

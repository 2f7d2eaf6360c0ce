//! View `readings`: every reading, by sensor and time.
//!
//! # Layout
//! Rows lie in *slots* of [`SLOT_ROWS`] readings in order of arrival; within a slot by sensor and time. A batch touches
//! pages of the newest slot only, however many sensors there are: keyed by sensor and time alone, a batch of 20,000
//! readings of 10,000 sensors would change 10,000 pages. A reader of one sensor looks into each slot whose span of time
//! overlaps the question: one descent of the tree per slot.
//!
//! `reading_slot` keeps each slot's span. People read `sensor_readings`, which puts the texts back.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::decode::{Decoded, Starts};
use crate::fold::Tally;

/// How many readings a slot takes before the next one is begun (one apply may take it beyond).
pub(crate) const SLOT_ROWS: i64 = 128 * 1024;

pub(crate) const CREATE: &str = "
CREATE TABLE reading (
    slot INTEGER NOT NULL,
    sensor INTEGER NOT NULL,
    time INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    value REAL NOT NULL,
    description INTEGER NOT NULL,
    quality REAL,
    level INTEGER,
    extra TEXT,
    PRIMARY KEY (slot, sensor, time, partition, offset)
) WITHOUT ROWID;
CREATE TABLE reading_slot (
    slot INTEGER PRIMARY KEY,
    rows INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL
);
CREATE VIEW sensor_readings AS
SELECT name.sensor_id AS sensor_id,
       reading.time AS timestamp,
       reading.value AS value,
       description.sensor_type AS sensor_type,
       description.unit AS unit,
       description.factory_section AS factory_section,
       description.machine_id AS machine_id,
       description.zone AS zone,
       CASE reading.level WHEN 0 THEN 'normal' WHEN 1 THEN 'warning' WHEN 2 THEN 'critical' END AS alert_level,
       reading.quality AS quality,
       json_extract(reading.extra, '$.metadata') AS metadata,
       json_extract(reading.extra, '$.unknown') AS unknown_fields,
       reading.partition AS partition,
       reading.offset AS offset
FROM sensor_name AS name
JOIN reading_slot AS slot
JOIN reading ON reading.slot = slot.slot AND reading.sensor = name.number
JOIN sensor_description AS description ON description.number = reading.description;
";

pub(crate) const DROP: &str = "
DROP VIEW IF EXISTS sensor_readings;
DROP TABLE IF EXISTS reading;
DROP TABLE IF EXISTS reading_slot;
";

/// The newest slot, as it stands in `reading_slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    number: i64,
    rows: i64,
    first_time: i64,
    last_time: i64,
}

impl Slot {
    fn empty(number: i64) -> Self {
        Self { number, rows: 0, first_time: i64::MAX, last_time: i64::MIN }
    }

    fn newest(transaction: &Transaction<'_>) -> rusqlite::Result<Option<Self>> {
        transaction
            .prepare_cached("SELECT slot, rows, first_time, last_time FROM reading_slot ORDER BY slot DESC LIMIT 1")?
            .query_row([], |row| {
                Ok(Self { number: row.get(0)?, rows: row.get(1)?, first_time: row.get(2)?, last_time: row.get(3)? })
            })
            .optional()
    }

    fn save(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction
            .prepare_cached(
                "INSERT INTO reading_slot (slot, rows, first_time, last_time) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (slot) DO UPDATE SET rows = excluded.rows, first_time = excluded.first_time,
                     last_time = excluded.last_time",
            )?
            .execute((self.number, self.rows, self.first_time, self.last_time))?;
        Ok(())
    }
}

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    remembered: &mut Option<Slot>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let mut readings = decoded.readings_from(starts).peekable();
    if readings.peek().is_none() {
        return Ok(());
    }
    let newest = match *remembered {
        Some(slot) => slot,
        None => Slot::newest(transaction)?.unwrap_or_else(|| Slot::empty(0)),
    };
    let mut slot = if newest.rows < SLOT_ROWS { newest } else { Slot::empty(newest.number + 1) };
    let mut insert = transaction.prepare_cached(
        "INSERT INTO reading (slot, sensor, time, partition, offset, value, description, quality, level, extra)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for reading in readings {
        insert.execute(params![
            slot.number,
            reading.sensor,
            reading.time,
            reading.partition,
            reading.offset,
            reading.value,
            reading.description,
            reading.quality,
            reading.level.map(super::level_number),
            reading.extra.as_deref(),
        ])?;
        slot.rows += 1;
        slot.first_time = slot.first_time.min(reading.time);
        slot.last_time = slot.last_time.max(reading.time);
        tally.applied += 1;
    }
    slot.save(transaction)?;
    *remembered = Some(slot);
    Ok(())
}

//! View `readings`: every reading, by sensor and time.
//!
//! # Layout
//! Readings lie in *slots* in order of arrival; `reading_slot` keeps each slot's span of time. A slot is of one of two forms:
//!
//! * *rows*: the readings of many small applies, up to [`SLOT_ROWS`] of them, one row each in `reading`, by sensor and time
//!   within the slot. An apply touches pages of the newest such slot only, however many sensors there are: keyed by
//!   sensor and time alone, a batch of 20,000 readings of 10,000 sensors would change 10,000 pages.
//! * *blocks*: the readings of one apply of at least [`BULK_ROWS`], sorted by sensor and time and packed into rows of
//!   `reading_block` (see [`crate::block`]), which costs a fraction of what rows do. This is how a view keeps up with
//!   hundreds of thousands of readings a second, and how it is rebuilt.
//!
//! A reader of one sensor looks into each slot whose span overlaps the question: one descent of a tree per slot. People read
//! `sensor_readings`, which puts both forms together and the texts back.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::block::{BLOCK_ROWS, Block};
use crate::decode::{Decoded, ReadingRecord, Starts};
use crate::fold::Tally;

/// How many readings a slot of rows takes before the next one is begun (one apply may take it beyond).
const SLOT_ROWS: i64 = 128 * 1024;
/// An apply of so many readings becomes a slot of blocks. Fewer would make slots so small that readers of one sensor visit
/// too many. It regulates itself: a view that falls behind is given larger batches, and those cost less.
const BULK_ROWS: usize = 4 * 1024;

// In `sensor_readings`, CROSS JOIN keeps the planner from going through all rows when it is asked for one sensor.
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
CREATE TABLE reading_block (
    id INTEGER PRIMARY KEY,
    slot INTEGER NOT NULL,
    first_sensor INTEGER NOT NULL,
    last_sensor INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX reading_block_by_sensor ON reading_block (slot, last_sensor, first_sensor, first_time, last_time);
CREATE TABLE reading_slot (
    slot INTEGER PRIMARY KEY,
    form TEXT NOT NULL,
    rows INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL
);
CREATE INDEX reading_slot_by_end ON reading_slot (last_time, first_time);
CREATE INDEX reading_slot_by_beginning ON reading_slot (first_time);
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
FROM reading_slot AS slot
CROSS JOIN sensor_name AS name
CROSS JOIN reading ON reading.slot = slot.slot AND reading.sensor = name.number
CROSS JOIN sensor_description AS description ON description.number = reading.description
WHERE slot.form = 'rows'
UNION ALL
SELECT name.sensor_id,
       block.first_time + json_extract(element.value, '$[1]'),
       json_extract(element.value, '$[2]'),
       description.sensor_type,
       description.unit,
       description.factory_section,
       description.machine_id,
       description.zone,
       CASE json_extract(element.value, '$[7]')
           WHEN 0 THEN 'normal' WHEN 1 THEN 'warning' WHEN 2 THEN 'critical' END,
       json_extract(element.value, '$[6]'),
       json_extract(element.value, '$[8].metadata'),
       json_extract(element.value, '$[8].unknown'),
       json_extract(element.value, '$[3]'),
       json_extract(element.value, '$[4]')
FROM reading_block AS block
JOIN json_each(block.body) AS element
JOIN sensor_name AS name ON name.number = json_extract(element.value, '$[0]')
    AND name.number BETWEEN block.first_sensor AND block.last_sensor
JOIN sensor_description AS description ON description.number = json_extract(element.value, '$[5]');
";

pub(crate) const DROP: &str = "
DROP VIEW IF EXISTS sensor_readings;
DROP TABLE IF EXISTS reading;
DROP TABLE IF EXISTS reading_block;
DROP TABLE IF EXISTS reading_slot;
";

/// A slot as it stands in `reading_slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    number: i64,
    form: Form,
    rows: i64,
    first_time: i64,
    last_time: i64,
}

/// How a slot's readings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One row each, in `reading`.
    Rows,
    /// Packed, in `reading_block`.
    Blocks,
}

impl Form {
    /// The word in `reading_slot`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Form::Rows => "rows",
            Form::Blocks => "blocks",
        }
    }

    pub(crate) fn of_word(word: &str) -> Self {
        if word == Form::Blocks.as_str() { Form::Blocks } else { Form::Rows }
    }
}

impl Slot {
    fn empty(number: i64, form: Form) -> Self {
        Self { number, form, rows: 0, first_time: i64::MAX, last_time: i64::MIN }
    }

    fn include(&mut self, reading: &ReadingRecord) {
        self.rows += 1;
        self.first_time = self.first_time.min(reading.time);
        self.last_time = self.last_time.max(reading.time);
    }

    fn save(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction
            .prepare_cached(
                "INSERT INTO reading_slot (slot, form, rows, first_time, last_time) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (slot) DO UPDATE SET rows = excluded.rows, first_time = excluded.first_time,
                     last_time = excluded.last_time",
            )?
            .execute((self.number, self.form.as_str(), self.rows, self.first_time, self.last_time))?;
        Ok(())
    }
}

/// Where the next readings go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots {
    /// The number of the next new slot.
    next: i64,
    /// The slot of rows that is being filled.
    open: Option<Slot>,
}

impl Slots {
    fn read(transaction: &Transaction<'_>) -> rusqlite::Result<Self> {
        let next = transaction
            .prepare_cached("SELECT coalesce(max(slot) + 1, 0) FROM reading_slot")?
            .query_row([], |row| row.get(0))?;
        let open = transaction
            .prepare_cached(
                "SELECT slot, rows, first_time, last_time FROM reading_slot WHERE form = 'rows'
                 ORDER BY slot DESC LIMIT 1",
            )?
            .query_row([], |row| {
                Ok(Slot {
                    number: row.get(0)?,
                    form: Form::Rows,
                    rows: row.get(1)?,
                    first_time: row.get(2)?,
                    last_time: row.get(3)?,
                })
            })
            .optional()?;
        Ok(Self { next, open })
    }

    /// The slot that takes so many more readings.
    fn take(&mut self, readings: usize) -> Slot {
        let form = if readings >= BULK_ROWS { Form::Blocks } else { Form::Rows };
        match self.open {
            Some(slot) if form == Form::Rows && slot.rows < SLOT_ROWS => slot,
            _ => {
                self.next += 1;
                Slot::empty(self.next - 1, form)
            }
        }
    }
}

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    remembered: &mut Option<Slots>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let readings: Vec<&ReadingRecord> = decoded.readings_from(starts).collect();
    if readings.is_empty() {
        return Ok(());
    }
    let slots = match remembered {
        Some(slots) => slots,
        None => remembered.insert(Slots::read(transaction)?),
    };
    let mut slot = slots.take(readings.len());
    readings.iter().for_each(|reading| slot.include(reading));
    match slot.form {
        Form::Rows => {
            insert_rows(transaction, slot.number, &readings)?;
            slots.open = Some(slot);
        }
        Form::Blocks => insert_blocks(transaction, slot.number, &readings)?,
    }
    tally.applied += u64::try_from(readings.len()).unwrap_or(u64::MAX);
    slot.save(transaction)
}

fn insert_rows(
    transaction: &Transaction<'_>,
    slot: i64,
    readings: &[&ReadingRecord],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO reading (slot, sensor, time, partition, offset, value, description, quality, level, extra)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for reading in readings {
        insert.execute(params![
            slot,
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
    }
    Ok(())
}

fn insert_blocks(
    transaction: &Transaction<'_>,
    slot: i64,
    readings: &[&ReadingRecord],
) -> rusqlite::Result<()> {
    readings.chunks(BLOCK_ROWS).try_for_each(|chunk| insert_block(transaction, slot, &Block::encode(chunk)))
}

/// Puts a block into a slot.
pub(crate) fn insert_block(transaction: &Transaction<'_>, slot: i64, block: &Block) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO reading_block (slot, first_sensor, last_sensor, first_time, last_time, rows, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            slot,
            block.first_sensor,
            block.last_sensor,
            block.first_time,
            block.last_time,
            block.rows,
            &block.body,
        ))?;
    Ok(())
}

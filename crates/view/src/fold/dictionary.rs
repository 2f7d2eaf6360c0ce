//! Small numbers in place of texts: one for every sensor id, and one for every description of a sensor (type, unit and
//! place).
//!
//! A reading's row then holds two small integers instead of some eighty bytes of text. The dictionaries belong to
//! no view and only grow, with the number of different sensors; clearing a view leaves them.

use farol_event::{Location, Reading};
use hashbrown::HashMap;
use rusqlite::{OptionalExtension, Transaction};

/// How many sensors are remembered; beyond that all are forgotten and looked up again as they come.
const REMEMBERED_SENSORS: usize = 200_000;
/// How many descriptions are remembered.
const REMEMBERED_DESCRIPTIONS: usize = 50_000;

const CREATE: &str = "
CREATE TABLE IF NOT EXISTS sensor_name (
    number INTEGER PRIMARY KEY,
    sensor_id TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS sensor_description (
    number INTEGER PRIMARY KEY,
    sensor_type TEXT NOT NULL,
    unit TEXT,
    factory_section TEXT,
    machine_id TEXT,
    zone TEXT
);
CREATE INDEX IF NOT EXISTS sensor_description_by_content
    ON sensor_description (machine_id, sensor_type, unit, factory_section, zone);
";

pub(crate) fn prepare(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(CREATE)
}

/// The dictionaries as far as they are remembered.
#[derive(Default)]
pub(crate) struct Dictionary {
    sensors: HashMap<Box<str>, KnownSensor>,
    descriptions: HashMap<Description, u32>,
    /// By number; what `KnownSensor::description` points to, so that a comparison needs no hashing.
    by_number: HashMap<u32, Description>,
}

#[derive(Clone, Copy)]
struct KnownSensor {
    number: u32,
    description: u32,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Description {
    sensor_type: Box<str>,
    unit: Option<Box<str>>,
    factory_section: Option<Box<str>>,
    machine_id: Option<Box<str>>,
    zone: Option<Box<str>>,
}

/// The numbers of one reading's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) sensor: u32,
    pub(crate) description: u32,
}

impl Dictionary {
    /// The numbers for a reading, given out if its texts are new.
    pub(crate) fn numbers(
        &mut self,
        transaction: &Transaction<'_>,
        reading: &Reading<'_>,
    ) -> rusqlite::Result<Numbers> {
        let known = self.sensors.get(reading.sensor_id.as_ref()).copied();
        // Nearly every reading describes its sensor as the one before did.
        if let Some(known) = known
            && self.by_number.get(&known.description).is_some_and(|description| description.is_of(reading))
        {
            return Ok(Numbers { sensor: known.number, description: known.description });
        }
        let description = self.description(transaction, reading)?;
        let sensor = match known {
            Some(known) => known.number,
            None => sensor_number(transaction, &reading.sensor_id)?,
        };
        if self.sensors.len() >= REMEMBERED_SENSORS {
            self.sensors.clear();
        }
        self.sensors.insert(reading.sensor_id.as_ref().into(), KnownSensor { number: sensor, description });
        Ok(Numbers { sensor, description })
    }

    fn description(&mut self, transaction: &Transaction<'_>, reading: &Reading<'_>) -> rusqlite::Result<u32> {
        let description = Description::of(reading);
        if let Some(number) = self.descriptions.get(&description) {
            return Ok(*number);
        }
        let number = description_number(transaction, &description)?;
        if self.descriptions.len() >= REMEMBERED_DESCRIPTIONS {
            self.descriptions.clear();
            self.by_number.clear();
        }
        self.by_number.insert(number, description.clone());
        self.descriptions.insert(description, number);
        Ok(number)
    }
}

impl Description {
    fn of(reading: &Reading<'_>) -> Self {
        let Location { factory_section, machine_id, zone } = &reading.location;
        Self {
            sensor_type: reading.sensor_type.as_ref().into(),
            unit: reading.unit.as_deref().map(Into::into),
            factory_section: factory_section.as_deref().map(Into::into),
            machine_id: machine_id.as_deref().map(Into::into),
            zone: zone.as_deref().map(Into::into),
        }
    }

    fn is_of(&self, reading: &Reading<'_>) -> bool {
        let Location { factory_section, machine_id, zone } = &reading.location;
        *self.sensor_type == *reading.sensor_type
            && self.unit.as_deref() == reading.unit.as_deref()
            && self.machine_id.as_deref() == machine_id.as_deref()
            && self.zone.as_deref() == zone.as_deref()
            && self.factory_section.as_deref() == factory_section.as_deref()
    }
}

fn sensor_number(transaction: &Transaction<'_>, sensor_id: &str) -> rusqlite::Result<u32> {
    let found = transaction
        .prepare_cached("SELECT number FROM sensor_name WHERE sensor_id = ?1")?
        .query_row([sensor_id], |row| row.get(0))
        .optional()?;
    if let Some(number) = found {
        return Ok(number);
    }
    transaction
        .prepare_cached("INSERT INTO sensor_name (sensor_id) VALUES (?1) RETURNING number")?
        .query_row([sensor_id], |row| row.get(0))
}

fn description_number(transaction: &Transaction<'_>, description: &Description) -> rusqlite::Result<u32> {
    let Description { sensor_type, unit, factory_section, machine_id, zone } = description;
    let texts =
        (&**sensor_type, unit.as_deref(), factory_section.as_deref(), machine_id.as_deref(), zone.as_deref());
    let found = transaction
        .prepare_cached(
            "SELECT number FROM sensor_description
             WHERE sensor_type = ?1 AND unit IS ?2 AND factory_section IS ?3 AND machine_id IS ?4 AND zone IS ?5",
        )?
        .query_row(texts, |row| row.get(0))
        .optional()?;
    if let Some(number) = found {
        return Ok(number);
    }
    transaction
        .prepare_cached(
            "INSERT INTO sensor_description (sensor_type, unit, factory_section, machine_id, zone)
             VALUES (?1, ?2, ?3, ?4, ?5) RETURNING number",
        )?
        .query_row(texts, |row| row.get(0))
}

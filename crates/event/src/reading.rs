//! One measurement of one sensor: the record of topic `sensor-data`.
//!
//! [`Reading::parse`] borrows from the bytes it is given wherever it can, because every reading is parsed three times on
//! its way (at the door, by the detect processor, by the view). What the sender wrote is what the log keeps: nothing is
//! re-encoded, so unknown fields survive, and a reading without `timestamp` takes the time of the record it lies in.
//!
//! Limits, each with an error that names it: [`MAX_READING_BYTES`], [`MAX_SENSOR_ID_BYTES`], [`MAX_LABEL_BYTES`],
//! [`MAX_UNKNOWN_FIELDS`], and timestamps from 1970 to [`MAX_AHEAD`](crate::timestamp::MAX_AHEAD) after arrival.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::is_path_step;
use crate::severity::AlertLevel;
use crate::timestamp::{Timestamp, TimestampError};

mod plain;

/// The longest accepted reading, in bytes of JSON.
pub const MAX_READING_BYTES: usize = 64 * 1024;
/// The longest accepted `sensor_id`, in bytes.
pub const MAX_SENSOR_ID_BYTES: usize = 256;
/// The longest accepted `sensor_type`, `unit` or location field, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;
/// How many fields beyond the documented ones a reading may carry.
pub const MAX_UNKNOWN_FIELDS: usize = 64;
/// What a reading without `sensor_type` counts as.
pub const UNKNOWN_SENSOR_TYPE: &str = "unknown";

/// One measurement of one sensor, as parsed from a record's value.
#[derive(Debug, Clone)]
pub struct Reading<'a> {
    /// When it was measured; the arrival time if the sender gave none.
    pub timestamp: Timestamp,
    /// Who measured. Never empty, at most [`MAX_SENSOR_ID_BYTES`], no control characters.
    pub sensor_id: Cow<'a, str>,
    /// What is measured: `temperature`, `vibration`, …; [`UNKNOWN_SENSOR_TYPE`] if the sender gave none.
    pub sensor_type: Cow<'a, str>,
    /// Where the sensor stands.
    pub location: Location<'a>,
    /// The measured value, always finite, in [`Reading::unit`].
    pub value: f64,
    /// The unit as the sender writes it (`°C`, `mm/s`, …).
    pub unit: Option<Cow<'a, str>>,
    /// What the sender thinks of the value.
    pub alert_level: Option<AlertLevel>,
    /// How far the sender trusts the value, 0..=1.
    pub quality: Option<f64>,
    /// The sender's own notes, a JSON object as it was written.
    pub metadata: Option<&'a RawValue>,
    /// Fields that Farol doesn't know, as they were written, in the sender's order.
    pub unknown: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// Where a sensor stands. Every part is optional.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Location<'a> {
    /// Section of the plant.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub factory_section: Option<Cow<'a, str>>,
    /// The machine that carries the sensor.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub machine_id: Option<Cow<'a, str>>,
    /// Zone within the section.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Cow<'a, str>>,
}

/// Why bytes are no reading.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReadingError {
    /// Longer than [`MAX_READING_BYTES`].
    #[error("the reading has {bytes} bytes; at most {MAX_READING_BYTES} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not JSON, or a field of the wrong type, or a required field missing. The text says which and where.
    #[error("{0}")]
    Malformed(String),
    /// `sensor_id` is empty, too long, has control characters, or is `.` or `..`.
    #[error("`sensor_id` {0}")]
    SensorId(&'static str),
    /// A label is too long or has control characters.
    #[error("`{field}` must have at most {MAX_LABEL_BYTES} bytes and no control characters")]
    Label {
        /// Which field.
        field: &'static str,
    },
    /// `value` is NaN or infinite (a JSON number such as 1e999).
    #[error("`value` must be a finite number")]
    ValueNotFinite,
    /// `quality` is outside 0..=1.
    #[error("`quality` must be between 0 and 1, not {0}")]
    Quality(f64),
    /// `metadata` is not an object.
    #[error("`metadata` must be a JSON object")]
    Metadata,
    /// More unknown fields than [`MAX_UNKNOWN_FIELDS`].
    #[error("more than {MAX_UNKNOWN_FIELDS} unknown fields")]
    TooManyUnknownFields,
    /// `timestamp` is no RFC 3339 text.
    #[error("`timestamp`: {0}")]
    Timestamp(#[from] TimestampError),
    /// `timestamp` is before 1970 or more than [`MAX_AHEAD`](crate::timestamp::MAX_AHEAD) after arrival.
    #[error(
        "`timestamp` {timestamp} is {problem}; readings from 1970 to 24 hours after arrival are accepted"
    )]
    AbsurdTimestamp {
        /// The refused instant.
        timestamp: Timestamp,
        /// `before 1970` or `too far in the future`.
        problem: &'static str,
    },
}

impl<'a> Reading<'a> {
    /// Parses and checks one reading.
    ///
    /// `arrival` is when the record arrived: it stands in for a missing `timestamp`, and bounds a given one.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`ReadingError`].
    pub fn parse(json: &'a [u8], arrival: Timestamp) -> Result<Self, ReadingError> {
        if json.len() > MAX_READING_BYTES {
            return Err(ReadingError::TooLong { bytes: json.len() });
        }
        // Once for the whole text: the parser would check every piece of it by itself.
        let text =
            std::str::from_utf8(json).map_err(|e| ReadingError::Malformed(format!("not UTF-8: {e}")))?;
        match plain::parse(text) {
            Some(raw) => raw.check(arrival),
            None => Self::parse_any_form(text, arrival),
        }
    }

    /// With the general parser, which takes everything that is allowed and can say what isn't.
    fn parse_any_form(text: &'a str, arrival: Timestamp) -> Result<Self, ReadingError> {
        let raw: RawReading<'a> =
            serde_json::from_str(text).map_err(|e| ReadingError::Malformed(e.to_string()))?;
        raw.check(arrival)
    }

    /// The reading as a JSON object, all fields in the documented order and unknown ones after them.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        object.insert("timestamp".into(), self.timestamp.to_string().into());
        object.insert("sensor_id".into(), self.sensor_id.as_ref().into());
        object.insert("sensor_type".into(), self.sensor_type.as_ref().into());
        let mut location = serde_json::Map::new();
        for (field, part) in self.location.parts() {
            if let Some(part) = part {
                location.insert(field.into(), part.into());
            }
        }
        if !location.is_empty() {
            object.insert("location".into(), location.into());
        }
        object.insert("value".into(), self.value.into());
        if let Some(unit) = &self.unit {
            object.insert("unit".into(), unit.as_ref().into());
        }
        if let Some(level) = self.alert_level {
            object.insert("alert_level".into(), level.as_str().into());
        }
        if let Some(quality) = self.quality {
            object.insert("quality".into(), quality.into());
        }
        let raw = self.metadata.map(|m| ("metadata", m));
        let unknown = self.unknown.iter().map(|(name, value)| (name.as_ref(), *value));
        for (name, value) in raw.into_iter().chain(unknown) {
            // A raw value has been parsed once already; only nesting beyond the parser's limit can still refuse it.
            let value = serde_json::from_str(value.get()).unwrap_or(serde_json::Value::Null);
            object.insert(name.into(), value);
        }
        object.into()
    }
}

impl Location<'_> {
    /// Field names and contents, in the documented order. The names are also the labels that rules select by.
    pub fn parts(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("factory_section", self.factory_section.as_deref()),
            ("machine_id", self.machine_id.as_deref()),
            ("zone", self.zone.as_deref()),
        ]
    }
}

/// The fields as the sender wrote them, before any check.
#[derive(Default)]
struct RawReading<'a> {
    timestamp: Option<Cow<'a, str>>,
    sensor_id: Option<Cow<'a, str>>,
    sensor_type: Option<Cow<'a, str>>,
    location: Option<Location<'a>>,
    value: Option<f64>,
    unit: Option<Cow<'a, str>>,
    alert_level: Option<AlertLevel>,
    quality: Option<f64>,
    metadata: Option<&'a RawValue>,
    unknown: Vec<(Cow<'a, str>, &'a RawValue)>,
    too_many_unknown: bool,
}

impl<'a> RawReading<'a> {
    fn check(self, arrival: Timestamp) -> Result<Reading<'a>, ReadingError> {
        let missing = |field: &str| ReadingError::Malformed(format!("missing field `{field}`"));
        let sensor_id = self.sensor_id.ok_or_else(|| missing("sensor_id"))?;
        if sensor_id.is_empty() {
            return Err(ReadingError::SensorId("must not be empty"));
        }
        if sensor_id.len() > MAX_SENSOR_ID_BYTES {
            return Err(ReadingError::SensorId("has more than 256 bytes"));
        }
        if has_control_characters(&sensor_id) {
            return Err(ReadingError::SensorId("must not contain control characters"));
        }
        if is_path_step(&sensor_id) {
            return Err(ReadingError::SensorId(
                "must not be `.` or `..`: no address can have that for a name",
            ));
        }
        let value = self.value.ok_or_else(|| missing("value"))?;
        if !value.is_finite() {
            return Err(ReadingError::ValueNotFinite);
        }
        if let Some(quality) = self.quality
            && !(0.0..=1.0).contains(&quality)
        {
            return Err(ReadingError::Quality(quality));
        }
        let location = self.location.unwrap_or_default();
        let labels = [("sensor_type", self.sensor_type.as_deref()), ("unit", self.unit.as_deref())];
        for (field, label) in labels.into_iter().chain(location.parts()) {
            if label.is_some_and(|l| l.len() > MAX_LABEL_BYTES || has_control_characters(l)) {
                return Err(ReadingError::Label { field });
            }
        }
        if self.metadata.is_some_and(|m| !m.get().trim_start().starts_with('{')) {
            return Err(ReadingError::Metadata);
        }
        if self.too_many_unknown {
            return Err(ReadingError::TooManyUnknownFields);
        }
        let timestamp = match self.timestamp {
            Some(text) => text.parse()?,
            None => arrival,
        };
        if timestamp < Timestamp::EPOCH {
            return Err(ReadingError::AbsurdTimestamp { timestamp, problem: "before 1970" });
        }
        if timestamp.is_too_far_after(arrival) {
            return Err(ReadingError::AbsurdTimestamp { timestamp, problem: "too far in the future" });
        }
        Ok(Reading {
            timestamp,
            sensor_id,
            sensor_type: match self.sensor_type {
                Some(given) if !given.is_empty() => given,
                _ => Cow::Borrowed(UNKNOWN_SENSOR_TYPE),
            },
            location,
            value,
            unit: self.unit,
            alert_level: self.alert_level,
            quality: self.quality,
            metadata: self.metadata,
            unknown: self.unknown,
        })
    }
}

/// Whether a text has control characters: those of ASCII, or of Unicode's second block of them.
fn has_control_characters(text: &str) -> bool {
    // In one go over all bytes, which the compiler does many at a time, and nearly every text is ASCII.
    let (control, ascii) = text.bytes().fold((false, true), |(control, ascii), byte| {
        (control | byte.is_ascii_control(), ascii & byte.is_ascii())
    });
    control || (!ascii && text.chars().any(char::is_control))
}

impl<'de: 'a, 'a> Deserialize<'de> for RawReading<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawReadingVisitor)
    }
}

/// By hand, because a derived `flatten` copies every field through a tree and costs four times as much.
struct RawReadingVisitor;

impl<'de> Visitor<'de> for RawReadingVisitor {
    type Value = RawReading<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with at least `sensor_id` and `value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawReading<'de>, A::Error> {
        let mut raw = RawReading::default();
        while let Some(BorrowedKey(name)) = map.next_key()? {
            match name.as_ref() {
                "timestamp" => once(&mut raw.timestamp, "timestamp", text(&mut map, "timestamp")?)?,
                "sensor_id" => once(&mut raw.sensor_id, "sensor_id", text(&mut map, "sensor_id")?)?,
                "sensor_type" => once(&mut raw.sensor_type, "sensor_type", text(&mut map, "sensor_type")?)?,
                "unit" => once(&mut raw.unit, "unit", text(&mut map, "unit")?)?,
                "location" => {
                    let given: Option<LocationObject<'de>> = named(map.next_value(), "location")?;
                    once(&mut raw.location, "location", given.map(|LocationObject(location)| location))?;
                }
                "value" => once(&mut raw.value, "value", named(map.next_value(), "value")?)?,
                "alert_level" => {
                    once(&mut raw.alert_level, "alert_level", named(map.next_value(), "alert_level")?)?
                }
                "quality" => once(&mut raw.quality, "quality", named(map.next_value(), "quality")?)?,
                "metadata" => {
                    let given: &'de RawValue = map.next_value()?;
                    let given = (given.get() != "null").then_some(given);
                    once(&mut raw.metadata, "metadata", given)?;
                }
                _ if raw.unknown.len() < MAX_UNKNOWN_FIELDS => raw.unknown.push((name, map.next_value()?)),
                _ => {
                    raw.too_many_unknown = true;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(raw)
    }
}

/// A location written as a JSON object. (A derived reader also takes an array of the fields in order.)
struct LocationObject<'a>(Location<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for LocationObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Location<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Location<'de>, A::Error> {
                Location::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(ObjectVisitor).map(Self)
    }
}

/// Fills `slot` unless the field came before: which of two would count is nobody's guess.
fn once<T, E: de::Error>(slot: &mut Option<T>, field: &'static str, given: Option<T>) -> Result<(), E> {
    if slot.is_some() {
        return Err(E::duplicate_field(field));
    }
    *slot = given;
    Ok(())
}

/// A text or null.
fn text<'de, A: MapAccess<'de>>(map: &mut A, field: &'static str) -> Result<Option<Cow<'de, str>>, A::Error> {
    let given: Option<BorrowedKey<'de>> = named(map.next_value(), field)?;
    Ok(given.map(|BorrowedKey(text)| text))
}

/// Puts the field's name in front of what is wrong with it.
fn named<T, E: de::Error>(result: Result<T, E>, field: &'static str) -> Result<T, E> {
    result.map_err(|e| E::custom(format_args!("`{field}`: {}", without_place(&e.to_string()))))
}

/// Cuts the parser's " at line 1 column 7", which the outer error says again.
fn without_place(message: &str) -> &str {
    message.rfind(" at line ").and_then(|at| message.get(..at)).unwrap_or(message)
}

/// A text that borrows from the input unless it has escapes. (`Cow` alone always copies in serde.)
struct BorrowedKey<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for BorrowedKey<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = BorrowedKey<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(BorrowedKey(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(BorrowedKey(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests;

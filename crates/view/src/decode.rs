//! From polled batches to what the folds need, each record parsed once however many views take it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use farol_bus::{ConsumedBatch, ConsumedRecord};
use farol_event::{AlertLevel, Event, EventError, Position, Reading, ReadingError, Timestamp};
use rusqlite::Transaction;
use serde::Deserialize;

use crate::fold::Tally;
use crate::fold::dictionary::Dictionary;
use crate::name::{TopicContent, ViewName, ViewTopics};
use crate::store::{AllPositions, PositionMap};

/// A reading as the folds need it: texts as numbers, times in microseconds since the Unix epoch.
#[derive(Debug)]
pub(crate) struct ReadingRecord {
    pub(crate) sensor: u32,
    pub(crate) description: u32,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) time: i64,
    pub(crate) arrival: i64,
    pub(crate) value: f64,
    pub(crate) quality: Option<f64>,
    pub(crate) level: Option<AlertLevel>,
    /// `{"metadata":{…},"unknown":{…}}`, if the sender wrote any.
    pub(crate) extra: Option<Box<str>>,
}

/// An event with where it stands.
#[derive(Debug)]
pub(crate) struct EventRecord {
    pub(crate) content: TopicContent,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) arrival: Timestamp,
    pub(crate) event: Event,
}

/// A dead letter with where it stands.
#[derive(Debug)]
pub(crate) struct DeadLetterRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) value: DeadLetterValue,
}

/// The value of topic `dead-letters`.
#[derive(Debug, Deserialize)]
pub(crate) struct DeadLetterValue {
    pub(crate) at: Timestamp,
    pub(crate) reason: String,
    pub(crate) source: Position,
    #[serde(default)]
    pub(crate) key: Option<String>,
    #[serde(default)]
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) consumer_id: Option<String>,
}

/// A record that could not be parsed.
#[derive(Debug)]
struct Unreadable {
    content: TopicContent,
    partition: i32,
    offset: i64,
    reason: &'static str,
}

/// From which offset on a view takes records, per partition; absent: all.
#[derive(Debug, Default, Clone)]
pub(crate) struct Starts(BTreeMap<(TopicContent, i32), i64>);

impl Starts {
    /// A view's positions before the apply.
    pub(crate) fn of(topics: &ViewTopics, positions: &PositionMap) -> Self {
        let known = positions.iter().filter_map(|(partition, next)| {
            topics.content_of(&partition.topic).map(|content| ((content, partition.partition), *next))
        });
        Self(known.collect())
    }

    /// Whether the view takes the record at that offset.
    pub(crate) fn take(&self, content: TopicContent, partition: i32, offset: i64) -> bool {
        self.0.get(&(content, partition)).is_none_or(|start| offset >= *start)
    }

    /// The offset from which on some view takes records of this partition.
    fn earliest<'a>(all: impl Iterator<Item = &'a Starts>, content: TopicContent, partition: i32) -> i64 {
        all.map(|starts| starts.0.get(&(content, partition)).copied().unwrap_or(0)).min().unwrap_or(0)
    }
}

/// The records of one apply, parsed.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) readings: Vec<ReadingRecord>,
    /// Indexes into `readings`, ordered by sensor, then time.
    pub(crate) by_sensor: Vec<u32>,
    pub(crate) events: Vec<EventRecord>,
    pub(crate) dead_letters: Vec<DeadLetterRecord>,
    unreadable: Vec<Unreadable>,
}

impl Decoded {
    /// Parses each record that at least one of the views takes.
    pub(crate) fn decode(
        transaction: &Transaction<'_>,
        dictionary: &mut Dictionary,
        topics: &ViewTopics,
        views: &BTreeSet<ViewName>,
        positions: &AllPositions,
        batches: &[ConsumedBatch],
    ) -> rusqlite::Result<Self> {
        let nowhere = PositionMap::new();
        let starts: Vec<(ViewName, Starts)> = views
            .iter()
            .map(|view| (*view, Starts::of(topics, positions.get(view).unwrap_or(&nowhere))))
            .collect();
        let mut decoded = Self::default();
        let mut next: BTreeMap<(TopicContent, i32), i64> = BTreeMap::new();
        for batch in batches {
            let Some(content) = topics.content_of(&batch.partition.topic) else { continue };
            let mut takers =
                starts.iter().filter(|(view, _)| view.folds(content)).map(|(_, starts)| starts).peekable();
            if takers.peek().is_none() {
                continue;
            }
            let partition = batch.partition.partition;
            // A batch that is given twice in one call is taken once.
            let from = next
                .entry((content, partition))
                .or_insert_with(|| Starts::earliest(takers, content, partition));
            for record in batch.records.iter().filter(|record| record.offset >= *from) {
                decoded.record(transaction, dictionary, content, batch, record)?;
            }
            *from = batch.next_offset.max(*from);
        }
        decoded.order_readings();
        Ok(decoded)
    }

    /// Counts the records that the view would have taken if they could be read.
    pub(crate) fn count_unreadable(&self, view: ViewName, starts: &Starts, tally: &mut Tally) {
        for record in &self.unreadable {
            if view.folds(record.content) && starts.take(record.content, record.partition, record.offset) {
                tally.skip(record.reason);
            }
        }
    }

    fn record(
        &mut self,
        transaction: &Transaction<'_>,
        dictionary: &mut Dictionary,
        content: TopicContent,
        batch: &ConsumedBatch,
        record: &ConsumedRecord,
    ) -> rusqlite::Result<()> {
        let partition = batch.partition.partition;
        let offset = record.offset;
        let unreadable = |reason| Unreadable { content, partition, offset, reason };
        let Some(value) = record.value.as_deref() else {
            self.unreadable.push(unreadable("the record has no value"));
            return Ok(());
        };
        match content {
            TopicContent::Readings => match Reading::parse(value, record.timestamp()) {
                Ok(reading) => {
                    let numbers = dictionary.numbers(transaction, &reading)?;
                    self.readings.push(ReadingRecord {
                        sensor: numbers.sensor,
                        description: numbers.description,
                        partition,
                        offset,
                        time: reading.timestamp.as_micros(),
                        arrival: record.timestamp().as_micros(),
                        value: reading.value,
                        quality: reading.quality,
                        level: reading.alert_level,
                        extra: extra_fields(&reading),
                    });
                }
                Err(error) => self.unreadable.push(unreadable(reading_reason(&error))),
            },
            TopicContent::Alerts | TopicContent::SystemEvents => {
                match Event::parse(value, record.timestamp()) {
                    Ok(event) => {
                        let topic = Arc::clone(&batch.partition.topic);
                        let arrival = record.timestamp();
                        self.events.push(EventRecord { content, topic, partition, offset, arrival, event });
                    }
                    Err(error) => self.unreadable.push(unreadable(event_reason(&error))),
                }
            }
            TopicContent::DeadLetters => match serde_json::from_slice(value) {
                Ok(value) => self.dead_letters.push(DeadLetterRecord { partition, offset, value }),
                Err(_) => self.unreadable.push(unreadable("not a dead letter")),
            },
        }
        Ok(())
    }

    /// By sensor and time, as the tables are: neighbours in the tables are then written one after the other.
    fn order_readings(&mut self) {
        let mut keys: Vec<(u32, i64, u32)> = (0_u32..)
            .zip(&self.readings)
            .map(|(index, reading)| (reading.sensor, reading.time, index))
            .collect();
        keys.sort_unstable();
        self.by_sensor = keys.into_iter().map(|(_, _, index)| index).collect();
    }

    /// The readings that a view takes, ordered by sensor, then time.
    pub(crate) fn readings_from<'a>(&'a self, starts: &'a Starts) -> impl Iterator<Item = &'a ReadingRecord> {
        self.by_sensor
            .iter()
            .filter_map(|index| self.readings.get(usize::try_from(*index).unwrap_or(usize::MAX)))
            .filter(|reading| starts.take(TopicContent::Readings, reading.partition, reading.offset))
    }

    /// The events that a view takes, in the order in which they were given.
    pub(crate) fn events_from<'a>(&'a self, starts: &'a Starts) -> impl Iterator<Item = &'a EventRecord> {
        self.events.iter().filter(|record| starts.take(record.content, record.partition, record.offset))
    }

    /// The dead letters that a view takes.
    pub(crate) fn dead_letters_from<'a>(
        &'a self,
        starts: &'a Starts,
    ) -> impl Iterator<Item = &'a DeadLetterRecord> {
        self.dead_letters
            .iter()
            .filter(|record| starts.take(TopicContent::DeadLetters, record.partition, record.offset))
    }
}

/// What the sender wrote beyond the columns, as one JSON object of raw texts.
fn extra_fields(reading: &Reading<'_>) -> Option<Box<str>> {
    if reading.metadata.is_none() && reading.unknown.is_empty() {
        return None;
    }
    let texts = reading.unknown.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum::<usize>();
    let mut extra = String::with_capacity(texts + reading.metadata.map_or(0, |m| m.get().len()) + 32);
    extra.push('{');
    if let Some(metadata) = reading.metadata {
        extra.push_str("\"metadata\":");
        extra.push_str(metadata.get());
    }
    if !reading.unknown.is_empty() {
        extra.push_str(if reading.metadata.is_some() { ",\"unknown\":{" } else { "\"unknown\":{" });
        for (index, (name, value)) in reading.unknown.iter().enumerate() {
            if index > 0 {
                extra.push(',');
            }
            push_json_string(&mut extra, name);
            extra.push(':');
            extra.push_str(value.get());
        }
        extra.push('}');
    }
    extra.push('}');
    Some(extra.into())
}

/// A text as JSON writes it.
fn push_json_string(into: &mut String, text: &str) {
    if text.bytes().any(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        // Writing to a String can't fail; a JSON string is what `Value` prints.
        let _ = write!(into, "{}", serde_json::Value::from(text));
    } else {
        into.push('"');
        into.push_str(text);
        into.push('"');
    }
}

/// Reasons are a short, fixed list, because they name counters.
fn reading_reason(error: &ReadingError) -> &'static str {
    match error {
        ReadingError::TooLong { .. } => "the reading is too long",
        ReadingError::Malformed(_) => "not a reading",
        ReadingError::SensorId(_) => "bad sensor_id",
        ReadingError::Label { .. } => "bad label",
        ReadingError::ValueNotFinite => "the value is not finite",
        ReadingError::Quality(_) => "quality outside 0 to 1",
        ReadingError::Metadata => "metadata is not an object",
        ReadingError::TooManyUnknownFields => "too many unknown fields",
        ReadingError::Timestamp(_) => "bad timestamp",
        ReadingError::AbsurdTimestamp { .. } => "absurd timestamp",
    }
}

fn event_reason(error: &EventError) -> &'static str {
    match error {
        EventError::TooLong { .. } => "the event is too long",
        EventError::Malformed(_) => "not an event",
        EventError::Missing(_) => "the event lacks an attribute",
        EventError::Attribute { .. } => "the event has a bad attribute",
        EventError::Time(_) | EventError::TimeAhead(_) => "the event has a bad time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_unknown_fields_are_written_as_json_writes_them() {
        for text in ["", "seq", "°C", "a\"b", "back\\slash", "line\nend", "\u{1}", "\u{7f}\u{85}\u{2028}"] {
            let mut written = String::new();
            push_json_string(&mut written, text);
            assert_eq!(written, serde_json::to_string(text).unwrap(), "{text:?}");
        }
    }
}

//! `farol consume`: the records of a topic on standard output, one a line.
//!
//! Whoever reads may go (a closed pipe); then it stops, and that is no error. What others wrote is printed so that a terminal
//! obeys none of it. A member of a group commits what it has printed (`printed`); whoever follows
//! waits for a broker that goes away (`outage`).

mod outage;
mod printed;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use farol_bus::kafka::KafkaBus;
use farol_bus::{
    Bus as _, BusError, ConsumedBatch, ConsumedRecord, Consumer, ConsumerSettings, OffsetReset, Polled,
    StartAt, TopicPartition,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::outage::Outage;
use self::printed::Printed;
use super::{connect, extents, name_of_this_process, partitions_of, topic};
use crate::cli;
use crate::client::{interrupted, until_interrupted};
use crate::settings::Settings;
use crate::terminal::{harmless, harmless_json};

/// How long one poll waits; Ctrl-C doesn't wait for it.
const POLL: Duration = Duration::from_secs(1);

/// The pause after a poll that failed for want of a broker.
const PAUSE: Duration = Duration::from_millis(500);

/// Prints until told to stop, or until what was asked for is printed.
pub fn run(arguments: cli::Consume, settings: &Settings) -> anyhow::Result<ExitCode> {
    until_interrupted(|stop| async move {
        let Some(opened) = stop.run_until_cancelled(open(settings, &arguments)).await else {
            return Ok(interrupted());
        };
        let (bus, mut consumer, mut until) = opened?;
        let mut printed = Printed::default();
        let ended = print(&bus, consumer.as_mut(), &arguments, &mut until, &mut printed, &stop).await;
        let settled = printed.settle(consumer.as_mut()).await;
        consumer.close().await?;
        ended?;
        tell_uncommitted(&settled?);
        Ok(ExitCode::SUCCESS)
    })
}

fn tell_uncommitted(partitions: &[TopicPartition]) {
    if partitions.is_empty() {
        return;
    }
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    // Nobody may be looking.
    let _ = writeln!(
        io::stderr(),
        "how far {} was printed could not be committed; the group may print some of it again",
        names.join(", ")
    );
}

/// When it is done.
enum Until {
    /// Never.
    Stopped,
    /// When it has got partitions, which a member must wait for; it then stops at their ends.
    Assigned,
    /// When each of these partitions is read up to its end.
    Ends(BTreeMap<TopicPartition, i64>),
}

type Opened = (Arc<KafkaBus>, Box<dyn Consumer>, Until);

async fn open(settings: &Settings, arguments: &cli::Consume) -> anyhow::Result<Opened> {
    let bus = connect(settings, "farol-consume").await?;
    let (consumer, until) = match &arguments.group {
        Some(group) => (member(&bus, group, arguments).await?, until_of_member(arguments)),
        None => reader(&bus, arguments).await?,
    };
    Ok((bus, consumer, until))
}

fn until_of_member(arguments: &cli::Consume) -> Until {
    if arguments.from_beginning && !arguments.follow { Until::Assigned } else { Until::Stopped }
}

async fn member(bus: &KafkaBus, group: &str, arguments: &cli::Consume) -> anyhow::Result<Box<dyn Consumer>> {
    let offset_reset = if arguments.from_beginning { OffsetReset::Earliest } else { OffsetReset::Latest };
    topic(bus, &arguments.topic).await?;
    let settings = ConsumerSettings {
        offset_reset,
        ..ConsumerSettings::member(name_of_this_process("farol-consume"), group)
    };
    let mut consumer = bus.consumer(settings).await?;
    consumer.subscribe(&[&arguments.topic]).await?;
    Ok(consumer)
}

async fn reader(bus: &KafkaBus, arguments: &cli::Consume) -> anyhow::Result<(Box<dyn Consumer>, Until)> {
    let name = &arguments.topic;
    let topic = topic(bus, name).await?;
    let mut partitions = partitions_of(&topic.name, topic.partitions);
    if let Some(partition) = arguments.partition {
        partitions.retain(|p| p.partition == partition);
        anyhow::ensure!(!partitions.is_empty(), "topic {name} has {} partitions, from 0", topic.partitions);
    }
    let extents = extents(bus, &partitions).await?;
    let begin = match arguments.offset {
        Some(offset) => offset_to_begin_at(bus, &partitions, offset, arguments.follow).await?,
        None if arguments.from_beginning => StartAt::Earliest,
        None => StartAt::Latest,
    };
    let follow = arguments.follow || begin == StartAt::Latest;
    let until = if follow { Until::Stopped } else { Until::Ends(ends(extents)) };
    let mut consumer = bus.consumer(ConsumerSettings::standalone("farol-consume")).await?;
    consumer.assign(partitions.into_iter().map(|partition| (partition, begin)).collect()).await?;
    Ok((consumer, until))
}

/// The offset, if there can be a record. Whoever follows waits at the end for one.
async fn offset_to_begin_at(
    bus: &KafkaBus,
    partitions: &[TopicPartition],
    offset: i64,
    follow: bool,
) -> anyhow::Result<StartAt> {
    let ends = bus.written_ends(partitions).await?;
    let Some((partition, end)) = ends.into_iter().find(|(_, end)| *end < offset) else {
        return Ok(StartAt::Offset(offset));
    };
    anyhow::ensure!(
        follow,
        "{partition} ends at {end}, before offset {offset}; --follow waits for new records"
    );
    let mut err = io::stderr().lock();
    writeln!(err, "{partition} ends at {end}, before offset {offset}; waiting for new records")?;
    Ok(StartAt::Latest)
}

fn ends(extents: BTreeMap<TopicPartition, (i64, i64)>) -> BTreeMap<TopicPartition, i64> {
    extents.into_iter().map(|(partition, (_, end))| (partition, end)).collect()
}

async fn print(
    bus: &KafkaBus,
    consumer: &mut dyn Consumer,
    arguments: &cli::Consume,
    until: &mut Until,
    printed: &mut Printed,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut left = arguments.max_messages.unwrap_or(u64::MAX);
    let mut outage = Outage::new(bus, &arguments.topic);
    while left > 0 && !stop.is_cancelled() && !is_done(consumer, until) && !nobody_reads() {
        let polled = tokio::select! {
            polled = consumer.poll(POLL) => polled,
            () = stop.cancelled() => return Ok(()),
        };
        let polled = match polled {
            Ok(polled) => polled,
            Err(error) if matches!(until, Until::Stopped) => {
                outage.note(error)?;
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                continue;
            }
            Err(BusError::Unreachable) => anyhow::bail!("{} does not answer any more", bus.brokers()),
            Err(error) => return Err(error.into()),
        };
        if matches!(until, Until::Stopped) {
            stop.run_until_cancelled(outage.look(&polled)).await.transpose()?;
        }
        let batches = match polled {
            Polled::Records(batches) => batches,
            Polled::Assigned(assignment) => {
                if arguments.group.is_some() {
                    printed.assigned(&assignment, consumer)?;
                    stop.run_until_cancelled(printed.commit(consumer)).await.transpose()?;
                }
                if !matches!(until, Until::Stopped) {
                    let gained: Vec<_> =
                        assignment.partitions.into_iter().map(|(partition, _)| partition).collect();
                    until.gain(ends(extents(bus, &gained).await?));
                }
                continue;
            }
            Polled::Revoked(partitions) => {
                printed.revoked(&partitions, consumer).await?;
                continue;
            }
        };
        let mut reached = BTreeMap::new();
        let written = write(&batches, arguments, until, &mut left, &mut reached);
        if arguments.group.is_some() {
            printed.note(reached);
            tokio::select! {
                committed = printed.commit(consumer) => committed?,
                // It is tried once more at the end.
                () = stop.cancelled() => {}
            }
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("can't write to standard output")?,
        }
    }
    Ok(())
}

impl Until {
    /// The member has more partitions, which end there.
    fn gain(&mut self, gained: BTreeMap<TopicPartition, i64>) {
        match self {
            Self::Stopped => {}
            // Until the others have given some up, it may have none.
            Self::Assigned if gained.is_empty() => {}
            Self::Assigned => *self = Self::Ends(gained),
            Self::Ends(ends) => ends.extend(gained),
        }
    }
}

/// Whether everything up to the ends that there were has been read.
fn is_done(consumer: &dyn Consumer, until: &mut Until) -> bool {
    let Until::Ends(ends) = until else { return false };
    ends.retain(|partition, end| consumer.position(partition).is_some_and(|position| position < *end));
    ends.is_empty()
}

/// Whether whoever read standard output has gone: while there is nothing to write, no write says so.
fn nobody_reads() -> bool {
    let out = io::stdout();
    let mut waiting = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec::default();
    rustix::event::poll(&mut waiting, Some(&now)).is_ok()
        && waiting.iter().any(|out| out.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

/// Writes records, and notes how far each partition was written.
fn write(
    batches: &[ConsumedBatch],
    arguments: &cli::Consume,
    until: &Until,
    left: &mut u64,
    reached: &mut BTreeMap<TopicPartition, i64>,
) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for batch in batches {
        let end = match until {
            Until::Stopped | Until::Assigned => i64::MAX,
            Until::Ends(ends) => ends.get(&batch.partition).copied().unwrap_or(i64::MIN),
        };
        for record in batch.records.iter().filter(|record| record.offset < end) {
            if *left == 0 {
                break;
            }
            if arguments.form.json {
                writeln!(out, "{}", harmless_json(&as_json(&batch.partition, record)?))?;
            } else {
                writeln!(out, "{}", as_text(&batch.partition, record, arguments.pretty))?;
            }
            *left -= 1;
            reached.insert(batch.partition.clone(), record.offset + 1);
        }
    }
    out.flush()
}

/// Position, time, key, headers and value; a tombstone has no value.
fn as_text(partition: &TopicPartition, record: &ConsumedRecord, pretty: bool) -> String {
    let mut line = format!("{partition}@{}  {}", record.offset, record.timestamp());
    if let Some(key) = &record.key {
        line.push_str(&format!("  {}", harmless(&String::from_utf8_lossy(key))));
    }
    for (name, value) in &record.headers {
        let value = String::from_utf8_lossy(value);
        line.push_str(&format!("  {}={}", harmless(name), harmless(&value)));
    }
    let Some(value) = &record.value else { return line + "  (tombstone)" };
    let json = serde_json::from_slice::<&RawValue>(value).ok();
    match (json, serde_json::from_slice::<Value>(value)) {
        (Some(_), Ok(value)) if pretty => {
            let lines: Vec<String> = format!("{value:#}").lines().map(harmless).collect();
            format!("{line}\n{}", lines.join("\n"))
        }
        (Some(json), _) => format!("{line}  {}", harmless(&without_spaces(json.get()))),
        (None, _) => format!("{line}  {}", harmless(&String::from_utf8_lossy(value))),
    }
}

/// JSON in one line, otherwise as its writer wrote it: its numbers may be more than this program could hold.
fn without_spaces(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    json.chars()
        .filter(|c| {
            let kept = in_string || !c.is_ascii_whitespace();
            (in_string, escaped) = match c {
                '"' if !escaped => (!in_string, false),
                '\\' if in_string => (true, !escaped),
                _ => (in_string, false),
            };
            kept
        })
        .collect()
}

/// A record as `--json` prints it.
#[derive(Serialize)]
struct JsonRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: String,
    key: Value,
    headers: Vec<Value>,
    value: Option<Box<RawValue>>,
    /// There is no value, which isn't the same as the JSON text `null`.
    #[serde(skip_serializing_if = "is_false")]
    tombstone: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn as_json(partition: &TopicPartition, record: &ConsumedRecord) -> serde_json::Result<String> {
    let headers = record.headers.iter().map(|(name, value)| json!([name, text_or_bytes(value)]));
    let value = |value: &[u8]| match serde_json::from_slice::<&RawValue>(value) {
        Ok(json) => RawValue::from_string(without_spaces(json.get())),
        Err(_) => serde_json::value::to_raw_value(&text_or_bytes(value)),
    };
    serde_json::to_string(&JsonRecord {
        topic: &partition.topic,
        partition: partition.partition,
        offset: record.offset,
        timestamp: record.timestamp().to_string(),
        key: record.key.as_deref().map_or(Value::Null, text_or_bytes),
        headers: headers.collect(),
        value: record.value.as_deref().map(value).transpose()?,
        tombstone: record.value.is_none(),
    })
}

/// Text as it is; anything else as `{"base64": "…"}`.
fn text_or_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumedRecord {
        ConsumedRecord {
            offset: 7,
            timestamp_ms: 1_700_000_000_000,
            key: key.map(Into::into),
            value: value.map(Into::into),
            headers: vec![("source".to_owned(), b"a\tb"[..].into())],
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let partition = TopicPartition::new("t", 1);
        let text = |record: &ConsumedRecord| as_text(&partition, record, false);
        let json = record(Some(b"k"), Some(b"{ \"b\": 1,\n \"a\": [2] }"));
        assert_eq!(text(&json), "t/1@7  2023-11-14T22:13:20.000000Z  k  source=a\\tb  {\"b\":1,\"a\":[2]}");
        assert_eq!(
            as_text(&partition, &json, true).lines().nth(1),
            Some("{"),
            "over several lines if that is wanted"
        );
        let other = text(&record(None, Some(b"two\nlines \x1b[0m \xff")));
        assert!(other.ends_with("two\\nlines \\u{1b}[0m \u{fffd}"), "{other}");
        assert!(text(&record(Some(b"gone"), None)).ends_with("(tombstone)"));
    }

    #[test]
    fn json_keeps_what_is_no_text() {
        let partition = TopicPartition::new("t", 1);
        let json = |record: &ConsumedRecord| -> Value {
            serde_json::from_str(&as_json(&partition, record).expect("a record")).expect("JSON")
        };
        let value = json(&record(Some(&[0xff, 0]), Some(b"plain")));
        assert_eq!(value["key"], json!({ "base64": "/wA=" }));
        assert_eq!((value["value"].as_str(), value["offset"].as_i64()), (Some("plain"), Some(7)));
        let (gone, null) = (json(&record(None, None)), json(&record(None, Some(b"null"))));
        assert_eq!((&gone["value"], &gone["tombstone"]), (&Value::Null, &json!(true)));
        assert_eq!((&null["value"], null.get("tombstone")), (&Value::Null, None));
    }

    #[test]
    fn json_is_one_line_with_its_numbers_and_strings_as_they_were() {
        let partition = TopicPartition::new("t", 1);
        let line = as_json(
            &partition,
            &record(None, Some(b"{ \"n\" : 123456789012345678901234567890,\n \"s\": \"a \\\" b\\\\\" }")),
        );
        let line = line.expect("a record");
        assert!(line.ends_with(r#""value":{"n":123456789012345678901234567890,"s":"a \" b\\"}}"#), "{line}");
    }
}

//! View `pipeline`: consumers, producers, rebalances, dead letters.
//!
//! Consumers and producers are one row each, made of the newest heartbeat and the newest coming or going, by the events'
//! own times. Whether one has fallen silent is decided when it is asked for.

use farol_event::EventType;
use rusqlite::{Transaction, params};
use serde::Deserialize;

use crate::decode::{Decoded, EventRecord, Starts};
use crate::fold::{Tally, json_text};
use crate::query::rebalances::{Rebalance, RebalanceCost};

pub(crate) const CREATE: &str = "
CREATE TABLE consumer_health (
    consumer_id TEXT NOT NULL,
    consumer_group TEXT NOT NULL,
    status TEXT NOT NULL,
    status_at INTEGER NOT NULL,
    joined_at INTEGER,
    last_heartbeat INTEGER,
    partitions TEXT NOT NULL DEFAULT '[]',
    records_processed INTEGER NOT NULL DEFAULT 0,
    records_per_s REAL NOT NULL DEFAULT 0,
    lag_records INTEGER NOT NULL DEFAULT 0,
    lag_ms INTEGER NOT NULL DEFAULT 0,
    errors INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, consumer_id)
);
CREATE TABLE producer_health (
    producer_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    last_heartbeat INTEGER NOT NULL,
    records_sent INTEGER NOT NULL,
    records_per_s REAL NOT NULL,
    rejected INTEGER NOT NULL
);
CREATE TABLE rebalancing_events (
    consumer_group TEXT NOT NULL,
    generation INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    completed_at INTEGER NOT NULL,
    causes TEXT NOT NULL,
    changes TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    paused_ms TEXT NOT NULL,
    took_ms INTEGER NOT NULL,
    partitions_moved INTEGER NOT NULL,
    longest_pause_ms INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL
);
CREATE INDEX rebalancing_events_by_time ON rebalancing_events (completed_at, partition, offset);
CREATE INDEX rebalancing_events_by_group ON rebalancing_events (consumer_group, completed_at, partition, offset);
CREATE TABLE dead_letters (
    at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    source_topic TEXT NOT NULL,
    source_partition INTEGER NOT NULL,
    source_offset INTEGER NOT NULL,
    key TEXT,
    value TEXT NOT NULL,
    consumer_id TEXT,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL
);
CREATE INDEX dead_letters_by_time ON dead_letters (at, partition, offset);
";

pub(crate) const DROP: &str = "
DROP TABLE IF EXISTS consumer_health;
DROP TABLE IF EXISTS producer_health;
DROP TABLE IF EXISTS rebalancing_events;
DROP TABLE IF EXISTS dead_letters;
";

/// `data` of `consumidor_pulsou`. Numbers that are not given count as zero.
#[derive(Deserialize)]
struct ConsumerHeartbeat {
    group: String,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    records_processed: i64,
    #[serde(default)]
    records_per_s: f64,
    #[serde(default)]
    lag_records: i64,
    #[serde(default)]
    lag_ms: i64,
    #[serde(default)]
    errors: i64,
}

/// `data` of `produtor_pulsou`.
#[derive(Deserialize)]
struct ProducerHeartbeat {
    kind: String,
    #[serde(default)]
    records_sent: i64,
    #[serde(default)]
    records_per_s: f64,
    #[serde(default)]
    rejected: i64,
    #[serde(default)]
    status: ReportedStatus,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ReportedStatus {
    #[default]
    Active,
    Stopped,
}

/// `data` of `consumidor_entrou` and `consumidor_saiu`.
#[derive(Deserialize)]
struct Membership {
    group: String,
    #[serde(default)]
    reason: Option<String>,
}

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    for record in decoded.events_from(starts).filter(|r| r.content == crate::name::TopicContent::SystemEvents)
    {
        let event_type = &record.event.event_type;
        let read = if *event_type == EventType::CONSUMER_HEARTBEAT {
            consumer_heartbeat(transaction, record)?
        } else if *event_type == EventType::PRODUCER_HEARTBEAT {
            producer_heartbeat(transaction, record)?
        } else if *event_type == EventType::CONSUMER_JOINED || *event_type == EventType::CONSUMER_LEFT {
            membership(transaction, record)?
        } else if *event_type == EventType::PARTITIONS_REASSIGNED {
            rebalance(transaction, record)?
        } else {
            Ok(())
        };
        match read {
            Ok(()) => tally.applied += 1,
            Err(reason) => tally.skip(reason),
        }
    }
    dead_letters(transaction, decoded, starts, tally)
}

fn consumer_heartbeat(
    transaction: &Transaction<'_>,
    record: &EventRecord,
) -> rusqlite::Result<Result<(), &'static str>> {
    let Some(heartbeat) = data::<ConsumerHeartbeat>(record) else {
        return Ok(Err("not a consumer's heartbeat"));
    };
    let at = record.event.time.as_micros();
    transaction
        .prepare_cached(
            "INSERT INTO consumer_health (consumer_id, consumer_group, status, status_at, last_heartbeat, partitions,
                 records_processed, records_per_s, lag_records, lag_ms, errors)
             VALUES (?1, ?2, 'active', ?3, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (consumer_group, consumer_id) DO UPDATE SET last_heartbeat = excluded.last_heartbeat,
                 partitions = excluded.partitions, records_processed = excluded.records_processed,
                 records_per_s = excluded.records_per_s, lag_records = excluded.lag_records,
                 lag_ms = excluded.lag_ms, errors = excluded.errors
             WHERE last_heartbeat IS NULL OR excluded.last_heartbeat >= last_heartbeat",
        )?
        .execute(params![
            record.event.source,
            heartbeat.group,
            at,
            json_text(&heartbeat.partitions),
            heartbeat.records_processed.max(0),
            heartbeat.records_per_s,
            heartbeat.lag_records.max(0),
            heartbeat.lag_ms.max(0),
            heartbeat.errors.max(0),
        ])?;
    // Whoever reports lives, whatever was thought of it before.
    status(transaction, &record.event.source, &heartbeat.group, "active", at)?;
    Ok(Ok(()))
}

fn membership(
    transaction: &Transaction<'_>,
    record: &EventRecord,
) -> rusqlite::Result<Result<(), &'static str>> {
    let Some(membership) = data::<Membership>(record) else { return Ok(Err("not a coming or going")) };
    let (consumer_id, at) = (&record.event.source, record.event.time.as_micros());
    let joined = record.event.event_type == EventType::CONSUMER_JOINED;
    let word = match membership.reason.as_deref() {
        _ if joined => "active",
        None | Some("left") => "left",
        Some(_) => "expelled",
    };
    transaction
        .prepare_cached(
            "INSERT INTO consumer_health (consumer_id, consumer_group, status, status_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (consumer_group, consumer_id) DO NOTHING",
        )?
        .execute((consumer_id, &membership.group, word, at))?;
    status(transaction, consumer_id, &membership.group, word, at)?;
    if joined {
        transaction
            .prepare_cached(
                "UPDATE consumer_health SET joined_at = max(coalesce(joined_at, ?3), ?3)
                 WHERE consumer_id = ?1 AND consumer_group = ?2",
            )?
            .execute((consumer_id, &membership.group, at))?;
    }
    Ok(Ok(()))
}

/// The newest word counts, by the events' own times.
fn status(
    transaction: &Transaction<'_>,
    consumer_id: &str,
    group: &str,
    word: &str,
    at: i64,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE consumer_health SET status = ?3, status_at = ?4
             WHERE consumer_id = ?1 AND consumer_group = ?2 AND status_at <= ?4",
        )?
        .execute((consumer_id, group, word, at))?;
    Ok(())
}

fn producer_heartbeat(
    transaction: &Transaction<'_>,
    record: &EventRecord,
) -> rusqlite::Result<Result<(), &'static str>> {
    let Some(heartbeat) = data::<ProducerHeartbeat>(record) else {
        return Ok(Err("not a producer's heartbeat"));
    };
    let word = match heartbeat.status {
        ReportedStatus::Active => "active",
        ReportedStatus::Stopped => "stopped",
    };
    transaction
        .prepare_cached(
            "INSERT INTO producer_health
                 (producer_id, kind, status, last_heartbeat, records_sent, records_per_s, rejected)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (producer_id) DO UPDATE SET kind = excluded.kind, status = excluded.status,
                 last_heartbeat = excluded.last_heartbeat, records_sent = excluded.records_sent,
                 records_per_s = excluded.records_per_s, rejected = excluded.rejected
             WHERE excluded.last_heartbeat >= last_heartbeat",
        )?
        .execute(params![
            record.event.source,
            heartbeat.kind,
            word,
            record.event.time.as_micros(),
            heartbeat.records_sent.max(0),
            heartbeat.records_per_s,
            heartbeat.rejected.max(0),
        ])?;
    Ok(Ok(()))
}

fn rebalance(
    transaction: &Transaction<'_>,
    record: &EventRecord,
) -> rusqlite::Result<Result<(), &'static str>> {
    let Some(rebalance) = data::<Rebalance>(record) else { return Ok(Err("not a rebalance")) };
    // Older events don't say it, and newer ones don't list all partitions of large groups.
    let Rebalance { began_at, completed_at, before, after, paused_ms, .. } = &rebalance;
    let cost = RebalanceCost::of(*began_at, *completed_at, before, after, paused_ms).at_least(rebalance.cost);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    transaction
        .prepare_cached(
            "INSERT INTO rebalancing_events (consumer_group, generation, began_at, completed_at, causes, changes, before,
                 after, paused_ms, took_ms, partitions_moved, longest_pause_ms, partition, offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            rebalance.group,
            rebalance.generation,
            began_at.as_micros(),
            completed_at.as_micros(),
            json_text(&rebalance.causes),
            json_text(&rebalance.changes),
            json_text(before),
            json_text(after),
            json_text(paused_ms),
            number(cost.took_ms),
            number(cost.partitions_moved),
            number(cost.longest_pause_ms),
            record.partition,
            record.offset,
        ])?;
    Ok(Ok(()))
}

fn dead_letters(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO dead_letters (at, reason, source_topic, source_partition, source_offset, key, value, consumer_id,
             partition, offset)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for record in decoded.dead_letters_from(starts) {
        let letter = &record.value;
        insert.execute(params![
            letter.at.as_micros(),
            letter.reason,
            &*letter.source.topic,
            letter.source.partition,
            letter.source.offset,
            letter.key,
            letter.value,
            letter.consumer_id,
            record.partition,
            record.offset,
        ])?;
        tally.applied += 1;
    }
    Ok(())
}

fn data<'de, T: Deserialize<'de>>(record: &'de EventRecord) -> Option<T> {
    T::deserialize(&record.event.data).ok()
}

//! The pipeline: consumers, producers and dead letters.

use farol_event::{Position, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::condition::Conditions;
use crate::query::{Queries, count, cursor, instant, instant_if_any, json, page_size, sql_limit, word};

/// The default number of dead letters on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of dead letters on a page.
pub const MAX_LIMIT: usize = 1000;
/// The largest number of consumers or producers in an answer.
pub const MAX_MEMBERS: usize = 1000;

/// Whether a consumer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ConsumerStatus {
    /// It reports.
    Active,
    /// It said goodbye.
    Left,
    /// Its group expelled it.
    Expelled,
    /// It neither left nor reported for [`crate::StoreOptions::member_stale_after`].
    Stale,
}

/// One consumer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsumerHealth {
    /// Its name.
    pub consumer_id: String,
    /// Its group.
    pub group: String,
    /// Whether it lives.
    pub status: ConsumerStatus,
    /// When it last reported; absent if it never did.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_heartbeat: Option<Timestamp>,
    /// When it last joined its group; absent if that was not seen.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub joined_at: Option<Timestamp>,
    /// What it owns, as `topic/partition`.
    pub partitions: Vec<String>,
    /// Records that it has processed since it started.
    pub records_processed: u64,
    /// How many it processes a second.
    pub records_per_s: f64,
    /// How many records it is behind.
    pub lag_records: u64,
    /// How old the oldest of those is, in milliseconds.
    pub lag_ms: u64,
    /// Records that it could not process since it started.
    pub errors: u64,
}

/// The consumers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsumerHealthList {
    /// By group and name.
    pub consumers: Vec<ConsumerHealth>,
}

/// Whether a producer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ProducerStatus {
    /// It reports.
    Active,
    /// It said that it stopped.
    Stopped,
    /// It did not say so, and has not reported for [`crate::StoreOptions::member_stale_after`].
    Stale,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProducerHealth {
    /// Its name.
    pub producer_id: String,
    /// What kind it is: `simulator`, `http`, `replay`, `load`, ….
    pub kind: String,
    /// Whether it lives.
    pub status: ProducerStatus,
    /// When it last reported.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_heartbeat: Timestamp,
    /// Records that it has sent since it started.
    pub records_sent: u64,
    /// How many it sends a second.
    pub records_per_s: f64,
    /// Records of it that were refused since it started.
    pub rejected: u64,
}

/// The producers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProducerHealthList {
    /// By name.
    pub producers: Vec<ProducerHealth>,
}

/// A record that could not be processed: the value of topic `dead-letters`, with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadLetter {
    /// Where the dead letter stands.
    pub position: Position,
    /// When it was given up.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Where the record stood that could not be processed.
    pub source: Position,
    /// Why it could not be processed.
    pub reason: String,
    /// The record's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The record's value as text, at most 64 KiB of it.
    pub value: String,
    /// Who gave it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_id: Option<String>,
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeadLetterPage {
    /// The dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// How many there are on all pages.
    pub total: u64,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

impl Queries<'_> {
    /// The consumers. `now` decides who is stale.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn consumers(&self, now: Timestamp) -> Result<ConsumerHealthList, ViewError> {
        let stale_before = now.saturating_sub(self.settings.member_stale_after);
        let consumers = self
            .rows(
                "SELECT consumer_id, consumer_group, status, status_at, last_heartbeat, joined_at, partitions,
                     records_processed, records_per_s, lag_records, lag_ms, errors
                 FROM consumer_health ORDER BY consumer_group, consumer_id LIMIT ?",
                vec![sql_limit(MAX_MEMBERS)],
                |row| consumer_of_row(row, stale_before),
            )
            .map_err(self.failed("consumer_health"))?;
        Ok(ConsumerHealthList { consumers })
    }

    /// The producers. `now` decides who is stale.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn producers(&self, now: Timestamp) -> Result<ProducerHealthList, ViewError> {
        let stale_before = now.saturating_sub(self.settings.member_stale_after);
        let producers = self
            .rows(
                "SELECT producer_id, kind, status, last_heartbeat, records_sent, records_per_s, rejected
                 FROM producer_health ORDER BY producer_id LIMIT ?",
                vec![sql_limit(MAX_MEMBERS)],
                |row| producer_of_row(row, stale_before),
            )
            .map_err(self.failed("producer_health"))?;
        Ok(ProducerHealthList { producers })
    }

    /// The dead letters, newest first. Limits: [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn dead_letters(
        &self,
        limit: Option<usize>,
        cursor: Option<&str>,
    ) -> Result<DeadLetterPage, ViewError> {
        let limit = page_size(limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let failed = self.failed("dead_letters");
        let total = self.number("SELECT count(*) FROM dead_letters", Vec::new()).map_err(&failed)?;
        let mut conditions = Conditions::default();
        if let Some(text) = cursor {
            conditions.and("(at, partition, offset) < (?, ?, ?)", cursor::decode::<3>(CURSOR, text)?);
        }
        let sql = format!(
            "SELECT at, reason, source_topic, source_partition, source_offset, key, value, consumer_id, partition, offset
             FROM dead_letters {} ORDER BY at DESC, partition DESC, offset DESC LIMIT ?",
            conditions.sql()
        );
        let mut dead_letters = self
            .rows(&sql, conditions.values_and([sql_limit(limit + 1)]), |row| self.dead_letter_of_row(row))
            .map_err(&failed)?;
        let more = dead_letters.len() > limit;
        dead_letters.truncate(limit);
        let next_cursor = dead_letters.last().filter(|_| more).map(|last| {
            let key = [
                Value::Integer(last.at.as_micros()),
                Value::Integer(last.position.partition.into()),
                Value::Integer(last.position.offset),
            ];
            cursor::encode(CURSOR, &key)
        });
        Ok(DeadLetterPage { dead_letters, total, next_cursor })
    }

    fn dead_letter_of_row(&self, row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
        Ok(DeadLetter {
            position: Position {
                topic: self.topics.dead_letters.clone(),
                partition: row.get(8)?,
                offset: row.get(9)?,
            },
            at: instant(row, 0)?,
            source: Position {
                topic: row.get::<_, String>(2)?.into(),
                partition: row.get(3)?,
                offset: row.get(4)?,
            },
            reason: row.get(1)?,
            key: row.get(5)?,
            value: row.get(6)?,
            consumer_id: row.get(7)?,
        })
    }
}

/// What the cursors of the list of dead letters are called.
const CURSOR: &str = "dead-letters";

fn consumer_of_row(row: &Row<'_>, stale_before: Timestamp) -> rusqlite::Result<ConsumerHealth> {
    let last_heartbeat = instant_if_any(row, 4)?;
    let heard_of = last_heartbeat.unwrap_or(Timestamp::EPOCH).max(instant(row, 3)?);
    let status = match word(row, 2)? {
        ConsumerStatus::Active if heard_of < stale_before => ConsumerStatus::Stale,
        status => status,
    };
    // Who has gone owns nothing, whatever it said last.
    let gone = matches!(status, ConsumerStatus::Left | ConsumerStatus::Expelled);
    Ok(ConsumerHealth {
        consumer_id: row.get(0)?,
        group: row.get(1)?,
        status,
        last_heartbeat,
        joined_at: instant_if_any(row, 5)?,
        partitions: if gone { Vec::new() } else { json(row, 6)? },
        records_processed: count(row, 7)?,
        records_per_s: row.get(8)?,
        lag_records: count(row, 9)?,
        lag_ms: count(row, 10)?,
        errors: count(row, 11)?,
    })
}

fn producer_of_row(row: &Row<'_>, stale_before: Timestamp) -> rusqlite::Result<ProducerHealth> {
    let last_heartbeat = instant(row, 3)?;
    Ok(ProducerHealth {
        producer_id: row.get(0)?,
        kind: row.get(1)?,
        status: match word(row, 2)? {
            ProducerStatus::Active if last_heartbeat < stale_before => ProducerStatus::Stale,
            status => status,
        },
        last_heartbeat,
        records_sent: count(row, 4)?,
        records_per_s: row.get(5)?,
        rejected: count(row, 6)?,
    })
}

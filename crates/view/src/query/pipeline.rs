//! The pipeline: consumers, producers, rebalances and dead letters.

use std::collections::BTreeMap;

use farol_event::{Position, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::Queries;

/// The default number of dead letters on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of dead letters on a page.
pub const MAX_LIMIT: usize = 1000;
/// The largest number of rebalances, consumers or producers in an answer.
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

/// One finished rebalance of one consumer group: the `data` of `particoes_reatribuidas`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rebalance {
    /// Which group.
    pub group: String,
    /// The generation that it led to.
    pub generation: i32,
    /// When it began.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub began_at: Timestamp,
    /// When every member had its new partitions.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub completed_at: Timestamp,
    /// What set it off, in words.
    pub causes: Vec<String>,
    /// Who owned what before: consumer → `topic/partition`.
    pub before: BTreeMap<String, Vec<String>>,
    /// Who owns what now.
    pub after: BTreeMap<String, Vec<String>>,
    /// How long each partition that changed hands had no owner, in milliseconds.
    pub paused_ms: BTreeMap<String, u64>,
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
        todo!()
    }

    /// The producers. `now` decides who is stale.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn producers(&self, now: Timestamp) -> Result<ProducerHealthList, ViewError> {
        todo!()
    }

    /// The newest `limit` rebalances of all groups (at most [`MAX_MEMBERS`]), newest first.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn rebalances(&self, limit: usize) -> Result<Vec<Rebalance>, ViewError> {
        todo!()
    }

    /// The dead letters, newest first. Limits: [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn dead_letters(&self, limit: Option<usize>, cursor: Option<&str>) -> Result<DeadLetterPage, ViewError> {
        todo!()
    }
}

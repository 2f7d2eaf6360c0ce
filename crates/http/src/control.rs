//! What the HTTP face asks of the running system beside the bus and the views: the rules in force, the workers, the log.
//!
//! The binary implements [`Control`] over the parts that it has started, so that this crate knows none of them.

use std::sync::Arc;

use async_trait::async_trait;
use farol_alert::{InhibitRule, Routes};
use farol_detect::RuleSet;
use farol_event::Timestamp;
use farol_registry::Catalogue;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The running system. Calls answer from memory, except the two that start and stop workers.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// The rules in force.
    fn rules(&self) -> RulesReport;

    /// The workers of this process.
    fn workers(&self) -> Vec<WorkerStatus>;

    /// Tells a worker to leave its group and stop. Returns when it has been told.
    async fn stop_worker(&self, consumer_id: &str) -> Result<(), WorkerRefusal>;

    /// Starts a stopped worker. Returns when it has been told.
    async fn start_worker(&self, consumer_id: &str) -> Result<(), WorkerRefusal>;

    /// The log.
    fn log(&self) -> LogReport;

    /// The services that are watched.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// How far each view has come.
    fn views(&self) -> Vec<ViewReport>;

    /// Who is told of what, and what holds alerts back.
    fn notifying(&self) -> Arc<Notifying> {
        Arc::default()
    }
}

/// Who is told of what, and what holds alerts back.
#[derive(Debug, Clone, Default)]
pub struct Notifying {
    /// Every receiver, by name.
    pub receivers: Vec<String>,
    /// The routes in force.
    pub routes: Routes,
    /// Receivers that no route names, which hear of every alert at once.
    pub at_once: Vec<String>,
    /// Which alerts hold others back.
    pub inhibit: Vec<InhibitRule>,
    /// Where people reach the dashboard.
    pub dashboard: Option<String>,
}

/// The rules in force and where they come from.
#[derive(Debug, Clone)]
pub struct RulesReport {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// When they were taken into force.
    pub loaded_at: Timestamp,
    /// The files that they come from.
    pub files: Vec<String>,
    /// Why the newest attempt to load rules was refused, if it was: the older rules are still in force then.
    pub problem: Option<String>,
}

/// Whether a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It is a member of its group, or becomes one.
    Running,
    /// It has been told to stop and has not left its group yet.
    Stopping,
    /// It has left its group.
    Stopped,
}

/// One worker of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    /// Its name, as shown among the consumers.
    pub consumer_id: String,
    /// Whether it runs.
    pub state: WorkerState,
}

/// Why a worker was not started or stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerRefusal {
    /// No worker of that name in this process.
    #[error("there is no worker `{0}` in this process")]
    Unknown(String),
    /// It is in a state that does not allow it; the text says which.
    #[error("{0}")]
    WrongState(String),
    /// It could not be done; the text says why.
    #[error("{0}")]
    Failed(String),
}

/// The log as it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogReport {
    /// Its topics, by name.
    pub topics: Vec<TopicReport>,
    /// Whether it refuses appends, after a failed write or fsync until it is opened again, or for now.
    pub poisoned: bool,
    /// Whether the disk is full, so that it takes no appends until there is space.
    pub waiting_for_space: bool,
    /// Whether its folder can't be written (no right to write, no inodes), so that it takes no appends until it can.
    pub folder_not_writable: bool,
    /// What opening it found and repaired, if anything.
    pub recovered: Option<RecoveryReport>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicReport {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    #[schema(minimum = 0)]
    pub partitions: i32,
    /// Records stored now.
    pub records: u64,
    /// Bytes on disk now.
    pub bytes: u64,
}

/// What opening the log found and repaired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryReport {
    /// Whether the log had been closed in order.
    pub clean_shutdown: bool,
    /// Records that the journal gave back.
    pub records_replayed: u64,
    /// Bytes cut from a torn tail; nothing in them had been acknowledged.
    pub torn_bytes: u64,
    /// How long opening took, in milliseconds.
    pub elapsed_ms: u64,
}

/// How far one view has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ViewReport {
    /// Its name.
    pub name: String,
    /// Records between its position and the end of its topics.
    pub lag_records: u64,
    /// Whether it takes what it is given.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

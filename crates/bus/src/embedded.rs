//! The embedded engine behind the bus traits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use farol_log::SyncPolicy;

use crate::engine::{
    Bus, BusError, Consumer, ConsumerSettings, GroupDescription, OffsetSpec, Producer, RebalanceRecord,
    TopicDescription, TopicSpec, TransactionalProducer,
};
use crate::record::TopicPartition;

/// Settings of the embedded engine.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data folder, made if it is missing. One process at a time may have it open.
    pub dir: PathBuf,
    /// When an append is acknowledged, for topics that don't set `farol.sync`.
    pub sync: SyncPolicy,
    /// How often retention and compaction look at the partitions.
    pub maintenance_interval: Duration,
    /// Bytes of sent records that may wait for the disk; more waits in [`Producer::send`].
    pub max_in_flight_bytes: usize,
}

/// What opening the data folder found and repaired.
#[derive(Debug, Clone, Default)]
pub struct RecoverySummary {
    /// Whether the engine was closed in order before.
    pub clean_shutdown: bool,
    /// Records that the journal gave back.
    pub records_replayed: u64,
    /// Bytes cut from a torn tail; nothing in them had been acknowledged.
    pub torn_bytes: u64,
    /// How long opening took.
    pub elapsed: Duration,
}

/// Why the embedded engine can't be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The log can't be opened.
    #[error("opening the log")]
    Log(#[from] farol_log::OpenError),
}

/// The embedded engine.
pub struct EmbeddedBus {
    rebalances: tokio::sync::broadcast::Sender<RebalanceRecord>,
}

impl EmbeddedOptions {
    /// The defaults for a data folder: everything durable before it is acknowledged.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            sync: SyncPolicy::Always,
            maintenance_interval: Duration::from_secs(30),
            max_in_flight_bytes: 64 * 1024 * 1024,
        }
    }
}

impl EmbeddedBus {
    /// Opens the data folder, makes it if it is missing, and repairs what a crash left behind.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn open(_options: EmbeddedOptions) -> Result<(Arc<Self>, RecoverySummary), EmbeddedError> {
        let (rebalances, _) = tokio::sync::broadcast::channel(64);
        Ok((Arc::new(Self { rebalances }), RecoverySummary::default()))
    }

    /// Closes in order: refuses new calls, waits for records on their way, closes the log.
    ///
    /// # Errors
    /// [`EmbeddedError`] if the log did not close in order.
    pub async fn close(&self) -> Result<(), EmbeddedError> {
        Ok(())
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn create_topic(&self, _spec: TopicSpec) -> Result<(), BusError> {
        Err(BusError::Closed)
    }

    async fn topics(&self) -> Result<Vec<TopicDescription>, BusError> {
        Err(BusError::Closed)
    }

    async fn offsets(
        &self,
        _partitions: &[TopicPartition],
        _spec: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        Err(BusError::Closed)
    }

    async fn producer(&self, _client_id: &str) -> Result<Arc<dyn Producer>, BusError> {
        Err(BusError::Closed)
    }

    async fn transactional_producer(
        &self,
        _transactional_id: &str,
    ) -> Result<Box<dyn TransactionalProducer>, BusError> {
        Err(BusError::Closed)
    }

    async fn consumer(&self, _settings: ConsumerSettings) -> Result<Box<dyn Consumer>, BusError> {
        Err(BusError::Closed)
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, BusError> {
        Err(BusError::Closed)
    }

    async fn committed(&self, _group: &str) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        Err(BusError::Closed)
    }

    fn rebalances(&self) -> tokio::sync::broadcast::Receiver<RebalanceRecord> {
        self.rebalances.subscribe()
    }
}

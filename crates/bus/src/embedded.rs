//! The embedded engine behind the bus traits: `farol-broker` over `farol-log`, in this process.
//!
//! # What it adds to the broker
//!
//! The broker stores whole batches; this module turns records into batches ([`Producer::send`], on the caller's
//! thread) and batches into records ([`Consumer::poll`]), chooses partitions, shares polls fairly among partitions, and
//! waits without spinning. Encoding or decoding that takes longer than about half a millisecond leaves the async
//! threads.
//!
//! # What holds
//!
//! * An acknowledged record is as durable as its topic's `farol.sync` asks.
//! * A transaction is one atomic append. While it is open, its records wait in the producer's memory, so there is never
//!   anything uncommitted to be skipped or cleaned up; its size is bounded by one request of the log (32 MiB). A
//!   failed commit ends it.
//! * Epochs of transactional producers live in memory: all of them live in this process. After a restart there is no
//!   older one to be fenced.
//! * A poll that is dropped has taken nothing.
//! * [`Bus::topics`] leaves out the broker's own topic of committed offsets; [`EmbeddedBus::stats`] has it.
//! * An idle consumer costs one timer for its heartbeats and one for its poll interval.
//!
//! # Failures
//!
//! After a failed write, sends get [`BusError::Poisoned`] and polls go on. A damaged batch fails the poll that reaches
//! it with [`BusError::Corrupt`]; the turn then passes to the other partitions, and the failure repeats until somebody
//! seeks past it. An offset that is gone is reset as the settings say, logged and counted; so is that of a topic which was
//! deleted and made again.

mod consumer;
mod error;
mod fetch;
mod producer;
mod transaction;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farol_broker::{Broker, BrokerOptions};
pub use farol_broker::{
    BrokerStats, GroupOptions, GroupPartitionStats, GroupStats, ProducerLimits, TopicStats,
};
use farol_log::LogOptions;
pub use farol_log::SyncPolicy;

use crate::engine::{
    Bus, BusError, Consumer, ConsumerSettings, GroupDescription, GroupMember, OffsetSpec, Producer,
    RebalanceRecord, TopicDescription, TopicSpec, TransactionalProducer,
};
use crate::record::TopicPartition;
use consumer::EmbeddedConsumer;
use producer::EmbeddedProducer;
use transaction::EmbeddedTransactionalProducer;

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
    /// The group coordinator.
    pub groups: GroupOptions,
    /// What partitions remember of producers.
    pub producers: ProducerLimits,
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
    /// How long opening the log took.
    pub elapsed: Duration,
}

/// Why the embedded engine can't be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The data folder can't be opened: in use, not writable, damaged.
    #[error(transparent)]
    Open(#[from] farol_broker::OpenError),
    /// The log did not close in order.
    #[error(transparent)]
    Close(#[from] farol_log::CloseError),
}

/// The embedded engine.
pub struct EmbeddedBus {
    broker: Broker,
}

impl EmbeddedOptions {
    /// The defaults for a data folder: everything durable before it is acknowledged.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let log = LogOptions::new(dir);
        Self {
            sync: SyncPolicy::Always,
            maintenance_interval: log.maintenance_interval,
            max_in_flight_bytes: log.queue_bytes,
            groups: GroupOptions::default(),
            producers: ProducerLimits::default(),
            dir: log.dir,
        }
    }
}

impl EmbeddedBus {
    /// Opens the data folder, makes it if it is missing, and repairs what a crash left behind. Blocks until that is
    /// done; must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn open(options: EmbeddedOptions) -> Result<(Arc<Self>, RecoverySummary), EmbeddedError> {
        let mut broker = BrokerOptions::new(options.dir);
        broker.log.maintenance_interval = options.maintenance_interval;
        broker.sync = options.sync;
        broker.max_in_flight_bytes = options.max_in_flight_bytes;
        broker.groups = options.groups;
        broker.producers = options.producers;
        Self::open_over(broker)
    }

    /// Opens a data folder with every setting of the broker and the log at hand.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn open_over(options: BrokerOptions) -> Result<(Arc<Self>, RecoverySummary), EmbeddedError> {
        let (broker, report) = Broker::open(options)?;
        let summary = RecoverySummary {
            clean_shutdown: report.clean_shutdown,
            records_replayed: report.records_replayed,
            torn_bytes: report.torn_bytes,
            elapsed: report.elapsed,
        };
        Ok((Arc::new(Self { broker }), summary))
    }

    /// Closes in order: refuses new calls, wakes polls, waits for records on their way, closes the log.
    ///
    /// # Errors
    /// [`EmbeddedError`] if the log did not close in order.
    pub async fn close(&self) -> Result<(), EmbeddedError> {
        Ok(self.broker.close().await?)
    }

    /// The broker itself, for servers that speak for it on the network.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Topics, groups with their lag, and the log's counters. Takes locks for microseconds and reads no file.
    pub fn stats(&self) -> BrokerStats {
        self.broker.stats()
    }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn create_topic(&self, spec: TopicSpec) -> Result<(), BusError> {
        let broker = self.broker.clone();
        off_thread(move || Ok(broker.create_topic(&spec.name, spec.partitions, spec.config)?)).await
    }

    async fn configure_topic(&self, topic: &str, config: BTreeMap<String, String>) -> Result<(), BusError> {
        let (broker, topic) = (self.broker.clone(), topic.to_owned());
        off_thread(move || Ok(broker.configure_topic(&topic, config)?)).await
    }

    async fn grow_topic(&self, topic: &str, partitions: i32) -> Result<(), BusError> {
        let (broker, name) = (self.broker.clone(), topic.to_owned());
        off_thread(move || {
            if broker.topic(&name)?.partition_count() >= partitions {
                return Ok(());
            }
            match broker.add_partitions(&name, partitions) {
                // Somebody else was faster.
                Err(_) if broker.topic(&name)?.partition_count() >= partitions => Ok(()),
                other => Ok(other?),
            }
        })
        .await
    }

    async fn topics(&self) -> Result<Vec<TopicDescription>, BusError> {
        self.broker.check_open()?;
        let topics = self.broker.topics();
        let described = topics.iter().filter(|topic| !topic.is_internal()).map(|topic| TopicDescription {
            name: Arc::clone(topic.name()),
            partitions: topic.partition_count(),
            config: topic.overrides().clone(),
        });
        Ok(described.collect())
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        self.broker.check_open()?;
        let readers = partitions
            .iter()
            .map(|partition| Ok((partition.clone(), self.broker.reader(partition)?)))
            .collect::<Result<Vec<_>, BusError>>()?;
        match spec {
            OffsetSpec::Earliest => {
                Ok(readers.into_iter().map(|(p, reader)| (p, reader.start_offset())).collect())
            }
            // What a consumer can read up to: it reads committed records only.
            OffsetSpec::Latest => {
                Ok(readers.into_iter().map(|(p, reader)| (p, reader.stable_offset())).collect())
            }
            // The search reads files.
            OffsetSpec::Timestamp(timestamp_ms) => {
                off_thread(move || {
                    readers
                        .into_iter()
                        .map(|(partition, reader)| {
                            let found = reader.partition().offset_for_timestamp(timestamp_ms);
                            let found = found.map_err(|error| {
                                farol_broker::BrokerError::from_read(
                                    &partition,
                                    reader.start_offset(),
                                    &error,
                                )
                            })?;
                            let stable_offset = reader.stable_offset();
                            let offset = found.map_or(stable_offset, |found| found.offset.min(stable_offset));
                            Ok((partition, offset))
                        })
                        .collect()
                })
                .await
            }
        }
    }

    async fn producer(&self, _client_id: &str) -> Result<Arc<dyn Producer>, BusError> {
        self.broker.check_open()?;
        Ok(Arc::new(EmbeddedProducer::new(self.broker.clone())))
    }

    async fn transactional_producer(
        &self,
        transactional_id: &str,
    ) -> Result<Box<dyn TransactionalProducer>, BusError> {
        let id = self.broker.transactional_id(transactional_id).await?;
        Ok(Box::new(EmbeddedTransactionalProducer::new(self.broker.clone(), id)))
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, BusError> {
        self.broker.check_open()?;
        Ok(Box::new(EmbeddedConsumer::new(self.broker.clone(), settings)))
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, BusError> {
        self.broker.check_open()?;
        let described = self.broker.group_snapshots().into_iter().map(|group| GroupDescription {
            group: group.group,
            generation: Some(group.generation),
            state: group.state.as_str().to_owned(),
            members: group
                .members
                .into_iter()
                .map(|member| GroupMember {
                    member_id: member.member_id,
                    client_id: member.client_id,
                    host: member.client_host,
                    assignment: member.partitions,
                })
                .collect(),
        });
        Ok(described.collect())
    }

    async fn committed(&self, group: &str) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        self.broker.check_open()?;
        Ok(self.broker.committed(group))
    }

    fn rebalances(&self) -> tokio::sync::broadcast::Receiver<RebalanceRecord> {
        self.broker.rebalances()
    }
}

/// Work that takes longer than the async threads should.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime is shutting down, or the work panicked, which its own report tells.
        Err(error) => Err(BusError::Unavailable(format!("work was interrupted: {error}"))),
    }
}

//! The open broker.

mod topics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use farol_log::{
    AppendRequest, AppendResult, Appended, Batch, Log, LogOptions, OnAppended, Partition, RecoveryReport,
    SyncPolicy,
};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::coordinator::rebalance::RebalanceRecord;
use crate::error::{BrokerError, OpenError};
use crate::groups::{
    GroupOptions, GroupSnapshot, Groups, InFlightCommit, OffsetChange, ProducerEpoch, expire_offsets,
};
use crate::last_alive::{self, LastAlive};
use crate::member::{Member, MemberSettings};
use crate::offsets;
use crate::partition::TopicPartition;
use crate::producers::ProducerLimits;
use crate::producers::registry::Registry;
use crate::stats::{BrokerStats, GroupPartitionStats, GroupStats, TopicStats};
use crate::topic::{Catalog, ListedTopic, OFFSETS_TOPIC, Topic};
use crate::transaction::TransactionalId;
use crate::transactions::{ExpiryRounds, TRANSACTIONS_TOPIC, Transactions};

/// Partitions of the topics of committed offsets and of transactional ids. One, because they are small: a restart reads all
/// of them.
const INTERNAL_PARTITIONS: i32 = 1;

/// Settings of a broker.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// The log under it, with the data folder.
    pub log: LogOptions,
    /// When an append is acknowledged, for topics that don't set `farol.sync`, and for committed offsets.
    pub sync: SyncPolicy,
    /// Bytes of appends that may be on their way to the disk; more wait their turn.
    pub max_in_flight_bytes: usize,
    /// Most partitions of all topics together: each has a folder, open files and some memory.
    pub max_partitions: usize,
    /// What partitions remember of idempotent and transactional producers.
    pub producers: ProducerLimits,
    /// The group coordinator.
    pub groups: GroupOptions,
}

/// An open broker. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    log: Log,
    dir: PathBuf,
    sync: SyncPolicy,
    max_partitions: usize,
    cluster_id: Uuid,
    topics: Arc<RwLock<BTreeMap<Arc<str>, Arc<Topic>>>>,
    catalog: Mutex<Catalog>,
    pub(crate) groups: Arc<Groups>,
    offsets_partition: Partition,
    max_request_bytes: usize,
    max_in_flight_bytes: u32,
    in_flight: Arc<Semaphore>,
    offset_resets: AtomicU64,
    topic_changes: watch::Sender<u64>,
    closing: CancellationToken,
    deadlines: JoinHandle<()>,
    clock: Clock,
    producers: Arc<Registry>,
    snapshots: JoinHandle<()>,
    /// The file that says until when the broker ran, and the task that writes it.
    last_alive: Option<(Arc<LastAlive>, JoinHandle<()>)>,
    transactions: Arc<Transactions>,
    expiry: OnceLock<JoinHandle<()>>,
}

/// An append that has its place in the log's queue. Dropping it doesn't take it back.
#[derive(Debug)]
pub struct AppendUnderWay {
    appended: oneshot::Receiver<Result<Appended, BrokerError>>,
}

impl BrokerOptions {
    /// The defaults for a data folder: everything durable before it is acknowledged.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let log = LogOptions::new(dir);
        Self {
            sync: SyncPolicy::Always,
            max_in_flight_bytes: log.queue_bytes,
            max_partitions: 10_000,
            producers: ProducerLimits::default(),
            groups: GroupOptions::default(),
            log,
        }
    }
}

impl Broker {
    /// Opens a data folder: log, topics, committed offsets. Blocks for the recovery; must be called within a Tokio
    /// runtime, whose timers expel members that are silent.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: BrokerOptions) -> Result<(Self, RecoveryReport), OpenError> {
        let runtime = Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let (dir, file_system) = (options.log.dir.clone(), Arc::clone(&options.log.file_system));
        let max_request_bytes = options.log.max_request_bytes;
        // The queue then always has room for what the semaphore lets through.
        let max_in_flight = options.max_in_flight_bytes.clamp(1, options.log.queue_bytes.max(1));
        let (log, report) = Log::open(options.log)?;
        let mut catalog = Catalog::read(Arc::clone(&file_system), &dir)?;
        topics::end_deletions(&log, &mut catalog);

        let mut topics = BTreeMap::new();
        for (name, listed) in catalog.topics() {
            let topic = Topic::open(&log, name, listed.clone(), options.sync).map_err(OpenError::Topic)?;
            topics.insert(Arc::clone(topic.name()), Arc::new(topic));
        }
        let mut open_internal = |name| {
            let listed = ListedTopic {
                id: internal_topic_id(&catalog, name),
                partitions: INTERNAL_PARTITIONS,
                config: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
            };
            let topic = Topic::open(&log, name, listed, options.sync)?;
            let partition = topic.partition(0)?.clone();
            topics.insert(Arc::clone(topic.name()), Arc::new(topic));
            Ok(partition)
        };
        let offsets_partition = open_internal(OFFSETS_TOPIC).map_err(OpenError::Topic)?;
        let transactions_partition = open_internal(TRANSACTIONS_TOPIC).map_err(OpenError::Topic)?;

        let committed = offsets::load(&offsets_partition).map_err(OpenError::Offsets)?;
        let clock = Clock::start();
        let producers = Arc::new(Registry::new(options.producers, clock));
        let (transactions, held) =
            Transactions::load(&transactions_partition, clock).map_err(OpenError::Transactions)?;
        for partition in topics.values().flat_map(|topic| topic.partitions()) {
            producers.open(partition, &transactions).map_err(OpenError::Producers)?;
        }
        let snapshots = runtime.spawn(Arc::clone(&producers).maintain());
        let alive_until = last_alive::read(&*file_system, &dir);
        let last_alive = LastAlive::open(&*file_system, &dir, clock).map(|last_alive| {
            let last_alive = Arc::new(last_alive);
            let keeping = runtime.spawn(Arc::clone(&last_alive).keep());
            (last_alive, keeping)
        });
        let groups = Arc::new(Groups::new(clock, options.groups, committed, alive_until));
        for held in &held {
            groups
                .add_pending(held.producer_id, &held.commit)
                .map_err(|error| OpenError::Transactions(BrokerError::Group(error)))?;
        }
        let watched = Arc::clone(&groups);
        let deadlines = runtime.spawn(async move { watched.watch_deadlines().await });
        let max_in_flight_bytes = u32::try_from(max_in_flight).unwrap_or(u32::MAX);
        let inner = Inner {
            log,
            dir,
            sync: options.sync,
            max_partitions: options.max_partitions,
            cluster_id: catalog.cluster_id(),
            topics: Arc::new(RwLock::new(topics)),
            catalog: Mutex::new(catalog),
            groups,
            offsets_partition,
            max_request_bytes,
            max_in_flight_bytes,
            in_flight: Arc::new(Semaphore::new(usize::try_from(max_in_flight_bytes).unwrap_or(usize::MAX))),
            offset_resets: AtomicU64::new(0),
            topic_changes: watch::Sender::new(0),
            closing: CancellationToken::new(),
            deadlines,
            clock,
            producers,
            snapshots,
            last_alive,
            transactions: Arc::new(transactions),
            expiry: OnceLock::new(),
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.watch_transactions(&runtime);
        // Ends by itself when the broker is gone.
        runtime.spawn(expire_offsets(Arc::downgrade(&broker.inner)));
        Ok((broker, report))
    }

    /// Closes in order: refuses new calls and wakes who waits, lets appends on their way end, closes the log.
    ///
    /// # Errors
    /// What the log says if it could not close in order.
    pub async fn close(&self) -> Result<(), farol_log::CloseError> {
        self.inner.closing.cancel();
        self.inner.deadlines.abort();
        self.inner.snapshots.abort();
        self.inner.expiry.get().inspect(|expiry| expiry.abort());
        // Whoever has all of the permits knows that no append is on its way.
        if let Ok(all) = self.inner.in_flight.acquire_many(self.inner.max_in_flight_bytes).await {
            all.forget();
            self.inner.in_flight.close();
        }
        let (log, producers) = (self.inner.log.clone(), Arc::clone(&self.inner.producers));
        let last_alive = self.inner.last_alive.as_ref().map(|(last_alive, keeping)| {
            keeping.abort();
            Arc::clone(last_alive)
        });
        let closing = move || {
            last_alive.inspect(|last_alive| last_alive.write());
            // Snapshots never speak of what isn't durable. A log that can't checkpoint says so when it is closed.
            if log.checkpoint().is_ok() {
                producers.save_all();
            }
            log.close()
        };
        // A panic of the closing thread is passed on: there is nothing else to do about it.
        match tokio::task::spawn_blocking(closing).await {
            Ok(closed) => closed,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Whether it is closing or closed.
    pub fn is_closed(&self) -> bool {
        self.inner.closing.is_cancelled()
    }

    /// Cancelled when closing begins.
    pub fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    /// An error if the broker is closing or closed.
    ///
    /// # Errors
    /// [`BrokerError::Closed`].
    pub fn check_open(&self) -> Result<(), BrokerError> {
        if self.is_closed() { Err(BrokerError::Closed) } else { Ok(()) }
    }

    /// Every topic, the broker's own included, by name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.inner.topics.read().values().cloned().collect()
    }

    /// One topic.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>, BrokerError> {
        let topics = self.inner.topics.read();
        topics
            .get(name)
            .cloned()
            .ok_or_else(|| BrokerError::UnknownTopicOrPartition(format!("topic `{name}`")))
    }

    /// One topic by its id.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicId`].
    pub fn topic_by_id(&self, id: Uuid) -> Result<Arc<Topic>, BrokerError> {
        let topics = self.inner.topics.read();
        topics.values().find(|topic| topic.id() == id).cloned().ok_or(BrokerError::UnknownTopicId(id))
    }

    /// The folder of the log.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Names the data folder, for ever.
    pub fn cluster_id(&self) -> Uuid {
        self.inner.cluster_id
    }

    /// One partition, to read from.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn partition(&self, partition: &TopicPartition) -> Result<Partition, BrokerError> {
        self.topic(&partition.topic)?.partition(partition.partition).cloned()
    }

    /// Appends batches, all or none; returns when they are as durable as their topics ask and can be read, with the base
    /// offset of each. Waits while too much is on its way. A dropped call may still append.
    ///
    /// # Errors
    /// [`BrokerError::TooLarge`], [`BrokerError::Poisoned`], [`BrokerError::Closed`].
    pub async fn append(&self, batches: Vec<(Partition, Batch)>) -> Result<Vec<i64>, BrokerError> {
        self.begin_append(batches).await?.decided().await
    }

    /// Like [`Broker::append`], but returns when the batches have their place in the order of their partitions; the rest
    /// is waited for with [`AppendUnderWay::decided`]. For a sender whose appends must keep their order and shouldn't wait for
    /// each other's sync.
    ///
    /// # Errors
    /// [`BrokerError::TooLarge`], [`BrokerError::Closed`].
    pub async fn begin_append(
        &self,
        batches: Vec<(Partition, Batch)>,
    ) -> Result<AppendUnderWay, BrokerError> {
        self.begin(AppendRequest::new(batches), |_| {}).await
    }

    /// Appends batches and offsets in one step, if member and producer may.
    pub(crate) async fn commit(
        &self,
        mut batches: Vec<(Partition, Batch)>,
        mut changes: Vec<OffsetChange>,
        producer: Option<ProducerEpoch>,
    ) -> Result<(), BrokerError> {
        let now_ms = self.inner.groups.now().as_millis();
        if let Some(batch) = offsets::encode(&mut changes, now_ms)? {
            batches.push((self.inner.offsets_partition.clone(), batch));
        }
        if batches.is_empty() {
            self.check_open()?;
            return producer.map_or(Ok(()), |producer| self.inner.groups.check_producer(&producer));
        }
        let commit = InFlightCommit::new(Arc::clone(&self.inner.groups), changes, producer);
        let deciding = Arc::clone(&commit);
        let request =
            AppendRequest::new(batches).with_precondition(move || deciding.decide().map_err(Into::into));
        self.submit(request, move |outcome| commit.finish(outcome.is_ok())).await.map(|_| ())
    }

    /// Appends, and calls `on_decided` on the thread that commits when the append has ended.
    pub(crate) async fn submit(
        &self,
        request: AppendRequest,
        on_decided: impl FnOnce(&AppendResult) + Send + 'static,
    ) -> Result<Vec<i64>, BrokerError> {
        self.begin(request, on_decided).await?.decided().await
    }

    /// Puts an append into the log's queue, and calls `on_decided` on the thread that commits when it has ended.
    pub(crate) async fn begin(
        &self,
        request: AppendRequest,
        on_decided: impl FnOnce(&AppendResult) + Send + 'static,
    ) -> Result<AppendUnderWay, BrokerError> {
        self.check_open()?;
        let bytes = request.total_bytes();
        if bytes > self.inner.max_request_bytes {
            return Err(BrokerError::TooLarge {
                what: "request",
                bytes,
                limit: self.inner.max_request_bytes,
            });
        }
        let weight = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.inner.max_in_flight_bytes);
        let permit = Arc::clone(&self.inner.in_flight)
            .acquire_many_owned(weight)
            .await
            .map_err(|_| BrokerError::Closed)?;
        let (done, appended) = oneshot::channel();
        let on_appended = completion(permit, on_decided, done);
        if let Err(full) = self.inner.log.try_append(request, on_appended) {
            // The semaphore is as large as the queue, so the queue is full only while the log counts down what it has
            // just decided. Waiting for that blocks, so it is done elsewhere.
            let log = self.inner.log.clone();
            let waiting =
                tokio::task::spawn_blocking(move || log.append_with(full.request, full.on_appended));
            waiting.await.map_err(|_| BrokerError::Closed)?;
        }
        Ok(AppendUnderWay { appended })
    }

    /// Joins a group. `waker` is notified when the member should poll. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`], [`BrokerError::TooLarge`] for names, [`BrokerError::Closed`].
    pub fn join(&self, settings: MemberSettings, waker: Arc<Notify>) -> Result<Member, BrokerError> {
        self.check_open()?;
        Member::join(self, settings, waker)
    }

    /// Becomes the producer in force of a transactional id. Returns when every commit of older ones is decided.
    ///
    /// # Errors
    /// [`BrokerError::TooLarge`] for an id that is too long, [`BrokerError::Closed`].
    pub async fn transactional_id(&self, transactional_id: &str) -> Result<TransactionalId, BrokerError> {
        self.check_open()?;
        TransactionalId::take(self, transactional_id).await
    }

    /// Every group with members or committed offsets, by name.
    pub fn group_snapshots(&self) -> Vec<GroupSnapshot> {
        self.inner.groups.snapshot()
    }

    /// The committed offsets of a group; none for a group that nobody knows.
    pub fn committed(&self, group: &str) -> BTreeMap<TopicPartition, i64> {
        self.inner.groups.committed(group)
    }

    /// Rebalances completed after this call.
    pub fn rebalances(&self) -> broadcast::Receiver<RebalanceRecord> {
        self.inner.groups.rebalances()
    }

    /// Bytes of one append at most; also of one transaction.
    pub fn max_request_bytes(&self) -> usize {
        self.inner.max_request_bytes
    }

    /// Counts an offset that was gone and was reset.
    pub fn count_offset_reset(&self) {
        self.inner.offset_resets.fetch_add(1, Ordering::Relaxed);
    }

    /// The broker in numbers.
    pub fn stats(&self) -> BrokerStats {
        let topics = self.topics();
        let in_flight = usize::try_from(self.inner.max_in_flight_bytes)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.inner.in_flight.available_permits());
        BrokerStats {
            log: self.inner.log.metrics(),
            topics: topics
                .iter()
                .map(|topic| TopicStats {
                    name: Arc::clone(topic.name()),
                    internal: topic.is_internal(),
                    partitions: topic.partitions().iter().map(Partition::metrics).collect(),
                })
                .collect(),
            groups: self.group_snapshots().into_iter().map(|group| self.group_stats(group)).collect(),
            in_flight_bytes: in_flight,
            offset_resets: self.inner.offset_resets.load(Ordering::Relaxed),
            fenced_commits: self.inner.groups.fenced_commits(),
            producers: self.inner.producers.stats(),
            open_transactions: self.inner.transactions.open_count(),
            timed_out_transactions: self.inner.transactions.timed_out(),
        }
    }

    fn group_stats(&self, group: GroupSnapshot) -> GroupStats {
        let mut places: BTreeMap<TopicPartition, (Option<String>, Option<i64>)> = group
            .committed
            .into_iter()
            .map(|(partition, offset)| (partition, (None, Some(offset))))
            .collect();
        for member in &group.members {
            for partition in &member.partitions {
                places.entry(partition.clone()).or_default().0 = Some(member.client_id.clone());
            }
        }
        let partitions = places
            .into_iter()
            .filter_map(|(partition, (owner, committed))| {
                // An offset may be left of a topic that is not there any more.
                let reader = self.partition(&partition).ok()?;
                let end = reader.end_offset();
                let lag = end.saturating_sub(committed.unwrap_or_else(|| reader.start_offset())).max(0);
                Some(GroupPartitionStats { partition, owner, committed, end, lag })
            })
            .collect();
        GroupStats {
            group: group.group,
            generation: group.generation,
            state: group.state,
            members: group.members,
            partitions,
        }
    }

    pub(crate) fn groups(&self) -> &Arc<Groups> {
        &self.inner.groups
    }

    /// Where committed offsets stand.
    pub(crate) fn offsets_partition(&self) -> &Partition {
        &self.inner.offsets_partition
    }

    pub(crate) fn producers(&self) -> &Arc<Registry> {
        &self.inner.producers
    }

    pub(crate) fn transactions(&self) -> &Arc<Transactions> {
        &self.inner.transactions
    }

    pub(crate) fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// Lets open transactions run out of time, as long as somebody holds the broker.
    fn watch_transactions(&self, runtime: &Handle) {
        let weak = Arc::downgrade(&self.inner);
        let watching = runtime.spawn(async move {
            let mut rounds = ExpiryRounds::default();
            loop {
                rounds.wait().await;
                let Some(inner) = weak.upgrade() else { return };
                rounds.run(&Self { inner }).await;
            }
        });
        // Set once, here.
        let _ = self.inner.expiry.set(watching);
    }

    /// The topics, for whoever must not keep the broker open.
    pub(crate) fn weak_topics(&self) -> Weak<RwLock<BTreeMap<Arc<str>, Arc<Topic>>>> {
        Arc::downgrade(&self.inner.topics)
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

impl AppendUnderWay {
    /// Waits until the batches are as durable as their topics ask and can be read; gives the base offset of each.
    ///
    /// # Errors
    /// [`BrokerError::Poisoned`], [`BrokerError::Closed`].
    pub async fn decided(self) -> Result<Vec<i64>, BrokerError> {
        let outcome = self.appended.await.map_err(|_| BrokerError::Closed)?;
        outcome.map(|appended| appended.base_offsets)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.deadlines.abort();
        self.snapshots.abort();
        self.last_alive.as_ref().inspect(|(_, keeping)| keeping.abort());
        self.expiry.get().inspect(|expiry| expiry.abort());
    }
}

/// The id of a topic that is not listed: the same for ever, because the topic can't be deleted and made again.
fn internal_topic_id(catalog: &Catalog, name: &str) -> Uuid {
    Uuid::new_v5(&catalog.cluster_id(), name.as_bytes())
}

/// What the log calls when an append has ended: lets the result count, frees the bytes, tells the caller.
fn completion(
    permit: OwnedSemaphorePermit,
    on_decided: impl FnOnce(&AppendResult) + Send + 'static,
    done: oneshot::Sender<Result<Appended, BrokerError>>,
) -> OnAppended {
    Box::new(move |outcome| {
        on_decided(&outcome);
        drop(permit);
        // A caller that was dropped doesn't want to know.
        let _ = done.send(outcome.map_err(BrokerError::from_append));
    })
}

/// The longest that a waiting consumer may go without polling its group: a fraction of what its group allows.
pub fn poll_pace(max_poll_interval: Duration) -> Duration {
    const POLLS_PER_INTERVAL: u32 = 3;
    (max_poll_interval / POLLS_PER_INTERVAL).max(Duration::from_millis(1))
}

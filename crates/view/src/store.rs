//! The store: one SQLite file, one thread that writes it, a few connections that read it.
//!
//! # Limits
//! At most [`COMMAND_QUEUE`] commands wait for the writer (further callers wait in line); at most
//! [`StoreOptions::readers`] queries run and [`WAITING_QUERIES`] wait for a connection, beyond which a query is refused; a
//! query runs for at most [`StoreOptions::query_time_limit`]. The writer's page cache holds at most
//! [`StoreOptions::writer_cache_bytes`], each reader's a tenth of it.
//!
//! # Cancellation
//! A dropped [`Store::apply`], [`Store::clear`] or [`Store::prune`] may still happen; since positions move with the content,
//! applying the same batches again does no harm. A dropped [`Store::query`] runs to its end in the background, within its
//! time limit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farol_bus::{ConsumedBatch, TopicPartition};
use farol_event::{Position, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::ViewError;
use crate::name::{ViewName, ViewTopics};
use crate::query::{Queries, QuerySettings};
use crate::store::readers::Readers;
use crate::store::schema::WalIndex;
use crate::store::writer::{Command, Writer};

mod prune;
mod readers;
mod schema;
mod stats;
mod writer;

pub use prune::{Pruned, Retention};
pub use stats::ViewStats;

/// How many commands may wait for the writer thread.
pub const COMMAND_QUEUE: usize = 16;
/// How many queries may wait for a read-only connection.
pub const WAITING_QUERIES: usize = 256;

/// How the store works.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// What the topics are called.
    pub topics: ViewTopics,
    /// How many queries run at a time, each on a connection of its own.
    pub readers: usize,
    /// A query that runs longer is stopped with [`ViewError::TimedOut`].
    pub query_time_limit: Duration,
    /// A sensor of which no reading has arrived for so long is `stale`.
    pub stale_after: Duration,
    /// A consumer or producer that has not reported for so long is `stale`.
    pub member_stale_after: Duration,
    /// The writer's page cache, in bytes. Filled only as far as there is something to hold.
    pub writer_cache_bytes: usize,
    /// The WAL is written back into the file whenever it has grown by so many bytes. Larger: fewer fsyncs and less writing, a
    /// larger `-wal` file.
    pub checkpoint_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            topics: ViewTopics::default(),
            readers: 2,
            query_time_limit: Duration::from_secs(5),
            stale_after: Duration::from_secs(60),
            member_stale_after: Duration::from_secs(15),
            writer_cache_bytes: 32 * 1024 * 1024,
            checkpoint_bytes: 32 * 1024 * 1024,
        }
    }
}

/// The next offset to apply, per partition, of one view.
pub type PositionMap = BTreeMap<TopicPartition, i64>;
/// The positions of all views at one moment.
pub type AllPositions = BTreeMap<ViewName, PositionMap>;

/// What one [`Store::apply`] did to one view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Records folded into the view.
    pub applied: u64,
    /// Records that the view couldn't read, counted by reason in [`ViewStats::skipped`].
    pub skipped: u64,
    /// Records before the view's position: applied earlier, left alone now.
    pub already_applied: u64,
}

/// The views' store. Cheap to clone; the writer thread ends when [`Store::close`] is called or the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    topics: ViewTopics,
    commands: mpsc::Sender<Command>,
    positions: watch::Receiver<Arc<AllPositions>>,
    stats: stats::SharedStats,
    readers: Readers,
    cleared_at_open: Vec<ViewName>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens the file, or makes it. Blocks for file I/O: call it before serving, or off the async threads.
    ///
    /// A file that is there can be opened on a full disk too, and queried; what is applied is refused until there is space.
    ///
    /// # Errors
    /// [`ViewError::Open`], [`ViewError::Schema`], [`ViewError::Thread`].
    pub fn open(path: impl AsRef<Path>, options: StoreOptions) -> Result<Self, ViewError> {
        let path = path.as_ref();
        match Self::open_with(path, WalIndex::File, options.clone()) {
            Err(error) if error.lacks_room_for_wal_index() => {
                tracing::warn!(
                    path = %path.display(),
                    "the disk is full: until the next start, no other program can read the views"
                );
                Self::open_with(path, WalIndex::Memory, options)
            }
            opened => opened,
        }
    }

    fn open_with(path: &Path, wal_index: WalIndex, options: StoreOptions) -> Result<Self, ViewError> {
        let path = path.to_path_buf();
        let stats = stats::SharedStats::default();
        let opened = Writer::open(&path, wal_index, &options, stats.clone())?;
        let settings = QuerySettings {
            time_limit: options.query_time_limit,
            stale_after: options.stale_after,
            member_stale_after: options.member_stale_after,
        };
        let reader_cache_bytes = options.writer_cache_bytes / 10;
        let readers = Readers::open(
            &path,
            wal_index,
            options.readers.max(1),
            reader_cache_bytes,
            options.topics.clone(),
            settings,
        )?;
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let positions = opened.writer.subscribe_positions();
        let thread = std::thread::Builder::new()
            .name("view-writer".into())
            .spawn(move || opened.writer.run(receiver))
            .map_err(ViewError::Thread)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                topics: options.topics,
                commands,
                positions,
                stats,
                readers,
                cleared_at_open: opened.cleared,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The views, in the order in which they are best fed.
    pub fn views(&self) -> &'static [ViewName] {
        &ViewName::ALL
    }

    /// The topics that a view reads.
    pub fn topics(&self, view: ViewName) -> Vec<Arc<str>> {
        self.inner.topics.of(view)
    }

    /// The views whose tables had another version than this program's, or that were new, and start from nothing.
    pub fn cleared_at_open(&self) -> &[ViewName] {
        &self.inner.cleared_at_open
    }

    /// Applies records to the named views and moves their positions, all in one transaction. Batches of topics that a view
    /// doesn't read leave it alone; records before a view's position are skipped. What it did, per named view.
    ///
    /// The larger the batches (tens of thousands of records), the less each record costs. Give an `Arc` to be able to offer the
    /// same batches again.
    ///
    /// # Errors
    /// [`ViewError::Apply`], [`ViewError::Transaction`], [`ViewError::Closed`]. Nothing was applied then, no position moved,
    /// and the same call may be made again if the error [is retriable](ViewError::is_retriable).
    pub async fn apply(
        &self,
        views: &[ViewName],
        batches: impl Into<Arc<[ConsumedBatch]>>,
        now: Timestamp,
    ) -> Result<BTreeMap<ViewName, Applied>, ViewError> {
        let views = views.to_vec();
        let batches = batches.into();
        self.command(|answer| Command::Apply { views, batches, now, answer }).await
    }

    /// Deletes the content and the positions of one view, so that it is to be fed from offset zero again.
    ///
    /// # Errors
    /// [`ViewError::Schema`], [`ViewError::Transaction`], [`ViewError::Closed`].
    pub async fn clear(&self, view: ViewName) -> Result<(), ViewError> {
        self.command(|answer| Command::Clear { view, answer }).await
    }

    /// Deletes what the retention says is old, in slices of a few thousand rows, between which other commands get their turn.
    ///
    /// # Errors
    /// [`ViewError::Prune`], [`ViewError::Transaction`], [`ViewError::Closed`]. Slices deleted before the error stay deleted.
    pub async fn prune(&self, retention: Retention) -> Result<Pruned, ViewError> {
        let mut pruned = Pruned::default();
        loop {
            let slice = self.command(|answer| Command::Prune { retention, answer }).await?;
            pruned.add(&slice);
            if slice.total() == 0 {
                return Ok(pruned);
            }
        }
    }

    /// The next offset to apply, per partition, of one view. Partitions that it has seen nothing of are absent: start them
    /// at the earliest record.
    pub fn positions(&self, view: ViewName) -> PositionMap {
        self.inner.positions.borrow().get(&view).cloned().unwrap_or_default()
    }

    /// The positions of all views, now and at every change.
    pub fn subscribe_positions(&self) -> watch::Receiver<Arc<AllPositions>> {
        self.inner.positions.clone()
    }

    /// Waits until the view has applied the record at `position`. `false` if that took longer than `limit` or the store
    /// closed.
    pub async fn wait_for(&self, view: ViewName, position: &Position, limit: Duration) -> bool {
        let partition = TopicPartition::new(Arc::clone(&position.topic), position.partition);
        let mut positions = self.subscribe_positions();
        let passed = positions.wait_for(|all| {
            all.get(&view)
                .and_then(|of_view| of_view.get(&partition))
                .is_some_and(|next| *next > position.offset)
        });
        matches!(tokio::time::timeout(limit, passed).await, Ok(Ok(_)))
    }

    /// Runs queries on a read-only connection, off the async threads. The closure sees one state of all views.
    ///
    /// # Errors
    /// [`ViewError::Busy`] if too many wait already, [`ViewError::Closed`], and whatever the closure returns.
    pub async fn query<T, F>(&self, ask: F) -> Result<T, ViewError>
    where
        T: Send + 'static,
        F: FnOnce(&Queries<'_>) -> Result<T, ViewError> + Send + 'static,
    {
        self.inner.readers.query(ask).await
    }

    /// What each view has done since the store was opened.
    pub fn stats(&self) -> BTreeMap<ViewName, ViewStats> {
        self.inner.stats.snapshot(&self.inner.positions.borrow())
    }

    /// How many commands wait for the writer, of [`COMMAND_QUEUE`].
    pub fn queue_depth(&self) -> usize {
        COMMAND_QUEUE - self.inner.commands.capacity().min(COMMAND_QUEUE)
    }

    /// Carries out the commands that wait already, writes the WAL back and closes the file. Queries that run go on to their
    /// end; later calls fail with [`ViewError::Closed`].
    pub async fn close(&self) {
        // First, because the WAL goes with the last connection, and only the writer's may write it back.
        self.inner.readers.close();
        let (answer, done) = oneshot::channel();
        if self.inner.commands.send(Command::Close { answer }).await.is_ok() {
            // An error means that the writer is gone already, which is what was asked for.
            let _ = done.await;
        }
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread {
            // The thread has answered and only has to return.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ViewError>>) -> Command,
    ) -> Result<T, ViewError> {
        let (answer, result) = oneshot::channel();
        self.inner.commands.send(command(answer)).await.map_err(|_| ViewError::Closed)?;
        result.await.map_err(|_| ViewError::Closed)?
    }
}

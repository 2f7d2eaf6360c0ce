//! An open data folder.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, ReentrantMutex, RwLock};

use crate::append::{AppendError, AppendRequest, OnAppended, PendingAppend, QueueFull};
use crate::checkpoint::{Checkpoints, Kind};
use crate::commit::Committer;
use crate::fs::{FileSystem, OpenMode, write_all_at};
use crate::id::PartitionId;
use crate::journal::JournalFiles;
use crate::metrics::{LogCounters, LogMetrics};
use crate::options::{Background, LogOptions, PartitionOptions};
use crate::partition::{Committed, Partition, PartitionInner, ReadError, View};
use crate::queue::{By, Queue};
use crate::recovery::{self, OpenError, RecoveryReport};
use crate::segment::Segment;
use crate::space::{self, Waiting, WaitsFor};
use crate::trouble::Trouble;

/// The directory of the partitions' directories, in the data folder.
pub(crate) const PARTITIONS_DIR: &str = "partitions";
/// The file in a partition's directory that holds its number.
pub(crate) const PARTITION_FILE: &str = "partition";
/// How often partitions are looked at whose compaction may not be late.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// An open data folder. Cheap to clone; all clones are the same log. When the last clone goes without
/// [`Log::close`], the log is closed all the same, and an error is only traced.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// Why a partition can't be made, deleted or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// It is there already.
    #[error("partition {partition} exists already")]
    Exists {
        /// The partition.
        partition: PartitionId,
    },
    /// It isn't there, or was deleted.
    #[error("partition {partition} does not exist")]
    Missing {
        /// The partition.
        partition: PartitionId,
    },
    /// A file operation failed.
    #[error("partition {partition}: {step} {path}: {source}")]
    Io {
        /// The partition.
        partition: PartitionId,
        /// What was being done.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Its segments could not be read.
    #[error("partition {partition}: {source}")]
    Read {
        /// The partition.
        partition: PartitionId,
        /// What went wrong.
        source: ReadError,
    },
    /// A write or sync failed earlier.
    #[error("the log takes no changes until it is opened again: {reason}")]
    LogPoisoned {
        /// What failed.
        reason: Arc<str>,
    },
    /// The disk is full. Changes are taken again once there is space.
    #[error("the log takes no changes until there is space on the disk: {reason}")]
    WaitingForSpace {
        /// What could not be written.
        reason: Arc<str>,
    },
    /// No checkpoint can be written. Changes are taken again once the folder can be written.
    #[error("the log takes no changes until its folder can be written again: {reason}")]
    FolderNotWritable {
        /// What could not be written.
        reason: Arc<str>,
    },
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

impl PartitionError {
    /// Whether the log takes no changes for now and goes on by itself, which it has said.
    fn is_for_now(&self) -> bool {
        matches!(self, Self::WaitingForSpace { .. } | Self::FolderNotWritable { .. })
    }
}

/// Why a log did not close in order, or wrote no checkpoint. What was acknowledged is safe in the journal all the same.
#[derive(Debug, thiserror::Error)]
#[error("no checkpoint was written: {reason}; the next opening replays the journal")]
pub struct CloseError {
    reason: String,
}

/// Ends the log when the last clone goes.
struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the log's threads share.
pub(crate) struct Shared {
    /// For the partitions that are made later.
    own: Weak<Shared>,
    pub(crate) dir: PathBuf,
    pub(crate) file_system: Arc<dyn FileSystem>,
    pub(crate) options: LogOptions,
    pub(crate) partitions: RwLock<BTreeMap<PartitionId, Arc<PartitionInner>>>,
    /// Held while a partition is being made, so that one with a used number is always in the list.
    pub(crate) next_partition_number: Mutex<u32>,
    pub(crate) queue: Queue,
    /// Held from a group's taking to its last callback, so that all this happens in one order. A callback may drop the last handle,
    /// which commits what is left.
    pub(crate) commit_turn: ReentrantMutex<()>,
    /// Held during a group commit and by whatever must not happen during one.
    pub(crate) committer: Mutex<Committer>,
    /// Sequence of the last frame whose batches can be read. Held while a group is made readable.
    pub(crate) published: Mutex<u64>,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) journal_files: Arc<JournalFiles>,
    pub(crate) poison: OnceLock<Arc<str>>,
    /// Set by a full disk until there is space again, or by a folder that can't be written until it can. After an opening the
    /// journal's old frames are needed so long, so nothing may be written over them.
    pub(crate) waiting: RwLock<Option<Waiting>>,
    pub(crate) told_waiting: Trouble,
    pub(crate) counters: LogCounters,
    pub(crate) closed: AtomicBool,
    /// The folder's lock; dropped by closing.
    pub(crate) folder_lock: Mutex<Option<Box<dyn Send + Sync>>>,
    maintenance_closed: Mutex<bool>,
    maintenance_wakes: Condvar,
}

/// What recovery hands over to an open log.
pub(crate) struct Recovered {
    pub(crate) partitions: BTreeMap<PartitionId, Arc<PartitionInner>>,
    pub(crate) next_partition_number: u32,
    pub(crate) epoch: u64,
    pub(crate) last_sequence: u64,
    pub(crate) journal_files: Arc<JournalFiles>,
    pub(crate) committer: Committer,
    pub(crate) folder_lock: Box<dyn Send + Sync>,
}

impl Log {
    /// Opens or makes a data folder: takes its lock, recovers, starts the threads.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: LogOptions) -> Result<(Log, RecoveryReport), OpenError> {
        let background = options.background;
        let (shared, report) = recovery::open(options)?;
        let threads = match background {
            Background::Threads => start_threads(&shared)?,
            Background::Inline => Vec::new(),
        };
        Ok((Log { handle: Arc::new(Handle { shared, threads: Mutex::new(threads) }) }, report))
    }

    /// Makes a partition; it is durable when this returns.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub fn create_partition(
        &self,
        id: &PartitionId,
        options: PartitionOptions,
    ) -> Result<Partition, PartitionError> {
        self.shared().create_partition(id, options)
    }

    /// Deletes a partition and its records. Readers that hold it see what they have open; appends to it fail.
    ///
    /// # Errors
    /// [`PartitionError`]. The partition is then as before, or [deleted](Partition::is_deleted) and not for good yet: the next
    /// checkpoint makes it so, or deleting it again; a power cut before may bring it back.
    pub fn delete_partition(&self, id: &PartitionId) -> Result<(), PartitionError> {
        self.shared().delete_partition(id)
    }

    /// A partition by name.
    pub fn partition(&self, id: &PartitionId) -> Option<Partition> {
        let partitions = self.shared().partitions.read();
        let there = partitions.get(id).filter(|inner| !inner.is_deleted());
        there.map(|inner| Partition { inner: Arc::clone(inner) })
    }

    /// All partitions, by name.
    pub fn partitions(&self) -> Vec<Partition> {
        let partitions = self.shared().partitions.read();
        let there = partitions.values().filter(|inner| !inner.is_deleted());
        there.map(|inner| Partition { inner: Arc::clone(inner) }).collect()
    }

    /// Queues an append, blocking while the queue is full. The result comes through the returned value.
    pub fn append(&self, request: AppendRequest) -> PendingAppend {
        let (on_appended, pending) = PendingAppend::new();
        self.append_with(request, on_appended);
        pending
    }

    /// Queues an append, blocking while the queue is full. `on_appended` gets the result.
    pub fn append_with(&self, request: AppendRequest, on_appended: OnAppended) {
        match self.shared().first_flaw(&request) {
            Some(error) => on_appended(Err(error)),
            None => self.shared().queue.push(request, on_appended),
        }
        self.commit_if_inline();
    }

    /// Queues several independent appends, blocking while the queue is full, so that they can share a group commit.
    pub fn append_each(&self, requests: Vec<AppendRequest>) -> Vec<PendingAppend> {
        let pending = requests
            .into_iter()
            .map(|request| {
                let (on_appended, pending) = PendingAppend::new();
                match self.shared().first_flaw(&request) {
                    Some(error) => on_appended(Err(error)),
                    None => self.shared().queue.push(request, on_appended),
                }
                pending
            })
            .collect();
        self.commit_if_inline();
        pending
    }

    /// Queues an append if the queue has room. `on_appended` gets the result.
    ///
    /// If nothing that waits needs a sync, and nobody else is committing, it is committed at once on the caller's thread, which then
    /// writes to the page cache, runs the preconditions and callbacks of what is committed, and waits for nothing else.
    ///
    /// # Errors
    /// [`QueueFull`] gives request and callback back.
    pub fn try_append(&self, request: AppendRequest, on_appended: OnAppended) -> Result<(), Box<QueueFull>> {
        if let Some(error) = self.shared().first_flaw(&request) {
            on_appended(Err(error));
            return Ok(());
        }
        let by = self.shared().who_commits(&request);
        self.shared().queue.try_push(request, on_appended, by)?;
        if by == By::Sender {
            self.shared().commit_here();
        }
        self.commit_if_inline();
        Ok(())
    }

    /// Makes the segments durable and lets journal files be used again. The log does it by itself.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn checkpoint(&self) -> Result<(), CloseError> {
        self.shared().write_checkpoint(Kind::Needed).map_err(|error| CloseError { reason: error.to_string() })
    }

    /// Syncs the journal now, for partitions whose policy doesn't wait for it.
    pub fn sync(&self) {
        self.shared().sync_journal();
    }

    /// Its counters.
    pub fn metrics(&self) -> LogMetrics {
        let shared = self.shared();
        shared.counters.journal_files.set(shared.journal_files.existing() as u64);
        let (queued_bytes, queued_requests) = shared.queue.depth();
        LogMetrics {
            queued_bytes: queued_bytes as u64,
            queued_requests: queued_requests as u64,
            poisoned: shared.poison.get().cloned(),
            waiting_for_space: shared.reason_to_wait(WaitsFor::Space),
            folder_not_writable: shared.reason_to_wait(WaitsFor::Folder),
            ..shared.counters.snapshot()
        }
    }

    /// Closes in order: waits for queued appends, syncs, writes a checkpoint, gives up the lock. Clones refuse after it;
    /// partitions can still be read. Must not be called from a callback or listener.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn close(&self) -> Result<(), CloseError> {
        self.handle.close()
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    fn commit_if_inline(&self) {
        if self.shared().options.background == Background::Inline {
            self.shared().commit_waiting();
        }
    }
}

fn start_threads(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, OpenError> {
    let spawn = |name: &str, run: fn(&Shared)| {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&shared))
            .map_err(|source| OpenError::Thread { name: name.to_owned(), source })
    };
    Ok(vec![
        spawn("log-commit", Shared::commit_until_closed)?,
        spawn("log-checkpoint", Shared::checkpoint_until_closed)?,
        spawn("log-journal", Shared::prepare_journal_files)?,
        spawn("log-maintain", Shared::maintain_until_closed)?,
    ])
}

impl Handle {
    fn close(&self) -> Result<(), CloseError> {
        let shared = &*self.shared;
        if shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        shared.queue.close();
        *shared.maintenance_closed.lock() = true;
        shared.maintenance_wakes.notify_all();
        let own = std::thread::current().id();
        let mut threads = std::mem::take(&mut *self.threads.lock()).into_iter();
        // The commit thread first: it may still need checkpoints and journal files to get through the queue.
        for thread in threads.by_ref().take(1).filter(|thread| thread.thread().id() != own) {
            join(thread);
        }
        shared.commit_waiting();
        shared.checkpoints.close();
        shared.journal_files.close();
        threads.filter(|thread| thread.thread().id() != own).for_each(join);
        shared.sync_journal();
        let closed = shared.write_checkpoint(Kind::Clean);
        if closed.is_ok() {
            shared.save_active_indexes();
        }
        *shared.folder_lock.lock() = None;
        closed.map_err(|error| CloseError { reason: error.to_string() })
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread of the log panicked");
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, dir = %self.shared.dir.display(), "closing the log");
        }
    }
}

impl Shared {
    pub(crate) fn new(options: LogOptions, recovered: Recovered) -> Arc<Self> {
        let shared = Arc::new_cyclic(|own| Self {
            own: own.clone(),
            dir: options.dir.clone(),
            file_system: Arc::clone(&options.file_system),
            partitions: RwLock::new(recovered.partitions),
            next_partition_number: Mutex::new(recovered.next_partition_number),
            queue: Queue::new(options.queue_bytes),
            commit_turn: ReentrantMutex::default(),
            committer: Mutex::new(recovered.committer),
            published: Mutex::new(recovered.last_sequence),
            checkpoints: Checkpoints::new(recovered.epoch),
            journal_files: recovered.journal_files,
            poison: OnceLock::new(),
            waiting: RwLock::new(None),
            told_waiting: Trouble::default(),
            counters: LogCounters::default(),
            closed: AtomicBool::new(false),
            folder_lock: Mutex::new(Some(recovered.folder_lock)),
            maintenance_closed: Mutex::new(false),
            maintenance_wakes: Condvar::new(),
            options,
        });
        for partition in shared.partitions.read().values() {
            // Set once: recovery makes each partition anew.
            let _ = partition.log.set(Arc::downgrade(&shared));
        }
        shared
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses appends from now on; the first reason stays.
    pub(crate) fn poison_log(&self, reason: &str) {
        if self.poison.set(reason.into()).is_ok() {
            tracing::error!(dir = %self.dir.display(), reason, "the log takes no more appends");
        }
    }

    /// Whether a partition is one of this log's.
    pub(crate) fn owns(&self, partition: &PartitionInner) -> bool {
        partition.log.get().is_some_and(|log| std::ptr::eq(log.as_ptr(), self))
    }

    /// What is wrong with a request by itself.
    fn first_flaw(&self, request: &AppendRequest) -> Option<AppendError> {
        let bytes = request.total_bytes();
        if request.batches.is_empty() {
            Some(AppendError::Empty)
        } else if bytes > self.options.max_request_bytes {
            Some(AppendError::TooLarge { bytes, limit: self.options.max_request_bytes })
        } else {
            None
        }
    }

    fn create_partition(
        &self,
        id: &PartitionId,
        options: PartitionOptions,
    ) -> Result<Partition, PartitionError> {
        let mut next_number = self.next_partition_number.lock();
        self.refuse_if_not_writable()?;
        if self.partitions.read().contains_key(id) {
            return Err(PartitionError::Exists { partition: id.clone() });
        }
        let number = *next_number;
        let dir = self.dir.join(PARTITIONS_DIR).join(id.as_str());
        let failed = |step: &'static str| {
            let (partition, path) = (id.clone(), dir.clone());
            move |source| PartitionError::Io { partition, step, path, source }
        };
        let segment = self.make_partition_dir(&dir, number).map_err(failed("making"))?;
        let view = View { start_offset: 0, segments: vec![Arc::new(segment)], committed: Committed::NOTHING };
        let file_system = Arc::clone(&self.file_system);
        let partition = PartitionInner::new(file_system, id.clone(), number, dir.clone(), options, view)
            .ok_or_else(|| failed("making")(io::ErrorKind::InvalidData.into()))?;
        *next_number += 1;
        let inner = Arc::new(partition);
        // Made just now, so nobody has set it.
        let _ = inner.log.set(self.own.clone());
        self.partitions.write().insert(id.clone(), Arc::clone(&inner));
        Ok(Partition { inner })
    }

    fn make_partition_dir(&self, dir: &Path, number: u32) -> io::Result<Segment> {
        let file_system = &*self.file_system;
        if file_system.read_dir(dir).is_ok() {
            // What is left of a deletion that failed halfway.
            file_system.remove_dir_all(dir)?;
        }
        file_system.create_dir_all(dir)?;
        let segment = Segment::create(&self.file_system, dir, 0)?;
        let file = file_system.open(&dir.join(PARTITION_FILE), OpenMode::Create)?;
        let content = recovery::partition_file_content(number);
        write_all_at(&*file, &mut [io::IoSlice::new(content.as_bytes())], 0)?;
        file.sync_data()?;
        file_system.sync_dir(dir)?;
        file_system.sync_dir(&self.dir.join(PARTITIONS_DIR))?;
        Ok(segment)
    }

    fn delete_partition(&self, id: &PartitionId) -> Result<(), PartitionError> {
        // On a full disk it is the way out.
        self.refuse_if_unusable()?;
        let missing = || PartitionError::Missing { partition: id.clone() };
        let partition = self.partitions.read().get(id).map(Arc::clone).ok_or_else(missing)?;
        let _pass = partition.maintenance.lock();
        // Another one may have deleted it meanwhile. One that is deleted and still there is not so for good.
        if self.partitions.read().get(id).is_none_or(|now| !Arc::ptr_eq(now, &partition)) {
            return Err(missing());
        }
        partition.deleted.store(true, Ordering::Release);
        // A group that took its batches before the flag was set must be through.
        drop(self.committer.lock());
        // Not in the checkpoint and an old number: that is what makes it deleted, whatever of its files is left.
        if let Err(error) = self.write_checkpoint_without(&partition) {
            partition.deleted.store(partition.unlisted.load(Ordering::Relaxed), Ordering::Release);
            return Err(partition.checkpoint_failed(error));
        }
        let partitions_dir = self.dir.join(PARTITIONS_DIR);
        let discarded = partitions_dir.join(format!(".deleted-{}", partition.number));
        let removed = self
            .file_system
            .rename(&partition.dir, &discarded)
            .and_then(|()| self.file_system.sync_dir(&partitions_dir))
            .and_then(|()| self.file_system.remove_dir_all(&discarded));
        self.partitions.write().remove(id);
        removed.map_err(|source| PartitionError::Io {
            partition: id.clone(),
            step: "removing",
            path: partition.dir.clone(),
            source,
        })
    }

    fn refuse_if_unusable(&self) -> Result<(), PartitionError> {
        if self.is_closed() {
            return Err(PartitionError::Closed);
        }
        match self.poison.get() {
            Some(reason) => Err(PartitionError::LogPoisoned { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    fn refuse_if_not_writable(&self) -> Result<(), PartitionError> {
        self.refuse_if_unusable()?;
        match &*self.waiting.read() {
            Some(waiting) => Err(waiting.partition_error()),
            None => Ok(()),
        }
    }

    /// Closes the segment that a partition writes to, if it holds anything, and begins the next.
    pub(crate) fn roll(&self, partition: &PartitionInner) -> Result<(), PartitionError> {
        let _no_commit = self.committer.lock();
        self.refuse_if_not_writable()?;
        if partition.poison.get().is_some() {
            return Ok(());
        }
        {
            let mut writer = partition.writer.lock();
            if writer.active().len() == 0 {
                return Ok(());
            }
            writer.roll(partition).map_err(|source| PartitionError::Io {
                partition: partition.id.clone(),
                step: "beginning a segment in",
                path: partition.dir.clone(),
                source,
            })?;
        }
        let _published = self.published.lock();
        partition.publish();
        Ok(())
    }

    fn save_active_indexes(&self) {
        for partition in self.partitions.read().values() {
            let Some(active) = partition.view.read().segments.last().map(Arc::clone) else { continue };
            if active.save_index().is_err() {
                tracing::debug!(segment = %active.path().display(), "index not saved; it will be made again");
            }
        }
    }

    fn prepare_journal_files(&self) {
        let mut failed = 0;
        loop {
            match self.journal_files.prepare() {
                Ok(true) => failed = 0,
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "no journal file could be made ahead; a commit that needs one tries again");
                    failed += 1;
                    if self.journal_files.wait_until_closed(space::pause_after(failed)) {
                        return;
                    }
                }
            }
        }
    }

    /// The maintenance thread: retention and compaction now and then, and more often where compaction may not be late.
    fn maintain_until_closed(&self) {
        let interval = self.options.maintenance_interval;
        let failing = Trouble::default();
        let mut next = Instant::now() + interval;
        loop {
            {
                let mut closed = self.maintenance_closed.lock();
                if !*closed {
                    self.maintenance_wakes.wait_for(&mut closed, interval.min(LAG_INTERVAL));
                }
                if *closed {
                    return;
                }
            }
            let all = Instant::now() >= next;
            if all {
                next = Instant::now() + interval;
            }
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
            let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
            let due = |inner: &&Arc<PartitionInner>| {
                let has_max_lag = || inner.options.read().compaction.is_some_and(|c| c.max_lag.is_some());
                !inner.is_deleted() && (all || has_max_lag())
            };
            let partitions: Vec<_> = self.partitions.read().values().filter(due).map(Arc::clone).collect();
            let failed: Vec<_> = partitions
                .into_iter()
                .filter_map(|inner| {
                    let partition = Partition { inner };
                    partition.enforce_retention(now_ms).and_then(|_| partition.compact(now_ms)).err()
                })
                // A log that takes no changes for now says so itself.
                .filter(|error| !error.is_for_now())
                .inspect(|error| tracing::debug!(%error, "retention or compaction failed"))
                .collect();
            match failed.first() {
                Some(error) => {
                    if let Some(untold) = failing.again(Instant::now()) {
                        let partitions = failed.len();
                        tracing::warn!(%error, partitions, untold, "retention or compaction failed and will be tried again");
                    }
                }
                None if all && self.waiting.read().is_none() && failing.is_over() => {
                    tracing::warn!("retention and compaction work again");
                }
                None => {}
            }
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.handle.shared.dir).finish_non_exhaustive()
    }
}

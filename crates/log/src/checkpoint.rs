//! Checkpoints: how far the segments alone are durable, so that the journal before that can be used again.
//!
//! A background thread looks how far each partition is committed, syncs the segments that grew, one after another while
//! commits go on, and then replaces the file `checkpoint`. It works when `checkpoint_bytes` were appended, so that each
//! sync is small and the disk never has tens of megabytes to write ahead of the journal's next frame. Between checkpoints, each
//! time that a [`WRITE_BACK_SHARE`]th of that was appended, it lets the kernel begin to write what is new, so that the syncs find most
//! of it done.
//!
//! # Layout of the file, big-endian
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–7 | magic `FCHKPT01` |
//! | 8–11 | CRC32C of everything that follows |
//! | 12–19 | epoch of the journal frames that come after |
//! | 20–27 | sequence of the last frame that the segments hold |
//! | 28 | 1 if the log was closed in order |
//! | 29–32 | number that the next partition gets |
//! | 33–36 | count of partitions, then for each: |
//! | | number u32, length of its name u16, name, start offset i64, segment i64, position u64, end offset i64, newest timestamp i64, compacted through i64 |

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::fs::{self, Durability, FileSystem, OpenMode};
use crate::log::Shared;
use crate::partition::{Committed, PartitionInner};
use crate::segment::Segment;
use crate::space::{self, WaitsFor};
use crate::trouble::Trouble;

/// The name of the file.
pub(crate) const FILE_NAME: &str = "checkpoint";

/// How many pieces the appends between two checkpoints are written back in.
const WRITE_BACK_SHARE: u64 = 16;

const MAGIC: [u8; 8] = *b"FCHKPT01";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) clean: bool,
    pub(crate) next_partition_number: u32,
    pub(crate) partitions: Vec<PartitionCheckpoint>,
}

/// What it says of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionCheckpoint {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) start_offset: i64,
    pub(crate) committed: Committed,
    pub(crate) compacted_through: i64,
}

/// When to write one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// If anything was appended since the last.
    Needed,
    /// In any case: partitions or their start offsets changed.
    Forced,
    /// The last of an orderly shutdown.
    Clean,
}

/// Why none was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error("the log is poisoned: {0}")]
    Poisoned(Arc<str>),
    #[error("{step} {path}: {source}")]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    /// It is in its place, but a crash may bring the one before it back.
    #[error("syncing {dir} after writing a checkpoint: {source}")]
    Unsynced { dir: PathBuf, source: io::Error },
}

/// State of the thread that writes them.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Held while one is being written.
    written: Mutex<Written>,
    /// Bytes appended since the last one.
    dirty_bytes: AtomicU64,
    wanted: Mutex<Wanted>,
    changed: Condvar,
    failures: Mutex<Failures>,
}

/// The thread's attempts that came to nothing.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    newest: Option<Failure>,
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) reason: Arc<str>,
    pub(crate) waits_for: WaitsFor,
}

#[derive(Debug)]
struct Written {
    epoch: u64,
    sequence: Option<u64>,
}

#[derive(Debug, Default)]
struct Wanted {
    now: bool,
    write_back: bool,
    closed: bool,
}

/// What the thread is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Checkpoint,
    WriteBack,
    End,
}

/// A partition as a checkpoint captured it.
struct Captured {
    partition: Arc<PartitionInner>,
    start_offset: i64,
    committed: Committed,
    compacted_through: i64,
    grown: Vec<Arc<Segment>>,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.partitions.len() * 96);
        body.extend_from_slice(&self.epoch.to_be_bytes());
        body.extend_from_slice(&self.sequence.to_be_bytes());
        body.push(u8::from(self.clean));
        body.extend_from_slice(&self.next_partition_number.to_be_bytes());
        body.extend_from_slice(&u32::try_from(self.partitions.len()).unwrap_or(u32::MAX).to_be_bytes());
        for partition in &self.partitions {
            body.extend_from_slice(&partition.number.to_be_bytes());
            body.extend_from_slice(&u16::try_from(partition.name.len()).unwrap_or(u16::MAX).to_be_bytes());
            body.extend_from_slice(partition.name.as_bytes());
            body.extend_from_slice(&partition.start_offset.to_be_bytes());
            body.extend_from_slice(&partition.committed.segment_base.to_be_bytes());
            body.extend_from_slice(&partition.committed.position.to_be_bytes());
            body.extend_from_slice(&partition.committed.end_offset.to_be_bytes());
            body.extend_from_slice(&partition.committed.max_timestamp_ms.to_be_bytes());
            body.extend_from_slice(&partition.compacted_through.to_be_bytes());
        }
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        out.append(&mut body);
        out
    }

    /// `None` if the bytes aren't a whole checkpoint.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (crc, body) = rest.split_first_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(body);
        let mut checkpoint = Self {
            epoch: u64::from_be_bytes(fields.take()?),
            sequence: u64::from_be_bytes(fields.take()?),
            clean: fields.take::<1>()? == [1],
            next_partition_number: u32::from_be_bytes(fields.take()?),
            partitions: Vec::new(),
        };
        for _ in 0..u32::from_be_bytes(fields.take()?) {
            checkpoint.partitions.push(PartitionCheckpoint {
                number: u32::from_be_bytes(fields.take()?),
                name: fields.take_text()?,
                start_offset: i64::from_be_bytes(fields.take()?),
                committed: Committed {
                    segment_base: i64::from_be_bytes(fields.take()?),
                    position: u64::from_be_bytes(fields.take()?),
                    end_offset: i64::from_be_bytes(fields.take()?),
                    max_timestamp_ms: i64::from_be_bytes(fields.take()?),
                },
                compacted_through: i64::from_be_bytes(fields.take()?),
            });
        }
        Some(checkpoint)
    }

    /// The checkpoint of a folder, if it has a whole one.
    pub(crate) fn load(file_system: &dyn FileSystem, path: &std::path::Path) -> io::Result<Option<Self>> {
        let file = match file_system.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        Ok(Self::decode(&fs::read_up_to(&*file, len, 0)?))
    }
}

/// The rest of a checkpoint's bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn take_text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }
}

impl Checkpoints {
    /// Nothing is written yet for `epoch`.
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            written: Mutex::new(Written { epoch, sequence: None }),
            dirty_bytes: AtomicU64::new(0),
            wanted: Mutex::default(),
            changed: Condvar::new(),
            failures: Mutex::default(),
        }
    }

    /// How many attempts of the thread have failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.lock().count
    }

    /// Why the newest of the attempts that have failed since there were `count` of them did.
    pub(crate) fn failed_since(&self, count: u64) -> Option<Failure> {
        let failures = self.failures.lock();
        failures.newest.clone().filter(|_| failures.count > count)
    }

    fn note_failure(&self, error: &CheckpointError) {
        let mut failures = self.failures.lock();
        failures.count += 1;
        failures.newest = Some(Failure { reason: error.to_string().into(), waits_for: error.waits_for() });
    }

    /// Asks for one soon.
    pub(crate) fn request(&self) {
        self.wanted.lock().now = true;
        self.changed.notify_all();
    }

    /// Counts appended bytes; asks for a checkpoint when `limit` is reached, and for writing back before that.
    pub(crate) fn count_dirty(&self, bytes: u64, limit: u64) {
        let before = self.dirty_bytes.fetch_add(bytes, Ordering::Relaxed);
        let piece = (limit / WRITE_BACK_SHARE).max(1);
        if before < limit && before + bytes >= limit {
            self.request();
        } else if before / piece != (before + bytes) / piece {
            self.wanted.lock().write_back = true;
            self.changed.notify_all();
        }
    }

    /// Lets the thread end.
    pub(crate) fn close(&self) {
        self.wanted.lock().closed = true;
        self.changed.notify_all();
    }

    /// Blocks until something is asked for, or until it is time for a checkpoint anyway.
    fn wait(&self, deadline: Instant) -> Task {
        let mut wanted = self.wanted.lock();
        while !wanted.now && !wanted.write_back && !wanted.closed {
            if self.changed.wait_until(&mut wanted, deadline).timed_out() {
                break;
            }
        }
        if wanted.closed {
            Task::End
        } else if std::mem::take(&mut wanted.write_back) && !wanted.now && Instant::now() < deadline {
            Task::WriteBack
        } else {
            wanted.now = false;
            Task::Checkpoint
        }
    }
}

impl Shared {
    /// The checkpoint thread: runs until closed or poisoned.
    pub(crate) fn checkpoint_until_closed(&self) {
        let mut last = Instant::now();
        let failing = Trouble::default();
        loop {
            let waiting = self.waiting.read().is_some();
            let interval = self.options.checkpoint_interval;
            match self
                .checkpoints
                .wait(last + if waiting { interval.min(space::LOOK_INTERVAL) } else { interval })
            {
                Task::End => return,
                Task::WriteBack => {
                    self.begin_writing_back();
                    continue;
                }
                Task::Checkpoint => last = Instant::now(),
            }
            match self.write_checkpoint(Kind::Needed) {
                Ok(()) if failing.is_over() => tracing::warn!("checkpoints are written again"),
                Ok(()) => {}
                Err(error) => {
                    self.checkpoints.note_failure(&error);
                    // Whoever waits for one says so.
                    if !waiting
                        && self.poison.get().is_none()
                        && let Some(untold) = failing.again(Instant::now())
                    {
                        tracing::warn!(%error, untold, "no checkpoint was written; the journal is kept, trying again");
                    }
                }
            }
            self.remind_of_waiting();
        }
    }

    /// Lets the kernel write what was committed since the last time.
    fn begin_writing_back(&self) {
        let partitions: Vec<_> = self.partitions.read().values().map(Arc::clone).collect();
        // What is never synced the kernel writes when it likes.
        for partition in partitions.into_iter().filter(|partition| !partition.is_never_synced()) {
            let newest = partition.view.read().segments.last().map(Arc::clone);
            // A segment that can't be opened makes the checkpoint fail, which says so.
            if let Some(segment) = newest
                && let Ok(file) = segment.file()
            {
                let (position, bytes) = segment.take_unwritten();
                file.begin_writing_back(position, bytes);
            }
        }
    }

    /// Makes the committed part of all segments durable and says so in the checkpoint file.
    pub(crate) fn write_checkpoint(&self, kind: Kind) -> Result<(), CheckpointError> {
        self.write_next(&mut self.checkpoints.written.lock(), kind)
    }

    /// Writes a checkpoint that lists `partition` no more, which deletes it. After an error it is still unlisted if a power cut may
    /// leave such a checkpoint: what it acknowledged then would go with it.
    pub(crate) fn write_checkpoint_without(&self, partition: &PartitionInner) -> Result<(), CheckpointError> {
        // Set while no other checkpoint is written: that one could leave the partition out for good, and this one fail.
        let mut written = self.checkpoints.written.lock();
        let was_unlisted = partition.unlisted.swap(true, Ordering::Relaxed);
        let result = self.write_next(&mut written, Kind::Forced);
        let nothing_on_disk = !matches!(result, Ok(()) | Err(CheckpointError::Unsynced { .. }));
        if nothing_on_disk && !was_unlisted {
            partition.unlisted.store(false, Ordering::Relaxed);
        }
        result
    }

    fn write_next(&self, written: &mut Written, kind: Kind) -> Result<(), CheckpointError> {
        if let Some(reason) = self.poison.get() {
            return Err(CheckpointError::Poisoned(Arc::clone(reason)));
        }
        self.checkpoints.dirty_bytes.store(0, Ordering::Relaxed);
        let (sequence, next_partition_number, captured) = self.capture();
        let waiting = self.waiting.read().is_some();
        if kind == Kind::Needed && written.sequence == Some(sequence) && !waiting {
            return Ok(());
        }
        for captured in &captured {
            // The kernel may have dropped the dirty pages: only the journal still has them for certain.
            captured.sync().inspect_err(|error| self.poison_log(&error.to_string()))?;
        }
        let checkpoint = Checkpoint {
            epoch: written.epoch,
            sequence,
            clean: kind == Kind::Clean,
            next_partition_number,
            partitions: captured.iter().map(Captured::entry).collect(),
        };
        let path = self.dir.join(FILE_NAME);
        fs::put_in_place(&*self.file_system, &path, &checkpoint.encode(), Durability::Synced)
            .map_err(|source| CheckpointError::Io { step: "writing", path, source })?;
        self.file_system
            .sync_dir(&self.dir)
            .map_err(|source| CheckpointError::Unsynced { dir: self.dir.clone(), source })?;
        written.sequence = Some(sequence);
        for captured in &captured {
            captured.settle();
        }
        self.counters.checkpoints.add(1);
        self.journal_files.free_through(sequence);
        self.resume_if_possible();
        Ok(())
    }

    /// All partitions at one moment: no group is published halfway.
    fn capture(&self) -> (u64, u32, Vec<Captured>) {
        // Both under one lock: a partition that is being made must not look like a deleted one.
        let number = self.next_partition_number.lock();
        let next_partition_number = *number;
        let partitions: Vec<_> = self.partitions.read().values().map(Arc::clone).collect();
        drop(number);
        let published = self.published.lock();
        let captured = partitions
            .into_iter()
            .filter(|partition| !partition.unlisted.load(Ordering::Relaxed))
            .map(|partition| {
                let view = partition.view.read();
                let from = partition.checkpointed.lock();
                let grown = if *from == view.committed {
                    Vec::new()
                } else {
                    let grown = view.segments.iter().filter(|s| s.base_offset() >= from.segment_base);
                    grown.map(Arc::clone).collect()
                };
                Captured {
                    start_offset: view.start_offset,
                    committed: view.committed,
                    compacted_through: partition.compacted_through.load(Ordering::Relaxed),
                    grown,
                    partition: Arc::clone(&partition),
                }
            })
            .collect();
        (*published, next_partition_number, captured)
    }
}

impl CheckpointError {
    /// Whether nothing but space is missing.
    pub(crate) fn is_full_disk(&self) -> bool {
        match self {
            Self::Poisoned(_) => false,
            Self::Io { source, .. } | Self::Unsynced { source, .. } => space::is_full_disk(source),
        }
    }

    /// What has to come before another attempt can do better.
    pub(crate) fn waits_for(&self) -> WaitsFor {
        if self.is_full_disk() { WaitsFor::Space } else { WaitsFor::Folder }
    }
}

impl Captured {
    fn sync(&self) -> Result<(), CheckpointError> {
        sync_segments(&self.partition, &self.grown)
    }

    fn entry(&self) -> PartitionCheckpoint {
        PartitionCheckpoint {
            number: self.partition.number,
            name: self.partition.id.as_str().to_owned(),
            start_offset: self.start_offset,
            committed: self.committed,
            compacted_through: self.compacted_through,
        }
    }

    /// Takes note that the checkpoint is durable, and saves the indexes of segments that won't grow any more.
    fn settle(&self) {
        *self.partition.checkpointed.lock() = self.committed;
        for segment in self.grown.iter().filter(|s| s.base_offset() < self.committed.segment_base) {
            if segment.save_index().is_err() {
                tracing::debug!(segment = %segment.path().display(), "index not saved; it will be made again");
            }
        }
    }
}

/// Makes segments durable that have grown since the newest checkpoint.
pub(crate) fn sync_segments(
    partition: &PartitionInner,
    grown: &[Arc<Segment>],
) -> Result<(), CheckpointError> {
    let failed = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { step: "syncing", path, source }
    };
    for segment in grown {
        segment.file().and_then(|file| file.sync_data()).map_err(failed(segment.path()))?;
    }
    let from = partition.checkpointed.lock().segment_base;
    if grown.iter().any(|segment| segment.base_offset() != from) {
        partition.file_system.sync_dir(&partition.dir).map_err(failed(&partition.dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn checkpoint() -> Checkpoint {
        let committed =
            Committed { end_offset: 9, segment_base: 4, position: 77, max_timestamp_ms: i64::MIN };
        let partition = PartitionCheckpoint {
            number: 3,
            name: "sensor-data-0".into(),
            start_offset: 2,
            committed,
            compacted_through: 4,
        };
        Checkpoint {
            epoch: 7,
            sequence: 8,
            clean: true,
            next_partition_number: 5,
            partitions: vec![partition],
        }
    }

    #[test]
    fn between_checkpoints_what_was_appended_is_written_back_in_pieces() {
        let checkpoints = Checkpoints::new(1);
        let limit = 100 * WRITE_BACK_SHARE;
        let far = Instant::now() + Duration::from_secs(60);
        checkpoints.count_dirty(99, limit);
        assert_eq!(checkpoints.wait(Instant::now()), Task::Checkpoint, "nothing but the deadline");
        checkpoints.count_dirty(1, limit);
        assert_eq!(checkpoints.wait(far), Task::WriteBack);
        checkpoints.count_dirty(100, limit);
        assert_eq!(checkpoints.wait(Instant::now()), Task::Checkpoint, "a checkpoint that is due goes first");
        checkpoints.count_dirty(limit, limit);
        assert_eq!(checkpoints.wait(far), Task::Checkpoint);
        checkpoints.close();
        assert_eq!(checkpoints.wait(far), Task::End);
    }

    #[test]
    fn a_checkpoint_reads_back_as_written() {
        assert_eq!(Checkpoint::decode(&checkpoint().encode()), Some(checkpoint()));
    }

    proptest! {
        #[test]
        fn a_damaged_checkpoint_is_no_checkpoint(flip in 0usize..100, cut in 0usize..100) {
            let mut bytes = checkpoint().encode();
            let length = bytes.len();
            bytes[flip % length] ^= 0x10;
            prop_assert_eq!(Checkpoint::decode(&bytes), None);
            prop_assert_eq!(Checkpoint::decode(&checkpoint().encode()[..cut.min(length - 1)]), None);
        }
    }
}

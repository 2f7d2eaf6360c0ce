//! Opening a data folder: lock, version, checkpoint, journal.
//!
//! # The usual way
//!
//! The checkpoint says how far the segments are durable. Each partition is cut back to there, because what lies beyond
//! may have reached the disk in part, or may never have been acknowledged. Then the whole frames of the journal after the
//! checkpoint are appended again. Nothing before the checkpoint is read, so the time depends on what was appended since
//! (some tens of megabytes at most), not on the size of the folder.
//!
//! Of batches that nobody waits to be synced, frames have only references: the segments of their partitions are read instead of cut
//! (`tail`), as far as they go beyond the checkpoint.
//!
//! The journal ends at the first frame that isn't whole: a torn tail, never acknowledged as synced. But each frame also
//! says up to which sequence the journal was synced before it. If a later frame proves that the broken one had been
//! synced, it was acknowledged, and opening is refused instead of losing it silently. (The very last synced frame has no
//! later witness: damage to it alone can't be told from a torn tail, and is reported as one.)
//!
//! # On a full disk
//!
//! What a partition is cut back by is what the journal gives back, so that reading back needs no space that wasn't there
//! already. The checkpoint at the end does. If there is none, the log is open all the same and can be read; it takes no
//! appends, because the journal's old frames are still needed, until the checkpoint thread has found space. A new folder
//! has nothing to read, and isn't opened.
//!
//! # Without a checkpoint
//!
//! If the checkpoint is missing or damaged, all segments are read and their checksums verified, which takes as long as
//! reading the folder does. A partition that occurs in the journal is cut to the journal's last word on it. Start offsets
//! in the middle of a segment are lost: the deleted records of that segment can be read again.

mod folder;
mod restore;
mod scanned;
mod tail;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::{HashMap, HashSet};

use crate::batch::BatchHeader;
use crate::checkpoint::{Checkpoint, CheckpointError, FILE_NAME, Kind};
use crate::commit::Committer;
use crate::fs::FileSystem;
use crate::id::PartitionId;
use crate::journal::scan::{self, Content, JournalScanError, JournaledBatch, ScannedFile};
use crate::journal::{Journal, JournalFiles};
use crate::log::{PARTITIONS_DIR, Recovered, Shared};
use crate::options::LogOptions;
use crate::partition::PartitionInner;
use crate::partition::writer::BatchExtent;
use crate::segment::MAX_SEGMENT_BYTES;
use crate::space::{self, WaitsFor};
use tail::Tail;

pub(crate) use folder::partition_file_content;

/// The directory of the journal's files, in the data folder.
const JOURNAL_DIR: &str = "journal";

/// What opening a folder found and repaired.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Whether the log was closed in order (or is new).
    pub clean_shutdown: bool,
    /// Journal frames replayed.
    pub frames_replayed: u64,
    /// Batches that the segments lacked.
    pub batches_replayed: u64,
    /// Records of these batches.
    pub records_replayed: u64,
    /// Batches that nobody waited to be synced ([`crate::SyncPolicy::Never`]), and that the segments hold as the journal names them.
    pub batches_found: u64,
    /// Such batches that a power cut came before: the operating system had not written them yet.
    pub batches_lost: u64,
    /// Bytes of a frame at the journal's end that was not whole: the appends in it were never acknowledged as synced.
    pub torn_bytes: u64,
    /// Bytes cut from segments, most of which the journal gave back.
    pub segment_bytes_cut: u64,
    /// Whether the checkpoint was missing or damaged, so that segments were scanned.
    pub checkpoint_rebuilt: bool,
    /// The partitions that got batches back.
    pub partitions: Vec<ReplayedPartition>,
    /// How long opening took.
    pub elapsed: Duration,
}

/// What one partition got back from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// Batches replayed.
    pub batches: u64,
    /// Records replayed.
    pub records: u64,
    /// Where the partition ends now.
    pub end_offset: i64,
}

/// Why a data folder can't be opened. Nothing was changed that a later opening would need.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another log of this process, has the folder open.
    #[error("data folder {dir} is in use by another process; stop it or choose another folder")]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder is of another version of the format, or of something else.
    #[error("data folder {dir} has format `{found}`, this program reads `{expected}`")]
    Version {
        /// The folder.
        dir: PathBuf,
        /// What its version file says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A file operation failed.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// An acknowledged part of the journal is damaged.
    #[error(
        "journal {path} is damaged at {position}: frame {sequence} is not whole, but frame {proof_sequence} says that \
         the journal was synced through {proof_durable_through}, so acknowledged records are lost. Restore the folder \
         from a backup, or move the journal folder away to go on with what the segments hold"
    )]
    JournalDamaged {
        /// The file in which the frame should be.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// The frame.
        sequence: u64,
        /// The later frame that proves it.
        proof_sequence: u64,
        /// What that frame says.
        proof_durable_through: u64,
    },
    /// A frame passed its checksum but makes no sense.
    #[error(
        "journal {path} at {position}: frame {sequence} is whole but malformed; written by another version?"
    )]
    JournalMalformed {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
        /// The frame.
        sequence: u64,
    },
    /// The log was not closed in order, and there is no journal.
    #[error(
        "journal folder {dir} is empty although the log was not closed in order; restore it from a backup"
    )]
    JournalMissing {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// A partition that the checkpoint or the journal knows isn't there.
    #[error("partition {partition} is missing in {dir}; restore it from a backup")]
    PartitionMissing {
        /// Its name, or its number if only that is known.
        partition: String,
        /// Where its directory should be.
        dir: PathBuf,
    },
    /// A segment is shorter than what was synced of it.
    #[error("segment {path} has {found} bytes, of {expected} that were synced; restore it from a backup")]
    SegmentShort {
        /// The file.
        path: PathBuf,
        /// Its bytes; 0 if it is missing.
        found: u64,
        /// Bytes that the checkpoint says are durable.
        expected: u64,
    },
    /// A segment is damaged and the journal can't give back what it held.
    #[error(
        "segment {path} is damaged at {position} and the journal doesn't hold what follows; restore it from a backup"
    )]
    SegmentDamaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: u64,
    },
    /// The journal goes on after where a partition ends.
    #[error("partition {partition} ends at {end_offset}, but the journal goes on at {journal_offset}")]
    ReplayGap {
        /// The partition.
        partition: PartitionId,
        /// Where its segments end.
        end_offset: i64,
        /// Where the journal goes on.
        journal_offset: i64,
    },
    /// A thread could not be started.
    #[error("starting thread {name}: {source}")]
    Thread {
        /// The thread.
        name: String,
        /// The operating system's error.
        source: io::Error,
    },
}

impl OpenError {
    fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source }
    }
}

impl From<JournalScanError> for OpenError {
    fn from(error: JournalScanError) -> Self {
        match error {
            JournalScanError::Io { path, source } => Self::Io { step: "reading", path, source },
            JournalScanError::Lost { path, position, sequence, proof_sequence, proof_durable_through } => {
                Self::JournalDamaged { path, position, sequence, proof_sequence, proof_durable_through }
            }
            JournalScanError::Malformed { path, position, sequence } => {
                Self::JournalMalformed { path, position, sequence }
            }
        }
    }
}

/// Opens or makes a data folder.
pub(crate) fn open(options: LogOptions) -> Result<(Arc<Shared>, RecoveryReport), OpenError> {
    let started = Instant::now();
    let file_system = Arc::clone(&options.file_system);
    let folder_lock = folder::take(&*file_system, &options.dir)?;
    // Left behind by a kill, it would keep space for nothing; usually there is none.
    let _ = file_system.remove_file(&options.dir.join(space::PROBE_NAME));
    let journal_dir = options.dir.join(JOURNAL_DIR);
    let partitions_dir = options.dir.join(PARTITIONS_DIR);
    let checkpoint_path = options.dir.join(FILE_NAME);
    let checkpoint = Checkpoint::load(&*file_system, &checkpoint_path)
        .map_err(OpenError::io("reading", &checkpoint_path))?;
    let files = scan::open_files(&file_system, &journal_dir)?;
    // A process that died while making a file may have left its name unsynced. What is synced into such a file later would
    // go with the name in a power cut, so the names come first.
    file_system.sync_dir(&journal_dir).map_err(OpenError::io("syncing", &journal_dir))?;
    let partition_dirs = folder::partition_dirs(&*file_system, &partitions_dir)?;
    let mut replay = Replay::new(&partitions_dir);

    let (epoch, after_sequence) = match &checkpoint {
        Some(checkpoint) => {
            if !checkpoint.clean && files.is_empty() {
                return Err(OpenError::JournalMissing { dir: journal_dir });
            }
            replay.report.clean_shutdown = checkpoint.clean;
            replay.next_partition_number = checkpoint.next_partition_number;
            replay.referenced = tail::referenced(&files, checkpoint.epoch, checkpoint.sequence)?;
            replay.restore_from_checkpoint(&file_system, partition_dirs, checkpoint)?;
            (checkpoint.epoch, checkpoint.sequence)
        }
        None if partition_dirs.is_empty() && files.iter().all(|file| file.first.is_none()) => {
            replay.report.clean_shutdown = true;
            (0, 0)
        }
        None => {
            replay.report.checkpoint_rebuilt = true;
            replay.accept_unknown = true;
            let (epoch, after) = scan::oldest_contiguous(&files)?.unwrap_or_default();
            replay.restore_by_scan(&file_system, partition_dirs, &files, epoch, after)?;
            (epoch, after)
        }
    };
    let end = scan::replay(&files, epoch, after_sequence, |batches| replay.frame(&batches))?;
    replay.report.torn_bytes = end.torn_bytes;
    replay.report.frames_replayed = end.frames;
    replay.finish()?;

    let newest_epoch = files.iter().filter_map(|file| Some(file.first?.epoch)).max().unwrap_or(0);
    let recovered =
        begin(&options, files, replay, newest_epoch.max(epoch) + 1, end.last_sequence, folder_lock)?;
    let (recovered, mut report) = recovered;
    let shared = Shared::new(options, recovered);
    // From here on the journal's old frames count no more: the segments are synced and the epoch is new.
    match shared.write_checkpoint(Kind::Forced) {
        Ok(()) => {
            match shared.keep_reserve() {
                Ok(()) => {}
                // What is left is for whoever makes room.
                Err(error) if space::is_full_disk(&error) => {
                    let reason = format!("making the reserve for a full disk: {error}");
                    shared.wait_for_checkpoint(WaitsFor::Space, &reason);
                }
                Err(error) => tracing::warn!(%error, "nothing is kept in reserve for a full disk"),
            }
        }
        // Everything can be read, and stays in the journal too. A sync that failed is another matter: it poisons.
        Err(error) if error.is_full_disk() && shared.poison.get().is_none() => {
            shared.wait_for_checkpoint(WaitsFor::Space, &error.to_string());
        }
        Err(CheckpointError::Io { step, path, source }) => return Err(OpenError::Io { step, path, source }),
        Err(CheckpointError::Unsynced { dir, source }) => {
            return Err(OpenError::io("syncing", &dir)(source));
        }
        Err(CheckpointError::Poisoned(reason)) => {
            return Err(OpenError::io("checkpointing", &checkpoint_path)(io::Error::other(
                reason.to_string(),
            )));
        }
    }
    report.elapsed = started.elapsed();
    Ok((shared, report))
}

fn begin(
    options: &LogOptions,
    files: Vec<ScannedFile>,
    replay: Replay,
    epoch: u64,
    last_sequence: u64,
    folder_lock: Box<dyn Send + Sync>,
) -> Result<(Recovered, RecoveryReport), OpenError> {
    let journal_dir = options.dir.join(JOURNAL_DIR);
    // A file whose preallocation a crash cut short may be empty; it is made again under another number.
    let free = files.into_iter().map(|scanned| scanned.file).filter(|file| file.bytes > 0).collect();
    let journal_files = Arc::new(JournalFiles::new(
        journal_dir.clone(),
        Arc::clone(&options.file_system),
        options.journal_first_bytes,
        options.journal_bytes,
        free,
    ));
    let journal = Journal::begin(Arc::clone(&journal_files), epoch, last_sequence)
        .map_err(OpenError::io("making a journal file in", &journal_dir))?;
    let recovered = Recovered {
        partitions: replay.partitions.into_values().map(|inner| (inner.id.clone(), inner)).collect(),
        next_partition_number: replay.next_partition_number,
        epoch,
        last_sequence,
        journal_files,
        committer: Committer::new(journal),
        folder_lock,
    };
    Ok((recovered, replay.report))
}

/// Appends the journal's batches to the partitions that lack them.
struct Replay {
    partitions_dir: PathBuf,
    partitions: BTreeMap<u32, Arc<PartitionInner>>,
    next_partition_number: u32,
    /// Without a checkpoint, a partition that was deleted can't be told from one that is lost.
    accept_unknown: bool,
    /// Partitions of which the journal names batches that it doesn't hold.
    referenced: HashSet<u32>,
    /// What the files of these hold beyond what has been replayed.
    tails: HashMap<u32, Tail>,
    /// Partitions of which a batch is lost that the journal names.
    lost: HashSet<u32>,
    replayed: HashMap<u32, ReplayedPartition>,
    report: RecoveryReport,
}

impl Replay {
    fn new(partitions_dir: &Path) -> Self {
        Self {
            partitions_dir: partitions_dir.to_owned(),
            partitions: BTreeMap::new(),
            next_partition_number: 0,
            accept_unknown: false,
            referenced: HashSet::new(),
            tails: HashMap::new(),
            lost: HashSet::new(),
            replayed: HashMap::new(),
            report: RecoveryReport::default(),
        }
    }

    fn frame(&mut self, batches: &[JournaledBatch]) -> Result<(), OpenError> {
        for batch in batches {
            match self.partitions.get(&batch.partition_number).map(Arc::clone) {
                Some(partition) => self.batch(&partition, batch)?,
                // Deleted since: its number is older than the checkpoint, which doesn't list it.
                None if self.accept_unknown || batch.partition_number < self.next_partition_number => {}
                None => {
                    return Err(OpenError::PartitionMissing {
                        partition: format!("number {}", batch.partition_number),
                        dir: self.partitions_dir.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self, partition: &PartitionInner, batch: &JournaledBatch) -> Result<(), OpenError> {
        let failed = OpenError::io("replaying the journal into", &partition.dir);
        let mut writer = partition.writer.lock();
        let (bytes, header) = match &batch.content {
            Content::Reference(reference) => {
                if reference.base_offset < writer.next_offset {
                    return Ok(());
                }
                self.follow_files(partition, &mut writer)?;
                return self.reference(partition, &mut writer, *reference);
            }
            Content::Batch(bytes) => match BatchHeader::parse(bytes) {
                Ok(header) => (bytes, header),
                Err(error) => return Err(failed(io::Error::other(error))),
            },
        };
        if header.base_offset < writer.next_offset {
            return Ok(());
        }
        if header.base_offset > writer.next_offset && !self.lost.contains(&partition.number) {
            return Err(OpenError::ReplayGap {
                partition: partition.id.clone(),
                end_offset: writer.next_offset,
                journal_offset: header.base_offset,
            });
        }
        self.follow_files(partition, &mut writer)?;
        let extent = BatchExtent {
            base_offset: header.base_offset,
            last_offset_delta: header.last_offset_delta,
            bytes: bytes.len() as u64,
            max_timestamp_ms: header.max_timestamp_ms,
        };
        // Where it went on in another file then, it does so again.
        let segment_bytes = match self.tails.get(&partition.number) {
            Some(_) => MAX_SEGMENT_BYTES,
            None => partition.options.read().segment_bytes,
        };
        if writer.wants_roll(segment_bytes, 0, extent.bytes, header.last_offset()) {
            writer.roll(partition).map_err(OpenError::io("beginning a segment in", &partition.dir))?;
        }
        writer.write(&mut [IoSlice::new(bytes)], &[extent]).map_err(failed)?;
        let records = u64::try_from(header.record_count).unwrap_or(0);
        let replayed = self.replayed.entry(partition.number).or_insert_with(|| ReplayedPartition {
            partition: partition.id.clone(),
            batches: 0,
            records: 0,
            end_offset: 0,
        });
        replayed.batches += 1;
        replayed.records += records;
        replayed.end_offset = header.next_offset();
        self.report.batches_replayed += 1;
        self.report.records_replayed += records;
        Ok(())
    }

    /// Cuts what no frame reached, and makes the rest readable.
    fn finish(&mut self) -> Result<(), OpenError> {
        let partitions: Vec<_> = self.partitions.values().map(Arc::clone).collect();
        for partition in partitions {
            self.cut_tail(&partition, &partition.writer.lock())?;
            partition.publish();
        }
        self.report.partitions = self.replayed.drain().map(|(_, replayed)| replayed).collect();
        self.report.partitions.sort_by(|a, b| a.partition.cmp(&b.partition));
        if self.report.batches_lost > 0 {
            let batches = self.report.batches_lost;
            tracing::warn!(batches, "batches that were never synced didn't outlive a power cut");
        }
        Ok(())
    }
}

/// Removes a partition's directory that a deletion or an unfinished creation left.
fn remove_dir(file_system: &dyn FileSystem, dir: &Path) -> Result<(), OpenError> {
    file_system.remove_dir_all(dir).map_err(OpenError::io("removing", dir))
}

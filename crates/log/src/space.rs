//! A full disk, or a folder that can't be written: appends are refused with the reason, and taken again by themselves once there is
//! room, or the folder can be written.
//!
//! What runs out of space is taken back before it was acknowledged: a group whose segments can't be written, or for which the
//! journal gets no further file. The log then takes no appends until the checkpoint thread, which looks each
//! [`LOOK_INTERVAL`], has written a checkpoint and a probe as large as what had failed. A log that was opened on a full disk
//! waits for the checkpoint alone: the journal's old frames are needed until then. So does a log all of whose journal files wait for
//! a checkpoint that can't be written: nobody who appends waits for that longer than for one attempt.
//!
//! So that somebody can still make room by deleting, which has to be written down too, the log keeps a file in reserve
//! ([`crate::LogOptions::reserve_bytes`]), gives it up when the disk is full, and makes it anew before it takes appends again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::append::AppendError;
use crate::fs::{self, FileSystem, OpenMode};
use crate::log::{PartitionError, Shared};

/// How often a log that waits looks whether it can go on.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file that is written to see whether there is space, and removed at once.
pub(crate) const PROBE_NAME: &str = "space-probe";
/// The probe is at least this large, so that not every append to a disk at its brim fails anew.
const PROBE_BYTES: u64 = 256 * 1024;
/// A file that is there to be removed when the disk is full.
const RESERVE_NAME: &str = "reserve";

/// What a log that takes no appends for now waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Space on the disk.
    Space,
    /// That its folder can be written.
    Folder,
}

/// Why the log takes no appends for now.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) waits_for: WaitsFor,
    pub(crate) reason: Arc<str>,
    /// So much must fit beside a checkpoint.
    probe_bytes: u64,
}

/// Whether nothing but space is missing.
pub(crate) fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Waiting {
    pub(crate) fn append_error(&self) -> AppendError {
        let reason = Arc::clone(&self.reason);
        match self.waits_for {
            WaitsFor::Space => AppendError::WaitingForSpace { reason },
            WaitsFor::Folder => AppendError::FolderNotWritable { reason },
        }
    }

    pub(crate) fn partition_error(&self) -> PartitionError {
        let reason = Arc::clone(&self.reason);
        match self.waits_for {
            WaitsFor::Space => PartitionError::WaitingForSpace { reason },
            WaitsFor::Folder => PartitionError::FolderNotWritable { reason },
        }
    }
}

impl Shared {
    /// Refuses appends until a checkpoint can be written.
    pub(crate) fn wait_for_checkpoint(&self, waits_for: WaitsFor, reason: &str) -> Waiting {
        self.set_waiting(Waiting { waits_for, reason: reason.into(), probe_bytes: 0 })
    }

    /// Refuses appends until a checkpoint fits, and `bytes` more.
    pub(crate) fn wait_for_space(&self, reason: &str, bytes: u64) -> Waiting {
        let probe_bytes = bytes.max(PROBE_BYTES);
        self.set_waiting(Waiting { waits_for: WaitsFor::Space, reason: reason.into(), probe_bytes })
    }

    fn set_waiting(&self, waiting: Waiting) -> Waiting {
        let (dir, reason) = (self.dir.display(), &waiting.reason);
        match waiting.waits_for {
            WaitsFor::Space => {
                tracing::error!(%dir, %reason, "the disk is full: the log can be read and takes no appends");
                self.counters.full_disks.add(1);
                // Without one there is nothing to give up.
                let _ = self.file_system.remove_file(&self.dir.join(RESERVE_NAME));
            }
            WaitsFor::Folder => {
                tracing::error!(%dir, %reason, "the folder can't be written: the log can be read and takes no appends");
            }
        }
        *self.waiting.write() = Some(waiting.clone());
        // Its thread goes on with shorter pauses.
        self.checkpoints.request();
        waiting
    }

    /// Why the log takes no appends for now, if it waits for that.
    pub(crate) fn reason_to_wait(&self, waits_for: WaitsFor) -> Option<Arc<str>> {
        let waiting = self.waiting.read();
        waiting.as_ref().filter(|w| w.waits_for == waits_for).map(|w| Arc::clone(&w.reason))
    }

    /// Sees to it that there is a reserve, or none if none is wanted.
    pub(crate) fn keep_reserve(&self) -> io::Result<()> {
        let (path, bytes) = (self.dir.join(RESERVE_NAME), self.options.reserve_bytes);
        let kept = self.file_system.open(&path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0);
        if kept == bytes {
            return Ok(());
        }
        if bytes == 0 {
            return self.file_system.remove_file(&path);
        }
        // It need not survive a crash: it is looked for at every opening.
        fs::write_zeros(&*self.file_system.open(&path, OpenMode::Create)?, bytes)
    }

    /// Called when a checkpoint was written: takes appends again if the rest fits too.
    pub(crate) fn resume_if_possible(&self) {
        let Some(waiting) = self.waiting.read().clone() else { return };
        let has_room = self.keep_reserve().is_ok()
            && (waiting.probe_bytes == 0
                || probe(&*self.file_system, &self.dir, waiting.probe_bytes).is_ok());
        if !has_room {
            let _ = self.file_system.remove_file(&self.dir.join(RESERVE_NAME));
            return;
        }
        *self.waiting.write() = None;
        let dir = self.dir.display();
        match waiting.waits_for {
            WaitsFor::Space => tracing::info!(%dir, "there is space again: the log takes appends"),
            WaitsFor::Folder => {
                tracing::info!(%dir, "the folder can be written again: the log takes appends")
            }
        }
    }
}

/// Writes `bytes` and removes them again.
fn probe(file_system: &dyn FileSystem, dir: &Path, bytes: u64) -> io::Result<()> {
    let path = dir.join(PROBE_NAME);
    let written = file_system.open(&path, OpenMode::Create).and_then(|file| fs::write_zeros(&*file, bytes));
    // It must not keep the space that it found.
    file_system.remove_file(&path).and(written)
}

//! A full disk, or a folder that can't be written: appends are refused with the reason, and taken again by themselves once there is
//! room, or the folder can be written.
//!
//! What runs out of space is taken back before it was acknowledged: a group whose segments can't be written, or for which the
//! journal gets no further file. The log then takes no appends until the checkpoint thread, which looks each
//! [`LOOK_INTERVAL`], has written a checkpoint and a probe as large as what had failed. It asks the file system first whether there is
//! room for that and some more ([`has_room`]), so that a disk with little left isn't filled again and again to find out, and the log
//! doesn't go on for a moment only. A log that was opened on a full disk
//! waits for the checkpoint alone: the journal's old frames are needed until then. So does a log all of whose journal files wait for
//! a checkpoint that can't be written: nobody who appends waits for that longer than for one attempt.
//!
//! So that somebody can still make room by deleting, which has to be written down too, the log keeps a file in reserve
//! ([`crate::LogOptions::reserve_bytes`]), gives it up when the disk is full, and makes it anew before it takes appends again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::append::AppendError;
use crate::fs::{self, FileSystem, OpenMode};
use crate::log::{PartitionError, Shared};

/// How often a log that waits looks whether it can go on.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file that is written to see whether there is space, and removed at once.
pub(crate) const PROBE_NAME: &str = "space-probe";
/// The probe is at least this large, so that not every append to a disk at its brim fails anew.
const PROBE_BYTES: u64 = 256 * 1024;
/// Of a file that isn't needed yet, so much more is to be free; what doesn't fit any more is not taken again for a few bytes.
const HEADROOM_SHARE: u64 = 4;
/// Longest pause between two tries to write what didn't fit, however many failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
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
    /// How often that was tried and didn't fit.
    failed_tries: u32,
    /// When it was tried last, or the waiting began.
    tried: Instant,
}

/// Whether nothing but space is missing.
pub(crate) fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Waiting {
    fn new(waits_for: WaitsFor, reason: &str, probe_bytes: u64) -> Self {
        Self { waits_for, reason: reason.into(), probe_bytes, failed_tries: 0, tried: Instant::now() }
    }

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
        self.set_waiting(Waiting::new(waits_for, reason, 0))
    }

    /// Refuses appends until a checkpoint fits, and `bytes` more.
    pub(crate) fn wait_for_space(&self, reason: &str, bytes: u64) -> Waiting {
        self.set_waiting(Waiting::new(WaitsFor::Space, reason, bytes.max(PROBE_BYTES)))
    }

    fn set_waiting(&self, waiting: Waiting) -> Waiting {
        self.tell_waiting(&waiting);
        if waiting.waits_for == WaitsFor::Space {
            self.counters.full_disks.add(1);
            // Without one there is nothing to give up.
            let _ = self.file_system.remove_file(&self.dir.join(RESERVE_NAME));
        }
        *self.waiting.write() = Some(waiting.clone());
        // Its thread goes on with shorter pauses.
        self.checkpoints.request();
        waiting
    }

    /// Says from time to time that the log still waits.
    pub(crate) fn remind_of_waiting(&self) {
        if let Some(waiting) = &*self.waiting.read() {
            self.tell_waiting(waiting);
        }
    }

    fn tell_waiting(&self, Waiting { waits_for, reason, .. }: &Waiting) {
        if self.told_waiting.again(Instant::now()).is_none() {
            return;
        }
        let dir = self.dir.display();
        match waits_for {
            WaitsFor::Space => {
                tracing::error!(%dir, %reason, "the disk is full: the log can be read and takes no appends");
            }
            WaitsFor::Folder => {
                tracing::error!(%dir, %reason, "the folder can't be written: the log can be read and takes no appends");
            }
        }
    }

    /// Why the log takes no appends for now, if it waits for that.
    pub(crate) fn reason_to_wait(&self, waits_for: WaitsFor) -> Option<Arc<str>> {
        let waiting = self.waiting.read();
        waiting.as_ref().filter(|w| w.waits_for == waits_for).map(|w| Arc::clone(&w.reason))
    }

    fn kept_reserve(&self) -> u64 {
        let path = self.dir.join(RESERVE_NAME);
        self.file_system.open(&path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0)
    }

    fn missing_reserve(&self) -> u64 {
        self.options.reserve_bytes.saturating_sub(self.kept_reserve())
    }

    /// Sees to it that there is a reserve, or none if none is wanted.
    pub(crate) fn keep_reserve(&self) -> io::Result<()> {
        let (path, bytes) = (self.dir.join(RESERVE_NAME), self.options.reserve_bytes);
        if self.kept_reserve() == bytes {
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
        let wanted = waiting.probe_bytes + self.missing_reserve();
        let has_room = has_room(&*self.file_system, &self.dir, wanted);
        // Writing it only to find out fills the disk for everybody, so it isn't done in vain again and again. But what the file
        // system says may be wrong, so it is done now and then all the same.
        let pause = if has_room { pause_after(waiting.failed_tries) } else { LONGEST_PAUSE };
        if waiting.tried.elapsed() < pause {
            return;
        }
        let fits = self.keep_reserve().is_ok()
            && (waiting.probe_bytes == 0
                || probe(&*self.file_system, &self.dir, waiting.probe_bytes).is_ok());
        if !fits {
            let _ = self.file_system.remove_file(&self.dir.join(RESERVE_NAME));
            if let Some(waiting) = &mut *self.waiting.write() {
                waiting.failed_tries += 1;
                waiting.tried = Instant::now();
            }
            return;
        }
        *self.waiting.write() = None;
        self.told_waiting.is_over();
        let dir = self.dir.display();
        match waiting.waits_for {
            WaitsFor::Space => tracing::warn!(%dir, "there is space again: the log takes appends"),
            WaitsFor::Folder => {
                tracing::warn!(%dir, "the folder can be written again: the log takes appends")
            }
        }
    }
}

/// Whether `bytes` and some more may be written in a directory, as far as the file system knows.
pub(crate) fn has_room(file_system: &dyn FileSystem, dir: &Path, bytes: u64) -> bool {
    let wanted = bytes.saturating_add(bytes / HEADROOM_SHARE);
    match file_system.free_bytes(dir) {
        Ok(Some(free)) => free >= wanted,
        Ok(None) | Err(_) => true,
    }
}

/// How long to wait after so many tries in a row that failed.
pub(crate) fn pause_after(failed: u32) -> Duration {
    match failed.checked_sub(1) {
        Some(doublings) => LOOK_INTERVAL.saturating_mul(1 << doublings.min(6)).min(LONGEST_PAUSE),
        None => Duration::ZERO,
    }
}

/// Writes `bytes` and removes them again.
fn probe(file_system: &dyn FileSystem, dir: &Path, bytes: u64) -> io::Result<()> {
    let path = dir.join(PROBE_NAME);
    let written = file_system.open(&path, OpenMode::Create).and_then(|file| fs::write_zeros(&*file, bytes));
    // It must not keep the space that it found.
    file_system.remove_file(&path).and(written)
}

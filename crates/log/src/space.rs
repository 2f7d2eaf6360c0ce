//! A full disk: appends are refused with the reason, and taken again by themselves once there is room.
//!
//! What runs out of space is taken back before it was acknowledged: a group whose segments can't be written, or for which the
//! journal gets no further file. The log then takes no appends until the checkpoint thread, which looks each
//! [`LOOK_INTERVAL`], has written a checkpoint and a probe as large as what had failed. A log that was opened on a full disk
//! waits for the checkpoint alone: the journal's old frames are needed until then.
//!
//! So that somebody can still make room by deleting, which has to be written down too, the log keeps a file in reserve
//! ([`crate::LogOptions::reserve_bytes`]), gives it up when the disk is full, and makes it anew before it takes appends again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{self, FileSystem, OpenMode};
use crate::log::Shared;

/// How often a log without space looks whether there is some.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file that is written to see whether there is space, and removed at once.
pub(crate) const PROBE_NAME: &str = "space-probe";
/// The probe is at least this large, so that not every append to a disk at its brim fails anew.
const PROBE_BYTES: u64 = 256 * 1024;
/// A file that is there to be removed when the disk is full.
const RESERVE_NAME: &str = "reserve";

/// Why the log takes no appends for now, and what it waits for.
#[derive(Debug, Clone)]
pub(crate) struct WaitsForSpace {
    pub(crate) reason: Arc<str>,
    /// So much must fit beside a checkpoint.
    probe_bytes: u64,
}

/// Whether nothing but space is missing.
pub(crate) fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Shared {
    /// Refuses appends until a checkpoint fits.
    pub(crate) fn wait_for_checkpoint_space(&self, reason: &str) {
        self.set_waiting(reason, 0);
    }

    /// Refuses appends until a checkpoint fits, and `bytes` more.
    pub(crate) fn wait_for_space(&self, reason: &str, bytes: u64) {
        self.set_waiting(reason, bytes.max(PROBE_BYTES));
    }

    fn set_waiting(&self, reason: &str, probe_bytes: u64) {
        tracing::error!(dir = %self.dir.display(), reason, "the disk is full: the log can be read and takes no appends");
        self.counters.full_disks.add(1);
        // Without one there is nothing to give up.
        let _ = self.file_system.remove_file(&self.dir.join(RESERVE_NAME));
        *self.waits_for_space.write() = Some(WaitsForSpace { reason: reason.into(), probe_bytes });
        // Its thread goes on with shorter pauses.
        self.checkpoints.request();
    }

    /// Why the log takes no appends for now.
    pub(crate) fn waiting_for_space(&self) -> Option<Arc<str>> {
        self.waits_for_space.read().as_ref().map(|waits| Arc::clone(&waits.reason))
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
    pub(crate) fn resume_with_space(&self) {
        let Some(waits) = self.waits_for_space.read().clone() else { return };
        let has_room = self.keep_reserve().is_ok()
            && (waits.probe_bytes == 0 || probe(&*self.file_system, &self.dir, waits.probe_bytes).is_ok());
        if !has_room {
            let _ = self.file_system.remove_file(&self.dir.join(RESERVE_NAME));
        } else {
            *self.waits_for_space.write() = None;
            tracing::info!(dir = %self.dir.display(), "there is space again: the log takes appends");
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

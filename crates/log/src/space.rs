//! A full disk: appends are refused with the reason, and taken again by themselves once there is room.
//!
//! What runs out of space is taken back before it was acknowledged: a group whose segments can't be written, or for which the
//! journal gets no further file. The log then takes no appends until the checkpoint thread, which looks each
//! [`LOOK_INTERVAL`], has written a checkpoint and a probe as large as what had failed. A log that was opened on a full disk
//! waits for the checkpoint alone: the journal's old frames are needed until then.

use std::io::{self, IoSlice};
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
/// The probe is written in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

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
        *self.waits_for_space.write() = Some(WaitsForSpace { reason: reason.into(), probe_bytes });
        // Its thread goes on with shorter pauses.
        self.checkpoints.request();
    }

    /// Why the log takes no appends for now.
    pub(crate) fn waiting_for_space(&self) -> Option<Arc<str>> {
        self.waits_for_space.read().as_ref().map(|waits| Arc::clone(&waits.reason))
    }

    /// Called when a checkpoint was written: takes appends again if the rest fits too.
    pub(crate) fn resume_with_space(&self) {
        let Some(waits) = self.waits_for_space.read().clone() else { return };
        if waits.probe_bytes == 0 || probe(&*self.file_system, &self.dir, waits.probe_bytes).is_ok() {
            *self.waits_for_space.write() = None;
            tracing::info!(dir = %self.dir.display(), "there is space again: the log takes appends");
        }
    }
}

/// Writes `bytes` and removes them again.
fn probe(file_system: &dyn FileSystem, dir: &Path, bytes: u64) -> io::Result<()> {
    let path = dir.join(PROBE_NAME);
    let written = file_system.open(&path, OpenMode::Create).and_then(|file| {
        let zeros = vec![0u8; PIECE_BYTES];
        let mut position = 0;
        while position < bytes {
            let left = usize::try_from(bytes - position).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = zeros.get(..left).unwrap_or_default();
            fs::write_all_at(&*file, &mut [IoSlice::new(piece)], position)?;
            position += left as u64;
        }
        Ok(())
    });
    // It must not keep the space that it found.
    file_system.remove_file(&path).and(written)
}

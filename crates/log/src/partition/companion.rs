//! Companion files: small files of others that live and die with a partition, beside its segments.
//!
//! The log doesn't look into them. Whoever derives something from a partition's records can keep it here, so that it need
//! not read them all again, and says in the file up to which offset it holds. A companion must never be ahead of what
//! recovery will find, so it may only speak of offsets below [`Partition::durable_offset`].

use super::{Partition, PartitionInner};
use crate::fs::{self, Durability, OpenMode};
use crate::log::PartitionError;

/// The ending of a companion's name, which no file of the log's own has.
const EXTENSION: &str = "companion";

impl Partition {
    /// Offset below which everything is durable in the segments: no recovery cuts the partition shorter than that.
    pub fn durable_offset(&self) -> i64 {
        self.inner.checkpointed.lock().end_offset
    }

    /// Replaces the companion file `name` (letters and digits), durably and as a whole.
    ///
    /// # Errors
    /// [`PartitionError`]; the old content is then still there.
    pub fn save_companion(&self, name: &str, content: &[u8]) -> Result<(), PartitionError> {
        // A deletion waits, so that nothing is written into the folder of a new partition of the same name.
        let _pass = self.inner.maintenance.lock();
        self.inner.open_log()?;
        let path = self.inner.companion_path(name);
        fs::replace_file(&*self.inner.file_system, &path, content, Durability::Synced)
            .map_err(|source| self.inner.io_failed("writing", &path, source))
    }

    /// The content of the companion file `name`, if there is one of at most `max_bytes`.
    ///
    /// # Errors
    /// [`PartitionError::Io`], also for a larger file.
    pub fn load_companion(&self, name: &str, max_bytes: usize) -> Result<Option<Vec<u8>>, PartitionError> {
        let path = self.inner.companion_path(name);
        let failed = |source| self.inner.io_failed("reading", &path, source);
        let file = match self.inner.file_system.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let len = usize::try_from(file.len().map_err(failed)?).unwrap_or(usize::MAX);
        if len > max_bytes {
            return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
        }
        fs::read_up_to(&*file, len, 0).map(Some).map_err(failed)
    }
}

impl PartitionInner {
    fn companion_path(&self, name: &str) -> std::path::PathBuf {
        self.dir.join(format!("{name}.{EXTENSION}"))
    }
}

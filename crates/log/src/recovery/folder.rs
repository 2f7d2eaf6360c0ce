//! The data folder itself: its lock, its version, and what directories of partitions it has.

use std::io;
use std::path::{Path, PathBuf};

use super::{JOURNAL_DIR, OpenError};
use crate::fs::{self, Durability, FileSystem, OpenMode};
use crate::id::PartitionId;
use crate::log::{PARTITION_FILE, PARTITIONS_DIR};

const LOCK_FILE: &str = "lock";
const VERSION_FILE: &str = "version";
const VERSION: &str = "farol-log 1";
/// More than any version file has.
const MAX_TEXT_BYTES: usize = 256;

/// A directory of a partition.
pub(super) struct PartitionDir {
    pub(super) id: PartitionId,
    pub(super) dir: PathBuf,
    /// What its own file says; `None` if that is missing or damaged.
    pub(super) number: Option<u32>,
}

/// Makes the folder if need be, takes its lock and checks its version.
pub(super) fn take(file_system: &dyn FileSystem, dir: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    file_system.create_dir_all(dir).map_err(OpenError::io("making data folder", dir))?;
    let lock_path = dir.join(LOCK_FILE);
    let lock = file_system.lock(&lock_path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { dir: dir.to_owned() },
        _ => OpenError::io("locking data folder with", &lock_path)(source),
    })?;
    let journal_dir = dir.join(JOURNAL_DIR);
    let begun = file_system.read_dir(&journal_dir).is_ok();
    let found = read_text(file_system, &dir.join(VERSION_FILE))?;
    if begun || found.is_some() {
        let found = found.unwrap_or_default();
        if found.trim_end() != VERSION {
            let found = if found.is_empty() { "no version file".into() } else { found };
            return Err(OpenError::Version { dir: dir.to_owned(), found, expected: VERSION });
        }
    } else {
        let path = dir.join(VERSION_FILE);
        fs::replace_file(file_system, &path, format!("{VERSION}\n").as_bytes(), Durability::Synced)
            .map_err(OpenError::io("writing", &path))?;
    }
    for path in [journal_dir, dir.join(PARTITIONS_DIR)] {
        file_system.create_dir_all(&path).map_err(OpenError::io("making", &path))?;
    }
    file_system.sync_dir(dir).map_err(OpenError::io("syncing", dir))?;
    Ok(lock)
}

/// The directories of partitions, by name. Finishes deletions that a crash interrupted.
pub(super) fn partition_dirs(
    file_system: &dyn FileSystem,
    partitions_dir: &Path,
) -> Result<Vec<PartitionDir>, OpenError> {
    let mut dirs = Vec::new();
    let entries = file_system.read_dir(partitions_dir).map_err(OpenError::io("listing", partitions_dir))?;
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let dir = partitions_dir.join(&entry.name);
        if entry.name.starts_with(".deleted-") {
            super::remove_dir(file_system, &dir)?;
            continue;
        }
        let Ok(id) = PartitionId::new(&entry.name) else {
            tracing::warn!(dir = %dir.display(), "not a partition's directory; left alone");
            continue;
        };
        let number = read_text(file_system, &dir.join(PARTITION_FILE))?.and_then(|text| number_in(&text));
        dirs.push(PartitionDir { id, dir, number });
    }
    Ok(dirs)
}

/// Makes the names of a partition durable that no checkpoint lists: whoever made it may have died before doing so.
pub(super) fn sync_names(file_system: &dyn FileSystem, partition: &PartitionDir) -> Result<(), OpenError> {
    let path = partition.dir.join(PARTITION_FILE);
    let file = file_system.open(&path, OpenMode::Write).map_err(OpenError::io("opening", &path))?;
    file.sync_data().map_err(OpenError::io("syncing", &path))?;
    let above = partition.dir.parent().unwrap_or(&partition.dir);
    for dir in [partition.dir.as_path(), above] {
        file_system.sync_dir(dir).map_err(OpenError::io("syncing", dir))?;
    }
    Ok(())
}

/// The file in a partition's directory that holds its number, with a checksum.
pub(crate) fn partition_file_content(number: u32) -> String {
    let crc = crc32c::crc32c(&number.to_be_bytes());
    format!("farol-partition 1 {number} {crc:08x}\n")
}

fn number_in(text: &str) -> Option<u32> {
    let number = text.split(' ').nth(2)?.parse().ok()?;
    (text == partition_file_content(number)).then_some(number)
}

fn read_text(file_system: &dyn FileSystem, path: &Path) -> Result<Option<String>, OpenError> {
    let file = match file_system.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(OpenError::io("reading", path))?,
    };
    let content = fs::read_up_to(&*file, MAX_TEXT_BYTES, 0).map_err(OpenError::io("reading", path))?;
    Ok(Some(String::from_utf8_lossy(&content).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_file_gives_its_number_back_only_if_it_is_whole() {
        let content = partition_file_content(17);
        assert_eq!(number_in(&content), Some(17));
        assert_eq!(number_in(&content.replace("17", "18")), None);
        assert_eq!(number_in(&content[..content.len() - 3]), None);
        assert_eq!(number_in(""), None);
    }
}

//! The sparse index of a segment: in memory as one list, on disk as `.index` (offset → position) and `.timeindex`
//! (timestamp → offset).
//!
//! Both files are written once, when a segment is closed or the log is, and can always be made again from the segment.
//! So they aren't synced; a checksum, and the bytes of segment that they claim to cover, tell whether they can be used.
//!
//! # Layout of both files, big-endian
//!
//! | bytes | field |
//! | --- | --- |
//! | 0–3 | magic `FIDX` or `FTIX` |
//! | 4–7 | CRC32C of everything that follows |
//! | 8–15 | bytes of the segment that are covered |
//! | 16–23 | largest timestamp of the covered batches, ms |
//! | 24… | entries: offset delta u32, position u32 / timestamp i64, offset delta u32 |

use std::path::Path;

use crate::fs::{self, Durability, FileSystem, OpenMode};

/// An entry at least every so many bytes of a segment (and at most one a batch).
pub(crate) const INDEX_INTERVAL_BYTES: u64 = 16 * 1024;

const OFFSET_MAGIC: [u8; 4] = *b"FIDX";
const TIME_MAGIC: [u8; 4] = *b"FTIX";
const HEADER_BYTES: usize = 24;
const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 12;

/// One indexed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Base offset of the batch minus base offset of the segment.
    pub(crate) offset_delta: u32,
    /// Where the batch begins in the segment.
    pub(crate) position: u32,
    /// Largest timestamp of all batches before this one in the segment; `i64::MIN` if there is none.
    pub(crate) max_timestamp_before_ms: i64,
}

/// Entries for the batches of a segment up to `covered_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) entries: Vec<IndexEntry>,
    pub(crate) covered_bytes: u64,
    pub(crate) max_timestamp_ms: i64,
}

impl Index {
    /// Of an empty segment.
    pub(crate) fn empty() -> Self {
        Self::starting_at(0, i64::MIN)
    }

    /// Of the part of a segment from `position` on, before which no batch is newer than `max_timestamp_ms`.
    pub(crate) fn starting_at(position: u64, max_timestamp_ms: i64) -> Self {
        Self { entries: Vec::new(), covered_bytes: position, max_timestamp_ms }
    }

    /// Takes note of the batch that follows the covered ones.
    pub(crate) fn add(&mut self, offset_delta: u32, batch_bytes: u64, batch_max_timestamp_ms: i64) {
        let due = self
            .entries
            .last()
            .is_none_or(|last| self.covered_bytes - u64::from(last.position) >= INDEX_INTERVAL_BYTES);
        if due && let Ok(position) = u32::try_from(self.covered_bytes) {
            self.entries.push(IndexEntry {
                offset_delta,
                position,
                max_timestamp_before_ms: self.max_timestamp_ms,
            });
        }
        self.covered_bytes += batch_bytes;
        self.max_timestamp_ms = self.max_timestamp_ms.max(batch_max_timestamp_ms);
    }

    /// Forgets the batches from `position` on.
    pub(crate) fn cut(&mut self, position: u64, max_timestamp_ms: i64) {
        self.entries.retain(|entry| u64::from(entry.position) < position);
        self.covered_bytes = position;
        self.max_timestamp_ms = max_timestamp_ms;
    }

    /// The last entry at or before an offset.
    pub(crate) fn entry_for_offset(&self, offset_delta: u32) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.offset_delta <= offset_delta);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The last entry at or before a position.
    pub(crate) fn entry_for_position(&self, position: u64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The last entry before which everything is older than `timestamp_ms`.
    pub(crate) fn entry_for_timestamp(&self, timestamp_ms: i64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before_ms < timestamp_ms);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// Writes both files beside the segment.
    pub(crate) fn save(&self, file_system: &dyn FileSystem, log_path: &Path) -> std::io::Result<()> {
        let mut offsets = self.file_header(OFFSET_MAGIC, self.entries.len() * OFFSET_ENTRY_BYTES);
        let mut times = self.file_header(TIME_MAGIC, self.entries.len() * TIME_ENTRY_BYTES);
        for entry in &self.entries {
            offsets.extend_from_slice(&entry.offset_delta.to_be_bytes());
            offsets.extend_from_slice(&entry.position.to_be_bytes());
            times.extend_from_slice(&entry.max_timestamp_before_ms.to_be_bytes());
            times.extend_from_slice(&entry.offset_delta.to_be_bytes());
        }
        for (content, extension) in [(&mut offsets, "index"), (&mut times, "timeindex")] {
            seal(content);
            let path = log_path.with_extension(extension);
            fs::replace_file(file_system, &path, content, Durability::Rebuildable)?;
        }
        Ok(())
    }

    fn file_header(&self, magic: [u8; 4], entry_bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + entry_bytes);
        out.extend_from_slice(&magic);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.covered_bytes.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp_ms.to_be_bytes());
        out
    }

    /// Reads both files; `None` if either is missing, damaged, or covers more than `at_most_bytes`.
    pub(crate) fn load(file_system: &dyn FileSystem, log_path: &Path, at_most_bytes: u64) -> Option<Self> {
        let offsets = read_sealed(file_system, &log_path.with_extension("index"), OFFSET_MAGIC)?;
        let times = read_sealed(file_system, &log_path.with_extension("timeindex"), TIME_MAGIC)?;
        let offset_header: &[u8; HEADER_BYTES] = offsets.first_chunk()?;
        let time_header: &[u8; HEADER_BYTES] = times.first_chunk()?;
        let (_, summary) = offset_header.split_first_chunk::<8>()?;
        if time_header.get(8..)? != summary {
            return None;
        }
        let (covered, max_timestamp) = summary.split_first_chunk::<8>()?;
        let covered_bytes = u64::from_be_bytes(*covered);
        if covered_bytes > at_most_bytes {
            return None;
        }
        let entries = offsets
            .get(HEADER_BYTES..)?
            .chunks_exact(OFFSET_ENTRY_BYTES)
            .zip(times.get(HEADER_BYTES..)?.chunks_exact(TIME_ENTRY_BYTES))
            .map(|(offset, time)| {
                let (delta, position) = offset.split_first_chunk::<4>()?;
                Some(IndexEntry {
                    offset_delta: u32::from_be_bytes(*delta),
                    position: u32::from_be_bytes(*position.first_chunk()?),
                    max_timestamp_before_ms: i64::from_be_bytes(*time.first_chunk()?),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let max_timestamp_ms = i64::from_be_bytes(*max_timestamp.first_chunk()?);
        Some(Self { entries, covered_bytes, max_timestamp_ms })
    }
}

/// Puts the checksum into a file's content.
fn seal(content: &mut [u8]) {
    let crc = crc32c::crc32c(content.get(8..).unwrap_or_default());
    if let Some(place) = content.get_mut(4..8) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
}

fn read_sealed(file_system: &dyn FileSystem, path: &Path, magic: [u8; 4]) -> Option<Vec<u8>> {
    let file = file_system.open(path, OpenMode::Read).ok()?;
    let len = usize::try_from(file.len().ok()?).ok()?;
    let content = fs::read_up_to(&*file, len, 0).ok()?;
    let (found_magic, rest) = content.split_first_chunk::<4>()?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    (*found_magic == magic && crc32c::crc32c(body) == u32::from_be_bytes(*crc)).then_some(content)
}

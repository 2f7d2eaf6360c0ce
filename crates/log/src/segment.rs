//! A segment: one file of record batches, named by the offset of its first, with its sparse index.
//!
//! The file `00000000000000000042.log` holds whole batches back to back and nothing else. Only whoever commits writes,
//! at the end; everyone may read. A segment's index has two parts: the *head* covers what the file held when it was
//! opened and is loaded when a reader first needs it, so that opening a folder reads nothing; the *tail* covers what was
//! appended since and is always in memory.

mod index;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::batch::{Batch, BatchError, BatchHeader, Batches, HEADER_BYTES};
use crate::fs::{self, File, FileSystem, OpenMode};

pub(crate) use index::{INDEX_INTERVAL_BYTES, Index, IndexEntry};

/// Most bytes of a segment: positions in the index have 32 bits, and one batch may pass the roll limit.
pub(crate) const MAX_SEGMENT_BYTES: u32 = 1024 * 1024 * 1024;
/// The kernel writes whole pages.
const PAGE_BYTES: u64 = 4096;
/// Bytes of a segment that are read at once when its index is made again.
const SCAN_BYTES: usize = 256 * 1024;
/// Bytes of a segment that are read at once when whole batches are wanted.
const VISIT_BYTES: usize = 1024 * 1024;

/// A segment of a partition.
#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: i64,
    path: PathBuf,
    file_system: Arc<dyn FileSystem>,
    file: Mutex<Option<Arc<dyn File>>>,
    /// Bytes written, committed or not.
    len: AtomicU64,
    /// Bytes that the kernel was told to write to the disk.
    written_back: AtomicU64,
    head_bytes: u64,
    head: Mutex<Option<Arc<Index>>>,
    tail: Mutex<Index>,
}

/// A header that isn't one, at a position of a segment.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io { position: u64, source: io::Error },
    Damaged { position: u64, source: BatchError },
}

/// The path of the segment that begins at `base_offset`.
pub(crate) fn log_path(dir: &Path, base_offset: i64) -> PathBuf {
    dir.join(format!("{base_offset:020}.log"))
}

/// The base offset in the name of a segment's file.
pub(crate) fn base_offset_of(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

impl Segment {
    /// Makes a new, empty segment. Its name is durable only after a sync of the directory.
    pub(crate) fn create(
        file_system: &Arc<dyn FileSystem>,
        dir: &Path,
        base_offset: i64,
    ) -> io::Result<Self> {
        let path = log_path(dir, base_offset);
        let file = file_system.open(&path, OpenMode::Create)?;
        let segment = Self::existing(file_system, dir, base_offset, 0, i64::MIN);
        *segment.file.lock() = Some(file);
        Ok(segment)
    }

    /// A segment that is on disk with `len` bytes; nothing is read. `max_timestamp_ms` is only needed if it will be
    /// appended to.
    pub(crate) fn existing(
        file_system: &Arc<dyn FileSystem>,
        dir: &Path,
        base_offset: i64,
        len: u64,
        max_timestamp_ms: i64,
    ) -> Self {
        Self {
            base_offset,
            path: log_path(dir, base_offset),
            file_system: Arc::clone(file_system),
            file: Mutex::new(None),
            len: AtomicU64::new(len),
            written_back: AtomicU64::new(len),
            head_bytes: len,
            head: Mutex::new((len == 0).then(|| Arc::new(Index::empty()))),
            tail: Mutex::new(Index::starting_at(len, max_timestamp_ms)),
        }
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written, committed or not.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// The whole pages that were written since the last call: where, and how many bytes.
    pub(crate) fn take_unwritten(&self) -> (u64, u64) {
        let end = self.len() / PAGE_BYTES * PAGE_BYTES;
        let from = self.written_back.swap(end, Ordering::Relaxed);
        (from, end.saturating_sub(from))
    }

    /// The open file; opens it at first use.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn File>> {
        let mut file = self.file.lock();
        if let Some(file) = &*file {
            return Ok(Arc::clone(file));
        }
        let opened = self.file_system.open(&self.path, OpenMode::Write)?;
        *file = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Largest timestamp of everything written; needs the tail's starting value to have been right.
    pub(crate) fn tail_max_timestamp_ms(&self) -> i64 {
        self.tail.lock().max_timestamp_ms
    }

    /// Writes `slices` at the end.
    pub(crate) fn write(&self, slices: &mut [io::IoSlice<'_>]) -> io::Result<()> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let position = self.len();
        fs::write_all_at(&*self.file()?, slices, position)?;
        self.len.store(position + bytes as u64, Ordering::Release);
        Ok(())
    }

    /// Takes note of a written batch in the index.
    pub(crate) fn index_batch(&self, base_offset: i64, batch_bytes: u64, max_timestamp_ms: i64) {
        self.tail.lock().add(self.delta(base_offset), batch_bytes, max_timestamp_ms);
    }

    /// Cuts the file back to `len` bytes, of which the newest record has `max_timestamp_ms`.
    pub(crate) fn cut(&self, len: u64, max_timestamp_ms: i64) -> io::Result<()> {
        self.tail.lock().cut(len, max_timestamp_ms);
        self.len.store(len, Ordering::Release);
        self.file()?.set_len(len)
    }

    /// Where to begin looking for the batch with `offset`.
    pub(crate) fn entry_for_offset(&self, offset: i64) -> Result<Option<IndexEntry>, ScanError> {
        let delta = self.delta(offset);
        if let Some(entry) = self.tail.lock().entry_for_offset(delta) {
            return Ok(Some(entry));
        }
        Ok(self.head()?.entry_for_offset(delta))
    }

    /// The last indexed batch at or before a position.
    pub(crate) fn entry_for_position(&self, position: u64) -> Result<Option<IndexEntry>, ScanError> {
        if let Some(entry) = self.tail.lock().entry_for_position(position) {
            return Ok(Some(entry));
        }
        Ok(self.head()?.entry_for_position(position))
    }

    /// Where to begin looking for the first record at or after `timestamp_ms`.
    pub(crate) fn entry_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<IndexEntry>, ScanError> {
        let in_tail = self.tail.lock().entry_for_timestamp(timestamp_ms);
        if in_tail.is_some() {
            return Ok(in_tail);
        }
        Ok(self.head()?.entry_for_timestamp(timestamp_ms))
    }

    /// Largest timestamp of all that is written.
    pub(crate) fn max_timestamp_ms(&self) -> Result<i64, ScanError> {
        let tail = self.tail_max_timestamp_ms();
        Ok(self.head()?.max_timestamp_ms.max(tail))
    }

    /// The offset that index entries count from, added.
    pub(crate) fn offset_of(&self, entry: IndexEntry) -> i64 {
        self.base_offset.saturating_add(i64::from(entry.offset_delta))
    }

    fn delta(&self, offset: i64) -> u32 {
        u32::try_from(offset.saturating_sub(self.base_offset).max(0)).unwrap_or(u32::MAX)
    }

    fn head(&self) -> Result<Arc<Index>, ScanError> {
        let mut head = self.head.lock();
        if let Some(head) = &*head {
            return Ok(Arc::clone(head));
        }
        let from_files = Index::load(&*self.file_system, &self.path, self.head_bytes);
        let loaded = Arc::new(self.complete(from_files.unwrap_or_else(Index::empty))?);
        *head = Some(Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Makes the head index again from the batches, when its files turned out to belong to another state.
    pub(crate) fn rebuild_head(&self) -> Result<(), ScanError> {
        let rebuilt = self.complete(Index::empty())?;
        *self.head.lock() = Some(Arc::new(rebuilt));
        Ok(())
    }

    fn complete(&self, mut index: Index) -> Result<Index, ScanError> {
        let from = index.covered_bytes;
        self.scan(from, self.head_bytes, |header| {
            index.add(self.delta(header.base_offset), header.total_bytes as u64, header.max_timestamp_ms);
        })?;
        Ok(index)
    }

    /// Calls `see` with the header of every batch from `from` to `to`.
    pub(crate) fn scan(
        &self,
        from: u64,
        to: u64,
        mut see: impl FnMut(&BatchHeader),
    ) -> Result<(), ScanError> {
        if from >= to {
            return Ok(());
        }
        let file = self.file().map_err(|source| ScanError::Io { position: from, source })?;
        let mut position = from;
        let mut chunk = Vec::new();
        let mut chunk_start = from;
        while position < to {
            let in_chunk = usize::try_from(position - chunk_start).unwrap_or(usize::MAX);
            let mut rest = chunk.get(in_chunk..).unwrap_or_default();
            if rest.len() < HEADER_BYTES {
                let wanted = usize::try_from(to - position).unwrap_or(SCAN_BYTES).min(SCAN_BYTES);
                chunk = fs::read_up_to(&*file, wanted, position)
                    .map_err(|source| ScanError::Io { position, source })?;
                chunk_start = position;
                rest = &chunk;
            }
            let header =
                BatchHeader::parse(rest).map_err(|source| ScanError::Damaged { position, source })?;
            see(&header);
            position += header.total_bytes as u64;
        }
        Ok(())
    }

    /// Calls `see` with every whole batch from `from` to `to` and its position, checksums verified.
    pub(crate) fn visit_batches(
        &self,
        from: u64,
        to: u64,
        mut see: impl FnMut(u64, &Batch) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let mut position = from;
        while position < to {
            let failed = |source| ScanError::Io { position, source };
            let left = usize::try_from(to - position).unwrap_or(usize::MAX);
            let file = self.file().map_err(failed)?;
            let mut chunk =
                Bytes::from(fs::read_up_to(&*file, left.min(VISIT_BYTES), position).map_err(failed)?);
            let damaged = |source| ScanError::Damaged { position, source };
            let first = BatchHeader::parse(&chunk).map_err(damaged)?;
            if first.total_bytes > chunk.len() {
                let wanted = first.total_bytes.min(left);
                chunk = Bytes::from(fs::read_up_to(&*file, wanted, position).map_err(failed)?);
            }
            let mut first_error = None;
            for batch in Batches::new(chunk) {
                match batch.and_then(|batch| batch.verify_checksum().map(|()| batch)) {
                    Ok(batch) => {
                        if see(position, &batch).is_break() {
                            return Ok(());
                        }
                        position += batch.bytes().len() as u64;
                        first_error = Some(None);
                    }
                    Err(error) => {
                        // Without a whole batch before it, the error isn't just the end of the chunk.
                        let cut = matches!(error, BatchError::HeaderCut { .. } | BatchError::BatchCut { .. });
                        first_error = if cut { first_error.or(Some(Some(error))) } else { Some(Some(error)) };
                        break;
                    }
                }
            }
            if let Some(Some(source)) = first_error {
                return Err(ScanError::Damaged { position, source });
            }
        }
        Ok(())
    }

    /// Writes the index files of a segment that won't grow any more (or not before the log is opened again).
    pub(crate) fn save_index(&self) -> Result<(), ScanError> {
        let mut whole = (*self.head()?).clone();
        {
            let tail = self.tail.lock();
            whole.entries.extend_from_slice(&tail.entries);
            whole.covered_bytes = tail.covered_bytes;
            whole.max_timestamp_ms = whole.max_timestamp_ms.max(tail.max_timestamp_ms);
        }
        whole.save(&*self.file_system, &self.path).map_err(|source| ScanError::Io { position: 0, source })
    }

    /// Removes the segment's files. Open readers keep what they have.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_indexes(&*self.file_system, &self.path);
        match self.file_system.remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Removes the index files of a segment, if there are any: they can be made again.
pub(crate) fn remove_indexes(file_system: &dyn FileSystem, log_path: &Path) {
    for extension in ["index", "timeindex"] {
        // Missing is fine, and one that stays is refused by its checksum or its covered bytes.
        let _ = file_system.remove_file(&log_path.with_extension(extension));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_whole_page_is_handed_out_once_for_writing_back() {
        let dir = tempfile::tempdir().unwrap();
        let file_system: Arc<dyn FileSystem> = Arc::new(fs::RealFileSystem);
        let segment = Segment::create(&file_system, dir.path(), 0).unwrap();
        let write = |bytes: usize| segment.write(&mut [io::IoSlice::new(&vec![1; bytes])]).unwrap();
        write(5000);
        assert_eq!(segment.take_unwritten(), (0, 4096));
        write(4000);
        let (position, bytes) = segment.take_unwritten();
        assert_eq!((position, bytes), (4096, 4096));
        segment.file().unwrap().begin_writing_back(position, bytes);
        assert_eq!(segment.take_unwritten(), (8192, 0));
        segment.cut(100, 0).unwrap();
        assert_eq!(segment.take_unwritten().1, 0, "what was taken back is gone");
        write(4000);
        assert_eq!(segment.take_unwritten(), (0, 4096));
        assert_eq!(fs::read_up_to(&*segment.file().unwrap(), 9000, 0).unwrap(), vec![1; 4100]);
    }
}

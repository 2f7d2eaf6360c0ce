//! The journal: the one place that an append must be synced to, shared by all partitions.
//!
//! It is a few files of fixed size, written full of zeros before their first use, so that an fdatasync of a frame has
//! no file size or block allocation to write besides the data. Files are used in turn, and again as soon as a
//! checkpoint covers every frame in them. A frame of an earlier use can't be taken for a new one: sequences only rise
//! within an epoch, and every opening of the folder begins a new epoch.
//!
//! Whoever commits has [`Journal`] alone; [`JournalFiles`] is shared with the threads that prepare and free files.

pub(crate) mod frame;
pub(crate) mod scan;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::fs::{self, File, FileSystem, OpenMode};
use crate::space;
use frame::{FRAME_HEADER_BYTES, FrameHeader, frame_bytes};

/// Journal files that exist at most at one time; a further frame waits for a checkpoint.
pub(crate) const MAX_FILES: usize = 4;
/// Files are whole pages.
const PAGE_BYTES: u64 = 4096;

/// A preallocated file of the journal.
#[derive(Debug, Clone)]
pub(crate) struct JournalFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) bytes: u64,
}

/// The journal's files that aren't being written.
#[derive(Debug)]
pub(crate) struct JournalFiles {
    dir: PathBuf,
    file_system: Arc<dyn FileSystem>,
    full_size: u64,
    state: Mutex<FilesState>,
    changed: Condvar,
}

#[derive(Debug)]
struct FilesState {
    free: Vec<JournalFile>,
    /// Files with frames that no checkpoint covers yet, and their last sequence.
    full: VecDeque<(JournalFile, u64)>,
    /// Files that exist, the one being written and ones being made included.
    existing: usize,
    next_number: u64,
    next_bytes: u64,
    closed: bool,
}

/// The journal as the commit thread writes it.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) files: Arc<JournalFiles>,
    epoch: u64,
    active: JournalFile,
    position: u64,
    next_sequence: u64,
    synced_sequence: u64,
}

/// The path of a journal file.
fn journal_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.journal"))
}

/// The number in the name of a journal file.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".journal")?.parse().ok()
}

impl JournalFiles {
    /// `free` files are ready for use; further ones are made of `first_bytes`, then twice as large up to `full_size`.
    pub(crate) fn new(
        dir: PathBuf,
        file_system: Arc<dyn FileSystem>,
        first_bytes: u64,
        full_size: u64,
        free: Vec<JournalFile>,
    ) -> Self {
        let next_number = free
            .iter()
            .filter_map(|file| number_of(file.path.file_name()?.to_str()?))
            .max()
            .map_or(0, |n| n + 1);
        let largest = free.iter().map(|file| file.bytes).max();
        let state = FilesState {
            existing: free.len(),
            next_number,
            next_bytes: largest.map_or(first_bytes, |bytes| bytes.saturating_mul(2)).min(full_size),
            free,
            full: VecDeque::new(),
            closed: false,
        };
        Self { dir, file_system, full_size, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Bytes of the next file that is made, unless a frame needs a larger one.
    pub(crate) fn next_bytes(&self) -> u64 {
        self.state.lock().next_bytes
    }

    /// How many files exist.
    pub(crate) fn existing(&self) -> usize {
        self.state.lock().existing
    }

    /// A file of at least `bytes` if one is free, or may be made now. `None`: wait for a checkpoint.
    pub(crate) fn take(&self, bytes: u64) -> io::Result<Option<JournalFile>> {
        let mut state = self.state.lock();
        let largest = state.free.iter().enumerate().max_by_key(|(_, file)| file.bytes);
        if let Some((place, _)) = largest.filter(|(_, file)| file.bytes >= bytes) {
            let file = state.free.swap_remove(place);
            drop(state);
            self.changed.notify_all();
            return Ok(Some(file));
        }
        if let Some(small) = state.free.pop() {
            // Too small for this frame, and larger ones are what comes next.
            state.existing -= 1;
            self.give_up(&small);
        }
        if state.existing >= MAX_FILES {
            return Ok(None);
        }
        drop(state);
        self.make(bytes).map(Some)
    }

    /// Blocks until a file may be free, or `limit` has passed.
    pub(crate) fn wait_for_free(&self, limit: std::time::Duration) {
        let mut state = self.state.lock();
        if state.free.is_empty() && state.existing >= MAX_FILES && !state.closed {
            self.changed.wait_for(&mut state, limit);
        }
    }

    /// Makes a file ahead of need as soon as none is free. False if closed.
    pub(crate) fn prepare(&self) -> io::Result<bool> {
        let next_bytes = {
            let mut state = self.state.lock();
            while !state.closed && (!state.free.is_empty() || state.existing >= MAX_FILES) {
                self.changed.wait(&mut state);
            }
            if state.closed {
                return Ok(false);
            }
            state.next_bytes
        };
        // Written until it fails, it would take the space from the appends that still fit.
        if !space::has_room(&*self.file_system, &self.dir, next_bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.make(0)?;
        self.state.lock().free.push(file);
        self.changed.notify_all();
        Ok(true)
    }

    /// Blocks for `limit`, or less if closed. True if closed.
    pub(crate) fn wait_until_closed(&self, limit: std::time::Duration) -> bool {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.closed, limit);
        state.closed
    }

    /// Lets [`JournalFiles::prepare`] return.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn retire(&self, file: JournalFile, last_sequence: u64) {
        self.state.lock().full.push_back((file, last_sequence));
    }

    /// Frees the files whose frames a durable checkpoint covers up to `sequence`.
    pub(crate) fn free_through(&self, sequence: u64) {
        let mut small = Vec::new();
        {
            let mut state = self.state.lock();
            while state.full.front().is_some_and(|(_, last)| *last <= sequence) {
                let Some((file, _)) = state.full.pop_front() else { break };
                if file.bytes < self.full_size && file.bytes < state.next_bytes {
                    state.existing -= 1;
                    small.push(file);
                } else {
                    state.free.push(file);
                }
            }
        }
        self.changed.notify_all();
        small.iter().for_each(|file| self.give_up(file));
    }

    /// Removes a file that counts no more. One that stays keeps its space, and not the place of another.
    fn give_up(&self, file: &JournalFile) {
        if let Err(error) = self.file_system.remove_file(&file.path) {
            let path = file.path.display();
            tracing::warn!(%path, %error, "a small journal file stays until the next start");
        }
    }

    fn make(&self, at_least_bytes: u64) -> io::Result<JournalFile> {
        let (number, usual_bytes) = {
            let mut state = self.state.lock();
            let number = state.next_number;
            state.next_number += 1;
            state.existing += 1;
            let usual_bytes = state.next_bytes;
            state.next_bytes = usual_bytes.saturating_mul(2).min(self.full_size);
            (number, usual_bytes)
        };
        let made = self.write_zeros(number, usual_bytes.max(at_least_bytes.next_multiple_of(PAGE_BYTES)));
        if made.is_err() {
            let mut state = self.state.lock();
            state.existing -= 1;
            state.next_bytes = state.next_bytes.min(usual_bytes);
            drop(state);
            // On a full disk it would keep the space. If it can't be removed, the next opening takes it for a free one.
            let _ = self.file_system.remove_file(&journal_path(&self.dir, number));
        }
        made
    }

    fn write_zeros(&self, number: u64, bytes: u64) -> io::Result<JournalFile> {
        let path = journal_path(&self.dir, number);
        let file = self.file_system.open(&path, OpenMode::Create)?;
        fs::write_zeros(&*file, bytes)?;
        file.sync_data()?;
        self.file_system.sync_dir(&self.dir)?;
        Ok(JournalFile { path, file, bytes })
    }
}

impl Journal {
    /// Begins `epoch` after `last_sequence` in a free or new file. No frame on disk may be needed any more.
    pub(crate) fn begin(files: Arc<JournalFiles>, epoch: u64, last_sequence: u64) -> io::Result<Self> {
        let active = files.take(0)?.ok_or(io::ErrorKind::StorageFull)?;
        Ok(Self {
            files,
            epoch,
            active,
            position: 0,
            next_sequence: last_sequence + 1,
            synced_sequence: last_sequence,
        })
    }

    /// Whether a body of `body_bytes` needs another file.
    pub(crate) fn is_full_for(&self, body_bytes: u64) -> bool {
        self.position + frame_bytes(body_bytes) > self.active.bytes
    }

    /// Goes on in `file`. What the former file holds is synced first: a later frame must never be whole on disk while
    /// an earlier one isn't.
    pub(crate) fn switch_to(&mut self, file: JournalFile) -> io::Result<()> {
        self.sync()?;
        let former = std::mem::replace(&mut self.active, file);
        self.position = 0;
        self.files.retire(former, self.next_sequence - 1);
        Ok(())
    }

    /// Writes one frame; `slices` must begin with an empty place for the header. Returns its sequence.
    pub(crate) fn write<'a>(
        &mut self,
        body: &mut Vec<io::IoSlice<'a>>,
        header_place: &'a mut [u8; FRAME_HEADER_BYTES],
        batch_count: u32,
    ) -> io::Result<u64> {
        let mut body_bytes = 0usize;
        let mut body_crc = 0;
        for slice in body.iter() {
            body_bytes += slice.len();
            body_crc = crc32c::crc32c_append(body_crc, slice);
        }
        let header = FrameHeader {
            epoch: self.epoch,
            sequence: self.next_sequence,
            durable_through: self.synced_sequence,
            body_bytes: u32::try_from(body_bytes).map_err(|_| io::ErrorKind::InvalidInput)?,
            batch_count,
            body_crc,
        };
        *header_place = header.encode();
        body.insert(0, io::IoSlice::new(header_place));
        fs::write_all_at(&*self.active.file, body.as_mut_slice(), self.position)?;
        self.position += header.total_bytes();
        self.next_sequence += 1;
        Ok(header.sequence)
    }

    /// Makes every frame durable, if one isn't.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.has_unsynced() {
            self.active.file.sync_data()?;
            self.synced_sequence = self.next_sequence - 1;
        }
        Ok(())
    }

    pub(crate) fn has_unsynced(&self) -> bool {
        self.synced_sequence + 1 < self.next_sequence
    }

    pub(crate) fn path(&self) -> &Path {
        &self.active.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::fault::{FaultFileSystem, Operation};

    fn files(file_system: &FaultFileSystem) -> JournalFiles {
        let dir = Path::new("/journal");
        file_system.create_dir_all(dir).unwrap();
        JournalFiles::new(dir.to_owned(), Arc::new(file_system.clone()), 64 * 1024, 64 * 1024, Vec::new())
    }

    #[test]
    fn a_small_file_that_cannot_be_removed_keeps_no_place() {
        let file_system = FaultFileSystem::new(1);
        let files = files(&file_system);
        assert!(files.prepare().unwrap());
        // More often than there are places, each time for a frame that doesn't fit the one before.
        for nth in 1..=2 * MAX_FILES as u64 {
            file_system.fail_next(Operation::Rename, ".journal");
            let large = files.take((nth + 1) * 64 * 1024).unwrap().unwrap();
            assert_eq!(files.existing(), 1, "small one {nth} is given up");
            files.retire(large, nth);
            files.free_through(nth);
        }
        assert_eq!(file_system.counts().failures, 2 * MAX_FILES as u64);
    }

    #[test]
    fn a_file_is_prepared_only_where_appends_keep_some_room_beside_it() {
        let file_system = FaultFileSystem::new(1);
        let files = files(&file_system);
        for room in [10, 63, 64, 79] {
            file_system.set_capacity(room * 1024);
            assert_eq!(files.prepare().unwrap_err().kind(), io::ErrorKind::StorageFull, "{room}");
        }
        assert_eq!((file_system.counts().bytes_written, files.existing()), (0, 0));
        file_system.set_capacity(80 * 1024);
        assert!(files.prepare().unwrap());
        assert_eq!((file_system.used_bytes(), files.existing()), (64 * 1024, 1));
    }
}

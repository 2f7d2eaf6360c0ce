//! The operating system's files.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{DirEntry, File, FileSystem, OpenMode};

/// The kernel takes at most this many slices in one write.
const MAX_SLICES: usize = 1024;
/// One byte in so many is looked for in the page cache: the kernel reads ahead, and forgets, in pieces of this size or larger.
const SAMPLE_BYTES: usize = 64 * 1024;
/// Bytes that one call sends at most, so that a caller has its turn between.
const MAX_SEND_BYTES: usize = 1024 * 1024;

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFileSystem;

impl File for std::fs::File {
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, position)
    }

    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<usize> {
        let some = slices.get(..MAX_SLICES).unwrap_or(slices);
        Ok(rustix::io::pwritev(self, some, position)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        std::fs::File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        std::fs::File::sync_data(self)
    }

    fn begin_writing_back(&self, position: u64, bytes: u64) {
        // "Not needed soon" makes the kernel begin to write what is dirty there; what is being written stays cached. Only
        // clean pages are dropped, and a part that was just appended has none. A hint that is refused is no loss.
        let Some(bytes) = std::num::NonZeroU64::new(bytes) else { return };
        let _ = rustix::fs::fadvise(self, position, Some(bytes), rustix::fs::Advice::DontNeed);
    }

    fn is_cached(&self, position: u64, bytes: usize) -> bool {
        let last = bytes.saturating_sub(1);
        (0..bytes).step_by(SAMPLE_BYTES).chain([last]).all(|skip| {
            let mut byte = [0];
            let into = &mut [io::IoSliceMut::new(&mut byte)];
            // Refused instead of waiting; also by file systems that can't tell.
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            rustix::io::preadv2(self, into, position + skip as u64, flags).is_ok_and(|count| count == 1)
        })
    }

    fn send_to(&self, socket: BorrowedFd<'_>, mut position: u64, bytes: usize) -> io::Result<usize> {
        Ok(rustix::fs::sendfile(socket, self, Some(&mut position), bytes.min(MAX_SEND_BYTES))?)
    }
}

impl FileSystem for RealFileSystem {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(options.open(path)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata()?;
            entries.push(DirEntry { name, is_dir: metadata.is_dir(), len: metadata.len() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(path)?;
        // What is kept back for root is root's.
        let blocks = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
        // A file system that counts no blocks doesn't know.
        Ok((found.f_blocks > 0).then(|| blocks.saturating_mul(found.f_frsize)))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

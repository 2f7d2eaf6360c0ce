//! The few file-system operations that the log needs, behind a trait so that tests can make them fail, tear and forget.
//!
//! What a durable change needs, and what the fault-injecting implementation punishes when it is missing: file content
//! is durable after [`File::sync_data`]; a created, renamed or removed name after [`FileSystem::sync_dir`] of its
//! directory.

#[cfg(any(test, feature = "fault-injection"))]
pub mod fault;
mod real;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

pub use real::RealFileSystem;

/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 1024 * 1024;
/// Bytes that are copied at once to a socket where the operating system can't send them from the file.
const SEND_BYTES: usize = 64 * 1024;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file, or an existing one emptied, to read and write.
    Create,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The file's name; names that aren't UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of a file.
    pub len: u64,
}

/// An open file. Positions are explicit, so that readers and the writer share one handle.
pub trait File: Debug + Send + Sync {
    /// Reads up to `into.len()` bytes at `position`; 0 at the end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes some of `slices`, in order, at `position`; returns how many bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn write_vectored_at(&self, slices: &[io::IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the content and the length durable.
    ///
    /// # Errors
    /// The operating system's. After a failure nothing is known of what was written since the last success.
    fn sync_data(&self) -> io::Result<()>;

    /// Lets the operating system begin to write a part of the file to the disk, so that a later [`File::sync_data`] has less
    /// left to do. Waits for nothing and promises nothing.
    fn begin_writing_back(&self, _position: u64, _bytes: u64) {}

    /// Whether a part of the file can be read without waiting for the disk, as far as a few samples tell; `false` if nobody
    /// knows.
    fn is_cached(&self, _position: u64, _bytes: usize) -> bool {
        false
    }

    /// Sends up to `bytes` at `position` to a socket; returns how many, 0 only at the end of the file.
    ///
    /// # Errors
    /// The operating system's: [`io::ErrorKind::WouldBlock`] if the socket takes nothing now.
    fn send_to(&self, socket: BorrowedFd<'_>, position: u64, bytes: usize) -> io::Result<usize> {
        let mut piece = vec![0; bytes.min(SEND_BYTES)];
        let count = self.read_at(&mut piece, position)?;
        Ok(rustix::io::write(socket, piece.get(..count).unwrap_or_default())?)
    }
}

/// A file system.
pub trait FileSystem: Debug + Send + Sync {
    /// Opens or creates a file.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Makes a directory and the missing ones above it.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// The operating system's.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Renames a file or directory, replacing a file of the new name.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all in it.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written below a directory, as far as the operating system knows: quotas and compression may make it
    /// fewer or more. `None` if nobody knows.
    ///
    /// # Errors
    /// The operating system's.
    fn free_bytes(&self, _path: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Takes the folder's lock, held until the returned value is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process (or another open log) holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// Reads up to `len` bytes: fewer only at the end of the file.
pub(crate) fn read_up_to(file: &dyn File, len: usize, position: u64) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    let filled = fill(file, &mut out, position)?;
    out.truncate(filled);
    Ok(out)
}

/// Reads until `into` is full. Returns how many bytes: fewer only at the end of the file.
pub(crate) fn fill(file: &dyn File, into: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        let count = read_some(file, into.get_mut(filled..).unwrap_or_default(), position + filled as u64)?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    Ok(filled)
}

fn read_some(file: &dyn File, into: &mut [u8], position: u64) -> io::Result<usize> {
    loop {
        match file.read_at(into, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Writes all of `slices`, going on after short writes.
pub(crate) fn write_all_at(
    file: &dyn File,
    mut slices: &mut [io::IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    while slices.iter().any(|slice| !slice.is_empty()) {
        match file.write_vectored_at(slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                io::IoSlice::advance_slices(&mut slices, count);
                position += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes `bytes` of zeros to the beginning of a file.
pub(crate) fn write_zeros(file: &dyn File, bytes: u64) -> io::Result<()> {
    let piece = vec![0u8; usize::try_from(bytes).unwrap_or(ZERO_BYTES).min(ZERO_BYTES)];
    let mut position = 0;
    while position < bytes {
        let left = usize::try_from(bytes - position).unwrap_or(ZERO_BYTES);
        let piece = piece.get(..left.min(piece.len())).unwrap_or_default();
        write_all_at(file, &mut [io::IoSlice::new(piece)], position)?;
        position += piece.len() as u64;
    }
    Ok(())
}

/// Replaces `path` by a file of `content`, so that a crash leaves the old or the new one, never a mixture.
pub(crate) fn replace_file(
    file_system: &dyn FileSystem,
    path: &Path,
    content: &[u8],
    durability: Durability,
) -> io::Result<()> {
    put_in_place(file_system, path, content, durability)?;
    if durability == Durability::Synced {
        file_system.sync_dir(path.parent().unwrap_or(path))?;
    }
    Ok(())
}

/// The same, but a crash may leave either until the directory is synced. On an error the old one is there.
pub(crate) fn put_in_place(
    file_system: &dyn FileSystem,
    path: &Path,
    content: &[u8],
    durability: Durability,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let file = file_system.open(&temporary, OpenMode::Create)?;
    write_all_at(&*file, &mut [io::IoSlice::new(content)], 0)?;
    if durability == Durability::Synced {
        file.sync_data()?;
    }
    file_system.rename(&temporary, path)
}

/// Whether a replaced file must survive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must.
    Synced,
    /// It can be made again, and a checksum tells whether it is whole.
    Rebuildable,
}

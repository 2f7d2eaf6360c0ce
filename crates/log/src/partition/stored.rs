//! Batches that lie in a file and were not read.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::ReadError;
use crate::fs::{self, File};

/// Whole batches, back to back, in a segment's file. They stay as they are, and readable, as long as this exists.
#[derive(Debug, Clone)]
pub struct StoredBatches {
    file: Arc<dyn File>,
    path: Arc<Path>,
    position: u64,
    bytes: usize,
}

impl StoredBatches {
    pub(super) fn new(file: Arc<dyn File>, path: Arc<Path>, position: u64, bytes: usize) -> Self {
        Self { file, path, position, bytes }
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Steps over the first `bytes`.
    pub fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.position += bytes as u64;
        self.bytes -= bytes;
    }

    /// Whether they can be had without waiting for the disk, as far as a few samples tell; `false` if nobody knows.
    pub fn is_cached(&self) -> bool {
        self.file.is_cached(self.position, self.bytes)
    }

    /// Reads the first `max_bytes` of what is left. May wait for the disk.
    ///
    /// # Errors
    /// [`ReadError::Io`], also if the file has become shorter.
    pub fn read(&self, max_bytes: usize) -> Result<Bytes, ReadError> {
        let mut found = vec![0; max_bytes.min(self.bytes)];
        self.read_into(&mut found)?;
        Ok(found.into())
    }

    /// Reads the first bytes of what is left, as many as `into` takes; returns how many. May wait for the disk.
    ///
    /// # Errors
    /// [`ReadError::Io`], also if the file has become shorter.
    pub fn read_into(&self, into: &mut [u8]) -> Result<usize, ReadError> {
        let failed =
            |source| ReadError::Io { path: self.path.to_path_buf(), position: self.position, source };
        let wanted = into.len().min(self.bytes);
        let into = into.get_mut(..wanted).unwrap_or_default();
        if fs::fill(&*self.file, into, self.position).map_err(failed)? < wanted {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(wanted)
    }

    /// Sends some of what is left to a socket, without a copy where the operating system can do that; returns how many
    /// bytes. Waits for the disk if they aren't cached.
    ///
    /// # Errors
    /// The operating system's: [`io::ErrorKind::WouldBlock`] if the socket takes nothing now, and
    /// [`io::ErrorKind::UnexpectedEof`] if the file has become shorter.
    pub fn send_to(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        match self.file.send_to(socket, self.position, self.bytes)? {
            0 if self.bytes > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            sent => Ok(sent),
        }
    }
}

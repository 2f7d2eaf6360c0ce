//! Where answers go: a socket that the kernel fills from files, or anything else that takes bytes.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use farol_log::StoredBatches;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::tcp::OwnedWriteHalf;

/// Bytes of stored batches that are read at once where they must pass through memory.
const COPIED_BYTES: usize = 64 * 1024;

/// Whether something follows at once what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// Nothing.
    Nothing,
    /// Stored batches.
    Stored,
}

/// Takes the pieces of answers. Each call takes some of what it is given, and says how many bytes.
pub(super) trait Outlet: Send {
    /// Writes bytes.
    fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        follows: Follows,
    ) -> impl Future<Output = io::Result<usize>> + Send;

    /// Sends batches from their file.
    fn send(&mut self, stored: &StoredBatches) -> impl Future<Output = io::Result<usize>> + Send;

    /// Lets nothing wait any longer.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// A socket without encryption.
pub(super) struct Plain(pub(super) OwnedWriteHalf);

/// What must see every byte: a connection by TLS.
pub(super) struct Copying<W>(pub(super) W);

impl Outlet for Plain {
    async fn write(&mut self, slices: &[IoSlice<'_>], follows: Follows) -> io::Result<usize> {
        if follows == Follows::Nothing {
            return self.0.write_vectored(slices).await;
        }
        // The few bytes between batches travel with those that follow, not in a packet of their own.
        let socket = self.0.as_ref();
        let send = || {
            let mut no_ancillary = SendAncillaryBuffer::default();
            Ok(sendmsg(socket.as_fd(), slices, &mut no_ancillary, SendFlags::MORE | SendFlags::NOSIGNAL)?)
        };
        socket.async_io(Interest::WRITABLE, send).await
    }

    async fn send(&mut self, stored: &StoredBatches) -> io::Result<usize> {
        let socket = self.0.as_ref();
        socket.async_io(Interest::WRITABLE, || stored.send_to(socket.as_fd())).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: AsyncWrite + Unpin + Send> Outlet for Copying<W> {
    async fn write(&mut self, slices: &[IoSlice<'_>], _: Follows) -> io::Result<usize> {
        self.0.write_vectored(slices).await
    }

    async fn send(&mut self, stored: &StoredBatches) -> io::Result<usize> {
        let bytes = stored.read(COPIED_BYTES).map_err(io::Error::other)?;
        self.0.write(&bytes).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }
}

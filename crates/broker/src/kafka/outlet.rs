//! Where answers go: a socket that the kernel fills from files, or anything else that takes bytes.
//!
//! To another machine, sending from the file saves a copy. On the same machine it doesn't pay: the client then copies page by
//! page what nobody has touched yet. A piece that was just read, and a send buffer that holds little more, are still in the
//! processor's cache when the client takes them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use farol_log::StoredBatches;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::tcp::OwnedWriteHalf;

use super::frame::FREE_BYTES;

/// Bytes of stored batches that are read at once where they pass through memory: what each connection may hold freely.
const COPIED_BYTES: usize = FREE_BYTES;
/// The send buffer towards a client on the same machine. By itself it would grow to some megabytes, for long distances.
const NEAR_SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Whether a client is on the same machine.
pub(super) fn is_near(peer: SocketAddr, local: SocketAddr) -> bool {
    let (peer, local) = (peer.ip().to_canonical(), local.ip().to_canonical());
    peer.is_loopback() || peer == local
}

/// Fits a socket to a client on the same machine.
pub(super) fn fit_near(socket: &impl AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_send_buffer_size(socket, NEAR_SEND_BUFFER_BYTES)?)
}

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

/// A socket without encryption, to another machine.
pub(super) struct Plain(pub(super) OwnedWriteHalf);

/// What every byte passes through: a connection by TLS, or to a client on the same machine.
pub(super) struct Copying<W> {
    writer: W,
    /// What stored batches pass through, as long as an answer is being sent.
    piece: Vec<u8>,
}

impl<W> Copying<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer, piece: Vec::new() }
    }
}

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
        self.writer.write_vectored(slices).await
    }

    async fn send(&mut self, stored: &StoredBatches) -> io::Result<usize> {
        self.piece.resize(COPIED_BYTES, 0);
        let read = stored.read_into(&mut self.piece).map_err(io::Error::other)?;
        self.writer.write_all(self.piece.get(..read).unwrap_or_default()).await?;
        Ok(read)
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.piece = Vec::new();
        self.writer.flush().await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use farol_log::{BatchBuilder, Compression};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::broker::{Broker, BrokerOptions};
    use crate::fetch::Isolation;
    use crate::partition::TopicPartition;

    /// A reader's end and a writer's.
    async fn connected() -> (TcpStream, OwnedWriteHalf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, write) = listener.accept().await.unwrap().0.into_split();
        drop(read);
        (reader, write)
    }

    /// Sends a piece in memory and stored batches, and gives what the reader got.
    async fn sent(mut outlet: impl Outlet, mut reader: TcpStream, mut stored: StoredBatches) -> Vec<u8> {
        let sending = async move {
            let written = outlet.write(&[IoSlice::new(b"before")], Follows::Stored).await.unwrap();
            assert_eq!(written, b"before".len());
            while !stored.is_empty() {
                let written = outlet.send(&stored).await.unwrap();
                stored.advance(written);
            }
            outlet.flush().await.unwrap();
            drop(outlet);
        };
        let reading = async {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            all
        };
        tokio::join!(sending, reading).1
    }

    #[tokio::test]
    async fn stored_batches_arrive_whole_from_the_file_and_through_memory() {
        let dir = tempfile::tempdir().unwrap();
        let (broker, _) = Broker::open(BrokerOptions::new(dir.path())).unwrap();
        broker.create_topic("t", 1, BTreeMap::new()).unwrap();
        let partition = TopicPartition::new("t", 0);
        // More than any buffer on the way holds.
        for number in 0..40u32 {
            let value: Vec<u8> = (number..number + 75_000).flat_map(u32::to_le_bytes).collect();
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(None, Some(&value), &[], 0).unwrap();
            broker.produce(&partition, builder.build().unwrap()).await.unwrap();
        }
        let reader = broker.reader(&partition).unwrap();
        let stored = reader.locate(0, usize::MAX, Isolation::ReadUncommitted).unwrap().batches.unwrap();
        let expected = [&b"before"[..], &stored.read(stored.len()).unwrap()].concat();
        assert!(expected.len() > 40 * 300_000);

        let (socket, write) = connected().await;
        assert!(sent(Plain(write), socket, stored.clone()).await == expected, "from the file");
        let (socket, write) = connected().await;
        fit_near(write.as_ref()).unwrap();
        assert!(sent(Copying::new(write), socket, stored).await == expected, "through memory");
    }

    #[test]
    fn clients_on_the_same_machine_are_known_by_their_addresses() {
        let near = |peer: &str, local: &str| is_near(peer.parse().unwrap(), local.parse().unwrap());
        assert!(near("127.0.0.1:5", "127.0.0.1:9092"));
        assert!(near("[::ffff:127.0.0.1]:5", "[::1]:9092"));
        assert!(near("10.0.0.1:5", "10.0.0.1:9092"));
        assert!(near("[::ffff:10.0.0.1]:5", "10.0.0.1:9092"));
        assert!(!near("10.0.0.2:5", "10.0.0.1:9092"));
    }
}

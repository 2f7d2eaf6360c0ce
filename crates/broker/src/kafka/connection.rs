//! One connection: takes requests in order, answers them in order.
//!
//! Both halves run in one task. Up to [`super::KafkaLimits::pipelined_requests`] requests wait for their answers; then no
//! further one is read, and TCP holds the client up. Answers that are ready go out in one write.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::Decodable;
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::admission::Place;
use super::api::{Call, Frame, Pending, Piece, Reply};
use super::frame::{FREE_BYTES, FrameReader, Incoming, NoFrame, allowance};
use super::handover::{First, Handover, together};
use super::outlet::{Follows, Outlet};
use super::sasl::Authentication;
use super::{admission, api_versions, sasl, shape, stats};

/// Bytes of answers that are gathered for one write.
const GATHER_BYTES: usize = 256 * 1024;
/// Pieces of one write.
const GATHER_PIECES: usize = 64;

/// What the handlers of a connection's requests share.
pub(super) struct Connection {
    /// Where the client is.
    pub(super) peer: SocketAddr,
    /// The address that the client has reached.
    pub(super) local: SocketAddr,
    /// Cancelled when the connection has ended.
    pub(super) gone: CancellationToken,
    /// How far the client is with saying who it is.
    pub(super) authentication: Mutex<Authentication>,
    /// Room for answers that aren't sent, but for those of Fetch.
    pub(super) answers: admission::Bytes,
    /// Requests that aren't answered.
    pending: AtomicUsize,
    /// Where it counts, until the last of its requests is done with.
    pub(super) place: Place,
    /// Whether it keeps its place for as long as it wants, because it has been answered after saying who it is.
    keeps_place: AtomicBool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The client closed it.
    #[error("closed by the client")]
    Closed,
    /// The network failed.
    #[error("{0}")]
    Io(std::io::Error),
    /// A request that can't be read, or that nobody serves.
    #[error("{0}")]
    Invalid(String),
    /// Half a request took too long.
    #[error("half a request was waited for too long")]
    StalledRequest,
    /// The client didn't take an answer.
    #[error("an answer was not taken in time")]
    StalledAnswer,
    /// Nothing came for too long.
    #[error("idle for too long")]
    Idle,
    /// It had been answered nothing yet when there was no place for a new one.
    #[error("made room for another")]
    MadeRoom,
    /// A handler wanted it.
    #[error("{0}")]
    Said(&'static str),
    /// The server stops.
    #[error("the server stops")]
    Stopped,
}

/// A request's answer on its way, with the request's share of the budget.
struct Due {
    pending: Pending,
    asked: Asked,
    _permit: Option<OwnedSemaphorePermit>,
}

/// For what was asked, and when.
struct Asked {
    /// Where the API is in the table.
    place: usize,
    /// When the whole request was there.
    at: Instant,
}

impl Connection {
    /// A request is done with.
    fn answered(&self, server: &Server, asked: &Asked) {
        server.counters.answered(asked.place, asked.at.elapsed());
        self.pending.fetch_sub(1, Ordering::Relaxed);
        if !self.keeps_place.load(Ordering::Relaxed) && self.is_authenticated() {
            self.keeps_place.store(true, Ordering::Relaxed);
            self.place.keep();
        }
    }
}

impl Connection {
    pub(super) fn new(
        peer: SocketAddr,
        local: SocketAddr,
        authentication: Authentication,
        place: Place,
    ) -> Self {
        Self {
            peer,
            local,
            gone: CancellationToken::new(),
            authentication: Mutex::new(authentication),
            answers: admission::Bytes::new(FREE_BYTES),
            pending: AtomicUsize::new(0),
            place,
            keeps_place: AtomicBool::new(false),
        }
    }

    fn is_authenticated(&self) -> bool {
        matches!(*self.authentication.lock(), Authentication::Done)
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<R, W>(
    server: Arc<Server>,
    connection: Arc<Connection>,
    reader: R,
    writer: W,
) -> Ended
where
    R: AsyncRead + Unpin + Send,
    W: Outlet,
{
    let due = Handover::new(server.settings.limits.pipelined_requests);
    let mut writing = std::pin::pin!(write(&server, &connection, &due, writer));
    let ended = match together(&due, read(&server, &connection, &due, reader), &mut writing).await {
        First::Giver(ended) => ended,
        First::Taker(ended) => return ended,
    };
    match ended {
        // Nobody is there any more to answer.
        Ended::Closed | Ended::Io(_) => ended,
        // The earlier requests are answered before the end, but not waited for longer than at a stop: one may be a long
        // poll.
        ended => match tokio::time::timeout(server.settings.limits.drain, writing).await {
            Ok(Ended::Closed) | Err(_) => ended,
            Ok(other) => other,
        },
    }
}

/// Takes requests until there is a reason to end.
async fn read<R: AsyncRead + Unpin>(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    due: &Handover<Due>,
    reader: R,
) -> Ended {
    let limits = &server.settings.limits;
    // Who hasn't said who it is has little room and little time.
    let mut frames = FrameReader::new(reader, FREE_BYTES, limits.transfer, limits.transfer.min(limits.idle));
    let mut is_authenticated = false;
    loop {
        if !is_authenticated && connection.is_authenticated() {
            is_authenticated = true;
            frames.allow(limits.request_bytes, limits.idle);
        }
        let is_idle = || connection.pending.load(Ordering::Relaxed) == 0;
        let next = tokio::select! {
            next = frames.next(&server.admission, is_idle) => next,
            () = server.stopping.cancelled() => return Ended::Stopped,
        };
        let Incoming { bytes, permit } = match next {
            Ok(incoming) => incoming,
            Err(reason) => return reason.into(),
        };
        stats::add(&server.counters.bytes_in, bytes.len() as u64);
        connection.pending.fetch_add(1, Ordering::Relaxed);
        let at = Instant::now();
        let (place, pending) = match dispatch(server, connection, bytes).await {
            Ok(dispatched) => dispatched,
            Err(problem) => return Ended::Invalid(problem),
        };
        due.give(Due { pending, asked: Asked { place, at }, _permit: permit }).await;
    }
}

/// Runs the handler of a request up to its answer; also gives the API's place in the table. The error says why there is no
/// answer.
async fn dispatch(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    mut bytes: Bytes,
) -> Result<(usize, Pending), String> {
    let call = |place, version, client_id| Call {
        server: Arc::clone(server),
        connection: Arc::clone(connection),
        place,
        version,
        client_id,
    };
    let is_token = connection.authentication.lock().awaits_bare_token();
    if is_token {
        // It comes without a header, in place of this request.
        let (place, _) =
            server.apis.find(ApiKey::SaslAuthenticate as i16).ok_or("a token, which nobody takes")?;
        server.counters.request(place);
        return Ok((place, sasl::bare_token(call(place, 0, Default::default()), bytes).await));
    }
    let cut = || "a request without its header".to_owned();
    let key = bytes.get(..2).and_then(|mut field| field.try_get_i16().ok()).ok_or_else(cut)?;
    let version = bytes.get(2..4).and_then(|mut field| field.try_get_i16().ok()).ok_or_else(cut)?;
    let correlation_id = bytes.get(4..8).and_then(|mut field| field.try_get_i32().ok()).ok_or_else(cut)?;
    let Some((place, api)) = server.apis.find(key) else {
        return Err(format!("a request with API key {key}, which nobody serves"));
    };
    server.counters.request(place);
    if !api.before_authentication && !connection.is_authenticated() {
        return Err(format!("{:?} before the client has said who it is", api.key));
    }
    if !api.serves(version) {
        // A client that is newer than this server learns the versions there are, and asks again.
        if api.key == ApiKey::ApiVersions {
            let call = call(place, 0, Default::default());
            return Ok((place, api_versions::unsupported_version(&call, correlation_id)));
        }
        return Err(format!("{:?} with version {version}, which isn't served", api.key));
    }
    let limits = &server.settings.limits;
    if api.key != ApiKey::Produce && bytes.len() > limits.control_request_bytes {
        return Err(format!("{:?} of {} bytes", api.key, bytes.len()));
    }
    let unreadable = |problem: String| format!("{:?} version {version}: {problem}", api.key);
    let header = RequestHeader::decode(&mut bytes, api.key.request_header_version(version))
        .map_err(|error| unreadable(error.to_string()))?;
    shape::check(api.key, version, &bytes).map_err(|error| unreadable(error.to_string()))?;
    let call = call(place, version, header.client_id.unwrap_or_default());
    tracing::trace!(peer = %connection.peer, api = ?api.key, version, client_id = %call.client_id, "Kafka request");
    let pending = api.handle(call, correlation_id, bytes).await.map_err(unreadable)?;
    Ok((place, pending))
}

/// Writes answers until no further one comes.
async fn write<W: Outlet>(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    answers: &Handover<Due>,
    mut writer: W,
) -> Ended {
    let mut outgoing = Outgoing::default();
    loop {
        let due = if outgoing.is_empty() { answers.take().await } else { answers.take_now() };
        let Some(mut due) = due else {
            if outgoing.is_empty() {
                return Ended::Closed;
            }
            if let Err(ended) = outgoing.send(server, connection, &mut writer).await {
                return ended;
            }
            continue;
        };
        let reply = match &mut due.pending {
            Pending::Ready(_) => None,
            Pending::Waiting(future) => {
                let ready = tokio::select! {
                    biased;
                    reply = future.as_mut() => Some(reply),
                    () = std::future::ready(()) => None,
                };
                match ready {
                    Some(reply) => Some(reply),
                    // What is gathered must not wait for it.
                    None => {
                        if let Err(ended) = outgoing.send(server, connection, &mut writer).await {
                            return ended;
                        }
                        Some(future.as_mut().await)
                    }
                }
            }
        };
        let reply = match (reply, due.pending) {
            (Some(reply), _) | (None, Pending::Ready(reply)) => reply,
            (None, Pending::Waiting(future)) => future.await,
        };
        match reply {
            Reply::Send(frame) => outgoing.add(frame, due.asked),
            Reply::Last(frame) => {
                outgoing.add(frame, due.asked);
                if let Err(ended) = outgoing.send(server, connection, &mut writer).await {
                    return ended;
                }
                return Ended::Said("its last answer is sent");
            }
            Reply::Nothing => connection.answered(server, &due.asked),
            Reply::Close(reason) => {
                if let Err(ended) = outgoing.send(server, connection, &mut writer).await {
                    return ended;
                }
                return Ended::Said(reason);
            }
        }
        if outgoing.is_full()
            && let Err(ended) = outgoing.send(server, connection, &mut writer).await
        {
            return ended;
        }
    }
}

/// Answers that are gathered for one write.
#[derive(Default)]
struct Outgoing {
    pieces: VecDeque<Piece>,
    permits: Vec<OwnedSemaphorePermit>,
    bytes: usize,
    /// For what they are answers.
    asked: Vec<Asked>,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn is_full(&self) -> bool {
        self.bytes >= GATHER_BYTES || self.pieces.len() >= GATHER_PIECES
    }

    fn add(&mut self, frame: Frame, asked: Asked) {
        for piece in frame.pieces.into_iter().filter(|piece| piece.len() > 0) {
            self.bytes = self.bytes.saturating_add(piece.len());
            self.pieces.push_back(piece);
        }
        self.permits.extend(frame.permit);
        self.asked.push(asked);
    }

    async fn send<W: Outlet>(
        &mut self,
        server: &Server,
        connection: &Connection,
        writer: &mut W,
    ) -> Result<(), Ended> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let transfer = server.settings.limits.transfer;
        let deadline = Instant::now() + allowance(transfer, self.bytes);
        while !self.pieces.is_empty() {
            let step = deadline.min(Instant::now() + transfer);
            let written = match timeout_at(step, self.write_some(writer)).await {
                Ok(Ok(0)) => return Err(Ended::Io(std::io::ErrorKind::WriteZero.into())),
                Ok(Ok(written)) => written,
                Ok(Err(error)) => return Err(Ended::Io(error)),
                Err(_) => return Err(Ended::StalledAnswer),
            };
            self.advance(written);
        }
        match timeout_at(deadline, writer.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Ended::Io(error)),
            Err(_) => return Err(Ended::StalledAnswer),
        }
        stats::add(&server.counters.bytes_out, self.bytes as u64);
        self.asked.iter().for_each(|asked| connection.answered(server, asked));
        *self = Self::default();
        Ok(())
    }

    /// Writes stored batches if they come first, or what comes before them.
    async fn write_some<W: Outlet>(&self, writer: &mut W) -> std::io::Result<usize> {
        if let Some(Piece::Stored(stored)) = self.pieces.front() {
            return writer.send(stored).await;
        }
        let mut follows = Follows::Nothing;
        let mut slices = Vec::with_capacity(self.pieces.len().min(GATHER_PIECES));
        for piece in self.pieces.iter().take(GATHER_PIECES) {
            match piece {
                Piece::Bytes(bytes) => slices.push(IoSlice::new(bytes)),
                Piece::Stored(_) => {
                    follows = Follows::Stored;
                    break;
                }
            }
        }
        writer.write(&slices, follows).await
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }
}

impl From<NoFrame> for Ended {
    fn from(reason: NoFrame) -> Self {
        match reason {
            NoFrame::Closed => Self::Closed,
            NoFrame::Io(error) => Self::Io(error),
            NoFrame::Length(length) => Self::Invalid(format!("a frame of {length} bytes")),
            NoFrame::Idle => Self::Idle,
            NoFrame::Stalled => Self::StalledRequest,
        }
    }
}

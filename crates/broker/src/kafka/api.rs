//! What a handler sees of its request, what it may answer, and a row of the table of APIs.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use farol_log::StoredBatches;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Encodable, HeaderVersion, Request, StrBytes};
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::connection::Connection;
use super::failures::Failures;
use crate::broker::Broker;

/// A future that a connection can hold.
pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A request beside its content. Cheap to clone.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) server: Arc<Server>,
    /// Whose request it is.
    pub(super) connection: Arc<Connection>,
    /// Where the API is in the table.
    pub(super) place: usize,
    /// The version of the API that the client speaks.
    pub(super) version: i16,
    /// What the client calls itself; may be empty.
    pub(super) client_id: StrBytes,
}

impl Call {
    /// The broker.
    pub(super) fn broker(&self) -> &Broker {
        &self.server.broker
    }

    /// Counts what the client is told of failures.
    pub(super) fn count_failures(&self, answer: &dyn Failures) {
        answer.each_code(&mut |code| self.count_failure(code));
    }

    /// Counts one of them by its code.
    pub(super) fn count_failure(&self, code: i16) {
        self.server.counters.told(self.place, code);
    }

    /// Room for an answer other than of Fetch: a little of the connection's own, more of what all share.
    fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        if bytes > self.server.settings.limits.answer_bytes {
            return None;
        }
        self.connection
            .answers
            .try_take(bytes)
            .or_else(|| self.server.admission.other_answers.try_take(bytes))
    }
}

/// Length prefix, correlation id and tagged fields of an answer.
const MAX_HEADER_BYTES: usize = 4 + 4 + 1;

/// What a handler answers.
pub(super) enum Answer<R> {
    /// This.
    Now(R),
    /// What comes of the future, which is polled from when every earlier request of the connection is answered, and dropped
    /// when the connection ends.
    Later(Boxed<R>),
    /// What comes of work that may take more than half a millisecond. It is done and encoded off the async threads, of all
    /// connections only so many at once.
    Work(Box<dyn FnOnce() -> R + Send>),
    /// Nothing is sent (a producer with `acks=0`); the request counts as under way until the future ends.
    Silent(Boxed<()>),
    /// This, and then the connection ends.
    Last(R),
    /// The connection ends, for this reason, after the earlier requests' answers.
    Close(&'static str),
}

impl<R> From<R> for Answer<R> {
    fn from(response: R) -> Self {
        Self::Now(response)
    }
}

impl<R> Answer<R> {
    /// What comes of `future`.
    pub(super) fn later(future: impl Future<Output = R> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// What comes of `work`.
    pub(super) fn work(work: impl FnOnce() -> R + Send + 'static) -> Self {
        Self::Work(Box::new(work))
    }
}

/// An answer as it goes over the wire.
pub(super) enum Reply {
    /// Bytes, in pieces.
    Send(Frame),
    /// Bytes, and then the connection ends.
    Last(Frame),
    /// None.
    Nothing,
    /// The connection ends.
    Close(&'static str),
}

/// A part of a frame.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// In memory.
    Bytes(Bytes),
    /// In a segment's file, from where it is sent.
    Stored(StoredBatches),
}

/// One frame to send: its pieces, length prefix included, and what must be given back when they are sent.
pub(super) struct Frame {
    pub(super) pieces: Vec<Piece>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Piece {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Stored(stored) => stored.len(),
        }
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Stored(_) => 0,
        }
    }

    /// Steps over its first bytes.
    pub(super) fn advance(&mut self, bytes: usize) {
        match self {
            Self::Bytes(rest) => rest.advance(bytes.min(rest.len())),
            Self::Stored(rest) => rest.advance(bytes),
        }
    }
}

/// An answer on its way.
pub(super) enum Pending {
    /// There it is.
    Ready(Reply),
    /// It comes.
    Waiting(Boxed<Reply>),
}

/// How a response becomes a frame. Only responses with records in them differ from the codec's way.
pub(super) trait ToFrame: Failures {
    /// The frame for `call`, or why there is none.
    fn to_frame(self, call: &Call, correlation_id: i32) -> Result<Frame, NoAnswer>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// A fault of the handler, not of the client.
    #[error("its answer could not be encoded: {0}")]
    Encoding(String),
    /// The client asked for more than one answer may hold, or for more than there is room for beside what isn't sent yet.
    #[error("there is no room for its answer of {0} bytes")]
    NoRoom(usize),
}

impl<R: Encodable + HeaderVersion + Failures> ToFrame for R {
    fn to_frame(self, call: &Call, correlation_id: i32) -> Result<Frame, NoAnswer> {
        let encoding = |error: String| NoAnswer::Encoding(error);
        // Room first: a small request may ask for a large answer.
        let size = self.compute_size(call.version).map_err(|error| encoding(error.to_string()))?;
        let size = size.saturating_add(MAX_HEADER_BYTES);
        let permit = call.room_for(size).ok_or(NoAnswer::NoRoom(size))?;
        let mut bytes = BytesMut::with_capacity(size);
        begin_frame(&mut bytes, correlation_id, R::header_version(call.version));
        self.encode(&mut bytes, call.version).map_err(|error| encoding(error.to_string()))?;
        let frame = end_frame(bytes, 0).map_err(encoding)?;
        Ok(Frame { pieces: vec![Piece::Bytes(frame)], permit: Some(permit) })
    }
}

/// Leaves room for the length prefix and writes the response header.
pub(super) fn begin_frame(bytes: &mut BytesMut, correlation_id: i32, header_version: i16) {
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&correlation_id.to_be_bytes());
    if header_version >= 1 {
        // No tagged fields.
        bytes.extend_from_slice(&[0]);
    }
}

/// Writes the length prefix of a frame of which `more` bytes follow in other pieces.
pub(super) fn end_frame(mut bytes: BytesMut, more: usize) -> Result<Bytes, String> {
    const PREFIX_BYTES: usize = 4;
    let length = bytes.len().saturating_sub(PREFIX_BYTES).saturating_add(more);
    let prefix = i32::try_from(length).map_err(|_| format!("{length} bytes don't fit a frame"))?;
    if let Some(place) = bytes.get_mut(..PREFIX_BYTES) {
        place.copy_from_slice(&prefix.to_be_bytes());
    }
    Ok(bytes.freeze())
}

/// One API that is served: a row of the table.
pub(super) struct Api {
    pub(super) key: ApiKey,
    /// Versions that are served.
    pub(super) min_version: i16,
    pub(super) max_version: i16,
    /// The lowest version that clients are told of.
    pub(super) advertised_min_version: i16,
    /// Whether it is served before the client has said who it is.
    pub(super) before_authentication: bool,
    handle: Handle,
}

type Handle = Box<dyn Fn(Call, i32, Bytes) -> Boxed<Result<Pending, String>> + Send + Sync>;

impl Api {
    /// An API with the versions that are served, and its handler.
    pub(super) fn new<Q, R, H, F>(versions: std::ops::RangeInclusive<i16>, handler: H) -> Self
    where
        Q: Request + Send + 'static,
        R: ToFrame + Send + 'static,
        H: Fn(Call, Q) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Answer<R>> + Send + 'static,
    {
        let key = ApiKey::try_from(Q::KEY).expect("the codec knows the keys of its own requests");
        debug_assert!(*versions.start() >= Q::VERSIONS.min && *versions.end() <= Q::VERSIONS.max, "{key:?}");
        let handle: Handle = Box::new(move |call, correlation_id, mut body| {
            Box::pin(async move {
                let request = Q::decode(&mut body, call.version).map_err(|error| error.to_string())?;
                let answer = handler(call.clone(), request).await;
                Ok(pending(answer, call, correlation_id))
            })
        });
        Self {
            key,
            min_version: *versions.start(),
            max_version: *versions.end(),
            advertised_min_version: *versions.start(),
            before_authentication: false,
            handle,
        }
    }

    /// Says lower versions than are served.
    pub(super) fn advertised_from(mut self, version: i16) -> Self {
        self.advertised_min_version = version;
        self
    }

    /// Is served before the client has said who it is.
    pub(super) fn before_authentication(mut self) -> Self {
        self.before_authentication = true;
        self
    }

    /// Whether a version is served.
    pub(super) fn serves(&self, version: i16) -> bool {
        (self.min_version..=self.max_version).contains(&version)
    }

    /// Decodes a request, whose shape was checked, and runs the handler up to its answer. The error says why the request
    /// can't be read.
    pub(super) fn handle(
        &self,
        call: Call,
        correlation_id: i32,
        body: Bytes,
    ) -> Boxed<Result<Pending, String>> {
        (self.handle)(call, correlation_id, body)
    }
}

fn pending<R: ToFrame + Send + 'static>(answer: Answer<R>, call: Call, correlation_id: i32) -> Pending {
    match answer {
        Answer::Now(response) => Pending::Ready(reply(response, &call, correlation_id)),
        Answer::Later(future) => {
            Pending::Waiting(Box::pin(async move { reply(future.await, &call, correlation_id) }))
        }
        Answer::Work(work) => Pending::Waiting(Box::pin(async move {
            let turn = call.server.admission.turn().await;
            let work = move || {
                let reply = reply(work(), &call, correlation_id);
                drop(turn);
                reply
            };
            // A panic is passed on: there is no answer without it.
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        })),
        Answer::Silent(future) => Pending::Waiting(Box::pin(async move {
            future.await;
            Reply::Nothing
        })),
        Answer::Last(response) => Pending::Ready(match reply(response, &call, correlation_id) {
            Reply::Send(frame) => Reply::Last(frame),
            other => other,
        }),
        Answer::Close(reason) => Pending::Ready(Reply::Close(reason)),
    }
}

/// An answer as it goes over the wire. The failures in it are counted.
pub(super) fn reply<R: ToFrame>(response: R, call: &Call, correlation_id: i32) -> Reply {
    call.count_failures(&response);
    match response.to_frame(call, correlation_id) {
        Ok(frame) => Reply::Send(frame),
        Err(NoAnswer::NoRoom(bytes)) => {
            call.server.counters.refuse_answer();
            tracing::debug!(peer = %call.connection.peer, bytes, "there is no room for a Kafka answer");
            Reply::Close("there is no room for its answer")
        }
        Err(NoAnswer::Encoding(problem)) => {
            tracing::error!(problem, version = call.version, "a Kafka answer could not be encoded");
            Reply::Close("its answer could not be encoded")
        }
    }
}

//! The Kafka protocol server: what unmodified Kafka clients talk to.
//!
//! It decodes requests, asks the [`Broker`], and encodes what it says. It decides nothing about topics, groups or
//! transactions itself, and it makes and reads no records: batches go to the log as they came, after
//! [`farol_log::Batch::validate`], and leave as they lie.
//!
//! # Limits
//!
//! All in [`KafkaLimits`], and all counted when they refuse ([`KafkaStats`]): connections in total and per address; the
//! bytes of one request ([`KafkaLimits::request_bytes`] where records are sent, [`KafkaLimits::control_request_bytes`]
//! elsewhere) and the entries in its arrays; requests of one connection that are not answered yet; request bytes of all
//! connections together, and answer bytes too, each apart for the ordinary ones, so that large ones don't keep them
//! waiting; the time that half a request, an unread answer or an idle connection may
//! last. Memory is taken as bytes arrive, never by what a length claims: `shape` checks every array of a request before the
//! codec, which believes them, may look at it.
//!
//! # Main flow
//!
//! ```text
//! serve ─► admission ─► connection ─► frame ─► dispatch ─► shape ─► handler ─► Answer ─► written in order
//! ```
//!
//! A connection is one task with a reading and a writing half. The reading half takes the next frame, finds its `Api` in
//! the one table (`apis`, from which ApiVersions answers too) and runs the handler up to its `Answer`; only then does it
//! take the next one, so what a handler does before it answers keeps the order of the requests. The writing half waits for
//! each answer in turn, and sends those that are ready together.
//!
//! # A handler
//!
//! ```ignore
//! pub(super) async fn heartbeat(call: Call, request: HeartbeatRequest) -> Answer<HeartbeatResponse>
//! ```
//!
//! One file an API family, one row in `apis` for each API: `Api::new(versions, heartbeat)`. The handler is thin: it takes
//! the decoded request, asks `call.broker()`, and answers. `Answer::Now` is an answer (`response.into()`);
//! `Answer::Later` a future of one, for whatever waits longer than a lock or a queue (the disk, other members, new
//! records): that is what lets the connection take further requests, and notice that the client is gone, in which case
//! the future is dropped. `Answer::Work` is for descriptions and searches whose size the client chooses; they name each thing
//! once (`distinct`), however often the request does. Failures are error codes of the response (`error_code`); fields that a version doesn't have
//! must keep their defaults, or encoding fails. The strings and bytes of a request share the memory of its frame: what is
//! kept for longer than the answer must be copied. CPU work or file reads of more than half a millisecond go to
//! `spawn_blocking`.
//!
//! # Failures
//!
//! A request that can't be read, or that nobody serves, ends its connection, as in Kafka; the others don't notice. A
//! handler that panics ends its connection too. At the stop the listener closes first, long polls are answered with what
//! they have, requests under way get [`KafkaLimits::drain`] to be answered, then connections are cut.
//!
//! Modules, in reading order: `api` (what a handler sees), `apis` (the table), `admission`, `frame`, `connection`, `outlet`,
//! `shape`, `error_code`, `failures` (those told are counted), `tls` and `sasl` (who a client is), then the families.

mod admission;
mod api;
mod api_versions;
mod apis;
mod cluster;
mod configs;
mod connection;
mod distinct;
mod error_code;
mod failures;
mod fetch;
mod find_coordinator;
mod frame;
#[cfg(test)]
mod fuzz;
mod group_admin;
mod handover;
mod list_offsets;
mod membership;
mod metadata;
mod offsets;
mod outlet;
mod produce;
mod records;
mod sasl;
mod shape;
mod stats;
mod tls;
mod topic_partitions;
mod topics;
mod transactions;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use admission::Admission;
use apis::Apis;
use connection::{Connection, Ended};
use fetch::sessions::FetchSessions;
use outlet::{Copying, Plain};
pub use sasl::credentials::{Credentials, CredentialsError};
use sasl::{Authentication, Users};
use stats::Counters;
pub use stats::{ApiStats, ErrorStats, KafkaStats};
pub use tls::{Tls, TlsError};

/// The id of the one node, in every answer that names one.
const NODE_ID: i32 = 1;
/// How long to wait after a failed `accept`: mostly "too many open files", and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the server.
#[derive(Debug, Clone, Default)]
pub struct KafkaSettings {
    /// Where clients are told to connect. Without it, to the address that they have reached.
    pub advertise: Option<Advertised>,
    /// Whether a topic that a producer or consumer asks for is made when it isn't there.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is made without saying how many.
    pub default_partitions: Option<i32>,
    /// Topics whose partitions and configuration are decided elsewhere: clients may neither change nor delete them.
    pub managed_topics: BTreeSet<String>,
    /// Who may connect; everybody if it is empty.
    pub users: Vec<(String, Credentials)>,
    /// Certificate and key, for connections by TLS only.
    pub tls: Option<Tls>,
    /// The bounds.
    pub limits: KafkaLimits,
}

/// Where clients are told to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// A name or an address.
    pub host: String,
    /// The port; `None` is the one that the server listens on.
    pub port: Option<u16>,
}

/// Bounds of the server.
#[derive(Debug, Clone)]
pub struct KafkaLimits {
    /// Open connections. Where there are as many, the oldest that has been answered nothing yet makes room for a new one.
    pub connections: usize,
    /// Open connections of one address, other than loopback (Kafka's `max.connections.per.ip`); the same among them.
    pub connections_per_address: usize,
    /// Bytes of one request that carries records (Kafka's `socket.request.max.bytes`).
    pub request_bytes: usize,
    /// Bytes of any other request.
    pub control_request_bytes: usize,
    /// Bytes of requests of all connections that have arrived and aren't answered, but for the first 64 KiB of each. Requests
    /// beyond 2 MiB have a half of their own.
    pub requests_in_flight_bytes: usize,
    /// Bytes of one answer other than of Fetch.
    pub answer_bytes: usize,
    /// Bytes of one Fetch answer, whatever the client would take.
    pub fetch_bytes: usize,
    /// Bytes of answers of all connections that aren't sent yet, but for the first 64 KiB of each. Three quarters are for Fetch,
    /// whose answers get small beyond that; who would have another answer beyond it loses the connection.
    pub answers_in_flight_bytes: usize,
    /// Requests of one connection that aren't answered.
    pub pipelined_requests: usize,
    /// How long a request may take to arrive, beside a second for every MiB, and an answer to be taken, beside a second for every
    /// 64 KiB; and how long nothing may come or go meanwhile.
    pub transfer: Duration,
    /// How long a connection may be open without a request.
    pub idle: Duration,
    /// How long requests under way may take when the server stops, or before a request that can't be read.
    pub drain: Duration,
    /// Fetch sessions that are remembered.
    pub fetch_sessions: usize,
}

impl Default for KafkaLimits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            connections: 10_000,
            connections_per_address: 10_000,
            request_bytes: 100 * MIB,
            control_request_bytes: 8 * MIB,
            requests_in_flight_bytes: 256 * MIB,
            answer_bytes: 64 * MIB,
            fetch_bytes: 16 * MIB,
            answers_in_flight_bytes: 256 * MIB,
            pipelined_requests: 64,
            transfer: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            drain: Duration::from_secs(5),
            fetch_sessions: 1000,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct KafkaHandle {
    local_addr: SocketAddr,
    server: Arc<Server>,
    task: JoinHandle<()>,
}

/// What all connections share.
struct Server {
    broker: Broker,
    settings: KafkaSettings,
    local_addr: SocketAddr,
    apis: Apis,
    admission: Admission,
    fetch_sessions: FetchSessions,
    users: Users,
    counters: Counters,
    /// Cancelled when no further request is to be taken.
    stopping: CancellationToken,
    /// Cancelled when connections are to be cut.
    cut_off: CancellationToken,
}

/// Starts the server on a bound listener. It runs until `stop` is cancelled; then [`KafkaHandle::join`] returns when it has
/// ended. Must be called within a Tokio runtime.
///
/// # Errors
/// If the listener doesn't know its address.
pub fn serve(
    broker: Broker,
    settings: KafkaSettings,
    listener: TcpListener,
    stop: CancellationToken,
) -> std::io::Result<KafkaHandle> {
    let local_addr = listener.local_addr()?;
    let server = Arc::new(Server::new(broker, settings, local_addr, stop));
    let task = tokio::spawn(run(Arc::clone(&server), listener));
    tracing::info!(address = %local_addr, "Kafka protocol server listens");
    Ok(KafkaHandle { local_addr, server, task })
}

impl KafkaHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The server in numbers, from now on, for whoever outlives the handle.
    pub fn numbers(&self) -> impl Fn() -> KafkaStats + Send + Sync + 'static {
        let server = Arc::clone(&self.server);
        move || server.stats()
    }

    /// Waits until everything has ended after the stop token was cancelled. Returns how many connections were cut off.
    pub async fn join(self) -> usize {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the Kafka protocol server's main task failed");
        }
        self.server.counters.cut_off()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

impl Server {
    fn new(
        broker: Broker,
        mut settings: KafkaSettings,
        local_addr: SocketAddr,
        stopping: CancellationToken,
    ) -> Self {
        let apis = Apis::new();
        Self {
            broker,
            local_addr,
            admission: Admission::new(&settings.limits),
            fetch_sessions: FetchSessions::new(settings.limits.fetch_sessions),
            users: Users::new(std::mem::take(&mut settings.users)),
            counters: Counters::new(&apis),
            apis,
            settings,
            stopping,
            cut_off: CancellationToken::new(),
        }
    }

    fn stats(&self) -> KafkaStats {
        self.counters.snapshot(&self.apis, &self.admission)
    }
}

async fn run(server: Arc<Server>, listener: TcpListener) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => take(&server, &tasks, stream, peer),
            // Of the connection that was to be accepted, not of the listener.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                tracing::warn!(%error, "a Kafka connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(server.settings.limits.drain, tasks.wait()).await.is_err() {
        server.counters.count_cut_off(tasks.len());
        tracing::warn!(connections = tasks.len(), "Kafka connections were cut off at the stop");
        server.cut_off.cancel();
        tasks.wait().await;
    }
}

fn take(server: &Arc<Server>, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr) {
    let place = match server.admission.admit(peer.ip()) {
        Ok(place) => place,
        Err(refused) => {
            server.counters.refuse(refused);
            // Kafka closes without a word, too: there is nothing to answer before a request.
            tracing::debug!(%peer, ?refused, "Kafka connection refused");
            return;
        }
    };
    // Answers are gathered before they are written, and must not wait for more to send along.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let local = stream.local_addr().unwrap_or(server.local_addr);
    let authentication = if server.users.is_empty() { Authentication::Done } else { Authentication::None };
    let connection = Arc::new(Connection::new(peer, local, authentication, place));
    let server = Arc::clone(server);
    tasks.spawn(async move {
        let cut_off = server.cut_off.clone();
        let ended = tokio::select! {
            ended = serve_stream(&server, &connection, stream) => ended,
            () = connection.place.unseated.cancelled() => Ended::MadeRoom,
            () = cut_off.cancelled() => Ended::Stopped,
        };
        connection.gone.cancel();
        server.counters.end(&ended);
        tracing::debug!(%peer, %ended, "Kafka connection ended");
    });
}

async fn serve_stream(server: &Arc<Server>, connection: &Arc<Connection>, stream: TcpStream) -> Ended {
    let Some(tls) = &server.settings.tls else {
        let (server, connection) = (Arc::clone(server), Arc::clone(connection));
        let is_near = outlet::is_near(connection.peer, connection.local);
        if is_near && let Err(error) = outlet::fit_near(&stream) {
            tracing::debug!(%error, "the send buffer could not be set");
        }
        let (read, write) = stream.into_split();
        return if is_near {
            connection::serve(server, connection, read, Copying::new(write)).await
        } else {
            connection::serve(server, connection, read, Plain(write)).await
        };
    };
    let handshake = tokio::time::timeout(tls::HANDSHAKE_LIMIT, tls.acceptor().accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = server.stopping.cancelled() => return Ended::Stopped,
    };
    match shaken {
        Ok(Ok(stream)) => {
            let (read, write) = tokio::io::split(stream);
            connection::serve(Arc::clone(server), Arc::clone(connection), read, Copying::new(write)).await
        }
        Ok(Err(error)) => Ended::Invalid(format!("no TLS: {error}")),
        Err(_) => Ended::StalledRequest,
    }
}

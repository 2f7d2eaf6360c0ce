//! The listener, its connections, and an orderly end.
//!
//! HTTP/1.1 only: browsers speak HTTP/2 only over TLS, which a reverse proxy adds where it is wanted, and one protocol
//! less is one surface less. A connection is bounded in every direction: headers by size and time, a stalled reader by
//! [`crate::settings::Limits::write_stall_timeout`], their number by [`crate::settings::Limits::connections`].
//!
//! At shutdown the listener closes first; idle connections close at once, those with a request under way after its
//! answer, streams at their next frame boundary. What has not ended after the drain time is cut off, and counted in the
//! log.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use farol_bus::{Bus, BusError};
use farol_event::Timestamp;
use farol_view::Store;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::app::{App, Parts};
use crate::control::Control;
use crate::guard::Guard;
use crate::ingest::body::BodyBudget;
use crate::ingest::producers::{self, Producers};
use crate::metrics::{Metrics, MetricsSource};
use crate::rates::{self, Rates};
use crate::server::stall::StallGuard;
use crate::settings::{HttpSettings, MIN_TOKEN_LENGTH};
use crate::stream::Hub;
use crate::unread::Unread;

mod stall;

/// How many refused connections may be told so at one time; further ones are closed without a word.
const REFUSALS_AT_A_TIME: usize = 64;
/// How long a refused connection is listened to, so that its answer is not lost in a reset.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// What a refused connection reads.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
retry-after: 1\r\nconnection: close\r\ncontent-length: 136\r\n\r\n\
{\"type\":\"urn:farol:problem:busy\",\"title\":\"The server is busy\",\"status\":503,\"detail\":\"as many connections are open as the server allows\"}";

/// What the HTTP face stands on.
pub struct HttpDeps {
    /// Where readings and events go, and what streams follow.
    pub bus: Arc<dyn Bus>,
    /// What is asked.
    pub store: Store,
    /// The rest of the running system.
    pub control: Arc<dyn Control>,
    /// Parts with numbers for `/metrics`.
    pub metrics: Vec<Arc<dyn MetricsSource>>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another program listens there.
    #[error(
        "{address} is in use by another program (another Farol?). Stop that one, or choose another port with `http.port` in farol.toml or MONITORING_PORT"
    )]
    AddressInUse {
        /// Where.
        address: SocketAddr,
    },
    /// The operating system refuses the address.
    #[error(
        "can't listen on {address}: {source}. Choose another address with MONITORING_HOST or MONITORING_PORT"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Anybody on the network could come in.
    #[error(
        "{address} can be reached from other machines, so an access token is required: set `http.token` (at least {MIN_TOKEN_LENGTH} characters), or listen on 127.0.0.1"
    )]
    TokenRequired {
        /// Where.
        address: SocketAddr,
    },
    /// The token is easily guessed.
    #[error("the access token has {length} characters; beyond loopback it needs at least {MIN_TOKEN_LENGTH}")]
    TokenTooShort {
        /// Its length.
        length: usize,
    },
    /// The bus gives no producer.
    #[error("the HTTP server can't write to the log: {0}")]
    Bus(#[from] BusError),
}

/// A running server.
#[derive(Debug)]
pub struct HttpHandle {
    local_addr: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until everything has ended after the shutdown token was cancelled.
    pub async fn join(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP server's main task failed");
        }
    }
}

/// Starts the server. It runs until `shutdown` is cancelled; then [`HttpHandle::join`] returns when it has ended.
///
/// # Errors
/// [`ServeError`]; nothing is left running then.
pub async fn serve(
    settings: HttpSettings,
    deps: HttpDeps,
    shutdown: CancellationToken,
) -> Result<HttpHandle, ServeError> {
    check_token(&settings)?;
    let listener = listen(settings.listen).await?;
    let local_addr =
        listener.local_addr().map_err(|source| ServeError::Listen { address: settings.listen, source })?;
    let producer = deps.bus.producer("http").await?;
    let tasks = TaskTracker::new();
    let bodies = BodyBudget::new(settings.limits.bodies_in_flight_bytes);
    let metrics = Arc::new(Metrics::new(deps.metrics, bodies.clone()));
    let producers = Arc::new(Producers::default());
    let rates = Arc::new(Rates::default());
    let hub =
        Hub::start(&deps.bus, &settings, Arc::clone(&metrics), Arc::clone(&rates), &tasks, &shutdown).await?;
    let system_events = Arc::clone(&settings.topics.system_events);
    tasks.spawn(producers::report(
        Arc::clone(&producers),
        Arc::clone(&producer),
        system_events,
        shutdown.clone(),
    ));
    let sensor_data = Arc::clone(&settings.topics.sensor_data);
    // Now, not in the task: a reading that is faster than the task would be taken for one of before.
    let first_end = rates::starting_end(deps.bus.as_ref(), &sensor_data).await;
    tasks.spawn(rates::follow(
        Arc::clone(&rates),
        Arc::clone(&metrics),
        Arc::clone(&deps.bus),
        sensor_data,
        first_end,
        shutdown.clone(),
    ));
    let app = App::new(Parts {
        about: settings.about,
        guard: Guard::new(local_addr, settings.allowed_hosts, settings.token),
        topics: settings.topics,
        bus: deps.bus,
        producer,
        store: deps.store,
        control: deps.control,
        metrics: Arc::clone(&metrics),
        producers,
        rates,
        hub,
        unread: Unread::default(),
        bodies,
        requests: Arc::new(Semaphore::new(settings.limits.concurrent_requests)),
        started_at: Timestamp::from_system_time(std::time::SystemTime::now()),
        started: Instant::now(),
        shutdown: shutdown.clone(),
        limits: settings.limits.clone(),
    });
    let connections = Connections {
        router: api::router(app),
        permits: Arc::new(Semaphore::new(settings.limits.connections)),
        refusals: Arc::new(Semaphore::new(REFUSALS_AT_A_TIME)),
        limits: settings.limits,
        metrics,
        tasks,
        shutdown,
        cut_off: CancellationToken::new(),
    };
    let task = tokio::spawn(connections.run(listener));
    tracing::info!(address = %local_addr, "HTTP server listens");
    Ok(HttpHandle { local_addr, task })
}

fn check_token(settings: &HttpSettings) -> Result<(), ServeError> {
    if settings.listen.ip().is_loopback() {
        return Ok(());
    }
    match &settings.token {
        None => Err(ServeError::TokenRequired { address: settings.listen }),
        Some(token) if token.len() < MIN_TOKEN_LENGTH => {
            Err(ServeError::TokenTooShort { length: token.len() })
        }
        Some(_) => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => ServeError::AddressInUse { address },
        _ => ServeError::Listen { address, source },
    })
}

struct Connections {
    router: Router,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    limits: crate::settings::Limits,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    cut_off: CancellationToken,
}

impl Connections {
    async fn run(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => self.take(stream),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Mostly "too many open files": taking the next one at once would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        self.drain().await;
    }

    fn take(&self, stream: TcpStream) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            self.refuse(stream);
            return;
        };
        // Answers are small and must not wait for more to send along.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let io = TokioIo::new(StallGuard::new(stream, self.limits.write_stall_timeout));
        let service = TowerToHyperService::new(self.router.clone());
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_header_size(self.limits.header_bytes);
        let connection = builder.serve_connection(io, service);
        let (shutdown, cut_off) = (self.shutdown.clone(), self.cut_off.clone());
        let metrics = Arc::clone(&self.metrics);
        metrics.connection_opened();
        self.tasks.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = shutdown.cancelled() => None,
            };
            let ended = match ended {
                Some(ended) => Some(ended),
                None => {
                    connection.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = connection.as_mut() => Some(ended),
                        () = cut_off.cancelled() => None,
                    }
                }
            };
            if let Some(Err(error)) = ended {
                // A client that went away or broke the protocol: its own affair, but of interest when hunting a fault.
                tracing::debug!(%error, "connection ended with an error");
            }
            metrics.connection_closed();
            drop(permit);
        });
    }

    fn refuse(&self, mut stream: TcpStream) {
        self.metrics.connection_refused();
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let _permit = permit;
            let told = async {
                stream.write_all(REFUSAL).await?;
                stream.shutdown().await?;
                // Closing with unread bytes would reset the connection and take the answer away with it.
                let mut unread = [0; 1024];
                while stream.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            // Whatever happens to a refused connection, there is nothing left to do for it.
            let _ = tokio::time::timeout(REFUSAL_LINGER, told).await;
        });
    }

    async fn drain(self) {
        self.tasks.close();
        if tokio::time::timeout(self.limits.drain_timeout, self.tasks.wait()).await.is_ok() {
            tracing::info!("HTTP server stopped");
            return;
        }
        let late = self.limits.connections.saturating_sub(self.permits.available_permits());
        tracing::warn!(
            connections = late,
            waited = ?self.limits.drain_timeout,
            "HTTP server stops without waiting any longer for requests under way"
        );
        self.cut_off.cancel();
        self.tasks.wait().await;
    }
}

/// Errors of `accept` that concern only the connection that would have been accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::AccessToken;

    #[test]
    fn the_refusals_length_is_right() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }

    #[test]
    fn beyond_loopback_a_token_is_required() {
        let mut settings = HttpSettings::new("0.0.0.0:0".parse().unwrap());
        assert!(matches!(check_token(&settings), Err(ServeError::TokenRequired { .. })));
        settings.token = Some(AccessToken::new("short"));
        assert!(matches!(check_token(&settings), Err(ServeError::TokenTooShort { length: 5 })));
        settings.token = Some(AccessToken::new("long enough to count"));
        assert!(check_token(&settings).is_ok());
        assert!(check_token(&HttpSettings::new("[::1]:0".parse().unwrap())).is_ok());
    }
}

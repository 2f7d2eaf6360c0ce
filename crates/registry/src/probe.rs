//! One question to a service, bounded in time and bytes.
//!
//! A question opens a connection of its own: a pool would hide that no new one can be opened. Proxies of the environment are
//! not used, because what is asked is the service and not a proxy. Of an answer at most [`MAX_BODY_BYTES`] of the body are
//! read, and those only if the check looks at them; nothing of it is kept or told on but the status.
//!
//! Where a question may go is [`Reach`]: names are resolved here, and an address that is out of reach is not connected to,
//! whatever the name says, and neither is one that a redirect leads to.

mod connect;
mod http;
mod resolve;

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use farol_event::DurationText;
use tokio::sync::OnceCell;

use crate::target::Target;
pub use http::MAX_BODY_BYTES;

/// How far a question may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To addresses of this machine's loopback only.
    Loopback,
    /// Anywhere.
    Anywhere,
}

impl Reach {
    /// Whether a question may go to an address.
    pub fn contains(self, address: IpAddr) -> bool {
        match self {
            Self::Loopback => address.is_loopback(),
            Self::Anywhere => true,
        }
    }

    /// Whether a host can be within reach, before it is resolved.
    pub fn may_be(self, host: &str) -> bool {
        match host.parse() {
            Ok(address) => self.contains(address),
            Err(_) => self == Self::Anywhere || host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Why an answer is not the right one. Its text is the reason that people are shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer in time.
    #[error("no answer within {}", DurationText::new(*.0))]
    TimedOut(Duration),
    /// The name has no address.
    #[error("`{host}` has no address: {problem}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the system says.
        problem: String,
    },
    /// It is out of [`Reach`].
    #[error("`{0}` is not on loopback, where alone this check may go")]
    OutOfReach(String),
    /// No connection.
    #[error("can't connect to {at}: {problem}")]
    Connect {
        /// Where.
        at: String,
        /// What the system says.
        problem: String,
    },
    /// No connection by TLS.
    #[error("no TLS with {at}: {problem}")]
    Tls {
        /// With whom.
        at: String,
        /// What went wrong.
        problem: String,
    },
    /// The answer broke off, or is no HTTP.
    #[error("the answer can't be read: {0}")]
    Broken(String),
    /// The status is not one of the right ones.
    #[error("status {status}, expected {expected}")]
    Status {
        /// The status.
        status: u16,
        /// The right ones.
        expected: String,
    },
    /// The body lacks the text.
    #[error("the answer does not contain `{0}`")]
    Body(String),
    /// The redirect can't be followed.
    #[error("the redirect can't be followed: {0}")]
    Redirect(String),
    /// The service has not said that it lives.
    #[error("no heartbeat for {}", DurationText::new(*.0))]
    NoHeartbeat(Duration),
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAnswer {
    /// Whether it was the right answer.
    pub outcome: Result<(), Failure>,
    /// How long the answer took, if there was one, right or wrong.
    pub response_time: Option<Duration>,
}

impl ProbeAnswer {
    /// No answer, for this reason.
    pub fn none(failure: Failure) -> Self {
        Self { outcome: Err(failure), response_time: None }
    }
}

/// Whoever can ask.
#[async_trait]
pub trait Prober: Send + Sync + 'static {
    /// Asks once. The caller bounds the time, and drops the call when it is up.
    async fn probe(&self, target: &Target, reach: Reach) -> ProbeAnswer;
}

/// Asks over the network.
#[derive(Default)]
pub struct NetworkProber {
    resolver: resolve::Resolver,
    /// Made when it is first needed: reading the system's certificates takes a while.
    tls: OnceCell<Result<std::sync::Arc<rustls::ClientConfig>, String>>,
}

#[async_trait]
impl Prober for NetworkProber {
    async fn probe(&self, target: &Target, reach: Reach) -> ProbeAnswer {
        let began = tokio::time::Instant::now();
        match target {
            Target::Http(http) => self.ask(http, reach, began).await,
            Target::Tcp(at) => match self.connect(at, reach).await {
                Ok(_) => ProbeAnswer { outcome: Ok(()), response_time: Some(began.elapsed()) },
                Err(failure) => ProbeAnswer::none(failure),
            },
            // Nobody is asked: the service speaks by itself.
            Target::Heartbeat => ProbeAnswer { outcome: Ok(()), response_time: None },
        }
    }
}

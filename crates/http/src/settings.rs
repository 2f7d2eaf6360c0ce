//! What the HTTP face is told: where it listens, who may come in, and every bound.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use farol_view::ViewTopics;

/// The fewest characters of an access token for an address beyond loopback.
pub const MIN_TOKEN_LENGTH: usize = 16;

/// How the HTTP face behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where to listen. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// What a client must present (`Authorization: Bearer …`, or as the password of basic credentials). Required when
    /// [`HttpSettings::listen`] is not a loopback address; optional otherwise.
    pub token: Option<AccessToken>,
    /// Names beside `localhost` and the loopback addresses that the `Host` header may carry while the server listens on
    /// loopback: the name of a reverse proxy or an SSH tunnel, without port.
    pub allowed_hosts: Vec<String>,
    /// What the topics are called.
    pub topics: ViewTopics,
    /// What the server tells about itself.
    pub about: About,
    /// Every bound.
    pub limits: Limits,
}

/// What the server tells about itself on its status page.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The program's version.
    pub version: String,
    /// Where data is kept.
    pub data_dir: String,
    /// Whether simulators feed it.
    pub demo: bool,
}

impl HttpSettings {
    /// The defaults for one address: no token, no further host names.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            token: None,
            allowed_hosts: Vec::new(),
            topics: ViewTopics::default(),
            about: About { version: env!("CARGO_PKG_VERSION").to_owned(), ..About::default() },
            limits: Limits::default(),
        }
    }
}

/// Every bound of the HTTP face.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest accepted request body, in bytes.
    pub body_bytes: usize,
    /// How many bytes of request bodies may be held at one time, over all requests. A request that would exceed it is
    /// answered 503.
    pub bodies_in_flight_bytes: usize,
    /// How many connections may be open. One more is answered 503 and closed.
    pub connections: usize,
    /// How many requests may be worked on at one time, streams not counted. One more is answered 503.
    pub concurrent_requests: usize,
    /// How many event streams may be open. One more is answered 503.
    pub streams: usize,
    /// The largest accepted request line and headers together, in bytes; more is answered 431.
    pub header_bytes: usize,
    /// How long a connection may take to send the headers of a request, idle time before them included.
    pub header_timeout: Duration,
    /// How long a request may take from its headers to its answer, body included.
    pub request_timeout: Duration,
    /// How long a connection may take nothing of what is written to it.
    pub write_stall_timeout: Duration,
    /// How long a shutdown waits for requests under way before it cuts them off.
    pub drain_timeout: Duration,
    /// How long an acknowledgement waits for the alerts view to show it before it answers 202.
    pub acknowledge_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 * 1024 * 1024,
            bodies_in_flight_bytes: 128 * 1024 * 1024,
            connections: 1024,
            concurrent_requests: 512,
            streams: 256,
            header_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            write_stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            acknowledge_timeout: Duration::from_secs(2),
        }
    }
}

/// A secret that lets a client in. Never printed.
#[derive(Clone)]
pub struct AccessToken(String);

impl AccessToken {
    /// Takes the secret as it is.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `given` is the secret. Takes as long for a wrong text as for the right one of the same length, so that
    /// the time of an answer tells nothing about the secret but its length.
    pub fn matches(&self, given: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let mut difference = u8::from(secret.len() != given.len());
        for (mine, theirs) in secret.iter().zip(given.iter().chain(std::iter::repeat(&0))) {
            difference |= std::hint::black_box(mine ^ theirs);
        }
        std::hint::black_box(difference) == 0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches() {
        let token = AccessToken::new("correct horse");
        assert!(token.matches(b"correct horse"));
        for wrong in ["", "correct hors", "correct horse ", "Correct horse", "correct\0horse"] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong:?}");
        }
        // A zero byte at the end must not pass for "nothing more given".
        assert!(!AccessToken::new("a\0").matches(b"a"));
    }

    #[test]
    fn a_token_is_never_printed() {
        assert!(!format!("{:?}", AccessToken::new("secret")).contains("secret"));
    }
}

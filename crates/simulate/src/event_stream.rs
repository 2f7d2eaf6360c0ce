//! A client of `GET /api/stream` that connects anew by itself and goes on from where it was.
//!
//! # Flow
//! [`EventStream::next`] gives one event after the other. When the connection is lost, it says so once
//! ([`Followed::Lost`]) and then tries again and again ([`reconnect`]), with the last id that it was told: the server sends what
//! was missed, or `gap`.
//!
//! # Failures
//! An answer that will not get better by asking again (4xx) ends it with the server's reason. Everything else is tried again
//! without end; how long is the caller's to say.

use std::collections::VecDeque;
use std::time::Duration;

use farol_resilience::Retry;
use farol_resilience::retry::{Decision, Jitter, Tries};
use hyper::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{ClientError, EndlessAnswer, RequestTemplate, ServerUrl};
use crate::sse::{ServerSentEvent, SseParser};

/// How long the head of the answer may take.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// A server that is silent for longer than this is gone: it says something every 15 s.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How much of a refusal is read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// The server refuses the stream for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server refuses the stream ({status}): {detail}")]
pub struct StreamRefused {
    /// The status.
    pub status: u16,
    /// The server's reason.
    pub detail: String,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// An event: `hello` at the beginning of each connection, `gap`, or one of those that were asked for.
    Event(ServerSentEvent),
    /// The connection is lost, or could not be opened, for this reason. Told once until there is one again.
    Lost(String),
}

/// The stream.
pub struct EventStream {
    server: ServerUrl,
    /// What is asked for, as it stands behind `?`; may be empty.
    query: String,
    open: Option<Open>,
    last_id: Option<String>,
    ready: VecDeque<ServerSentEvent>,
    retry: Retry,
    lost: Option<Lost>,
}

/// The connection is lost.
struct Lost {
    tries: Tries,
    next_try: Instant,
}

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// When a lost connection is tried again: after a second, doubling to five, half of that by chance so that many clients don't come back
/// together, without end.
pub fn reconnect() -> Retry {
    Retry::idempotent("reconnect")
        .max_tries(u32::MAX)
        .initial_delay(Duration::from_secs(1))
        .max_delay(LONGEST_PAUSE)
        .jitter(Jitter::Equal)
        .build()
}

struct Open {
    answer: EndlessAnswer,
    parser: SseParser,
}

/// Why one connection ended.
enum Ended {
    Lost(String),
    Refused(StreamRefused),
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Request(problem) => Self::Refused(StreamRefused { status: 0, detail: problem }),
            other => Self::Lost(other.to_string()),
        }
    }
}

#[derive(Deserialize)]
struct Refusal {
    detail: String,
}

impl EventStream {
    /// A stream of what these parameters ask for; each is encoded as it has to be. Nothing is opened yet.
    pub fn new<'p>(server: ServerUrl, parameters: impl IntoIterator<Item = (&'p str, &'p str)>) -> Self {
        let pairs = parameters.into_iter().map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let (ready, retry) = (VecDeque::new(), reconnect());
        Self { server, query, open: None, last_id: None, ready, retry, lost: None }
    }

    /// Begins after the event with this id.
    #[must_use]
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.last_id = Some(id.into());
        self
    }

    /// The id up to which everything has been given out.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// What comes next. Cancel-safe.
    ///
    /// # Errors
    /// [`StreamRefused`].
    pub async fn next(&mut self) -> Result<Followed, StreamRefused> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Some(id) = &event.id {
                    self.last_id = Some(id.clone());
                }
                return Ok(Followed::Event(event));
            }
            match self.advance().await {
                Ok(()) => {}
                Err(Ended::Refused(refused)) => return Err(refused),
                Err(Ended::Lost(reason)) => {
                    self.open = None;
                    if self.lose() {
                        return Ok(Followed::Lost(reason));
                    }
                }
            }
        }
    }

    /// There is no connection; whether that is news. When to try again is settled here, so that a `next` that is dropped moves nothing.
    fn lose(&mut self) -> bool {
        let news = self.lost.is_none();
        let mut tries = self.lost.take().map_or_else(|| self.retry.tries(), |lost| lost.tries);
        let pause = tries.decided(Decision::Retry, false).unwrap_or(LONGEST_PAUSE);
        self.lost = Some(Lost { tries, next_try: Instant::now() + pause });
        news
    }

    /// Opens the connection, or reads from it.
    async fn advance(&mut self) -> Result<(), Ended> {
        let Some(open) = &mut self.open else {
            if let Some(lost) = &self.lost {
                tokio::time::sleep_until(lost.next_try).await;
            }
            self.open = Some(self.connect().await?);
            self.lost = None;
            return Ok(());
        };
        let chunk = tokio::time::timeout(SILENCE_LIMIT, open.answer.next_chunk())
            .await
            .map_err(|_| Ended::Lost(format!("the server was silent for {} s", SILENCE_LIMIT.as_secs())))??;
        let bytes = chunk.ok_or_else(|| Ended::Lost("the server ended the stream".to_owned()))?;
        self.ready.extend(open.parser.push(&bytes));
        // Beyond the events in `ready`, if there are any: then they come first.
        if self.ready.is_empty()
            && let Some(id) = open.parser.last_id()
        {
            self.last_id = Some(id.to_owned());
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Open, Ended> {
        let mut path = "/api/stream".to_owned();
        let id = self.last_id.as_ref().map(|id| format!("last_event_id={}", percent_encoded(id)));
        let parts = [Some(self.query.clone()).filter(|query| !query.is_empty()), id];
        for (part, mark) in parts.into_iter().flatten().zip(['?', '&']) {
            path.push(mark);
            path.push_str(&part);
        }
        let template = RequestTemplate::get(&self.server, &path)?;
        let mut answer = EndlessAnswer::open(&self.server, &template, OPEN_LIMIT).await?;
        if answer.status == StatusCode::OK {
            return Ok(Open { answer, parser: SseParser::default() });
        }
        let status = answer.status;
        let reading = tokio::time::timeout(OPEN_LIMIT, refusal(&mut answer));
        let detail = reading.await.unwrap_or_default();
        if status.is_client_error() {
            Err(Ended::Refused(StreamRefused { status: status.as_u16(), detail }))
        } else {
            Err(Ended::Lost(format!("the server answers {}: {detail}", status.as_u16())))
        }
    }
}

/// What the server says about it.
async fn refusal(answer: &mut EndlessAnswer) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.next_chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_REFUSAL_BYTES {
            break;
        }
    }
    serde_json::from_slice::<Refusal>(&body).map_or_else(|_| String::new(), |refusal| refusal.detail)
}

/// A value as it may stand in a query (RFC 3986, unreserved characters as they are).
pub fn percent_encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

    /// The next connection, and the path that it asks for.
    async fn asked(listener: &TcpListener) -> (TcpStream, String) {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        (socket, head.split(' ').nth(1).unwrap().to_owned())
    }

    async fn event(stream: &mut EventStream) -> String {
        match stream.next().await.unwrap() {
            Followed::Event(event) => event.data,
            Followed::Lost(reason) => panic!("lost: {reason}"),
        }
    }

    #[tokio::test]
    async fn after_a_lost_connection_it_goes_on_from_the_last_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serving = tokio::spawn(async move {
            let (mut socket, path) = asked(&listener).await;
            assert_eq!(path, "/api/stream?type=a%2Cb&source=caf%C3%A9");
            let events = "event: event\nid: 1-1-1\ndata: one\n\nevent: event\nid: 1-1-2\ndata: two\n\n";
            socket.write_all(format!("{HEAD}{events}").as_bytes()).await.unwrap();
            // An event that is cut off has not been had, and its id doesn't count.
            socket.write_all(b"event: event\nid: 1-1-3\ndata: thr").await.unwrap();
            drop(socket);
            let (mut socket, path) = asked(&listener).await;
            assert!(path.ends_with("&last_event_id=1-1-2"), "{path}");
            // An id alone moves the place, without an event.
            socket.write_all(format!("{HEAD}: still here\nid: 1-1-9\n\n").as_bytes()).await.unwrap();
            drop(socket);
            let (mut socket, path) = asked(&listener).await;
            assert!(path.ends_with("&last_event_id=1-1-9"), "{path}");
            socket.write_all(format!("{HEAD}event: event\ndata: ten\n\n").as_bytes()).await.unwrap();
            listener
        });
        let mut stream = EventStream::new(server, [("type", "a,b"), ("source", "café")]);
        assert_eq!(event(&mut stream).await, "one");
        assert_eq!(stream.last_id(), Some("1-1-1"), "the second has not been given out yet");
        assert_eq!(event(&mut stream).await, "two");
        assert!(matches!(stream.next().await, Ok(Followed::Lost(_))));
        // Lost again after the second connection, which was there.
        assert!(matches!(stream.next().await, Ok(Followed::Lost(_))));
        assert_eq!(event(&mut stream).await, "ten");
        drop(serving.await.unwrap());
    }

    #[tokio::test]
    async fn a_refusal_ends_it_with_the_servers_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            for status in ["503 Busy", "400 Bad Request"] {
                let (mut socket, _) = asked(&listener).await;
                let body = r#"{"status":400,"detail":"`typ` is unknown"}"#;
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let mut stream = EventStream::new(server, []);
        assert!(matches!(stream.next().await, Ok(Followed::Lost(reason)) if reason.contains("503")));
        let refused = stream.next().await.unwrap_err();
        assert_eq!((refused.status, refused.detail.as_str()), (400, "`typ` is unknown"));
    }
}

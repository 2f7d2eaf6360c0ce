//! Frames: server-sent events as bytes, encoded once for all clients.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

/// The streams that a client may pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Stream {
    /// Readings, coalesced.
    Reading,
    /// Alert transitions.
    Alert,
    /// Events of the system and of its users.
    Event,
    /// What moves in the pipeline: consumers, producers, partitions, rules.
    Pipeline,
}

/// A number for each stream.
pub type PerStream<T> = [T; Stream::ALL.len()];

impl Stream {
    /// Every stream.
    pub const ALL: [Stream; 4] = [Stream::Reading, Stream::Alert, Stream::Event, Stream::Pipeline];

    /// The name of its events.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Reading => "reading",
            Stream::Alert => "alert",
            Stream::Event => "event",
            Stream::Pipeline => "pipeline",
        }
    }

    /// The stream of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.as_str() == name)
    }
}

/// Which readings a frame has, or a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The newest of each sensor.
    Overview,
    /// Every one of this sensor.
    Sensor(Arc<str>),
}

/// One server-sent event, ready to be written.
#[derive(Debug)]
pub struct Frame {
    /// Its stream.
    pub stream: Stream,
    /// The event's text, up to and with the empty line.
    pub text: Bytes,
}

/// Writes one server-sent event. `json` may have line breaks between its tokens; they become spaces, since a line break
/// would end the `data` line (inside JSON strings there are none).
pub fn encode(name: &str, id: Option<&str>, json: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(json.len() + name.len() + id.map_or(0, str::len) + 24);
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        text.extend_from_slice(b"\nid: ");
        text.extend_from_slice(id.as_bytes());
    }
    text.extend_from_slice(b"\ndata: ");
    text.extend(json.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }));
    text.extend_from_slice(b"\n\n");
    text.into()
}

/// The first event of every session.
#[derive(Debug, Serialize)]
pub struct Hello<'a> {
    /// The program's version: a page that was loaded from another one should load itself again.
    pub version: &'a str,
    /// The server's clock.
    pub server_time: farol_event::Timestamp,
}

/// Tells a client that it missed something.
#[derive(Debug, Serialize)]
pub struct Gap {
    /// Of which stream.
    pub stream: &'static str,
    /// How many frames (when resuming: records) at most; 0 if it is not known.
    pub missed: u64,
}

/// A comment, which keeps proxies from closing a silent connection, with the id up to which the client has been told: an
/// event without data moves the id that a browser comes back with, and nothing else.
pub fn heartbeat(id: &str) -> Bytes {
    format!(": still here\nid: {id}\n\n").into()
}

/// How long a browser waits before it connects again.
pub const RETRY: Bytes = Bytes::from_static(b"retry: 2000\n\n");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_event_even_if_its_json_has_line_breaks() {
        let text = encode("alert", Some("1.2"), b"{\r\n \"a\": 1\n}");
        assert_eq!(text.as_ref(), b"event: alert\nid: 1.2\ndata: {   \"a\": 1 }\n\n");
    }
}

//! Server-sent events out of the bytes of a stream.
//!
//! Source: the WHATWG HTML standard, section 9.2.6 "Interpreting an event stream". `retry` is ignored, because reconnecting
//! is the caller's business. Pure; bytes may be cut anywhere.
//!
//! Limit: [`MAX_EVENT_BYTES`] a line and an event's data; what is longer is dropped and counted.

/// The longest line, and the most data of one event, in bytes.
pub const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerSentEvent {
    /// Its name; `message` if the stream gave none.
    pub event: String,
    /// Its data, lines joined with `\n`.
    pub data: String,
    /// The last id that the stream gave.
    pub id: Option<String>,
}

/// Takes bytes, gives events.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    /// The line under way is too long and is being passed over.
    overlong: bool,
    after_carriage_return: bool,
    begun: bool,
    event: String,
    data: String,
    has_data: bool,
    id: Option<String>,
    /// The id that was in force at the last empty line: everything before it has been given out.
    last_id: Option<String>,
    dropped: u64,
}

impl SseParser {
    /// Events that these bytes complete, in order.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<ServerSentEvent> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_return = std::mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                // The second half of a line end that has been dealt with.
                b'\n' if follows_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ if self.line.len() >= MAX_EVENT_BYTES => self.overlong = true,
                _ => self.line.push(byte),
            }
        }
        events
    }

    /// The id up to which everything has been given out. Also moved by an id that comes without an event.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How many overlong lines or events were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn end_line(&mut self) -> Option<ServerSentEvent> {
        let bytes = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.overlong) {
            self.dropped += 1;
            return None;
        }
        let line = String::from_utf8_lossy(&bytes);
        let line = if std::mem::replace(&mut self.begun, true) {
            &*line
        } else {
            line.trim_start_matches('\u{feff}')
        };
        let event = if line.is_empty() {
            self.dispatch()
        } else {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            self.take_field(field, value.strip_prefix(' ').unwrap_or(value));
            None
        };
        // The buffer is kept for the next line.
        self.line = bytes;
        self.line.clear();
        event
    }

    fn take_field(&mut self, field: &str, value: &str) {
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" if self.data.len() + value.len() >= MAX_EVENT_BYTES => {
                self.dropped += 1;
                self.data.clear();
                self.has_data = false;
            }
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment has an empty field name; anything else is none of the standard's fields.
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<ServerSentEvent> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        if self.last_id != self.id {
            self.last_id.clone_from(&self.id);
        }
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(ServerSentEvent { event, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str =
        "\u{feff}: hi\nevent: alert\nid: 7\ndata: {\"a\":\ndata: 1}\n\nevent: gap\n\ndata\r\rdata:x\r\n\r\n";

    fn wanted() -> Vec<ServerSentEvent> {
        let event = |event: &str, data: &str| ServerSentEvent {
            event: event.into(),
            data: data.into(),
            id: Some("7".into()),
        };
        vec![event("alert", "{\"a\":\n1}"), event("message", ""), event("message", "x")]
    }

    #[test]
    fn events_are_what_the_standard_says() {
        assert_eq!(SseParser::default().push(STREAM.as_bytes()), wanted());
    }

    #[test]
    fn an_overlong_line_is_dropped_and_the_next_event_survives() {
        let mut parser = SseParser::default();
        let long = vec![b'x'; MAX_EVENT_BYTES + 10];
        assert_eq!(parser.push(b"data: "), vec![]);
        assert_eq!(parser.push(&long), vec![]);
        let events = parser.push(b"\n\ndata: y\n\n");
        assert_eq!((events.len(), parser.dropped()), (1, 1));
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(cuts in proptest::collection::vec(1_usize..8, 1..80)) {
            let mut parser = SseParser::default();
            let mut events = Vec::new();
            let mut rest = STREAM.as_bytes();
            for cut in cuts.into_iter().cycle() {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                events.extend(parser.push(piece));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(events, wanted());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            SseParser::default().push(&bytes);
        }
    }
}

//! A keep-alive connection that carries one request at a time.
//!
//! Spoken over the bare socket, because a load generator shares its processors with the server that it measures: a request
//! is one write, an answer as many reads as it takes (mostly one), both on the caller's task and in buffers that are
//! used again. A general client costs several times as much beside that.
//!
//! Limits: [`MAX_HEAD_BYTES`] the head of an answer, [`MAX_ANSWER_BYTES`] its body.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::StatusCode;
use hyper::http::header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, ClientError, MAX_ANSWER_BYTES, RequestTemplate, ServerUrl, connect};

/// The longest accepted head of an answer, and the longest line between the pieces of its body, in bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most headers that an answer may have.
const MAX_HEADERS: usize = 64;
/// Room for so much is made before each read.
const READ_BYTES: usize = 4096;

/// One open connection. After an error it is of no use: open another.
pub struct Connection {
    stream: TcpStream,
    /// What was read and is not used up.
    unread: BytesMut,
    /// The head of the request being sent.
    head: Vec<u8>,
    /// The server has said that it sends no further answer.
    closing: bool,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct AnswerHead {
    status: StatusCode,
    retry_after: Option<Duration>,
    framing: Framing,
    closing: bool,
    /// Bytes of the head itself.
    bytes: usize,
}

/// How the end of an answer's body is told (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

impl Connection {
    /// Opens a connection, within [`super::CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn open(server: &ServerUrl) -> Result<Self, ClientError> {
        let stream = connect(server).await?;
        Ok(Self { stream, unread: BytesMut::new(), head: Vec::new(), closing: false })
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// See [`ClientError`]. Not cancel-safe: after an error or a dropped call the connection must not be used again.
    pub async fn exchange(
        &mut self,
        template: &RequestTemplate,
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let exchanging = async {
            self.send(template, body).await?;
            self.receive().await
        };
        match tokio::time::timeout(limit, exchanging).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::TimedOut(limit)),
        }
    }

    async fn send(&mut self, template: &RequestTemplate, body: Bytes) -> Result<(), ClientError> {
        if self.closing || self.was_closed() {
            return Err(ClientError::ClosedWhileIdle);
        }
        self.head.clear();
        template.write_head(body.len(), &mut self.head);
        let mut request = Buf::chain(self.head.as_slice(), body);
        let whole = request.remaining();
        while request.has_remaining() {
            match self.stream.write_buf(&mut request).await {
                Ok(1..) => {}
                // Nothing was taken, so nothing can have arrived.
                Ok(0) | Err(_) if request.remaining() == whole => return Err(ClientError::ClosedWhileIdle),
                Ok(_) => return Err(broken(&io::ErrorKind::WriteZero.into())),
                // The server may have answered before it had taken everything, and closed.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the server closed the connection, or spoke without being asked, while it was idle. Costs a system call only
    /// if something has happened to it.
    fn was_closed(&mut self) -> bool {
        let mut unasked = [0; 64];
        let silent = matches!(self.stream.try_read(&mut unasked), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        !(silent && self.unread.is_empty())
    }

    async fn receive(&mut self) -> Result<Answer, ClientError> {
        let head = loop {
            match AnswerHead::parse(&self.unread)? {
                // Interim answers announce nothing that matters here.
                Some(head) if head.status.is_informational() => self.unread.advance(head.bytes),
                Some(head) => break head,
                None if self.unread.len() > MAX_HEAD_BYTES => return Err(malformed("its head is too long")),
                None => self.read_more().await?,
            }
        };
        self.unread.advance(head.bytes);
        self.closing = head.closing;
        let body = match head.framing {
            Framing::Length(length) => self.piece(length).await?,
            Framing::Chunked => self.chunks().await?,
            Framing::UntilClosed => self.rest().await?,
        };
        Ok(Answer { status: head.status, retry_after: head.retry_after, body })
    }

    /// Takes so many bytes.
    async fn piece(&mut self, length: usize) -> Result<Bytes, ClientError> {
        if length > MAX_ANSWER_BYTES {
            return Err(ClientError::AnswerTooLong);
        }
        loop {
            if let Some((piece, _)) = self.unread.split_at_checked(length) {
                let piece = Bytes::copy_from_slice(piece);
                self.unread.advance(length);
                return Ok(piece);
            }
            self.read_more().await?;
        }
    }

    async fn chunks(&mut self) -> Result<Bytes, ClientError> {
        let mut body = BytesMut::new();
        loop {
            let (used, size) = loop {
                match httparse::parse_chunk_size(&self.unread) {
                    Ok(httparse::Status::Complete(found)) => break found,
                    Ok(httparse::Status::Partial) if self.unread.len() <= MAX_HEAD_BYTES => {
                        self.read_more().await?;
                    }
                    Ok(_) | Err(_) => return Err(malformed("the length of a chunk is none")),
                }
            };
            self.unread.advance(used);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size == 0 {
                self.trailers().await?;
                return Ok(body.freeze());
            }
            if body.len().saturating_add(size) > MAX_ANSWER_BYTES {
                return Err(ClientError::AnswerTooLong);
            }
            body.extend_from_slice(&self.piece(size).await?);
            if *self.piece(2).await? != *b"\r\n" {
                return Err(malformed("a chunk does not end where it should"));
            }
        }
    }

    /// Passes over everything up to the empty line after the last chunk.
    async fn trailers(&mut self) -> Result<(), ClientError> {
        loop {
            let end = self.unread.iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    let line = self.unread.split_to(end + 1);
                    if line.trim_ascii().is_empty() {
                        return Ok(());
                    }
                }
                None if self.unread.len() > MAX_HEAD_BYTES => return Err(malformed("a trailer is too long")),
                None => self.read_more().await?,
            }
        }
    }

    /// Takes everything until the server closes the connection.
    async fn rest(&mut self) -> Result<Bytes, ClientError> {
        self.closing = true;
        while self.read().await? > 0 {
            if self.unread.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::AnswerTooLong);
            }
        }
        Ok(self.unread.split().freeze())
    }

    async fn read_more(&mut self) -> Result<(), ClientError> {
        match self.read().await? {
            0 => Err(broken(&io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    async fn read(&mut self) -> Result<usize, ClientError> {
        self.unread.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.unread).await.map_err(|error| broken(&error))
    }
}

impl AnswerHead {
    /// The head at the start of `bytes`, if all of it is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, ClientError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(malformed(&error.to_string())),
        };
        let status = parsed
            .code
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| malformed("it has no status"))?;
        let mut head = Self {
            status,
            retry_after: None,
            framing: Framing::UntilClosed,
            closing: parsed.version != Some(1),
            bytes: length,
        };
        for header in parsed.headers.iter() {
            head.take(header)?;
        }
        if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            head.framing = Framing::Length(0);
        }
        Ok(Some(head))
    }

    fn take(&mut self, header: &httparse::Header<'_>) -> Result<(), ClientError> {
        let is = |name: header::HeaderName| header.name.eq_ignore_ascii_case(name.as_str());
        let text = std::str::from_utf8(header.value).map_or("", str::trim);
        if is(header::CONTENT_LENGTH) {
            let length = text.parse().map_err(|_| malformed("its length is none"))?;
            // The other way of telling it goes before this one, whichever comes first.
            if self.framing != Framing::Chunked {
                self.framing = Framing::Length(length);
            }
        } else if is(header::TRANSFER_ENCODING) {
            if !text.eq_ignore_ascii_case("chunked") {
                return Err(malformed("it has an encoding that was not asked for"));
            }
            self.framing = Framing::Chunked;
        } else if is(header::CONNECTION) {
            self.closing |= text.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
        } else if is(header::RETRY_AFTER) {
            self.retry_after = text.parse().ok().map(Duration::from_secs);
        }
        Ok(())
    }
}

fn broken(error: &io::Error) -> ClientError {
    ClientError::Broken(error.to_string())
}

fn malformed(problem: &str) -> ClientError {
    ClientError::Broken(format!("the answer is not one of HTTP: {problem}"))
}

#[cfg(test)]
mod tests;

//! A small HTTP/1.1 client: one keep-alive connection, one request at a time, no pool and no redirects. Requests with an
//! answer go over [`Connection`]'s bare socket, answers without an end over hyper ([`EndlessAnswer`]).
//!
//! An error says whether the request may have reached the server ([`ClientError::may_have_arrived`]): the difference
//! between sending it again freely and perhaps storing it twice.
//!
//! Only `http://` is spoken. Limits: [`MAX_ANSWER_BYTES`] an answer, and the time limit given with each request.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::{HeaderValue, Uri, header};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

mod connection;

pub use connection::Connection;

/// The longest accepted answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How long opening a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The address of a running Farol, such as `http://127.0.0.1:5000`. A path prefix is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Host and port as they stand in the URL: the `Host` header.
    authority: Arc<str>,
    /// What is connected to.
    address: Arc<str>,
    /// Path prefix without a final slash, often empty.
    prefix: Arc<str>,
    /// The `Authorization` header of every request; never shown.
    authorization: Option<HeaderValue>,
}

/// Why a text is no server address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a server address such as http://127.0.0.1:5000: {problem}")]
pub struct ServerUrlError {
    /// The refused text.
    text: String,
    /// What is wrong with it.
    problem: String,
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let refuse = |problem: String| ServerUrlError { text: text.chars().take(200).collect(), problem };
        let uri: Uri = text.parse().map_err(|e: hyper::http::uri::InvalidUri| refuse(e.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(refuse(format!("only http is spoken, not {other}"))),
            None => return Err(refuse("it must begin with http://".into())),
        }
        let authority = uri.authority().ok_or_else(|| refuse("it names no host".into()))?;
        if authority.as_str().contains('@') {
            return Err(refuse("user and password are not accepted".into()));
        }
        if uri.query().is_some() {
            return Err(refuse("a query is not accepted".into()));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("") => 80,
            Some(_) => {
                authority.port_u16().ok_or_else(|| refuse("its port is no number from 0 to 65535".into()))?
            }
        };
        Ok(Self {
            authority: authority.as_str().into(),
            address: format!("{}:{port}", authority.host()).into(),
            prefix: uri.path().trim_end_matches('/').into(),
            authorization: None,
        })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl ServerUrl {
    /// The same server, with a bearer token that goes with every request.
    ///
    /// # Errors
    /// [`ClientError::Request`] if the token can't stand in a header.
    pub fn with_token(mut self, token: &str) -> Result<Self, ClientError> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| ClientError::Request("the token can't stand in a header".into()))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    /// The URL of a path of this server, prefix included.
    fn uri(&self, path: &str) -> Result<Uri, ClientError> {
        format!("{}{path}", self.prefix)
            .parse()
            .map_err(|_| ClientError::Request(format!("`{path}` is no path")))
    }
}

/// What went wrong between sending a request and having its answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be opened.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// Where to.
        address: Arc<str>,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection was closed while idle; the request was not sent.
    #[error("the server closed the idle connection")]
    ClosedWhileIdle,
    /// The connection broke after the request had begun to be sent: it may have been processed.
    #[error("the connection broke before the answer came: {0}")]
    Broken(String),
    /// No complete answer in time: the request may have been processed, or still be.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer was longer than [`MAX_ANSWER_BYTES`].
    #[error("the answer is longer than {MAX_ANSWER_BYTES} bytes")]
    AnswerTooLong,
    /// The request itself can't be made.
    #[error("{0}")]
    Request(String),
}

impl ClientError {
    /// Whether the server may have received the request.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::ClosedWhileIdle | Self::Request(_) => false,
            Self::Broken(_) | Self::TimedOut(_) | Self::AnswerTooLong => true,
        }
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// What `Retry-After` asks for, if it does so in seconds.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub body: Bytes,
}

/// What every request of one kind has in common, prepared once.
#[derive(Debug, Clone)]
pub struct RequestTemplate {
    method: Method,
    uri: Uri,
    headers: hyper::HeaderMap,
}

impl RequestTemplate {
    /// A `GET` of a path (query included).
    ///
    /// # Errors
    /// [`ClientError::Request`] if the path is none.
    pub fn get(server: &ServerUrl, path: &str) -> Result<Self, ClientError> {
        Self::new(Method::GET, server, path)
    }

    /// A `POST` to a path.
    ///
    /// # Errors
    /// [`ClientError::Request`] if the path or the producer's name can't be sent.
    pub fn post(
        server: &ServerUrl,
        path: &str,
        content_type: &'static str,
        producer: &str,
    ) -> Result<Self, ClientError> {
        let mut template = Self::new(Method::POST, server, path)?;
        template.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let producer = HeaderValue::from_bytes(producer.as_bytes()).map_err(|_| {
            ClientError::Request(format!("producer name `{producer}` can't stand in a header"))
        })?;
        template.headers.insert("farol-producer", producer);
        Ok(template)
    }

    /// A request that sends a body to a path, by any method.
    ///
    /// # Errors
    /// [`ClientError::Request`] if the path is none.
    pub fn sending(
        method: Method,
        server: &ServerUrl,
        path: &str,
        content_type: &'static str,
    ) -> Result<Self, ClientError> {
        let mut template = Self::new(method, server, path)?;
        template.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(template)
    }

    fn new(method: Method, server: &ServerUrl, path: &str) -> Result<Self, ClientError> {
        let mut headers = hyper::HeaderMap::new();
        let host = HeaderValue::from_str(&server.authority)
            .map_err(|_| ClientError::Request(format!("`{}` can't stand in a header", server.authority)))?;
        headers.insert(header::HOST, host);
        if let Some(authorization) = &server.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(Self { method, uri: server.uri(path)?, headers })
    }

    /// Writes the head of a request with a body of so many bytes.
    fn write_head(&self, body_bytes: usize, into: &mut Vec<u8>) {
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        for piece in [self.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            into.extend_from_slice(piece.as_bytes());
        }
        for (name, value) in &self.headers {
            for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                into.extend_from_slice(piece);
            }
        }
        if self.method != Method::GET {
            into.extend_from_slice(format!("content-length: {body_bytes}\r\n").as_bytes());
        }
        into.extend_from_slice(b"\r\n");
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// Opens a socket, within [`CONNECT_TIMEOUT`].
async fn connect(server: &ServerUrl) -> Result<TcpStream, ClientError> {
    let failed = |source| ClientError::Connect { address: Arc::clone(&server.address), source };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&*server.address))
        .await
        .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
        .map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// The connection's I/O; `None` when it is over.
type Driver = Option<Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>>;

/// An answer whose body goes on for as long as the server likes, on a connection of its own.
pub struct EndlessAnswer {
    /// Its status.
    pub status: StatusCode,
    body: Incoming,
    driver: Driver,
}

impl EndlessAnswer {
    /// Sends a request and returns as soon as the head of the answer is there; the body follows from
    /// [`EndlessAnswer::next_chunk`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn open(
        server: &ServerUrl,
        template: &RequestTemplate,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let stream = TokioIo::new(connect(server).await?);
        let failed = |e| ClientError::Broken(describe(&e));
        let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
        let mut driver: Driver = Some(Box::pin(connection));
        let request = template.request(Bytes::new());
        let answering = async { sender.send_request(request).await.map_err(failed) };
        let response = tokio::time::timeout(limit, drive(&mut driver, answering))
            .await
            .map_err(|_| ClientError::TimedOut(limit))??;
        Ok(Self { status: response.status(), body: response.into_body(), driver })
    }

    /// The next piece of the body, or `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        let Self { body, driver, .. } = self;
        let reading = async {
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(|e| ClientError::Broken(describe(&e)))?.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(None)
        };
        drive(driver, reading).await
    }
}

/// Polls `wanted` and, while that waits, the connection that it waits for.
async fn drive<T>(
    driver: &mut Driver,
    wanted: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::pin!(wanted);
    if let Some(connection) = driver {
        tokio::select! {
            biased;
            result = &mut wanted => return result,
            _ = connection.as_mut() => {}
        }
        *driver = None;
    }
    // The connection is over. What it had received is still to be had, and whatever else waits is told at once.
    wanted.await
}

/// hyper's errors keep their cause apart; both matter.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;

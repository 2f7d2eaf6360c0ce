//! A GET, and whether its answer is the right one.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, Uri};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::{Failure, NetworkProber, ProbeAnswer, Reach};
use crate::target::{HttpTarget, HttpUrl};

/// The most of a body that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A connection's I/O, which ends with the question.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl NetworkProber {
    pub(super) async fn ask(&self, target: &HttpTarget, reach: Reach, began: Instant) -> ProbeAnswer {
        let mut url = target.url.clone();
        let mut redirects_left = target.follow_redirects;
        loop {
            let (answer, _driver) = match self.get(&url, reach).await {
                Ok(answer) => answer,
                Err(failure) => return ProbeAnswer::none(failure),
            };
            if answer.status().is_redirection() && redirects_left > 0 {
                redirects_left -= 1;
                match redirect(&url, &answer) {
                    Ok(next) => url = next,
                    Err(problem) => return ProbeAnswer::none(Failure::Redirect(problem)),
                }
                continue;
            }
            let outcome = judge(target, answer).await;
            return ProbeAnswer { outcome, response_time: Some(began.elapsed()) };
        }
    }

    async fn get(&self, url: &HttpUrl, reach: Reach) -> Result<(Response<Incoming>, Driver), Failure> {
        let stream = self.connect(url.at(), reach).await?;
        if !url.is_https() {
            return exchange(url, TokioIo::new(stream)).await;
        }
        let refuse = |problem: String| Failure::Tls { at: url.at().to_string(), problem };
        let config = self.tls.get_or_init(tls_config).await.clone().map_err(refuse)?;
        let name = ServerName::try_from(url.at().host.clone()).map_err(|error| refuse(error.to_string()))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .map_err(|error| refuse(error.to_string()))?;
        exchange(url, TokioIo::new(stream)).await
    }
}

async fn tls_config() -> Result<Arc<ClientConfig>, String> {
    let reading = tokio::task::spawn_blocking(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = builder
            .with_native_roots()
            .map_err(|error| format!("the system's certificates can't be read: {error}"))?;
        Ok(Arc::new(builder.with_no_client_auth()))
    });
    reading.await.map_err(|error| error.to_string())?
}

async fn exchange<S>(url: &HttpUrl, stream: S) -> Result<(Response<Incoming>, Driver), Failure>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::Broken(with_cause(&error));
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(stream).await.map_err(broken)?;
    // Whatever ends the connection is told to the one that waits for the answer.
    let driver = Driver(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let path = url.uri().path_and_query().map_or("/", |path| path.as_str());
    let authority = url.uri().authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("farol/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Broken(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    Ok((answer, driver))
}

async fn judge(target: &HttpTarget, answer: Response<Incoming>) -> Result<(), Failure> {
    let status = answer.status().as_u16();
    if !target.status.contains(status) {
        return Err(Failure::Status { status, expected: target.status.to_string() });
    }
    let Some(wanted) = &target.body_contains else { return Ok(()) };
    let mut body = answer.into_body();
    let mut read = Vec::new();
    while read.len() < MAX_BODY_BYTES {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Failure::Broken(with_cause(&error)))?;
        if let Ok(piece) = frame.into_data() {
            let room = MAX_BODY_BYTES.saturating_sub(read.len());
            read.extend(piece.iter().take(room));
        }
        // What is there is enough, however much more comes.
        if memchr::memmem::find(&read, wanted.as_bytes()).is_some() {
            return Ok(());
        }
    }
    Err(Failure::Body(wanted.clone()))
}

/// Where a redirect leads: another address, or another path on the same server.
fn redirect(from: &HttpUrl, answer: &Response<Incoming>) -> Result<HttpUrl, String> {
    let location = answer
        .headers()
        .get(LOCATION)
        .ok_or("it does not say where to")?
        .to_str()
        .map_err(|_| "where to is no text")?;
    let to: Uri = location.parse().map_err(|error: hyper::http::uri::InvalidUri| error.to_string())?;
    if to.scheme().is_some() {
        return HttpUrl::from_uri(to).map_err(str::to_owned);
    }
    if !location.starts_with('/') || location.starts_with("//") {
        return Err("only whole addresses and paths from the root are followed".to_owned());
    }
    let mut parts = from.uri().clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    let to = Uri::from_parts(parts).map_err(|error| error.to_string())?;
    HttpUrl::from_uri(to).map_err(str::to_owned)
}

/// hyper's errors keep their cause apart; both matter.
fn with_cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

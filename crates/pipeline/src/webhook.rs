//! One HTTP POST to a webhook, bounded in what is read of the answer. Its time is bounded by who makes it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farol_alert::Attempt;
use farol_resilience::retry::{Schedule, parse_retry_after};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::notifier::ReceiverSettingsError;

/// How much of a webhook's answer is read (so that its connection can be used again) before the connection is dropped.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// How long a webhook's answer is read after its status has come.
const MAX_ANSWER_TIME: Duration = Duration::from_millis(100);

/// A webhook: where alerts are posted as JSON.
#[derive(Clone)]
pub struct WebhookSettings {
    /// Its name: the channel in delivery records, and part of its consumer group's name.
    pub name: String,
    /// `http://` or `https://` address.
    pub url: String,
    /// Headers sent along, such as `Authorization`. Never logged.
    pub headers: Vec<(String, String)>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When to try again and when to give up.
    pub retry: Schedule,
    /// Whether it is told that alerts resolved, if a route leads to it. Without a route it always is.
    pub send_resolved: bool,
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSettings")
            .field("name", &self.name)
            .field("url", &self.url_for_people())
            .finish_non_exhaustive()
    }
}

impl WebhookSettings {
    /// The address without user, password, query and path secrets: scheme, host and port.
    pub fn url_for_people(&self) -> String {
        match self.url.parse::<hyper::Uri>() {
            Ok(uri) => {
                let host = uri.host().unwrap_or("?");
                let port = uri.port_u16().map(|p| format!(":{p}")).unwrap_or_default();
                format!("{}://{host}{port}", uri.scheme_str().unwrap_or("http"))
            }
            Err(_) => "(not an address)".into(),
        }
    }
}

/// A client for one webhook, with connections of its own: a dead webhook holds up nobody else.
pub(crate) struct Webhook {
    settings: WebhookSettings,
    uri: hyper::Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Webhook {
    /// Checks the settings and makes a client; connects to nothing yet.
    pub(crate) fn new(settings: WebhookSettings) -> Result<Self, ReceiverSettingsError> {
        let refuse = |problem: String| ReceiverSettingsError::new(&settings.name, problem);
        let uri: hyper::Uri =
            settings.url.parse().map_err(|e| refuse(format!("`url` is not an address: {e}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(refuse("`url` must be a whole address that begins with http:// or https://".into()));
        }
        let mut headers = Vec::new();
        for (name, value) in &settings.headers {
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| refuse(format!("`{name}` is not a header name")))?;
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| {
                refuse(format!("the value of header `{name}` has characters that headers can't carry"))
            })?;
            value.set_sensitive(true);
            headers.push((header, value));
        }
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|e| refuse(format!("the system's certificates can't be read: {e}")))?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(2).build(connector);
        Ok(Self { settings, uri, headers, client })
    }

    pub(crate) fn settings(&self) -> &WebhookSettings {
        &self.settings
    }

    /// Posts once. `idempotency_key` is the same for every attempt at one notification.
    pub(crate) async fn post(&self, body: Bytes, idempotency_key: &str) -> Attempt {
        self.exchange(body, idempotency_key).await.unwrap_or_else(Attempt::Unreachable)
    }

    async fn exchange(&self, body: Bytes, idempotency_key: &str) -> Result<Attempt, String> {
        let mut request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("farol/", env!("CARGO_PKG_VERSION")))
            .header("idempotency-key", idempotency_key)
            .body(Full::new(body))
            .map_err(|e| e.to_string())?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let answer = self.client.request(request).await.map_err(|e| reason(&e))?;
        let status = answer.status().as_u16();
        let retry_after = retry_after(answer.headers());
        // The status has decided; a body that never ends must not make it look like no answer.
        let rest = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect();
        let _ = tokio::time::timeout(MAX_ANSWER_TIME, rest).await;
        Ok(Attempt::Answered { status, retry_after })
    }
}

/// The pause that the answer asks for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    parse_retry_after(text(RETRY_AFTER)?, text(DATE), SystemTime::now())
}

/// The whole chain of causes: the first alone only says "client error (Connect)".
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

//! `POST /api/readings` as replay and the HTTP sink use it: one batch, one answer, and what may be tried again.

use std::time::Duration;

use bytes::Bytes;
use farol_resilience::Retry;
use farol_resilience::retry::{Decision, Jitter, RetryIf};
use hyper::StatusCode;
use serde::Deserialize;

use crate::client::{Answer, ClientError, Connection, RequestTemplate, ServerUrl};

/// Where readings go.
pub const READINGS_PATH: &str = "/api/readings";
/// The type of the problem of a server whose log takes no records.
const LOG_REFUSES: &str = "urn:farol:problem:log-refuses";
/// How long one batch usually may wait for its answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IngestAnswer {
    /// How many readings are durable.
    pub accepted: u64,
    /// Which were refused, and why.
    #[serde(default)]
    pub rejected: Vec<RejectedReading>,
}

/// One refused reading.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RejectedReading {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// Why.
    pub error: String,
}

/// Why a batch has no answer that counts.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The network or the connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server has too much to do at present.
    #[error("the server is busy: {status}")]
    Busy {
        /// 429 or 503 (or a proxy's 502 or 504).
        status: StatusCode,
        /// What it asks for.
        retry_after: Option<Duration>,
    },
    /// The server's log takes no records: the disk is full, or a write failed. It may again when somebody has mended that.
    #[error("the server can't store readings: {detail}")]
    LogRefuses {
        /// What it said, shortened.
        detail: String,
        /// What it asks for.
        retry_after: Option<Duration>,
    },
    /// The server refused the whole request, and would again.
    #[error("the server refused the batch: {status}: {detail}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What it said, shortened.
        detail: String,
    },
    /// The answer is not that of a Farol.
    #[error("the answer is not what POST /api/readings promises ({status}): {detail}")]
    UnexpectedAnswer {
        /// Its status.
        status: StatusCode,
        /// What is wrong.
        detail: String,
    },
}

impl UploadError {
    /// Whether the same batch may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Client(error) => !matches!(error, ClientError::Request(_)),
            Self::Busy { .. } | Self::LogRefuses { .. } => true,
            Self::Refused { .. } | Self::UnexpectedAnswer { .. } => false,
        }
    }

    /// What the server asks for before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } | Self::LogRefuses { retry_after, .. } => *retry_after,
            Self::Client(_) | Self::Refused { .. } | Self::UnexpectedAnswer { .. } => None,
        }
    }

    /// Whether the batch may have been stored although there is no answer.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Client(error) => error.may_have_arrived(),
            // A proxy's 502 and 504 say nothing about what the server behind it did.
            Self::Busy { status, .. } => {
                matches!(*status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
            }
            Self::Refused { .. } | Self::LogRefuses { .. } => false,
            Self::UnexpectedAnswer { .. } => true,
        }
    }
}

/// Reads an answer to `POST /api/readings`.
///
/// # Errors
/// Everything but 202, and 400 with the per-reading list, is an error.
pub fn read_answer(answer: &Answer) -> Result<IngestAnswer, UploadError> {
    let status = answer.status;
    let retry_after = answer.retry_after;
    match status {
        StatusCode::SERVICE_UNAVAILABLE if problem_type(&answer.body).as_deref() == Some(LOG_REFUSES) => {
            Err(UploadError::LogRefuses { detail: problem_detail(&answer.body), retry_after })
        }
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::GATEWAY_TIMEOUT => Err(UploadError::Busy { status, retry_after }),
        StatusCode::ACCEPTED => serde_json::from_slice(&answer.body)
            .map_err(|e| UploadError::UnexpectedAnswer { status, detail: e.to_string() }),
        // None was accepted: the list says why, one by one. Otherwise it is a problem with the request as a whole.
        StatusCode::BAD_REQUEST => match serde_json::from_slice::<IngestAnswer>(&answer.body) {
            Ok(list) if !list.rejected.is_empty() => Ok(list),
            _ => Err(UploadError::Refused { status, detail: problem_detail(&answer.body) }),
        },
        _ => Err(UploadError::Refused { status, detail: problem_detail(&answer.body) }),
    }
}

/// The `type` of problem details, if it is one.
fn problem_type(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        r#type: String,
    }
    Some(serde_json::from_slice::<Problem>(body).ok()?.r#type)
}

/// The `detail` (or `title`) of problem details, or the start of whatever it is.
pub(crate) fn problem_detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let text = problem
        .and_then(|p| p.detail.or(p.title))
        .unwrap_or_else(|| String::from_utf8_lossy(body.get(..400).unwrap_or(body)).into_owned());
    text.chars().take(400).collect()
}

/// Sends batches over one connection, opened when needed.
pub struct Uploader {
    server: ServerUrl,
    template: RequestTemplate,
    answer_limit: Duration,
    connection: Option<Connection>,
}

impl Uploader {
    /// Nothing is connected yet. `producer` is the name that the server shows.
    ///
    /// # Errors
    /// [`ClientError::Request`] if the producer's name can't stand in a header.
    pub fn new(server: ServerUrl, content_type: &'static str, producer: &str) -> Result<Self, ClientError> {
        let template = RequestTemplate::post(&server, READINGS_PATH, content_type, producer)?;
        Ok(Self { server, template, answer_limit: ANSWER_LIMIT, connection: None })
    }

    /// With another time limit for an answer than [`ANSWER_LIMIT`].
    #[must_use]
    pub fn with_answer_limit(mut self, limit: Duration) -> Self {
        self.answer_limit = limit;
        self
    }

    /// Connects if there is no connection, to find out whether the server can be reached at all.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(&mut self) -> Result<(), ClientError> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.server).await?);
        }
        Ok(())
    }

    /// Sends a batch once. A connection that the server closed while it was idle is replaced without counting as a try,
    /// because nothing of the batch had been sent on it.
    ///
    /// # Errors
    /// See [`UploadError`]; the next call opens a new connection where that is needed.
    pub async fn send(&mut self, body: Bytes) -> Result<IngestAnswer, UploadError> {
        if let Some(connection) = self.connection.take() {
            match self.send_on(connection, body.clone()).await {
                Err(UploadError::Client(ClientError::ClosedWhileIdle)) => {}
                other => return other,
            }
        }
        let connection = Connection::open(&self.server).await?;
        self.send_on(connection, body).await
    }

    async fn send_on(
        &mut self,
        mut connection: Connection,
        body: Bytes,
    ) -> Result<IngestAnswer, UploadError> {
        let answer = connection.exchange(&self.template, body, self.answer_limit).await?;
        self.connection = Some(connection);
        read_answer(&answer)
    }
}

/// Which batches are sent again: see [`UploadError::is_retriable`].
#[derive(Debug, Clone, Copy)]
pub struct WhatMayPass;

impl<T> RetryIf<T, UploadError> for WhatMayPass {
    fn decide(&self, result: &Result<T, UploadError>) -> Decision {
        match result {
            Err(error) if error.is_retriable() => {
                error.retry_after().map_or(Decision::Retry, Decision::RetryAfter)
            }
            Ok(_) | Err(_) => Decision::Done,
        }
    }
}

/// When a batch is sent again: after 100 ms, doubling to five seconds, half of that by chance so that many clients don't come back
/// together, or as late as the server asks for; for so long. A batch that may have arrived is stored twice then.
pub fn retry(for_as_long_as: Duration) -> Retry<WhatMayPass> {
    Retry::idempotent("upload")
        .max_tries(u32::MAX)
        .max_delay(Duration::from_secs(5))
        .jitter(Jitter::Equal)
        .max_elapsed(for_as_long_as)
        .max_server_delay(for_as_long_as)
        .judge_by(WhatMayPass)
        .build()
}

#[cfg(test)]
mod tests;

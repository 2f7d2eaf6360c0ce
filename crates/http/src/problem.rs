//! Errors as problem details (RFC 9457): one type for every answer that is not a success.
//!
//! `type` is `urn:farol:problem:` and a word that programs may rely on; `detail` is for people and says what was wrong
//! and what to do. An error that is the server's own fault is logged here, once, and its cause stays in the log.

use std::collections::BTreeMap;

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use farol_bus::BusError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// An error answer. Build it with one of the constructors, add members, return it.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: String,
    members: BTreeMap<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $word:literal, $title:literal;)*) => {
        /// What kind of problem it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name),* }

        impl Kind {
            /// The HTTP status.
            pub fn status(self) -> StatusCode {
                match self { $(Kind::$name => StatusCode::$status),* }
            }

            /// The last part of `type`.
            pub fn word(self) -> &'static str {
                match self { $(Kind::$name => $word),* }
            }

            /// The title.
            pub fn title(self) -> &'static str {
                match self { $(Kind::$name => $title),* }
            }
        }
    };
}

kinds! {
    /// The request makes no sense as it is.
    BadRequest = BAD_REQUEST, "bad-request", "The request can't be understood";
    /// Nothing of what was sent was accepted.
    NothingAccepted = BAD_REQUEST, "nothing-accepted", "Nothing of what was sent was accepted";
    /// No or wrong credentials.
    Unauthorized = UNAUTHORIZED, "unauthorized", "Credentials are needed";
    /// The `Host` header names a server that this is not.
    ForeignHost = FORBIDDEN, "foreign-host", "This server does not answer to that host name";
    /// A page of another site sent the request.
    ForeignOrigin = FORBIDDEN, "foreign-origin", "Requests of other sites are refused";
    /// No such thing.
    NotFound = NOT_FOUND, "not-found", "There is no such thing";
    /// The path exists, the method doesn't.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    /// The body did not come in time.
    Timeout = REQUEST_TIMEOUT, "request-timeout", "The request took too long";
    /// The present state forbids it.
    Conflict = CONFLICT, "conflict", "The present state does not allow that";
    /// The body is too large.
    TooLarge = PAYLOAD_TOO_LARGE, "too-large", "The request is too large";
    /// The content type or encoding is not one that is understood here.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The content type is not accepted here";
    /// Something went wrong inside.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong inside Farol";
    /// The server has as much to do as it may.
    Busy = SERVICE_UNAVAILABLE, "busy", "The server is busy";
    /// The log takes no records.
    LogRefuses = SERVICE_UNAVAILABLE, "log-refuses", "The log takes no records at present";
    /// A part that the answer needs is not there at present.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "A needed part is not available at present";
}

/// The JSON of a problem.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// What kind of problem it is: `urn:farol:problem:` and a word.
    #[serde(rename = "type")]
    #[schema(example = "urn:farol:problem:bad-request")]
    pub problem_type: String,
    /// The kind in words.
    #[schema(example = "The request can't be understood")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 400, minimum = 400, maximum = 599)]
    pub status: u16,
    /// What was wrong with this request, and what to do.
    #[schema(example = "`limit` must be at most 1000")]
    pub detail: String,
    /// Further members of some kinds.
    #[serde(flatten)]
    #[schema(ignore)]
    pub members: BTreeMap<String, Value>,
}

/// The media type of problems.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    /// A problem of `kind`; `detail` says what was wrong and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), members: BTreeMap::new(), headers: Vec::new() }
    }

    /// 400: the request makes no sense as it is.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// 409.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, detail)
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(Kind::UnsupportedMediaType, detail)
    }

    /// 401, asking for credentials in the two forms that are understood.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, detail)
            .with_header(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"Farol\", charset=\"UTF-8\""),
            )
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"Farol\""))
    }

    /// 405 for a path that takes the methods of `allow`.
    pub fn method_not_allowed(allow: Option<HeaderValue>) -> Self {
        let detail = match allow.as_ref().and_then(|a| a.to_str().ok()) {
            Some(methods) => format!("this path takes {}", methods.replace(',', ", ")),
            None => "this path does not take that method".to_owned(),
        };
        let problem = Self::new(Kind::MethodNotAllowed, detail);
        match allow {
            Some(methods) => problem.with_header(ALLOW, methods),
            None => problem,
        }
    }

    /// 413 for something that is bounded by `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        Self::new(
            Kind::TooLarge,
            format!("the body has more than {limit} bytes; send it in several requests"),
        )
        .with_member("limit_bytes", limit)
    }

    /// 503 with `Retry-After: 1`, when a bound is reached.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(Kind::Busy, detail).with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503 with `Retry-After: 1`, when a part is missing for now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail).with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 500. Logs `step` and `cause`; the client learns only the step.
    pub fn internal(step: &str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(step, error = %cause, "request failed");
        Self::new(Kind::Internal, format!("{step} failed; the server's log says why"))
    }

    /// Adds a member.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a response header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What was wrong, for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The JSON form.
    pub fn to_details(&self) -> ProblemDetails {
        ProblemDetails {
            problem_type: format!("urn:farol:problem:{}", self.kind.word()),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: self.detail.clone(),
            members: self.members.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body =
            serde_json::to_vec(&self.to_details()).expect("a problem has string keys only, so it serialises");
        let mut response = (self.kind.status(), body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, PROBLEM_JSON);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}

impl From<BusError> for Problem {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Poisoned { .. } => {
                // Whoever sent it learns why, and the log has said once that it refuses.
                tracing::debug!(%error, "the log refused a request's records");
                Self::new(
                    Kind::LogRefuses,
                    // The error says what to do about it.
                    format!("{error}. Send this request again afterwards"),
                )
                .with_header(RETRY_AFTER, HeaderValue::from_static("30"))
            }
            BusError::TooLarge { .. } => {
                Self::new(Kind::TooLarge, format!("{error}; send less in one request"))
            }
            BusError::Closed => {
                Self::unavailable("the server is shutting down; nothing of this request was confirmed")
            }
            BusError::Unavailable(_) | BusError::Unreachable => {
                Self::unavailable(format!("{error}; nothing of this request was confirmed"))
            }
            other => Self::internal("asking the log", &other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_its_members_beside_the_standard_ones() {
        let problem = Problem::bad_request("no").with_member("index", 3);
        let json = serde_json::to_value(problem.to_details()).unwrap();
        assert_eq!(json["type"], "urn:farol:problem:bad-request");
        assert_eq!(json["status"], 400);
        assert_eq!(json["detail"], "no");
        assert_eq!(json["index"], 3);
    }

    #[test]
    fn a_poisoned_log_says_what_to_do() {
        let problem = Problem::from(BusError::Poisoned {
            partition: "sensor-data/0".into(),
            problem: "no space left; free space, then restart".into(),
        });
        assert_eq!(problem.kind().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            problem.detail(),
            "sensor-data/0 refuses appends: no space left; free space, then restart. Send this request again \
             afterwards"
        );
    }
}

//! Extractors whose refusals are problems.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::problem::Problem;

/// The query string. Unknown and repeated parameters are refused: a filter that is misspelt and ignored answers a
/// question that was not asked.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(QueryRejection::FailedToDeserializeQueryString(refused)) => {
                let text = refused.body_text();
                let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                Err(Problem::bad_request(format!("in the query: {text}")))
            }
            Err(other) => Err(Problem::bad_request(other.body_text())),
        }
    }
}

/// The variable parts of the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(PathRejection::FailedToDeserializePathParams(refused))
                if refused.status() == StatusCode::BAD_REQUEST =>
            {
                Err(Problem::bad_request(format!("in the path: {}", refused.body_text())))
            }
            Err(other) => Err(Problem::internal("reading the path", &other)),
        }
    }
}

/// The largest JSON body of a command, in bytes.
const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// A small JSON body.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        crate::ingest::media::require_json(&parts.headers)?;
        let (bytes, _held) = app.collect(&parts.headers, body, MAX_COMMAND_BYTES).await?;
        // By way of an object, because a derived reader also takes an array of the fields in order.
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
            .and_then(|object| serde_json::from_value(object.into()))
            .map(Self)
            .map_err(|e| Problem::bad_request(format!("in the body: {e}")))
    }
}

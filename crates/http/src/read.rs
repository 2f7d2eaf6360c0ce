//! What can be asked: the views' answers as JSON, and the state of the system itself.
//!
//! Queries run on the store's readers, off the async threads, and so does the writing of their JSON. Limits, cursors and
//! filters are checked by the store, whose refusals become 400s that name the parameter.

#![expect(
    unused_qualifications,
    reason = "utoipa's attribute writes the types of parameters with full paths"
)]

pub mod alerts;
pub mod commands;
pub mod events;
pub mod groups;
pub mod pipeline;
pub mod probes;
pub mod readings;
pub mod resilience;
pub mod rules;
pub mod sensors;
pub mod services;
pub mod silences;
pub mod status;
pub(crate) mod suppression;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use farol_view::{Queries, ViewError};
use serde::Serialize;

use crate::app::App;
use crate::problem::Problem;

/// Asks the views and writes the answer as JSON, both off the async threads.
pub(crate) async fn ask<T, F>(app: &App, question: F) -> Result<Response, Problem>
where
    T: Serialize,
    F: FnOnce(&Queries<'_>) -> Result<T, ViewError> + Send + 'static,
{
    match ask_for(app, move |queries| question(queries).map(Some)).await? {
        Some(response) => Ok(response),
        None => Err(Problem::internal("answering a query", &"an answer vanished")),
    }
}

/// The same for a question that may have no answer.
pub(crate) async fn ask_for<T, F>(app: &App, question: F) -> Result<Option<Response>, Problem>
where
    T: Serialize,
    F: FnOnce(&Queries<'_>) -> Result<Option<T>, ViewError> + Send + 'static,
{
    let written = app
        .store()
        .query(move |queries| Ok(question(queries)?.map(|answer| serde_json::to_vec(&answer))))
        .await?;
    match written {
        None => Ok(None),
        Some(Ok(json)) => Ok(Some(json_response(json))),
        Some(Err(error)) => Err(Problem::internal("writing the answer", &error)),
    }
}

/// A cursor that is given but empty asks for the first page, as none at all does.
pub(crate) fn cursor(given: Option<String>) -> Option<String> {
    given.filter(|cursor| !cursor.is_empty())
}

fn json_response(json: Vec<u8>) -> Response {
    let mut response = (StatusCode::OK, json).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        if error.is_callers_fault() {
            return Problem::bad_request(error.to_string());
        }
        match error {
            ViewError::Busy { .. } => Problem::busy(error.to_string()),
            ViewError::TimedOut { .. } => Problem::unavailable(error.to_string()),
            ViewError::Closed => Problem::unavailable("the server is shutting down"),
            _ if error.is_retriable() => {
                tracing::warn!(%error, "a query failed");
                Problem::unavailable("the views can't be read at present; try again later")
            }
            _ => Problem::internal("reading the views", &error),
        }
    }
}

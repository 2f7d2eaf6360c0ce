//! A part of Alertmanager's API v2, under `/api/v2/`, so that `amtool` and other tools that speak it list alerts and manage silences.
//!
//! | path | |
//! | --- | --- |
//! | `GET status`, `receivers` | what Farol can say: its version, its settings' receivers |
//! | `GET alerts`, `alerts/groups` | what fires; parameters `filter` (repeated), `active`, `silenced`, `inhibited`, `unprocessed`, `receiver` |
//! | `GET`, `POST silences`, `GET`, `DELETE silence/{id}` | Farol's silences, in Alertmanager's words |
//!
//! Alerts can't be posted: Farol's own rules raise them. Shapes and answers are those of Alertmanager 0.25 to 0.28, errors are texts in
//! JSON, of other paths and methods too. Clients such as `amtool` show the text of those statuses only that Alertmanager's description
//! has for the request; where that matters the status is one of them, even where HTTP has a better word. The description of these paths is Alertmanager's own, so they don't stand in `/openapi.json`.
//!
//! Limits: [`farol_view::query::silences::MAX_FIRING`] alerts, [`farol_alert::silence::MAX_SILENCES`] silences.

mod alerts;
mod silences;
mod status;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use farol_event::{Alert, AlertId};
use farol_matcher::{Matcher, Matchers};

use crate::app::App;
use crate::problem::{Kind, Problem};

/// Every path.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/api/v2/status", get(status::status))
        .route("/api/v2/receivers", get(status::receivers))
        .route("/api/v2/alerts", get(alerts::list).post(alerts::refuse))
        .route("/api/v2/alerts/groups", get(alerts::groups))
        .route("/api/v2/silences", get(silences::list).post(silences::save))
        .route("/api/v2/silence/{id}", get(silences::one).delete(silences::expire))
        .route("/api/v2/{*path}", any(no_such_path))
        .method_not_allowed_fallback(no_such_method)
}

async fn no_such_path() -> Refused {
    Refused(StatusCode::NOT_FOUND, "Farol has no such path of Alertmanager's API".to_owned())
}

/// The router adds `Allow`.
async fn no_such_method() -> Refused {
    Refused(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method".to_owned())
}

/// An answer that says what is wrong, as Alertmanager does: a text in JSON.
pub(crate) struct Refused(StatusCode, String);

impl Refused {
    fn bad_request(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    /// Of a silence that can't be ended: Alertmanager's description gives only 500 a text.
    fn to_expire(problem: &Problem) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, problem.detail().to_owned())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        let status = match problem.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::BadRequest => StatusCode::BAD_REQUEST,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, problem.detail().to_owned())
    }
}

/// The matchers of parameters `filter`, each of which may hold several.
fn filters(texts: &[String]) -> Result<Matchers, Refused> {
    let bad =
        |error: farol_matcher::MatcherError| Refused::bad_request(format!("bad matcher format: {error}"));
    let mut all: Vec<Matcher> = Vec::new();
    for text in texts {
        all.extend(text.parse::<Matchers>().map_err(bad)?.iter().cloned());
    }
    Matchers::new(all).map_err(bad)
}

/// Whether matchers hold for an alert.
fn select(matchers: &Matchers, alert: &Alert) -> bool {
    matchers.hold(|name| farol_alert::label::value(alert, name))
}

/// Alertmanager names alerts by their fingerprints.
fn fingerprints(ids: &[AlertId]) -> Vec<String> {
    ids.iter().map(|id| farol_alert::alertmanager::fingerprint(*id)).collect()
}

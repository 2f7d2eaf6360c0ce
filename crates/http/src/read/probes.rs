//! Health probes. They need no credentials and tell no more than a probe needs.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::control::LogReport;
use crate::openapi::ProbeProblems;
use crate::problem::{Kind, Problem};

/// Views that are further behind are not ready to be asked.
pub const READY_LAG_RECORDS: u64 = 100_000;

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a process that does not live does not answer.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// The program's version.
    pub version: String,
}

/// Whether the process lives.
#[utoipa::path(
    get,
    path = "/health",
    tag = "probes",
    responses((status = 200, description = "It lives", body = Health), ProbeProblems)
)]
pub async fn health(State(app): State<App>) -> Json<Health> {
    Json(Health { status: "ok", version: app.about().version.clone() })
}

/// Whether the process lives, for orchestrators that restart it if not.
#[utoipa::path(
    get,
    path = "/liveness",
    tag = "probes",
    responses((status = 200, description = "It lives", body = Health), ProbeProblems)
)]
pub async fn liveness(State(app): State<App>) -> Json<Health> {
    health(State(app)).await
}

/// Whether the process can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether every part is.
    pub ready: bool,
    /// The parts.
    pub checks: Vec<Check>,
}

/// Whether one part can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    /// Which part.
    #[schema(example = "log")]
    pub name: String,
    /// Whether it can.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Whether readings are taken and the views are up to date.
///
/// The answer 503 has the same `checks`.
#[utoipa::path(
    get,
    path = "/readiness",
    tag = "probes",
    responses((status = 200, description = "It is ready", body = Readiness), ProbeProblems)
)]
pub async fn readiness(State(app): State<App>) -> Response {
    let checks = checks(&app);
    let failed: Vec<&str> =
        checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
    if failed.is_empty() {
        return Json(Readiness { ready: true, checks }).into_response();
    }
    let detail = format!("not ready: {}", failed.join(", "));
    let checks = serde_json::to_value(&checks).expect("names and texts serialise");
    Problem::new(Kind::Unavailable, detail)
        .with_member("ready", false)
        .with_member("checks", checks)
        .into_response()
}

fn checks(app: &App) -> Vec<Check> {
    let report = app.control().log();
    let why = match report {
        LogReport { waiting_for_space: true, .. } => {
            Some("the disk is full: it takes appends again as soon as there is space")
        }
        LogReport { folder_not_writable: true, .. } => {
            Some("its folder can't be written: it takes appends again as soon as it can")
        }
        LogReport { poisoned: true, .. } => {
            Some("it refuses appends after a failed write; see the server's log")
        }
        _ => None,
    };
    let log = Check { name: "log".to_owned(), ok: why.is_none(), detail: why.map(str::to_owned) };
    let views = app.control().views().into_iter().map(|view| {
        let detail = if !view.ok {
            Some(view.error.unwrap_or_else(|| "it takes no records".to_owned()))
        } else if view.lag_records > READY_LAG_RECORDS {
            Some(format!("it is {} records behind", view.lag_records))
        } else {
            None
        };
        Check { name: format!("view {}", view.name), ok: detail.is_none(), detail }
    });
    std::iter::once(log).chain(views).collect()
}

//! The state of the whole: `GET /api/system-status`, `GET /api/real-time-metrics`, `GET /metrics`.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use farol_event::Timestamp;
use farol_view::query::alerts::AlertCounts;
use farol_view::query::sensors::SensorCounts;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::control::{LogReport, ViewReport, WorkerState};
use crate::metrics::METRICS_TEXT;
use crate::openapi::GetProblems;
use crate::problem::Problem;
use crate::process::{self, ProcessUsage};
use crate::rates::RealTimeMetrics;

/// A view further behind is worth a word.
const NOTABLE_LAG_RECORDS: u64 = 10_000;

/// Whether all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverallStatus {
    /// No problem is known.
    Ok,
    /// Something is wrong; see `problems`.
    Degraded,
}

/// The state of the whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct SystemStatus {
    /// Whether all is well.
    pub status: OverallStatus,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// The program's version.
    pub version: String,
    /// When this process started to serve.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// For how long it has, in seconds.
    #[schema(minimum = 0)]
    pub uptime_s: u64,
    /// Where data is kept.
    pub data_dir: String,
    /// Whether simulators feed it.
    pub demo: bool,
    /// How many sensors there are.
    pub sensors: SensorCounts,
    /// How many alerts there are.
    pub alerts: AlertCounts,
    /// What comes in.
    pub throughput: Throughput,
    /// The log.
    pub log: LogReport,
    /// How far the views have come.
    pub views: Vec<ViewReport>,
    /// What this process uses.
    pub process: ProcessUsage,
}

/// What comes in a second.
#[derive(Debug, Serialize, ToSchema)]
pub struct Throughput {
    /// Readings stored.
    #[schema(minimum = 0)]
    pub readings_per_s: f64,
    /// Readings refused.
    #[schema(minimum = 0)]
    pub rejected_per_s: f64,
}

/// Show the state of the whole.
#[utoipa::path(
    get,
    path = "/api/system-status",
    tag = "status",
    responses((status = 200, description = "The state", body = SystemStatus), GetProblems)
)]
pub async fn system_status(State(app): State<App>) -> Result<Json<SystemStatus>, Problem> {
    let now = app.now();
    let (sensors, alerts) =
        app.store().query(move |queries| Ok((queries.sensor_counts(now)?, queries.alert_counts()?))).await?;
    let log = app.control().log();
    let views = app.control().views();
    let problems = problems(&app, &log, &views);
    let (readings_per_s, rejected_per_s) = app.rates().per_second();
    let about = app.about();
    Ok(Json(SystemStatus {
        status: if problems.is_empty() { OverallStatus::Ok } else { OverallStatus::Degraded },
        problems,
        version: about.version.clone(),
        started_at: app.started_at(),
        uptime_s: app.started().elapsed().as_secs(),
        data_dir: about.data_dir.clone(),
        demo: about.demo,
        sensors,
        alerts,
        throughput: Throughput { readings_per_s, rejected_per_s },
        log,
        views,
        process: process::usage(),
    }))
}

fn problems(app: &App, log: &LogReport, views: &[ViewReport]) -> Vec<String> {
    let mut problems = Vec::new();
    if log.waiting_for_space {
        problems.push(
            "The disk is full: the log can be read, and takes new records again as soon as there is space."
                .to_owned(),
        );
    } else if log.poisoned {
        problems.push(
            "The log refuses new records after a failed write. Free space or repair the disk, then restart."
                .to_owned(),
        );
    }
    for view in views {
        if !view.ok {
            let why = view.error.as_deref().unwrap_or("it takes no records");
            problems.push(format!("View {} stands still: {why}.", view.name));
        } else if view.lag_records > NOTABLE_LAG_RECORDS {
            problems.push(format!("View {} is {} records behind.", view.name, view.lag_records));
        }
    }
    if let Some(problem) = app.control().rules().problem {
        problems
            .push(format!("The rules could not be loaded again; the older ones stay in force: {problem}"));
    }
    let workers = app.control().workers();
    if !workers.is_empty() && workers.iter().all(|worker| worker.state == WorkerState::Stopped) {
        problems.push(
            "Every worker of this process is stopped: readings are stored but not evaluated here.".to_owned(),
        );
    }
    problems
}

/// Show what happened in each of the last seconds.
#[utoipa::path(
    get,
    path = "/api/real-time-metrics",
    tag = "status",
    responses((status = 200, description = "The last five minutes", body = RealTimeMetrics), GetProblems)
)]
pub async fn real_time_metrics(State(app): State<App>) -> Json<RealTimeMetrics> {
    Json(app.rates().snapshot(app.now()))
}

/// Prometheus metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "status",
    responses(
        (status = 200, description = "OpenMetrics 1.0 text", body = String, content_type = "application/openmetrics-text"),
        GetProblems,
    )
)]
pub async fn metrics(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, METRICS_TEXT)], app.metrics().text()).into_response()
}

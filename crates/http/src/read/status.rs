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
use crate::metrics::{METRICS_TEXT, services};
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
    /// The same, each with a code and what its sentence is made of.
    pub conditions: Vec<CodedProblem>,
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

/// One thing that is wrong, to be told in any language.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodedProblem {
    /// What it is.
    #[serde(flatten)]
    pub condition: Condition,
    /// The English sentence.
    pub text: String,
}

/// What can be wrong with the whole.
#[derive(Debug, Serialize, ToSchema, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Condition {
    /// The disk is full.
    #[error("The disk is full: the log can be read, and takes new records again as soon as there is space.")]
    LogWaitsForSpace,
    /// No checkpoint can be written.
    #[error(
        "The log's folder can't be written: the log can be read, and takes new records again as soon as it can. See to the right to \
         write and to free inodes."
    )]
    LogFolderNotWritable,
    /// A write failed.
    #[error("The log refuses new records after a failed write. Free space or repair the disk, then restart.")]
    LogRefuses,
    /// The store refuses a view's records, or the log can't be read.
    #[error("View {view} stands still: {why}.")]
    ViewStandsStill {
        /// Which view.
        view: String,
        /// What the store or the log said.
        why: String,
    },
    /// A view is far behind.
    #[error("View {view} is {records} records behind.")]
    ViewBehind {
        /// Which view.
        view: String,
        /// How far.
        records: u64,
    },
    /// Rule files that don't load.
    #[error("The rules could not be loaded again; the older ones stay in force: {why}")]
    RulesRefused {
        /// Every problem with them.
        why: String,
    },
    /// Nobody evaluates readings.
    #[error("Every worker of this process is stopped: readings are stored but not evaluated here.")]
    WorkersStopped,
}

impl From<Condition> for CodedProblem {
    fn from(condition: Condition) -> Self {
        Self { text: condition.to_string(), condition }
    }
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
    let conditions: Vec<CodedProblem> =
        conditions(&app, &log, &views).into_iter().map(CodedProblem::from).collect();
    let (readings_per_s, rejected_per_s) = app.rates().per_second();
    let about = app.about();
    Ok(Json(SystemStatus {
        status: if conditions.is_empty() { OverallStatus::Ok } else { OverallStatus::Degraded },
        problems: conditions.iter().map(|problem| problem.text.clone()).collect(),
        conditions,
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

/// Everything that is wrong.
fn conditions(app: &App, log: &LogReport, views: &[ViewReport]) -> Vec<Condition> {
    let mut found = Vec::from_iter(of_log(log));
    for ViewReport { name, ok, error, lag_records, .. } in views {
        let (view, records) = (name.clone(), *lag_records);
        if !ok {
            let why = error.clone().unwrap_or_else(|| "it takes no records".to_owned());
            found.push(Condition::ViewStandsStill { view, why });
        } else if records > NOTABLE_LAG_RECORDS {
            found.push(Condition::ViewBehind { view, records });
        }
    }
    found.extend(app.control().rules().problem.map(|why| Condition::RulesRefused { why }));
    let workers = app.control().workers();
    if !workers.is_empty() && workers.iter().all(|worker| worker.state == WorkerState::Stopped) {
        found.push(Condition::WorkersStopped);
    }
    found
}

/// What keeps the log from taking records; if it goes on by itself, that.
fn of_log(log: &LogReport) -> Option<Condition> {
    match log {
        LogReport { waiting_for_space: true, .. } => Some(Condition::LogWaitsForSpace),
        LogReport { folder_not_writable: true, .. } => Some(Condition::LogFolderNotWritable),
        LogReport { poisoned: true, .. } => Some(Condition::LogRefuses),
        _ => None,
    }
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
    let watched = app.control().catalogue().list();
    let now = app.now();
    let names: Vec<String> = watched.iter().map(|(id, _)| id.to_string()).collect();
    let told = app.store().query(move |queries| queries.service_numbers(&names, now)).await.unwrap_or_else(
        |error| {
            tracing::warn!(%error, "this scrape says nothing of the state of services");
            Vec::new()
        },
    );
    let services = services::samples(&watched, &told);
    ([(CONTENT_TYPE, METRICS_TEXT)], app.metrics().text(services)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_log_that_does_not_go_on_by_itself_asks_for_a_restart() {
        let code = |log: LogReport| {
            let told = CodedProblem::from(of_log(&log).expect("it refuses records"));
            let json = serde_json::to_value(&told).expect("a condition serialises");
            (json["code"].as_str().expect("a code").to_owned(), told.text.contains("restart"))
        };
        let refuses = LogReport { poisoned: true, ..LogReport::default() };
        let full = LogReport { waiting_for_space: true, ..refuses.clone() };
        let folder = LogReport { folder_not_writable: true, ..refuses.clone() };
        assert_eq!(code(full), ("log_waits_for_space".to_owned(), false));
        assert_eq!(code(folder), ("log_folder_not_writable".to_owned(), false));
        assert_eq!(code(refuses), ("log_refuses".to_owned(), true));
        assert!(of_log(&LogReport::default()).is_none());
    }
}

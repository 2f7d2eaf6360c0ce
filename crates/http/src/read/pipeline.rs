//! The pipeline: consumers, producers, dead letters, workers.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use farol_view::query::pipeline::{ConsumerHealthList, ConsumerStatus, DeadLetterPage, ProducerHealthList};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::control::{WorkerRefusal, WorkerStatus};
use crate::extract::{Parameters, Path};
use crate::openapi::{CommandProblems, GetProblems};
use crate::problem::Problem;
use crate::read;
use crate::read::groups;
use crate::read::sensors::shortened;

/// List consumers and how they do.
///
/// What they own and how far they are behind is not what they reported but what it is now. Whoever is in its group is
/// active, whatever was heard of it: clients other than Farol's own don't report, and several may go by one name.
#[utoipa::path(
    get,
    path = "/api/consumer-health",
    tag = "pipeline",
    responses((status = 200, description = "The consumers", body = ConsumerHealthList), GetProblems)
)]
pub async fn consumer_health(State(app): State<App>) -> Result<Json<ConsumerHealthList>, Problem> {
    let now = app.now();
    let mut list = app.store().query(move |queries| queries.consumers(now)).await?;
    let groups = groups::all(&app).await?;
    for consumer in &mut list.consumers {
        let group = groups.iter().find(|group| group.group == consumer.group);
        (consumer.lag_records, consumer.lag_ms) =
            group.map_or((0, 0), |group| group.lag_of(&consumer.consumer_id));
        if let Some(owned) = group.and_then(|group| group.owned_by(&consumer.consumer_id)) {
            consumer.status = ConsumerStatus::Active;
            consumer.partitions = owned;
        }
    }
    Ok(Json(list))
}

/// List producers and how they do.
#[utoipa::path(
    get,
    path = "/api/producer-health",
    tag = "pipeline",
    responses((status = 200, description = "The producers", body = ProducerHealthList), GetProblems)
)]
pub async fn producer_health(State(app): State<App>) -> Result<Response, Problem> {
    let now = app.now();
    read::ask(&app, move |queries| queries.producers(now)).await
}

/// Which dead letters are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLettersQuery {
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// List records that could not be processed, newest first.
#[utoipa::path(
    get,
    path = "/api/dead-letters",
    tag = "pipeline",
    params(DeadLettersQuery),
    responses((status = 200, description = "A page of dead letters", body = DeadLetterPage), GetProblems)
)]
pub async fn dead_letters(
    State(app): State<App>,
    Parameters(query): Parameters<DeadLettersQuery>,
) -> Result<Response, Problem> {
    let cursor = read::cursor(query.cursor);
    read::ask(&app, move |queries| queries.dead_letters(query.limit, cursor.as_deref())).await
}

/// The workers of this process.
#[derive(Debug, Serialize, ToSchema)]
pub struct Workers {
    /// By name.
    pub workers: Vec<WorkerStatus>,
}

/// List the workers of this process.
#[utoipa::path(
    get,
    path = "/api/workers",
    tag = "pipeline",
    responses((status = 200, description = "The workers", body = Workers), GetProblems)
)]
pub async fn list_workers(State(app): State<App>) -> Json<Workers> {
    Json(Workers { workers: app.control().workers() })
}

/// Stop a worker and watch its partitions move.
#[utoipa::path(
    post,
    path = "/api/workers/{id}/stop",
    tag = "pipeline",
    params(("id" = String, Path, description = "The worker's name")),
    responses((status = 202, description = "It has been told", body = WorkerStatus), CommandProblems)
)]
pub async fn stop_worker(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<WorkerStatus>), Problem> {
    let done = app.control().stop_worker(&id).await;
    told(&app, &id, done)
}

/// Start a stopped worker again.
#[utoipa::path(
    post,
    path = "/api/workers/{id}/start",
    tag = "pipeline",
    params(("id" = String, Path, description = "The worker's name")),
    responses((status = 202, description = "It has been told", body = WorkerStatus), CommandProblems)
)]
pub async fn start_worker(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<WorkerStatus>), Problem> {
    let done = app.control().start_worker(&id).await;
    told(&app, &id, done)
}

fn told(
    app: &App,
    id: &str,
    done: Result<(), WorkerRefusal>,
) -> Result<(StatusCode, Json<WorkerStatus>), Problem> {
    match done {
        Ok(()) => {}
        Err(WorkerRefusal::Unknown(_)) => {
            return Err(Problem::not_found(format!(
                "there is no worker `{}` in this process",
                shortened(id)
            )));
        }
        Err(refusal @ WorkerRefusal::WrongState(_)) => return Err(Problem::conflict(refusal.to_string())),
        Err(refusal @ WorkerRefusal::Failed(_)) => {
            tracing::error!(error = %refusal, worker = id, "a worker could not be told");
            return Err(Problem::unavailable(refusal.to_string()));
        }
    }
    let status = app.control().workers().into_iter().find(|worker| worker.consumer_id == id);
    let status = status.ok_or_else(|| Problem::not_found("the worker is gone"))?;
    Ok((StatusCode::ACCEPTED, Json(status)))
}

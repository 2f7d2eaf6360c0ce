//! The pipeline: consumers, producers, who owns which partition, dead letters, workers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use farol_bus::{BusError, GroupDescription, OffsetSpec, TopicPartition};
use farol_view::query::pipeline::{ConsumerHealthList, DeadLetterPage, ProducerHealthList, Rebalance};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::control::{WorkerRefusal, WorkerStatus};
use crate::extract::{Parameters, Path};
use crate::openapi::{CommandProblems, GetProblems};
use crate::problem::Problem;
use crate::read;
use crate::read::sensors::shortened;

/// How many rebalances are shown, the newest.
pub const REBALANCES_SHOWN: usize = 50;

/// List consumers and how they do.
#[utoipa::path(
    get,
    path = "/api/consumer-health",
    tag = "pipeline",
    responses((status = 200, description = "The consumers", body = ConsumerHealthList), GetProblems)
)]
pub async fn consumer_health(State(app): State<App>) -> Result<Response, Problem> {
    let now = app.now();
    read::ask(&app, move |queries| queries.consumers(now)).await
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

/// Consumer groups, their partitions, and how they came to be shared out.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartitionAssignment {
    /// Every consumer group.
    pub groups: Vec<GroupAssignment>,
    /// The newest rebalances, newest first.
    #[schema(max_items = 50)]
    pub rebalances: Vec<Rebalance>,
}

/// One consumer group.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct GroupAssignment {
    /// Its name.
    pub group: String,
    /// Its generation.
    pub generation: i32,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    #[schema(example = "Stable")]
    pub state: String,
    /// Its members.
    pub members: Vec<MemberAssignment>,
    /// Its partitions: those that a member owns or for which an offset is committed.
    pub partitions: Vec<PartitionProgress>,
}

/// One member of a group.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct MemberAssignment {
    /// Its name.
    pub consumer_id: String,
    /// What it owns, as `topic/partition`.
    pub partitions: Vec<String>,
}

/// How far a group has come in one partition.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct PartitionProgress {
    /// The topic.
    pub topic: String,
    /// The partition.
    #[schema(minimum = 0)]
    pub partition: i32,
    /// Who owns it.
    pub owner: Option<String>,
    /// The committed offset: the next one to be processed.
    pub committed: Option<i64>,
    /// The end: the offset of the next record to be written.
    #[schema(minimum = 0)]
    pub end: i64,
    /// Records between the two (from the first one stored, if none is committed).
    #[schema(minimum = 0)]
    pub lag_records: i64,
    /// How old the oldest unprocessed record of the owner is, as it last reported. Absent if nobody has reported.
    #[schema(minimum = 0)]
    pub lag_ms: Option<u64>,
}

/// Show who owns which partition, and how far behind.
#[utoipa::path(
    get,
    path = "/api/partition-assignment",
    tag = "pipeline",
    responses((status = 200, description = "Groups and rebalances", body = PartitionAssignment), GetProblems)
)]
pub async fn partition_assignment(State(app): State<App>) -> Result<Json<PartitionAssignment>, Problem> {
    let now = app.now();
    let (consumers, rebalances) = app
        .store()
        .query(move |queries| Ok((queries.consumers(now)?.consumers, queries.rebalances(REBALANCES_SHOWN)?)))
        .await?;
    let reported: BTreeMap<(&str, &str), u64> =
        consumers.iter().map(|c| ((c.group.as_str(), c.consumer_id.as_str()), c.lag_ms)).collect();
    let mut groups = Vec::new();
    for group in app.bus().groups().await? {
        let mut assignment = assignment_of(&app, group).await?;
        for partition in &mut assignment.partitions {
            let owner = partition.owner.as_deref().unwrap_or_default();
            let reported = reported.get(&(assignment.group.as_str(), owner)).copied();
            partition.lag_ms = if partition.lag_records == 0 { Some(0) } else { reported };
        }
        groups.push(assignment);
    }
    Ok(Json(PartitionAssignment { groups, rebalances }))
}

async fn assignment_of(app: &App, group: GroupDescription) -> Result<GroupAssignment, BusError> {
    let committed = app.bus().committed(&group.group).await?;
    let mut owners: BTreeMap<TopicPartition, Option<String>> =
        committed.keys().map(|p| (p.clone(), None)).collect();
    for member in &group.members {
        for partition in &member.assignment {
            owners.insert(partition.clone(), Some(member.client_id.clone()));
        }
    }
    let all: Vec<TopicPartition> = owners.keys().cloned().collect();
    let ends = app.bus().offsets(&all, OffsetSpec::Latest).await?;
    let starts = app.bus().offsets(&all, OffsetSpec::Earliest).await?;
    let partitions = owners.into_iter().map(|(partition, owner)| {
        let end = ends.get(&partition).copied().unwrap_or(0);
        let committed = committed.get(&partition).copied();
        let from = committed.or_else(|| starts.get(&partition).copied()).unwrap_or(0);
        PartitionProgress {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            owner,
            committed,
            end,
            lag_records: end.saturating_sub(from).max(0),
            lag_ms: None,
        }
    });
    let members = group.members.iter().map(|member| MemberAssignment {
        consumer_id: member.client_id.clone(),
        partitions: member.assignment.iter().map(ToString::to_string).collect(),
    });
    Ok(GroupAssignment {
        members: members.collect(),
        partitions: partitions.collect(),
        group: group.group,
        generation: group.generation,
        state: group.state,
    })
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

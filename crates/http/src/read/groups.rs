//! Consumer groups: who is in them, who owns which partition, how far behind, and how that came about.
//!
//! Groups, members and offsets are asked of the bus, so they are those of now and of every client; the history of
//! rebalances comes from the view.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use farol_bus::{BusError, GroupDescription, OffsetSpec, TopicPartition};
use farol_event::Timestamp;
use farol_view::query::rebalances::{Rebalance, RebalanceFilter, RebalancePage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::extract::{Parameters, Path};
use crate::openapi::{GetProblems, ItemProblems};
use crate::problem::Problem;
use crate::read;
use crate::read::sensors::shortened;

/// How many rebalances `GET /api/partition-assignment` has, the newest.
pub const REBALANCES_SHOWN: usize = 50;
/// How many groups an answer has at most, the first by name.
pub const MAX_GROUPS: usize = 1000;

/// Consumer groups, their partitions, and how they came to be shared out.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartitionAssignment {
    /// The consumer groups, by name.
    #[schema(max_items = 1000)]
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
    /// Its generation; absent if the bus does not tell.
    pub generation: Option<i32>,
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
    /// The name that it gave itself (Kafka's client id). Several members may have the same.
    pub consumer_id: String,
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// Where it calls from; `in-process` for a worker of this process.
    #[schema(example = "/127.0.0.1")]
    pub host: String,
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
    /// Who owns it, by the name that it gave itself; nobody while it is paused.
    pub owner: Option<String>,
    /// The owner's id.
    pub owner_member_id: Option<String>,
    /// The committed offset: the next one to be processed.
    pub committed: Option<i64>,
    /// The end: the offset of the next record to be written.
    #[schema(minimum = 0)]
    pub end: i64,
    /// Records between the two (from the first one stored, if none is committed).
    #[schema(minimum = 0)]
    pub lag_records: i64,
    /// How old the oldest of those records is, by its own timestamp, in milliseconds: 0 if there is none, absent if it
    /// can't be read (yet).
    #[schema(minimum = 0)]
    pub lag_ms: Option<u64>,
}

/// Consumer groups in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupList {
    /// By name.
    #[schema(max_items = 1000)]
    pub groups: Vec<GroupSummary>,
    /// How many there are.
    #[schema(minimum = 0)]
    pub total: usize,
}

/// One consumer group in short.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct GroupSummary {
    /// Its name.
    pub group: String,
    /// Its generation; absent if the bus does not tell.
    pub generation: Option<i32>,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`.
    #[schema(example = "Stable")]
    pub state: String,
    /// How many members it has.
    #[schema(minimum = 0)]
    pub members: usize,
    /// How many partitions it reads or has read.
    #[schema(minimum = 0)]
    pub partitions: usize,
    /// Records that it has not committed, in all its partitions.
    #[schema(minimum = 0)]
    pub lag_records: i64,
    /// How old the oldest of them is, in milliseconds; absent if none of them can be read.
    #[schema(minimum = 0)]
    pub lag_ms: Option<u64>,
}

/// List consumer groups in short.
#[utoipa::path(
    get,
    path = "/api/groups",
    tag = "pipeline",
    responses((status = 200, description = "The groups", body = GroupList), GetProblems)
)]
pub async fn list_groups(State(app): State<App>) -> Result<Json<GroupList>, Problem> {
    let total = app.bus().groups().await?.len();
    let groups = all(&app).await?.iter().map(GroupAssignment::summary).collect();
    Ok(Json(GroupList { groups, total }))
}

/// Show one consumer group: members, partitions, committed offsets, lag.
#[utoipa::path(
    get,
    path = "/api/groups/{group}",
    tag = "pipeline",
    params(("group" = String, Path, description = "The group's name", example = "sensor-processors")),
    responses((status = 200, description = "The group", body = GroupAssignment), ItemProblems)
)]
pub async fn get_group(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<GroupAssignment>, Problem> {
    let found = app.bus().groups().await?.into_iter().find(|group| group.group == name);
    match found {
        Some(group) => Ok(Json(assignment_of(&app, group).await?)),
        None => Err(Problem::not_found(format!("there is no consumer group `{}`", shortened(&name)))),
    }
}

/// Show who owns which partition, and how far behind.
#[utoipa::path(
    get,
    path = "/api/partition-assignment",
    tag = "pipeline",
    responses((status = 200, description = "Groups and rebalances", body = PartitionAssignment), GetProblems)
)]
pub async fn partition_assignment(State(app): State<App>) -> Result<Json<PartitionAssignment>, Problem> {
    let rebalances = app.store().query(|queries| queries.newest_rebalances(REBALANCES_SHOWN)).await?;
    Ok(Json(PartitionAssignment { groups: all(&app).await?, rebalances }))
}

/// Which rebalances are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RebalancesQuery {
    /// Of exactly this group.
    #[param(example = "sensor-processors")]
    group: Option<String>,
    /// Completed at or after this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Completed at or before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// List rebalances, newest first: cause, cost, who owned what before and after.
#[utoipa::path(
    get,
    path = "/api/rebalances",
    tag = "pipeline",
    params(RebalancesQuery),
    responses((status = 200, description = "A page of rebalances", body = RebalancePage), GetProblems)
)]
pub async fn list_rebalances(
    State(app): State<App>,
    Parameters(query): Parameters<RebalancesQuery>,
) -> Result<Response, Problem> {
    let filter = RebalanceFilter {
        group: query.group,
        from: query.from,
        to: query.to,
        limit: query.limit,
        cursor: read::cursor(query.cursor),
    };
    read::ask(&app, move |queries| queries.rebalances(&filter)).await
}

/// The groups, at most [`MAX_GROUPS`].
pub(crate) async fn all(app: &App) -> Result<Vec<GroupAssignment>, Problem> {
    let mut groups = Vec::new();
    for group in app.bus().groups().await?.into_iter().take(MAX_GROUPS) {
        groups.push(assignment_of(app, group).await?);
    }
    Ok(groups)
}

async fn assignment_of(app: &App, group: GroupDescription) -> Result<GroupAssignment, BusError> {
    let committed = app.bus().committed(&group.group).await?;
    let mut owners: BTreeMap<TopicPartition, Option<&farol_bus::GroupMember>> =
        committed.keys().map(|p| (p.clone(), None)).collect();
    for member in &group.members {
        for partition in &member.assignment {
            owners.insert(partition.clone(), Some(member));
        }
    }
    let all: Vec<TopicPartition> = owners.keys().cloned().collect();
    let ends = app.bus().known_offsets(&all, OffsetSpec::Latest).await?;
    let starts = app.bus().known_offsets(&all, OffsetSpec::Earliest).await?;
    let mut partitions = Vec::new();
    let mut unread = Vec::new();
    for (partition, owner) in owners {
        // Nobody can be behind in a partition that was deleted; who is assigned it is listed with the members.
        let Some(end) = ends.get(&partition).copied() else { continue };
        let start = starts.get(&partition).copied().unwrap_or(0);
        let committed = committed.get(&partition).copied();
        // What retention has deleted can't be read any more, and so isn't waited for.
        let from = committed.map_or(start, |offset| offset.max(start));
        let lag_records = end.saturating_sub(from).max(0);
        if lag_records > 0 {
            unread.push((partition.clone(), from));
        }
        partitions.push((
            PartitionProgress {
                topic: partition.topic.to_string(),
                partition: partition.partition,
                owner: owner.map(|member| member.client_id.clone()),
                owner_member_id: owner.map(|member| member.member_id.clone()),
                committed,
                end,
                lag_records,
                lag_ms: (lag_records == 0).then_some(0),
            },
            partition,
        ));
    }
    let oldest = app.unread().oldest(app.bus().as_ref(), &unread).await;
    let now = app.now();
    let partitions = partitions.into_iter().map(|(progress, partition)| PartitionProgress {
        lag_ms: progress.lag_ms.or_else(|| oldest.get(&partition).map(|at| millis(now, *at))),
        ..progress
    });
    let members = group.members.iter().map(|member| MemberAssignment {
        consumer_id: member.client_id.clone(),
        member_id: member.member_id.clone(),
        host: member.host.clone(),
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

fn millis(now: Timestamp, at: Timestamp) -> u64 {
    u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)
}

impl GroupAssignment {
    fn summary(&self) -> GroupSummary {
        let lags = self.partitions.iter().filter_map(|partition| partition.lag_ms);
        GroupSummary {
            group: self.group.clone(),
            generation: self.generation,
            state: self.state.clone(),
            members: self.members.len(),
            partitions: self.partitions.len(),
            lag_records: self.partitions.iter().map(|partition| partition.lag_records).sum(),
            lag_ms: if self.partitions.is_empty() { Some(0) } else { lags.max() },
        }
    }

    /// What the members of that name own; nothing if there is none.
    pub(crate) fn owned_by(&self, consumer_id: &str) -> Option<Vec<String>> {
        let mut members = self.members.iter().filter(|member| member.consumer_id == consumer_id).peekable();
        members.peek()?;
        Some(members.flat_map(|member| member.partitions.iter().cloned()).collect())
    }

    /// How far the partitions of one consumer are behind: records in all, and the age of the oldest in milliseconds.
    pub(crate) fn lag_of(&self, consumer_id: &str) -> (u64, u64) {
        let owned =
            self.partitions.iter().filter(|partition| partition.owner.as_deref() == Some(consumer_id));
        owned.fold((0, 0), |(records, oldest), partition| {
            let lag = u64::try_from(partition.lag_records).unwrap_or(0);
            (records + lag, oldest.max(partition.lag_ms.unwrap_or(0)))
        })
    }
}

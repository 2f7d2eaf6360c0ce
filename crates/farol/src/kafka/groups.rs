//! `farol groups`.
//!
//! Lag in records is the distance from what a group has committed to the end of the partition; lag in time is the age of the
//! record that it would read next, so it is looked up in the log. Names are others', so a terminal obeys none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use farol_bus::kafka::KafkaBus;
use farol_bus::{
    Bus as _, BusError, ConsumerSettings, GroupDescription, OffsetSpec, Polled, StartAt, TopicDescription,
    TopicPartition,
};
use farol_event::Timestamp;
use futures_util::future::try_join_all;
use serde_json::json;

use super::{NOTHING_DELETED, confirm, connect, extents, partitions_of, topic_to_change};
use crate::cli::{self, kafka::GroupsCommand};
use crate::client::unless_interrupted;
use crate::settings::Settings;
use crate::terminal::{harmless, harmless_json, say, table};

/// How long the look for the oldest unread records may take; where it finds none, the age isn't shown.
const AGE_LIMIT: Duration = Duration::from_secs(3);

/// How many groups are asked at the same time.
const GROUPS_AT_ONCE: usize = 8;

/// Runs the command.
pub fn run(arguments: cli::Groups, settings: &Settings) -> anyhow::Result<ExitCode> {
    let json = arguments.form.json;
    unless_interrupted(async move {
        let bus = connect(settings, "farol-groups").await?;
        match arguments.command.unwrap_or(GroupsCommand::List) {
            GroupsCommand::List => list(&bus, json).await?,
            GroupsCommand::Describe { name } => describe(&bus, &name, json).await?,
            GroupsCommand::Reset { name, topic, to, sure } => {
                let topic = topic_to_change(&bus, &topic).await?;
                if let Some(group) = named(&bus, &name).await? {
                    without_members(&group)?;
                }
                let what = format!("have group {name} go on from another place in {}", topic.name);
                if !confirm(&what, "nothing was changed", &sure).await? {
                    return Ok(ExitCode::FAILURE);
                }
                reset(&bus, &name, &topic, to, json).await?;
            }
            GroupsCommand::Delete { name, sure } => {
                without_members(&find(&bus, &name).await?)?;
                let what = format!("delete group {name} and what it has committed");
                if !confirm(&what, NOTHING_DELETED, &sure).await? {
                    return Ok(ExitCode::FAILURE);
                }
                bus.delete_group(&name).await?;
                if json { say(json!({ "deleted": name })) } else { say(format_args!("deleted {name}")) }
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// How far a group is in one partition.
struct Progress {
    owner: Option<String>,
    committed: Option<i64>,
    end: i64,
    lag: i64,
    /// Where it would go on reading.
    next: i64,
}

/// In every partition of the topics that it reads or has read: where nothing is committed, all of it is to be read.
async fn progress(
    bus: &KafkaBus,
    topics: &[TopicDescription],
    group: &GroupDescription,
) -> anyhow::Result<BTreeMap<TopicPartition, Progress>> {
    let committed = bus.committed(&group.group).await?;
    let assigned = group.members.iter().flat_map(|member| &member.assignment);
    let read: BTreeSet<&str> = committed.keys().chain(assigned).map(|partition| &*partition.topic).collect();
    let mut owners: BTreeMap<TopicPartition, Option<String>> = topics
        .iter()
        .filter(|topic| read.contains(&*topic.name))
        .flat_map(|topic| partitions_of(&topic.name, topic.partitions))
        .map(|partition| (partition, None))
        .collect();
    for member in &group.members {
        owners.extend(member.assignment.iter().map(|p| (p.clone(), Some(member.client_id.clone()))));
    }
    let all: Vec<_> = owners.keys().cloned().collect();
    let extents = extents(bus, &all).await?;
    let progress = |(partition, owner): (TopicPartition, Option<String>)| {
        // A partition that was deleted has no end, and nobody can be behind in it.
        let (first, end) = extents.get(&partition).copied()?;
        let committed = committed.get(&partition).copied();
        // What retention has deleted can't be read any more, and so isn't waited for.
        let next = committed.map_or(first, |offset| offset.max(first));
        Some((partition, Progress { owner, committed, end, lag: (end - next).max(0), next }))
    };
    Ok(owners.into_iter().filter_map(progress).collect())
}

async fn list(bus: &KafkaBus, json: bool) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut listed = Vec::new();
    let (groups, topics) = (bus.groups().await?, bus.topics().await?);
    let mut all = Vec::with_capacity(groups.len());
    for part in groups.chunks(GROUPS_AT_ONCE) {
        all.extend(try_join_all(part.iter().map(|group| progress(bus, &topics, group))).await?);
    }
    for (group, progress) in groups.iter().zip(all) {
        let lag: i64 = progress.values().map(|progress| progress.lag).sum();
        rows.push([
            harmless(&group.group),
            harmless(&group.state),
            group.members.len().to_string(),
            progress.len().to_string(),
            lag.to_string(),
        ]);
        listed.push(json!({
            "group": group.group, "state": group.state, "members": group.members.len(), "partitions": progress.len(),
            "lag_records": lag,
        }));
    }
    if json {
        say(harmless_json(&serde_json::to_string_pretty(&listed)?));
    } else {
        table(["GROUP", "STATE", "MEMBERS", "PARTITIONS", "LAG"], rows);
    }
    Ok(())
}

async fn describe(bus: &KafkaBus, name: &str, json: bool) -> anyhow::Result<()> {
    let group = find(bus, name).await?;
    let progress = progress(bus, &bus.topics().await?, &group).await?;
    let unread: Vec<_> = progress
        .iter()
        .filter(|(_, progress)| progress.lag > 0)
        .map(|(partition, progress)| (partition.clone(), StartAt::Offset(progress.next)))
        .collect();
    let oldest = oldest(bus, unread).await?;
    let now = Timestamp::from_system_time(SystemTime::now());
    let age = |partition: &TopicPartition, progress: &Progress| {
        if progress.lag == 0 {
            return Some(0.0);
        }
        oldest.get(partition).map(|at| (now.since(*at).as_secs_f64() * 10.0).round() / 10.0)
    };
    if json {
        let members: Vec<_> = group
            .members
            .iter()
            .map(|member| {
                json!({
                    "member_id": member.member_id, "client_id": member.client_id,
                    "partitions": member.assignment.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        let partitions: Vec<_> = progress
            .iter()
            .map(|(partition, progress)| {
                json!({
                    "topic": &*partition.topic, "partition": partition.partition, "owner": progress.owner,
                    "committed": progress.committed, "end": progress.end, "lag_records": progress.lag,
                    "lag_seconds": age(partition, progress),
                })
            })
            .collect();
        let described = json!({
            "group": group.group, "state": group.state, "members": members, "partitions": partitions,
        });
        say(harmless_json(&serde_json::to_string_pretty(&described)?));
        return Ok(());
    }
    let (name, state) = (harmless(&group.group), harmless(&group.state));
    let members = match group.members.len() {
        1 => "1 member".to_owned(),
        count => format!("{count} members"),
    };
    say(format_args!("{name}: {state}, {members}"));
    let rows = progress.iter().map(|(partition, progress)| {
        [
            partition.to_string(),
            progress.owner.as_deref().map_or_else(|| "nobody".to_owned(), harmless),
            progress.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            progress.end.to_string(),
            progress.lag.to_string(),
            age(partition, progress).map_or_else(|| "?".to_owned(), |age| format!("{age:.1}")),
        ]
    });
    table(["PARTITION", "OWNER", "COMMITTED", "END", "LAG", "LAG IN SECONDS"], rows);
    for member in group.members.iter().filter(|member| member.assignment.is_empty()) {
        say(format_args!("{} owns no partition", harmless(&member.client_id)));
    }
    Ok(())
}

async fn find(bus: &KafkaBus, name: &str) -> anyhow::Result<GroupDescription> {
    let found = named(bus, name).await?;
    found.with_context(|| format!("there is no group `{name}`; `farol groups` lists them"))
}

async fn named(bus: &KafkaBus, name: &str) -> Result<Option<GroupDescription>, BusError> {
    Ok(bus.groups().await?.into_iter().find(|group| group.group == name))
}

fn without_members(group: &GroupDescription) -> anyhow::Result<()> {
    let members = group.members.len();
    anyhow::ensure!(
        members == 0,
        "group {} has members ({members}); stop them first",
        harmless(&group.group)
    );
    Ok(())
}

/// When the record at each place came.
async fn oldest(
    bus: &KafkaBus,
    unread: Vec<(TopicPartition, StartAt)>,
) -> Result<BTreeMap<TopicPartition, Timestamp>, BusError> {
    let mut found = BTreeMap::new();
    if unread.is_empty() {
        return Ok(found);
    }
    let wanted = unread.len();
    let settings = ConsumerSettings { max_bytes: 64 * 1024, ..ConsumerSettings::standalone("farol-groups") };
    let mut consumer = bus.consumer(settings).await?;
    consumer.assign(unread).await?;
    let deadline = Instant::now() + AGE_LIMIT;
    while found.len() < wanted && Instant::now() < deadline {
        if let Polled::Records(batches) = consumer.poll(Duration::from_millis(200)).await? {
            for batch in batches {
                if let Some(first) = batch.records.first() {
                    found.entry(batch.partition).or_insert_with(|| first.timestamp());
                }
            }
        }
    }
    consumer.close().await?;
    Ok(found)
}

async fn reset(
    bus: &KafkaBus,
    name: &str,
    topic: &TopicDescription,
    to: OffsetSpec,
    json: bool,
) -> anyhow::Result<()> {
    let offsets = bus.offsets(&partitions_of(&topic.name, topic.partitions), to).await?;
    bus.reset_group(name, &offsets).await?;
    if json {
        let offsets: BTreeMap<_, _> = offsets.iter().map(|(p, offset)| (p.to_string(), offset)).collect();
        say(json!({ "group": name, "offsets": offsets }));
    } else {
        offsets.iter().for_each(|(partition, offset)| say(format_args!("{partition} from {offset}")));
    }
    Ok(())
}

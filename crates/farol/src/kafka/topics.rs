//! `farol topics`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use farol_bus::kafka::KafkaBus;
use farol_bus::{Bus as _, TopicDescription, TopicPartition, TopicSpec};
use serde_json::{Value, json};

use super::{NOTHING_DELETED, confirm, connect, extents, partitions_of, topic, topic_to_change};
use crate::cli::{self, kafka::TopicsCommand};
use crate::client::unless_interrupted;
use crate::settings::Settings;
use crate::terminal::{harmless_json, say, table};

/// Runs the command.
pub fn run(arguments: cli::Topics, settings: &Settings) -> anyhow::Result<ExitCode> {
    let json = arguments.form.json;
    unless_interrupted(async move {
        let bus = connect(settings, "farol-topics").await?;
        match arguments.command.unwrap_or(TopicsCommand::List) {
            TopicsCommand::List => list(&bus, json).await?,
            TopicsCommand::Describe { name } => describe(&bus, &name, json).await?,
            TopicsCommand::Create { name, partitions, topic_config } => {
                let config = topic_config.into_iter().collect();
                bus.create_topic(TopicSpec { name: name.clone(), partitions, config }).await?;
                done(json, &json!({ "created": name, "partitions": partitions }), &format!("created {name}"));
            }
            TopicsCommand::Delete { name, sure } => {
                topic_to_change(&bus, &name).await?;
                let what = format!("delete topic {name} with everything in it");
                if !confirm(&what, NOTHING_DELETED, &sure).await? {
                    return Ok(ExitCode::FAILURE);
                }
                bus.delete_topic(&name).await?;
                done(json, &json!({ "deleted": name }), &format!("deleted {name}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn done(json: bool, value: &Value, sentence: &str) {
    if json { say(value) } else { say(sentence) }
}

async fn list(bus: &KafkaBus, json: bool) -> anyhow::Result<()> {
    let topics = bus.topics().await?;
    let all: Vec<_> = topics.iter().flat_map(|topic| partitions_of(&topic.name, topic.partitions)).collect();
    let extents = written_extents(bus, &all).await?;
    let records = |topic: &TopicDescription| -> i64 {
        let of_topic = extents.iter().filter(|(partition, _)| partition.topic == topic.name);
        of_topic.map(|(_, extent)| extent.end - extent.first).sum()
    };
    if json {
        let listed = |topic: &TopicDescription| {
            json!({
                "topic": &*topic.name, "partitions": topic.partitions, "offsets": records(topic), "config": topic.config,
            })
        };
        say(harmless_json(&serde_json::to_string_pretty(&topics.iter().map(listed).collect::<Vec<_>>())?));
        return Ok(());
    }
    let row = |topic: &TopicDescription| {
        [topic.name.to_string(), topic.partitions.to_string(), records(topic).to_string(), config(topic)]
    };
    table(["TOPIC", "PARTITIONS", "OFFSETS", "CONFIGURATION"], topics.iter().map(row));
    Ok(())
}

async fn describe(bus: &KafkaBus, name: &str, json: bool) -> anyhow::Result<()> {
    let topic = topic(bus, name).await?;
    let extents = written_extents(bus, &partitions_of(&topic.name, topic.partitions)).await?;
    if json {
        let partitions: Vec<_> = extents
            .iter()
            .map(|(partition, Extent { first, stable, end })| {
                json!({ "partition": partition.partition, "first": first, "end": end, "stable": stable })
            })
            .collect();
        let described = json!({ "topic": name, "partitions": partitions, "config": topic.config });
        say(harmless_json(&serde_json::to_string_pretty(&described)?));
        return Ok(());
    }
    let rows = extents.iter().map(|(partition, Extent { first, end, .. })| {
        [partition.partition.to_string(), first.to_string(), end.to_string(), (end - first).to_string()]
    });
    table(["PARTITION", "FIRST", "END", "OFFSETS"], rows);
    for (partition, Extent { stable, .. }) in extents.iter().filter(|(_, extent)| extent.stable < extent.end)
    {
        say(format_args!(
            "{partition} is stable up to {stable}: a transaction is open there, and readers of committed records wait for its end"
        ));
    }
    for (key, value) in &topic.config {
        say(format_args!("{key}={value}"));
    }
    Ok(())
}

/// What a partition holds.
struct Extent {
    /// The first record that is still stored.
    first: i64,
    /// Where the first open transaction begins, or the end.
    stable: i64,
    /// The end, with what open transactions wrote.
    end: i64,
}

async fn written_extents(
    bus: &KafkaBus,
    partitions: &[TopicPartition],
) -> anyhow::Result<BTreeMap<TopicPartition, Extent>> {
    let stable = extents(bus, partitions).await?;
    let known: Vec<_> = stable.keys().cloned().collect();
    let ends = bus.written_ends(&known).await?;
    let extent = |(partition, (first, stable)): (TopicPartition, (i64, i64))| {
        let end = ends.get(&partition).copied().unwrap_or(stable).max(stable);
        (partition, Extent { first, stable, end })
    };
    Ok(stable.into_iter().map(extent).collect())
}

fn config(topic: &TopicDescription) -> String {
    topic.config.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

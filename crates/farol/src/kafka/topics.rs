//! `farol topics`.

use std::process::ExitCode;

use farol_bus::kafka::KafkaBus;
use farol_bus::{Bus as _, TopicDescription, TopicSpec};
use serde_json::{Value, json};

use super::{confirm, connect, extents, partitions_of, topic};
use crate::cli::{self, kafka::TopicsCommand};
use crate::client::until_interrupted;
use crate::settings::Settings;
use crate::terminal::{columns, say};

/// Runs the command.
pub fn run(arguments: cli::Topics, settings: &Settings) -> anyhow::Result<ExitCode> {
    let json = arguments.form.json;
    until_interrupted(|_| async move {
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
                if !confirm(&format!("delete topic {name} with everything in it"), &sure)? {
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
    let extents = extents(bus, &all).await?;
    let records = |topic: &TopicDescription| -> i64 {
        let of_topic = extents.iter().filter(|(partition, _)| partition.topic == topic.name);
        of_topic.map(|(_, (first, end))| end - first).sum()
    };
    if json {
        let listed = |topic: &TopicDescription| {
            json!({
                "topic": &*topic.name, "partitions": topic.partitions, "offsets": records(topic), "config": topic.config,
            })
        };
        say(serde_json::to_string_pretty(&topics.iter().map(listed).collect::<Vec<_>>())?);
        return Ok(());
    }
    let mut rows = vec![["TOPIC", "PARTITIONS", "OFFSETS", "CONFIGURATION"].map(str::to_owned)];
    rows.extend(topics.iter().map(|topic| {
        [topic.name.to_string(), topic.partitions.to_string(), records(topic).to_string(), config(topic)]
    }));
    columns(&rows).into_iter().for_each(say);
    Ok(())
}

async fn describe(bus: &KafkaBus, name: &str, json: bool) -> anyhow::Result<()> {
    let topic = topic(bus, name).await?;
    let extents = extents(bus, &partitions_of(&topic.name, topic.partitions)).await?;
    if json {
        let partitions: Vec<_> = extents
            .iter()
            .map(|(partition, (first, end))| json!({ "partition": partition.partition, "first": first, "end": end }))
            .collect();
        let described = json!({ "topic": name, "partitions": partitions, "config": topic.config });
        say(serde_json::to_string_pretty(&described)?);
        return Ok(());
    }
    let mut rows = vec![["PARTITION", "FIRST", "END", "OFFSETS"].map(str::to_owned)];
    rows.extend(extents.iter().map(|(partition, (first, end))| {
        [partition.partition.to_string(), first.to_string(), end.to_string(), (end - first).to_string()]
    }));
    columns(&rows).into_iter().for_each(say);
    for (key, value) in &topic.config {
        say(format_args!("{key}={value}"));
    }
    Ok(())
}

fn config(topic: &TopicDescription) -> String {
    topic.config.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

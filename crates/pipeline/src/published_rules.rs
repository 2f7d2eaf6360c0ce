//! The rules in force on the bus, so that workers in other processes evaluate the same ones.
//!
//! Whoever has the rule files publishes all rules together as one record of the compacted topic [`RULES`], key `rules`, whenever
//! they change and at each start. The value is JSON:
//!
//! ```json
//! {"version": 1, "loaded_at": "2026-11-24T16:00:00Z", "rules": [{"name": "hot", "select": "{}", "above": 40, …}]}
//! ```
//!
//! `rules` are definitions as the API shows them. A record of a higher version or with rules that don't hold together is logged
//! and leaves the rules in force that were.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{
    Bus, BusError, ConsumedRecord, Consumer, ConsumerSettings, OffsetSpec, Polled, Producer, ProducerRecord,
    StartAt, TopicPartition,
};
use farol_detect::{RuleDefinition, RuleSet};
use farol_event::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::rules::{RulesHandle, RulesInForce};
use crate::topics::RULES;

const VERSION: u32 = 1;
const KEY: &[u8] = b"rules";
/// How long to wait before rules that could not be published are tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long one poll for rules waits.
const FOLLOW_POLL: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct ToPublish<'a> {
    version: u32,
    loaded_at: Timestamp,
    rules: Vec<&'a RuleDefinition>,
}

#[derive(Deserialize)]
struct Published {
    rules: Vec<RuleDefinition>,
}

#[derive(Deserialize)]
struct Envelope {
    version: u32,
}

/// Publishes the rules in force, and every version after them, until told to stop.
pub(crate) async fn publish_rules(
    producer: Arc<dyn Producer>,
    rules: Arc<RulesHandle>,
    stop: CancellationToken,
) {
    let mut versions = rules.versions();
    loop {
        versions.mark_unchanged();
        let published = publish(producer.as_ref(), &rules.current()).await;
        let failed = match published {
            Ok(()) => false,
            Err(BusError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "the rules were not published; workers in other processes keep older ones");
                // Too many of them are too many until there are others.
                !matches!(error, BusError::TooLarge { .. } | BusError::InvalidState(_))
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = versions.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_PAUSE), if failed => {}
        }
    }
}

async fn publish(producer: &dyn Producer, rules: &RulesInForce) -> Result<(), BusError> {
    let definitions = rules.rules.rules().iter().map(|rule| rule.definition()).collect();
    let value = ToPublish { version: VERSION, loaded_at: rules.loaded_at, rules: definitions };
    let value = serde_json::to_vec(&value)
        .map_err(|error| BusError::InvalidState(format!("the rules can't be written: {error}")))?;
    let record = ProducerRecord::new(Bytes::from_static(KEY), value, crate::system_events::now());
    producer.send(RULES, vec![record]).await.map(drop)
}

/// Reads published rules.
pub struct RulesFollower {
    consumer: Box<dyn Consumer>,
    partition: TopicPartition,
    /// Where the topic ended when it was opened: what comes before the last rules there was in force once, and isn't any more.
    end: i64,
    /// The newest rules that were read and not given.
    newest: Option<RuleSet>,
}

impl RulesFollower {
    /// From the newest that were published on.
    ///
    /// # Errors
    /// [`BusError::UnknownTopicOrPartition`] where nobody publishes any, or that the bus can't be read.
    pub async fn open(bus: &dyn Bus, client_id: &str) -> Result<Self, BusError> {
        let partition = TopicPartition::new(RULES, 0);
        let ends = bus.offsets(std::slice::from_ref(&partition), OffsetSpec::Latest).await?;
        let end = ends.get(&partition).copied().unwrap_or(0);
        let mut consumer = bus.consumer(ConsumerSettings::standalone(client_id)).await?;
        consumer.assign(vec![(partition.clone(), StartAt::Earliest)]).await?;
        Ok(Self { consumer, partition, end, newest: None })
    }

    /// Waits for rules that were published since the last call, and gives the newest. Cancel-safe.
    ///
    /// # Errors
    /// When the bus can't be read.
    pub async fn next(&mut self) -> Result<RuleSet, BusError> {
        loop {
            let Polled::Records(batches) = self.consumer.poll(FOLLOW_POLL).await? else { continue };
            let newest = batches.iter().flat_map(|batch| &batch.records).rev().find_map(parse);
            self.newest = newest.or(self.newest.take());
            let is_current = self.consumer.position(&self.partition).is_some_and(|next| next >= self.end);
            if is_current && let Some(rules) = self.newest.take() {
                return Ok(rules);
            }
        }
    }
}

fn parse(record: &ConsumedRecord) -> Option<RuleSet> {
    if record.key.as_deref() != Some(KEY) {
        return None;
    }
    read(record.value.as_deref()?)
        .inspect_err(|problem| {
            tracing::error!(
                offset = record.offset,
                problem,
                "published rules can't be used; the ones before stay in force"
            );
        })
        .ok()
}

fn read(value: &[u8]) -> Result<RuleSet, String> {
    let Envelope { version } = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if version > VERSION {
        return Err(format!("they were written by a newer Farol (version {version})"));
    }
    let published: Published = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    RuleSet::from_definitions(published.rules).map_err(|problems| problems.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rules::RuleSources;

    #[test]
    fn published_rules_are_the_same_rules() {
        let handle = RulesHandle::load(
            RuleSources { defaults: true, files: Vec::new() },
            Timestamp::from_millis_clamped(0),
        )
        .unwrap();
        let current = handle.current();
        let rules = current.rules.rules().iter().map(|rule| rule.definition()).collect();
        let json =
            serde_json::to_vec(&ToPublish { version: 1, loaded_at: current.loaded_at, rules }).unwrap();
        let read = read(&json).unwrap();
        assert!(!read.is_empty());
        assert!(!handle.replace(read, current.loaded_at), "another fingerprint");
        assert_eq!(handle.current().version, 1);
    }

    #[test]
    fn what_is_newer_or_broken_is_refused_with_the_reason() {
        assert!(read(b"{\"version\":2,\"rules\":3}").unwrap_err().contains("newer"));
        assert!(read(b"not json").is_err());
        let twice = br#"{"version":1,"rules":[{"name":"a","select":"{}","above":1},{"name":"a","select":"{}","above":2}]}"#;
        assert!(read(twice).unwrap_err().contains('a'));
    }
}

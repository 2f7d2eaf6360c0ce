//! Rebalances of consumer groups, published as system events: who joined, who left and why, what moved, what it cost; as often as
//! `pace` allows.

mod pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farol_bus::{LeaveReason, RebalanceCause, RebalanceRecord, TopicPartition};
use farol_event::{Event, EventType};
use farol_view::query::rebalances::{ChangeKind, DepartureReason, MemberChange, Rebalance, RebalanceCost};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::system_events::{Recording, SystemEvents, now};
use pace::{Pace, Told, Verdict};

/// How often it is looked whether something that was held may be told.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the names of partitions in one list: about a thousand ordinary ones. What is beyond is counted, not listed. A group
/// decides how much there is to say and how often, and must not fill the disk with it.
const MAX_LISTED_BYTES: usize = 16 * 1024;

/// The `data` of `consumidor_entrou` and `consumidor_saiu`: who, and what its coming or going cost.
#[derive(Serialize)]
struct Membership<'a> {
    group: &'a str,
    generation: i32,
    member_id: &'a str,
    /// Only of a departure.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<DepartureReason>,
    /// What it got, or what it had.
    partitions: Vec<String>,
    /// Of the rebalance that it set off, perhaps together with others.
    cost: RebalanceCost,
}

/// Rebalances that were not told one by one.
#[derive(Debug, Default)]
pub struct RebalanceCounts {
    merged: AtomicU64,
    untold: AtomicU64,
}

impl RebalanceCounts {
    /// Told together with later ones of their group, because the group rebalances too often.
    pub fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    /// Not told at all, because too many groups rebalance too often.
    pub fn untold(&self) -> u64 {
        self.untold.load(Ordering::Relaxed)
    }
}

/// Publishes rebalances until told to stop, as often as `pace` allows, and whatever was still waiting then.
pub(crate) async fn publish_rebalances(
    mut rebalances: tokio::sync::broadcast::Receiver<RebalanceRecord>,
    events: SystemEvents,
    counts: Arc<RebalanceCounts>,
    stop: CancellationToken,
) {
    let recording = Recording::of("rebalances");
    let mut pace = Pace::default();
    let mut next_look = Instant::now();
    let untold = |missed| {
        counts.untold.fetch_add(missed, Ordering::Relaxed);
        tracing::warn!(missed, "rebalances came faster than they could be recorded");
    };
    loop {
        let received = tokio::select! {
            biased;
            received = rebalances.recv() => Some(received),
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(next_look), if pace.holds() => None,
        };
        match received {
            Some(Ok(record)) => match pace.offer(told(&record), Instant::now()) {
                Verdict::Tell(told) => publish(&events, &recording, *told).await,
                Verdict::Held => {}
                Verdict::Untold => untold(1),
            },
            Some(Err(RecvError::Lagged(missed))) => untold(missed),
            Some(Err(RecvError::Closed)) => break,
            None => {}
        }
        if Instant::now() >= next_look {
            next_look = Instant::now() + LOOK_INTERVAL;
            for told in pace.due(Instant::now()) {
                counts.merged.fetch_add(told.rebalances - 1, Ordering::Relaxed);
                publish(&events, &recording, told).await;
            }
        }
    }
    for told in pace.rest() {
        counts.merged.fetch_add(told.rebalances - 1, Ordering::Relaxed);
        publish(&events, &recording, told).await;
    }
}

/// Publishes it and the members that came and went, at once. A refusal is logged: what the events tell of has happened all the same.
async fn publish(events: &SystemEvents, recording: &Recording, told: Told) {
    let rebalance = told.in_words();
    let at = now();
    let mut all = Vec::with_capacity(rebalance.changes.len() + 1);
    let mut left = MAX_LISTED_BYTES;
    for change in &rebalance.changes {
        let MemberChange { change, consumer_id: Some(client_id), member_id: Some(member_id), reason } =
            change
        else {
            continue;
        };
        let (kind, owned) = match change {
            ChangeKind::Joined => (EventType::CONSUMER_JOINED, &rebalance.after),
            ChangeKind::Left => (EventType::CONSUMER_LEFT, &rebalance.before),
            ChangeKind::SubscriptionChanged => continue,
        };
        let data = Membership {
            group: &rebalance.group,
            generation: rebalance.generation,
            member_id,
            reason: *reason,
            partitions: owned.get(client_id).cloned().map(|all| fitting(all, &mut left)).unwrap_or_default(),
            cost: rebalance.cost,
        };
        all.push(Event::new(Uuid::now_v7(), at, kind, client_id, &data));
    }
    let kind = EventType::PARTITIONS_REASSIGNED;
    all.push(Event::new(Uuid::now_v7(), at, kind, &rebalance.group, &rebalance));
    recording.note(&events.publish_all(&all).await, format_args!("of group {}", rebalance.group));
}

fn told(record: &RebalanceRecord) -> Told {
    Told::one(rebalance_of(record), record.more_causes)
}

/// What the coordinator told, as the event and the view hold it.
fn rebalance_of(record: &RebalanceRecord) -> Rebalance {
    let (before, after) = (by_member(&record.before), by_member(&record.after));
    let paused_ms: BTreeMap<String, u64> = record
        .paused
        .iter()
        .map(|(partition, pause)| {
            (partition.to_string(), u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
        })
        .collect();
    Rebalance {
        group: record.group.clone(),
        generation: record.generation,
        began_at: record.began_at,
        completed_at: record.completed_at,
        causes: record.causes.iter().map(sentence).collect(),
        changes: record.causes.iter().map(change).collect(),
        // Of all of them, before some are left out.
        cost: RebalanceCost::of(record.began_at, record.completed_at, &before, &after, &paused_ms),
        before: listed(before),
        after: listed(after),
        paused_ms: longest(paused_ms),
    }
}

/// As many partitions of each member as there is room for, and how many more there are.
fn listed(mut owned: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    let mut left = MAX_LISTED_BYTES;
    for partitions in owned.values_mut() {
        *partitions = fitting(std::mem::take(partitions), &mut left);
    }
    owned
}

/// As many names as there is room for, and how many more there are.
fn fitting(mut names: Vec<String>, left: &mut usize) -> Vec<String> {
    let fits = names.iter().take_while(|name| take(left, name)).count();
    let more = names.len() - fits;
    names.truncate(fits);
    if more > 0 {
        names.push(format!("({more} more)"));
    }
    names
}

/// As many pauses as there is room for, the longest.
fn longest(paused_ms: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut pauses: Vec<(String, u64)> = paused_ms.into_iter().collect();
    pauses.sort_by_key(|(_, pause)| std::cmp::Reverse(*pause));
    let mut left = MAX_LISTED_BYTES;
    pauses.into_iter().take_while(|(name, _)| take(&mut left, name)).collect()
}

fn take(left: &mut usize, name: &str) -> bool {
    match left.checked_sub(name.len()) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}

fn change(cause: &RebalanceCause) -> MemberChange {
    let of = |change, consumer_id: &String, member_id: &String, reason| MemberChange {
        change,
        consumer_id: Some(consumer_id.clone()),
        member_id: Some(member_id.clone()),
        reason,
    };
    match cause {
        RebalanceCause::Joined { member_id, client_id } => of(ChangeKind::Joined, client_id, member_id, None),
        RebalanceCause::Left { member_id, client_id, reason } => {
            of(ChangeKind::Left, client_id, member_id, Some(departure(*reason)))
        }
        RebalanceCause::SubscriptionChanged => MemberChange {
            change: ChangeKind::SubscriptionChanged,
            consumer_id: None,
            member_id: None,
            reason: None,
        },
    }
}

fn departure(reason: LeaveReason) -> DepartureReason {
    match reason {
        LeaveReason::Left => DepartureReason::Left,
        LeaveReason::MissedHeartbeats => DepartureReason::MissedHeartbeats,
        LeaveReason::MissedPolls => DepartureReason::MissedPolls,
        LeaveReason::RebalanceTimeout => DepartureReason::RebalanceTimeout,
    }
}

fn sentence(cause: &RebalanceCause) -> String {
    match cause {
        RebalanceCause::Joined { client_id, .. } => format!("{client_id} joined"),
        RebalanceCause::Left { client_id, reason, .. } => match reason {
            LeaveReason::Left => format!("{client_id} left: said goodbye"),
            LeaveReason::MissedHeartbeats => format!("{client_id} left: missed heartbeats"),
            LeaveReason::MissedPolls => format!("{client_id} left: did not poll in time"),
            LeaveReason::RebalanceTimeout => format!("{client_id} left: did not join the rebalance in time"),
        },
        RebalanceCause::SubscriptionChanged => "subscriptions or partitions changed".into(),
    }
}

fn by_member(owned: &BTreeMap<String, Vec<TopicPartition>>) -> BTreeMap<String, Vec<String>> {
    owned
        .iter()
        .map(|(client, parts)| (client.clone(), parts.iter().map(ToString::to_string).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use farol_bus::Bus;
    use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
    use farol_bus::{ConsumerSettings, Polled, StartAt, TopicSpec};

    use super::*;

    #[tokio::test]
    async fn a_member_that_comes_and_goes_all_the_time_does_not_flood_the_log() {
        const TIMES: i32 = 1000;
        let folder = tempfile::tempdir().unwrap();
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(folder.path())).unwrap();
        for (name, partitions) in [("system-events", 1), ("t", 3)] {
            let spec = TopicSpec { name: name.to_owned(), partitions, config: BTreeMap::new() };
            bus.create_topic(spec).await.unwrap();
        }
        let (counts, stop) = (Arc::<RebalanceCounts>::default(), CancellationToken::new());
        let events = SystemEvents::new(bus.as_ref()).await.unwrap();
        let publishing =
            tokio::spawn(publish_rebalances(bus.rebalances(), events, Arc::clone(&counts), stop.clone()));
        let began = Instant::now();
        for _ in 0..TIMES {
            let mut hasty = bus.consumer(ConsumerSettings::member("hasty", "g")).await.unwrap();
            hasty.subscribe(&["t"]).await.unwrap();
            let polled = hasty.poll(Duration::from_secs(30)).await.unwrap();
            assert!(matches!(polled, Polled::Assigned(_)), "{polled:?}");
            hasty.close().await.unwrap();
        }
        stop.cancel();
        publishing.await.unwrap();

        let mut reader = bus.consumer(ConsumerSettings::standalone("reader")).await.unwrap();
        reader.assign(vec![(TopicPartition::new("system-events", 0), StartAt::Earliest)]).await.unwrap();
        let mut told: Vec<Rebalance> = Vec::new();
        let mut members = 0;
        while let Polled::Records(batches) = reader.poll(Duration::ZERO).await.unwrap() {
            if batches.is_empty() {
                break;
            }
            for record in batches.into_iter().flat_map(|batch| batch.records) {
                let event = Event::parse(&record.value.unwrap(), now()).unwrap();
                if event.event_type == EventType::PARTITIONS_REASSIGNED {
                    told.push(serde_json::from_value(serde_json::Value::Object(event.data)).unwrap());
                } else {
                    members += 1;
                }
            }
        }
        let at_once = u64::from(pace::OF_A_GROUP.burst);
        let later = began.elapsed().as_secs() / pace::OF_A_GROUP.interval.as_secs() + 1;
        assert!(told.len() as u64 <= at_once + later, "{} of {TIMES} times", told.len());
        assert!(members <= told.len() * 64, "{members}");
        let last = told.last().unwrap();
        assert!(last.causes.iter().any(|cause| cause.ends_with("told as one)")), "{:?}", last.causes);
        assert!(last.after.values().all(Vec::is_empty), "{:?}", last.after);
        // It came and went each time; what came too fast for the publisher is counted, too.
        let expected = 2 * u64::try_from(TIMES).unwrap();
        assert_eq!(told.len() as u64 + counts.merged() + counts.untold(), expected);
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let names = |count: usize| (0..count).map(|n| format!("{}/{n}", "t".repeat(190))).collect::<Vec<_>>();
        let owned = listed([("a".to_owned(), names(60_000)), ("b".to_owned(), names(2))].into());
        let listed_bytes: usize = owned.values().flatten().map(String::len).sum();
        assert!(listed_bytes <= MAX_LISTED_BYTES + 2 * "(60000 more)".len(), "{listed_bytes}");
        assert_eq!(owned["a"].last().unwrap(), &format!("({} more)", 60_000 - (owned["a"].len() - 1)));
        assert_eq!(owned["b"], ["(2 more)"]);
        let ordinary: BTreeMap<String, Vec<String>> =
            [("a".to_owned(), (0..1000).map(|n| format!("sensor-data/{n}")).collect())].into();
        assert_eq!(listed(ordinary.clone()), ordinary);
        let paused = longest((0..60_000).map(|n| (format!("sensor-data/{n}"), n)).collect());
        assert!(paused.contains_key("sensor-data/59999") && !paused.contains_key("sensor-data/0"));
    }
}

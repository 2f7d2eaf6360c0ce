//! Rebalances of consumer groups, published as system events: who joined, who left and why, what moved, what it cost.

use std::collections::BTreeMap;

use farol_bus::{LeaveReason, RebalanceCause, RebalanceRecord, TopicPartition};
use farol_event::EventType;
use farol_view::query::rebalances::{ChangeKind, DepartureReason, MemberChange, Rebalance, RebalanceCost};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::system_events::SystemEvents;

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
    partitions: &'a [String],
    /// Of the rebalance that it set off, perhaps together with others.
    cost: RebalanceCost,
}

/// Publishes every rebalance until told to stop, and whatever was still waiting then.
pub(crate) async fn publish_rebalances(
    mut rebalances: tokio::sync::broadcast::Receiver<RebalanceRecord>,
    events: SystemEvents,
    stop: CancellationToken,
) {
    loop {
        let received = tokio::select! {
            biased;
            received = rebalances.recv() => received,
            () = stop.cancelled() => return,
        };
        match received {
            Ok(record) => publish(&events, &record).await,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "rebalances came faster than they could be recorded");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn publish(events: &SystemEvents, record: &RebalanceRecord) {
    let rebalance = rebalance_of(record);
    for cause in &record.causes {
        let membership = |member_id, reason, partitions| Membership {
            group: &record.group,
            generation: record.generation,
            member_id,
            reason,
            partitions,
            cost: rebalance.cost,
        };
        match cause {
            RebalanceCause::Joined { member_id, client_id } => {
                let gained = rebalance.after.get(client_id).map(Vec::as_slice).unwrap_or_default();
                let data = membership(member_id, None, gained);
                events.announce(EventType::CONSUMER_JOINED, client_id, &data).await;
            }
            RebalanceCause::Left { member_id, client_id, reason } => {
                let lost = rebalance.before.get(client_id).map(Vec::as_slice).unwrap_or_default();
                let data = membership(member_id, Some(departure(*reason)), lost);
                events.announce(EventType::CONSUMER_LEFT, client_id, &data).await;
            }
            RebalanceCause::SubscriptionChanged => {}
        }
    }
    events.announce(EventType::PARTITIONS_REASSIGNED, &record.group, &rebalance).await;
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
        let fits = partitions.iter().take_while(|name| take(&mut left, name)).count();
        let more = partitions.len() - fits;
        partitions.truncate(fits);
        if more > 0 {
            partitions.push(format!("({more} more)"));
        }
    }
    owned
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
    use super::*;

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

//! Rebalances of consumer groups, published as system events: who joined, who left and why, what moved, what it cost.

use std::collections::BTreeMap;

use farol_bus::{LeaveReason, RebalanceCause, RebalanceRecord, TopicPartition};
use farol_event::{EventType, Timestamp};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::system_events::SystemEvents;

#[derive(Serialize)]
struct Rebalance<'a> {
    group: &'a str,
    generation: i32,
    began_at: Timestamp,
    completed_at: Timestamp,
    causes: Vec<String>,
    before: BTreeMap<&'a str, Vec<String>>,
    after: BTreeMap<&'a str, Vec<String>>,
    paused_ms: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Membership<'a> {
    group: &'a str,
    generation: i32,
    member_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
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
    for cause in &record.causes {
        let membership = |member_id, reason| Membership {
            group: &record.group,
            generation: record.generation,
            member_id,
            reason,
        };
        match cause {
            RebalanceCause::Joined { member_id, client_id } => {
                events.announce(EventType::CONSUMER_JOINED, client_id, &membership(member_id, None)).await;
            }
            RebalanceCause::Left { member_id, client_id, reason } => {
                let data = membership(member_id, Some(reason_code(*reason)));
                events.announce(EventType::CONSUMER_LEFT, client_id, &data).await;
            }
            RebalanceCause::SubscriptionChanged => {}
        }
    }
    let rebalance = Rebalance {
        group: &record.group,
        generation: record.generation,
        began_at: record.began_at,
        completed_at: record.completed_at,
        causes: record.causes.iter().map(sentence).collect(),
        before: by_member(&record.before),
        after: by_member(&record.after),
        paused_ms: record
            .paused
            .iter()
            .map(|(partition, pause)| {
                (partition.to_string(), u64::try_from(pause.as_millis()).unwrap_or(u64::MAX))
            })
            .collect(),
    };
    events.announce(EventType::PARTITIONS_REASSIGNED, &record.group, &rebalance).await;
}

fn reason_code(reason: LeaveReason) -> &'static str {
    match reason {
        LeaveReason::Left => "left",
        LeaveReason::MissedHeartbeats => "missed_heartbeats",
        LeaveReason::MissedPolls => "missed_polls",
    }
}

fn sentence(cause: &RebalanceCause) -> String {
    match cause {
        RebalanceCause::Joined { client_id, .. } => format!("{client_id} joined"),
        RebalanceCause::Left { client_id, reason, .. } => match reason {
            LeaveReason::Left => format!("{client_id} left: said goodbye"),
            LeaveReason::MissedHeartbeats => format!("{client_id} left: missed heartbeats"),
            LeaveReason::MissedPolls => format!("{client_id} left: did not poll in time"),
        },
        RebalanceCause::SubscriptionChanged => "subscriptions or partitions changed".into(),
    }
}

fn by_member(owned: &BTreeMap<String, Vec<TopicPartition>>) -> BTreeMap<&str, Vec<String>> {
    owned
        .iter()
        .map(|(client, parts)| (client.as_str(), parts.iter().map(ToString::to_string).collect()))
        .collect()
}

//! Farol's own calls to others (checks, webhooks, e-mail, the bus where it is elsewhere) and the policies that guard them, told as events.
//!
//! Every part that calls out registers its policies in one [`farol_resilience::Registry`]. From there breaker moves become events as
//! they happen, and every [`SNAPSHOT_INTERVAL`] each policy that has changed since is told as it stands. `caller` is
//! [`CALLER`], of a worker process its name; the source is the service that is called, where the policy's name says one (`check:SERVICE/…`), else the caller.
//!
//! Limits: [`MAX_POLICIES`] policies; of moves that come faster than the log takes them the oldest are missed, which is
//! logged (the next snapshot shows where the breaker stands). Failures: what the log refuses is logged and told with the next
//! snapshot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use farol_event::service::{BreakerMoved, BreakerState, PolicyMeasured};
use farol_event::{Event, EventType, Timestamp};
use farol_resilience::{PolicyKind, PolicySnapshot, Registry, StateChange};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::system_events::{self, Recording, SystemEvents};

/// Who calls, where `farol run` does.
pub const CALLER: &str = "farol";
/// How many policies Farol's own calls can have: one for each of 1000 watched services and of the 8 checks that each may have, four for
/// each receiver, and some.
pub const MAX_POLICIES: usize = 20_000;
/// How many snapshots go into one append.
const MAX_APPEND: usize = 1000;
/// How often policies are told that have changed.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(5);

/// The registry of Farol's own calls.
pub fn registry() -> Registry {
    Registry::with_capacity(MAX_POLICIES)
}

/// The service that a policy of Farol's own guards calls to, where its name says so.
pub fn service_of(policy: &str) -> Option<&str> {
    let rest = policy.strip_prefix("check:")?;
    Some(rest.split_once('/').map_or(rest, |(service, _)| service))
}

/// A breaker's move as an event of `caller`; none for changes of other policies.
pub fn moved(caller: &str, service: Option<&str>, change: &StateChange) -> Option<Event> {
    if change.policy != PolicyKind::CircuitBreaker {
        return None;
    }
    let (from, to) = (breaker_state(change.from)?, breaker_state(change.to)?);
    let data = BreakerMoved {
        caller: caller.to_owned(),
        name: change.name.to_string(),
        service: service.map(str::to_owned),
        from,
        to,
        cause: Some(change.cause.clone()),
        counters: Default::default(),
    };
    let at = Timestamp::from_system_time(change.at);
    Some(Event::new(Uuid::now_v7(), at, to.event_type(), service.unwrap_or(caller), &data))
}

/// One that is forced open rejects like an open one, one that is disabled lets through like a closed one.
fn breaker_state(word: &str) -> Option<BreakerState> {
    match word {
        "closed" | "disabled" => Some(BreakerState::Closed),
        "open" | "forced_open" => Some(BreakerState::Open),
        "half_open" => Some(BreakerState::HalfOpen),
        _ => None,
    }
}

/// A policy as it stands, as an event of `caller`.
pub fn measured(caller: &str, service: Option<&str>, snapshot: &PolicySnapshot, now: Timestamp) -> Event {
    let counters = snapshot.counters.iter().map(|counter| (counter.name().to_owned(), counter.value as f64));
    let gauges = snapshot.gauges.iter().map(|gauge| (gauge.name.to_owned(), gauge.value));
    let settings = snapshot.settings.iter();
    let data = PolicyMeasured {
        caller: caller.to_owned(),
        name: snapshot.name.to_string(),
        kind: snapshot.kind.as_str().to_owned(),
        service: service.map(str::to_owned),
        state: snapshot.state.map(str::to_owned),
        counters: counters.chain(gauges).filter(|(_, value)| value.is_finite()).collect(),
        settings: settings.map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect(),
    };
    Event::new(Uuid::now_v7(), now, EventType::POLICY_MEASURED, service.unwrap_or(caller), &data)
}

/// The policies that have changed since they were told last.
#[derive(Default)]
pub struct Told {
    snapshots: HashMap<(PolicyKind, Arc<str>), PolicySnapshot>,
}

impl Told {
    /// Takes the present snapshots; gives those that differ from the last ones, and forgets policies that are gone.
    pub fn changed(&mut self, present: Vec<PolicySnapshot>) -> Vec<PolicySnapshot> {
        let mut before = std::mem::take(&mut self.snapshots);
        let mut changed = Vec::new();
        for snapshot in present {
            let key = (snapshot.kind, Arc::clone(&snapshot.name));
            if before.remove(&key).as_ref() != Some(&snapshot) {
                changed.push(snapshot.clone());
            }
            self.snapshots.insert(key, snapshot);
        }
        changed
    }

    /// A policy was not told after all.
    pub fn forget(&mut self, snapshot: &PolicySnapshot) {
        self.snapshots.remove(&(snapshot.kind, Arc::clone(&snapshot.name)));
    }
}

/// Tells of the policies of a caller's registry until `stop`.
pub async fn publish(caller: &str, policies: Registry, events: SystemEvents, stop: CancellationToken) {
    // At once: moves don't wait for a round of snapshots.
    let moves = publish_moves(caller, policies.subscribe(), &events, &stop);
    tokio::join!(moves, publish_snapshots(caller, &policies, &events, &stop));
}

async fn publish_moves(
    caller: &str,
    mut changes: Receiver<StateChange>,
    events: &SystemEvents,
    stop: &CancellationToken,
) {
    let recording = Recording::of("moves of breakers");
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => match change {
                Ok(change) => {
                    if let Some(event) = moved(caller, service_of(&change.name), &change) {
                        recording.note(&events.publish(&event).await, &change.name);
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "breakers moved faster than the log takes their moves");
                }
                Err(RecvError::Closed) => return,
            },
        }
    }
}

async fn publish_snapshots(
    caller: &str,
    policies: &Registry,
    events: &SystemEvents,
    stop: &CancellationToken,
) {
    let (mut told, recording) = (Told::default(), Recording::of("states of policies"));
    let mut ticks = tokio::time::interval(SNAPSHOT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => tell_changed(caller, policies, &mut told, events, &recording).await,
        }
    }
}

/// All that have changed go to the log in one append: one wait for the disk, however many there are.
async fn tell_changed(
    caller: &str,
    policies: &Registry,
    told: &mut Told,
    events: &SystemEvents,
    recording: &Recording,
) {
    let now = system_events::now();
    let changed = told.changed(policies.snapshots());
    for round in changed.chunks(MAX_APPEND) {
        let measured: Vec<_> = round
            .iter()
            .map(|snapshot| measured(caller, service_of(&snapshot.name), snapshot, now))
            .collect();
        let outcome = events.publish_all(&measured).await;
        recording.note(&outcome, format_args!("{} policies of {caller}", round.len()));
        if outcome.is_err() {
            round.iter().for_each(|snapshot| told.forget(snapshot));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use farol_event::ServiceFact;
    use farol_resilience::{Bulkhead, CircuitBreaker};

    use super::*;

    #[test]
    fn names_of_checks_say_which_service_they_are_about() {
        assert_eq!(service_of("check:shop"), Some("shop"));
        assert_eq!(service_of("check:shop/http"), Some("shop"));
        assert_eq!(service_of("webhook"), None);
    }

    #[test]
    fn a_breakers_move_is_an_event_that_tells_of_the_service() {
        let breaker = CircuitBreaker::builder("check:shop").consecutive_failures(1).build().unwrap();
        let policies = registry();
        let mut changes = policies.subscribe();
        policies.register(breaker.clone()).unwrap();
        let failed: Result<(), _> = breaker.call_blocking(|| Err("reset"));
        assert!(failed.is_err());
        let change = changes.try_recv().unwrap();
        let event = moved(CALLER, service_of(&change.name), &change).unwrap();
        assert_eq!((event.event_type.as_str(), event.source.as_str()), ("disjuntor_aberto", "shop"));
        let Some(Ok(ServiceFact::BreakerMoved(told))) = ServiceFact::of(&event) else { panic!("{event:?}") };
        assert_eq!((told.from, told.to), (BreakerState::Closed, BreakerState::Open));
        assert!(told.cause.unwrap().contains("failure"));
    }

    #[test]
    fn only_what_has_changed_is_told_again() {
        let policies = registry();
        let (used, idle) = (Bulkhead::new("used"), Bulkhead::new("idle"));
        policies.register(used.clone()).unwrap();
        policies.register(idle).unwrap();
        let mut told = Told::default();
        assert_eq!(told.changed(policies.snapshots()).len(), 2);
        assert_eq!(told.changed(policies.snapshots()).len(), 0);
        drop(used.try_acquire().unwrap());
        let changed = told.changed(policies.snapshots());
        assert_eq!(changed.iter().map(|snapshot| &*snapshot.name).collect::<Vec<_>>(), ["used"]);
        let event = measured(CALLER, None, changed.first().unwrap(), Timestamp::EPOCH);
        let Some(Ok(ServiceFact::PolicyMeasured(measured))) = ServiceFact::of(&event) else {
            panic!("{event:?}")
        };
        assert_eq!((measured.kind.as_str(), measured.counters.get("permitted")), ("bulkhead", Some(&1.0)));
        told.forget(changed.first().unwrap());
        assert_eq!(told.changed(policies.snapshots()).len(), 1);
    }
}

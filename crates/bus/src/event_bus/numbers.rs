//! What the subscriptions of an event bus have counted, by name, for metrics.
//!
//! Names are the program's own. Subscriptions of one name count together, and their counts stay when they end, so that a counter
//! never falls. At most [`MAX_NAMES`] are told apart, those that came first; the others count together as [`OTHER`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::registry::Registry;
use super::subscription::SubscriptionSnapshot;

/// How many names of subscriptions are told apart.
pub const MAX_NAMES: usize = 500;
/// The name under which those beyond [`MAX_NAMES`] count.
pub const OTHER: &str = "other";

/// The subscriptions of one name, as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriptionNumbers {
    /// How many there are at present.
    pub subscriptions: u64,
    /// Records that their handlers have been through, whatever the outcome. Of all there ever were, like the four below.
    pub delivered: u64,
    /// Of these: the handler gave an error back.
    pub failed: u64,
    /// A handler or a predicate panicked.
    pub panicked: u64,
    /// Records that a handler never gets, because it was too slow.
    pub dropped: u64,
    /// How often one left the common reader because its handler was too slow.
    pub fell_behind: u64,
    /// Records that wait in memory for those that there are.
    pub queued: u64,
    /// Records between them and the end of their topics, see [`SubscriptionSnapshot::lag_records`].
    pub lag_records: u64,
}

/// One of the numbers, as monitoring wants it.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its name, without the `_total` that the format adds to counters.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// Whether it only ever rises while the event bus lives.
    pub is_counter: bool,
    /// Which of the numbers it is.
    pub of: fn(&SubscriptionNumbers) -> u64,
}

/// Every number of [`SubscriptionNumbers`].
pub const MEASURES: [Measure; 8] = [
    gauge("farol_event_bus_subscriptions", "Subscriptions that there are at present", |n| n.subscriptions),
    counter("farol_event_bus_delivered_records", "Records that handlers have been through", |n| n.delivered),
    counter("farol_event_bus_failed_records", "Records for which a handler gave an error back", |n| n.failed),
    counter("farol_event_bus_panics", "Panics of handlers and predicates", |n| n.panicked),
    counter(
        "farol_event_bus_dropped_records",
        "Records that a handler never gets because it was too slow",
        |n| n.dropped,
    ),
    counter("farol_event_bus_fell_behind", "Times that a subscription had to read the log by itself", |n| {
        n.fell_behind
    }),
    gauge("farol_event_bus_queued_records", "Records that wait in memory for handlers", |n| n.queued),
    gauge("farol_event_bus_lag_records", "Records between subscriptions and the end of their topics", |n| {
        n.lag_records
    }),
];

/// The numbers of one event bus, for as long as anybody wants them. Does not keep the event bus going.
#[derive(Clone)]
pub struct Numbers {
    bus: Arc<str>,
    registry: Arc<Registry>,
}

impl Numbers {
    pub(super) fn new(bus: Arc<str>, registry: Arc<Registry>) -> Self {
        Self { bus, registry }
    }

    /// The event bus's name: the client id of its settings.
    pub fn bus(&self) -> &str {
        &self.bus
    }

    /// The numbers by name of subscription. Takes locks for microseconds.
    pub fn by_name(&self) -> BTreeMap<String, SubscriptionNumbers> {
        self.registry.numbers()
    }
}

impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbers").field("bus", &self.bus).finish_non_exhaustive()
    }
}

impl SubscriptionNumbers {
    /// Adds a subscription that is there.
    pub(super) fn add(&mut self, snapshot: &SubscriptionSnapshot) {
        self.add_past(snapshot);
        self.subscriptions += 1;
        self.queued = self.queued.saturating_add(u64::try_from(snapshot.queued).unwrap_or(u64::MAX));
        self.lag_records = self.lag_records.saturating_add(snapshot.lag_records);
    }

    /// Adds what a subscription has counted that has ended.
    pub(super) fn add_past(&mut self, snapshot: &SubscriptionSnapshot) {
        self.delivered = self.delivered.saturating_add(snapshot.delivered);
        self.failed = self.failed.saturating_add(snapshot.failed);
        self.panicked = self.panicked.saturating_add(snapshot.panicked);
        self.dropped = self.dropped.saturating_add(snapshot.dropped);
        self.fell_behind = self.fell_behind.saturating_add(snapshot.fell_behind);
    }
}

const fn counter(name: &'static str, help: &'static str, of: fn(&SubscriptionNumbers) -> u64) -> Measure {
    Measure { name, help, is_counter: true, of }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&SubscriptionNumbers) -> u64) -> Measure {
    Measure { name, help, is_counter: false, of }
}

//! What a subscription wants, where it starts, and what happens when its handler is too slow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farol_event::EventType;

use super::queue::QueueBounds;
use super::received::Received;
use crate::record::TopicPartition;

/// What happens to records that come when as many wait for a handler as may ([`QueueBounds`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Nothing is lost and nobody waits: the subscription leaves the common reader, reads what it missed from the log by
    /// itself, and comes back when it has caught up. Counted as `fell_behind`. What retention deletes before that is gone.
    CatchUp,
    /// The common reader waits, and every other subscription with it, for this long at most; then the subscription ends as
    /// [`EndReason::Overflowed`].
    Block {
        /// How long.
        limit: Duration,
    },
    /// The oldest that wait make room. Counted as `dropped`.
    DropOldest,
    /// The new ones are passed over. Counted as `dropped`.
    DropNewest,
    /// The subscription ends as [`EndReason::Overflowed`] after what waits has been handled; what came too much is counted
    /// as `dropped`.
    Disconnect,
}

/// Where a subscription starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartFrom {
    /// With what is appended after the call of subscribe.
    #[default]
    Now,
    /// With the first record that is still stored.
    Beginning,
    /// At these offsets; partitions that are not named start at their beginning.
    Offsets(BTreeMap<TopicPartition, i64>),
}

/// Why a subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its handle was dropped or unsubscribed.
    Unsubscribed,
    /// Its handler was too slow for its queue, see [`Overflow`].
    Overflowed,
    /// The event bus, or the bus below it, was closed.
    Closed,
}

type Predicate = dyn Fn(&Received) -> bool + Send + Sync;

/// How one subscription behaves.
#[derive(Clone)]
pub struct SubscriptionSettings {
    pub(super) name: String,
    pub(super) types: Option<BTreeSet<String>>,
    pub(super) predicate: Option<Arc<Predicate>>,
    pub(super) overflow: Overflow,
    pub(super) bounds: QueueBounds,
    pub(super) start: StartFrom,
}

impl SubscriptionSettings {
    /// Every record of the topics, events or not.
    pub fn everything() -> Self {
        Self {
            name: "everything".to_owned(),
            types: None,
            predicate: None,
            overflow: Overflow::CatchUp,
            bounds: QueueBounds::default(),
            start: StartFrom::Now,
        }
    }

    /// Events of these types.
    pub fn types<T: AsRef<str>>(types: impl IntoIterator<Item = T>) -> Self {
        let types: BTreeSet<String> = types.into_iter().map(|text| text.as_ref().to_owned()).collect();
        let name = types.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        Self { name, types: Some(types), ..Self::everything() }
    }

    /// Events of this type.
    pub fn of_type(event_type: &EventType) -> Self {
        Self::types([event_type.as_str()])
    }

    /// Records that fit a predicate.
    pub fn matching(predicate: impl Fn(&Received) -> bool + Send + Sync + 'static) -> Self {
        Self { name: "predicate".to_owned(), ..Self::everything() }.and(predicate)
    }

    /// Of what it had so far only what fits this predicate. It runs in the subscription's own task, so a slow one delays
    /// nobody else, and what waits for it counts for the queue. One that panics is counted as `panicked`, and doesn't fit.
    #[must_use]
    pub fn and(mut self, predicate: impl Fn(&Received) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(match self.predicate.take() {
            None => Arc::new(predicate),
            Some(first) => Arc::new(move |received| first(received) && predicate(received)),
        });
        self
    }

    /// A name for people, for snapshots and logs. Without it: what was asked for.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What happens when the handler is too slow. [`Overflow::CatchUp`] unless it is said.
    #[must_use]
    pub fn on_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// How much may wait for the handler.
    #[must_use]
    pub fn queue(mut self, bounds: QueueBounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// Where it starts. [`StartFrom::Now`] unless it is said.
    #[must_use]
    pub fn starting(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }
}

impl fmt::Debug for SubscriptionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionSettings")
            .field("name", &self.name)
            .field("types", &self.types)
            .field("has_predicate", &self.predicate.is_some())
            .field("overflow", &self.overflow)
            .field("bounds", &self.bounds)
            .field("start", &self.start)
            .finish()
    }
}

//! State changes of a policy: the last ones, and who is told of new ones.
//!
//! A policy owns one [`Changes`] and records each change in it, after the change is in force and with no lock held. A
//! change can be heard of in two ways: a **listener** is a closure that runs at once on the thread whose call made the
//! change, so it must be quick; if it panics, the panic is caught and counted. A **subscription** is a bounded channel
//! ([`SUBSCRIPTION_CAPACITY`]) that never holds a caller up: a subscriber that is too slow misses the oldest changes and
//! is told how many.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use tokio::sync::broadcast;

use crate::snapshot::PolicyKind;

/// Changes that are kept; older ones are forgotten.
pub const HISTORY_CAPACITY: usize = 64;

/// Changes that wait for a subscriber; one that is slower misses the oldest.
pub const SUBSCRIPTION_CAPACITY: usize = 256;

/// Listeners that one policy can have.
pub const MAX_LISTENERS: usize = 64;

/// A policy went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StateChange {
    /// What sort of policy.
    pub policy: PolicyKind,
    /// Its name.
    pub name: Arc<str>,
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
    /// Why, as a sentence without a full stop: `5 consecutive failures`.
    pub cause: String,
    /// When.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_milliseconds"))]
    pub at: SystemTime,
    /// Rises by one with each change of the policy. Listeners on several threads may hear of two changes in the wrong
    /// order; this is the right one.
    pub sequence: u64,
}

/// Milliseconds since 1970.
#[cfg(feature = "serde")]
fn as_milliseconds<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

type Listener = Arc<dyn Fn(&StateChange) + Send + Sync>;

/// Which listener, to take it away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// There are [`MAX_LISTENERS`] listeners already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyListeners;

impl fmt::Display for TooManyListeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a policy can have {MAX_LISTENERS} listeners")
    }
}

impl std::error::Error for TooManyListeners {}

/// The state changes of one policy, or of all in a registry.
pub struct Changes {
    history: Mutex<VecDeque<StateChange>>,
    listeners: RwLock<Vec<(ListenerId, Listener)>>,
    next_listener: AtomicU64,
    sender: broadcast::Sender<StateChange>,
    panics: AtomicU64,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            history: Mutex::default(),
            listeners: RwLock::default(),
            next_listener: AtomicU64::new(0),
            sender: broadcast::Sender::new(SUBSCRIPTION_CAPACITY),
            panics: AtomicU64::new(0),
        }
    }
}

impl Changes {
    /// No changes, nobody listens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers a change and tells everybody. Never waits for a subscriber, never panics.
    pub fn record(&self, change: StateChange) {
        self.remember(change.clone());
        // Copied, so that a listener may add listeners.
        let listeners = self.listeners.read().clone();
        for (_, listener) in listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(&change))).is_err() {
                self.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(policy = %change.policy, name = %change.name, "a listener of state changes panicked");
            }
        }
        // Fails if there is no subscriber, which is nobody's loss.
        let _ = self.sender.send(change);
    }

    fn remember(&self, change: StateChange) {
        let mut history = self.history.lock();
        // Two threads may bring the changes of one policy in the wrong order.
        let later = |known: &StateChange| {
            known.policy == change.policy && known.name == change.name && known.sequence > change.sequence
        };
        let place = history.iter().position(later).unwrap_or(history.len());
        history.insert(place, change);
        if history.len() > HISTORY_CAPACITY {
            history.pop_front();
        }
    }

    /// The last [`HISTORY_CAPACITY`] changes, oldest first.
    pub fn history(&self) -> Vec<StateChange> {
        self.history.lock().iter().cloned().collect()
    }

    /// Has the closure called with each change from now on. It runs inside somebody's call: it must not wait.
    pub fn listen(
        &self,
        listener: impl Fn(&StateChange) + Send + Sync + 'static,
    ) -> Result<ListenerId, TooManyListeners> {
        let mut listeners = self.listeners.write();
        if listeners.len() >= MAX_LISTENERS {
            return Err(TooManyListeners);
        }
        let id = ListenerId(self.next_listener.fetch_add(1, Ordering::Relaxed));
        listeners.push((id, Arc::new(listener)));
        Ok(id)
    }

    /// Takes a listener away; false if it isn't there.
    pub fn unlisten(&self, id: ListenerId) -> bool {
        let mut listeners = self.listeners.write();
        let before = listeners.len();
        listeners.retain(|(known, _)| *known != id);
        listeners.len() < before
    }

    /// A channel that gets each change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<StateChange> {
        self.sender.subscribe()
    }

    /// How often a listener panicked.
    pub fn listener_panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("remembered", &self.history.lock().len())
            .field("listeners", &self.listeners.read().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn change(name: &str, sequence: u64) -> StateChange {
        StateChange {
            policy: PolicyKind::CircuitBreaker,
            name: name.into(),
            from: "closed",
            to: "open",
            cause: "5 consecutive failures".to_owned(),
            at: SystemTime::UNIX_EPOCH,
            sequence,
        }
    }

    fn sequences(changes: &Changes) -> Vec<u64> {
        changes.history().iter().map(|change| change.sequence).collect()
    }

    #[test]
    fn the_history_is_bounded_and_in_order_even_if_changes_arrive_in_the_wrong_order() {
        let changes = Changes::new();
        for sequence in [1, 3, 2, 4] {
            changes.record(change("payments", sequence));
        }
        assert_eq!(sequences(&changes), [1, 2, 3, 4]);
        // Changes of others in between don't matter.
        let mixed = Changes::new();
        for (name, sequence) in [("a", 3), ("b", 1), ("a", 2), ("b", 2)] {
            mixed.record(change(name, sequence));
        }
        let order: Vec<_> = mixed.history().iter().map(|c| (c.name.to_string(), c.sequence)).collect();
        assert_eq!(order, [("a", 2), ("a", 3), ("b", 1), ("b", 2)].map(|(n, s)| (n.to_owned(), s)));
        for sequence in 5..200 {
            changes.record(change("payments", sequence));
        }
        assert_eq!(sequences(&changes), (136..200).collect::<Vec<_>>());
    }

    #[test]
    fn a_panicking_listener_harms_nobody_and_is_counted() {
        let changes = Changes::new();
        let heard = Arc::new(AtomicU64::new(0));
        let ear = heard.clone();
        changes.listen(|_| panic!("a listener's own mistake")).unwrap();
        changes.listen(move |change| ear.store(change.sequence, Ordering::SeqCst)).unwrap();
        changes.record(change("payments", 7));
        assert_eq!(heard.load(Ordering::SeqCst), 7);
        assert_eq!(changes.listener_panics(), 1);
    }

    #[test]
    fn listeners_are_bounded_and_can_be_taken_away() {
        let changes = Changes::new();
        let ids: Vec<_> = (0..MAX_LISTENERS).map(|_| changes.listen(|_| {}).unwrap()).collect();
        assert_eq!(changes.listen(|_| {}), Err(TooManyListeners));
        assert!(changes.unlisten(ids[3]));
        assert!(!changes.unlisten(ids[3]));
        assert!(changes.listen(|_| {}).is_ok());
    }

    #[test]
    fn a_slow_subscriber_is_told_what_it_missed_and_holds_nobody_up() {
        let changes = Changes::new();
        let mut subscription = changes.subscribe();
        for sequence in 0..300 {
            changes.record(change("payments", sequence));
        }
        let missed = subscription.try_recv().unwrap_err();
        assert_eq!(missed, broadcast::error::TryRecvError::Lagged(300 - SUBSCRIPTION_CAPACITY as u64));
        assert_eq!(subscription.try_recv().unwrap().sequence, 300 - SUBSCRIPTION_CAPACITY as u64);
    }
}

//! All subscriptions of one event bus, and where its common reader stands.
//!
//! One lock holds both together. So a subscription that has read the log up to the reader's place, or further, can change over
//! to it without a record missing or coming twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::numbers::{MAX_NAMES, OTHER, SubscriptionNumbers};
use super::received::Chunk;
use super::settings::EndReason;
use super::subscription::{Positions, State, SubscriptionId};

#[derive(Debug)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
    /// The first subscription has come.
    awake: Notify,
}

#[derive(Debug)]
struct Inner {
    /// Replaced when somebody comes or goes, so that the reader can go through it without the lock.
    list: Arc<[Arc<State>]>,
    /// Up to where the reader has read. While it sleeps: where it went to sleep.
    positions: Positions,
    /// Nobody is there, and the reader reads nothing.
    is_asleep: bool,
    /// Somebody woke the reader, who has to begin at `positions`.
    is_woken: bool,
    next_id: u64,
    /// What subscriptions that have ended have counted, by every name that is told apart.
    past: BTreeMap<String, SubscriptionNumbers>,
    /// Why the reader can't read at present.
    problem: Option<String>,
    is_closed: bool,
}

impl Registry {
    pub(super) fn new() -> Self {
        let inner = Inner {
            list: Arc::new([]),
            positions: Positions::new(),
            is_asleep: true,
            is_woken: false,
            next_id: 1,
            past: BTreeMap::new(),
            problem: None,
            is_closed: false,
        };
        Self { inner: Mutex::new(inner), awake: Notify::new() }
    }

    /// Adds a subscription, which does not get anything yet. `None` when the event bus is closed.
    pub(super) fn add(&self, make: impl FnOnce(SubscriptionId) -> State) -> Option<Arc<State>> {
        let mut inner = self.inner.lock();
        if inner.is_closed {
            return None;
        }
        let state = Arc::new(make(SubscriptionId(inner.next_id)));
        inner.next_id += 1;
        if inner.past.len() < MAX_NAMES {
            inner.past.entry(state.settings.name.clone()).or_default();
        }
        inner.list = inner.list.iter().chain([&state]).cloned().collect();
        Some(state)
    }

    pub(super) fn remove(&self, id: SubscriptionId) {
        let mut inner = self.inner.lock();
        let (gone, left): (Vec<_>, Vec<_>) = inner.list.iter().cloned().partition(|state| state.id == id);
        inner.list = left.into();
        for state in gone {
            numbers_of(&mut inner.past, &state).add_past(&state.snapshot());
        }
    }

    /// What all subscriptions have counted and hold, by name.
    pub(super) fn numbers(&self) -> BTreeMap<String, SubscriptionNumbers> {
        let inner = self.inner.lock();
        let mut numbers = inner.past.clone();
        for state in inner.list.iter() {
            numbers_of(&mut numbers, state).add(&state.snapshot());
        }
        numbers
    }

    pub(super) fn list(&self) -> Arc<[Arc<State>]> {
        Arc::clone(&self.inner.lock().list)
    }

    /// Lets a subscription that has had everything before `own` change over to the common reader. `false` if that is
    /// further: then there is still something to be read.
    pub(super) fn join(&self, state: &State, own: &Positions) -> bool {
        let mut inner = self.inner.lock();
        if inner.is_asleep {
            inner.positions = own.clone();
            inner.is_asleep = false;
            inner.is_woken = true;
            self.awake.notify_one();
        } else if inner.positions.iter().any(|(partition, at)| own.get(partition).is_none_or(|own| own < at))
        {
            return false;
        }
        let mut ahead = own.clone();
        ahead.retain(|partition, own| inner.positions.get(partition).is_none_or(|at| *at < *own));
        state.go_live(ahead);
        true
    }

    // For the reader.

    /// Goes to sleep if nobody is there, and then waits for somebody. Gives where to begin if it slept.
    pub(super) async fn sleep_if_alone(&self) -> Option<Positions> {
        loop {
            {
                let mut inner = self.inner.lock();
                if std::mem::take(&mut inner.is_woken) {
                    return Some(inner.positions.clone());
                }
                inner.is_asleep |= inner.list.is_empty();
                if !inner.is_asleep {
                    return None;
                }
            }
            self.awake.notified().await;
        }
    }

    pub(super) fn positions(&self) -> Positions {
        self.inner.lock().positions.clone()
    }

    /// The reader has this chunk and hands it to those in the list.
    pub(super) fn advance(&self, chunk: &Chunk) -> Arc<[Arc<State>]> {
        let mut inner = self.inner.lock();
        if let Some(at) = inner.positions.get_mut(&chunk.partition) {
            *at = chunk.next_offset;
        } else {
            inner.positions.insert(chunk.partition.clone(), chunk.next_offset);
        }
        Arc::clone(&inner.list)
    }

    /// Partitions that are new begin at their beginning. Gives all positions if there were any.
    pub(super) fn extend(&self, partitions: Positions) -> Option<Positions> {
        let mut inner = self.inner.lock();
        let before = inner.positions.len();
        for (partition, offset) in partitions {
            inner.positions.entry(partition).or_insert(offset);
        }
        (inner.positions.len() > before).then(|| inner.positions.clone())
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        self.inner.lock().problem = problem;
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.inner.lock().problem.clone()
    }

    /// Ends every subscription, after what it has queued; there will be no more.
    pub(super) fn close(&self) {
        let list = {
            let mut inner = self.inner.lock();
            inner.is_closed = true;
            Arc::clone(&inner.list)
        };
        for state in list.iter() {
            state.end(EndReason::Closed);
        }
    }
}

/// Where a subscription counts.
fn numbers_of<'a>(
    numbers: &'a mut BTreeMap<String, SubscriptionNumbers>,
    state: &State,
) -> &'a mut SubscriptionNumbers {
    let name = &state.settings.name;
    let name = if numbers.contains_key(name) { name } else { OTHER };
    numbers.entry(name.to_owned()).or_default()
}

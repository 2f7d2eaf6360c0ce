//! One subscription: its state, shared by the common reader, the task that runs its handler, and its handle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use farol_event::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::queue::{Portion, Queue};
use super::received::{Chunk, Received};
use super::settings::{EndReason, Overflow, SubscriptionSettings};
use crate::record::TopicPartition;

/// The next offset by partition.
pub(super) type Positions = BTreeMap<TopicPartition, i64>;

/// Identifies a subscription of one event bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub(super) u64);

/// A subscription, for as long as it is held: dropping it unsubscribes. [`Subscription::detach`] lets it go on without a
/// handle.
#[must_use = "dropping a subscription ends it"]
#[derive(Debug)]
pub struct Subscription {
    state: Arc<State>,
    ends_with_handle: bool,
}

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionSnapshot {
    /// Its id.
    pub id: SubscriptionId,
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Records that its handler has been through, whatever the outcome.
    pub delivered: u64,
    /// Of these: the handler gave an error back.
    pub failed: u64,
    /// The handler or the predicate panicked.
    pub panicked: u64,
    /// Records that its handler never gets, because it was too slow.
    pub dropped: u64,
    /// How often it left the common reader because its handler was too slow ([`Overflow::CatchUp`]).
    pub fell_behind: u64,
    /// Records that wait for it in memory.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Records between it and the end of its topics, as far as is known: those that wait in memory, or, while it catches
    /// up, in the log (wanted or not).
    pub lag_records: u64,
    /// When the oldest record that waits came to its topic.
    pub waiting_since: Option<Timestamp>,
}

/// Where a subscription is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It gets what the common reader reads.
    Live,
    /// It reads the log by itself until it has caught up.
    CatchingUp,
    /// It gets nothing any more.
    Ended(EndReason),
}

impl SubscriptionSnapshot {
    /// How long the oldest record that waits has been in its topic; zero if none waits.
    pub fn lag(&self, now: Timestamp) -> Duration {
        let micros = self.waiting_since.map_or(0, |since| now.as_micros().saturating_sub(since.as_micros()));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) id: SubscriptionId,
    pub(super) settings: SubscriptionSettings,
    inner: Mutex<Inner>,
    /// Something waits for the task.
    work: Notify,
    /// The queue has room again, or never will.
    room: Notify,
    ended: watch::Sender<bool>,
    delivered: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    dropped: AtomicU64,
    fell_behind: AtomicU64,
    /// While catching up: records to the end, and when the oldest of them came (or `i64::MIN`).
    behind: AtomicU64,
    behind_since_ms: AtomicI64,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    mode: Mode,
    /// Before these offsets it has had everything: they are passed over.
    skip: Positions,
    /// The task sleeps and wants to be woken.
    task_waits: bool,
    /// The reader waits for room.
    reader_waits: bool,
}

#[derive(Debug)]
enum Mode {
    Live,
    /// The common reader could not hand over what begins here; the task reads it itself, after what is queued.
    Behind(Positions),
    CatchingUp,
    Ended(EndReason),
}

/// What became of a chunk that was offered.
pub(super) enum Offered {
    /// It was taken, or is none of this subscription's business.
    Done,
    /// The reader has to wait until there is room for the rest.
    Wait(Portion),
}

/// What the task does next.
pub(super) enum Next {
    /// Handle this.
    Record(Received),
    /// Read from here by itself.
    CatchUp(Positions),
    /// Sleep until [`State::work`].
    Sleep,
    /// End.
    End,
}

impl State {
    pub(super) fn new(id: SubscriptionId, settings: SubscriptionSettings) -> Self {
        let inner = Inner {
            queue: Queue::new(settings.bounds),
            mode: Mode::CatchingUp,
            skip: Positions::new(),
            task_waits: false,
            reader_waits: false,
        };
        Self {
            id,
            settings,
            inner: Mutex::new(inner),
            work: Notify::new(),
            room: Notify::new(),
            ended: watch::Sender::new(false),
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            fell_behind: AtomicU64::new(0),
            behind: AtomicU64::new(0),
            behind_since_ms: AtomicI64::new(i64::MIN),
        }
    }

    // For the common reader.

    /// Hands a chunk over.
    pub(super) fn offer(&self, chunk: &Arc<Chunk>) -> Offered {
        let mut inner = self.inner.lock();
        if !matches!(inner.mode, Mode::Live) {
            return Offered::Done;
        }
        let start = inner.start_in(chunk);
        let portion = self.portion(chunk, start);
        if portion.is_empty() {
            return Offered::Done;
        }
        self.put(&mut inner, portion)
    }

    /// Hands over the rest of what was offered. `false` if there is still no room.
    pub(super) fn offer_rest(&self, portion: &mut Portion) -> bool {
        let mut inner = self.inner.lock();
        if !matches!(inner.mode, Mode::Live) {
            return true;
        }
        inner.queue.fill(portion);
        self.wake_task(&mut inner);
        inner.reader_waits = !portion.is_empty();
        portion.is_empty()
    }

    /// Waits until it is worth while to offer the rest again.
    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// The reader has waited for long enough: this subscription goes its own way from the rest on, or ends. `before` is where
    /// the reader stood before the chunk of the rest.
    pub(super) fn give_up_waiting(&self, rest: &Portion, before: &Positions) {
        let mut inner = self.inner.lock();
        inner.reader_waits = false;
        if !matches!(inner.mode, Mode::Live) || rest.is_empty() {
            return;
        }
        if self.settings.overflow == Overflow::CatchUp {
            self.fell_behind.fetch_add(1, Ordering::Relaxed);
            inner.mode = Mode::Behind(inner.resume_at(rest, before));
            self.wake_task(&mut inner);
        } else {
            self.end_overflowed(&mut inner, rest.len());
        }
    }

    /// What this subscription wants of a chunk, by type alone.
    pub(super) fn portion(&self, chunk: &Arc<Chunk>, start: usize) -> Portion {
        match &self.settings.types {
            None => Portion::from(chunk, start),
            Some(types) => Portion::picked(chunk, start, |index| {
                chunk.event_type(index).is_some_and(|event_type| types.contains(event_type))
            }),
        }
    }

    fn put(&self, inner: &mut Inner, mut portion: Portion) -> Offered {
        if self.settings.overflow == Overflow::DropOldest {
            self.count_dropped(inner.queue.fill_dropping_oldest(&mut portion));
        } else {
            inner.queue.fill(&mut portion);
        }
        let offered = if portion.is_empty() {
            Offered::Done
        } else {
            match self.settings.overflow {
                Overflow::Block { .. } | Overflow::CatchUp => {
                    inner.reader_waits = true;
                    Offered::Wait(portion)
                }
                Overflow::Disconnect => {
                    self.end_overflowed(inner, portion.len());
                    Offered::Done
                }
                Overflow::DropOldest | Overflow::DropNewest => {
                    self.count_dropped(portion.len());
                    Offered::Done
                }
            }
        };
        self.wake_task(inner);
        offered
    }

    fn end_overflowed(&self, inner: &mut Inner, dropped: usize) {
        self.count_dropped(dropped);
        if !matches!(inner.mode, Mode::Ended(_)) {
            inner.mode = Mode::Ended(EndReason::Overflowed);
            tracing::warn!(
                subscription = self.settings.name,
                dropped,
                "a handler was too slow for its queue; its subscription ends"
            );
        }
        self.wake_task(inner);
    }

    fn count_dropped(&self, dropped: usize) {
        if dropped > 0 {
            self.dropped.fetch_add(u64::try_from(dropped).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    fn wake_task(&self, inner: &mut Inner) {
        if std::mem::take(&mut inner.task_waits) {
            self.work.notify_one();
        }
    }

    // For the task.

    pub(super) fn next(&self) -> Next {
        let mut inner = self.inner.lock();
        if matches!(inner.mode, Mode::Ended(EndReason::Unsubscribed)) {
            return Next::End;
        }
        if let Some(received) = inner.queue.pop() {
            if std::mem::take(&mut inner.reader_waits) {
                self.room.notify_one();
            }
            return Next::Record(received);
        }
        match std::mem::replace(&mut inner.mode, Mode::CatchingUp) {
            Mode::Behind(positions) => Next::CatchUp(positions),
            Mode::Ended(reason) => {
                inner.mode = Mode::Ended(reason);
                Next::End
            }
            other => {
                inner.mode = other;
                inner.task_waits = true;
                Next::Sleep
            }
        }
    }

    pub(super) async fn work(&self) {
        self.work.notified().await;
    }

    /// Gets what the common reader reads from now on, but for what is before `positions`.
    pub(super) fn go_live(&self, positions: Positions) {
        let mut inner = self.inner.lock();
        if matches!(inner.mode, Mode::CatchingUp) {
            inner.mode = Mode::Live;
            inner.skip = positions;
        }
        self.behind.store(0, Ordering::Relaxed);
        self.behind_since_ms.store(i64::MIN, Ordering::Relaxed);
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.inner.lock().mode, Mode::Ended(_))
    }

    pub(super) fn is_unsubscribed(&self) -> bool {
        matches!(self.inner.lock().mode, Mode::Ended(EndReason::Unsubscribed))
    }

    /// How far it is from the end while it catches up.
    pub(super) fn is_behind(&self, records: u64, since_ms: i64) {
        self.behind.store(records, Ordering::Relaxed);
        self.behind_since_ms.store(since_ms, Ordering::Relaxed);
    }

    pub(super) fn handled(&self, failure: Option<&str>) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            self.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                subscription = self.settings.name,
                failure,
                "a handler failed; the next record follows"
            );
        }
    }

    pub(super) fn panicked(&self, text: &str, in_handler: bool) {
        self.delivered.fetch_add(u64::from(in_handler), Ordering::Relaxed);
        self.panicked.fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            subscription = self.settings.name,
            panic = text,
            "a handler panicked; the next record follows"
        );
    }

    /// The task has ended.
    pub(super) fn finished(&self) {
        let mut inner = self.inner.lock();
        if !matches!(inner.mode, Mode::Ended(_)) {
            inner.mode = Mode::Ended(EndReason::Closed);
        }
        inner.queue.clear();
        drop(inner);
        self.room.notify_one();
        self.ended.send_replace(true);
    }

    // For the handle and the bus.

    /// Nothing more is queued. What is queued is handled, unless the reason is that nobody wants it.
    pub(super) fn end(&self, reason: EndReason) {
        let mut inner = self.inner.lock();
        if !matches!(inner.mode, Mode::Ended(_)) {
            inner.mode = Mode::Ended(reason);
        }
        if reason == EndReason::Unsubscribed {
            inner.queue.clear();
        }
        drop(inner);
        self.work.notify_one();
        self.room.notify_one();
    }

    pub(super) async fn until_ended(&self) {
        // The sender lives in `self`, so waiting can't fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(super) fn snapshot(&self) -> SubscriptionSnapshot {
        let inner = self.inner.lock();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let queued = inner.queue.len();
        let behind_since = self.behind_since_ms.load(Ordering::Relaxed);
        let waiting_since = inner.queue.oldest_ms().or((behind_since != i64::MIN).then_some(behind_since));
        SubscriptionSnapshot {
            id: self.id,
            name: self.settings.name.clone(),
            phase: match inner.mode {
                Mode::Live => Phase::Live,
                Mode::Behind(_) | Mode::CatchingUp => Phase::CatchingUp,
                Mode::Ended(reason) => Phase::Ended(reason),
            },
            delivered: count(&self.delivered),
            failed: count(&self.failed),
            panicked: count(&self.panicked),
            dropped: count(&self.dropped),
            fell_behind: count(&self.fell_behind),
            queued,
            queued_bytes: inner.queue.bytes(),
            lag_records: count(&self.behind).saturating_add(u64::try_from(queued).unwrap_or(u64::MAX)),
            waiting_since: waiting_since.map(Timestamp::from_millis_clamped),
        }
    }
}

impl Inner {
    /// The first record of a chunk that it has not had yet.
    fn start_in(&mut self, chunk: &Chunk) -> usize {
        if self.skip.is_empty() {
            return 0;
        }
        let Some(until) = self.skip.get(&chunk.partition).copied() else { return 0 };
        if chunk.next_offset >= until {
            // What comes after this chunk is all new.
            self.skip.remove(&chunk.partition);
        }
        chunk.index_of(until)
    }

    /// Where to read on from when `portion` is the first that could not be taken.
    fn resume_at(&mut self, portion: &Portion, before: &Positions) -> Positions {
        let mut resume = before.clone();
        for (partition, offset) in std::mem::take(&mut self.skip) {
            let known = resume.entry(partition).or_insert(offset);
            *known = offset.max(*known);
        }
        if let Some(offset) = portion.first_offset() {
            resume.insert(portion.partition().clone(), offset);
        }
        resume
    }
}

impl Subscription {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, ends_with_handle: true }
    }

    /// Its id.
    pub fn id(&self) -> SubscriptionId {
        self.state.id
    }

    /// How it stands.
    pub fn snapshot(&self) -> SubscriptionSnapshot {
        self.state.snapshot()
    }

    /// Ends it. What waits is not handled any more; a call of the handler that is under way is let run to its end, which
    /// this waits for: afterwards the handler does nothing. So it must not be awaited in the handler itself; dropping
    /// may be done there.
    pub async fn unsubscribe(self) -> SubscriptionSnapshot {
        self.state.end(EndReason::Unsubscribed);
        self.state.until_ended().await;
        self.state.snapshot()
    }

    /// Lets it go on until the event bus ends. Its numbers are in the event bus's snapshots.
    pub fn detach(mut self) -> SubscriptionId {
        self.ends_with_handle = false;
        self.state.id
    }

    /// Returns when it has ended, for whatever reason, and its handler with it.
    pub async fn ended(&self) -> EndReason {
        self.state.until_ended().await;
        match self.state.snapshot().phase {
            Phase::Ended(reason) => reason,
            Phase::Live | Phase::CatchingUp => EndReason::Closed,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.ends_with_handle {
            self.state.end(EndReason::Unsubscribed);
        }
    }
}

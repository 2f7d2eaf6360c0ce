//! Bulkhead: bounds how many calls to one service are under way, so that a slow one can't take all of a program's threads,
//! connections and memory with it.
//!
//! A call needs a **permit**. If all are taken it waits in a queue, which is bounded ([`max_waiting`]) and fair: permits
//! go to those who wait in the order in which they came, whether they wait in async code or on a blocked thread, and a
//! newcomer never overtakes. It waits for a bounded time ([`max_wait`]). A permit is given back when it is dropped: at the
//! end of the call, when its future is dropped, or by a panic.
//!
//! Failures: [`Error::BulkheadFull`] if the queue is full, or if there is to be no waiting at all;
//! [`Error::BulkheadTimeout`] if no permit became free in time. In both cases the call wasn't made.
//!
//! Taking and giving back a free permit allocates nothing. Cancelling: dropping the future of an acquisition gives its
//! place in the queue back.
//!
//! The founding document's context manager:
//!
//! ```
//! use std::time::Duration;
//! use farol_resilience::Bulkhead;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! // RecursoBulkhead(nome="DatabasePool", tamanho_pool=10)
//! let bulkhead = Bulkhead::builder("DatabasePool").max_concurrent(10).build();
//!
//! // with bulkhead.adquirir_recurso(timeout_segundos=2.0) as recurso:
//! {
//!     let permit = bulkhead.acquire_within(Duration::from_secs(2)).await?;
//!     // ... what needs the resource ...
//!     println!("Tempo de uso: {:?}", permit.held_for());
//! } // given back here
//!
//! // bulkhead.obter_metricas()
//! assert_eq!(bulkhead.snapshot().count("permitted"), Some(1));
//! # Ok::<_, farol_resilience::Error<std::convert::Infallible>>(()) }).unwrap();
//! ```
//!
//! [`max_waiting`]: BulkheadBuilder::max_waiting
//! [`max_wait`]: BulkheadBuilder::max_wait

mod parked;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};

use crate::clock::{MonotonicTime, SharedClock, SystemClock};
use crate::error::Error;
use crate::gate::Gate;
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

/// Calls under way at once if nobody says otherwise.
pub const DEFAULT_MAX_CONCURRENT: usize = 10;

/// Calls that wait for a permit at once if nobody says otherwise.
pub const DEFAULT_MAX_WAITING: usize = 100;

/// How long a call waits for a permit if nobody says otherwise.
pub const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(5);

/// The most permits that a bulkhead can have.
pub const MAX_PERMITS: usize = Semaphore::MAX_PERMITS;

#[derive(Debug, Default)]
struct Counters {
    permitted: AtomicU64,
    permitted_after_wait: AtomicU64,
    rejected_full: AtomicU64,
    rejected_timeout: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    max_concurrent: usize,
    max_waiting: usize,
    max_wait: Duration,
    clock: SharedClock,
    /// tokio's semaphore is fair: a permit that comes back goes to whoever waits longest, and is free only if nobody waits.
    permits: Semaphore,
    waiting: Gate,
    counters: Counters,
}

/// A bulkhead. Clones are the same bulkhead.
#[derive(Clone)]
pub struct Bulkhead {
    shared: Arc<Shared>,
}

/// Settings of a [`Bulkhead`].
#[must_use]
pub struct BulkheadBuilder {
    name: Arc<str>,
    max_concurrent: usize,
    max_waiting: usize,
    max_wait: Duration,
    clock: SharedClock,
}

impl BulkheadBuilder {
    /// Calls under way at once. 10 by default; 0 counts as 1, more than [`MAX_PERMITS`] as so many.
    pub fn max_concurrent(mut self, calls: usize) -> Self {
        self.max_concurrent = calls.clamp(1, MAX_PERMITS);
        self
    }

    /// Calls that may wait for a permit at once. 100 by default; with 0 nobody waits.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// How long a call waits for a permit. 5 s by default; with zero nobody waits.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Where the bulkhead has the time from that a permit is held.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The bulkhead.
    pub fn build(self) -> Bulkhead {
        Bulkhead {
            shared: Arc::new(Shared {
                name: self.name,
                max_concurrent: self.max_concurrent,
                max_waiting: self.max_waiting,
                max_wait: self.max_wait,
                clock: self.clock,
                permits: Semaphore::new(self.max_concurrent),
                waiting: Gate::new(),
                counters: Counters::default(),
            }),
        }
    }
}

/// The right to have one call under way. Dropping it gives it back.
#[must_use = "a permit that is dropped at once protects nothing"]
pub struct Permit {
    shared: Arc<Shared>,
    acquired: MonotonicTime,
}

impl Permit {
    /// How long it has been held.
    pub fn held_for(&self) -> Duration {
        self.shared.clock.now().since(self.acquired)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.permits.add_permits(1);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("bulkhead", &self.shared.name).finish_non_exhaustive()
    }
}

/// A place in the queue. Dropping it gives it back.
pub(crate) struct Place {
    bulkhead: Bulkhead,
}

impl Place {
    /// Waits for a permit.
    pub(crate) async fn wait(self, max_wait: Duration) -> Result<Permit, Error<Infallible>> {
        let acquire = self.bulkhead.shared.permits.acquire();
        self.waited(tokio::time::timeout(max_wait, acquire).await.ok(), max_wait)
    }

    /// The same, holding the thread up.
    fn wait_blocking(self, max_wait: Duration) -> Result<Permit, Error<Infallible>> {
        let acquire = std::pin::pin!(self.bulkhead.shared.permits.acquire());
        self.waited(parked::wait_for(acquire, max_wait), max_wait)
    }

    fn waited(
        &self,
        acquired: Option<Result<SemaphorePermit<'_>, AcquireError>>,
        max_wait: Duration,
    ) -> Result<Permit, Error<Infallible>> {
        match acquired {
            Some(Ok(permit)) => Ok(self.bulkhead.permit_after_wait(permit)),
            // The semaphore is never closed.
            Some(Err(_)) => Err(self.bulkhead.full()),
            None => Err(self.bulkhead.timed_out(max_wait)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bulkhead.shared.waiting.give_back();
    }
}

/// What a call that asks for a permit gets.
pub(crate) enum Asked {
    Permit(Permit),
    Place(Place),
}

impl Bulkhead {
    /// A bulkhead with the defaults: 10 calls under way, 100 waiting for at most 5 s.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self::builder(name).build()
    }

    /// A bulkhead to be set up.
    pub fn builder(name: impl Into<Arc<str>>) -> BulkheadBuilder {
        BulkheadBuilder {
            name: name.into(),
            max_concurrent: DEFAULT_MAX_CONCURRENT,
            max_waiting: DEFAULT_MAX_WAITING,
            max_wait: DEFAULT_MAX_WAIT,
            clock: SystemClock::shared(),
        }
    }

    /// A permit if one is free, without waiting.
    pub fn try_acquire(&self) -> Result<Permit, Error<Infallible>> {
        self.take_free().ok_or_else(|| self.full())
    }

    /// A permit, if need be after waiting for as long as the bulkhead's setting says.
    pub async fn acquire(&self) -> Result<Permit, Error<Infallible>> {
        self.acquire_within(self.shared.max_wait).await
    }

    /// A permit, if need be after waiting for at most so long. Waiting needs a tokio runtime with time.
    pub async fn acquire_within(&self, max_wait: Duration) -> Result<Permit, Error<Infallible>> {
        match self.ask(max_wait)? {
            Asked::Permit(permit) => Ok(permit),
            Asked::Place(place) => place.wait(max_wait).await,
        }
    }

    /// The same as [`acquire`](Self::acquire) for code that isn't async: the thread is held up while it waits, in the same
    /// queue as async callers. Needs no runtime.
    pub fn acquire_blocking(&self) -> Result<Permit, Error<Infallible>> {
        self.acquire_blocking_within(self.shared.max_wait)
    }

    /// The same as [`acquire_within`](Self::acquire_within) for code that isn't async.
    pub fn acquire_blocking_within(&self, max_wait: Duration) -> Result<Permit, Error<Infallible>> {
        match self.ask(max_wait)? {
            Asked::Permit(permit) => Ok(permit),
            Asked::Place(place) => place.wait_blocking(max_wait),
        }
    }

    /// Makes the call with a permit.
    pub async fn call<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let _permit = self.acquire().await.map_err(Error::widen)?;
        operation().await.map_err(Error::Inner)
    }

    /// The same for an operation that isn't async; the thread is held up while it waits.
    pub fn call_blocking<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        let _permit = self.acquire_blocking().map_err(Error::widen)?;
        operation().map_err(Error::Inner)
    }

    #[inline]
    fn take_free(&self) -> Option<Permit> {
        let permit = self.shared.permits.try_acquire().ok()?;
        self.shared.counters.permitted.fetch_add(1, Ordering::Relaxed);
        Some(self.permit(permit))
    }

    /// A permit if one is free, or else a place in the queue.
    #[inline]
    pub(crate) fn ask(&self, max_wait: Duration) -> Result<Asked, Error<Infallible>> {
        match self.take_free() {
            Some(permit) => Ok(Asked::Permit(permit)),
            None => self.queue(max_wait).map(Asked::Place),
        }
    }

    fn queue(&self, max_wait: Duration) -> Result<Place, Error<Infallible>> {
        let shared = &*self.shared;
        if max_wait.is_zero() || !shared.waiting.try_take(shared.max_waiting as u64) {
            return Err(self.full());
        }
        Ok(Place { bulkhead: self.clone() })
    }

    /// The semaphore's permit as one of the bulkhead's own, which outlives the borrow.
    #[inline]
    fn permit(&self, permit: SemaphorePermit<'_>) -> Permit {
        let acquired = self.shared.clock.now();
        // Last: a clock that panics must not keep it.
        permit.forget();
        Permit { shared: self.shared.clone(), acquired }
    }

    fn permit_after_wait(&self, permit: SemaphorePermit<'_>) -> Permit {
        self.shared.counters.permitted.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.permitted_after_wait.fetch_add(1, Ordering::Relaxed);
        self.permit(permit)
    }

    #[cold]
    fn full(&self) -> Error<Infallible> {
        self.shared.counters.rejected_full.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(name = %self.shared.name, "bulkhead and its queue are full");
        Error::BulkheadFull { name: self.shared.name.clone() }
    }

    #[cold]
    fn timed_out(&self, waited: Duration) -> Error<Infallible> {
        self.shared.counters.rejected_timeout.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(name = %self.shared.name, ?waited, "no permit of the bulkhead became free");
        Error::BulkheadTimeout { name: self.shared.name.clone(), waited }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// How long a call waits for a permit.
    pub fn max_wait(&self) -> Duration {
        self.shared.max_wait
    }

    /// Permits that are taken.
    pub fn active(&self) -> usize {
        self.shared.max_concurrent.saturating_sub(self.available())
    }

    /// Permits that are free. More may be asked for at any moment.
    pub fn available(&self) -> usize {
        self.shared.permits.available_permits()
    }

    /// Callers that wait for a permit.
    pub fn waiting(&self) -> usize {
        usize::try_from(self.shared.waiting.taken()).unwrap_or(usize::MAX)
    }

    /// The bulkhead as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that asked for a permit, by answer";
        let shared = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let calls = |kind, counter| Counter::of_kind("calls", kind, CALLS, read(counter));
        let (active, max) = (self.active(), shared.max_concurrent);
        PolicySnapshot::new(PolicyKind::Bulkhead, shared.name.clone())
            .counter(calls("permitted", &shared.counters.permitted))
            .counter(calls("rejected_full", &shared.counters.rejected_full))
            .counter(calls("rejected_timeout", &shared.counters.rejected_timeout))
            .counter(Counter::total(
                "waited_calls",
                "Calls that got their permit after waiting",
                read(&shared.counters.permitted_after_wait),
            ))
            .gauge("active_calls", "Permits that are taken", active as f64)
            .gauge("waiting_calls", "Calls that wait for a permit", self.waiting() as f64)
            .gauge("max_concurrent_calls", "Permits in all", max as f64)
            .gauge("utilization", "Taken permits of all, 0 to 1", active as f64 / max as f64)
            .setting("max_concurrent", max)
            .setting("max_waiting", shared.max_waiting)
            .setting("max_wait", format_args!("{:?}", shared.max_wait))
    }
}

impl Policy for Bulkhead {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Bulkhead
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        Self::snapshot(self)
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("name", &self.shared.name)
            .field("active", &self.active())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

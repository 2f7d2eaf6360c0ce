//! Rate limiter: bounds calls per time, and lets a short burst through at once.
//!
//! A call that comes too early is either rejected ([`Error::RateLimited`], which tells when there is allowance again) or
//! waits, if it need not wait for longer than [`max_wait`](RateLimiterBuilder::max_wait). Whoever waits has its turn
//! already: turns are given in the order of asking, nobody overtakes and nobody asks twice.
//!
//! The state is one atomic number (the generic cell rate algorithm), so a call takes no lock, allocates nothing, and a
//! limiter that nobody calls does nothing. Turns that wait are not counted one by one: there are at most
//! `max_wait × rate` of them.
//!
//! Cancelling: the turn of a caller that is dropped while it waits is given back if no other was given after it;
//! otherwise it is lost, so that nobody's turn moves.
//!
//! ```
//! use std::time::Duration;
//! use farol_resilience::{Error, RateLimiter};
//!
//! // 10 requests a second, as many at once.
//! let limiter = RateLimiter::builder("api", 10, Duration::from_secs(1)).build();
//! for _ in 0..10 {
//!     limiter.call_blocking(|| Ok::<_, ()>(())).unwrap();
//! }
//! let refused = limiter.call_blocking(|| Ok::<_, ()>(())).unwrap_err();
//! assert!(refused.is_rejected());
//! assert!(refused.retry_after().unwrap() <= Duration::from_millis(100));
//! ```

mod gcra;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{SharedClock, SystemClock, nanos};
use crate::error::Error;
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

use gcra::{Arrival, Rate, Turn};

#[derive(Debug, Default)]
struct Counters {
    permitted: AtomicU64,
    permitted_after_wait: AtomicU64,
    rejected: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    rate: Rate,
    max_wait: Duration,
    clock: SharedClock,
    /// Theoretical arrival time of the next call, in the clock's nanoseconds.
    arrival: Arrival,
    counters: Counters,
    calls: u32,
    period: Duration,
    burst: u32,
}

/// A rate limiter. Clones are the same limiter.
#[derive(Clone)]
pub struct RateLimiter {
    shared: Arc<Shared>,
}

/// Settings of a [`RateLimiter`].
#[must_use]
pub struct RateLimiterBuilder {
    name: Arc<str>,
    calls: u32,
    period: Duration,
    burst: u32,
    max_wait: Duration,
    clock: SharedClock,
}

impl RateLimiterBuilder {
    /// Calls that may go at once after a pause. As many as there may be in a period by default; 0 counts as 1.
    pub fn burst(mut self, calls: u32) -> Self {
        self.burst = calls.max(1);
        self
    }

    /// How long a call may wait for its turn. By default it doesn't wait and is rejected.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Where the limiter has the time from. Async waiting is by tokio's timers.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The limiter.
    pub fn build(self) -> RateLimiter {
        RateLimiter {
            shared: Arc::new(Shared {
                name: self.name,
                rate: Rate::new(self.calls, self.period, self.burst),
                max_wait: self.max_wait,
                clock: self.clock,
                arrival: Arrival::new(),
                counters: Counters::default(),
                calls: self.calls,
                period: self.period,
                burst: self.burst,
            }),
        }
    }
}

/// A turn that is waited for. Given back when it is dropped, if it is the last that was given.
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    /// `None` once it was taken.
    turn: Option<Turn>,
}

impl Waiting {
    fn duration(&self) -> Duration {
        Duration::from_nanos(self.turn.map_or(0, |turn| turn.wait))
    }

    /// Waits by tokio's timers.
    pub(crate) async fn wait(self) {
        tokio::time::sleep(self.duration()).await;
        self.take();
    }

    /// The wait is over.
    fn take(mut self) {
        self.turn = None;
        self.shared.counters.permitted_after_wait.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.permitted.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(turn) = self.turn {
            self.shared.arrival.give_back(turn);
        }
    }
}

impl RateLimiter {
    /// A limiter that lets `calls` per `period` through, as many of them at once, and rejects the others.
    pub fn new(name: impl Into<Arc<str>>, calls: u32, period: Duration) -> Self {
        Self::builder(name, calls, period).build()
    }

    /// A limiter for `calls` per `period`, to be set up. 0 calls count as 1, and intervals are at least a nanosecond.
    pub fn builder(name: impl Into<Arc<str>>, calls: u32, period: Duration) -> RateLimiterBuilder {
        let calls = calls.max(1);
        RateLimiterBuilder {
            name: name.into(),
            calls,
            period,
            burst: calls,
            max_wait: Duration::ZERO,
            clock: SystemClock::shared(),
        }
    }

    /// Uses one call of the allowance if there is one now.
    pub fn try_acquire(&self) -> Result<(), Error<Infallible>> {
        // A turn without a wait is taken.
        self.turn(Duration::ZERO).map(|_| ())
    }

    /// Uses one call of the allowance, if need be after waiting for as long as the limiter's setting says.
    pub async fn acquire(&self) -> Result<(), Error<Infallible>> {
        if let Some(turn) = self.turn(self.shared.max_wait)? {
            turn.wait().await;
        }
        Ok(())
    }

    /// The same for code that isn't async; the thread is held up while it waits.
    pub fn acquire_blocking(&self) -> Result<(), Error<Infallible>> {
        if let Some(turn) = self.turn(self.shared.max_wait)? {
            self.shared.clock.sleep_blocking(turn.duration());
            turn.take();
        }
        Ok(())
    }

    /// Makes the call when it is its turn.
    pub async fn call<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.acquire().await.map_err(Error::widen)?;
        operation().await.map_err(Error::Inner)
    }

    /// The same for an operation that isn't async.
    pub fn call_blocking<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>> {
        self.acquire_blocking().map_err(Error::widen)?;
        operation().map_err(Error::Inner)
    }

    /// A turn as the limiter's setting says.
    #[cfg(feature = "tower")]
    pub(crate) fn ask(&self) -> Result<Option<Waiting>, Error<Infallible>> {
        self.turn(self.shared.max_wait)
    }

    /// A turn that has to be waited for, or `None` if the call may go at once.
    fn turn(&self, max_wait: Duration) -> Result<Option<Waiting>, Error<Infallible>> {
        let shared = &*self.shared;
        let now = shared.clock.now().as_nanos();
        let turn = shared.arrival.next_turn(shared.rate, now, nanos(max_wait));
        let turn = turn.map_err(|wait| self.rejected(Duration::from_nanos(wait)))?;
        if turn.wait > 0 {
            return Ok(Some(Waiting { shared: self.shared.clone(), turn: Some(turn) }));
        }
        shared.counters.permitted.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    #[cold]
    fn rejected(&self, retry_after: Duration) -> Error<Infallible> {
        self.shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(name = %self.shared.name, ?retry_after, "call over the rate limit");
        Error::RateLimited { name: self.shared.name.clone(), retry_after }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// The limiter as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that asked for their turn, by answer";
        let shared = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let free = shared.rate.free(shared.arrival.time(), shared.clock.now().as_nanos());
        PolicySnapshot::new(PolicyKind::RateLimiter, shared.name.clone())
            .counter(Counter::of_kind("calls", "permitted", CALLS, read(&shared.counters.permitted)))
            .counter(Counter::of_kind("calls", "rejected", CALLS, read(&shared.counters.rejected)))
            .counter(Counter::total(
                "waited_calls",
                "Calls that went after waiting for their turn",
                read(&shared.counters.permitted_after_wait),
            ))
            .gauge("available_calls", "Calls that could go at once", free as f64)
            .setting("calls", shared.calls)
            .setting("period", format_args!("{:?}", shared.period))
            .setting("burst", shared.burst)
            .setting("max_wait", format_args!("{:?}", shared.max_wait))
    }
}

impl Policy for RateLimiter {
    fn kind(&self) -> PolicyKind {
        PolicyKind::RateLimiter
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        Self::snapshot(self)
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock, MonotonicTime, TokioClock};

    const SECOND: Duration = Duration::from_secs(1);

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn calls_over_the_rate_are_rejected_and_told_when_to_come_back() {
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder("api", 10, SECOND).burst(2).clock(clock.shared()).build();
        limiter.try_acquire().unwrap();
        limiter.try_acquire().unwrap();
        let refused = limiter.call_blocking(|| Ok::<_, ()>(())).unwrap_err();
        assert_eq!(refused, Error::RateLimited { name: "api".into(), retry_after: ms(100) });
        clock.advance(refused.retry_after().unwrap());
        limiter.try_acquire().unwrap();
        let counts = ["permitted", "rejected"].map(|kind| limiter.snapshot().count(kind));
        assert_eq!(counts, [Some(3), Some(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_wait_go_one_an_interval_in_the_order_of_asking() {
        let clock = TokioClock::shared();
        let began = clock.now();
        let limiter =
            RateLimiter::builder("api", 10, SECOND).burst(1).max_wait(ms(250)).clock(clock.clone()).build();
        let mut calls = tokio::task::JoinSet::new();
        for caller in 0..5 {
            let (limiter, clock) = (limiter.clone(), clock.clone());
            calls.spawn(async move {
                (caller, limiter.acquire().await.is_ok(), clock.now().since(began).as_millis())
            });
        }
        let mut ended = calls.join_all().await;
        ended.sort_unstable();
        // tokio's timers round up to the next millisecond.
        assert_eq!(ended, [(0, true, 0), (1, true, 100), (2, true, 200), (3, false, 0), (4, false, 0)]);
        assert_eq!(limiter.snapshot().count("waited_calls"), Some(2));
    }

    #[test]
    fn a_blocking_caller_sleeps_by_the_clock_until_its_turn() {
        let clock = ManualClock::new();
        let limiter =
            RateLimiter::builder("api", 10, SECOND).burst(1).max_wait(SECOND).clock(clock.shared()).build();
        for _ in 0..3 {
            limiter.call_blocking(|| Ok::<_, ()>(())).unwrap();
        }
        assert_eq!(clock.now().since(MonotonicTime::ZERO), ms(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_given_up_is_given_back_if_it_was_the_last() {
        let limiter = RateLimiter::builder("api", 10, SECOND)
            .burst(1)
            .max_wait(SECOND)
            .clock(TokioClock::shared())
            .build();
        limiter.acquire().await.unwrap();
        assert!(tokio::time::timeout(ms(10), limiter.acquire()).await.is_err());
        tokio::time::timeout(ms(95), limiter.acquire()).await.expect("the turn was free again").unwrap();
        assert_eq!(limiter.snapshot().count("permitted"), Some(2));
    }

    #[test]
    fn threads_together_get_no_more_than_the_burst() {
        let limiter = RateLimiter::builder("api", 1_000, SECOND).clock(ManualClock::new().shared()).build();
        let permitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..500).filter(|_| limiter.try_acquire().is_ok()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(permitted, 1_000);
    }
}

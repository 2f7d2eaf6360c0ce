//! Adaptive concurrency limit: bounds how many calls are under way by how the service answers, where nobody knows the
//! right number for a bulkhead, or it changes.
//!
//! Each call that ends gives a sample: how long it took, how many were under way with it, and whether the service dropped
//! it. An [`Algorithm`] moves the limit by these. A call over the limit is rejected at once ([`Error::LimitExceeded`]):
//! there is no queue, because a queue in front of an overloaded service only makes answers later.
//!
//! What counts as dropped is judged by a [`Classify`]: a failure is a drop, a success a sample, anything else nothing. By
//! default every `Err` is a failure; if your service also answers errors that say nothing of its load, tell them apart
//! with [`classify`](AdaptiveLimiter::classify). A call that is given up (its future dropped) or panics is no sample.
//!
//! Asking for a permit is one atomic operation; giving it back takes a short lock in which the new limit is computed.
//!
//! ```
//! use farol_resilience::AdaptiveLimiter;
//!
//! let limiter = AdaptiveLimiter::builder("search").initial(10).min(1).max(100).build();
//! assert_eq!(limiter.call_blocking(|| Ok::<_, ()>(7)), Ok(7));
//! assert_eq!(limiter.snapshot().count("successful"), Some(1));
//! ```

mod limit;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use limit::Algorithm;

use crate::classify::{AnyError, Classify, Verdict};
use crate::clock::{MonotonicTime, SharedClock, SystemClock};
use crate::error::Error;
use crate::gate::Gate;
use crate::held::Held;
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

use limit::{Limit, Sample};

/// The limit to begin with if nobody says otherwise.
pub const DEFAULT_INITIAL: usize = 20;

/// The lowest limit if nobody says otherwise.
pub const DEFAULT_MIN: usize = 1;

/// The highest limit if nobody says otherwise.
pub const DEFAULT_MAX: usize = 1000;

#[derive(Debug, Default)]
struct Counters {
    successful: AtomicU64,
    dropped: AtomicU64,
    ignored: AtomicU64,
    rejected: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    clock: SharedClock,
    /// What calls are admitted by; a copy of the limit below.
    limit: AtomicUsize,
    in_flight: Gate,
    state: Mutex<Limit>,
    counters: Counters,
    algorithm: Algorithm,
    min: usize,
    max: usize,
}

/// An adaptive limiter. Clones are the same limiter.
#[derive(Clone)]
pub struct AdaptiveLimiter<C = AnyError> {
    shared: Arc<Shared>,
    classify: C,
}

/// Settings of an [`AdaptiveLimiter`].
#[must_use]
pub struct AdaptiveLimiterBuilder {
    name: Arc<str>,
    algorithm: Algorithm,
    initial: usize,
    min: usize,
    max: usize,
    clock: SharedClock,
}

impl AdaptiveLimiterBuilder {
    /// How the limit is found. [`Algorithm::AIMD`] by default.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The limit to begin with. 20 by default.
    pub fn initial(mut self, limit: usize) -> Self {
        self.initial = limit;
        self
    }

    /// The lowest limit. 1 by default, and never less.
    pub fn min(mut self, limit: usize) -> Self {
        self.min = limit.max(1);
        self
    }

    /// The highest limit. 1000 by default; less than the lowest counts as that.
    pub fn max(mut self, limit: usize) -> Self {
        self.max = limit;
        self
    }

    /// Where the limiter has the time from.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The limiter.
    pub fn build(self) -> AdaptiveLimiter {
        let limit = Limit::new(self.algorithm, self.initial, self.min, self.max);
        AdaptiveLimiter {
            shared: Arc::new(Shared {
                name: self.name,
                clock: self.clock,
                limit: AtomicUsize::new(limit.limit()),
                in_flight: Gate::new(),
                state: Mutex::new(limit),
                counters: Counters::default(),
                algorithm: self.algorithm,
                min: self.min,
                max: self.max.max(self.min),
            }),
            classify: AnyError,
        }
    }
}

/// The right to have one call under way, and the duty to say how it ended. Dropped without that it is no sample.
#[must_use = "a permit that is dropped at once protects nothing"]
pub struct AdaptivePermit {
    shared: Arc<Shared>,
    began: MonotonicTime,
    verdict: Verdict,
}

impl AdaptivePermit {
    /// The call ended like that.
    pub fn settle(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Held for AdaptivePermit {}

impl Drop for AdaptivePermit {
    fn drop(&mut self) {
        let shared = &*self.shared;
        let in_flight = usize::try_from(shared.in_flight.give_back()).unwrap_or(usize::MAX);
        let counter = match self.verdict {
            Verdict::Success => &shared.counters.successful,
            Verdict::Failure => &shared.counters.dropped,
            Verdict::Ignored => &shared.counters.ignored,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if self.verdict == Verdict::Ignored {
            return;
        }
        let now = shared.clock.now();
        let sample = Sample {
            began: self.began,
            latency: now.since(self.began),
            in_flight,
            dropped: self.verdict == Verdict::Failure,
        };
        let mut state = shared.state.lock();
        let before = state.limit();
        let after = state.observe(&sample, now);
        // Under the lock, so that of two samples the later one has its way.
        shared.limit.store(after, Ordering::Release);
        drop(state);
        if after < before {
            tracing::debug!(name = %shared.name, before, after, "concurrency limit lowered");
        }
    }
}

impl fmt::Debug for AdaptivePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptivePermit").field("limiter", &self.shared.name).finish_non_exhaustive()
    }
}

impl AdaptiveLimiter {
    /// A limiter with the defaults: AIMD, from 20, between 1 and 1000.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self::builder(name).build()
    }

    /// A limiter to be set up.
    pub fn builder(name: impl Into<Arc<str>>) -> AdaptiveLimiterBuilder {
        AdaptiveLimiterBuilder {
            name: name.into(),
            algorithm: Algorithm::AIMD,
            initial: DEFAULT_INITIAL,
            min: DEFAULT_MIN,
            max: DEFAULT_MAX,
            clock: SystemClock::shared(),
        }
    }
}

impl<C> AdaptiveLimiter<C> {
    /// The same limiter, with something else to judge results.
    pub fn classify<D>(self, classify: D) -> AdaptiveLimiter<D> {
        AdaptiveLimiter { shared: self.shared, classify }
    }

    /// A permit if fewer calls are under way than the limit.
    pub fn try_acquire(&self) -> Result<AdaptivePermit, Error<Infallible>> {
        let shared = &*self.shared;
        let limit = shared.limit.load(Ordering::Acquire);
        if !shared.in_flight.try_take(limit as u64) {
            shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(name = %shared.name, limit, "call over the concurrency limit");
            return Err(Error::LimitExceeded { name: shared.name.clone(), limit });
        }
        let began = shared.clock.now();
        Ok(AdaptivePermit { shared: self.shared.clone(), began, verdict: Verdict::Ignored })
    }

    /// Makes the call unless too many are under way.
    pub async fn call<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        let permit = self.try_acquire().map_err(Error::widen)?;
        let result = operation().await;
        permit.settle(self.classify.classify(&result));
        result.map_err(Error::Inner)
    }

    /// The same for an operation that isn't async.
    pub fn call_blocking<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>>
    where
        C: Classify<T, E>,
    {
        let permit = self.try_acquire().map_err(Error::widen)?;
        let result = operation();
        permit.settle(self.classify.classify(&result));
        result.map_err(Error::Inner)
    }

    /// What results are judged by.
    pub(crate) fn classifier(&self) -> &C {
        &self.classify
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// The limit now.
    pub fn limit(&self) -> usize {
        self.shared.limit.load(Ordering::Acquire)
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.shared.in_flight.taken()).unwrap_or(usize::MAX)
    }

    /// The limiter as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that ended, by what they said about the service";
        let shared = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let calls = |kind, counter| Counter::of_kind("calls", kind, CALLS, read(counter));
        let baseline = shared.state.lock().baseline().unwrap_or_default();
        PolicySnapshot::new(PolicyKind::AdaptiveLimiter, shared.name.clone())
            .counter(calls("successful", &shared.counters.successful))
            .counter(calls("dropped", &shared.counters.dropped))
            .counter(calls("ignored", &shared.counters.ignored))
            .counter(Counter::total(
                "rejected_calls",
                "Calls over the limit",
                read(&shared.counters.rejected),
            ))
            .gauge("limit", "Calls that may be under way", self.limit() as f64)
            .gauge("active_calls", "Calls that are under way", self.in_flight() as f64)
            .gauge(
                "baseline_seconds",
                "Latency without a queue, as far as it is known (0: not measured)",
                baseline.as_secs_f64(),
            )
            .setting("algorithm", shared.algorithm)
            .setting("min", shared.min)
            .setting("max", shared.max)
    }
}

impl<C: Send + Sync + 'static> Policy for AdaptiveLimiter<C> {
    fn kind(&self) -> PolicyKind {
        PolicyKind::AdaptiveLimiter
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        Self::snapshot(self)
    }
}

impl<C> fmt::Debug for AdaptiveLimiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveLimiter")
            .field("name", &self.shared.name)
            .field("limit", &self.limit())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use std::time::Duration;

    #[test]
    fn calls_over_the_limit_are_rejected_and_failures_lower_it() {
        let clock = ManualClock::new();
        let limiter = AdaptiveLimiter::builder("search").initial(2).clock(clock.shared()).build();
        let permits = [limiter.try_acquire().unwrap(), limiter.try_acquire().unwrap()];
        let refused = limiter.try_acquire().unwrap_err();
        assert_eq!(refused, Error::LimitExceeded { name: "search".into(), limit: 2 });
        clock.advance(Duration::from_millis(10));
        permits.into_iter().for_each(|permit| permit.settle(Verdict::Failure));
        assert_eq!(limiter.limit(), 1);
        let kinds = ["successful", "dropped", "ignored", "rejected_calls"];
        assert_eq!(kinds.map(|kind| limiter.snapshot().count(kind)), [0, 2, 0, 1].map(Some));
    }

    #[test]
    fn errors_that_say_nothing_of_the_load_leave_the_limit_alone() {
        let judge = |result: &Result<(), u16>| match result {
            Ok(()) => Verdict::Success,
            Err(503) => Verdict::Failure,
            Err(_) => Verdict::Ignored,
        };
        let limiter = AdaptiveLimiter::builder("search").initial(10).build().classify(judge);
        assert_eq!(limiter.call_blocking(|| Err(404)), Err(Error::Inner(404)));
        assert_eq!(limiter.limit(), 10);
        assert_eq!(limiter.call_blocking(|| Err(503)), Err(Error::Inner(503)));
        assert_eq!(limiter.limit(), 9);
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_frees_its_place_and_is_no_sample() {
        let limiter = AdaptiveLimiter::builder("search").initial(1).build();
        let mut call = Box::pin(limiter.call(std::future::pending::<Result<(), ()>>));
        assert!(poll_once(call.as_mut()).is_pending());
        assert_eq!(limiter.in_flight(), 1);
        drop(call);
        assert_eq!((limiter.in_flight(), limiter.limit()), (0, 1));
        assert_eq!(limiter.snapshot().count("ignored"), Some(1));
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn there_are_never_more_calls_under_way_than_the_highest_limit_on_any_threads() {
        let limiter = AdaptiveLimiter::builder("search").initial(4).max(4).build();
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (limiter, under_way, most) = (&limiter, &under_way, &most);
                scope.spawn(move || {
                    for call in 0..5_000 {
                        let _ = limiter.call_blocking(|| {
                            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            under_way.fetch_sub(1, Ordering::SeqCst);
                            if (thread + call) % 7 == 0 { Err(()) } else { Ok(()) }
                        });
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 4);
        assert_eq!(limiter.in_flight(), 0);
    }
}

//! How a retry is set up.

use std::sync::Arc;
use std::time::Duration;

use super::{
    AnyFailure, Counters, Decision, Idempotency, Jitter, Retry, RetryBudget, Schedule, ServerDelay, Shared,
    When, WhenError,
};
use crate::clock::{SharedClock, SystemClock};
use crate::random::{SharedRandom, SplitMix64};

/// Settings of a [`Retry`].
#[must_use]
pub struct RetryBuilder<D = AnyFailure> {
    name: Arc<str>,
    schedule: Schedule,
    idempotency: Idempotency,
    retry_rejected: bool,
    budget: Option<RetryBudget>,
    clock: SharedClock,
    random: SharedRandom,
    decide: D,
}

impl<D> RetryBuilder<D> {
    pub(super) fn new(name: Arc<str>, idempotency: Idempotency, decide: D) -> Self {
        Self {
            name,
            schedule: Schedule::default(),
            idempotency,
            retry_rejected: false,
            budget: None,
            clock: SystemClock::shared(),
            random: SplitMix64::from_entropy().shared(),
            decide,
        }
    }

    /// Tries at most, the first one included. 3 by default; 0 counts as 1, `u32::MAX` is no limit in practice.
    pub fn max_tries(mut self, tries: u32) -> Self {
        self.schedule.max_tries = tries;
        self
    }

    /// The delay before the first retry, before jitter. 100 ms by default.
    pub fn initial_delay(mut self, delay: Duration) -> Self {
        self.schedule.backoff.initial = delay;
        self
    }

    /// What each delay grows by. 2 by default; less than 1 counts as 1.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.schedule.backoff.multiplier = multiplier;
        self
    }

    /// No delay of the backoff is longer. 5 s by default.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.schedule.backoff.max = delay;
        self
    }

    /// How delays are spread. [`Jitter::Full`] by default.
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.schedule.backoff.jitter = jitter;
        self
    }

    /// No retry begins later than this after the call began. No limit by default.
    pub fn max_elapsed(mut self, elapsed: Duration) -> Self {
        self.schedule.max_elapsed = Some(elapsed);
        self
    }

    /// The longest pause that a server may ask for; if it asks for a longer one, the call fails at once. 60 s by default.
    pub fn max_server_delay(mut self, delay: Duration) -> Self {
        self.schedule.max_server_delay = delay;
        self
    }

    /// The whole schedule at once.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Retries are taken out of this budget, which other retries may share. None by default.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Also asks again after another policy inside this one refused. Off by default: it refused in order to keep load
    /// away, and a bulkhead or rate limiter has a wait of its own. If the policy knows when it will accept calls again, the
    /// delay is no shorter. A refusal is no try: with a [`max_elapsed`](Self::max_elapsed) it uses up only time; without
    /// one it counts among the tries, or it could go on for ever.
    pub fn retry_rejected(mut self, retry: bool) -> Self {
        self.retry_rejected = retry;
        self
    }

    /// Where the retry has the time from.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Where jitter has its randomness from.
    pub fn random(mut self, random: SharedRandom) -> Self {
        self.random = random;
        self
    }

    /// Results that the predicate is true for are tried again; it sees successes, too.
    ///
    /// ```
    /// # use farol_resilience::Retry;
    /// # #[derive(Debug)] struct NoConnection;
    /// let retry = Retry::idempotent("api")
    ///     .when(|answer: &Result<u16, NoConnection>| !matches!(answer, Ok(status) if *status < 500))
    ///     .build();
    /// # assert_eq!(retry.call_blocking(|| Ok(404)).unwrap(), 404);
    /// ```
    pub fn when<T, E, F: Fn(&Result<T, E>) -> bool>(self, predicate: F) -> RetryBuilder<When<F>> {
        self.with_decide(When(predicate))
    }

    /// Errors that the predicate is true for are tried again.
    pub fn when_error<E, F: Fn(&E) -> bool>(self, predicate: F) -> RetryBuilder<WhenError<F>> {
        self.with_decide(WhenError(predicate))
    }

    /// What decides about every result, where that is no closure.
    pub fn judge_by<N>(self, decide: N) -> RetryBuilder<N> {
        self.with_decide(decide)
    }

    /// The closure decides about every result.
    pub fn decide<T, E, F: Fn(&Result<T, E>) -> Decision>(self, decide: F) -> RetryBuilder<F> {
        self.with_decide(decide)
    }

    /// How an error tells that the server asked for a pause; [`parse_retry_after`](super::parse_retry_after) reads the header. Which errors are
    /// tried again stays as it was.
    pub fn server_delay<E, F: Fn(&E) -> Option<Duration>>(self, delay: F) -> RetryBuilder<ServerDelay<D, F>> {
        let (decide, rest) = self.split();
        rest.with_decide(ServerDelay { decide, delay })
    }

    fn split(self) -> (D, RetryBuilder<()>) {
        let Self { name, schedule, idempotency, retry_rejected, budget, clock, random, decide } = self;
        let rest =
            RetryBuilder { name, schedule, idempotency, retry_rejected, budget, clock, random, decide: () };
        (decide, rest)
    }

    fn with_decide<N>(self, decide: N) -> RetryBuilder<N> {
        let Self { name, schedule, idempotency, retry_rejected, budget, clock, random, .. } = self;
        RetryBuilder { name, schedule, idempotency, retry_rejected, budget, clock, random, decide }
    }

    /// The retry.
    pub fn build(self) -> Retry<D> {
        Retry {
            shared: Arc::new(Shared {
                name: self.name,
                schedule: self.schedule,
                idempotency: self.idempotency,
                retry_rejected: self.retry_rejected,
                budget: self.budget,
                clock: self.clock,
                random: self.random,
                counters: Counters::default(),
                decide: self.decide,
            }),
        }
    }
}

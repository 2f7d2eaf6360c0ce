//! Tries a failed operation again.
//!
//! An operation that is tried again may be carried out twice: an error doesn't say that nothing happened, only that no
//! good answer came. So whoever builds a retry has to say which of the two holds: the operation may be repeated
//! ([`Retry::idempotent`]), or it may not, and then only errors that prove that it wasn't carried out are tried again
//! ([`Retry::not_idempotent`]).
//!
//! When to try again is decided by a [`Schedule`], which is pure; whether an error is worth it by a [`RetryIf`]; whether
//! all callers together may still retry by a [`RetryBudget`], if there is one.
//!
//! Limits: a call makes at most `max_tries` tries, and begins none later than `max_elapsed`. It doesn't cut a try off:
//! put a [`Timeout`](crate::Timeout) inside. A call without a failure reads no clock (unless `max_elapsed` is set), takes
//! no lock and allocates nothing.
//!
//! Where a closure doesn't fit (each try is to be told of, the wait can be cut short), the loop is the caller's own and
//! [`Tries`] says when to try again.
//!
//! Cancelling: a call whose future is dropped makes no further try; a try under way is dropped with it. Nothing has to be
//! given back, a retry that was taken out of the budget stays taken. Such a call is in no counter but `retries`.
//!
//! The founding document's `RetryExecutor(RetryStrategy(...))`:
//!
//! ```
//! use std::time::Duration;
//! use farol_resilience::Retry;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let retry = Retry::idempotent("unstable-operation")
//!     .max_tries(3)
//!     .initial_delay(Duration::from_millis(100))
//!     .multiplier(2.0)
//!     .max_delay(Duration::from_millis(5000))
//!     .build();
//!
//! let mut tries = 0;
//! let result = retry
//!     .call(|| {
//!         tries += 1;
//!         std::future::ready(if tries < 3 { Err("not yet") } else { Ok("done") })
//!     })
//!     .await;
//! assert_eq!(result, Ok("done"));
//! assert_eq!(tries, 3);
//! # });
//! ```

mod backoff;
mod budget;
mod builder;
mod decide;
mod retry_after;
mod schedule;
mod tries;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use backoff::{Backoff, Jitter};
pub use budget::{RetryBudget, RetryBudgetBuilder};
pub use builder::RetryBuilder;
pub use decide::{AnyFailure, Decision, RetryIf, ServerDelay, When, WhenError};
pub use retry_after::parse_retry_after;
pub use schedule::{Progress, Schedule, Stop};
pub use tries::Tries;

use crate::clock::{MonotonicTime, SharedClock};
use crate::error::Error;
use crate::random::SharedRandom;
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

/// Whether an operation may be carried out more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Twice does no more than once: reading, setting to a value, whatever carries a key by which the other side sorts
    /// repeats out.
    Idempotent,
    /// Twice is wrong. Only what was certainly not carried out is tried again.
    NotIdempotent,
}

impl Idempotency {
    /// `idempotent` or `not_idempotent`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idempotent => "idempotent",
            Self::NotIdempotent => "not_idempotent",
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    successful_without_retry: AtomicU64,
    successful_with_retry: AtomicU64,
    failed_without_retry: AtomicU64,
    failed_with_retry: AtomicU64,
    retries: AtomicU64,
    refusals: AtomicU64,
    no_tries_left: AtomicU64,
    no_time_left: AtomicU64,
    server_delay_too_long: AtomicU64,
    no_budget_left: AtomicU64,
}

struct Shared<D> {
    name: Arc<str>,
    schedule: Schedule,
    idempotency: Idempotency,
    retry_rejected: bool,
    budget: Option<RetryBudget>,
    clock: SharedClock,
    random: SharedRandom,
    counters: Counters,
    decide: D,
}

/// A retry. Clones are the same retry.
pub struct Retry<D = AnyFailure> {
    shared: Arc<Shared<D>>,
}

impl<D> Clone for Retry<D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl Retry {
    /// A retry for operations that may be repeated, to be set up. Every error is tried again unless `when` says
    /// otherwise, and so is a try that timed out.
    pub fn idempotent(name: impl Into<Arc<str>>) -> RetryBuilder {
        RetryBuilder::new(name.into(), Idempotency::Idempotent, AnyFailure)
    }

    /// A retry for operations that must not be carried out twice, to be set up. Only errors for which `not_carried_out` is
    /// true are tried again: those that prove that the operation had no effect, as a refused connection does. A try that
    /// timed out is not.
    pub fn not_idempotent<E, F: Fn(&E) -> bool>(
        name: impl Into<Arc<str>>,
        not_carried_out: F,
    ) -> RetryBuilder<WhenError<F>> {
        RetryBuilder::new(name.into(), Idempotency::NotIdempotent, WhenError(not_carried_out))
    }
}

/// How one call has gone so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    /// Tries made.
    tries: u32,
    /// When the call began, if that matters.
    began: Option<MonotonicTime>,
    previous_delay: Option<Duration>,
}

/// What to do after a result that other policies had a part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// As was decided about the operation's own result.
    Decided(Decision),
    /// Ask again: a policy refused, and perhaps said when it won't.
    Refused(Option<Duration>),
}

impl<D> Retry<D> {
    /// The tries of one call, for a loop of the caller's own.
    pub fn tries(&self) -> Tries<D> {
        Tries { retry: self.clone(), progress: self.begin() }
    }

    /// Tries the operation until it succeeds or there is no further try, and gives the last result.
    pub async fn call<T, E, F, Fut>(&self, mut operation: F) -> Result<T, E>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        D: RetryIf<T, E>,
    {
        let mut made = self.begin();
        loop {
            let result = operation().await;
            let decision = self.shared.decide.decide(&result);
            match self.after(&mut made, decision, result.is_ok()) {
                None => return result,
                Some(delay) => {
                    drop(result);
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    /// The same for an operation that isn't async; between tries the thread is held up.
    pub fn call_blocking<T, E, F>(&self, mut operation: F) -> Result<T, E>
    where
        F: FnMut() -> Result<T, E>,
        D: RetryIf<T, E>,
    {
        let mut made = self.begin();
        loop {
            let result = operation();
            let decision = self.shared.decide.decide(&result);
            match self.after(&mut made, decision, result.is_ok()) {
                None => return result,
                Some(delay) => {
                    drop(result);
                    self.shared.clock.sleep_blocking(delay);
                }
            }
        }
    }

    /// A call begins.
    #[inline]
    pub(crate) fn begin(&self) -> Made {
        if let Some(budget) = &self.shared.budget {
            budget.deposit();
        }
        let began = self.shared.schedule.max_elapsed.map(|_| self.shared.clock.now());
        Made { tries: 0, began, previous_delay: None }
    }

    /// What to do after this result of an operation with other policies around it; gives the result back.
    pub(crate) fn judge<T, E>(&self, result: Result<T, Error<E>>) -> (Next, Result<T, Error<E>>)
    where
        D: RetryIf<T, E>,
    {
        let own = match result {
            Ok(value) => Ok(value),
            Err(Error::Inner(error)) => Err(error),
            Err(refused) => return (self.judge_refusal(&refused), Err(refused)),
        };
        (Next::Decided(self.shared.decide.decide(&own)), own.map_err(Error::Inner))
    }

    fn judge_refusal<E>(&self, refused: &Error<E>) -> Next {
        if !refused.is_rejected() {
            // The try was given up and may have had its effect.
            return Next::Decided(match self.shared.idempotency {
                Idempotency::Idempotent => Decision::Retry,
                Idempotency::NotIdempotent => Decision::Done,
            });
        }
        if self.shared.retry_rejected {
            Next::Refused(refused.retry_after())
        } else {
            Next::Decided(Decision::Done)
        }
    }

    /// What was judged so ended like that: the delay before the next try, or `None` if it was the last.
    #[inline]
    pub(crate) fn next(&self, made: &mut Made, next: Next, is_ok: bool) -> Option<Duration> {
        match next {
            Next::Decided(decision) => self.after(made, decision, is_ok),
            Next::Refused(retry_after) => self.refused(made, retry_after),
        }
    }

    /// A try ended with a result about which was decided so: the delay before the next one, or `None` if it was the last.
    #[inline]
    fn after(&self, made: &mut Made, decision: Decision, is_ok: bool) -> Option<Duration> {
        made.tries = made.tries.saturating_add(1);
        match decision {
            Decision::Done => {
                self.ended(made, is_ok);
                None
            }
            Decision::Retry => self.again(made, None),
            Decision::RetryAfter(delay) => self.again(made, Some(delay)),
        }
    }

    #[cold]
    fn again(&self, made: &mut Made, server_delay: Option<Duration>) -> Option<Duration> {
        let shared = &*self.shared;
        let progress = Progress {
            tries: made.tries,
            elapsed: self.elapsed(made),
            previous_delay: made.previous_delay,
            server_delay,
        };
        let next = shared.schedule.next(&progress, shared.random.next());
        let next = next.and_then(|delay| match &shared.budget {
            Some(budget) if !budget.withdraw() => Err(Stop::NoBudgetLeft),
            _ => Ok(delay),
        });
        match next {
            Ok(delay) => {
                shared.counters.retries.fetch_add(1, Ordering::Relaxed);
                made.previous_delay = Some(delay);
                tracing::debug!(name = %shared.name, tries = made.tries, ?delay, "trying again");
                Some(delay)
            }
            Err(stop) => self.gave_up(made, stop),
        }
    }

    /// A policy refused a try.
    #[cold]
    fn refused(&self, made: &mut Made, retry_after: Option<Duration>) -> Option<Duration> {
        let shared = &*self.shared;
        if made.began.is_none() {
            made.tries = made.tries.saturating_add(1);
            return self.again(made, retry_after);
        }
        match shared.schedule.after_refusal(retry_after, self.elapsed(made), shared.random.next()) {
            Ok(delay) => {
                shared.counters.refusals.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(name = %shared.name, tries = made.tries, ?delay, "refused, asking again");
                Some(delay)
            }
            Err(stop) => self.gave_up(made, stop),
        }
    }

    fn elapsed(&self, made: &Made) -> Duration {
        made.began.map_or(Duration::ZERO, |began| self.shared.clock.now().since(began))
    }

    fn gave_up(&self, made: &Made, stop: Stop) -> Option<Duration> {
        let counters = &self.shared.counters;
        let counter = match stop {
            Stop::NoTriesLeft => &counters.no_tries_left,
            Stop::NoTimeLeft => &counters.no_time_left,
            Stop::ServerDelayTooLong => &counters.server_delay_too_long,
            Stop::NoBudgetLeft => &counters.no_budget_left,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::info!(name = %self.shared.name, tries = made.tries, reason = %stop, "gave up");
        // A result that was worth a retry is no success, not even if it is an `Ok`.
        self.ended(made, false);
        None
    }

    #[inline]
    fn ended(&self, made: &Made, successful: bool) {
        let counters = &self.shared.counters;
        let counter = match (successful, made.tries > 1) {
            (true, false) => &counters.successful_without_retry,
            (true, true) => &counters.successful_with_retry,
            (false, false) => &counters.failed_without_retry,
            (false, true) => &counters.failed_with_retry,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// When it tries again.
    pub fn schedule(&self) -> &Schedule {
        &self.shared.schedule
    }

    /// The clock it waits by.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    /// The budget that it takes retries out of.
    pub fn retry_budget(&self) -> Option<&RetryBudget> {
        self.shared.budget.as_ref()
    }

    /// The retry as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that ended, by outcome";
        const GIVEN_UP: &str = "Calls that were not tried again though the result was worth it, by reason";
        let shared = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let calls = |kind, counter| Counter::of_kind("calls", kind, CALLS, read(counter));
        let given_up =
            |stop: Stop, counter| Counter::of_kind("given_up", stop.as_str(), GIVEN_UP, read(counter));
        let counters = &shared.counters;
        let backoff = &shared.schedule.backoff;
        let snapshot = PolicySnapshot::new(PolicyKind::Retry, shared.name.clone())
            .counter(calls("successful_without_retry", &counters.successful_without_retry))
            .counter(calls("successful_with_retry", &counters.successful_with_retry))
            .counter(calls("failed_without_retry", &counters.failed_without_retry))
            .counter(calls("failed_with_retry", &counters.failed_with_retry))
            .counter(Counter::total("retries", "Tries after the first", read(&counters.retries)))
            .counter(Counter::total(
                "refusals",
                "Refusals of other policies after which it was asked again",
                read(&counters.refusals),
            ))
            .counter(given_up(Stop::NoTriesLeft, &counters.no_tries_left))
            .counter(given_up(Stop::NoTimeLeft, &counters.no_time_left))
            .counter(given_up(Stop::ServerDelayTooLong, &counters.server_delay_too_long))
            .counter(given_up(Stop::NoBudgetLeft, &counters.no_budget_left))
            .setting("idempotency", shared.idempotency.as_str())
            .setting("max_tries", most_tries(shared.schedule.max_tries))
            .setting("initial_delay", format_args!("{:?}", backoff.initial))
            .setting("multiplier", backoff.multiplier)
            .setting("max_delay", format_args!("{:?}", backoff.max))
            .setting("jitter", backoff.jitter);
        let snapshot = match shared.schedule.max_elapsed {
            Some(max) => snapshot.setting("max_elapsed", format_args!("{max:?}")),
            None => snapshot,
        };
        match &shared.budget {
            Some(budget) => snapshot.setting("budget", budget.name()),
            None => snapshot,
        }
    }
}

/// The most tries, for people.
fn most_tries(max_tries: u32) -> String {
    if max_tries == u32::MAX { "unlimited".to_owned() } else { max_tries.max(1).to_string() }
}

impl<D: Send + Sync + 'static> Policy for Retry<D> {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Retry
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        Self::snapshot(self)
    }
}

impl<D> fmt::Debug for Retry<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("name", &self.shared.name)
            .field("schedule", &self.shared.schedule)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

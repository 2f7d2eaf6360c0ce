//! Timeout: gives a call up that takes too long.
//!
//! An async call is given up by dropping its future: whatever it was doing ends at its next `await`, and
//! [`Error::TimedOut`] says that nobody knows whether it had its effect. It needs a tokio runtime with time.
//!
//! A sync call can't be given up: no thread can be stopped from outside. [`call_blocking`](Timeout::call_blocking) hands
//! the call a [`Deadline`] instead, to be passed on to whatever it waits for (a socket's `set_read_timeout`, say). If it
//! fails after the deadline, that is a `TimedOut`; if it succeeds after it, the success is the result and counted as late.
//!
//! ```
//! use std::time::Duration;
//! use farol_resilience::{Error, Timeout};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let timeout = Timeout::new("reports", Duration::from_secs(2));
//! let slow = || async {
//!     tokio::time::sleep(Duration::from_secs(3600)).await;
//!     Ok::<_, ()>("the report")
//! };
//! assert_eq!(
//!     timeout.call(slow).await,
//!     Err(Error::TimedOut { name: "reports".into(), after: Duration::from_secs(2) })
//! );
//! # });
//! ```

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{MonotonicTime, SharedClock, SystemClock};
use crate::error::Error;
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

#[derive(Debug, Default)]
struct Counters {
    in_time: AtomicU64,
    late: AtomicU64,
    timed_out: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    after: Duration,
    clock: SharedClock,
    counters: Counters,
}

/// A timeout. Clones are the same timeout, with the same counters.
#[derive(Clone)]
pub struct Timeout {
    shared: Arc<Shared>,
}

/// When a sync call has to be done.
#[derive(Clone)]
pub struct Deadline {
    at: MonotonicTime,
    clock: SharedClock,
}

impl Deadline {
    /// Time that is left; zero if it is up.
    pub fn remaining(&self) -> Duration {
        self.at.since(self.clock.now())
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("remaining", &self.remaining()).finish()
    }
}

impl Timeout {
    /// Gives calls up that take longer than this.
    pub fn new(name: impl Into<Arc<str>>, after: Duration) -> Self {
        Self::with_clock(name, after, SystemClock::shared())
    }

    /// The same with another clock for sync calls. Async calls go by tokio's.
    pub fn with_clock(name: impl Into<Arc<str>>, after: Duration, clock: SharedClock) -> Self {
        Self { shared: Arc::new(Shared { name: name.into(), after, clock, counters: Counters::default() }) }
    }

    /// Makes the call and gives it up if it takes too long.
    pub async fn call<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.limit(operation()).await.map_err(Error::widen)?.map_err(Error::Inner)
    }

    /// Makes a call that isn't async. It isn't cut off, see [the module](self).
    pub fn call_blocking<T, E>(
        &self,
        operation: impl FnOnce(Deadline) -> Result<T, E>,
    ) -> Result<T, Error<E>> {
        let deadline = self.deadline();
        let result = operation(deadline.clone());
        self.returned(&deadline, result.map_err(Error::Inner))
    }

    /// What the future gives, or that it took too long.
    pub(crate) async fn limit<F: Future>(&self, future: F) -> Result<F::Output, Error<Infallible>> {
        self.ended(tokio::time::timeout(self.shared.after, future).await)
    }

    /// A limited call ended like that.
    pub(crate) fn ended<T>(
        &self,
        ended: Result<T, tokio::time::error::Elapsed>,
    ) -> Result<T, Error<Infallible>> {
        match ended {
            Ok(output) => {
                self.shared.counters.in_time.fetch_add(1, Ordering::Relaxed);
                Ok(output)
            }
            Err(_) => Err(self.timed_out()),
        }
    }

    /// The deadline of a sync call that begins now.
    pub(crate) fn deadline(&self) -> Deadline {
        let clock = self.shared.clock.clone();
        Deadline { at: clock.now().after(self.shared.after), clock }
    }

    /// A sync call returned this.
    pub(crate) fn returned<T, E>(
        &self,
        deadline: &Deadline,
        result: Result<T, Error<E>>,
    ) -> Result<T, Error<E>> {
        let counters = &self.shared.counters;
        match result {
            result if !deadline.is_over() => {
                counters.in_time.fetch_add(1, Ordering::Relaxed);
                result
            }
            Ok(value) => {
                counters.late.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(name = %self.shared.name, after = ?self.shared.after, "call succeeded late");
                Ok(value)
            }
            // Nothing was sent, late or not.
            Err(refused) if refused.is_rejected() => {
                counters.in_time.fetch_add(1, Ordering::Relaxed);
                Err(refused)
            }
            Err(_) => Err(self.timed_out().widen()),
        }
    }

    #[cold]
    fn timed_out(&self) -> Error<Infallible> {
        let shared = &*self.shared;
        shared.counters.timed_out.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(name = %shared.name, after = ?shared.after, "call timed out");
        Error::TimedOut { name: shared.name.clone(), after: shared.after }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// What a call may take.
    pub fn after(&self) -> Duration {
        self.shared.after
    }

    /// The timeout as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that ended, by whether they did so in time";
        let counters = &self.shared.counters;
        let calls = |kind, counter: &AtomicU64| {
            Counter::of_kind("calls", kind, CALLS, counter.load(Ordering::Relaxed))
        };
        PolicySnapshot::new(PolicyKind::Timeout, self.shared.name.clone())
            .counter(calls("in_time", &counters.in_time))
            .counter(calls("late", &counters.late))
            .counter(calls("timed_out", &counters.timed_out))
            .setting("after", format_args!("{:?}", self.shared.after))
    }
}

impl Policy for Timeout {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Timeout
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        Self::snapshot(self)
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("name", &self.shared.name)
            .field("after", &self.shared.after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const SECOND: Duration = Duration::from_secs(1);

    fn timed_out<T, E>() -> Result<T, Error<E>> {
        Err(Error::TimedOut { name: "api".into(), after: SECOND })
    }

    async fn takes(duration: Duration) -> Result<u8, &'static str> {
        tokio::time::sleep(duration).await;
        Ok(7)
    }

    #[tokio::test(start_paused = true)]
    async fn an_async_call_is_given_up_when_its_time_is_up() {
        let timeout = Timeout::new("api", SECOND);
        assert_eq!(timeout.call(|| takes(SECOND - Duration::from_millis(1))).await, Ok(7));
        assert_eq!(timeout.call(|| takes(SECOND * 2)).await, timed_out());
        assert_eq!(timeout.call(|| async { Err::<u8, _>("reset") }).await, Err(Error::Inner("reset")));
        assert_eq!(timeout.snapshot().count("in_time"), Some(2));
        assert_eq!(timeout.snapshot().count("timed_out"), Some(1));
    }

    #[test]
    fn a_sync_call_knows_its_deadline_and_a_late_success_is_kept() {
        let clock = ManualClock::new();
        let timeout = Timeout::with_clock("api", SECOND, clock.shared());
        let call = |takes: Duration, result: Result<u8, &'static str>| {
            timeout.call_blocking(|deadline| {
                assert_eq!(deadline.remaining(), SECOND);
                clock.advance(takes);
                assert_eq!(deadline.remaining(), SECOND.saturating_sub(takes));
                result
            })
        };
        assert_eq!(call(SECOND / 2, Ok(7)), Ok(7));
        assert_eq!(call(SECOND / 2, Err("reset")), Err(Error::Inner("reset")));
        assert_eq!(call(SECOND * 2, Ok(7)), Ok(7));
        assert_eq!(call(SECOND * 2, Err("cut off")), timed_out());
        let counts = ["in_time", "late", "timed_out"].map(|kind| timeout.snapshot().count(kind));
        assert_eq!(counts, [Some(2), Some(1), Some(1)]);
    }
}

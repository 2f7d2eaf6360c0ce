//! Fallback: answers in place of a call that failed: with a value, or with what a closure makes of the error.
//!
//! By default every error is answered for, refusals of other policies included: that is what the caller wants who has
//! something to say when the service is down. A predicate leaves some errors as they are. A fallback that answers hides an
//! error, so it counts it and says so on `tracing` (`debug`).
//!
//! It belongs outermost: what is inside sees the error, what is outside sees the answer.
//!
//! ```
//! use farol_resilience::{Error, Fallback};
//!
//! // "Valores padrão em caso de falha": the last price that is known is better than none.
//! let fallback = Fallback::value("price", 42).when(|error: &Error<&str>| *error != Error::Inner("no such product"));
//! assert_eq!(fallback.call_blocking(|| Err("connection refused")), Ok(42));
//! assert_eq!(fallback.call_blocking(|| Err("no such product")), Err(Error::Inner("no such product")));
//! assert_eq!(fallback.snapshot().count("answered"), Some(1));
//! ```

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

/// Makes an answer of an error.
pub trait Recover<T, E> {
    /// The answer, or the error if there is none for it.
    fn recover(&self, error: Error<E>) -> Result<T, Error<E>>;
}

/// Always answers with the same value.
#[derive(Debug, Clone, Copy)]
pub struct Value<T>(T);

impl<T: Clone, E> Recover<T, E> for Value<T> {
    fn recover(&self, _: Error<E>) -> Result<T, Error<E>> {
        Ok(self.0.clone())
    }
}

/// Answers with what a closure makes of the error.
#[derive(Debug, Clone, Copy)]
pub struct Closure<F>(F);

impl<T, E, F: Fn(Error<E>) -> Result<T, Error<E>>> Recover<T, E> for Closure<F> {
    fn recover(&self, error: Error<E>) -> Result<T, Error<E>> {
        (self.0)(error)
    }
}

/// Answers only for errors that a predicate is true for.
#[derive(Debug, Clone, Copy)]
pub struct Only<R, P> {
    recover: R,
    predicate: P,
}

impl<T, E, R: Recover<T, E>, P: Fn(&Error<E>) -> bool> Recover<T, E> for Only<R, P> {
    fn recover(&self, error: Error<E>) -> Result<T, Error<E>> {
        if (self.predicate)(&error) { self.recover.recover(error) } else { Err(error) }
    }
}

#[derive(Debug, Default)]
struct Counters {
    successful: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

struct Shared {
    name: Arc<str>,
    counters: Counters,
}

/// A fallback. Clones have the same counters.
#[derive(Clone)]
pub struct Fallback<R> {
    shared: Arc<Shared>,
    recover: R,
}

impl<T> Fallback<Value<T>> {
    /// Answers with this value.
    pub fn value(name: impl Into<Arc<str>>, value: T) -> Self {
        Self::from_parts(name.into(), Value(value))
    }
}

impl<F> Fallback<Closure<F>> {
    /// Answers with what the closure makes of the error; it may give the error back.
    pub fn closure<T, E>(name: impl Into<Arc<str>>, recover: F) -> Self
    where
        F: Fn(Error<E>) -> Result<T, Error<E>>,
    {
        Self::from_parts(name.into(), Closure(recover))
    }
}

impl<R> Fallback<R> {
    fn from_parts(name: Arc<str>, recover: R) -> Self {
        Self { shared: Arc::new(Shared { name, counters: Counters::default() }), recover }
    }

    /// The same fallback, for errors that the predicate is true for only.
    pub fn when<E, P: Fn(&Error<E>) -> bool>(self, predicate: P) -> Fallback<Only<R, P>> {
        Fallback { shared: self.shared, recover: Only { recover: self.recover, predicate } }
    }

    /// Makes the call, and answers for it if it fails.
    pub async fn call<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        R: Recover<T, E>,
    {
        self.answer(operation().await.map_err(Error::Inner))
    }

    /// The same for an operation that isn't async.
    pub fn call_blocking<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>>
    where
        R: Recover<T, E>,
    {
        self.answer(operation().map_err(Error::Inner))
    }

    /// The result, or the answer in its place. For results of other policies, which have their one error already.
    pub fn answer<T, E>(&self, result: Result<T, Error<E>>) -> Result<T, Error<E>>
    where
        R: Recover<T, E>,
    {
        let counters = &self.shared.counters;
        let (counter, result) = match result {
            Ok(value) => (&counters.successful, Ok(value)),
            Err(error) => {
                let refused = error.is_rejected();
                match self.recover.recover(error) {
                    Ok(value) => {
                        tracing::debug!(name = %self.shared.name, refused, "answered for a failed call");
                        (&counters.answered, Ok(value))
                    }
                    Err(error) => (&counters.failed, Err(error)),
                }
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// The fallback as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that ended, by where their result came from";
        let counters = &self.shared.counters;
        let calls = |kind, counter: &AtomicU64| {
            Counter::of_kind("calls", kind, CALLS, counter.load(Ordering::Relaxed))
        };
        PolicySnapshot::new(PolicyKind::Fallback, self.shared.name.clone())
            .counter(calls("successful", &counters.successful))
            .counter(calls("answered", &counters.answered))
            .counter(calls("failed", &counters.failed))
    }
}

impl<R: Send + Sync + 'static> Policy for Fallback<R> {
    fn kind(&self) -> PolicyKind {
        PolicyKind::Fallback
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        Self::snapshot(self)
    }
}

impl<R> fmt::Debug for Fallback<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_answers_for_every_failure_and_for_no_success() {
        let fallback = Fallback::value("price", 42);
        assert_eq!(fallback.call(|| async { Ok::<_, &str>(7) }).await, Ok(7));
        assert_eq!(fallback.call(|| async { Err("reset") }).await, Ok(42));
        assert_eq!(fallback.answer::<_, ()>(Err(Error::BulkheadFull { name: "db".into() })), Ok(42));
        let counts = ["successful", "answered", "failed"].map(|kind| fallback.snapshot().count(kind));
        assert_eq!(counts, [Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn a_closure_sees_the_error_and_may_let_it_pass() {
        let fallback = Fallback::closure("price", |error: Error<u16>| match error {
            Error::Inner(status) if status >= 500 => Ok(status),
            error => Err(error),
        });
        assert_eq!(fallback.call_blocking(|| Err(503)), Ok(503));
        assert_eq!(fallback.call_blocking(|| Err(404)), Err(Error::Inner(404)));
        let counts = ["successful", "answered", "failed"].map(|kind| fallback.snapshot().count(kind));
        assert_eq!(counts, [Some(0), Some(1), Some(1)]);
    }
}

//! Circuit breaker: stops calls to a service that fails, so that callers fail at once instead of late, and the service
//! has time to recover.
//!
//! # What it does
//!
//! **Closed**, it lets calls through and judges their results. When enough of them fail, or are slow, it **opens**: for a
//! while every call is rejected at once. Then it is **half-open**: the next calls are let through as probes, a few at a
//! time, and the others still rejected. When enough probes succeed it closes; when one fails, it is open again. The time
//! is looked at when a call comes, there is no timer: a breaker that nobody calls stays open, and the call that finds the
//! time up is the probe.
//!
//! What opens it is one of, or several of:
//!
//! * so many **consecutive failures** (the default: 5);
//! * a **failure rate** over a window, of so many calls or of a span of time;
//! * a **slow-call rate** over the same window.
//!
//! A rate is looked at when a call failed or was slow; a call that went well never opens the breaker.
//!
//! # What counts
//!
//! | the call | counts as |
//! | --- | --- |
//! | returned | what the breaker's [`Classify`] says: success, failure, or nothing |
//! | panicked | failure |
//! | was given up: its future or [`Permit`] dropped, or [`Permit::give_up`] | nothing, or failure with [`cancelled_calls_fail`](CircuitBreakerBuilder::cancelled_calls_fail); slow if it had taken that long already |
//! | began before the breaker last changed its state | nothing, whatever it returned |
//!
//! Whatever a probe ends in frees its place; probes that bring no verdict are given up after
//! [`half_open_limit`](CircuitBreakerBuilder::half_open_limit), when another call comes.
//!
//! # Limits
//!
//! No call ever waits for the breaker, and none holds a lock. A closed breaker without rates costs two loads and one
//! increment of a counter of the thread's own, and reads no clock. An open one reads the coarse clock
//! ([`Clock::coarse_now`](crate::Clock::coarse_now)), and so becomes half-open up to a tick of the kernel late.
//! Listeners, history and logs cost only when the state changes. The last [`HISTORY_CAPACITY`](crate::changes::HISTORY_CAPACITY)
//! changes are kept.
//!
//! # Logs
//!
//! `tracing` events: `warn` when a breaker opens, `info` when it becomes half-open, closes or is disabled, `debug` for
//! each rejection.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

mod cell;
mod permit;
mod settings;
mod shared;
mod state;
mod tally;
mod window;

use shared::Shared;
use state::Command;

pub use permit::Permit;
pub(crate) use permit::Rejection;
pub use settings::{
    CircuitBreakerBuilder, DEFAULT_MINIMUM_CALLS, DEFAULT_WINDOW_CALLS, InvalidSettings, MAX_WINDOW_CALLS,
    MIN_WINDOW_TIME,
};
pub use state::State;

use crate::changes::Changes;
use crate::classify::{AnyError, Classify, FailureIf};
use crate::error::Error;
use crate::held::watched;
use crate::registry::Policy;
use crate::snapshot::{PolicyKind, PolicySnapshot};

/// Failures in a row that open a breaker, if nobody says otherwise.
pub const DEFAULT_CONSECUTIVE_FAILURES: u32 = 5;

/// How long a breaker stays open, if nobody says otherwise.
pub const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(60);

/// How long a half-open breaker waits for its probes, if nobody says otherwise.
pub const DEFAULT_HALF_OPEN_LIMIT: Duration = Duration::from_secs(60);

/// A circuit breaker. Clones are the same breaker.
///
/// | setting | if nobody says otherwise |
/// | --- | --- |
/// | opens after | 5 consecutive failures |
/// | stays open for | 60 s, the same each time |
/// | probes at once, successes to close | 1, 1 |
/// | waits half-open for a verdict for at most | 60 s |
/// | a failure is | any `Err` |
///
/// ```
/// use std::time::Duration;
/// use farol_resilience::{CircuitBreaker, Error};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // CircuitBreaker(threshold_falhas=5, timeout_segundos=60, nome="MeuServico")
/// let breaker = CircuitBreaker::builder("MeuServico")
///     .consecutive_failures(5)
///     .open_for(Duration::from_secs(60))
///     .build()?;
///
/// // resultado = circuit_breaker.executar(funcao_instavel)
/// for _ in 0..5 {
///     let result = breaker.call(|| async { Err::<(), _>("connection refused") }).await;
///     assert_eq!(result, Err(Error::Inner("connection refused")));
/// }
/// // Five failures: it is open. The closure isn't even called.
/// let result = breaker.call(|| async { Ok::<_, &str>("not reached") }).await;
/// assert!(result.unwrap_err().is_rejected());
///
/// // circuit_breaker.obter_metricas()
/// let metrics = breaker.snapshot();
/// assert_eq!(metrics.state, Some("open"));
/// assert_eq!(metrics.count("failed"), Some(5));
/// assert_eq!(metrics.count("not_permitted_calls"), Some(1));
/// # Ok(()) }
/// ```
///
/// Founding document 001's `@circuit(failure_threshold=5, recovery_timeout=60)`, through all its states, on a clock that
/// is moved by hand:
///
/// ```
/// use std::time::Duration;
/// use farol_resilience::breaker::State;
/// use farol_resilience::{CircuitBreaker, ManualClock};
///
/// let clock = ManualClock::new();
/// let circuit = CircuitBreaker::builder("api.externa.com")
///     .consecutive_failures(5)
///     .open_for(Duration::from_secs(60))
///     .clock(clock.shared())
///     .build()?;
/// let call_external_api = |answer: Result<&'static str, &'static str>| circuit.call_blocking(|| answer);
///
/// // "Se 5 falhas consecutivas → circuit OPEN (não tenta mais)"
/// for _ in 0..5 {
///     call_external_api(Err("timeout")).unwrap_err();
/// }
/// assert_eq!(circuit.state(), State::Open);
///
/// // "Após 60s → circuit HALF_OPEN (tenta 1 request)"
/// clock.advance(Duration::from_secs(60));
/// let request = circuit.try_acquire()?;
/// assert_eq!(circuit.state(), State::HalfOpen);
/// assert!(circuit.try_acquire().is_err());
///
/// // "Se sucesso → circuit CLOSED (volta ao normal)"
/// request.success();
/// assert_eq!(circuit.state(), State::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Around sync code, with a predicate for what fails:
///
/// ```
/// use farol_resilience::CircuitBreaker;
///
/// let breaker = CircuitBreaker::new("api").failure_if(|result: &Result<u16, std::io::Error>| match result {
///     Ok(status) => *status >= 500,
///     Err(_) => true,
/// });
/// // Not found is an answer: the service works.
/// assert_eq!(breaker.call_blocking(|| Ok(404)).unwrap(), 404);
/// assert_eq!(breaker.snapshot().count("failed"), Some(0));
/// ```
///
/// Where a call isn't one closure, take a permit:
///
/// ```
/// use farol_resilience::CircuitBreaker;
///
/// let breaker = CircuitBreaker::new("queue");
/// match breaker.try_acquire() {
///     Ok(permit) => permit.success(), // or failure(), once it is known
///     Err(refusal) => println!("{refusal}"),
/// }
/// ```
pub struct CircuitBreaker<C = AnyError> {
    shared: Arc<Shared>,
    classify: C,
}

impl CircuitBreaker {
    /// A breaker with the settings of the table above.
    pub fn new(name: impl Into<String>) -> Self {
        Self::builder(name).build().expect("the defaults make sense")
    }

    /// Describes a breaker.
    pub fn builder(name: impl Into<String>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new(name.into())
    }
}

impl<C> CircuitBreaker<C> {
    fn from_parts(shared: Shared, classify: C) -> Self {
        Self { shared: Arc::new(shared), classify }
    }

    /// The same breaker, with something else to judge results.
    pub fn classify<D>(self, classify: D) -> CircuitBreaker<D> {
        CircuitBreaker { shared: self.shared, classify }
    }

    /// The same breaker: results for which the predicate is true count as failures, all others as successes.
    pub fn failure_if<T, E, F>(self, predicate: F) -> CircuitBreaker<FailureIf<F>>
    where
        F: Fn(&Result<T, E>) -> bool,
    {
        self.classify(FailureIf(predicate))
    }

    /// Makes the call unless the breaker is open. Dropping the future gives the call up.
    pub async fn call<T, E, F, Fut>(&self, call: F) -> Result<T, Error<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        C: Classify<T, E>,
    {
        let permit = self.enter()?;
        let result = watched(&permit, call()).await;
        permit.settle_here(self.classify.classify(&result));
        result.map_err(Error::Inner)
    }

    /// Makes the call unless the breaker is open.
    #[inline]
    pub fn call_blocking<T, E>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, Error<E>>
    where
        C: Classify<T, E>,
    {
        let permit = self.enter()?;
        let result = call();
        permit.settle_here(self.classify.classify(&result));
        result.map_err(Error::Inner)
    }

    /// Asks for the right to make one call. Fails with [`Error::CircuitOpen`] only.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Error<Infallible>> {
        Ok(self.enter()?)
    }

    /// The same, for a call that outlives the borrow.
    pub fn try_acquire_owned(&self) -> Result<Permit<'static>, Error<Infallible>> {
        Ok(self.enter_owned()?)
    }

    #[inline]
    pub(crate) fn enter(&self) -> Result<Permit<'_>, Rejection> {
        self.shared.enter().map(|ticket| Permit::borrowed(&self.shared, ticket))
    }

    #[inline]
    pub(crate) fn enter_owned(&self) -> Result<Permit<'static>, Rejection> {
        self.shared.enter().map(|ticket| Permit::owned(self.shared.clone(), ticket))
    }

    /// What results are judged by.
    pub(crate) fn classifier(&self) -> &C {
        &self.classify
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        self.shared.name()
    }

    /// Its state. A breaker whose time to be open is up is open until a call comes.
    pub fn state(&self) -> State {
        self.shared.cell.memory().state()
    }

    /// How long until a probe is let through; `None` unless the breaker is open and not by hand.
    pub fn retry_after(&self) -> Option<Duration> {
        self.shared.open_until().map(|until| until.since(self.shared.clock.now()))
    }

    /// Opens it until [`close`](Self::close) or [`reset`](Self::reset).
    pub fn open(&self) {
        self.shared.command(Command::Open);
    }

    /// Closes it, with nothing remembered against the service. Does nothing if it is closed.
    pub fn close(&self) {
        self.shared.command(Command::Close);
    }

    /// Closes it, and forgets past outcomes also if it is closed. Counters and history stay.
    pub fn reset(&self) {
        self.shared.command(Command::Reset);
    }

    /// Lets every call through, whatever their outcome, until [`close`](Self::close) or [`reset`](Self::reset).
    pub fn disable(&self) {
        self.shared.command(Command::Disable);
    }

    /// Its state changes: the last ones, and new ones by listener or subscription.
    pub fn changes(&self) -> &Changes {
        &self.shared.changes
    }

    /// The breaker as it stands.
    pub fn snapshot(&self) -> PolicySnapshot {
        self.shared.snapshot()
    }
}

impl<C: Clone> Clone for CircuitBreaker<C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), classify: self.classify.clone() }
    }
}

impl<C> fmt::Debug for CircuitBreaker<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", self.name())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Policy for CircuitBreaker<C> {
    fn kind(&self) -> PolicyKind {
        PolicyKind::CircuitBreaker
    }

    fn name(&self) -> &Arc<str> {
        self.shared.name()
    }

    fn snapshot(&self) -> PolicySnapshot {
        self.shared.snapshot()
    }

    fn changes(&self) -> Option<&Changes> {
        Some(&self.shared.changes)
    }
}

#[cfg(test)]
mod tests;

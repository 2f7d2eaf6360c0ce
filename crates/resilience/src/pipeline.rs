//! Policies inside one another, in a stated order.
//!
//! The order is the order of writing: [`Pipeline::outermost`] is what the caller meets first, each [`then`](Pipeline::then)
//! stands inside what came before, and the call is innermost. What order means what:
//!
//! ```text
//! caller ─► fallback ─► retry ─► breaker ─► rate limiter ─► bulkhead ─► timeout ─► call
//! ```
//!
//! | placed so | it means |
//! | --- | --- |
//! | fallback outermost | it answers for whatever fails inside, refusals included. Inside a retry or breaker it would hide failures from them |
//! | retry around the breaker | each try asks the breaker and is judged by it; tries stop when it opens, because a refusal isn't retried. A breaker around the retry would see one failure where there were three |
//! | breaker around rate limiter and bulkhead | their refusals are no failures of the service, and an open breaker uses up neither allowance nor permits |
//! | rate limiter around the bulkhead | nobody holds a permit while waiting for its turn |
//! | bulkhead around the timeout | the time limit is the call's own, waiting for a permit doesn't use it up. A timeout around the bulkhead limits both together |
//! | a second timeout around the retry | limits the whole, all tries and delays together |
//!
//! This is the order to begin with; any other can be written down.
//! A stage sees what is inside it through one flat [`Error`]: it judges the call's own results by its predicate, takes a
//! call that was given up ([`Error::TimedOut`]) for a failure, and a refusal of an inner policy for no news.
//!
//! A pipeline is used like each of its policies: around an async closure ([`call`](Pipeline::call), or
//! [`call_once`](Pipeline::call_once) if there is no retry in it), around a sync one
//! ([`call_blocking`](Pipeline::call_blocking)), or as a tower layer ([`layer`](Pipeline::layer)). Async calls must be
//! `Send`. A call that neither fails nor waits allocates nothing.
//!
//! ```
//! use std::time::Duration;
//! use farol_resilience::{Bulkhead, Error, Fallback, Pipeline, Retry, Timeout};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! let prices = Pipeline::outermost(Fallback::value("prices", 0))
//!     .then(Retry::idempotent("prices").build())
//!     .then(Bulkhead::new("prices"))
//!     .then(Timeout::new("prices", Duration::from_secs(2)));
//!
//! let price: Result<u32, Error<&str>> = prices.call(|| async { Err("connection refused") }).await;
//! assert_eq!(price, Ok(0));
//! # });
//! ```

use std::future::Future;

mod stage;

pub use stage::{Operation, OperationOnce, Policies, Stack, Stage, StageOnce};

use crate::error::Error;
use crate::registry::{RegisterError, Registry};

/// Policies inside one another. Clones share them.
#[derive(Debug, Clone)]
pub struct Pipeline<S> {
    stages: S,
}

/// A closure that can be called again and again.
struct Repeated<F>(F);

impl<T, E, F, Fut> Operation<T, E> for Repeated<F>
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    fn attempt(&mut self) -> impl Future<Output = Result<T, Error<E>>> + Send {
        let call = (self.0)();
        async move { call.await.map_err(Error::Inner) }
    }
}

/// A closure that can be called once.
struct Once<F>(F);

impl<T, E, F, Fut> OperationOnce<T, E> for Once<F>
where
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    async fn make(self) -> Result<T, Error<E>> {
        (self.0)().await.map_err(Error::Inner)
    }
}

impl<S> Pipeline<S> {
    /// A pipeline of one policy, which stands around all that follow.
    pub fn outermost(stage: S) -> Self {
        Self { stages: stage }
    }

    /// The same with one more policy, inside all others.
    pub fn then<I>(self, inner: I) -> Pipeline<Stack<S, I>> {
        Pipeline { stages: Stack { outer: self.stages, inner } }
    }

    /// Makes the call through all policies; more than once, if a retry says so.
    pub async fn call<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        S: Stage<T, E>,
        F: FnMut() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        self.stages.run(&mut Repeated(operation)).await
    }

    /// Makes the call through all policies, for a closure that can be called only once. Not with a retry.
    pub async fn call_once<T, E, F, Fut>(&self, operation: F) -> Result<T, Error<E>>
    where
        S: StageOnce<T, E>,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        T: Send,
        E: Send,
    {
        self.stages.run_once(Once(operation)).await
    }

    /// The same as [`call`](Self::call) for an operation that isn't async; the thread is held up while policies wait.
    pub fn call_blocking<T, E, F>(&self, mut operation: F) -> Result<T, Error<E>>
    where
        S: Stage<T, E>,
        F: FnMut() -> Result<T, E>,
        T: Send,
        E: Send,
    {
        self.stages.run_blocking(&mut || operation().map_err(Error::Inner))
    }

    /// The same as [`call_once`](Self::call_once) for an operation that isn't async.
    pub fn call_blocking_once<T, E, F>(&self, operation: F) -> Result<T, Error<E>>
    where
        S: StageOnce<T, E>,
        F: FnOnce() -> Result<T, E>,
        T: Send,
        E: Send,
    {
        let mut operation = Some(operation);
        self.stages.run_blocking(&mut || {
            let operation = operation.take().expect("a stage that makes the call at most once does so");
            operation().map_err(Error::Inner)
        })
    }

    /// Puts services under all policies, as one layer with one flat error. With a retry among them, requests must be `Clone`: see
    /// [`layer`](crate::layer).
    #[cfg(feature = "tower")]
    pub fn layer(&self) -> crate::layer::PolicyLayer<S>
    where
        S: Clone,
    {
        crate::layer::PolicyLayer::new(self.stages.clone())
    }

    /// Puts all policies into a registry, from the outermost inwards.
    pub fn register(&self, registry: &Registry) -> Result<(), RegisterError>
    where
        S: Policies,
    {
        self.stages.register(registry)
    }
}

#[cfg(test)]
mod tests;

//! What stands around a call in a pipeline, and the call that it stands around.
//!
//! A stage gets an operation and runs it, once ([`StageOnce`]) or as often as it thinks right ([`Stage`]). The operation
//! may have further stages inside, so its error is the policies' one [`Error`] already: a stage can tell the call's own
//! failure from a refusal of a policy further in.

use std::future::Future;

use crate::adaptive::AdaptiveLimiter;
use crate::breaker::CircuitBreaker;
use crate::bulkhead::Bulkhead;
use crate::classify::{Classify, judge};
use crate::error::Error;
use crate::fallback::{Fallback, Recover};
use crate::held::watched;
use crate::rate_limiter::RateLimiter;
use crate::registry::{Policy, RegisterError, Registry};
use crate::retry::{Retry, RetryIf};
use crate::timeout::Timeout;

/// A call that can be made more than once.
pub trait Operation<T, E>: Send {
    /// Makes the call.
    fn attempt(&mut self) -> impl Future<Output = Result<T, Error<E>>> + Send;
}

/// A call that can be made once.
pub trait OperationOnce<T, E>: Send {
    /// Makes the call.
    fn make(self) -> impl Future<Output = Result<T, Error<E>>> + Send;
}

/// A policy that stands around a call.
pub trait Stage<T: Send, E: Send>: Send + Sync {
    /// Runs the operation, possibly more than once or not at all.
    fn run<O: Operation<T, E>>(&self, operation: &mut O) -> impl Future<Output = Result<T, Error<E>>> + Send;

    /// The same for an operation that isn't async.
    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>>;
}

/// A policy that makes the call at most once.
pub trait StageOnce<T: Send, E: Send>: Stage<T, E> {
    /// Runs the operation, or doesn't.
    fn run_once<O: OperationOnce<T, E>>(
        &self,
        operation: O,
    ) -> impl Future<Output = Result<T, Error<E>>> + Send;
}

/// Policies that can be put into a registry together.
pub trait Policies {
    /// Puts them in. At the first that can't be, those before it stay in.
    fn register(&self, registry: &Registry) -> Result<(), RegisterError>;
}

impl<P: Policy + Clone> Policies for P {
    fn register(&self, registry: &Registry) -> Result<(), RegisterError> {
        registry.register(self.clone())
    }
}

/// One attempt at an operation, as an operation of its own.
struct Attempt<'a, O>(&'a mut O);

impl<T, E, O: Operation<T, E>> OperationOnce<T, E> for Attempt<'_, O> {
    fn make(self) -> impl Future<Output = Result<T, Error<E>>> + Send {
        self.0.attempt()
    }
}

/// A stage inside another.
#[derive(Debug, Clone)]
pub struct Stack<Outer, Inner> {
    pub(crate) outer: Outer,
    pub(crate) inner: Inner,
}

/// The operation that the outer stage of a stack sees: the inner one with what is inside it.
struct Nested<'a, S, O> {
    stage: &'a S,
    operation: &'a mut O,
}

impl<T: Send, E: Send, S: Stage<T, E>, O: Operation<T, E>> Operation<T, E> for Nested<'_, S, O> {
    fn attempt(&mut self) -> impl Future<Output = Result<T, Error<E>>> + Send {
        self.stage.run(self.operation)
    }
}

struct NestedOnce<'a, S, O> {
    stage: &'a S,
    operation: O,
}

impl<T: Send, E: Send, S: StageOnce<T, E>, O: OperationOnce<T, E>> OperationOnce<T, E>
    for NestedOnce<'_, S, O>
{
    fn make(self) -> impl Future<Output = Result<T, Error<E>>> + Send {
        self.stage.run_once(self.operation)
    }
}

impl<T: Send, E: Send, A: Stage<T, E>, B: Stage<T, E>> Stage<T, E> for Stack<A, B> {
    async fn run<O: Operation<T, E>>(&self, operation: &mut O) -> Result<T, Error<E>> {
        self.outer.run(&mut Nested { stage: &self.inner, operation }).await
    }

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        self.outer.run_blocking(&mut || self.inner.run_blocking(operation))
    }
}

impl<T: Send, E: Send, A: StageOnce<T, E>, B: StageOnce<T, E>> StageOnce<T, E> for Stack<A, B> {
    fn run_once<O: OperationOnce<T, E>>(
        &self,
        operation: O,
    ) -> impl Future<Output = Result<T, Error<E>>> + Send {
        self.outer.run_once(NestedOnce { stage: &self.inner, operation })
    }
}

impl<A: Policies, B: Policies> Policies for Stack<A, B> {
    fn register(&self, registry: &Registry) -> Result<(), RegisterError> {
        self.outer.register(registry)?;
        self.inner.register(registry)
    }
}

/// A stage that may be left out.
impl<T: Send, E: Send, S: Stage<T, E>> Stage<T, E> for Option<S> {
    async fn run<O: Operation<T, E>>(&self, operation: &mut O) -> Result<T, Error<E>> {
        match self {
            Some(stage) => stage.run(operation).await,
            None => operation.attempt().await,
        }
    }

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        match self {
            Some(stage) => stage.run_blocking(operation),
            None => operation(),
        }
    }
}

impl<T: Send, E: Send, S: StageOnce<T, E>> StageOnce<T, E> for Option<S> {
    async fn run_once<O: OperationOnce<T, E>>(&self, operation: O) -> Result<T, Error<E>> {
        match self {
            Some(stage) => stage.run_once(operation).await,
            None => operation.make().await,
        }
    }
}

impl<S: Policies> Policies for Option<S> {
    fn register(&self, registry: &Registry) -> Result<(), RegisterError> {
        self.as_ref().map_or(Ok(()), |stage| stage.register(registry))
    }
}

impl<T: Send, E: Send, D: RetryIf<T, E> + Send + Sync> Stage<T, E> for Retry<D> {
    async fn run<O: Operation<T, E>>(&self, operation: &mut O) -> Result<T, Error<E>> {
        let mut made = self.begin();
        loop {
            let (next, result) = self.judge(operation.attempt().await);
            match self.next(&mut made, next, result.is_ok()) {
                None => return result,
                Some(delay) => {
                    drop(result);
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        let mut made = self.begin();
        loop {
            let (next, result) = self.judge(operation());
            match self.next(&mut made, next, result.is_ok()) {
                None => return result,
                Some(delay) => {
                    drop(result);
                    self.clock().sleep_blocking(delay);
                }
            }
        }
    }
}

/// `Stage::run` of a stage that makes the call at most once.
macro_rules! run_as_once {
    () => {
        fn run<O: Operation<T, E>>(
            &self,
            operation: &mut O,
        ) -> impl Future<Output = Result<T, Error<E>>> + Send {
            self.run_once(Attempt(operation))
        }
    };
}

/// A stage that lets each call through at once or refuses it, and judges how it went.
macro_rules! stage_that_judges {
    ($policy:ident) => {
        impl<T: Send, E: Send, C: Classify<T, E> + Send + Sync> Stage<T, E> for $policy<C> {
            run_as_once!();

            fn run_blocking(
                &self,
                operation: &mut dyn FnMut() -> Result<T, Error<E>>,
            ) -> Result<T, Error<E>> {
                let permit = self.try_acquire().map_err(Error::widen)?;
                let (verdict, result) = judge(self.classifier(), operation());
                permit.settle(verdict);
                result
            }
        }

        impl<T: Send, E: Send, C: Classify<T, E> + Send + Sync> StageOnce<T, E> for $policy<C> {
            async fn run_once<O: OperationOnce<T, E>>(&self, operation: O) -> Result<T, Error<E>> {
                let permit = self.try_acquire().map_err(Error::widen)?;
                let result = watched(&permit, operation.make()).await;
                let (verdict, result) = judge(self.classifier(), result);
                permit.settle(verdict);
                result
            }
        }
    };
}

stage_that_judges!(CircuitBreaker);
stage_that_judges!(AdaptiveLimiter);

impl<T: Send, E: Send> Stage<T, E> for Bulkhead {
    run_as_once!();

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        let _permit = self.acquire_blocking().map_err(Error::widen)?;
        operation()
    }
}

impl<T: Send, E: Send> StageOnce<T, E> for Bulkhead {
    async fn run_once<O: OperationOnce<T, E>>(&self, operation: O) -> Result<T, Error<E>> {
        let _permit = self.acquire().await.map_err(Error::widen)?;
        operation.make().await
    }
}

impl<T: Send, E: Send> Stage<T, E> for RateLimiter {
    run_as_once!();

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        self.acquire_blocking().map_err(Error::widen)?;
        operation()
    }
}

impl<T: Send, E: Send> StageOnce<T, E> for RateLimiter {
    async fn run_once<O: OperationOnce<T, E>>(&self, operation: O) -> Result<T, Error<E>> {
        self.acquire().await.map_err(Error::widen)?;
        operation.make().await
    }
}

impl<T: Send, E: Send> Stage<T, E> for Timeout {
    run_as_once!();

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        let deadline = self.deadline();
        let result = operation();
        self.returned(&deadline, result)
    }
}

impl<T: Send, E: Send> StageOnce<T, E> for Timeout {
    async fn run_once<O: OperationOnce<T, E>>(&self, operation: O) -> Result<T, Error<E>> {
        self.limit(operation.make()).await.unwrap_or_else(|late| Err(late.widen()))
    }
}

impl<T: Send, E: Send, R: Recover<T, E> + Send + Sync> Stage<T, E> for Fallback<R> {
    run_as_once!();

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        self.answer(operation())
    }
}

impl<T: Send, E: Send, R: Recover<T, E> + Send + Sync> StageOnce<T, E> for Fallback<R> {
    async fn run_once<O: OperationOnce<T, E>>(&self, operation: O) -> Result<T, Error<E>> {
        self.answer(operation.make().await)
    }
}

//! Policies and pipelines around tower services (feature `tower`).
//!
//! **Readiness** is the inner service's: `poll_ready` asks it and nobody else. Policies wait and refuse in the future that
//! `call` gives, so a policy that makes callers wait never blocks a service that stands in front of it. That future is
//! boxed. The inner service must be `Clone`; the one that was made ready is the one that is called, and a retry makes it
//! ready anew.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::stage::{Operation, OperationOnce, Stage, StageOnce};
use crate::adaptive::AdaptiveLimiter;
use crate::bulkhead::Bulkhead;
use crate::error::Error;
use crate::fallback::Fallback;
use crate::rate_limiter::RateLimiter;
use crate::retry::Retry;
use crate::timeout::Timeout;

type BoxedFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, Error<E>>> + Send>>;

/// A layer of policies that make a call at most once.
#[derive(Clone)]
pub struct PolicyLayer<P> {
    policy: P,
}

/// A layer of policies that may make a call again: requests must be `Clone`.
#[derive(Clone)]
pub struct RepeatingLayer<P> {
    policy: P,
}

/// A service under policies that make a call at most once.
#[derive(Clone)]
pub struct PolicyService<P, S> {
    policy: P,
    inner: S,
}

/// A service under policies that may make a call again.
#[derive(Clone)]
pub struct RepeatingService<P, S> {
    policy: P,
    inner: S,
}

impl<P> PolicyLayer<P> {
    pub(crate) fn new(policy: P) -> Self {
        Self { policy }
    }
}

impl<P> RepeatingLayer<P> {
    pub(crate) fn new(policy: P) -> Self {
        Self { policy }
    }
}

impl<P: Clone, S> Layer<S> for PolicyLayer<P> {
    type Service = PolicyService<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        PolicyService { policy: self.policy.clone(), inner }
    }
}

impl<P: Clone, S> Layer<S> for RepeatingLayer<P> {
    type Service = RepeatingService<P, S>;

    fn layer(&self, inner: S) -> Self::Service {
        RepeatingService { policy: self.policy.clone(), inner }
    }
}

/// A request, and the service that it goes to.
struct ServiceCall<S, R> {
    service: S,
    request: R,
}

impl<S, R> OperationOnce<S::Response, S::Error> for ServiceCall<S, R>
where
    S: Service<R, Future: Send> + Send,
    R: Send,
{
    async fn make(mut self) -> Result<S::Response, Error<S::Error>> {
        // It is ready already: it was made so before it was cloned away.
        self.service.call(self.request).await.map_err(Error::Inner)
    }
}

impl<S, R> Operation<S::Response, S::Error> for ServiceCall<S, R>
where
    S: Service<R, Future: Send> + Send,
    R: Clone + Send,
{
    async fn attempt(&mut self) -> Result<S::Response, Error<S::Error>> {
        poll_fn(|context| self.service.poll_ready(context)).await.map_err(Error::Inner)?;
        let request = self.request.clone();
        self.service.call(request).await.map_err(Error::Inner)
    }
}

/// The service that was made ready; in its place is left a clone that wasn't.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    std::mem::replace(service, clone)
}

impl<P, S, R> Service<R> for PolicyService<P, S>
where
    P: StageOnce<S::Response, S::Error> + Clone + 'static,
    S: Service<R, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = BoxedFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let call = ServiceCall { service: take_ready(&mut self.inner), request };
        let policy = self.policy.clone();
        Box::pin(async move { policy.run_once(call).await })
    }
}

impl<P, S, R> Service<R> for RepeatingService<P, S>
where
    P: Stage<S::Response, S::Error> + Clone + 'static,
    S: Service<R, Response: Send, Error: Send, Future: Send> + Clone + Send + 'static,
    R: Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = BoxedFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let mut call = ServiceCall { service: take_ready(&mut self.inner), request };
        let policy = self.policy.clone();
        Box::pin(async move { policy.run(&mut call).await })
    }
}

impl<P: fmt::Debug> fmt::Debug for PolicyLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyLayer").field("policy", &self.policy).finish()
    }
}

impl<P: fmt::Debug> fmt::Debug for RepeatingLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepeatingLayer").field("policy", &self.policy).finish()
    }
}

impl<P: fmt::Debug, S> fmt::Debug for PolicyService<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyService").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<P: fmt::Debug, S> fmt::Debug for RepeatingService<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepeatingService").field("policy", &self.policy).finish_non_exhaustive()
    }
}

macro_rules! layer_of {
    ($($policy:ident $(<$parameter:ident>)?),*) => {$(
        impl$(<$parameter>)? $policy$(<$parameter>)? {
            /// Puts services under this policy.
            pub fn layer(&self) -> PolicyLayer<Self>
            where
                Self: Clone,
            {
                PolicyLayer::new(self.clone())
            }
        }
    )*};
}

layer_of!(Bulkhead, RateLimiter, Timeout, Fallback<R>, AdaptiveLimiter<C>);

impl<D> Retry<D> {
    /// Puts services under this retry. Requests must be `Clone`. The services' error is [`Error`], as with every policy,
    /// though a retry alone refuses nothing: it is always [`Error::Inner`].
    pub fn layer(&self) -> RepeatingLayer<Self> {
        RepeatingLayer::new(self.clone())
    }
}

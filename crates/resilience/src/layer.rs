//! Policies and pipelines around tower services (feature `tower`).
//!
//! **Readiness** is the inner service's: `poll_ready` asks it and nobody else. A policy decides in `call`, and one that makes callers wait
//! does so in the future that `call` gives, so it never blocks what stands in front of it. (A breaker that isn't ready while it is open
//! would fill every buffer in front of it.) A service that fails to become ready counts as a failed call of a breaker.
//!
//! Each policy is a service around the next one in, and a pipeline's layer is its policies' services inside one another, with one flat
//! [`Error`]. Their futures have names and hold everything in place: a call allocates nothing unless it waits for a permit or a turn, or is
//! tried again. A future holds its permit from `call` on, and gives it up when it is dropped.
//!
//! Where a call can wait, the inner service must be `Clone`; the one that was made ready is the one that is called. A retry clones service
//! and request for each call, and makes the clone ready before it tries again.
//!
//! A stage of your own can stand in a pipeline's layer if it implements [`Around`].

mod guarded;
mod limited;
mod optional;
mod queued;
mod retrying;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

pub use guarded::{GuardedFuture, GuardedService};
pub use limited::{LimitedFuture, LimitedService};
pub use optional::{OptionalFuture, OptionalService};
pub use queued::{QueuedFuture, QueuedService};
pub use retrying::{RetryingFuture, RetryingService};

use crate::error::Error;
use crate::pipeline::Stack;

/// Puts services under a policy or a pipeline. All services that one layer makes share it.
#[derive(Debug, Clone)]
pub struct PolicyLayer<P> {
    policy: P,
}

impl<P> PolicyLayer<P> {
    pub(crate) fn new(policy: P) -> Self {
        Self { policy }
    }
}

impl<P: Around<Flat<S>>, S> Layer<S> for PolicyLayer<P> {
    type Service = P::Service;

    fn layer(&self, inner: S) -> P::Service {
        self.policy.around(Flat { inner })
    }
}

/// What can stand around a service whose error is the policies' one.
pub trait Around<S> {
    /// The service with the policy around it.
    type Service;

    /// Puts the policy around a service.
    fn around(&self, inner: S) -> Self::Service;
}

impl<S, Outer, Inner> Around<S> for Stack<Outer, Inner>
where
    Inner: Around<S>,
    Outer: Around<Inner::Service>,
{
    type Service = Outer::Service;

    fn around(&self, inner: S) -> Self::Service {
        self.outer.around(self.inner.around(inner))
    }
}

/// A service whose own error is told as [`Error::Inner`].
#[derive(Debug, Clone)]
pub struct Flat<S> {
    inner: S,
}

impl<S: Service<R>, R> Service<R> for Flat<S> {
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = FlatFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        FlatFuture { call: self.inner.call(request) }
    }
}

pin_project! {
    /// The answer of a service whose own error is told as [`Error::Inner`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct FlatFuture<F> {
        #[pin]
        call: F,
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for FlatFuture<F> {
    type Output = Result<T, Error<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(context).map_err(Error::Inner)
    }
}

/// The service that was made ready; in its place is left a clone that wasn't.
fn take_ready<S: Clone>(service: &mut S) -> S {
    let clone = service.clone();
    std::mem::replace(service, clone)
}

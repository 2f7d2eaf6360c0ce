//! A breaker around a tower service (feature `tower`).
//!
//! **Readiness** is the inner service's: `poll_ready` asks it and nobody else. The breaker decides in `call`, and a call
//! that it rejects fails at once with [`Error::CircuitOpen`]; an open breaker never makes a caller wait. (A breaker that
//! isn't ready while it is open would fill every buffer in front of it.) A service that fails to become ready counts as
//! a failed call. A call whose future is dropped counts as given up.
//!
//! A call's future outlives the service, so it holds the breaker: one count that all threads share goes up and down with
//! each call, which `call` and `call_blocking` do without.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{CircuitBreaker, Permit};
use crate::classify::{AnyError, Classify};
use crate::error::Error;

/// Puts services under a breaker. All services that one layer makes share the breaker.
#[derive(Debug, Clone)]
pub struct CircuitBreakerLayer<C = AnyError> {
    breaker: CircuitBreaker<C>,
}

impl<C> CircuitBreakerLayer<C> {
    pub(super) fn new(breaker: CircuitBreaker<C>) -> Self {
        Self { breaker }
    }
}

impl<S, C: Clone> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreakerService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreakerService { inner, breaker: self.breaker.clone() }
    }
}

/// A service under a breaker.
#[derive(Debug, Clone)]
pub struct CircuitBreakerService<S, C = AnyError> {
    inner: S,
    breaker: CircuitBreaker<C>,
}

impl<S, C> CircuitBreakerService<S, C> {
    /// The breaker.
    pub fn breaker(&self) -> &CircuitBreaker<C> {
        &self.breaker
    }
}

impl<S, C, Request> Service<Request> for CircuitBreakerService<S, C>
where
    S: Service<Request>,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Err(error) = ready!(self.inner.poll_ready(context)) else { return Poll::Ready(Ok(())) };
        let result = Err(error);
        if let Ok(permit) = self.breaker.try_acquire() {
            permit.settle(self.breaker.classify.classify(&result));
        }
        Poll::Ready(result.map(|_| ()).map_err(Error::Inner))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = match self.breaker.try_acquire_owned() {
            Ok(permit) => {
                let classify = self.breaker.classify.clone();
                Inner::Admitted { call: self.inner.call(request), permit: Some(permit), classify }
            }
            Err(refusal) => Inner::Rejected { refusal: Some(refusal) },
        };
        ResponseFuture { inner }
    }
}

pin_project! {
    /// The answer of a service under a breaker, or the breaker's rejection.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: Inner<F, C>,
    }
}

pin_project! {
    #[project = InnerProjection]
    enum Inner<F, C> {
        Admitted { #[pin] call: F, permit: Option<Permit<'static>>, classify: C },
        Rejected { refusal: Option<Error<std::convert::Infallible>> },
    }
}

/// Settles a call that panics while it panics. Who catches the panic outside of this future drops it only later, when
/// nothing tells it from a call that was given up.
struct FailsOnUnwind<'a>(&'a mut Option<Permit<'static>>);

impl Drop for FailsOnUnwind<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.take());
        }
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<T, E>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().inner.project() {
            InnerProjection::Admitted { call, permit, classify } => {
                let result = {
                    let _settles = FailsOnUnwind(permit);
                    ready!(call.poll(context))
                };
                if let Some(permit) = permit.take() {
                    permit.settle(classify.classify(&result));
                }
                Poll::Ready(result.map_err(Error::Inner))
            }
            InnerProjection::Rejected { refusal } => {
                let refusal = refusal.take().expect("a future is not polled again once it is ready");
                Poll::Ready(Err(refusal.widen()))
            }
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

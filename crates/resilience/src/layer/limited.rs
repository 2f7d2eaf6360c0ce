//! A timeout around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Around, PolicyLayer};
use crate::error::Error;
use crate::timeout::Timeout;

/// A service under a timeout. Its calls are given up; the time runs from `call` on.
#[derive(Debug, Clone)]
pub struct LimitedService<S> {
    timeout: Timeout,
    inner: S,
}

impl<S> LimitedService<S> {
    /// The timeout.
    pub fn policy(&self) -> &Timeout {
        &self.timeout
    }
}

impl<S, R, E> Service<R> for LimitedService<S>
where
    S: Service<R, Error = Error<E>>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = LimitedFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        let call = tokio::time::timeout(self.timeout.after(), self.inner.call(request));
        LimitedFuture { timeout: self.timeout.clone(), call }
    }
}

pin_project! {
    /// The answer of a service, or that it took too long.
    #[must_use = "futures do nothing unless polled"]
    pub struct LimitedFuture<F> {
        timeout: Timeout,
        #[pin]
        call: tokio::time::Timeout<F>,
    }
}

impl<F, T, E> Future for LimitedFuture<F>
where
    F: Future<Output = Result<T, Error<E>>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ended = this.call.poll(context);
        ended.map(|ended| this.timeout.ended(ended).unwrap_or_else(|late| Err(late.widen())))
    }
}

impl<F> fmt::Debug for LimitedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedFuture").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl<S> Around<S> for Timeout {
    type Service = LimitedService<S>;

    fn around(&self, inner: S) -> Self::Service {
        LimitedService { timeout: self.clone(), inner }
    }
}

impl Timeout {
    /// Puts services under this timeout.
    pub fn layer(&self) -> PolicyLayer<Self> {
        PolicyLayer::new(self.clone())
    }
}

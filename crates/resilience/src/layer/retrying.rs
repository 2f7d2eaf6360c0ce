//! A retry around a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{Around, PolicyLayer};
use crate::error::Error;
use crate::retry::{Made, Retry, RetryIf};

/// A service under a retry.
#[derive(Debug, Clone)]
pub struct RetryingService<S, D> {
    retry: Retry<D>,
    inner: S,
}

impl<S, D> RetryingService<S, D> {
    /// The retry.
    pub fn policy(&self) -> &Retry<D> {
        &self.retry
    }
}

impl<S, R, E, D> Service<R> for RetryingService<S, D>
where
    S: Service<R, Error = Error<E>> + Clone,
    R: Clone,
    D: RetryIf<S::Response, E>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = RetryingFuture<S, R, D>;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        let (service, again) = (self.inner.clone(), request.clone());
        let made = self.retry.begin();
        let state = State::Calling { call: self.inner.call(request) };
        RetryingFuture { retry: self.retry.clone(), made, service, request: again, state }
    }
}

pin_project! {
    /// The answer of a service that is called until it succeeds or there is no further try.
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryingFuture<S, R, D>
    where
        S: Service<R>,
    {
        retry: Retry<D>,
        made: Made,
        // For further tries.
        service: S,
        request: R,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] call: F },
        // Boxed, so that the call that isn't tried again need not carry a timer.
        Waiting { sleep: Pin<Box<Sleep>> },
        MakingReady,
    }
}

impl<S, R, E, D> Future for RetryingFuture<S, R, D>
where
    S: Service<R, Error = Error<E>>,
    R: Clone,
    D: RetryIf<S::Response, E>,
{
    type Output = Result<S::Response, Error<E>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let ended = match this.state.as_mut().project() {
                StateProjection::Calling { call } => ready!(call.poll(context)),
                StateProjection::Waiting { sleep } => {
                    ready!(sleep.as_mut().poll(context));
                    this.state.set(State::MakingReady);
                    continue;
                }
                StateProjection::MakingReady => match ready!(this.service.poll_ready(context)) {
                    Ok(()) => {
                        let call = this.service.call(this.request.clone());
                        this.state.set(State::Calling { call });
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let (next, result) = this.retry.judge(ended);
            let Some(delay) = this.retry.next(this.made, next, result.is_ok()) else {
                return Poll::Ready(result);
            };
            drop(result);
            this.state.set(State::Waiting { sleep: Box::pin(tokio::time::sleep(delay)) });
        }
    }
}

impl<S: Service<R>, R, D> fmt::Debug for RetryingFuture<S, R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryingFuture").field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl<S, D> Around<S> for Retry<D> {
    type Service = RetryingService<S, D>;

    fn around(&self, inner: S) -> Self::Service {
        RetryingService { retry: self.clone(), inner }
    }
}

impl<D> Retry<D> {
    /// Puts services under this retry. Requests must be `Clone`. The services' error is [`Error`], as with every policy,
    /// though a retry alone refuses nothing: it is always [`Error::Inner`].
    pub fn layer(&self) -> PolicyLayer<Self> {
        PolicyLayer::new(self.clone())
    }
}

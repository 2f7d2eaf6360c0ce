//! Policies that may make a call wait before it goes: for a permit, or for its turn.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Around, PolicyLayer, take_ready};
use crate::bulkhead::{self, Asked, Bulkhead};
use crate::error::Error;
use crate::held::{Held, Holding};
use crate::rate_limiter::RateLimiter;

type Wait<H> = Pin<Box<dyn Future<Output = Result<H, Error<Infallible>>> + Send>>;

/// What a policy says to a call.
pub enum Admission<H> {
    /// Go.
    Now(H),
    /// Go when this is over, unless it gives a refusal.
    Later(Wait<H>),
    /// Don't.
    Refused(Error<Infallible>),
}

/// A policy that may make a call wait.
pub trait Queue {
    /// What an admitted call holds.
    type Held: Held;

    /// A call wants in.
    fn admit(&self) -> Admission<Self::Held>;
}

impl Held for bulkhead::Permit {}

impl Queue for Bulkhead {
    type Held = bulkhead::Permit;

    fn admit(&self) -> Admission<bulkhead::Permit> {
        match self.ask(self.max_wait()) {
            Ok(Asked::Permit(permit)) => Admission::Now(permit),
            Ok(Asked::Place(place)) => Admission::Later(Box::pin(place.wait(self.max_wait()))),
            Err(refusal) => Admission::Refused(refusal),
        }
    }
}

impl Queue for RateLimiter {
    type Held = ();

    fn admit(&self) -> Admission<()> {
        match self.ask() {
            Ok(None) => Admission::Now(()),
            Ok(Some(turn)) => Admission::Later(Box::pin(async move {
                turn.wait().await;
                Ok(())
            })),
            Err(refusal) => Admission::Refused(refusal),
        }
    }
}

/// A service under a policy that may make calls wait.
#[derive(Debug, Clone)]
pub struct QueuedService<Q, S> {
    policy: Q,
    inner: S,
}

impl<Q, S> QueuedService<Q, S> {
    /// The policy.
    pub fn policy(&self) -> &Q {
        &self.policy
    }
}

impl<Q, S, R, E> Service<R> for QueuedService<Q, S>
where
    S: Service<R, Error = Error<E>> + Clone,
    Q: Queue,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = QueuedFuture<S, R, Q::Held>;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        let state = match self.policy.admit() {
            Admission::Now(held) => State::Admitted { call: Holding::new(held, self.inner.call(request)) },
            Admission::Later(wait) => {
                State::Waiting { wait, call: Some((take_ready(&mut self.inner), request)) }
            }
            Admission::Refused(refusal) => State::Refused { refusal: Some(refusal) },
        };
        QueuedFuture { state }
    }
}

pin_project! {
    /// The answer of a service, after waiting for it to be let through; or the policy's refusal.
    #[must_use = "futures do nothing unless polled"]
    pub struct QueuedFuture<S, R, H>
    where
        S: Service<R>,
        H: Held,
    {
        #[pin]
        state: State<S, R, H>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, R, H>
    where
        S: Service<R>,
        H: Held,
    {
        Waiting { wait: Wait<H>, call: Option<(S, R)> },
        Admitted { #[pin] call: Holding<S::Future, H> },
        Refused { refusal: Option<Error<Infallible>> },
    }
}

impl<S, R, H, E> Future for QueuedFuture<S, R, H>
where
    S: Service<R, Error = Error<E>>,
    H: Held,
{
    type Output = Result<S::Response, Error<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let held = match state.as_mut().project() {
                StateProjection::Admitted { call } => {
                    let (_held, result) = ready!(call.poll(context));
                    return Poll::Ready(result);
                }
                StateProjection::Refused { refusal } => {
                    let refusal = refusal.take().expect("a future is not polled again once it is ready");
                    return Poll::Ready(Err(refusal.widen()));
                }
                StateProjection::Waiting { wait, call } => match ready!(wait.as_mut().poll(context)) {
                    Ok(held) => call.take().map(|(mut service, request)| {
                        // It is ready: it was made so before it was taken away.
                        Holding::new(held, service.call(request))
                    }),
                    Err(refusal) => return Poll::Ready(Err(refusal.widen())),
                },
            };
            let call = held.expect("a wait ends once");
            state.set(State::Admitted { call });
        }
    }
}

impl<S: Service<R>, R, H: Held> fmt::Debug for QueuedFuture<S, R, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuedFuture").finish_non_exhaustive()
    }
}

macro_rules! queued {
    ($($policy:ident),*) => {$(
        impl<S> Around<S> for $policy {
            type Service = QueuedService<Self, S>;

            fn around(&self, inner: S) -> Self::Service {
                QueuedService { policy: self.clone(), inner }
            }
        }

        impl $policy {
            /// Puts services under this policy.
            pub fn layer(&self) -> PolicyLayer<Self> {
                PolicyLayer::new(self.clone())
            }
        }
    )*};
}

queued!(Bulkhead, RateLimiter);

//! Policies that let each call through at once or refuse it, and take note of how it ended.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Around, PolicyLayer};
use crate::adaptive::{AdaptiveLimiter, AdaptivePermit};
use crate::breaker::{CircuitBreaker, Permit, Rejection};
use crate::classify::{Classify, judge};
use crate::error::Error;
use crate::fallback::{Fallback, Recover};
use crate::held::{Held, Holding};

/// A policy that decides at once.
pub trait Guard {
    /// What an admitted call holds.
    type Ticket: Held;
    /// Why a call is refused.
    type Refusal: Refusal;

    /// Lets a call through or refuses it.
    fn admit(&self) -> Result<Self::Ticket, Self::Refusal>;

    /// The service failed to become ready, with this result of a call that was never made.
    fn unready<T, E>(&self, failed: Result<T, Error<E>>) -> Result<T, Error<E>>
    where
        Self::Ticket: Ticket<T, E>,
    {
        failed
    }
}

/// Why a call is refused.
pub trait Refusal {
    /// As the call's error.
    fn into_error<E>(self) -> Error<E>;
}

impl Refusal for Error<std::convert::Infallible> {
    fn into_error<E>(self) -> Error<E> {
        self.widen()
    }
}

impl Refusal for Rejection {
    #[inline]
    fn into_error<E>(self) -> Error<E> {
        self.into()
    }
}

/// What an admitted call holds until its end.
pub trait Ticket<T, E>: Held {
    /// The call ended with this; gives it back, or what takes its place.
    fn settle(self, result: Result<T, Error<E>>) -> Result<T, Error<E>>;
}

/// A permit, and what the result is judged by.
#[derive(Debug)]
pub struct Judged<P, C> {
    permit: P,
    classify: C,
}

impl<P: Held, C> Held for Judged<P, C> {
    #[inline]
    fn suspended(&self, is_suspended: bool) {
        self.permit.suspended(is_suspended);
    }
}

impl<T, E, C: Classify<T, E>> Ticket<T, E> for Judged<Permit<'static>, C> {
    #[inline]
    fn settle(self, result: Result<T, Error<E>>) -> Result<T, Error<E>> {
        let (verdict, result) = judge(&self.classify, result);
        self.permit.settle(verdict);
        result
    }
}

impl<C: Clone> Guard for CircuitBreaker<C> {
    type Ticket = Judged<Permit<'static>, C>;
    type Refusal = Rejection;

    #[inline]
    fn admit(&self) -> Result<Self::Ticket, Rejection> {
        Ok(Judged { permit: self.enter_owned()?, classify: self.classifier().clone() })
    }

    fn unready<T, E>(&self, failed: Result<T, Error<E>>) -> Result<T, Error<E>>
    where
        Self::Ticket: Ticket<T, E>,
    {
        match self.admit() {
            Ok(ticket) => ticket.settle(failed),
            Err(_) => failed,
        }
    }
}

impl<T, E, C: Classify<T, E>> Ticket<T, E> for Judged<AdaptivePermit, C> {
    fn settle(self, result: Result<T, Error<E>>) -> Result<T, Error<E>> {
        let (verdict, result) = judge(&self.classify, result);
        self.permit.settle(verdict);
        result
    }
}

impl<C: Clone> Guard for AdaptiveLimiter<C> {
    type Ticket = Judged<AdaptivePermit, C>;
    type Refusal = Error<std::convert::Infallible>;

    fn admit(&self) -> Result<Self::Ticket, Self::Refusal> {
        Ok(Judged { permit: self.try_acquire()?, classify: self.classifier().clone() })
    }
}

impl<R> Held for Fallback<R> {}

impl<T, E, R: Recover<T, E>> Ticket<T, E> for Fallback<R> {
    fn settle(self, result: Result<T, Error<E>>) -> Result<T, Error<E>> {
        self.answer(result)
    }
}

impl<R: Clone> Guard for Fallback<R> {
    type Ticket = Self;
    type Refusal = Error<std::convert::Infallible>;

    fn admit(&self) -> Result<Self, Self::Refusal> {
        Ok(self.clone())
    }
}

/// A service under a policy that decides at once.
#[derive(Debug, Clone)]
pub struct GuardedService<G, S> {
    policy: G,
    inner: S,
}

impl<G, S> GuardedService<G, S> {
    /// The policy.
    pub fn policy(&self) -> &G {
        &self.policy
    }
}

impl<G, S, R, E> Service<R> for GuardedService<G, S>
where
    S: Service<R, Error = Error<E>>,
    G: Guard<Ticket: Ticket<S::Response, E>>,
{
    type Response = S::Response;
    type Error = Error<E>;
    type Future = GuardedFuture<S::Future, G>;

    #[inline]
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let Err(error) = ready!(self.inner.poll_ready(context)) else { return Poll::Ready(Ok(())) };
        Poll::Ready(self.policy.unready::<S::Response, E>(Err(error)).map(|_| ()))
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        let state = match self.policy.admit() {
            Ok(ticket) => State::Admitted { call: Holding::new(ticket, self.inner.call(request)) },
            Err(refusal) => State::Refused { refusal: Some(refusal) },
        };
        GuardedFuture { state }
    }
}

pin_project! {
    /// The answer of a service under a policy, or the policy's refusal.
    #[must_use = "futures do nothing unless polled"]
    pub struct GuardedFuture<F, G>
    where
        G: Guard,
    {
        #[pin]
        state: State<F, G>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, G>
    where
        G: Guard,
    {
        Admitted { #[pin] call: Holding<F, G::Ticket> },
        Refused { refusal: Option<G::Refusal> },
    }
}

impl<F, G, T, E> Future for GuardedFuture<F, G>
where
    F: Future<Output = Result<T, Error<E>>>,
    G: Guard<Ticket: Ticket<T, E>>,
{
    type Output = Result<T, Error<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Admitted { call } => {
                let (ticket, result) = ready!(call.poll(context));
                Poll::Ready(ticket.settle(result))
            }
            StateProjection::Refused { refusal } => {
                let refusal = refusal.take().expect("a future is not polled again once it is ready");
                Poll::Ready(Err(refusal.into_error()))
            }
        }
    }
}

impl<F, G: Guard> fmt::Debug for GuardedFuture<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedFuture").finish_non_exhaustive()
    }
}

macro_rules! guarded {
    ($($policy:ident<$parameter:ident>),*) => {$(
        impl<S, $parameter: Clone> Around<S> for $policy<$parameter> {
            type Service = GuardedService<Self, S>;

            fn around(&self, inner: S) -> Self::Service {
                GuardedService { policy: self.clone(), inner }
            }
        }

        impl<$parameter: Clone> $policy<$parameter> {
            /// Puts services under this policy.
            pub fn layer(&self) -> PolicyLayer<Self> {
                PolicyLayer::new(self.clone())
            }
        }
    )*};
}

guarded!(CircuitBreaker<C>, AdaptiveLimiter<C>, Fallback<R>);

//! A stage of a pipeline that may be left out.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::Around;

/// A service with a policy around it, or without.
#[derive(Debug, Clone)]
pub enum OptionalService<With, Without> {
    /// With.
    With(With),
    /// Without.
    Without(Without),
}

impl<With, Without, R> Service<R> for OptionalService<With, Without>
where
    With: Service<R>,
    Without: Service<R, Response = With::Response, Error = With::Error>,
{
    type Response = With::Response;
    type Error = With::Error;
    type Future = OptionalFuture<With::Future, Without::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::With(service) => service.poll_ready(context),
            Self::Without(service) => service.poll_ready(context),
        }
    }

    fn call(&mut self, request: R) -> Self::Future {
        let state = match self {
            Self::With(service) => State::With { call: service.call(request) },
            Self::Without(service) => State::Without { call: service.call(request) },
        };
        OptionalFuture { state }
    }
}

pin_project! {
    /// The answer of a service with a policy around it, or without.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct OptionalFuture<With, Without> {
        #[pin]
        state: State<With, Without>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<With, Without> {
        With { #[pin] call: With },
        Without { #[pin] call: Without },
    }
}

impl<With: Future, Without: Future<Output = With::Output>> Future for OptionalFuture<With, Without> {
    type Output = With::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::With { call } => call.poll(context),
            StateProjection::Without { call } => call.poll(context),
        }
    }
}

impl<S, P: Around<S>> Around<S> for Option<P> {
    type Service = OptionalService<P::Service, S>;

    fn around(&self, inner: S) -> Self::Service {
        match self {
            Some(policy) => OptionalService::With(policy.around(inner)),
            None => OptionalService::Without(inner),
        }
    }
}

//! The breaker as a tower layer.
#![cfg(feature = "tower")]

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use farol_resilience::breaker::State;
use farol_resilience::{CircuitBreaker, Error, ManualClock};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

/// Answers with what it is asked for, and counts what reached it.
#[derive(Clone, Default)]
struct Echo {
    reached: Arc<AtomicUsize>,
    ready: bool,
}

impl Service<Result<u16, &'static str>> for Echo {
    type Response = u16;
    type Error = &'static str;
    type Future = Ready<Result<u16, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(if self.ready { Ok(()) } else { Err("no connection") })
    }

    fn call(&mut self, request: Result<u16, &'static str>) -> Self::Future {
        self.reached.fetch_add(1, Ordering::SeqCst);
        ready(request)
    }
}

fn breaker() -> (CircuitBreaker, ManualClock) {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("upstream").clock(clock.shared()).build();
    (breaker.expect("the settings make sense"), clock)
}

#[tokio::test]
async fn an_open_breaker_rejects_at_once_and_the_service_is_not_reached() {
    let (breaker, clock) = breaker();
    let echo = Echo { ready: true, ..Echo::default() };
    let reached = echo.reached.clone();
    let mut service = ServiceBuilder::new().layer(breaker.layer()).service(echo);
    for _ in 0..5 {
        let answer = service.ready().await.unwrap().call(Err("refused")).await;
        assert_eq!(answer, Err(Error::Inner("refused")));
    }
    let refused = service.ready().await.unwrap().call(Ok(200)).await.unwrap_err();
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(reached.load(Ordering::SeqCst), 5);

    clock.advance(Duration::from_secs(60));
    assert_eq!(service.ready().await.unwrap().call(Ok(200)).await, Ok(200));
    assert_eq!(service.breaker().state(), State::Closed);
}

#[tokio::test]
async fn services_of_one_layer_share_the_breaker_and_its_predicate() {
    let (breaker, _) = breaker();
    let layer = breaker.clone().failure_if(|result: &Result<u16, ()>| *result == Ok(503)).layer();
    let answers = || service_fn(|status: u16| async move { Ok::<_, ()>(status) });
    let one = ServiceBuilder::new().layer(layer.clone()).service(answers());
    let other = ServiceBuilder::new().layer(layer).service(answers());
    for _ in 0..5 {
        assert_eq!(one.clone().oneshot(503).await, Ok(503));
    }
    assert!(other.oneshot(200).await.unwrap_err().is_rejected());
}

#[tokio::test]
async fn a_service_that_cant_become_ready_counts_as_failing() {
    let (breaker, _) = breaker();
    let mut service = ServiceBuilder::new().layer(breaker.layer()).service(Echo::default());
    for _ in 0..5 {
        assert_eq!(service.ready().await.err(), Some(Error::Inner("no connection")));
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test]
async fn a_dropped_call_frees_its_probe() {
    let (breaker, clock) = breaker();
    for _ in 0..5 {
        breaker.try_acquire().unwrap().failure();
    }
    clock.advance(Duration::from_secs(60));
    let hanging = service_fn(|()| std::future::pending::<Result<(), ()>>());
    let mut service = ServiceBuilder::new().layer(breaker.layer()).service(hanging);
    let probe = service.ready().await.unwrap().call(());
    assert!(service.ready().await.unwrap().call(()).await.unwrap_err().is_rejected());
    drop(probe);
    assert_eq!(breaker.snapshot().count("cancelled"), Some(1));
    breaker.try_acquire().unwrap().success();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test]
async fn a_call_whose_panic_is_caught_outside_of_the_layer_counts_as_failed() {
    let (breaker, _clock) = breaker();
    let panics =
        service_fn(|(): ()| async { if true { panic!("a bug") } else { Ok::<(), &'static str>(()) } });
    let mut service = ServiceBuilder::new().layer(breaker.layer()).service(panics);
    let mut call = Box::pin(service.ready().await.unwrap().call(()));
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = call.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()));
    }));
    assert!(polled.is_err());
    drop(call);
    assert_eq!(breaker.snapshot().count("failed"), Some(1));
    assert_eq!(breaker.snapshot().count("cancelled"), Some(0));
}

//! Policies as tower layers.
#![cfg(feature = "tower")]

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use farol_resilience::breaker::State;
use farol_resilience::{
    Bulkhead, CircuitBreaker, Error, Fallback, ManualClock, Pipeline, RateLimiter, Retry, Timeout, TokioClock,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

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
    assert_eq!(service.policy().state(), State::Closed);
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

#[tokio::test]
async fn a_call_that_a_foreign_panic_drops_was_given_up_and_has_not_failed() {
    let (breaker, _clock) = breaker();
    let hanging = || std::future::pending::<Result<(), &'static str>>();
    let mut service = ServiceBuilder::new().layer(breaker.layer()).service(service_fn(move |()| hanging()));
    let by_layer = service.ready().await.unwrap().call(());
    let by_call = breaker.call(hanging);
    let pipeline = Pipeline::outermost(breaker.clone()).then(Bulkhead::new("upstream"));
    let by_pipeline = pipeline.call_once(hanging);
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let (mut layer, mut call, mut pipeline) =
            (Box::pin(by_layer), Box::pin(by_call), Box::pin(by_pipeline));
        assert!(layer.as_mut().poll(&mut context).is_pending());
        assert!(call.as_mut().poll(&mut context).is_pending());
        assert!(pipeline.as_mut().poll(&mut context).is_pending());
        panic!("the caller's own mistake")
    }));
    assert!(unwound.is_err());
    assert_eq!(breaker.snapshot().count("failed"), Some(0));
    assert_eq!(breaker.snapshot().count("cancelled"), Some(3));
}

/// Answers after so many milliseconds.
fn slow(milliseconds: u64) -> impl Service<u8, Response = u8, Error = &'static str, Future: Send> + Clone {
    service_fn(move |request: u8| async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(request)
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_permit_and_gives_its_place_back_when_it_is_dropped() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).max_waiting(1).build();
    let mut service = bulkhead.layer().layer(slow(100));
    // The permit is taken, and the place in the queue, before anything is polled.
    let first = service.ready().await.unwrap().call(1);
    let second = service.ready().await.unwrap().call(2);
    assert_eq!((bulkhead.active(), bulkhead.waiting()), (1, 1));
    let refused = service.ready().await.unwrap().call(3).await;
    assert_eq!(refused, Err(Error::BulkheadFull { name: "db".into() }));
    assert_eq!(tokio::join!(first, second), (Ok(1), Ok(2)));
    assert_eq!((bulkhead.active(), bulkhead.waiting()), (0, 0));

    let held = service.ready().await.unwrap().call(4);
    let waiting = service.ready().await.unwrap().call(5);
    assert!(tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err());
    assert_eq!((bulkhead.active(), bulkhead.waiting()), (1, 0));
    drop(held);
    assert_eq!(bulkhead.active(), 0);
    assert_eq!(bulkhead.snapshot().count("waited_calls"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_its_turn() {
    let second = Duration::from_secs(1);
    let limiter =
        RateLimiter::builder("api", 10, second).burst(1).max_wait(second).clock(TokioClock::shared()).build();
    let mut service = limiter.layer().layer(slow(0));
    let began = tokio::time::Instant::now();
    for number in 0..3 {
        assert_eq!(service.ready().await.unwrap().call(number).await, Ok(number));
    }
    let took = began.elapsed().as_millis();
    assert!((200..=210).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn a_retry_makes_the_service_ready_again_and_a_failure_to_become_ready_is_a_failed_try() {
    let echo = Echo { ready: true, ..Echo::default() };
    let reached = echo.reached.clone();
    let retry = Retry::idempotent("api").max_tries(3).build();
    let answer = retry.layer().layer(echo).oneshot(Err("reset")).await;
    assert_eq!((answer, reached.load(Ordering::SeqCst)), (Err(Error::Inner("reset")), 3));
    assert_eq!(retry.snapshot().count("retries"), Some(2));

    // Ready for the first call only: the second try fails by that, and there is no third.
    let flaky = Flaky::default();
    let retry = Retry::idempotent("flaky").max_tries(2).build();
    assert_eq!(retry.layer().layer(flaky.clone()).oneshot(()).await, Err(Error::Inner("not ready")));
    let (asked, reached) = (flaky.asked.load(Ordering::SeqCst), flaky.reached.load(Ordering::SeqCst));
    assert_eq!((asked, reached), (2, 1));
    // Whoever waits for readiness hears of its failure; nothing was tried.
    assert_eq!(retry.layer().layer(flaky).oneshot(()).await, Err(Error::Inner("not ready")));
    assert_eq!(retry.snapshot().count("no_tries_left"), Some(1));
}

/// Becomes ready once, and fails when it is called.
#[derive(Clone, Default)]
struct Flaky {
    asked: Arc<AtomicUsize>,
    reached: Arc<AtomicUsize>,
}

impl Service<()> for Flaky {
    type Response = ();
    type Error = &'static str;
    type Future = Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(if self.asked.fetch_add(1, Ordering::SeqCst) == 0 { Ok(()) } else { Err("not ready") })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.reached.fetch_add(1, Ordering::SeqCst);
        ready(Err("reset"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_with_a_stage_left_out_limits_each_try_and_answers_for_what_fails() {
    let ms = Duration::from_millis;
    for bulkhead in [None, Some(Bulkhead::new("api"))] {
        let timeout = Timeout::new("api", ms(50));
        let pipeline = Pipeline::outermost(Fallback::value("api", 9))
            .then(Retry::idempotent("api").max_tries(2).build())
            .then(bulkhead)
            .then(timeout.clone());
        assert_eq!(pipeline.layer().layer(slow(10)).oneshot(7).await, Ok(7));
        assert_eq!(pipeline.layer().layer(slow(100)).oneshot(7).await, Ok(9));
        let counts = ["in_time", "timed_out"].map(|kind| timeout.snapshot().count(kind));
        assert_eq!(counts, [Some(1), Some(2)]);
    }
}

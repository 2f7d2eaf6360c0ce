//! The happy path and the rejection allocate nothing, shown by an allocator that counts.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use farol_resilience::{CircuitBreaker, Error};

const CALLS: u64 = 1000;

/// Allocations in a thousand calls, after a first that may set up what the thread needs.
fn allocations(mut call: impl FnMut()) -> u64 {
    call();
    measure(|| (0..CALLS).for_each(|_| call())).count_total
}

/// The result of a future that never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7)))), CALLS);
}

#[test]
fn calls_through_a_closed_breaker_allocate_nothing() {
    let breaker = CircuitBreaker::new("blocking");
    assert_eq!(allocations(|| breaker.call_blocking(|| Ok::<_, ()>(())).unwrap()), 0);
    assert_eq!(allocations(|| at_once(breaker.call(|| async { Ok::<_, ()>(()) })).unwrap()), 0);
    assert_eq!(allocations(|| breaker.try_acquire().unwrap().success()), 0);
    assert_eq!(allocations(|| breaker.try_acquire_owned().unwrap().success()), 0);
}

#[test]
fn windows_and_slow_calls_allocate_nothing() {
    let of_calls = CircuitBreaker::builder("calls").failure_rate(0.5).slow_calls(Duration::from_secs(1), 0.5);
    let of_time = of_calls.clone().window_of_time(Duration::from_secs(10));
    for builder in [of_calls, of_time] {
        let breaker = builder.build().unwrap();
        assert_eq!(allocations(|| breaker.call_blocking(|| Ok::<_, ()>(())).unwrap()), 0);
    }
}

#[test]
fn failures_and_rejections_allocate_nothing() {
    let breaker = CircuitBreaker::builder("failing").consecutive_failures(1_000_000).build().unwrap();
    let fail = || assert_eq!(breaker.call_blocking(|| Err::<(), _>(7)), Err(Error::Inner(7)));
    assert_eq!(allocations(fail), 0);
    breaker.open();
    assert_eq!(allocations(|| assert!(breaker.call_blocking(|| Ok::<_, ()>(())).is_err())), 0);
}

#[cfg(feature = "tower")]
#[test]
fn calls_through_the_layer_allocate_nothing() {
    use tower::{Layer, Service, service_fn};

    let breaker = CircuitBreaker::new("layer");
    let mut service = breaker.layer().layer(service_fn(|request: u8| async move { Ok::<_, ()>(request) }));
    assert_eq!(allocations(|| assert_eq!(at_once(service.call(3)), Ok(3))), 0);
    breaker.open();
    assert_eq!(allocations(|| assert!(at_once(service.call(3)).is_err())), 0);
}

#[cfg(feature = "tower")]
#[test]
fn calls_through_the_layers_of_the_other_policies_allocate_nothing() {
    use farol_resilience::{AdaptiveLimiter, Bulkhead, Fallback, Pipeline, RateLimiter, Retry, Timeout};
    use tower::{Layer, Service, service_fn};

    fn allocated<L, S>(layer: L) -> u64
    where
        L: Layer<tower::util::ServiceFn<fn(u8) -> std::future::Ready<Result<u8, ()>>>, Service = S>,
        S: Service<u8, Response = u8, Error = Error<()>>,
    {
        let answer: fn(u8) -> std::future::Ready<Result<u8, ()>> = |request| std::future::ready(Ok(request));
        let mut service = layer.layer(service_fn(answer));
        allocations(|| assert_eq!(at_once(service.call(3)), Ok(3)))
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _time = runtime.enter();
    let limiter = || RateLimiter::new("l", u32::MAX, Duration::from_secs(1));
    let timeout = || Timeout::new("t", Duration::from_secs(1));
    assert_eq!(allocated(Retry::idempotent("r").max_elapsed(Duration::from_secs(60)).build().layer()), 0);
    assert_eq!(allocated(Bulkhead::new("b").layer()), 0);
    assert_eq!(allocated(limiter().layer()), 0);
    assert_eq!(allocated(AdaptiveLimiter::new("a").layer()), 0);
    assert_eq!(allocated(timeout().layer()), 0);
    assert_eq!(allocated(Fallback::value("f", 7).layer()), 0);
    let pipeline = Pipeline::outermost(Fallback::value("p", 7))
        .then(Retry::idempotent("p").build())
        .then(CircuitBreaker::new("p"))
        .then(Some(limiter()))
        .then(Bulkhead::new("p"))
        .then(timeout());
    assert_eq!(allocated(pipeline.layer()), 0);

    // A refusal neither.
    let full = Bulkhead::builder("b").max_concurrent(1).max_waiting(0).build();
    let _permit = full.try_acquire().unwrap();
    let mut service = full.layer().layer(service_fn(|request: u8| async move { Ok::<_, ()>(request) }));
    assert_eq!(allocations(|| assert!(at_once(service.call(3)).is_err())), 0);
}

#[test]
fn calls_through_the_other_policies_allocate_nothing() {
    use farol_resilience::retry::RetryBudget;
    use farol_resilience::{AdaptiveLimiter, Bulkhead, Fallback, RateLimiter, Retry, Timeout};

    let ok = || async { Ok::<_, ()>(()) };
    let retry =
        Retry::idempotent("r").budget(RetryBudget::new("r")).max_elapsed(Duration::from_secs(60)).build();
    assert_eq!(allocations(|| retry.call_blocking(|| Ok::<_, ()>(())).unwrap()), 0);
    assert_eq!(allocations(|| at_once(retry.call(ok)).unwrap()), 0);
    let bulkhead = Bulkhead::new("b");
    assert_eq!(allocations(|| drop(bulkhead.try_acquire().unwrap())), 0);
    assert_eq!(allocations(|| at_once(bulkhead.call(ok)).unwrap()), 0);
    let limiter = RateLimiter::new("l", u32::MAX, Duration::from_secs(1));
    assert_eq!(allocations(|| at_once(limiter.call(ok)).unwrap()), 0);
    let adaptive = AdaptiveLimiter::new("a");
    assert_eq!(allocations(|| at_once(adaptive.call(ok)).unwrap()), 0);
    let fallback = Fallback::value("f", ());
    assert_eq!(allocations(|| at_once(fallback.call(ok)).unwrap()), 0);
    assert_eq!(allocations(|| fallback.call_blocking(|| Err(())).unwrap()), 0);

    // Refusals, too.
    let full = Bulkhead::builder("b").max_concurrent(1).max_waiting(0).build();
    let _permit = full.try_acquire().unwrap();
    assert_eq!(allocations(|| assert!(at_once(full.call(ok)).is_err())), 0);
    let spent = RateLimiter::builder("l", 1, Duration::from_secs(3600)).build();
    spent.try_acquire().unwrap();
    assert_eq!(allocations(|| assert!(at_once(spent.call(ok)).is_err())), 0);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let timeout = Timeout::new("t", Duration::from_secs(1));
    runtime.block_on(async {
        assert_eq!(allocations(|| at_once(timeout.call(ok)).unwrap()), 0);
    });
}

#[test]
fn calls_through_a_pipeline_allocate_nothing() {
    use farol_resilience::{Bulkhead, Fallback, Pipeline, RateLimiter, Retry};

    let pipeline = Pipeline::outermost(Fallback::value("p", ()))
        .then(Retry::idempotent("p").build())
        .then(CircuitBreaker::new("p"))
        .then(RateLimiter::new("p", u32::MAX, Duration::from_secs(1)))
        .then(Bulkhead::new("p"));
    assert_eq!(allocations(|| at_once(pipeline.call(|| async { Ok::<_, ()>(()) })).unwrap()), 0);
    assert_eq!(allocations(|| pipeline.call_blocking(|| Ok::<_, ()>(())).unwrap()), 0);
}

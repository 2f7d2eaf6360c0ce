use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, TokioClock};
use crate::retry::Jitter;
use crate::{AdaptiveLimiter, Bulkhead, CircuitBreaker, Fallback, PolicyKind, RateLimiter, Retry, Timeout};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A stage that writes down when a call passes it, inwards and outwards.
#[derive(Clone)]
struct Witness {
    number: u8,
    diary: Arc<parking_lot::Mutex<Vec<i16>>>,
}

impl Witness {
    fn note(&self, sign: i16) {
        self.diary.lock().push(sign * i16::from(self.number));
    }
}

impl<T: Send, E: Send> Stage<T, E> for Witness {
    async fn run<O: Operation<T, E>>(&self, operation: &mut O) -> Result<T, Error<E>> {
        self.note(1);
        let result = operation.attempt().await;
        self.note(-1);
        result
    }

    fn run_blocking(&self, operation: &mut dyn FnMut() -> Result<T, Error<E>>) -> Result<T, Error<E>> {
        self.note(1);
        let result = operation();
        self.note(-1);
        result
    }
}

#[tokio::test]
async fn a_call_passes_the_stages_in_the_order_of_writing_and_comes_back_in_reverse() {
    let diary = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let witness = |number| Witness { number, diary: diary.clone() };
    let pipeline = Pipeline::outermost(witness(1))
        .then(witness(2))
        .then(Retry::idempotent("twice").max_tries(2).initial_delay(Duration::ZERO).build())
        .then(Some(witness(3)))
        .then(None::<Witness>);
    let expected = [1, 2, 3, -3, 3, -3, -2, -1];

    assert_eq!(pipeline.call(|| async { Err::<(), _>("reset") }).await, Err(Error::Inner("reset")));
    assert_eq!(std::mem::take(&mut *diary.lock()), expected);
    assert_eq!(pipeline.call_blocking(|| Err::<(), _>("reset")), Err(Error::Inner("reset")));
    assert_eq!(*diary.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_the_retry_limits_each_try_and_one_outside_the_whole() {
    let tries = AtomicU32::new(0);
    let call = || {
        tries.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(ms(300)).await;
            Ok::<_, ()>(())
        }
    };
    let retry = Retry::idempotent("api").jitter(Jitter::None).build();
    let each = Pipeline::outermost(retry.clone()).then(Timeout::new("each", ms(100)));
    assert_eq!(each.call(call).await, Err(Error::TimedOut { name: "each".into(), after: ms(100) }));
    assert_eq!(tries.swap(0, Ordering::SeqCst), 3);

    let whole = Pipeline::outermost(Timeout::new("whole", ms(100))).then(retry);
    assert_eq!(whole.call(call).await, Err(Error::TimedOut { name: "whole".into(), after: ms(100) }));
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_neither_retried_nor_a_sample_and_the_fallback_answers_for_it() {
    let limiter = RateLimiter::builder("api", 1, Duration::from_secs(60)).clock(TokioClock::shared()).build();
    let adaptive = AdaptiveLimiter::builder("api").initial(2).build();
    let pipeline = Pipeline::outermost(Fallback::value("api", 0))
        .then(Retry::idempotent("api").build())
        .then(adaptive.clone())
        .then(limiter.clone());
    assert_eq!(pipeline.call(|| async { Ok::<_, &str>(7) }).await, Ok(7));
    assert_eq!(pipeline.call(|| async { Ok::<_, &str>(7) }).await, Ok(0));
    assert_eq!(limiter.snapshot().count("rejected"), Some(1));
    assert_eq!(adaptive.snapshot().count("ignored"), Some(1));
    assert_eq!(adaptive.limit(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_inside_the_retry_judges_each_try_and_ends_the_tries_when_it_opens() {
    let breaker =
        CircuitBreaker::builder("api").consecutive_failures(3).clock(TokioClock::shared()).build().unwrap();
    let retry = Retry::idempotent("api").max_tries(10).build();
    let full = Bulkhead::builder("api").max_concurrent(1).max_wait(Duration::ZERO).build();
    let pipeline = Pipeline::outermost(retry.clone()).then(breaker.clone()).then(full.clone());
    // The bulkhead's refusals are no failures of the service.
    let permit = full.try_acquire().unwrap();
    for _ in 0..10 {
        let refused = pipeline.call(|| async { Ok::<_, &str>(()) }).await;
        assert_eq!(refused, Err(Error::BulkheadFull { name: "api".into() }));
    }
    assert_eq!(breaker.snapshot().count("ignored"), Some(10));
    drop(permit);
    let mut tries = 0;
    let failed = pipeline
        .call(|| {
            tries += 1;
            async { Err::<(), _>("reset") }
        })
        .await;
    assert!(matches!(failed, Err(Error::CircuitOpen { .. })));
    assert_eq!(tries, 3);
    assert_eq!(retry.snapshot().count("retries"), Some(3));
}

#[tokio::test]
async fn a_pipeline_without_a_retry_takes_a_closure_that_can_be_called_once() {
    let pipeline = Pipeline::outermost(Bulkhead::new("db")).then(Timeout::new("db", ms(1_000)));
    let request = String::from("moved into the call");
    let answer = pipeline.call_once(move || async move { Ok::<_, ()>(request) }).await;
    assert_eq!(answer.as_deref(), Ok("moved into the call"));
}

#[tokio::test]
async fn a_call_through_a_pipeline_can_be_spawned() {
    let pipeline = Pipeline::outermost(Retry::idempotent("db").build())
        .then(CircuitBreaker::new("db"))
        .then(RateLimiter::new("db", 10, Duration::from_secs(1)))
        .then(Bulkhead::new("db"))
        .then(Timeout::new("db", ms(1_000)));
    let call = {
        let pipeline = pipeline.clone();
        async move { pipeline.call(|| async { Ok::<_, ()>(7) }).await }
    };
    assert_eq!(tokio::spawn(call).await.unwrap(), Ok(7));
}

#[test]
fn a_sync_call_goes_through_the_same_policies() {
    let clock = ManualClock::new();
    let pipeline = Pipeline::outermost(Retry::idempotent("db").clock(clock.shared()).build())
        .then(RateLimiter::builder("db", 10, Duration::from_secs(1)).clock(clock.shared()).build())
        .then(AdaptiveLimiter::builder("db").clock(clock.shared()).build())
        .then(Bulkhead::builder("db").clock(clock.shared()).build())
        .then(Timeout::with_clock("db", ms(100), clock.shared()));
    let mut tries = 0;
    let result = pipeline.call_blocking(|| {
        tries += 1;
        clock.advance(if tries == 1 { ms(200) } else { ms(1) });
        if tries < 3 { Err("reset") } else { Ok(tries) }
    });
    assert_eq!(result, Ok(3));
    let registry = Registry::new();
    pipeline.register(&registry).unwrap();
    let count = |kind, name| registry.snapshot(kind, "db").and_then(|snapshot| snapshot.count(name));
    assert_eq!(count(PolicyKind::Retry, "successful_with_retry"), Some(1));
    assert_eq!(count(PolicyKind::Timeout, "timed_out"), Some(1));
    assert_eq!(count(PolicyKind::AdaptiveLimiter, "dropped"), Some(2));
    assert_eq!(count(PolicyKind::Bulkhead, "permitted"), Some(3));
    assert_eq!(registry.len(), 5);
}

proptest! {
    /// Any order of witnesses and retries: a call meets the stages from the outermost inwards, and leaves each before
    /// those around it.
    #[test]
    fn any_order_is_obeyed(numbers in prop::collection::vec(1..100u8, 4), tries in 1..4u32, fails in any::<bool>()) {
        let diary = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let witness = |index: usize| Witness { number: numbers[index], diary: diary.clone() };
        let retry = Retry::idempotent("r").max_tries(tries).initial_delay(Duration::ZERO).build();
        let pipeline =
            Pipeline::outermost(witness(0)).then(witness(1)).then(retry).then(witness(2)).then(witness(3));
        let _ = pipeline.call_blocking(|| if fails { Err(()) } else { Ok(()) });
        let [a, b, c, d] = [0, 1, 2, 3].map(|index| i16::from(numbers[index]));
        let mut expected = vec![a, b];
        for _ in 0..if fails { tries } else { 1 } {
            expected.extend([c, d, -d, -c]);
        }
        expected.extend([-b, -a]);
        prop_assert_eq!(&*diary.lock(), &expected);
    }
}

#[cfg(feature = "tower")]
mod tower_layers {
    use tower::{Layer, Service, ServiceExt, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pipeline_is_one_layer_with_one_flat_error() {
        let tries = Arc::new(AtomicU32::new(0));
        let counted = tries.clone();
        let service = service_fn(move |request: String| {
            let try_number = counted.fetch_add(1, Ordering::SeqCst);
            async move { if try_number < 2 { Err("reset") } else { Ok(request.len()) } }
        });
        let pipeline = Pipeline::outermost(Retry::idempotent("api").build())
            .then(Bulkhead::new("api"))
            .then(Timeout::new("api", ms(100)));
        let mut service = pipeline.layer().layer(service);
        let answer = service.ready().await.unwrap().call("three".to_owned()).await;
        assert_eq!(answer, Ok(5));
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_cannot_be_cloned_pass_a_policy_that_calls_once() {
        struct Request(u8);
        let bulkhead = Bulkhead::builder("api").max_concurrent(1).max_wait(ms(50)).build();
        let service = bulkhead.layer().layer(service_fn(|request: Request| async move {
            tokio::time::sleep(ms(100)).await;
            Ok::<_, ()>(request.0)
        }));
        let first = tokio::spawn(service.clone().oneshot(Request(1)));
        tokio::time::sleep(ms(1)).await;
        let refused = service.oneshot(Request(2)).await.unwrap_err();
        assert_eq!(refused, Error::BulkheadTimeout { name: "api".into(), waited: ms(50) });
        assert_eq!(first.await.unwrap(), Ok(1));
    }
}

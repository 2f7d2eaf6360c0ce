//! The policies besides the breaker: the same call, which succeeds, through each of them and through its peers.

use std::future::{Ready, poll_fn};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use backon::{BlockingRetryable, ExponentialBuilder, Retryable};
use farol_resilience::retry::RetryBudget;
use farol_resilience::{AdaptiveLimiter, Bulkhead, CircuitBreaker, Pipeline, RateLimiter, Retry, Timeout};
use governor::{Quota, RateLimiter as Governor};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};

use super::{Async, Failed, Named, Subject, black_box, callee};

/// More than there are threads: what is measured is an uncontended permit, not waiting.
const PERMITS: usize = 1_000;
/// So many a second that nobody is refused: one a nanosecond.
const RATE: u32 = 1_000_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// A call that is awaited once per call.
macro_rules! each {
    ($shared:expr, |$name:ident| $call:expr) => {{
        let shared = $shared;
        Async(move |calls, _| {
            let $name = shared.clone();
            async move {
                for _ in 0..calls {
                    let _ = black_box($call.await);
                }
            }
        })
    }};
}

/// A tower service that is made ready and called.
macro_rules! service {
    ($layered:expr) => {{
        let service = $layered;
        Async(move |calls, _| {
            let mut service = service.clone();
            async move {
                for _ in 0..calls {
                    let ready = poll_fn(|context| service.poll_ready(context)).await;
                    assert!(ready.is_ok());
                    let _ = black_box(service.call(false).await);
                }
            }
        })
    }};
}

async fn answer() -> Result<u64, Failed> {
    callee(false)
}

/// All subjects, new, by policy.
pub fn subjects() -> Vec<(&'static str, Vec<Named>)> {
    vec![
        ("retry without a failure", retries()),
        ("bulkhead, uncontended", bulkheads()),
        ("rate limiter, within the rate", rate_limiters()),
        ("timeout, in time", timeouts()),
        ("adaptive limit, pipeline", others()),
    ]
}

fn named(name: &'static str, subject: impl Subject + 'static) -> Named {
    Named { name, subject: Arc::new(subject) }
}

/// Tries three times, as the default of Farol's does.
#[derive(Clone)]
struct ThreeTries(u32);

impl tower::retry::Policy<bool, u64, Failed> for ThreeTries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut bool, result: &mut Result<u64, Failed>) -> Option<Ready<()>> {
        self.0 = self.0.saturating_sub(1);
        (result.is_err() && self.0 > 0).then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &bool) -> Option<bool> {
        Some(*request)
    }
}

fn retries() -> Vec<Named> {
    let retry = || Retry::idempotent("bench");
    let (blocking, budgeted) = (retry().build(), retry().budget(RetryBudget::new("bench")).build());
    let backoff = || ExponentialBuilder::default().with_max_times(2).with_jitter();
    vec![
        named("retry: farol, call_blocking", move |fails| {
            let _ = black_box(blocking.call_blocking(|| callee(fails)));
        }),
        named("retry: farol, call (async)", each!(retry().build(), |retry| retry.call(answer))),
        named("retry: farol, with a budget", move |fails| {
            let _ = black_box(budgeted.call_blocking(|| callee(fails)));
        }),
        named(
            "retry: farol, layer (tower)",
            service!(retry().build().layer().layer(service_fn(|_: bool| answer()))),
        ),
        named("retry: backon 1.6, blocking", move |fails| {
            let _ = black_box((|| callee(fails)).retry(backoff()).call());
        }),
        named("retry: backon 1.6, async", each!((), |_unit| answer.retry(backoff()))),
        named(
            "retry: tower 0.5",
            service!(tower::retry::RetryLayer::new(ThreeTries(3)).layer(service_fn(|_: bool| answer()))),
        ),
    ]
}

fn bulkheads() -> Vec<Named> {
    let bulkhead = || Bulkhead::builder("bench").max_concurrent(PERMITS).build();
    let (permits, blocking, semaphore) = (bulkhead(), bulkhead(), Semaphore::new(PERMITS));
    let theirs = tower_resilience_bulkhead::BulkheadLayer::builder().max_concurrent_calls(PERMITS).build();
    vec![
        named("bulkhead: farol, try_acquire and drop", move |_| drop(black_box(permits.try_acquire()))),
        named("bulkhead: farol, call_blocking", move |fails| {
            let _ = black_box(blocking.call_blocking(|| callee(fails)));
        }),
        named("bulkhead: farol, call (async)", each!(bulkhead(), |bulkhead| bulkhead.call(answer))),
        named(
            "bulkhead: farol, layer (tower)",
            service!(bulkhead().layer().layer(service_fn(|_: bool| answer()))),
        ),
        named("bulkhead: tokio Semaphore, try_acquire", move |_| drop(black_box(semaphore.try_acquire()))),
        named(
            "bulkhead: tokio Semaphore, acquire_owned",
            each!(Arc::new(Semaphore::new(PERMITS)), |semaphore| semaphore.clone().acquire_owned()),
        ),
        named(
            "bulkhead: tower 0.5 ConcurrencyLimit",
            service!(tower::limit::ConcurrencyLimitLayer::new(PERMITS).layer(service_fn(|_: bool| answer()))),
        ),
        named(
            "bulkhead: tower-resilience-bulkhead 0.14",
            service!(theirs.expect("valid settings").layer(service_fn(|_: bool| answer()))),
        ),
    ]
}

fn rate_limiters() -> Vec<Named> {
    let limiter = || RateLimiter::new("bench", RATE, SECOND);
    let acquired = limiter();
    let governor = Governor::direct(Quota::per_second(NonZeroU32::new(RATE).expect("not zero")));
    vec![
        named("rate: farol, try_acquire", move |_| drop(black_box(acquired.try_acquire()))),
        named("rate: farol, call (async)", each!(limiter(), |limiter| limiter.call(answer))),
        named("rate: governor 0.10, check", move |_| drop(black_box(governor.check()))),
    ]
}

fn timeouts() -> Vec<Named> {
    vec![
        named(
            "timeout: farol, call (async)",
            each!(Timeout::new("bench", SECOND), |timeout| timeout.call(answer)),
        ),
        named("timeout: tokio::time::timeout", each!((), |_unit| tokio::time::timeout(SECOND, answer()))),
    ]
}

fn others() -> Vec<Named> {
    let limiter = AdaptiveLimiter::builder("bench").initial(PERMITS).build();
    let stages = || {
        Pipeline::outermost(Retry::idempotent("bench").build())
            .then(CircuitBreaker::new("bench"))
            .then(RateLimiter::new("bench", RATE, SECOND))
            .then(Bulkhead::builder("bench").max_concurrent(PERMITS).build())
    };
    let blocking = stages();
    vec![
        named("adaptive limit: farol, call_blocking", move |fails| {
            let _ = black_box(limiter.call_blocking(|| callee(fails)));
        }),
        named("retry, breaker, rate, bulkhead: call_blocking", move |fails| {
            let _ = black_box(blocking.call_blocking(|| callee(fails)));
        }),
        named("the same and a timeout: call (async)", {
            each!(stages().then(Timeout::new("bench", SECOND)), |pipeline| pipeline.call(answer))
        }),
    ]
}

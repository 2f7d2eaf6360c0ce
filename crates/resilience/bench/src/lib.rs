//! What is measured: the same call through different breakers, each set up to open after five failures, or as near to that
//! as the crate comes.

pub mod policies;

use std::cell::RefCell;
use std::future::Future;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use failsafe::CircuitBreaker as _;
use tower::{Layer, Service, service_fn};

/// Longer than any run: an open breaker stays open.
const OPEN_FOR: Duration = Duration::from_secs(3600);

/// Enough failing calls to open any of them.
const FAILING_CALLS: u32 = 300;

/// What the call fails with.
#[derive(Debug, Clone, Copy)]
pub struct Failed;

/// Failing calls that a breaker let through.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// The call that is protected: nothing, in a way that the compiler can't see through.
#[inline(never)]
fn callee(fails: bool) -> Result<u64, Failed> {
    if black_box(fails) {
        FAILED.fetch_add(1, Ordering::Relaxed);
        Err(Failed)
    } else {
        Ok(black_box(7))
    }
}

/// How a breaker notices that nothing works any more.
pub struct Detection {
    /// Calls that failed before the first one was rejected.
    pub failed: u64,
    /// From the beginning of the first of them to the first rejection.
    pub took: Duration,
}

/// Lets every call of a new subject fail until one is rejected. Nothing if none is.
pub fn detect(subject: &dyn Subject) -> Option<Detection> {
    // Whatever is made at the first call is made.
    subject.run(1, false);
    let before = FAILED.load(Ordering::Relaxed);
    let begin = Instant::now();
    for made in 0..u64::from(FAILING_CALLS) {
        subject.run(1, true);
        let failed = FAILED.load(Ordering::Relaxed) - before;
        if failed == made {
            return Some(Detection { failed, took: begin.elapsed() });
        }
    }
    None
}

fn bare(fails: bool) {
    black_box(callee(fails)).ok();
}

/// Something that protects calls, shared by threads.
pub trait Subject: Send + Sync {
    /// Makes so many calls, one after the other, on the calling thread.
    fn run(&self, calls: u32, fails: bool);

    /// Opens it, by failing calls.
    fn open(&self) {
        self.run(FAILING_CALLS, true);
    }
}

/// A subject, and what to call it.
pub struct Named {
    /// For the table.
    pub name: &'static str,
    /// The subject, new.
    pub subject: Arc<dyn Subject>,
}

impl<F: Fn(bool) + Send + Sync> Subject for F {
    fn run(&self, calls: u32, fails: bool) {
        for _ in 0..calls {
            self(fails);
        }
    }
}

/// A subject whose calls are futures. A batch of them runs in one task.
struct Async<F>(F);

impl<F, Fut> Subject for Async<F>
where
    F: Fn(u32, bool) -> Fut + Send + Sync,
    Fut: Future<Output = ()>,
{
    fn run(&self, calls: u32, fails: bool) {
        thread_local! {
            static RUNTIME: RefCell<tokio::runtime::Runtime> = RefCell::new(
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            );
        }
        RUNTIME.with_borrow(|runtime| runtime.block_on((self.0)(calls, fails)));
    }
}

fn farol() -> farol_resilience::CircuitBreaker {
    farol_resilience::CircuitBreaker::builder("bench").open_for(OPEN_FOR).build().expect("valid settings")
}

/// All subjects, new. The first is the bare call.
pub fn subjects() -> Vec<Named> {
    let named = |name, subject: Arc<dyn Subject>| Named { name, subject };
    vec![
        named("no breaker", Arc::new(bare)),
        named("farol-resilience, call_blocking", Arc::new(farol_blocking())),
        named("farol-resilience, call (async)", Arc::new(farol_async())),
        named("farol-resilience, layer (tower)", Arc::new(farol_layer())),
        named("farol-resilience, failure rate of 100 calls", Arc::new(farol_rate(false))),
        named("farol-resilience, failure rate of 10 s", Arc::new(farol_rate(true))),
        named("failsafe 1.3", Arc::new(failsafe())),
        named("recloser 1.4, error rate of 100 calls", Arc::new(recloser())),
        named("tower-resilience-circuitbreaker 0.14", Arc::new(tower_resilience())),
    ]
}

fn farol_blocking() -> impl Subject {
    let breaker = farol();
    move |fails| drop(black_box(breaker.call_blocking(|| callee(fails))))
}

fn farol_rate(of_time: bool) -> impl Subject {
    let builder = farol_resilience::CircuitBreaker::builder("bench").failure_rate(0.5).open_for(OPEN_FOR);
    let builder = if of_time { builder.window_of_time(Duration::from_secs(10)) } else { builder };
    let breaker = builder.build().expect("valid settings");
    RateSubject { breaker }
}

/// Needs an opening of its own: calls that went well while it was measured would outnumber the failures.
struct RateSubject {
    breaker: farol_resilience::CircuitBreaker,
}

impl Subject for RateSubject {
    fn run(&self, calls: u32, fails: bool) {
        for _ in 0..calls {
            drop(black_box(self.breaker.call_blocking(|| callee(fails))));
        }
    }

    fn open(&self) {
        // A new window, so that the failures are all that is in it.
        self.breaker.reset();
        self.run(FAILING_CALLS, true);
    }
}

fn farol_async() -> impl Subject {
    let breaker = farol();
    Async(move |calls, fails| {
        let breaker = breaker.clone();
        async move {
            for _ in 0..calls {
                drop(black_box(breaker.call(|| async { callee(fails) }).await));
            }
        }
    })
}

fn farol_layer() -> impl Subject {
    let layer = farol().layer();
    let service = layer.layer(service_fn(|fails: bool| async move { callee(fails) }));
    Async(move |calls, fails| {
        let mut service = service.clone();
        async move {
            for _ in 0..calls {
                drop(black_box(service.call(fails).await));
            }
        }
    })
}

fn failsafe() -> impl Subject {
    let backoff = failsafe::backoff::constant(OPEN_FOR);
    let policy = failsafe::failure_policy::consecutive_failures(5, backoff);
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    move |fails| drop(black_box(breaker.call(|| callee(fails))))
}

fn recloser() -> impl Subject {
    let breaker = recloser::Recloser::custom().error_rate(0.5).closed_len(100).open_wait(OPEN_FOR).build();
    move |fails| drop(black_box(breaker.call(|| callee(fails))))
}

fn tower_resilience() -> impl Subject {
    let layer = tower_resilience_circuitbreaker::CircuitBreakerLayer::builder()
        .consecutive_failures(5)
        .wait_duration_in_open(OPEN_FOR)
        .build()
        .expect("valid settings");
    let service = layer.layer(service_fn(|fails: bool| async move { callee(fails) }));
    Async(move |calls, fails| {
        let mut service = service.clone();
        async move {
            for _ in 0..calls {
                // Asks for readiness as tower wants it; it is always ready.
                let ready = std::future::poll_fn(|context| service.poll_ready(context)).await;
                assert!(ready.is_ok());
                drop(black_box(service.call(fails).await));
            }
        }
    })
}

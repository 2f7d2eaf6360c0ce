use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::clock::{ManualClock, TokioClock};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns as soon as the condition holds.
fn eventually(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(30), "the condition never held");
        std::thread::yield_now();
    }
}

#[test]
fn a_permit_is_given_back_when_it_is_dropped_and_tells_how_long_it_was_held() {
    let clock = ManualClock::new();
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).clock(clock.shared()).build();
    let permit = bulkhead.try_acquire().unwrap();
    clock.advance(ms(30));
    assert_eq!(permit.held_for(), ms(30));
    assert_eq!(bulkhead.try_acquire().unwrap_err(), Error::BulkheadFull { name: "db".into() });
    assert_eq!(bulkhead.active(), 1);
    drop(permit);
    assert_eq!(bulkhead.active(), 0);
    assert!(bulkhead.try_acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_as_long_as_it_may_and_no_longer() {
    let clock = TokioClock::shared();
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).clock(clock.clone()).build();
    let permit = bulkhead.acquire().await.unwrap();
    let began = clock.now();
    let refused = bulkhead.acquire().await.unwrap_err();
    assert_eq!(refused, Error::BulkheadTimeout { name: "db".into(), waited: DEFAULT_MAX_WAIT });
    assert_eq!(clock.now().since(began), DEFAULT_MAX_WAIT);
    assert_eq!(bulkhead.waiting(), 0);

    let waiting = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.acquire().await.map(drop) }
    });
    tokio::time::sleep(ms(4_999)).await;
    drop(permit);
    waiting.await.unwrap().unwrap();
    assert_eq!(bulkhead.snapshot().count("permitted"), Some(2));
    assert_eq!(bulkhead.snapshot().count("waited_calls"), Some(1));
    assert_eq!(bulkhead.snapshot().count("rejected_timeout"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_a_place_is_given_back() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).max_waiting(2).build();
    let _permit = bulkhead.acquire().await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let bulkhead = bulkhead.clone();
        waiting.spawn(async move { bulkhead.acquire().await.map(drop) });
    }
    tokio::time::sleep(ms(1)).await;
    assert_eq!(bulkhead.waiting(), 2);
    assert_eq!(bulkhead.acquire().await.unwrap_err(), Error::BulkheadFull { name: "db".into() });
    assert_eq!(bulkhead.acquire_blocking().unwrap_err(), Error::BulkheadFull { name: "db".into() });
    waiting.shutdown().await;
    assert_eq!(bulkhead.waiting(), 0);
    assert_eq!(bulkhead.snapshot().count("rejected_full"), Some(2));
}

#[test]
fn with_no_time_to_wait_nobody_waits() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).max_wait(Duration::ZERO).build();
    let _permit = bulkhead.acquire_blocking().unwrap();
    assert_eq!(bulkhead.acquire_blocking().unwrap_err(), Error::BulkheadFull { name: "db".into() });
}

#[test]
fn a_blocked_thread_gets_the_permit_that_comes_back_and_gives_up_in_time() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).max_wait(Duration::from_secs(60)).build();
    let permit = bulkhead.acquire_blocking().unwrap();
    let late = bulkhead.acquire_blocking_within(ms(20)).unwrap_err();
    assert_eq!(late, Error::BulkheadTimeout { name: "db".into(), waited: ms(20) });
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bulkhead.acquire_blocking().map(drop));
        eventually(|| bulkhead.waiting() == 1);
        drop(permit);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(bulkhead.active(), 0);
}

#[tokio::test(start_paused = true)]
async fn permits_go_to_those_who_wait_in_the_order_in_which_they_came() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).build();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let permit = bulkhead.try_acquire().unwrap();
    let mut waiting = JoinSet::new();
    for caller in 0..6 {
        let (bulkhead, order) = (bulkhead.clone(), order.clone());
        waiting.spawn(async move {
            let _permit = bulkhead.acquire().await.unwrap();
            order.lock().push(caller);
        });
        tokio::time::sleep(ms(1)).await;
    }
    drop(permit);
    // The permit is on its way to the first of them: a newcomer doesn't overtake.
    bulkhead.try_acquire().unwrap_err();
    while let Some(ended) = waiting.join_next().await {
        ended.unwrap();
    }
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_service_behind_its_own_bulkhead_does_not_starve_another() {
    let (slow, fast) = (Bulkhead::builder("slow").max_concurrent(2).build(), Bulkhead::new("fast"));
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        let slow = slow.clone();
        calls.spawn(async move {
            let call = || async {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok::<_, ()>(())
            };
            slow.call(call).await
        });
    }
    tokio::time::sleep(ms(1)).await;
    assert_eq!((slow.active(), slow.waiting()), (2, 18));
    assert_eq!(fast.call(|| async { Ok::<_, ()>(7) }).await, Ok(7));
    calls.shutdown().await;
    assert_eq!((slow.active(), slow.waiting()), (0, 0));
}

#[test]
fn a_panic_gives_the_permit_back() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).build();
    let call = || bulkhead.call_blocking(|| -> Result<(), ()> { panic!("the operation's own mistake") });
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
    assert_eq!(bulkhead.active(), 0);
}

#[test]
fn there_are_never_more_calls_under_way_than_permits_on_any_threads() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(3).max_waiting(100).build();
    let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (bulkhead, under_way, most) = (&bulkhead, &under_way, &most);
            scope.spawn(move || {
                for call in 0..2_000 {
                    let permit = if (thread + call) % 3 == 0 {
                        bulkhead.try_acquire()
                    } else {
                        bulkhead.acquire_blocking_within(Duration::from_secs(60))
                    };
                    if let Ok(_permit) = permit {
                        most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        under_way.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!((bulkhead.active(), bulkhead.waiting()), (0, 0));
}

proptest! {
    /// Callers that come, wait, are given up and leave at any times: never more permits than there are, and each caller
    /// either got one or was told why not.
    #[test]
    fn concurrency_stays_in_its_bound_whoever_is_given_up_when(
        callers in prop::collection::vec((0..300u64, 0..200u64, prop::option::of(0..300u64)), 1..40),
        max_concurrent in 1..5usize, max_waiting in 0..10usize, max_wait in 0..150u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let bulkhead = Bulkhead::builder("db")
                .max_concurrent(max_concurrent).max_waiting(max_waiting).max_wait(ms(max_wait)).build();
            let (most, came) = (Arc::new(AtomicUsize::new(0)), callers.len() as u64);
            let mut calls = JoinSet::new();
            for (comes, holds, given_up) in callers {
                let (bulkhead, most) = (bulkhead.clone(), most.clone());
                calls.spawn(async move {
                    tokio::time::sleep(ms(comes)).await;
                    let call = bulkhead.call(|| async {
                        most.fetch_max(bulkhead.active(), Ordering::SeqCst);
                        tokio::time::sleep(ms(holds)).await;
                        Ok::<_, ()>(())
                    });
                    match given_up {
                        Some(after) => drop(tokio::time::timeout(ms(after), call).await),
                        None => drop(call.await),
                    }
                });
            }
            while let Some(ended) = calls.join_next().await {
                ended.unwrap();
            }
            assert!(most.load(Ordering::SeqCst) <= max_concurrent);
            assert_eq!((bulkhead.active(), bulkhead.waiting()), (0, 0));
            let snapshot = bulkhead.snapshot();
            let answered: u64 =
                ["permitted", "rejected_full", "rejected_timeout"].iter().filter_map(|kind| snapshot.count(kind)).sum();
            // Those given up while they waited have no answer.
            assert!(answered <= came);
        });
    }
}

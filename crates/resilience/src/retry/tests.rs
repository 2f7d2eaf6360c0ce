use std::cell::Cell;
use std::future::ready;

use proptest::prelude::*;

use super::*;
use std::time::SystemTime;

use crate::clock::{Clock, ManualClock, TokioClock};
use crate::random::SplitMix64;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An operation that gives these results, one after the other, and the last one for ever.
fn gives<T: Clone>(results: &[T]) -> impl FnMut() -> T {
    let mut results = results.iter();
    let mut last = None;
    move || {
        last = results.next().or(last);
        last.expect("there is at least one result").clone()
    }
}

#[tokio::test(start_paused = true)]
async fn delays_of_an_async_call_pass_in_virtual_time() {
    let clock = TokioClock::shared();
    let began = clock.now();
    let retry = Retry::idempotent("api").jitter(Jitter::None).max_tries(4).clock(clock.clone()).build();
    let times = Cell::new(Vec::new());
    let result = retry
        .call(|| {
            let mut seen = times.take();
            seen.push(clock.now().since(began).as_millis());
            times.set(seen);
            ready(Err::<(), _>("refused"))
        })
        .await;
    assert_eq!(result, Err("refused"));
    assert_eq!(times.take(), [0, 100, 300, 700]);
    assert_eq!(retry.snapshot().count("failed_with_retry"), Some(1));
    assert_eq!(retry.snapshot().count("retries"), Some(3));
    assert_eq!(retry.snapshot().count("no_tries_left"), Some(1));
}

#[test]
fn a_blocking_call_sleeps_by_its_clock() {
    let clock = ManualClock::new();
    let retry = Retry::idempotent("api").jitter(Jitter::None).clock(clock.shared()).build();
    assert_eq!(retry.call_blocking(gives(&[Err("refused"), Err("refused"), Ok(7)])), Ok(7));
    assert_eq!(clock.now().since(MonotonicTime::ZERO), ms(300));
    assert_eq!(retry.snapshot().count("successful_with_retry"), Some(1));
}

#[test]
fn a_call_that_succeeds_is_tried_once() {
    let retry = Retry::idempotent("api").build();
    let mut tries = 0;
    retry
        .call_blocking(|| {
            tries += 1;
            Ok::<_, ()>(())
        })
        .unwrap();
    assert_eq!(tries, 1);
    assert_eq!(retry.snapshot().count("successful_without_retry"), Some(1));
}

#[test]
fn an_error_that_the_predicate_is_false_for_is_given_to_the_caller_at_once() {
    let retry = Retry::idempotent("api").when_error(|status: &u16| *status >= 500).build();
    let mut tries = 0;
    let result: Result<(), u16> = retry.call_blocking(|| {
        tries += 1;
        Err(404)
    });
    assert_eq!((result, tries), (Err(404), 1));
    assert_eq!(retry.snapshot().count("failed_without_retry"), Some(1));
    assert_eq!(retry.snapshot().count("no_tries_left"), Some(0));
}

#[test]
fn what_may_not_be_repeated_is_tried_again_only_if_it_was_not_carried_out() {
    let clock = ManualClock::new();
    let retry =
        Retry::not_idempotent("payment", |error: &&str| *error == "refused").clock(clock.shared()).build();
    assert_eq!(retry.call_blocking(gives(&[Err("refused"), Ok(1)])), Ok(1));
    assert_eq!(retry.call_blocking(gives(&[Err("reset"), Ok(1)])), Err("reset"));
    let timed_out = || Err(Error::TimedOut { name: "payment".into(), after: ms(1) });
    assert_eq!(retry.judge::<(), &str>(timed_out()).0, Next::Decided(Decision::Done));
    let idempotent = Retry::idempotent("x").build();
    assert_eq!(idempotent.judge::<(), &str>(timed_out()).0, Next::Decided(Decision::Retry));
}

#[test]
fn refusals_are_tried_again_only_if_asked_for_and_then_after_the_time_that_they_tell() {
    let limited = || Err(Error::RateLimited { name: "api".into(), retry_after: ms(30) });
    let quiet = Retry::idempotent("api").build();
    assert_eq!(quiet.judge::<(), &str>(limited()).0, Next::Decided(Decision::Done));
    let eager = Retry::idempotent("api").retry_rejected(true).build();
    assert_eq!(eager.judge::<(), &str>(limited()).0, Next::Refused(Some(ms(30))));
    let full = Err(Error::BulkheadFull { name: "db".into() });
    assert_eq!(eager.judge::<(), &str>(full).0, Next::Refused(None));
}

#[test]
fn refusals_use_up_time_and_no_tries_and_without_a_bound_on_time_they_use_up_tries() {
    let clock = ManualClock::new();
    let eager = || Retry::idempotent("api").jitter(Jitter::None).retry_rejected(true).clock(clock.shared());
    let retry = eager().max_tries(2).max_elapsed(Duration::from_secs(10)).build();
    let mut tries = retry.tries();
    assert_eq!(tries.refused(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
    assert_eq!(tries.refused(None), Some(ms(100)));
    assert_eq!(tries.made(), 0);
    assert_eq!(tries.after(&Err::<(), _>("reset")), Some(ms(100)), "the first of two");
    clock.advance(Duration::from_secs(8));
    assert_eq!(tries.refused(Some(Duration::from_secs(3))), None, "too late");
    let counts = ["refusals", "retries", "no_time_left", "failed_without_retry"];
    assert_eq!(counts.map(|name| retry.snapshot().count(name).unwrap()), [2, 1, 1, 1]);

    let bounded_by_tries = eager().max_tries(2).build();
    let mut tries = bounded_by_tries.tries();
    assert_eq!(tries.refused(None), Some(ms(100)));
    assert_eq!(tries.refused(None), None);
    assert_eq!(bounded_by_tries.snapshot().count("no_tries_left"), Some(1));
}

#[test]
fn a_loop_of_the_callers_own_is_told_the_same_as_a_closure() {
    let clock = ManualClock::new();
    let retry = Retry::idempotent("api").jitter(Jitter::None).clock(clock.shared()).build();
    let mut tries = retry.tries();
    assert_eq!(tries.after(&Err::<(), _>("refused")), Some(ms(100)));
    assert_eq!(
        tries.decided(Decision::RetryAfter(Duration::from_secs(2)), false),
        Some(Duration::from_secs(2))
    );
    assert_eq!(tries.after(&Err::<(), _>("refused")), None);
    assert_eq!(tries.made(), 3);
    let endless = Retry::idempotent("bus").max_tries(u32::MAX).build();
    assert_eq!(endless.snapshot().settings.get("max_tries").map(String::as_str), Some("unlimited"));
    let mut tries = endless.tries();
    assert_eq!(tries.decided(Decision::Done, true), None);
    let counts = [&retry, &endless].map(|retry| {
        ["failed_with_retry", "successful_without_retry"].map(|name| retry.snapshot().count(name).unwrap())
    });
    assert_eq!(counts, [[1, 0], [0, 1]]);
}

#[test]
fn the_servers_pause_is_kept() {
    let clock = ManualClock::new();
    let retry = Retry::idempotent("api")
        .jitter(Jitter::None)
        .clock(clock.shared())
        .server_delay(|header: &&str| parse_retry_after(header, None, SystemTime::UNIX_EPOCH))
        .build();
    assert_eq!(retry.call_blocking(gives(&[Err("7"), Ok(())])), Ok(()));
    assert_eq!(clock.now().since(MonotonicTime::ZERO), Duration::from_secs(7));
    assert_eq!(retry.call_blocking(gives(&[Err("3600"), Ok(())])), Err("3600"));
    assert_eq!(retry.snapshot().count("server_delay_too_long"), Some(1));
}

#[test]
fn no_retry_begins_after_the_time_for_the_call_is_up() {
    let clock = ManualClock::new();
    let retry = Retry::idempotent("api")
        .jitter(Jitter::None)
        .max_tries(100)
        .max_elapsed(ms(1000))
        .clock(clock.shared())
        .build();
    let mut last = Duration::ZERO;
    let result: Result<(), ()> = retry.call_blocking(|| {
        last = clock.now().since(MonotonicTime::ZERO);
        clock.advance(ms(50));
        Err(())
    });
    assert_eq!(result, Err(()));
    // 0, +50+100, +50+200, +50+400: the next would begin 800 after 900.
    assert_eq!(last, ms(850));
    assert_eq!(retry.snapshot().count("no_time_left"), Some(1));
}

#[test]
fn callers_of_one_budget_retry_no_more_than_it_allows_together() {
    let clock = ManualClock::new();
    let budget = RetryBudget::builder("service").min_per_second(0).ratio(0.5).clock(clock.shared()).build();
    let caller = |name: &str| {
        Retry::idempotent(name)
            .initial_delay(Duration::ZERO)
            .budget(budget.clone())
            .clock(clock.shared())
            .build()
    };
    let callers = [caller("a"), caller("b")];
    let mut tries = 0;
    for call in 0..100 {
        let _: Result<(), ()> = callers[call % 2].call_blocking(|| {
            tries += 1;
            Err(())
        });
    }
    assert_eq!(tries, 150);
    let refused: u64 = callers.iter().filter_map(|retry| retry.snapshot().count("no_budget_left")).sum();
    assert_eq!(budget.snapshot().count("refused"), Some(refused));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_between_tries_makes_no_further_one() {
    let retry = Retry::idempotent("api").jitter(Jitter::None).build();
    let tries = Cell::new(0);
    let call = retry.call(|| {
        tries.set(tries.get() + 1);
        ready(Err::<(), ()>(()))
    });
    assert!(tokio::time::timeout(ms(50), call).await.is_err());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(tries.get(), 1);
}

proptest! {
    #[test]
    fn tries_and_time_stay_in_their_bounds(
        max_tries in 0..8u32, max_elapsed in prop::option::of(0..2_000u64), failures in 0..10u32, takes in 0..200u64, seed in any::<u64>(),
        jitter in prop::sample::select(&[Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated][..]),
    ) {
        let clock = ManualClock::new();
        let mut builder = Retry::idempotent("api")
            .jitter(jitter).max_tries(max_tries).clock(clock.shared()).random(SplitMix64::seeded(seed).shared());
        if let Some(max) = max_elapsed {
            builder = builder.max_elapsed(ms(max));
        }
        let retry = builder.build();
        let mut begun = Vec::new();
        let result = retry.call_blocking(|| {
            begun.push(clock.now().since(MonotonicTime::ZERO));
            clock.advance(ms(takes));
            if begun.len() > failures as usize { Ok(()) } else { Err(()) }
        });
        prop_assert!(begun.len() <= max_tries.max(1) as usize);
        prop_assert!(max_elapsed.is_none_or(|max| begun.iter().all(|at| *at <= ms(max))));
        prop_assert_eq!(result.is_ok(), begun.len() > failures as usize);
        prop_assert_eq!(retry.snapshot().count("retries"), Some(begun.len() as u64 - 1));
    }
}

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::*;
use crate::changes::StateChange;
use crate::clock::{ManualClock, TokioClock};
use crate::registry::Registry;

const MINUTE: Duration = Duration::from_secs(60);

fn breaker(
    settings: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder,
) -> (CircuitBreaker, ManualClock) {
    let clock = ManualClock::new();
    let builder = CircuitBreaker::builder("payments").clock(clock.shared());
    (settings(builder).build().unwrap(), clock)
}

fn fail(breaker: &CircuitBreaker, times: usize) {
    for _ in 0..times {
        breaker.call_blocking(|| Err::<(), _>("refused")).unwrap_err();
    }
}

fn succeed(breaker: &CircuitBreaker) -> Result<(), Error<()>> {
    breaker.call_blocking(|| Ok(()))
}

fn rejected(breaker: &CircuitBreaker) -> bool {
    succeed(breaker).is_err_and(|error| error.is_rejected())
}

fn count(breaker: &CircuitBreaker, name: &str) -> u64 {
    breaker.snapshot().count(name).unwrap()
}

#[test]
fn five_failures_open_it_a_minute_later_one_probe_closes_it() {
    let (breaker, clock) = breaker(|builder| builder);
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed);
    // The call that is the fifth failure opens it: no timer, no lag.
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
    let refusal = succeed(&breaker).unwrap_err();
    assert_eq!(refusal.retry_after(), Some(MINUTE));
    assert_eq!(refusal.policy(), Some("payments"));

    clock.advance(MINUTE - Duration::from_nanos(1));
    assert!(rejected(&breaker));
    clock.advance(Duration::from_nanos(1));
    let probe = breaker.try_acquire().unwrap();
    assert_eq!(breaker.state(), State::HalfOpen);
    let refusal = succeed(&breaker).unwrap_err();
    assert_eq!((refusal.is_rejected(), refusal.retry_after()), (true, None));
    probe.success();
    assert_eq!(breaker.state(), State::Closed);
    succeed(&breaker).unwrap();
    assert_eq!(count(&breaker, "failed"), 5);
    assert_eq!(count(&breaker, "successful"), 2);
    assert_eq!(count(&breaker, "not_permitted_calls"), 3);
}

#[test]
fn a_success_in_between_starts_the_count_anew() {
    let (breaker, _) = breaker(|builder| builder);
    for _ in 0..10 {
        fail(&breaker, 4);
        succeed(&breaker).unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_failed_probe_opens_it_for_another_minute() {
    let (breaker, clock) = breaker(|builder| builder);
    fail(&breaker, 5);
    clock.advance(MINUTE);
    fail(&breaker, 1);
    assert_eq!(breaker.retry_after(), Some(MINUTE));
    assert!(rejected(&breaker));
    clock.advance(MINUTE);
    succeed(&breaker).unwrap();
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.retry_after(), None);
}

#[test]
fn it_closes_only_after_the_stated_number_of_successes() {
    let (breaker, clock) = breaker(|builder| builder.probes(2).successes_to_close(3));
    fail(&breaker, 5);
    clock.advance(MINUTE);
    let (first, second) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    assert!(breaker.try_acquire().is_err());
    first.success();
    second.success();
    assert_eq!(breaker.state(), State::HalfOpen);
    succeed(&breaker).unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_that_panics_counts_as_failed_and_frees_its_place() {
    let (breaker, clock) = breaker(|builder| builder);
    fail(&breaker, 5);
    clock.advance(MINUTE);
    let call = || breaker.call_blocking(|| -> Result<(), ()> { panic!("the callee's mistake") });
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(count(&breaker, "failed"), 6);
    clock.advance(MINUTE);
    succeed(&breaker).unwrap();
}

#[tokio::test]
async fn a_probe_whose_future_is_dropped_frees_its_place_and_decides_nothing() {
    let (breaker, clock) = breaker(|builder| builder);
    fail(&breaker, 5);
    clock.advance(MINUTE);
    for _ in 0..3 {
        let call = breaker.call(std::future::pending::<Result<(), ()>>);
        let gave_up = tokio::time::timeout(Duration::from_millis(1), call).await;
        assert!(gave_up.is_err());
        assert_eq!(breaker.state(), State::HalfOpen);
    }
    assert_eq!(count(&breaker, "cancelled"), 3);
    breaker.call(|| async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn calls_that_are_given_up_fail_if_asked_for() {
    let (breaker, _) = breaker(|builder| builder.cancelled_calls_fail());
    for _ in 0..5 {
        drop(breaker.try_acquire().unwrap());
    }
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(count(&breaker, "cancelled"), 5);
}

#[test]
fn what_began_before_it_opened_cant_close_it_nor_open_it_again() {
    let (breaker, clock) = breaker(|builder| builder);
    let (early, other) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    fail(&breaker, 5);
    clock.advance(MINUTE);
    let probe = breaker.try_acquire().unwrap();
    early.success();
    other.failure();
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(rejected(&breaker));
    probe.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn a_probe_that_hangs_is_given_up_after_the_limit() {
    let (breaker, clock) = breaker(|builder| builder.half_open_limit(Some(Duration::from_secs(5))));
    fail(&breaker, 5);
    clock.advance(MINUTE);
    let hanging = breaker.try_acquire().unwrap();
    clock.advance(Duration::from_secs(5));
    assert_eq!(succeed(&breaker).unwrap_err().retry_after(), Some(MINUTE));
    assert_eq!(breaker.state(), State::Open);
    clock.advance(MINUTE);
    let probe = breaker.try_acquire().unwrap();
    // Its place is not the new probe's.
    drop(hanging);
    assert!(rejected(&breaker));
    probe.success();
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn probes_that_come_seldom_close_it_all_the_same() {
    let (breaker, clock) = breaker(|builder| builder.successes_to_close(3));
    fail(&breaker, 5);
    for call in 0..3 {
        // Longer than the limit on waiting for a verdict: there is none to wait for.
        clock.advance(MINUTE * 2);
        drop(breaker.try_acquire().unwrap_or_else(|refused| panic!("call {call}: {refused}")));
        clock.advance(MINUTE * 2);
        succeed(&breaker).unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn half_of_the_last_calls_failing_opens_it() {
    let (breaker, _) = breaker(|builder| builder.failure_rate(0.5).window_of_calls(20).minimum_calls(10));
    for _ in 0..40 {
        succeed(&breaker).unwrap();
    }
    fail(&breaker, 9);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.changes().history()[0].cause, "10 of the last 20 calls failed");
    breaker.close();
    // The window is empty again: nine failures are too few to say anything.
    fail(&breaker, 9);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn failures_that_are_long_past_dont_count_in_a_window_of_time() {
    let ten_seconds = Duration::from_secs(10);
    let (breaker, clock) =
        breaker(|builder| builder.failure_rate(0.5).window_of_time(ten_seconds).minimum_calls(10));
    fail(&breaker, 9);
    clock.advance(ten_seconds);
    fail(&breaker, 9);
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn slow_calls_open_it_though_they_succeed() {
    for threshold in [Duration::from_millis(100), Duration::from_secs(5)] {
        let (breaker, clock) = breaker(|builder| builder.slow_calls(threshold, 0.5).minimum_calls(4));
        let call = |takes: Duration| {
            let permit = breaker.try_acquire().unwrap();
            clock.advance(takes);
            permit.success();
        };
        for _ in 0..2 {
            call(Duration::from_millis(1));
        }
        call(threshold);
        assert_eq!(breaker.state(), State::Closed);
        call(threshold);
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.changes().history()[0].cause, "2 of the last 4 calls were slow");
        clock.advance(MINUTE);
        call(threshold);
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.changes().history().last().unwrap().cause, "a probe was slow");
        assert_eq!(count(&breaker, "slow_calls"), 3);
    }
}

#[test]
fn it_does_as_told_by_hand() {
    let (breaker, clock) = breaker(|builder| builder);
    breaker.open();
    clock.advance(MINUTE * 60);
    assert!(rejected(&breaker));
    assert_eq!(breaker.retry_after(), None);
    breaker.disable();
    fail(&breaker, 100);
    succeed(&breaker).unwrap();
    breaker.close();
    fail(&breaker, 4);
    breaker.reset();
    fail(&breaker, 4);
    assert_eq!(breaker.state(), State::Closed);
    let history: Vec<_> = breaker.changes().history().iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(history, [("closed", "forced_open"), ("forced_open", "disabled"), ("disabled", "closed")]);
}

#[test]
fn changes_are_told_with_cause_time_and_number_after_they_are_in_force() {
    let (breaker, clock) = breaker(|builder| builder);
    let heard = Arc::new(AtomicUsize::new(0));
    let (ear, seen) = (heard.clone(), breaker.clone());
    breaker
        .changes()
        .listen(move |change| {
            assert_eq!(seen.state().as_str(), change.to);
            ear.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    clock.advance(Duration::from_secs(7));
    fail(&breaker, 5);
    clock.advance(MINUTE);
    succeed(&breaker).unwrap();
    assert_eq!(heard.load(Ordering::SeqCst), 3);
    assert_eq!(breaker.changes().listener_panics(), 0);
    let history = breaker.changes().history();
    let told: Vec<_> = history
        .iter()
        .map(|change| {
            let seconds = change.at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            (change.sequence, change.to, change.cause.as_str(), seconds)
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "open", "5 consecutive failures", 7),
            (2, "half_open", "the time to stay open is up", 67),
            (3, "closed", "a probe succeeded", 67),
        ]
    );
}

#[test]
fn a_registry_shows_it_and_passes_its_changes_on() {
    let registry = Registry::new();
    let (breaker, _) = breaker(|builder| builder);
    registry.register(breaker.clone()).unwrap();
    let mut changes = registry.subscribe();
    fail(&breaker, 5);
    assert_eq!(changes.try_recv().unwrap().to, "open");
    let snapshot = registry.snapshot(PolicyKind::CircuitBreaker, "payments").unwrap();
    assert_eq!(snapshot.state, Some("open"));
    assert_eq!(snapshot.settings.get("open_for").map(String::as_str), Some("60s"));
    assert_eq!(snapshot, breaker.snapshot());
}

#[test]
fn the_predicate_decides_and_clones_share_the_breaker() {
    let (breaker, _) = breaker(|builder| builder);
    let by_status = breaker.clone().failure_if(|result: &Result<u16, ()>| !matches!(result, Ok(200..500)));
    for _ in 0..10 {
        assert_eq!(by_status.call_blocking(|| Ok(404)), Ok(404));
    }
    for _ in 0..5 {
        // A failure to the breaker, but a result to the caller.
        assert_eq!(by_status.call_blocking(|| Ok(503)), Ok(503));
    }
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn an_outcome_that_says_nothing_frees_the_probe_and_decides_nothing() {
    let (breaker, clock) = breaker(|builder| builder);
    fail(&breaker, 5);
    clock.advance(MINUTE);
    breaker.try_acquire().unwrap().settle(crate::Verdict::Ignored);
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(count(&breaker, "ignored"), 1);
    succeed(&breaker).unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn in_a_paused_runtime_its_minute_is_virtual() {
    let breaker = CircuitBreaker::builder("virtual").clock(TokioClock::shared()).build().unwrap();
    for _ in 0..5 {
        breaker.call(|| async { Err::<(), _>("refused") }).await.unwrap_err();
    }
    tokio::time::sleep(MINUTE - Duration::from_millis(1)).await;
    assert!(rejected(&breaker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!rejected(&breaker));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn sixteen_threads_never_make_more_probes_than_permitted() {
    let (breaker, clock) = breaker(|builder| {
        builder.consecutive_failures(1).open_for(Duration::from_nanos(1)).probes(2).successes_to_close(5)
    });
    let half_open: Arc<Mutex<Vec<u64>>> = Arc::default();
    let heard = half_open.clone();
    let listener = move |change: &StateChange| {
        if change.to == "half_open" {
            heard.lock().push(change.sequence);
        }
    };
    breaker.changes().listen(listener).unwrap();
    // By period: permits held, and the most that ever were. Raised after a permit was had and lowered before it is
    // given back, so never more than there are.
    let held: Mutex<HashMap<u64, (usize, usize)>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..16_usize {
            let (breaker, clock, held) = (&breaker, &clock, &held);
            scope.spawn(move || {
                for call in 0..2000_usize {
                    clock.advance(Duration::from_nanos(1));
                    let Ok(permit) = breaker.try_acquire() else { continue };
                    let period = u64::from(permit.period());
                    {
                        let mut held = held.lock();
                        let (now, most) = held.entry(period).or_default();
                        *now += 1;
                        *most = (*most).max(*now);
                    }
                    std::thread::yield_now();
                    held.lock().entry(period).and_modify(|(now, _)| *now -= 1);
                    match (thread + call) % 7 {
                        0 => permit.failure(),
                        1 => drop(permit),
                        _ => permit.success(),
                    }
                }
            });
        }
    });
    let half_open = half_open.lock();
    assert!(half_open.len() > 10, "the test has seen {} half-open times", half_open.len());
    for period in half_open.iter() {
        let most = held.lock().get(period).map_or(0, |(_, most)| *most);
        assert!((1..=2).contains(&most), "{most} probes at once in period {period}");
    }
    if let state::Mode::HalfOpen { probes, .. } = breaker.shared.cell.memory().mode {
        assert_eq!(probes, 0, "a place was lost");
    }
    let snapshot = breaker.snapshot();
    let counted = ["successful", "failed", "cancelled", "not_permitted_calls"]
        .map(|name| snapshot.count(name).unwrap());
    assert_eq!(counted.iter().sum::<u64>(), 16 * 2000);
}

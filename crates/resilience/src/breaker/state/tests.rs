use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules {
        consecutive_failures: Some(5),
        open: OpenTimes::new(Duration::from_secs(60), 1.0, Duration::from_secs(3600), 0.0, 0),
        probes: 1,
        successes_to_close: 1,
        half_open_limit: Some(Duration::from_secs(60)),
        slow_probes_fail: false,
        cancelled_fails: false,
    }
}

fn at(seconds: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(seconds * 1_000_000_000)
}

fn memory(mode: Mode) -> Memory {
    Memory { period: 7, openings: 1, mode }
}

fn report(outcome: Outcome) -> Report {
    Report { period: 7, outcome, slow: false, window: None }
}

#[test]
fn what_each_outcome_does_in_each_mode() {
    use Outcome::{Cancelled, Failure, Ignored, Success};
    let closed = |failures| Mode::Closed { failures };
    let half_open = |probes, successes| Mode::HalfOpen { probes, successes };
    let rules = Rules { probes: 3, successes_to_close: 2, ..rules() };
    for (before, outcome, after, cause) in [
        (closed(0), Success, closed(0), None),
        (closed(4), Success, closed(0), None),
        (closed(3), Failure, closed(4), None),
        (closed(4), Failure, Mode::Open, Some(Cause::ConsecutiveFailures(5))),
        (closed(4), Cancelled, closed(4), None),
        (closed(4), Ignored, closed(4), None),
        (half_open(2, 0), Success, half_open(1, 1), None),
        (half_open(2, 1), Success, closed(0), Some(Cause::ProbesSucceeded(2))),
        (half_open(2, 1), Failure, Mode::Open, Some(Cause::ProbeFailed)),
        (half_open(2, 1), Cancelled, half_open(1, 1), None),
        (half_open(2, 1), Ignored, half_open(1, 1), None),
        (Mode::Open, Success, Mode::Open, None),
        (Mode::ForcedOpen, Success, Mode::ForcedOpen, None),
        (Mode::Disabled, Failure, Mode::Disabled, None),
    ] {
        let (then, why) = settle(&rules, memory(before), report(outcome));
        assert_eq!((then.mode, why), (after, cause), "{before:?} {outcome:?}");
        // A new period begins with a new mode, and only with one.
        assert_eq!(then.period, if why.is_some() { 8 } else { 7 }, "{before:?} {outcome:?}");
    }
}

#[test]
fn an_outcome_of_another_period_changes_nothing() {
    let half_open = memory(Mode::HalfOpen { probes: 1, successes: 0 });
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Cancelled] {
        let late = Report { period: 6, ..report(outcome) };
        assert_eq!(settle(&rules(), half_open, late), (half_open, None));
    }
}

#[test]
fn a_bad_window_opens_also_if_the_call_was_only_slow() {
    let cause = Cause::SlowCallRate { slow: 6, total: 10 };
    let slow = Report { slow: true, window: Some(cause), ..report(Outcome::Success) };
    let (then, why) = settle(&rules(), memory(Mode::Closed { failures: 0 }), slow);
    assert_eq!((then.mode, why), (Mode::Open, Some(cause)));
}

#[test]
fn a_slow_probe_fails_only_if_slowness_is_asked_about() {
    let half_open = memory(Mode::HalfOpen { probes: 1, successes: 0 });
    let slow = Report { slow: true, ..report(Outcome::Success) };
    assert_eq!(settle(&rules(), half_open, slow).1, Some(Cause::ProbesSucceeded(1)));
    let strict = Rules { slow_probes_fail: true, ..rules() };
    assert_eq!(settle(&strict, half_open, slow).1, Some(Cause::ProbeSlow));
}

#[test]
fn an_open_breaker_lets_the_first_call_through_when_its_time_is_up() {
    let open = memory(Mode::Open);
    assert_eq!(admit(&rules(), open, at(100), at(159)), Admission::Reject { until: Some(at(160)) });
    let Admission::Probe { then, cause } = admit(&rules(), open, at(100), at(160)) else {
        panic!("no probe")
    };
    assert_eq!((then.mode, cause), (Mode::HalfOpen { probes: 1, successes: 0 }, Some(Cause::TimeIsUp)));
    assert_eq!(admit(&rules(), then, at(160), at(161)), Admission::Reject { until: None });
}

#[test]
fn probes_that_hang_are_given_up_when_a_call_comes_after_the_limit() {
    let hanging = memory(Mode::HalfOpen { probes: 1, successes: 0 });
    assert_eq!(admit(&rules(), hanging, at(160), at(219)), Admission::Reject { until: None });
    let Admission::RejectAnd { then, cause } = admit(&rules(), hanging, at(160), at(220)) else {
        panic!("it waits for ever")
    };
    assert_eq!((then.mode, cause), (Mode::Open, Cause::ProbesOverdue));
    // The probe that was given up comes back as a success: too late.
    assert_eq!(settle(&rules(), then, report(Outcome::Success)), (then, None));
    let patient = Rules { half_open_limit: None, ..rules() };
    assert_eq!(admit(&patient, hanging, at(160), at(1_000_000)), Admission::Reject { until: None });
}

#[test]
fn where_no_probe_is_under_way_the_next_call_is_one_however_late_it_comes() {
    let idle = memory(Mode::HalfOpen { probes: 0, successes: 1 });
    let probe = Mode::HalfOpen { probes: 1, successes: 1 };
    let admitted = admit(&rules(), idle, at(160), at(1_000_000));
    assert_eq!(admitted, Admission::Probe { then: memory(probe), cause: None });
}

#[test]
fn the_wait_for_a_verdict_begins_with_the_first_probe_and_anew_with_each_verdict() {
    let half_open = |probes, successes| memory(Mode::HalfOpen { probes, successes });
    for (before, then, anew) in [
        (memory(Mode::Open), half_open(1, 0), true),
        (half_open(0, 0), half_open(1, 0), true),
        (half_open(1, 0), half_open(2, 0), false),
        (half_open(2, 0), half_open(1, 0), false),
        (half_open(2, 0), half_open(1, 1), true),
        (half_open(1, 0), memory(Mode::Open), false),
        (half_open(1, 0), memory(Mode::Closed { failures: 0 }), false),
        (memory(Mode::Closed { failures: 4 }), memory(Mode::Open), false),
    ] {
        assert_eq!(waits_anew(before, then), anew, "{before:?} {then:?}");
    }
}

#[test]
fn commands_work_from_every_state_and_a_repeated_one_does_nothing() {
    let modes = [
        Mode::Closed { failures: 3 },
        Mode::Open,
        Mode::HalfOpen { probes: 1, successes: 0 },
        Mode::ForcedOpen,
        Mode::Disabled,
    ];
    for mode in modes {
        for (order, state) in [
            (Command::Open, State::ForcedOpen),
            (Command::Close, State::Closed),
            (Command::Disable, State::Disabled),
        ] {
            match command(memory(mode), order) {
                Some(then) => assert_eq!((then.state(), then.period), (state, 8)),
                None => assert_eq!(memory(mode).state(), state),
            }
        }
        let reset = command(memory(mode), Command::Reset).unwrap();
        assert_eq!(reset, Memory { period: 8, openings: 0, mode: Mode::Closed { failures: 0 } });
    }
}

#[test]
fn it_stays_open_longer_each_time_up_to_the_longest_and_closing_forgets_that() {
    let rules = Rules {
        open: OpenTimes::new(Duration::from_secs(10), 2.0, Duration::from_secs(60), 0.0, 0),
        consecutive_failures: Some(1),
        ..rules()
    };
    let mut times = Vec::new();
    let mut now = memory(Mode::Closed { failures: 0 });
    now.openings = 0;
    for _ in 0..40 {
        let period = now.period;
        now = settle(&rules, now, Report { period, ..report(Outcome::Failure) }).0;
        let until = rules.open.until(now, MonotonicTime::ZERO);
        times.push(until.since(MonotonicTime::ZERO).as_secs());
        let Admission::Probe { then, .. } = admit(&rules, now, MonotonicTime::ZERO, until) else {
            panic!("no probe at {until:?}")
        };
        now = then;
    }
    assert_eq!(times[..5], [10, 20, 40, 60, 60]);
    assert_eq!(times.last(), Some(&60));
    let period = now.period;
    let closed = settle(&rules, now, Report { period, ..report(Outcome::Success) }).0;
    assert_eq!((closed.state(), closed.openings), (State::Closed, 0));
}

#[test]
fn jitter_only_lengthens_and_spreads() {
    let first = Duration::from_secs(10);
    let times = OpenTimes::new(first, 1.0, first, 0.5, 42);
    let mut seconds: Vec<f64> = (0..1000)
        .map(|period| {
            let open = Memory { period, openings: 1, mode: Mode::Open };
            assert_eq!(times.until(open, at(0)), times.until(open, at(0)));
            times.until(open, at(0)).since(at(0)).as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    assert!(seconds[0] >= 10.0 && seconds[999] <= 15.0);
    assert!(seconds[100] < 10.8 && seconds[500] > 12.0 && seconds[500] < 13.0 && seconds[900] > 14.2);
}

#[test]
fn sequence_numbers_count_on_over_the_wrap_of_periods() {
    assert_eq!(sequence(0, 1), 1);
    assert_eq!(sequence(5, 4), 4);
    let lap = 1 << PERIOD_BITS;
    assert_eq!(sequence(lap - 1, 0), lap);
    assert_eq!(sequence(3 * lap + 1, 0xff_ffff), 3 * lap - 1);
}

proptest! {
    /// Whatever comes in whatever order: probes never exceed what is permitted, and places are never lost.
    #[test]
    fn probes_under_way_are_what_was_admitted_and_not_ended(
        probes in 1_u16..5,
        successes_to_close in 1_u16..4,
        steps in proptest::collection::vec((0_u8..6, 0_usize..8, 0_u64..30), 1..300),
    ) {
        let rules = Rules { probes, successes_to_close, ..rules() };
        let mut memory = Memory::NEW;
        let mut since = MonotonicTime::ZERO;
        let mut now = MonotonicTime::ZERO;
        let mut under_way: Vec<u32> = Vec::new();
        for (step, which, seconds) in steps {
            now = now.after(Duration::from_secs(seconds));
            let before = memory;
            if step < 3 {
                match admit(&rules, memory, since, now) {
                    Admission::Admit => under_way.push(memory.period),
                    Admission::Probe { then, .. } => {
                        memory = then;
                        under_way.push(then.period);
                    }
                    Admission::Reject { .. } => {}
                    Admission::RejectAnd { then, .. } => memory = then,
                }
            } else if !under_way.is_empty() {
                let period = under_way.swap_remove(which % under_way.len());
                let outcome = [Outcome::Success, Outcome::Failure, Outcome::Cancelled][usize::from(step) - 3];
                memory = settle(&rules, memory, Report { period, outcome, slow: false, window: None }).0;
            }
            if memory.period != before.period {
                since = now;
                prop_assert_ne!(memory.state(), before.state());
            }
            if let Mode::HalfOpen { probes: counted, successes } = memory.mode {
                let real = under_way.iter().filter(|period| **period == memory.period).count();
                prop_assert_eq!(usize::from(counted), real);
                prop_assert!(counted <= probes);
                prop_assert!(successes < successes_to_close);
            }
        }
    }
}

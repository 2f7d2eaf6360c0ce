//! The lock-free part under loom, which runs each test once for every interleaving of its threads.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::Ordering::AcqRel;
use proptest::prelude::*;

use super::super::state::{MAX_OPENINGS, OpenTimes, Outcome};
use super::*;
use crate::word::under_loom::LoomU64;

const SECOND: MonotonicTime = MonotonicTime::from_nanos(1_000_000_000);

fn rules(failures: u32, probes: u16, successes_to_close: u16) -> Rules {
    let open = Duration::from_secs(1);
    Rules {
        consecutive_failures: Some(failures),
        open: OpenTimes::new(open, 1.0, open, 0.0, 0),
        probes,
        successes_to_close,
        half_open_limit: None,
        slow_probes_fail: false,
        cancelled_fails: false,
    }
}

fn end<W: Word>(cell: &Cell<W>, rules: &Rules, period: u32, outcome: Outcome) -> Option<Change> {
    let report = Report { period, outcome, slow: false, window: None };
    cell.settle(rules, report, || MonotonicTime::ZERO)
}

/// A cell that has opened at time zero: at [`SECOND`] a probe is due.
fn open<W: Word>(rules: &Rules) -> Cell<W> {
    let cell = Cell::new();
    for _ in 0..rules.consecutive_failures.unwrap() {
        end(&cell, rules, 0, Outcome::Failure);
    }
    assert_eq!(cell.memory().state(), State::Open);
    cell
}

/// Runs the closure in as many threads, under every interleaving with up to three preemptions, and gives what they returned to `check`.
fn every_interleaving<T: Send + 'static>(
    rules: Rules,
    threads: usize,
    prepare: impl Fn(&Rules) -> Cell<LoomU64> + Send + Sync + 'static,
    run: impl Fn(&Cell<LoomU64>, &Rules, usize) -> T + Send + Sync + Copy + 'static,
    check: impl Fn(&Cell<LoomU64>, &Rules, Vec<T>) + Send + Sync + 'static,
) {
    let mut model = loom::model::Builder::new();
    // Most races need one or two preemptions. Without a bound the tests take half a minute; they pass that way, too.
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new((prepare(&rules), rules.clone()));
        let others: Vec<_> = (1..threads)
            .map(|number| {
                let shared = shared.clone();
                loom::thread::spawn(move || run(&shared.0, &shared.1, number))
            })
            .collect();
        let mut results = vec![run(&shared.0, &shared.1, 0)];
        results.extend(others.into_iter().map(|thread| thread.join().unwrap()));
        check(&shared.0, &shared.1, results);
    });
}

#[test]
fn failures_at_once_open_it_once_and_one_thread_reports_it() {
    every_interleaving(
        rules(2, 1, 1),
        3,
        |_| Cell::new(),
        |cell, rules, _| end(cell, rules, 0, Outcome::Failure),
        |cell, _, changes| {
            assert_eq!(cell.memory().state(), State::Open);
            assert_eq!(cell.memory().period, 1);
            let reported: Vec<_> = changes.into_iter().flatten().collect();
            assert_eq!(reported.len(), 1);
            assert_eq!(reported[0].cause, Cause::ConsecutiveFailures(2));
        },
    );
}

#[test]
fn of_many_calls_that_find_the_time_up_only_the_permitted_become_probes() {
    for probes in [1, 2] {
        every_interleaving(
            rules(1, probes, 2),
            3,
            open,
            |cell, rules, _| cell.admit(rules, SECOND),
            move |cell, _, entries| {
                let admitted = entries.iter().filter(|entry| matches!(entry, Entry::Admitted { .. })).count();
                assert_eq!(admitted, usize::from(probes));
                assert_eq!(cell.memory().mode, Mode::HalfOpen { probes, successes: 0 });
                let changes = entries.iter().filter(|entry| {
                    matches!(
                        entry,
                        Entry::Admitted { change: Some(_), .. } | Entry::Rejected { change: Some(_), .. }
                    )
                });
                assert_eq!(changes.count(), 1);
            },
        );
    }
}

#[test]
fn probes_under_way_never_exceed_the_permitted_and_a_given_up_probe_leaves_no_gap() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let rules = rules(1, 1, 2);
        let shared = Arc::new((open::<LoomU64>(&rules), rules, LoomU64::new(0)));
        let run = |shared: &(Cell<LoomU64>, Rules, LoomU64), outcome| {
            let (cell, rules, running) = shared;
            for _ in 0..2 {
                if let Entry::Admitted { period, .. } = cell.admit(rules, SECOND) {
                    if cell.memory().state() == State::HalfOpen {
                        assert_eq!(running.fetch_add(1, AcqRel), 0, "two probes at once");
                        running.fetch_sub(1, AcqRel);
                    }
                    end(cell, rules, period, outcome);
                }
            }
        };
        let other = {
            let shared = shared.clone();
            loom::thread::spawn(move || run(&shared, Outcome::Cancelled))
        };
        run(&shared, Outcome::Success);
        other.join().unwrap();
        match shared.0.memory().mode {
            Mode::HalfOpen { probes, .. } => assert_eq!(probes, 0),
            Mode::Closed { failures } => assert_eq!(failures, 0),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_late_success_of_a_closed_time_never_closes_it() {
    every_interleaving(
        rules(1, 1, 1),
        3,
        |_| Cell::new(),
        |cell, rules, number| match number {
            0 => end(cell, rules, 0, Outcome::Failure).is_some(),
            1 => end(cell, rules, 0, Outcome::Success).is_some(),
            _ => matches!(cell.admit(rules, MonotonicTime::ZERO), Entry::Rejected { .. }),
        },
        |cell, _, _| assert_eq!(cell.memory().state(), State::Open),
    );
}

#[test]
fn who_sees_it_open_sees_since_when() {
    every_interleaving(
        rules(1, 1, 1),
        2,
        |_| Cell::new(),
        |cell, rules, number| {
            if number == 0 {
                let report = Report { period: 0, outcome: Outcome::Failure, slow: false, window: None };
                cell.settle(rules, report, || SECOND);
            } else if cell.open_since().is_some() {
                assert_eq!(cell.open_since().unwrap().1, SECOND);
                // A second is not up yet: with an older time this would be let through.
                let entry = cell.admit(rules, SECOND.after(Duration::from_millis(999)));
                assert!(matches!(entry, Entry::Rejected { until: Some(_), change: None }));
            }
        },
        |_, _, _| {},
    );
}

#[test]
fn a_command_and_a_probe_at_once_leave_what_the_command_says() {
    every_interleaving(
        rules(1, 1, 1),
        2,
        open,
        |cell, rules, number| {
            if number == 0 {
                cell.command(Command::Open, SECOND);
            } else if let Entry::Admitted { period, .. } = cell.admit(rules, SECOND) {
                end(cell, rules, period, Outcome::Success);
            }
        },
        |cell, _, _| assert_eq!(cell.memory().state(), State::ForcedOpen),
    );
}

fn modes() -> impl Strategy<Value = Mode> {
    prop_oneof![
        any::<u32>().prop_map(|failures| Mode::Closed { failures }),
        Just(Mode::Open),
        any::<(u16, u16)>().prop_map(|(probes, successes)| Mode::HalfOpen { probes, successes }),
        Just(Mode::ForcedOpen),
        Just(Mode::Disabled),
    ]
}

proptest! {
    #[test]
    fn a_word_gives_back_what_was_packed_into_it(
        mode in modes(),
        period in 0_u32..1 << PERIOD_BITS,
        openings in 0..=MAX_OPENINGS,
    ) {
        let memory = Memory { period, openings, mode };
        prop_assert_eq!(unpack(pack(memory)), memory);
    }
}

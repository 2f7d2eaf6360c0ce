use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn at(milliseconds: u64) -> MonotonicTime {
    MonotonicTime::from_nanos(milliseconds * 1_000_000)
}

fn count(outcomes: impl IntoIterator<Item = (bool, bool)>) -> Counts {
    outcomes.into_iter().fold(Counts::default(), |counts, (failed, slow)| Counts {
        total: counts.total + 1,
        failed: counts.failed + u64::from(failed),
        slow: counts.slow + u64::from(slow),
    })
}

#[test]
fn limits_hold_from_the_minimum_of_calls_on() {
    let limits = Limits { minimum_calls: 4, failure_rate: Some(0.5), slow_rate: Some(0.75) };
    let counts = |total, failed, slow| Counts { total, failed, slow };
    assert_eq!(limits.exceeded(counts(3, 3, 3)), None);
    assert_eq!(limits.exceeded(counts(4, 1, 2)), None);
    assert_eq!(limits.exceeded(counts(4, 2, 0)), Some(Cause::FailureRate { failed: 2, total: 4 }));
    assert_eq!(limits.exceeded(counts(4, 1, 3)), Some(Cause::SlowCallRate { slow: 3, total: 4 }));
}

#[test]
fn sums_are_exact_once_all_threads_have_recorded() {
    let window = CallWindow::<AtomicU8, AtomicI64>::new(64);
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let window = &window;
            scope.spawn(move || {
                for call in 0..5000_u32 {
                    window.record((call + thread).is_multiple_of(3), call.is_multiple_of(7));
                    if call == 2500 && thread == 0 {
                        window.clear();
                    }
                }
            });
        }
    });
    let ring = window.ring.iter().map(|place| place.load(Ordering::SeqCst));
    let present = ring.filter(|outcome| outcome & PRESENT != 0);
    assert_eq!(window.counts(), count(present.map(|outcome| (outcome & FAILED != 0, outcome & SLOW != 0))));
    assert_eq!(window.counts().total, 64);
    window.clear();
    assert_eq!(window.counts(), Counts::default());
}

impl Place for loom::sync::atomic::AtomicU8 {
    fn new(outcome: u8) -> Self {
        Self::new(outcome)
    }

    fn swap(&self, outcome: u8) -> u8 {
        self.swap(outcome, Ordering::AcqRel)
    }
}

impl Sum for loom::sync::atomic::AtomicI64 {
    fn new(value: i64) -> Self {
        Self::new(value)
    }

    fn add(&self, change: i64) -> i64 {
        self.fetch_add(change, Ordering::AcqRel)
    }

    fn load(&self) -> i64 {
        self.load(Ordering::Acquire)
    }
}

/// Two calls are recorded in a ring of one place while it is cleared: under every interleaving the sums are then those of
/// what is in it, and in between nobody reads more calls than there are.
#[test]
fn sums_are_exact_after_every_interleaving_of_records_and_a_clear() {
    type LoomWindow = CallWindow<loom::sync::atomic::AtomicU8, loom::sync::atomic::AtomicI64>;
    loom::model(|| {
        let window = std::sync::Arc::new(LoomWindow::new(1));
        let other = {
            let window = window.clone();
            loom::thread::spawn(move || {
                window.record(true, false);
                assert!(window.counts().failed <= 2);
            })
        };
        window.record(false, true);
        window.clear();
        other.join().unwrap();
        // What it holds now, found out by emptying it.
        let before = window.counts();
        let held = Place::swap(&window.ring[0], EMPTY);
        assert_eq!(before.total, u64::from(held & PRESENT != 0));
        assert_eq!(before.failed, u64::from(held & FAILED != 0));
        assert_eq!(before.slow, u64::from(held & SLOW != 0));
    });
}

#[test]
fn a_time_window_counts_all_calls_of_all_threads() {
    let window = TimeWindow::new(Duration::from_secs(10));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..5000).for_each(|call| window.record(call % 2 == 0, call % 5 == 0, at(call))));
        }
    });
    assert_eq!(window.counts(at(5000)), Counts { total: 40_000, failed: 20_000, slow: 8000 });
    window.clear();
    assert_eq!(window.counts(at(5000)), Counts::default());
}

#[test]
fn a_full_slice_counts_no_further_and_harms_no_other() {
    let window = TimeWindow::new(Duration::from_secs(10));
    assert_eq!(window.number(at(0)), 1);
    let full = COUNT_MAX << COUNT_BITS | 5;
    window.slices[1].calls.store(1 << NUMBER_SHIFT | full, Ordering::SeqCst);
    window.record(true, true, at(0));
    assert_eq!(window.counts(at(0)), Counts { total: COUNT_MAX, failed: 5, slow: 0 });
    window.record(true, true, at(1000));
    assert_eq!(window.counts(at(1000)), Counts { total: COUNT_MAX + 1, failed: 6, slow: 1 });
}

proptest! {
    #[test]
    fn a_window_of_calls_holds_the_last_calls(
        size in 1_usize..20,
        outcomes in proptest::collection::vec(any::<(bool, bool)>(), 0..100),
    ) {
        let window = CallWindow::<AtomicU8, AtomicI64>::new(size);
        let mut last = VecDeque::new();
        for (failed, slow) in outcomes {
            window.record(failed, slow);
            last.push_back((failed, slow));
            if last.len() > size {
                last.pop_front();
            }
            prop_assert_eq!(window.counts(), count(last.iter().copied()));
        }
    }

    #[test]
    fn a_window_of_time_holds_the_calls_of_the_last_ten_slices(
        steps in proptest::collection::vec((0_u64..400, any::<(bool, bool)>()), 0..100),
    ) {
        let window = TimeWindow::new(Duration::from_secs(1));
        let mut calls = Vec::new();
        let mut now = 0;
        for (milliseconds, (failed, slow)) in steps {
            now += milliseconds;
            window.record(failed, slow, at(now));
            calls.push((now, (failed, slow)));
            let first = (now / 100).saturating_sub(9);
            let inside = calls.iter().filter(|(time, _)| time / 100 >= first).map(|(_, outcome)| *outcome);
            prop_assert_eq!(window.counts(at(now)), count(inside));
        }
    }
}

#[test]
fn a_call_that_was_held_up_for_a_whole_window_wipes_no_newer_slice() {
    // Slices of one millisecond; ten of them are the window.
    let window = TimeWindow::new(Duration::from_millis(SLICES as u64));
    let (late, now) = (at(5), at(5 + SLICES as u64));
    window.record(true, true, now);
    window.record(false, true, late);
    assert_eq!(window.counts(now), count([(true, true)]));
    // Numbers of slices come round: a word from that long ago is old all the same.
    let around = at(6 + (1 << 24) - 2048);
    window.record(true, false, around);
    assert_eq!(window.counts(around), count([(true, false)]));
}

//! One check's state: a function of (state, result, now).
//!
//! ```text
//!             first success                down_after failures in a row
//!   unknown ────────────────► up ─────────────────────────────────────► down
//!      │                       ▲                                         │
//!      │                       └─────────────────────────────────────────┘
//!      │                                up_after successes in a row
//!      └──────────── down_after failures in a row ──────────────────────►
//! ```
//!
//! Only results that speak against the present state count, and one that agrees with it starts the count anew. So fewer
//! results than a threshold never change anything, and two changes are always at least a threshold of results apart. From
//! *unknown* one success is enough: there is nothing that it would have to outweigh.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use farol_event::Timestamp;
pub use farol_event::service::CheckState;

/// How many results in a row change a check's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures in a row after which it is down.
    pub down_after: NonZeroU32,
    /// Successes in a row after which it is up again.
    pub up_after: NonZeroU32,
}

/// How often a check passed and failed since this process began to ask. Counted where results are judged, read from anywhere.
#[derive(Debug, Default)]
pub struct Results {
    passed: AtomicU64,
    failed: AtomicU64,
}

impl Results {
    /// Takes note of a result.
    pub(crate) fn count(&self, passed: bool) {
        let counter = if passed { &self.passed } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it passed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// How often it failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// From here.
    pub from: CheckState,
    /// To here.
    pub to: CheckState,
}

/// One check's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    state: CheckState,
    since: Timestamp,
    /// Results in a row that speak against `state`.
    against: u32,
}

impl Machine {
    /// A check that has just begun, or one that a restart found in `state`.
    pub fn new(state: CheckState, now: Timestamp) -> Self {
        Self { state, since: now, against: 0 }
    }

    /// What it knows.
    pub fn state(&self) -> CheckState {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// How many results in a row have spoken against the present state.
    pub fn results_against(&self) -> u32 {
        self.against
    }

    /// Takes a result.
    pub fn observe(&mut self, passed: bool, thresholds: Thresholds, now: Timestamp) -> Option<Change> {
        let (to, needed) = match (self.state, passed) {
            (CheckState::Up, true) | (CheckState::Down, false) => {
                self.against = 0;
                return None;
            }
            (CheckState::Unknown, true) => (CheckState::Up, NonZeroU32::MIN),
            (CheckState::Down, true) => (CheckState::Up, thresholds.up_after),
            (CheckState::Unknown | CheckState::Up, false) => (CheckState::Down, thresholds.down_after),
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed.get() {
            return None;
        }
        let from = self.state;
        *self = Self::new(to, now);
        Some(Change { from, to })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn thresholds(down_after: u32, up_after: u32) -> Thresholds {
        Thresholds {
            down_after: NonZeroU32::new(down_after).unwrap(),
            up_after: NonZeroU32::new(up_after).unwrap(),
        }
    }

    /// The states after each result of a text of `+` and `-`.
    fn states(start: CheckState, limits: Thresholds, results: &str) -> String {
        let mut machine = Machine::new(start, Timestamp::EPOCH);
        let letter = |state| match state {
            CheckState::Unknown => '?',
            CheckState::Up => 'u',
            CheckState::Down => 'd',
        };
        results
            .chars()
            .map(|result| {
                machine.observe(result == '+', limits, Timestamp::EPOCH);
                letter(machine.state())
            })
            .collect()
    }

    #[test]
    fn thresholds_decide_when_a_state_changes() {
        let table = [
            (CheckState::Unknown, (3, 2), "+", "u"),
            (CheckState::Unknown, (3, 2), "--+", "??u"),
            (CheckState::Unknown, (3, 2), "---+-++", "??ddddu"),
            (CheckState::Up, (3, 2), "--+--+---", "uuuuuuuud"),
            (CheckState::Up, (1, 1), "-+-+", "dudu"),
            (CheckState::Down, (3, 2), "+-+-++", "dddddu"),
            (CheckState::Down, (1, 3), "++-+++-", "dddddud"),
        ];
        for (start, (down, up), results, expected) in table {
            assert_eq!(
                states(start, thresholds(down, up), results),
                expected,
                "{start:?} {down} {up} {results}"
            );
        }
    }

    #[test]
    fn a_change_says_since_when() {
        let mut machine = Machine::new(CheckState::Unknown, Timestamp::EPOCH);
        let later = Timestamp::from_millis_clamped(5000);
        let change = machine.observe(true, thresholds(3, 2), later);
        assert_eq!(change, Some(Change { from: CheckState::Unknown, to: CheckState::Up }));
        assert_eq!((machine.since(), machine.results_against()), (later, 0));
    }

    proptest! {
        #[test]
        fn a_change_needs_its_threshold_of_results_in_a_row(
            results in proptest::collection::vec(any::<bool>(), 0..400),
            down_after in 1u32..6,
            up_after in 1u32..6,
            start in 0usize..3,
        ) {
            let limits = thresholds(down_after, up_after);
            let start = [CheckState::Unknown, CheckState::Up, CheckState::Down][start];
            let mut machine = Machine::new(start, Timestamp::EPOCH);
            for (index, passed) in results.iter().enumerate() {
                let before = machine.state();
                let change = machine.observe(*passed, limits, Timestamp::EPOCH);
                prop_assert_eq!(change.is_some(), machine.state() != before);
                let Some(change) = change else { continue };
                prop_assert_eq!((change.from, change.to), (before, machine.state()));
                prop_assert_ne!(change.to, CheckState::Unknown);
                let needed = match (change.from, change.to) {
                    (CheckState::Unknown, CheckState::Up) => 1,
                    (_, CheckState::Up) => up_after,
                    _ => down_after,
                } as usize;
                let agreeing = results[..=index].iter().rev().take_while(|r| **r == *passed).count();
                prop_assert!(agreeing >= needed, "{agreeing} of {needed} in a row");
            }
        }

        #[test]
        fn shorter_runs_than_the_threshold_never_change_an_up_check(
            runs in proptest::collection::vec(1u32..4, 1..80),
        ) {
            // Runs of up to three failures, each ended by a success, against a threshold of four.
            let limits = thresholds(4, 2);
            let mut machine = Machine::new(CheckState::Up, Timestamp::EPOCH);
            for run in runs {
                for _ in 0..run {
                    prop_assert_eq!(machine.observe(false, limits, Timestamp::EPOCH), None);
                }
                prop_assert_eq!(machine.observe(true, limits, Timestamp::EPOCH), None);
            }
            prop_assert_eq!(machine.state(), CheckState::Up);
        }
    }
}

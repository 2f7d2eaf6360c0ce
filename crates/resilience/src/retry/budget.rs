//! A bound on the retries of many callers together, so that a service that fails doesn't get three times its load.
//!
//! As in Finagle's `RetryBudget` and tower's `TpsBudget`: each call pays a share of a retry in, each retry takes one out,
//! and a fixed number per second is there without paying. What was paid in is worth something for `ttl` only. The window
//! is [`SLOTS`] slots that slide; for every such window
//!
//! ```text
//! retries ≤ ratio × calls + min_per_second × ttl
//! ```
//!
//! holds each time a retry is granted. Calls pay in without a lock, which is what every call does. Granting a retry takes
//! a short lock, because the sum and the withdrawal must be one step.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::{MonotonicTime, SharedClock, SystemClock, nanos};
use crate::registry::Policy;
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};
use crate::word::Word;

/// Parts of the window. It slides by one of them at a time.
const SLOTS: usize = 10;

/// Lower bits of a slot: how many. 16 million a slot; more are counted as so many.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Upper bits of a slot: its epoch, the number of slot lengths since the clock's origin.
const EPOCH_MASK: u64 = u64::MAX >> COUNT_BITS;

/// Events per slot of a sliding window. An epoch's slot is taken over by the epoch that comes [`SLOTS`] later.
#[derive(Debug)]
struct Window<W = AtomicU64> {
    slots: [W; SLOTS],
}

impl<W: Word> Window<W> {
    fn new() -> Self {
        Self { slots: std::array::from_fn(|_| W::new(0)) }
    }

    /// Counts one event in this epoch. An event that comes so late that its slot was taken over is not counted.
    fn add(&self, epoch: u64) {
        // Every epoch has a slot: there are more than zero.
        let Some(slot) = self.slots.get(usize::try_from(epoch % SLOTS as u64).unwrap_or(0)) else {
            return;
        };
        let add = |seen: u64| match (seen >> COUNT_BITS).cmp(&epoch) {
            std::cmp::Ordering::Greater => None,
            std::cmp::Ordering::Less => Some((epoch << COUNT_BITS) | 1),
            std::cmp::Ordering::Equal if seen & COUNT_MASK == COUNT_MASK => None,
            std::cmp::Ordering::Equal => Some(seen + 1),
        };
        slot.update(add);
    }

    /// Events in the window that ends with this epoch.
    fn sum(&self, epoch: u64) -> u64 {
        let slots = self.slots.iter().map(Word::load);
        slots
            .filter(|slot| {
                let age = epoch.checked_sub(slot >> COUNT_BITS);
                age.is_some_and(|age| age < SLOTS as u64)
            })
            .map(|slot| slot & COUNT_MASK)
            .sum()
    }
}

/// How many retries there may be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Allowance {
    /// Retries per call.
    ratio: f64,
    /// Retries per window that nobody has to pay for.
    reserve: u64,
}

impl Allowance {
    /// Retries that are left after so many calls and retries in the window.
    fn left(self, calls: u64, retries: u64) -> u64 {
        // Rounded down; a product too large for the type is its largest value.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the ratio is not negative"
        )]
        let paid = (calls as f64 * self.ratio) as u64;
        paid.saturating_add(self.reserve).saturating_sub(retries)
    }
}

struct Shared {
    name: Arc<str>,
    allowance: Allowance,
    ttl: Duration,
    min_per_second: u32,
    /// Nanoseconds.
    slot_length: u64,
    clock: SharedClock,
    calls: Window,
    retries: Window,
    /// Held while a retry is granted; the newest epoch in which one was.
    granting: Mutex<u64>,
    granted: AtomicU64,
    refused: AtomicU64,
}

/// A retry budget. Clones are the same budget: give one to all callers of a service.
#[derive(Clone)]
pub struct RetryBudget {
    shared: Arc<Shared>,
}

/// Settings of a [`RetryBudget`].
#[must_use]
pub struct RetryBudgetBuilder {
    name: Arc<str>,
    ttl: Duration,
    min_per_second: u32,
    ratio: f64,
    clock: SharedClock,
}

impl RetryBudgetBuilder {
    /// How long a call's share is worth something. 10 s by default, at least 10 ms.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Retries per second that are there without calls, so that a quiet caller can retry at all. 10 by default.
    pub fn min_per_second(mut self, retries: u32) -> Self {
        self.min_per_second = retries;
        self
    }

    /// Retries that each call pays for: 0.2, the default, is one for every five calls. Negative, or not a number, counts as 0.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Where the budget has the time from.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// The budget.
    pub fn build(self) -> RetryBudget {
        let ttl = self.ttl.max(Duration::from_millis(10));
        let reserve = (u128::from(self.min_per_second) * ttl.as_millis()) / 1000;
        let allowance = Allowance {
            // Not a number gives 0 here.
            ratio: self.ratio.max(0.0),
            reserve: u64::try_from(reserve).unwrap_or(u64::MAX),
        };
        RetryBudget {
            shared: Arc::new(Shared {
                name: self.name,
                allowance,
                ttl,
                min_per_second: self.min_per_second,
                slot_length: nanos(ttl) / SLOTS as u64,
                clock: self.clock,
                calls: Window::new(),
                retries: Window::new(),
                granting: Mutex::default(),
                granted: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            }),
        }
    }
}

impl RetryBudget {
    /// A budget with Finagle's defaults: one retry for five calls, and 10 a second, over 10 s.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self::builder(name).build()
    }

    /// A budget to be set up.
    pub fn builder(name: impl Into<Arc<str>>) -> RetryBudgetBuilder {
        RetryBudgetBuilder {
            name: name.into(),
            ttl: Duration::from_secs(10),
            min_per_second: 10,
            ratio: 0.2,
            clock: SystemClock::shared(),
        }
    }

    /// A call is being made and pays its share in.
    #[inline]
    pub fn deposit(&self) {
        self.shared.calls.add(self.epoch(self.shared.clock.coarse_now()));
    }

    /// Takes a retry out; false if there is none.
    pub fn withdraw(&self) -> bool {
        let shared = &*self.shared;
        let granted = {
            let mut newest = shared.granting.lock();
            // Read under the lock and never behind what was granted already: a window that ended earlier would miss it.
            let epoch = self.epoch(shared.clock.coarse_now()).max(*newest);
            *newest = epoch;
            let left = shared.allowance.left(shared.calls.sum(epoch), shared.retries.sum(epoch));
            if left > 0 {
                shared.retries.add(epoch);
            }
            left > 0
        };
        let counter = if granted { &shared.granted } else { &shared.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// Retries that could be made now.
    pub fn left(&self) -> u64 {
        let epoch = self.epoch(self.shared.clock.coarse_now());
        self.shared.allowance.left(self.shared.calls.sum(epoch), self.shared.retries.sum(epoch))
    }

    fn epoch(&self, now: MonotonicTime) -> u64 {
        (now.as_nanos() / self.shared.slot_length) & EPOCH_MASK
    }
}

impl Policy for RetryBudget {
    fn kind(&self) -> PolicyKind {
        PolicyKind::RetryBudget
    }

    fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    fn snapshot(&self) -> PolicySnapshot {
        let shared = &*self.shared;
        const HELP: &str = "Retries asked of the budget, by its answer";
        PolicySnapshot::new(self.kind(), shared.name.clone())
            .counter(Counter::of_kind("retries", "granted", HELP, shared.granted.load(Ordering::Relaxed)))
            .counter(Counter::of_kind("retries", "refused", HELP, shared.refused.load(Ordering::Relaxed)))
            .gauge("retries_left", "Retries that could be made at once", self.left() as f64)
            .setting("ttl", format_args!("{:?}", shared.ttl))
            .setting("ratio", shared.allowance.ratio)
            .setting("min_per_second", shared.min_per_second)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::word::under_loom::{LoomU64, every_interleaving};

    fn budget(clock: &ManualClock, min_per_second: u32, ratio: f64) -> RetryBudget {
        RetryBudget::builder("payments")
            .min_per_second(min_per_second)
            .ratio(ratio)
            .clock(clock.shared())
            .build()
    }

    fn withdrawals(budget: &RetryBudget) -> usize {
        std::iter::repeat_with(|| budget.withdraw()).take_while(|granted| *granted).count()
    }

    #[test]
    fn five_calls_pay_for_one_retry() {
        let budget = budget(&ManualClock::new(), 0, 0.2);
        assert!(!budget.withdraw());
        for _ in 0..14 {
            budget.deposit();
        }
        assert_eq!(withdrawals(&budget), 2);
        budget.deposit();
        assert_eq!(withdrawals(&budget), 1);
        assert_eq!(budget.snapshot().count("granted"), Some(3));
        assert_eq!(budget.snapshot().count("refused"), Some(3));
    }

    #[test]
    fn a_quiet_caller_has_the_reserve_again_after_the_window() {
        let clock = ManualClock::new();
        let budget = budget(&clock, 1, 0.0);
        assert_eq!(withdrawals(&budget), 10);
        clock.advance(Duration::from_millis(9_999));
        assert_eq!(withdrawals(&budget), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(withdrawals(&budget), 10);
    }

    #[test]
    fn what_was_paid_in_expires() {
        let clock = ManualClock::new();
        let budget = budget(&clock, 0, 1.0);
        budget.deposit();
        clock.advance(Duration::from_secs(5));
        budget.deposit();
        assert_eq!(budget.left(), 2);
        clock.advance(Duration::from_secs(5));
        assert_eq!(budget.left(), 1);
        clock.advance(Duration::from_secs(500));
        assert_eq!(budget.left(), 0);
    }

    #[test]
    fn under_every_interleaving_no_call_is_lost_when_a_slot_is_taken_over() {
        every_interleaving(
            3,
            || {
                let window = Window::<LoomU64>::new();
                window.add(3);
                window
            },
            // One of them is late: it still counts in the epoch that has gone, or not at all.
            |window, thread| window.add(if thread == 0 { 3 } else { 13 }),
            |window, _| {
                assert_eq!(window.sum(13), 2);
                assert_eq!(window.sum(12), 0);
            },
        );
    }

    #[test]
    fn threads_together_get_no_more_than_the_budget_has() {
        let budget = budget(&ManualClock::new(), 0, 0.5);
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let call = |_| {
                            budget.deposit();
                            usize::from(budget.withdraw())
                        };
                        (0..5_000).map(call).sum::<usize>()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Every call asked for a retry, half of them were paid for; no deposit was lost.
        assert!(granted <= 20_000);
        assert_eq!(granted + withdrawals(&budget), 20_000);
    }

    proptest! {
        #[test]
        fn granted_retries_stay_within_the_budget_of_every_window(
            steps in prop::collection::vec((0..3u8, 0..1500u64), 1..400), min_per_second in 0..3u32, ratio in 0.0..1.5f64,
        ) {
            let clock = ManualClock::new();
            let budget = budget(&clock, min_per_second, ratio);
            let (mut calls, mut retries) = (Vec::new(), Vec::new());
            for (step, wait) in steps {
                clock.advance(Duration::from_millis(if step == 2 { wait } else { 0 }));
                // The window as the budget defines it: this second and the nine before.
                let second = clock.now().as_nanos() / 1_000_000_000;
                if step == 0 {
                    calls.push(second);
                    budget.deposit();
                } else if budget.withdraw() {
                    retries.push(second);
                    let within = |seconds: &[u64]| seconds.iter().filter(|at| second - **at < 10).count() as f64;
                    prop_assert!(within(&retries) <= ratio * within(&calls) + f64::from(min_per_second) * 10.0);
                }
            }
        }
    }
}

//! The outcomes of the last calls, counted without a lock: of a number of calls, or of a span of time.
//!
//! Both windows are read only when a call failed or was slow, since no other call can make them worse. What another
//! thread is recording at that moment may be counted or not; once all have recorded, the counts are exact.
//!
//! The ring is generic over its atomics so that the tests can run this very code under loom.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::state::Cause;
use crate::clock::MonotonicTime;

/// Slices of a time window; the oldest goes when a new one begins, so that the window is up to a tenth shorter than asked for.
pub(crate) const SLICES: usize = 10;

/// What is in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

impl Counts {
    #[expect(clippy::cast_precision_loss, reason = "windows hold far fewer calls than 2^53")]
    fn rate(self, part: u64) -> f64 {
        if self.total == 0 { 0.0 } else { part as f64 / self.total as f64 }
    }

    /// Failed calls of all, 0 to 1.
    pub(crate) fn failure_rate(self) -> f64 {
        self.rate(self.failed)
    }

    /// Slow calls of all, 0 to 1.
    pub(crate) fn slow_rate(self) -> f64 {
        self.rate(self.slow)
    }
}

/// When the counts of a window open a breaker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Fewer calls than these say nothing.
    pub(crate) minimum_calls: u64,
    pub(crate) failure_rate: Option<f64>,
    pub(crate) slow_rate: Option<f64>,
}

impl Limits {
    pub(crate) fn exceeded(self, counts: Counts) -> Option<Cause> {
        if counts.total < self.minimum_calls {
            return None;
        }
        if self.failure_rate.is_some_and(|limit| counts.failure_rate() >= limit) {
            return Some(Cause::FailureRate { failed: counts.failed, total: counts.total });
        }
        if self.slow_rate.is_some_and(|limit| counts.slow_rate() >= limit) {
            return Some(Cause::SlowCallRate { slow: counts.slow, total: counts.total });
        }
        None
    }
}

/// A window of either sort.
#[derive(Debug)]
pub(crate) enum Window {
    Calls(CallWindow),
    Time(TimeWindow),
}

impl Window {
    /// Whether `record` wants to know the time.
    pub(crate) fn needs_time(&self) -> bool {
        matches!(self, Self::Time(_))
    }

    pub(crate) fn record(&self, failed: bool, slow: bool, now: MonotonicTime) {
        match self {
            Self::Calls(window) => window.record(failed, slow),
            Self::Time(window) => window.record(failed, slow, now),
        }
    }

    pub(crate) fn counts(&self, now: MonotonicTime) -> Counts {
        match self {
            Self::Calls(window) => window.counts(),
            Self::Time(window) => window.counts(now),
        }
    }

    pub(crate) fn clear(&self) {
        match self {
            Self::Calls(window) => window.clear(),
            Self::Time(window) => window.clear(),
        }
    }
}

/// Outcomes as they stand in a [`CallWindow`].
const EMPTY: u8 = 0;
const PRESENT: u8 = 1;
const FAILED: u8 = 2;
const SLOW: u8 = 4;

/// One place of a [`CallWindow`]'s ring.
pub(crate) trait Place {
    fn new(outcome: u8) -> Self;
    /// Puts an outcome in, and gives the one before.
    fn swap(&self, outcome: u8) -> u8;
}

impl Place for AtomicU8 {
    fn new(outcome: u8) -> Self {
        Self::new(outcome)
    }

    #[inline]
    fn swap(&self, outcome: u8) -> u8 {
        self.swap(outcome, Ordering::AcqRel)
    }
}

/// A count in a [`CallWindow`]. Signed: of two threads that put their outcomes into one place, the second may correct a
/// sum first.
pub(crate) trait Sum {
    fn new(value: i64) -> Self;
    /// Adds, and gives what it was.
    fn add(&self, change: i64) -> i64;
    fn load(&self) -> i64;
}

impl Sum for AtomicI64 {
    fn new(value: i64) -> Self {
        Self::new(value)
    }

    #[inline]
    fn add(&self, change: i64) -> i64 {
        self.fetch_add(change, Ordering::AcqRel)
    }

    #[inline]
    fn load(&self) -> i64 {
        self.load(Ordering::Acquire)
    }
}

/// The last so many calls: a ring of outcomes, and their sums.
#[derive(Debug)]
pub(crate) struct CallWindow<P = AtomicU8, S = AtomicI64> {
    ring: Box<[P]>,
    /// Calls recorded; the next goes to this place, counted around the ring.
    recorded: S,
    total: S,
    failed: S,
    slow: S,
}

impl<P: Place, S: Sum> CallWindow<P, S> {
    pub(crate) fn new(calls: usize) -> Self {
        Self {
            ring: (0..calls.max(1)).map(|_| P::new(EMPTY)).collect(),
            recorded: S::new(0),
            total: S::new(0),
            failed: S::new(0),
            slow: S::new(0),
        }
    }

    fn record(&self, failed: bool, slow: bool) {
        let outcome = PRESENT | if failed { FAILED } else { 0 } | if slow { SLOW } else { 0 };
        // 2^63 calls are not reached.
        let place = usize::try_from(self.recorded.add(1)).unwrap_or(0) % self.ring.len();
        if let Some(place) = self.ring.get(place) {
            self.put(place, outcome);
        }
    }

    /// Whoever puts an outcome in takes the one before out of the sums.
    fn put(&self, place: &P, outcome: u8) {
        let before = place.swap(outcome);
        for (flag, sum) in [(PRESENT, &self.total), (FAILED, &self.failed), (SLOW, &self.slow)] {
            let change = i64::from(outcome & flag != 0) - i64::from(before & flag != 0);
            if change != 0 {
                sum.add(change);
            }
        }
    }

    fn counts(&self) -> Counts {
        let read = |sum: &S| u64::try_from(sum.load()).unwrap_or(0);
        Counts { total: read(&self.total), failed: read(&self.failed), slow: read(&self.slow) }
    }

    fn clear(&self) {
        for place in &self.ring {
            self.put(place, EMPTY);
        }
    }
}

/// The calls of the last span of time, in [`SLICES`]. Each slice is two words that begin with the number of the slice of
/// time that they count, so that whoever comes first in a new one starts them anew in the same step.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    slice_nanos: u64,
    slices: [Slice; SLICES],
}

#[derive(Debug, Default)]
struct Slice {
    /// Number of the slice, total, failed: 24, 20 and 20 bits.
    calls: AtomicU64,
    /// Number of the slice, slow: 24 and 40 bits.
    slow: AtomicU64,
}

const NUMBER_SHIFT: u32 = 40;
const NUMBER_MASK: u64 = (1 << 24) - 1;
const COUNT_BITS: u32 = 20;
/// A slice counts this many calls; the calls after are not counted, which leaves the ratio as it is.
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// By how many slices a call may be late and still be told from one that begins a slice anew. Numbers come round after 2^24
/// slices, so an older word can look newer; the fewer are taken for newer, the less likely that is.
const LATE_SLICES: u64 = 1024;

/// The word to count on for a call in the slice of this number: the one that is there, a new one if that is of an older
/// slice, or none if it is of a newer one: the caller was held up since it read the clock, and its slice is gone.
fn counted_in(word: u64, number: u64) -> Option<u64> {
    let number = number & NUMBER_MASK;
    match (word >> NUMBER_SHIFT).wrapping_sub(number) & NUMBER_MASK {
        0 => Some(word),
        ahead if ahead <= LATE_SLICES && word != 0 => None,
        _ => Some(number << NUMBER_SHIFT),
    }
}

impl TimeWindow {
    pub(crate) fn new(span: Duration) -> Self {
        let slice_nanos = (crate::clock::nanos(span) / SLICES as u64).max(1);
        Self { slice_nanos, slices: Default::default() }
    }

    /// The number of the slice of time. Never zero, which is what a slice that nobody used has.
    fn number(&self, now: MonotonicTime) -> u64 {
        now.as_nanos() / self.slice_nanos + 1
    }

    fn record(&self, failed: bool, slow: bool, now: MonotonicTime) {
        let number = self.number(now);
        let Some(slice) = self.slices.get(usize::try_from(number % SLICES as u64).unwrap_or(0)) else {
            return;
        };
        let calls = slice.calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let counted = counted_in(word, number)?;
            let total = counted >> COUNT_BITS & COUNT_MAX;
            (total < COUNT_MAX).then(|| counted + (1 << COUNT_BITS) + u64::from(failed))
        });
        if slow && calls.is_ok() {
            let _ = slice.slow.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                Some(counted_in(word, number)? + 1)
            });
        }
    }

    fn counts(&self, now: MonotonicTime) -> Counts {
        let newest = self.number(now);
        let mut counts = Counts::default();
        for back in 0..SLICES as u64 {
            let Some(number) = newest.checked_sub(back).filter(|number| *number > 0) else { break };
            let Some(slice) = self.slices.get(usize::try_from(number % SLICES as u64).unwrap_or(0)) else {
                break;
            };
            let calls = slice.calls.load(Ordering::Acquire);
            if calls >> NUMBER_SHIFT == number & NUMBER_MASK {
                counts.total += calls >> COUNT_BITS & COUNT_MAX;
                counts.failed += calls & COUNT_MAX;
            }
            let slow = slice.slow.load(Ordering::Acquire);
            if slow >> NUMBER_SHIFT == number & NUMBER_MASK {
                counts.slow += slow & ((1 << NUMBER_SHIFT) - 1);
            }
        }
        counts
    }

    fn clear(&self) {
        for slice in &self.slices {
            slice.calls.store(0, Ordering::Release);
            slice.slow.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;

//! The generic cell rate algorithm: when the next call may go, as one number.
//!
//! The number is the **theoretical arrival time** of the next call if calls came evenly. A call may come earlier than that
//! by the tolerance, which is what makes a burst. Each call moves the number on by one interval. From ATM Forum, "Traffic
//! Management Specification 4.0" (1996), section 4.4.2 and annex: virtual scheduling.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::nanos;
use crate::word::Word;

/// How calls are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Nanoseconds between calls that come evenly; at least 1.
    interval: u64,
    /// Nanoseconds by which a call may be early.
    tolerance: u64,
}

impl Rate {
    /// `calls` per `period`, and `burst` of them at once; all at least 1.
    pub(super) fn new(calls: u32, period: Duration, burst: u32) -> Self {
        let interval = (nanos(period) / u64::from(calls.max(1))).max(1);
        Self { interval, tolerance: interval.saturating_mul(u64::from(burst.max(1)) - 1) }
    }

    /// A call at `now` (nanoseconds) that would wait for up to `max_wait`: the wait and the new arrival time, or what the
    /// wait would be.
    pub(super) fn admit(self, arrival: u64, now: u64, max_wait: u64) -> Result<(u64, u64), u64> {
        let wait = arrival.saturating_sub(self.tolerance).saturating_sub(now);
        if wait > max_wait { Err(wait) } else { Ok((wait, arrival.max(now).saturating_add(self.interval))) }
    }

    /// Calls that could go at once.
    pub(super) fn free(self, arrival: u64, now: u64) -> u64 {
        let early = arrival.saturating_sub(now);
        if early > self.tolerance { 0 } else { (self.tolerance - early) / self.interval + 1 }
    }
}

/// A turn that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    before: u64,
    after: u64,
    /// Nanoseconds until it comes.
    pub(super) wait: u64,
}

/// The theoretical arrival time, shared by threads.
#[derive(Debug)]
pub(super) struct Arrival<W = AtomicU64> {
    time: W,
}

impl<W: Word> Arrival<W> {
    pub(super) fn new() -> Self {
        Self { time: W::new(0) }
    }

    /// Gives a turn that comes within `max_wait`, or says when one would come.
    #[inline]
    pub(super) fn next_turn(&self, rate: Rate, now: u64, max_wait: u64) -> Result<Turn, u64> {
        let mut before = self.time.load();
        loop {
            let (wait, after) = rate.admit(before, now, max_wait)?;
            match self.time.swap_if(before, after) {
                Ok(()) => return Ok(Turn { before, after, wait }),
                Err(seen) => before = seen,
            }
        }
    }

    /// Takes a turn back that nobody will use. If another was given after it, it is lost.
    pub(super) fn give_back(&self, turn: Turn) {
        let _ = self.time.swap_if(turn.after, turn.before);
    }

    /// The time as it is.
    pub(super) fn time(&self) -> u64 {
        self.time.load()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::word::under_loom::{LoomU64, every_interleaving};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn under_every_interleaving_the_burst_is_given_once_and_turns_that_wait_have_times_of_their_own() {
        every_interleaving(
            3,
            Arrival::<LoomU64>::new,
            |arrival, _| {
                let rate = Rate::new(10, SECOND, 1);
                arrival.next_turn(rate, 0, 100_000_000)
            },
            |_, turns| {
                let mut waits: Vec<_> = turns.into_iter().map(|turn| turn.map(|turn| turn.wait)).collect();
                waits.sort();
                assert_eq!(waits, [Ok(0), Ok(100_000_000), Err(200_000_000)]);
            },
        );
    }

    #[test]
    fn under_every_interleaving_a_turn_that_is_given_back_makes_no_second_one_at_its_time() {
        every_interleaving(
            3,
            Arrival::<LoomU64>::new,
            |arrival, thread| {
                let rate = Rate::new(10, SECOND, 1);
                let turn = arrival.next_turn(rate, 0, u64::MAX).unwrap();
                let kept = thread > 0;
                if !kept {
                    arrival.give_back(turn);
                }
                kept.then_some(turn.wait)
            },
            |_, kept| {
                let mut kept: Vec<_> = kept.into_iter().flatten().collect();
                kept.sort_unstable();
                kept.dedup();
                assert_eq!(kept.len(), 2);
            },
        );
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_an_interval() {
        let rate = Rate::new(10, SECOND, 3);
        let mut arrival = 0;
        for _ in 0..3 {
            let (wait, next) = rate.admit(arrival, 0, 0).unwrap();
            assert_eq!(wait, 0);
            arrival = next;
        }
        assert_eq!(rate.admit(arrival, 0, 0), Err(100_000_000));
        assert_eq!(rate.admit(arrival, 99_999_999, 0), Err(1));
        assert!(rate.admit(arrival, 100_000_000, 0).is_ok());
        assert_eq!(rate.free(arrival, 0), 0);
        assert_eq!(rate.free(arrival, 100_000_000), 1);
        assert_eq!(rate.free(arrival, 60_000_000_000), 3);
    }

    proptest! {
        #[test]
        fn in_no_span_of_time_are_there_more_than_the_burst_and_the_rate(
            calls in 1..50u32, period in 1..3_000u64, burst in 1..20u32, waits in prop::collection::vec((0..500u64, 0..300u64), 1..200),
        ) {
            let rate = Rate::new(calls, Duration::from_millis(period), burst);
            let (mut now, mut arrival, mut went) = (0u64, 0, Vec::new());
            for (pause, max_wait) in waits {
                now += pause * 1_000_000;
                let free = rate.free(arrival, now);
                match rate.admit(arrival, now, max_wait * 1_000_000) {
                    Ok((wait, next)) => {
                        prop_assert_eq!(wait == 0, free > 0);
                        went.push(now + wait);
                        arrival = next;
                    }
                    Err(wait) => prop_assert!(wait > max_wait * 1_000_000),
                }
            }
            for (first, from) in went.iter().enumerate() {
                for (last, to) in went.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (to - from) / rate.interval;
                    prop_assert!((last - first + 1) as u64 <= most);
                }
            }
        }
    }
}

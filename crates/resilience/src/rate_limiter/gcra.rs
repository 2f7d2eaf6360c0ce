//! The generic cell rate algorithm: when the next call may go, as one number.
//!
//! The number is the **theoretical arrival time** of the next call if calls came evenly. A call may come earlier than that
//! by the tolerance, which is what makes a burst. Each call moves the number on by one interval. From ATM Forum, "Traffic
//! Management Specification 4.0" (1996), section 4.4.2 and annex: virtual scheduling.

use std::time::Duration;

use crate::clock::nanos;

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

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

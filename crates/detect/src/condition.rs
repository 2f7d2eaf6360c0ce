//! What a rule compares, and with what.
//!
//! Comparisons are strict: `above = 40` is breached by 40.1 and not by 40. Every threshold has a *clear* side: without
//! a second threshold that is simply "not breached"; with one (`clear = 39`) values between the two neither breach nor
//! clear, so that a firing alert stays and none begins (hysteresis).

use std::time::Duration;

/// What a rule asks of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// The reading's value against a band.
    Value(Band),
    /// The value's rate of change against a band.
    Rate {
        /// The band, in units of the value per [`Condition::Rate::per`].
        band: Band,
        /// The time unit of the rate.
        per: Duration,
        /// The shortest span over which the rate is taken; zero compares with the reading before.
        window: Duration,
    },
    /// No reading arrives for so long.
    Absent(Duration),
}

/// Thresholds with their clear side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Band {
    /// Breached above `threshold`, clear at `clear` or below. `clear <= threshold`.
    Above {
        /// Breached above this.
        threshold: f64,
        /// Clear at or below this.
        clear: f64,
    },
    /// Breached below `threshold`, clear at `clear` or above. `clear >= threshold`.
    Below {
        /// Breached below this.
        threshold: f64,
        /// Clear at or above this.
        clear: f64,
    },
    /// Breached below `low` or above `high`, clear from `clear_low` to `clear_high`, which lie within.
    Outside {
        /// Breached below this.
        low: f64,
        /// Breached above this.
        high: f64,
        /// Clear from here…
        clear_low: f64,
        /// …to here.
        clear_high: f64,
    },
}

/// What one comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The condition holds.
    Breached,
    /// Between the threshold and the clear threshold: nothing begins, nothing ends.
    Between,
    /// The condition doesn't hold, and the value is on the clear side.
    Clear,
}

impl Band {
    /// Compares one value.
    pub fn judge(&self, value: f64) -> Verdict {
        let (breached, clear) = match *self {
            Band::Above { threshold, clear } => (value > threshold, value <= clear),
            Band::Below { threshold, clear } => (value < threshold, value >= clear),
            Band::Outside { low, high, clear_low, clear_high } => {
                (value < low || value > high, value >= clear_low && value <= clear_high)
            }
        };
        match (breached, clear) {
            (true, _) => Verdict::Breached,
            (false, true) => Verdict::Clear,
            (false, false) => Verdict::Between,
        }
    }

    /// The threshold that `value` breaches, or would have to pass to breach.
    pub fn threshold_near(&self, value: f64) -> f64 {
        match *self {
            Band::Above { threshold, .. } | Band::Below { threshold, .. } => threshold,
            Band::Outside { low, high, .. } => {
                if value - low < high - value {
                    low
                } else {
                    high
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn thresholds_are_strict_and_have_a_clear_side() {
        use Verdict::{Between, Breached, Clear};
        let above = Band::Above { threshold: 40.0, clear: 39.0 };
        let plain = Band::Above { threshold: 40.0, clear: 40.0 };
        let below = Band::Below { threshold: 5.0, clear: 6.0 };
        let outside = Band::Outside { low: 10.0, high: 20.0, clear_low: 11.0, clear_high: 19.0 };
        for (band, value, expected) in [
            (above, 40.1, Breached),
            (above, 40.0, Between),
            (above, 39.1, Between),
            (above, 39.0, Clear),
            (plain, 40.1, Breached),
            (plain, 40.0, Clear),
            (below, 4.9, Breached),
            (below, 5.0, Between),
            (below, 6.0, Clear),
            (outside, 9.9, Breached),
            (outside, 20.1, Breached),
            (outside, 10.0, Between),
            (outside, 19.5, Between),
            (outside, 11.0, Clear),
            (outside, 19.0, Clear),
        ] {
            assert_eq!(band.judge(value), expected, "{band:?} {value}");
        }
        assert_eq!(outside.threshold_near(9.0), 10.0);
        assert_eq!(outside.threshold_near(21.0), 20.0);
    }

    proptest! {
        #[test]
        fn without_a_clear_threshold_nothing_lies_between(threshold in -1e6f64..1e6, value in -1e6f64..1e6) {
            for band in [
                Band::Above { threshold, clear: threshold },
                Band::Below { threshold, clear: threshold },
                Band::Outside { low: threshold, high: threshold + 1.0, clear_low: threshold, clear_high: threshold + 1.0 },
            ] {
                prop_assert_ne!(band.judge(value), Verdict::Between);
            }
        }
    }
}

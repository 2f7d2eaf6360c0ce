//! How many calls should be under way, by how the service answers: pure functions of samples and time.
//!
//! Both follow Netflix's concurrency-limits (<https://github.com/Netflix/concurrency-limits>), which took them from TCP's
//! congestion control:
//!
//! * **AIMD** (`AIMDLimit`, after Chiu and Jain 1989): each good answer adds one, a drop or an answer that takes too long
//!   multiplies by the backoff ratio. Needs no baseline; answers only to trouble.
//! * **Vegas** (`VegasLimit`, after Brakmo and Peterson 1995): the shortest latency seen is the service without a queue;
//!   from how much longer answers take follows how many calls wait in its queue, and the limit is moved so that there are a
//!   few. Answers before there is trouble, but needs a baseline that it looks for anew from time to time.
//!
//! One thing is added: what began before the last decrease doesn't decrease again. A service that drops twenty calls at
//! once has had one overload, not twenty (as TCP reduces its window once per round trip).

use std::fmt;
use std::time::Duration;

use crate::clock::MonotonicTime;

/// How the limit is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Algorithm {
    /// Additive increase, multiplicative decrease.
    Aimd {
        /// What the limit is multiplied by after a drop: 0.5 to 1.
        backoff_ratio: f64,
        /// An answer that takes longer counts as dropped.
        timeout: Duration,
    },
    /// By the length of the service's queue, estimated from latencies.
    Vegas {
        /// The baseline is looked for anew after so many samples times the limit.
        probe_multiplier: u32,
    },
}

impl Algorithm {
    /// AIMD with Netflix's settings: ratio 0.9, 5 s.
    pub const AIMD: Self = Self::Aimd { backoff_ratio: 0.9, timeout: Duration::from_secs(5) };

    /// Vegas with Netflix's settings: a new baseline every 30 × limit samples.
    pub const VEGAS: Self = Self::Vegas { probe_multiplier: 30 };
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aimd { backoff_ratio, timeout } => {
                write!(f, "aimd, ratio {backoff_ratio}, timeout {timeout:?}")
            }
            Self::Vegas { probe_multiplier } => {
                write!(f, "vegas, new baseline every {probe_multiplier} × limit")
            }
        }
    }
}

/// What is known of a call that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) began: MonotonicTime,
    pub(super) latency: Duration,
    /// Calls under way when this one ended, itself included.
    pub(super) in_flight: usize,
    /// The service dropped it: it failed by overload, or was given up.
    pub(super) dropped: bool,
}

/// The limit, and what it is found by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit {
    algorithm: Algorithm,
    min: usize,
    max: usize,
    limit: usize,
    last_decrease: Option<MonotonicTime>,
    /// The shortest latency since the last probe.
    baseline: Option<Duration>,
    /// Samples since the baseline was last looked for.
    samples: u64,
}

impl Limit {
    /// Begins at `initial`, stays between `min` (at least 1) and `max`.
    pub(super) fn new(algorithm: Algorithm, initial: usize, min: usize, max: usize) -> Self {
        let min = min.max(1);
        let max = max.max(min);
        Self {
            algorithm,
            min,
            max,
            limit: initial.clamp(min, max),
            last_decrease: None,
            baseline: None,
            samples: 0,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn baseline(&self) -> Option<Duration> {
        self.baseline
    }

    /// A call ended at `now`. Gives the new limit.
    pub(super) fn observe(&mut self, sample: &Sample, now: MonotonicTime) -> usize {
        match self.algorithm {
            Algorithm::Aimd { backoff_ratio, timeout } => self.aimd(sample, now, backoff_ratio, timeout),
            Algorithm::Vegas { probe_multiplier } => self.vegas(sample, now, probe_multiplier),
        }
        self.limit
    }

    fn aimd(&mut self, sample: &Sample, now: MonotonicTime, backoff_ratio: f64, timeout: Duration) {
        if sample.dropped || sample.latency > timeout {
            self.decrease(sample, now, scaled(self.limit, backoff_ratio.clamp(0.5, 1.0)));
        } else if self.is_used(sample) {
            self.move_to(self.limit.saturating_add(1));
        }
    }

    fn vegas(&mut self, sample: &Sample, now: MonotonicTime, probe_multiplier: u32) {
        let step = log10(self.limit);
        if sample.dropped {
            self.decrease(sample, now, self.limit.saturating_sub(step));
            return;
        }
        self.samples += 1;
        if self.samples >= u64::from(probe_multiplier.max(1)).saturating_mul(self.limit as u64) {
            self.samples = 0;
            self.baseline = None;
        }
        let baseline = self.baseline.map_or(sample.latency, |baseline| baseline.min(sample.latency));
        self.baseline = Some(baseline);
        if !self.is_used(sample) || sample.latency.is_zero() {
            return;
        }
        let waiting_share = 1.0 - baseline.as_secs_f64() / sample.latency.as_secs_f64();
        let queue = scaled_up(self.limit, waiting_share);
        // Netflix's settings: alpha 3 × log10, beta 6 × log10, threshold log10 of the limit.
        let (alpha, beta) = (3 * step, 6 * step);
        if queue <= step {
            self.move_to(self.limit.saturating_add(beta));
        } else if queue < alpha {
            self.move_to(self.limit.saturating_add(step));
        } else if queue > beta {
            self.decrease(sample, now, self.limit.saturating_sub(step));
        }
    }

    /// Whether so many calls were under way that the limit means something. A limit that nobody reaches isn't raised.
    fn is_used(&self, sample: &Sample) -> bool {
        sample.in_flight.saturating_mul(2) >= self.limit
    }

    fn decrease(&mut self, sample: &Sample, now: MonotonicTime, to: usize) {
        if self.last_decrease.is_none_or(|last| sample.began >= last) {
            self.last_decrease = Some(now);
            self.move_to(to);
        }
    }

    fn move_to(&mut self, limit: usize) {
        self.limit = limit.clamp(self.min, self.max);
    }
}

/// The decimal logarithm, rounded down, at least 1.
fn log10(limit: usize) -> usize {
    usize::try_from(limit.checked_ilog10().unwrap_or(0)).unwrap_or(0).max(1)
}

/// A share of the limit, rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of it, between 0 and 1, fits"
)]
fn scaled(limit: usize, share: f64) -> usize {
    (limit as f64 * share) as usize
}

/// A share of the limit, rounded up.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of it, between 0 and 1, fits"
)]
fn scaled_up(limit: usize, share: f64) -> usize {
    (limit as f64 * share).ceil() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime::from_nanos(millis * 1_000_000)
    }

    fn sample(began: u64, latency: u64, in_flight: usize, dropped: bool) -> Sample {
        Sample { began: at(began), latency: Duration::from_millis(latency), in_flight, dropped }
    }

    #[test]
    fn aimd_adds_one_for_a_good_answer_and_takes_a_tenth_for_a_bad_one() {
        let mut limit = Limit::new(Algorithm::AIMD, 20, 5, 200);
        assert_eq!(limit.observe(&sample(0, 10, 20, false), at(10)), 21);
        // Nobody needs more.
        assert_eq!(limit.observe(&sample(0, 10, 3, false), at(10)), 21);
        assert_eq!(limit.observe(&sample(0, 10, 20, true), at(10)), 18);
        // Slower than the timeout is a drop.
        assert_eq!(limit.observe(&sample(10, 5_001, 20, false), at(5_011)), 16);
    }

    #[test]
    fn calls_that_were_dropped_together_decrease_once() {
        let mut limit = Limit::new(Algorithm::AIMD, 100, 5, 200);
        for _ in 0..20 {
            limit.observe(&sample(0, 10, 100, true), at(10));
        }
        assert_eq!(limit.limit(), 90);
        assert_eq!(limit.observe(&sample(10, 10, 100, true), at(20)), 81);
    }

    #[test]
    fn vegas_grows_while_there_is_no_queue_and_shrinks_when_it_grows_long() {
        let mut limit = Limit::new(Algorithm::VEGAS, 20, 1, 1000);
        assert_eq!(limit.observe(&sample(0, 100, 20, false), at(100)), 26);
        assert_eq!(limit.baseline(), Some(Duration::from_millis(100)));
        // 26 × (1 − 100/110) = 2.4: three calls wait; from 3 to 6 is right.
        assert_eq!(limit.observe(&sample(0, 110, 26, false), at(110)), 26);
        // Half of the latency is queue.
        assert_eq!(limit.observe(&sample(100, 200, 26, false), at(300)), 25);
        assert_eq!(limit.observe(&sample(300, 200, 26, false), at(500)), 24);
    }

    #[test]
    fn vegas_finds_a_service_that_has_become_slower_for_good() {
        let mut limit = Limit::new(Algorithm::Vegas { probe_multiplier: 1 }, 20, 20, 20);
        limit.observe(&sample(0, 10, 1, false), at(10));
        for call in 0..20 {
            limit.observe(&sample(call * 50, 50, 1, false), at(call * 50 + 50));
        }
        assert_eq!(limit.baseline(), Some(Duration::from_millis(50)));
    }

    /// A service with so many places: answers take 10 ms, and longer in proportion to those that wait.
    fn settles_at(algorithm: Algorithm, places: usize) -> usize {
        let mut limit = Limit::new(algorithm, 20, 1, 1000);
        let mut now = 0;
        for _ in 0..3_000 {
            let load = limit.limit();
            let latency = if load <= places { 10 } else { (10 * load / places) as u64 };
            now += latency;
            limit.observe(&sample(now - latency, latency, load, load > places * 2), at(now));
        }
        limit.limit()
    }

    #[test]
    fn both_find_a_service_with_fifty_places() {
        let vegas = settles_at(Algorithm::VEGAS, 50);
        assert!((45..=65).contains(&vegas), "{vegas}");
        let aimd = settles_at(Algorithm::AIMD, 50);
        assert!((80..=101).contains(&aimd), "{aimd}");
    }

    proptest! {
        #[test]
        fn the_limit_stays_in_its_bounds_whatever_is_observed(
            vegas in any::<bool>(), ratio in any::<f64>(), initial in any::<usize>(), min in any::<usize>(), max in any::<usize>(),
            samples in prop::collection::vec((any::<u64>(), any::<Duration>(), any::<usize>(), any::<bool>()), 0..100),
        ) {
            let algorithm = if vegas {
                Algorithm::VEGAS
            } else {
                Algorithm::Aimd { backoff_ratio: ratio, timeout: Duration::from_secs(1) }
            };
            let mut limit = Limit::new(algorithm, initial, min, max);
            for (began, latency, in_flight, dropped) in samples {
                let began = MonotonicTime::from_nanos(began);
                let now = began.after(latency);
                let new = limit.observe(&Sample { began, latency, in_flight, dropped }, now);
                prop_assert!(new >= min.max(1) && new <= max.max(min).max(1));
            }
        }
    }
}

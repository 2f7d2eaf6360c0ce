//! The rate of change of a series: the few earlier readings that it takes.
//!
//! The rate is taken against the newest reading that is at least `window` older (and at any rate older) than the one
//! at hand: over a window of zero, against the reading before. Sparse readings therefore widen the span instead of
//! blinding the rule. Of the readings within a window only every sixteenth part of it is kept, so that at most
//! [`MAX_SAMPLES`] are held, and the span is at most a sixteenth (or one sampling interval) longer than asked.

use std::collections::VecDeque;
use std::time::Duration;

use farol_event::Timestamp;

/// How many readings one rule keeps of one series.
pub(crate) const MAX_SAMPLES: usize = 20;
/// Into how many parts a window is cut.
const PARTS: u32 = 16;

/// A reading that later ones are compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub at: Timestamp,
    pub value: f64,
    pub offset: i64,
}

/// The readings kept for one rule and series, oldest first, with distinct times.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Samples(pub VecDeque<Sample>);

impl Samples {
    /// The reading to compare `at` with, if there is one that is old enough.
    pub fn base(&self, at: Timestamp, window: Duration) -> Option<Sample> {
        let newest_base = at.saturating_sub(window.max(Duration::from_micros(1)));
        self.0.iter().rev().find(|sample| sample.at <= newest_base).copied()
    }

    /// Keeps `new` if later readings may need it, and drops what none can need.
    pub fn keep(&mut self, new: Sample, window: Duration) {
        let step = (window / PARTS).max(Duration::from_micros(1));
        match self.0.back_mut() {
            Some(last) if last.at == new.at => *last = new,
            Some(last) if new.at < last.at.saturating_add(step) => {}
            _ => self.0.push_back(new),
        }
        // The second oldest serves every later reading as well as the oldest, once it is old enough for this one.
        let newest_base = new.at.saturating_sub(window.max(Duration::from_micros(1)));
        while self.0.get(1).is_some_and(|second| second.at <= newest_base) || self.0.len() > MAX_SAMPLES {
            self.0.pop_front();
        }
    }
}

/// How fast the value changed from `base` to `value` at `at`, per `per`. `at` is later than the base.
pub(crate) fn rate(base: &Sample, value: f64, at: Timestamp, per: Duration) -> f64 {
    let change = (value - base.value) * per.as_secs_f64();
    // A change beyond the largest float counts as the largest.
    (change / at.since(base.at).as_secs_f64()).clamp(f64::MIN, f64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    #[test]
    fn without_a_window_the_reading_before_is_the_base() {
        let mut samples = Samples::default();
        for (second, value) in [(0, 1.0), (10, 2.0), (10, 3.0)] {
            samples.keep(Sample { at: at(second), value, offset: second }, Duration::ZERO);
        }
        assert_eq!(samples.base(at(10), Duration::ZERO).unwrap().value, 1.0);
        let base = samples.base(at(20), Duration::ZERO).unwrap();
        assert_eq!(base.value, 3.0);
        assert_eq!(rate(&base, 8.0, at(20), Duration::from_secs(60)), 30.0);
    }

    proptest! {
        #[test]
        fn the_base_is_old_enough_and_not_much_older_than_need_be(
            steps in prop::collection::vec(0i64..30, 1..200),
            window_s in 0u64..200,
        ) {
            let window = Duration::from_secs(window_s);
            let mut samples = Samples::default();
            let mut all: Vec<i64> = Vec::new();
            let mut now = 0;
            for step in steps {
                now += step;
                let shortest = i64::try_from(window_s).unwrap().max(1);
                let best = all.iter().rev().find(|t| now - **t >= shortest);
                let base = samples.base(at(now), window);
                prop_assert_eq!(base.is_some(), best.is_some());
                if let (Some(base), Some(best)) = (base, best) {
                    prop_assert!(base.at <= at(*best));
                    let slack = window / PARTS + Duration::from_secs(30);
                    prop_assert!(at(*best).since(base.at) <= slack, "{:?} instead of {best} at {now}", base.at);
                }
                all.push(now);
                samples.keep(Sample { at: at(now), value: 0.0, offset: now }, window);
                prop_assert!(samples.0.len() <= MAX_SAMPLES);
            }
        }

        #[test]
        fn a_rate_is_always_a_finite_number(a in any::<f64>(), b in any::<f64>(), micros in 1i64..i64::MAX / 1_000_000) {
            prop_assume!(a.is_finite() && b.is_finite());
            let base = Sample { at: at(0), value: a, offset: 0 };
            let later = Timestamp::from_millis_clamped(micros).max(Timestamp::from_micros(1).unwrap());
            prop_assert!(rate(&base, b, later, Duration::from_secs(60)).is_finite());
        }
    }
}

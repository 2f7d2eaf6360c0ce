//! How long to wait before a retry: exponential growth up to a maximum, and jitter that keeps callers apart.
//!
//! A pure function of the retry's number, the delay before, and a random number. The four kinds of jitter are those of
//! Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

use std::fmt;
use std::time::Duration;

use crate::random::fraction;

/// How a delay is spread, so that callers that failed together don't come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Jitter {
    /// Not at all: the delay is `ceiling`, always. For tests, and for callers that are alone.
    None,
    /// Anything from zero to `ceiling`: the least work for the service, and the default.
    #[default]
    Full,
    /// Half of `ceiling` for certain, the other half spread: never comes back at once.
    Equal,
    /// From the initial delay to three times the delay before, at most the maximum: grows by chance instead of by number.
    Decorrelated,
}

impl Jitter {
    /// `none`, `full`…
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Equal => "equal",
            Self::Decorrelated => "decorrelated",
        }
    }
}

impl fmt::Display for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Delays that grow: `initial`, times `multiplier` with each retry, at most `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The delay before the first retry, before jitter.
    pub initial: Duration,
    /// What each delay grows by. Less than 1, or not a number, counts as 1: delays don't shrink.
    pub multiplier: f64,
    /// No delay is longer.
    pub max: Duration,
    /// How delays are spread.
    pub jitter: Jitter,
}

impl Default for Backoff {
    /// 100 ms, doubled, at most 5 s, full jitter.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            multiplier: 2.0,
            max: Duration::from_secs(5),
            jitter: Jitter::Full,
        }
    }
}

impl Backoff {
    /// The delay before retry number `retry` (the first is 1) without jitter; with jitter `Full` or `Equal`, the longest.
    pub fn ceiling(&self, retry: u32) -> Duration {
        if self.initial.is_zero() {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        // `f64::max` gives 1 if the multiplier is not a number.
        let factor = self.multiplier.max(1.0).powi(exponent);
        self.scaled(self.initial, factor)
    }

    /// The delay before retry number `retry`; `previous` is the delay before the last one, if there was one.
    pub fn delay(&self, retry: u32, previous: Option<Duration>, random: u64) -> Duration {
        let ceiling = self.ceiling(retry);
        match self.jitter {
            Jitter::None => ceiling,
            Jitter::Full => part(ceiling, random),
            Jitter::Equal => {
                let half = ceiling / 2;
                half + part(ceiling - half, random)
            }
            Jitter::Decorrelated => {
                let lowest = self.initial.min(self.max);
                let highest = previous.unwrap_or(lowest).saturating_mul(3).clamp(lowest, self.max);
                lowest + part(highest - lowest, random)
            }
        }
    }

    /// A duration times a factor that is not negative, at most `max`; what doesn't fit a `Duration` is `max` as well.
    fn scaled(&self, duration: Duration, factor: f64) -> Duration {
        Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(self.max).min(self.max)
    }
}

/// A random part of a duration: at least nothing, at most all of it.
pub(super) fn part(duration: Duration, random: u64) -> Duration {
    let part = duration.as_secs_f64() * fraction(random);
    // Of very long durations a double holds only the beginning, and may round up.
    Duration::try_from_secs_f64(part).unwrap_or(duration).min(duration)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn backoff(jitter: Jitter) -> Backoff {
        Backoff { jitter, ..Backoff::default() }
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let delays: Vec<_> = (1..=8).map(|retry| backoff(Jitter::None).delay(retry, None, 7)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000].map(ms));
    }

    #[test]
    fn jitter_spreads_each_in_its_own_bounds() {
        let lowest = |jitter| backoff(jitter).delay(3, Some(ms(300)), 0);
        let highest = |jitter| backoff(jitter).delay(3, Some(ms(300)), u64::MAX);
        let near =
            |delay: Duration, millis| delay > ms(millis) - Duration::from_micros(1) && delay <= ms(millis);
        assert_eq!(lowest(Jitter::Full), Duration::ZERO);
        assert!(near(highest(Jitter::Full), 400));
        assert_eq!(lowest(Jitter::Equal), ms(200));
        assert!(near(highest(Jitter::Equal), 400));
        assert_eq!(lowest(Jitter::Decorrelated), ms(100));
        assert!(near(highest(Jitter::Decorrelated), 900));
    }

    #[test]
    fn settings_without_sense_still_give_delays() {
        let strange = Backoff { initial: ms(10), multiplier: f64::NAN, max: ms(50), jitter: Jitter::None };
        assert_eq!(strange.delay(9, None, 0), ms(10));
        let shrinking = Backoff { multiplier: -3.0, ..strange };
        assert_eq!(shrinking.delay(9, None, 0), ms(10));
        let endless = Backoff { multiplier: f64::INFINITY, ..strange };
        assert_eq!(endless.delay(2, None, 0), ms(50));
        let none = Backoff { initial: Duration::ZERO, ..endless };
        assert_eq!(none.delay(2, None, 0), Duration::ZERO);
    }

    prop_compose! {
        fn any_backoff()(
            initial in any::<Duration>(), multiplier in any::<f64>(), max in any::<Duration>(),
            jitter in prop::sample::select(&[Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated][..]),
        ) -> Backoff {
            Backoff { initial, multiplier, max, jitter }
        }
    }

    proptest! {
        #[test]
        fn no_setting_and_no_chance_leads_out_of_the_bounds(
            backoff in any_backoff(), retry in any::<u32>(), previous in any::<Option<Duration>>(), random in any::<u64>(),
        ) {
            let delay = backoff.delay(retry, previous, random);
            prop_assert!(delay <= backoff.max);
            match backoff.jitter {
                Jitter::None => prop_assert_eq!(delay, backoff.ceiling(retry)),
                Jitter::Full => prop_assert!(delay <= backoff.ceiling(retry)),
                Jitter::Equal => {
                    prop_assert!(delay >= backoff.ceiling(retry) / 2 && delay <= backoff.ceiling(retry));
                }
                Jitter::Decorrelated => prop_assert!(delay >= backoff.initial.min(backoff.max)),
            }
        }

        #[test]
        fn the_ceiling_never_falls(backoff in any_backoff(), retry in 1..100u32) {
            prop_assert!(backoff.ceiling(retry) <= backoff.ceiling(retry + 1));
        }
    }
}

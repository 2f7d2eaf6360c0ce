//! How a breaker is set up.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::CircuitBreaker;
use super::shared::Shared;
use super::state::{OpenTimes, Rules};
use super::window::{CallWindow, Limits, TimeWindow, Window};
use crate::classify::AnyError;
use crate::clock::{SharedClock, SystemClock};

/// The longest window of calls.
pub const MAX_WINDOW_CALLS: usize = 65_536;

/// The shortest window of time: slices of it shorter than a millisecond would say nothing.
pub const MIN_WINDOW_TIME: Duration = Duration::from_millis(10);

/// A rate over a window counts from this many calls on, if nobody says otherwise.
pub const DEFAULT_MINIMUM_CALLS: u32 = 10;

/// The window of a rate, if nobody says otherwise.
pub const DEFAULT_WINDOW_CALLS: usize = 100;

/// A threshold this far from the kernel's tick is measured by the coarse clock.
const COARSE_FROM: Duration = Duration::from_millis(500);

/// Why a breaker can't be built as it was described.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum InvalidSettings {
    /// This must be more than zero.
    Zero {
        /// The builder's method.
        setting: &'static str,
    },
    /// This must lie within bounds.
    OutOfBounds {
        /// The builder's method.
        setting: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero { setting } => write!(f, "circuit breaker: {setting} must be more than zero"),
            Self::OutOfBounds { setting, value, allowed } => {
                write!(f, "circuit breaker: {setting} is {value}, but must be {allowed}")
            }
        }
    }
}

impl std::error::Error for InvalidSettings {}

#[derive(Debug, Clone, Copy)]
enum WindowSize {
    Calls(usize),
    Time(Duration),
}

/// Describes a breaker. What isn't said is as in the table of [`CircuitBreaker`].
#[derive(Clone)]
#[must_use = "a description; `build` makes the breaker"]
pub struct CircuitBreakerBuilder {
    name: String,
    consecutive_failures: Option<u32>,
    failure_rate: Option<f64>,
    slow_calls: Option<(Duration, f64)>,
    window: WindowSize,
    minimum_calls: Option<u32>,
    open_for: Duration,
    open_growth: f64,
    open_longest: Duration,
    open_jitter: f64,
    probes: u16,
    successes_to_close: u16,
    half_open_limit: Option<Duration>,
    cancelled_fails: bool,
    clock: Option<SharedClock>,
    seed: Option<u64>,
}

impl CircuitBreakerBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            consecutive_failures: None,
            failure_rate: None,
            slow_calls: None,
            window: WindowSize::Calls(DEFAULT_WINDOW_CALLS),
            minimum_calls: None,
            open_for: super::DEFAULT_OPEN_FOR,
            open_growth: 1.0,
            open_longest: Duration::from_secs(3600),
            open_jitter: 0.0,
            probes: 1,
            successes_to_close: 1,
            half_open_limit: Some(super::DEFAULT_HALF_OPEN_LIMIT),
            cancelled_fails: false,
            clock: None,
            seed: None,
        }
    }

    /// Opens after this many failures without a success in between.
    ///
    /// In force with [`DEFAULT_CONSECUTIVE_FAILURES`](super::DEFAULT_CONSECUTIVE_FAILURES) unless a rate is asked for;
    /// asked for together with a rate, either opens the breaker. It sees an outage at once, however many calls went
    /// well before, but never a service that fails every other call; a rate sees that one, but an outage only when the
    /// window has filled with it.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = Some(failures);
        self
    }

    /// Opens when this part of the calls in the window failed: 0.5 is half of them.
    pub fn failure_rate(mut self, rate: f64) -> Self {
        self.failure_rate = Some(rate);
        self
    }

    /// Opens when this part of the calls in the window took `threshold` or longer, and fails slow probes.
    ///
    /// Thresholds from half a second on are measured to a few milliseconds.
    pub fn slow_calls(mut self, threshold: Duration, rate: f64) -> Self {
        self.slow_calls = Some((threshold, rate));
        self
    }

    /// Rates are of the last so many calls, at most [`MAX_WINDOW_CALLS`].
    pub fn window_of_calls(mut self, calls: usize) -> Self {
        self.window = WindowSize::Calls(calls);
        self
    }

    /// Rates are of the calls that ended within this time, at least [`MIN_WINDOW_TIME`].
    pub fn window_of_time(mut self, time: Duration) -> Self {
        self.window = WindowSize::Time(time);
        self
    }

    /// Rates of fewer calls say nothing. Without it, ten, or as many as the window has if those are fewer.
    pub fn minimum_calls(mut self, calls: u32) -> Self {
        self.minimum_calls = Some(calls);
        self
    }

    /// How long the breaker stays open before it lets a probe through.
    pub fn open_for(mut self, time: Duration) -> Self {
        self.open_for = time;
        self
    }

    /// Each time that the breaker opens again without having closed, it stays open `factor` times as long as the last
    /// time, up to `longest`.
    pub fn open_growth(mut self, factor: f64, longest: Duration) -> Self {
        self.open_growth = factor;
        self.open_longest = longest;
        self
    }

    /// Stays open up to this part longer, at random: many callers' breakers then don't probe at the same moment.
    pub fn open_jitter(mut self, part: f64) -> Self {
        self.open_jitter = part;
        self
    }

    /// How many probes may be under way at once while the breaker is half-open.
    pub fn probes(mut self, probes: u16) -> Self {
        self.probes = probes;
        self
    }

    /// How many probes must succeed, none failing, before the breaker closes.
    pub fn successes_to_close(mut self, successes: u16) -> Self {
        self.successes_to_close = successes;
        self
    }

    /// When probes have been under way for this long and none has brought a verdict, the next call finds the breaker open again:
    /// they hang. `None` waits for ever.
    pub fn half_open_limit(mut self, limit: Option<Duration>) -> Self {
        self.half_open_limit = limit;
        self
    }

    /// A call that is given up (its future or permit dropped) counts as failed. Without this it counts as nothing.
    ///
    /// Wanted if a timeout stands outside the breaker; better is to place the timeout inside, where it is an error.
    pub fn cancelled_calls_fail(mut self) -> Self {
        self.cancelled_fails = true;
        self
    }

    /// The clock; without this it is the system's.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// What the jitter follows from; without this it is random.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the breaker, closed.
    pub fn build(self) -> Result<CircuitBreaker, InvalidSettings> {
        self.check()?;
        let rated = self.failure_rate.is_some() || self.slow_calls.is_some();
        let consecutive_failures = match self.consecutive_failures {
            None if !rated => Some(super::DEFAULT_CONSECUTIVE_FAILURES),
            chosen => chosen,
        };
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(&self.name));
        let rules = Rules {
            consecutive_failures,
            open: OpenTimes::new(self.open_for, self.open_growth, self.open_longest, self.open_jitter, seed),
            probes: self.probes,
            successes_to_close: self.successes_to_close,
            half_open_limit: self.half_open_limit,
            slow_probes_fail: self.slow_calls.is_some(),
            cancelled_fails: self.cancelled_fails,
        };
        let limits = Limits {
            minimum_calls: u64::from(self.calls_needed()),
            failure_rate: self.failure_rate,
            slow_rate: self.slow_calls.map(|(_, rate)| rate),
        };
        let window = rated.then(|| match self.window {
            WindowSize::Calls(calls) => Window::Calls(CallWindow::new(calls)),
            WindowSize::Time(time) => Window::Time(TimeWindow::new(time)),
        });
        let description = self.describe(consecutive_failures, rated);
        let slow = self.slow_calls.map(|(threshold, _)| threshold);
        Ok(CircuitBreaker::from_parts(
            Shared::new(
                self.name,
                rules,
                window.map(|window| (window, limits)),
                slow.map(|threshold| (threshold, threshold >= COARSE_FROM)),
                self.clock.unwrap_or_else(SystemClock::shared),
                description,
            ),
            AnyError,
        ))
    }

    fn check(&self) -> Result<(), InvalidSettings> {
        let zeros = [
            ("consecutive_failures", self.consecutive_failures == Some(0)),
            ("minimum_calls", self.minimum_calls == Some(0)),
            ("open_for", self.open_for.is_zero()),
            ("probes", self.probes == 0),
            ("successes_to_close", self.successes_to_close == 0),
            ("half_open_limit", self.half_open_limit.is_some_and(|limit| limit.is_zero())),
            ("slow_calls", self.slow_calls.is_some_and(|(threshold, _)| threshold.is_zero())),
        ];
        if let Some((setting, _)) = zeros.into_iter().find(|(_, zero)| *zero) {
            return Err(InvalidSettings::Zero { setting });
        }
        let out_of_bounds =
            |setting, value: String, allowed| Err(InvalidSettings::OutOfBounds { setting, value, allowed });
        let rates =
            [("failure_rate", self.failure_rate), ("slow_calls", self.slow_calls.map(|(_, rate)| rate))];
        for (setting, rate) in rates {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && *rate <= 1.0)) {
                return out_of_bounds(setting, rate.to_string(), "more than 0 and at most 1");
            }
        }
        match self.window {
            WindowSize::Calls(calls) if calls == 0 || calls > MAX_WINDOW_CALLS => {
                return out_of_bounds("window_of_calls", calls.to_string(), "1 to 65536");
            }
            WindowSize::Calls(calls) if calls < self.calls_needed() as usize && self.window_is_used() => {
                return out_of_bounds("minimum_calls", self.calls_needed().to_string(), "at most the window");
            }
            WindowSize::Time(time) if time < MIN_WINDOW_TIME => {
                return out_of_bounds("window_of_time", format!("{time:?}"), "10ms or longer");
            }
            _ => {}
        }
        if !(self.open_growth >= 1.0 && self.open_growth <= 100.0) {
            return out_of_bounds("open_growth", self.open_growth.to_string(), "1 to 100");
        }
        if !(0.0..=1.0).contains(&self.open_jitter) {
            return out_of_bounds("open_jitter", self.open_jitter.to_string(), "0 to 1");
        }
        Ok(())
    }

    fn calls_needed(&self) -> u32 {
        self.minimum_calls.unwrap_or(match self.window {
            WindowSize::Calls(calls) => u32::try_from(calls).unwrap_or(u32::MAX).min(DEFAULT_MINIMUM_CALLS),
            WindowSize::Time(_) => DEFAULT_MINIMUM_CALLS,
        })
    }

    fn window_is_used(&self) -> bool {
        self.failure_rate.is_some() || self.slow_calls.is_some()
    }

    /// The settings as people read them.
    fn describe(&self, consecutive_failures: Option<u32>, rated: bool) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let Some(failures) = consecutive_failures {
            settings.push(("consecutive_failures", failures.to_string()));
        }
        if let Some(rate) = self.failure_rate {
            settings.push(("failure_rate", rate.to_string()));
        }
        if let Some((threshold, rate)) = self.slow_calls {
            settings.push(("slow_call_threshold", format!("{threshold:?}")));
            settings.push(("slow_call_rate", rate.to_string()));
        }
        if rated {
            let window = match self.window {
                WindowSize::Calls(calls) => format!("{calls} calls"),
                WindowSize::Time(time) => format!("{time:?}"),
            };
            settings.push(("window", window));
            settings.push(("minimum_calls", self.calls_needed().to_string()));
        }
        settings.push(("open_for", format!("{:?}", self.open_for)));
        if self.open_growth > 1.0 {
            settings.push(("open_growth", self.open_growth.to_string()));
            settings.push(("open_longest", format!("{:?}", self.open_longest)));
        }
        if self.open_jitter > 0.0 {
            settings.push(("open_jitter", self.open_jitter.to_string()));
        }
        settings.push(("probes", self.probes.to_string()));
        settings.push(("successes_to_close", self.successes_to_close.to_string()));
        if let Some(limit) = self.half_open_limit {
            settings.push(("half_open_limit", format!("{limit:?}")));
        }
        settings
            .push(("cancelled_calls", if self.cancelled_fails { "fail" } else { "count as nothing" }.into()));
        settings
    }
}

impl fmt::Debug for CircuitBreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: CircuitBreakerBuilder) -> String {
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_setting_named() {
        let builder = || CircuitBreaker::builder("a");
        for (wrong, said) in [
            (
                builder().consecutive_failures(0),
                "circuit breaker: consecutive_failures must be more than zero",
            ),
            (builder().open_for(Duration::ZERO), "circuit breaker: open_for must be more than zero"),
            (builder().probes(0), "circuit breaker: probes must be more than zero"),
            (
                builder().failure_rate(1.5),
                "circuit breaker: failure_rate is 1.5, but must be more than 0 and at most 1",
            ),
            (
                builder().failure_rate(f64::NAN),
                "circuit breaker: failure_rate is NaN, but must be more than 0 and at most 1",
            ),
            (
                builder().window_of_calls(100_000),
                "circuit breaker: window_of_calls is 100000, but must be 1 to 65536",
            ),
            (
                builder().failure_rate(0.5).window_of_calls(5).minimum_calls(10),
                "circuit breaker: minimum_calls is 10, but must be at most the window",
            ),
            (
                builder().window_of_time(Duration::from_millis(1)),
                "circuit breaker: window_of_time is 1ms, but must be 10ms or longer",
            ),
            (
                builder().open_growth(0.5, Duration::MAX),
                "circuit breaker: open_growth is 0.5, but must be 1 to 100",
            ),
            (builder().open_jitter(-0.1), "circuit breaker: open_jitter is -0.1, but must be 0 to 1"),
        ] {
            assert_eq!(refused(wrong), said);
        }
    }

    #[test]
    fn a_rate_takes_the_place_of_consecutive_failures_unless_both_are_asked_for() {
        let settings = |builder: CircuitBreakerBuilder| builder.build().unwrap().snapshot().settings;
        let default = settings(CircuitBreaker::builder("a"));
        assert_eq!(default.get("consecutive_failures").map(String::as_str), Some("5"));
        let rate = settings(CircuitBreaker::builder("a").failure_rate(0.5));
        assert_eq!(rate.get("consecutive_failures"), None);
        assert_eq!(rate.get("window").map(String::as_str), Some("100 calls"));
        let few = settings(CircuitBreaker::builder("a").failure_rate(0.5).window_of_calls(5));
        assert_eq!(few.get("minimum_calls").map(String::as_str), Some("5"));
        let both = settings(CircuitBreaker::builder("a").failure_rate(0.5).consecutive_failures(7));
        assert_eq!(both.get("consecutive_failures").map(String::as_str), Some("7"));
    }
}

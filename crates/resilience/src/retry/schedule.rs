//! Whether to try again, and when: a pure function of how the call has gone so far.
//!
//! **A pause that a server asks for** (`Retry-After`) is a floor under the backoff's delay: the next try begins no earlier than the
//! server asked for and no earlier than the backoff allows, so `Retry-After: 0` makes no caller hammer. What was asked for is
//! never cut short: whoever would come back earlier than told comes for nothing. Instead the call ends at once if the server asks
//! for more than [`Schedule::max_server_delay`], or for more time than [`Schedule::max_elapsed`] leaves. Unless jitter is off the
//! pause is lengthened by up to a tenth, so that callers that were told the same don't come back together.
//!
//! The reasons to stop, in the order in which they are asked for: all tries are used up; the server wants a longer pause
//! than the caller would wait; the retry would begin after the time for the whole call is up. Whether the result is one to
//! retry at all is asked before ([`super::RetryIf`]), whether the budget has a retry left is asked after.

use std::fmt;
use std::time::Duration;

use super::backoff::{Backoff, Jitter, part};

/// When to try again and when to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The delays.
    pub backoff: Backoff,
    /// How often the operation is tried at most, the first time included. 0 counts as 1; `u32::MAX` is no limit in practice.
    pub max_tries: u32,
    /// No retry begins later than this after the call began. A try under way is not cut off: that is a timeout's work.
    pub max_elapsed: Option<Duration>,
    /// The longest pause that a server may ask for; if it asks for a longer one, the call fails at once.
    pub max_server_delay: Duration,
}

impl Default for Schedule {
    /// 3 tries, 100 ms doubled up to 5 s with full jitter, no limit on time, at most 60 s if a server asks for a pause.
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            max_tries: 3,
            max_elapsed: None,
            max_server_delay: Duration::from_secs(60),
        }
    }
}

/// How a call has gone so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// How often the operation was tried; at least 1.
    pub tries: u32,
    /// Time since the call began.
    pub elapsed: Duration,
    /// The delay before the last retry, if there was one.
    pub previous_delay: Option<Duration>,
    /// How long a pause the server asked for with its last answer.
    pub server_delay: Option<Duration>,
}

/// Why there is no further try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// All tries are used up.
    NoTriesLeft,
    /// The next try would begin too late.
    NoTimeLeft,
    /// The server asked for a longer pause than the caller would wait.
    ServerDelayTooLong,
    /// The budget has no retry left.
    NoBudgetLeft,
}

impl Stop {
    /// `no_tries_left`…
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoTriesLeft => "no_tries_left",
            Self::NoTimeLeft => "no_time_left",
            Self::ServerDelayTooLong => "server_delay_too_long",
            Self::NoBudgetLeft => "no_budget_left",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Schedule {
    /// The delay before the next try, or why there is none.
    pub fn next(&self, progress: &Progress, random: u64) -> Result<Duration, Stop> {
        if progress.tries >= self.max_tries.max(1) {
            return Err(Stop::NoTriesLeft);
        }
        let own = self.backoff.delay(progress.tries, progress.previous_delay, random);
        self.no_earlier_than(own, progress.server_delay, progress.elapsed, random)
    }

    /// The delay before it is asked again whether a try may be made, after another policy refused one: what that policy said, but
    /// at least the backoff's initial delay. No try was made, so none is used up; it is the time that runs out.
    pub fn after_refusal(
        &self,
        retry_after: Option<Duration>,
        elapsed: Duration,
        random: u64,
    ) -> Result<Duration, Stop> {
        self.no_earlier_than(self.backoff.ceiling(1), retry_after, elapsed, random)
    }

    /// The own delay with the one that was asked for as its floor, if that is within all limits.
    fn no_earlier_than(
        &self,
        own: Duration,
        asked: Option<Duration>,
        elapsed: Duration,
        random: u64,
    ) -> Result<Duration, Stop> {
        let delay = match asked {
            Some(asked) if asked > self.max_server_delay => return Err(Stop::ServerDelayTooLong),
            Some(asked) => own.max(asked.saturating_add(self.spread(asked, random))),
            None => own,
        };
        match self.max_elapsed {
            Some(max) if elapsed.saturating_add(delay) > max => Err(Stop::NoTimeLeft),
            _ => Ok(delay),
        }
    }

    fn spread(&self, asked: Duration, random: u64) -> Duration {
        if self.backoff.jitter == Jitter::None {
            return Duration::ZERO;
        }
        part(asked / 10, random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule() -> Schedule {
        Schedule {
            backoff: Backoff { jitter: Jitter::None, ..Backoff::default() },
            max_elapsed: Some(Duration::from_secs(10)),
            ..Schedule::default()
        }
    }

    fn after(tries: u32) -> Progress {
        Progress { tries, ..Progress::default() }
    }

    #[test]
    fn three_tries_are_two_retries() {
        assert_eq!(schedule().next(&after(1), 0), Ok(Duration::from_millis(100)));
        assert_eq!(schedule().next(&after(2), 0), Ok(Duration::from_millis(200)));
        assert_eq!(schedule().next(&after(3), 0), Err(Stop::NoTriesLeft));
        let none = Schedule { max_tries: 0, ..schedule() };
        assert_eq!(none.next(&after(1), 0), Err(Stop::NoTriesLeft));
    }

    #[test]
    fn a_retry_that_would_begin_too_late_is_not_made() {
        let nearly = Progress { elapsed: Duration::from_millis(9_900), ..after(1) };
        assert_eq!(schedule().next(&nearly, 0), Ok(Duration::from_millis(100)));
        let late = Progress { elapsed: Duration::from_millis(9_901), ..after(1) };
        assert_eq!(schedule().next(&late, 0), Err(Stop::NoTimeLeft));
    }

    #[test]
    fn the_servers_pause_is_a_floor_under_the_backoff_and_is_never_cut_short() {
        let asked = |seconds| Progress { server_delay: Some(Duration::from_secs(seconds)), ..after(1) };
        assert_eq!(schedule().next(&asked(7), u64::MAX), Ok(Duration::from_secs(7)));
        assert_eq!(schedule().next(&asked(0), 0), Ok(Duration::from_millis(100)), "no reason to hammer");
        assert_eq!(schedule().next(&asked(61), 0), Err(Stop::ServerDelayTooLong));
        assert_eq!(schedule().next(&asked(11), 0), Err(Stop::NoTimeLeft));
        // Jitter never makes it shorter.
        let spread = Schedule { max_elapsed: None, ..Schedule::default() };
        assert_eq!(spread.next(&asked(10), 0), Ok(Duration::from_secs(10)));
        let latest = spread.next(&asked(10), u64::MAX).unwrap();
        assert!(latest > Duration::from_millis(10_999) && latest <= Duration::from_secs(11), "{latest:?}");
    }

    #[test]
    fn a_refusal_uses_up_time_and_no_tries() {
        let ask = |retry_after: Option<u64>, elapsed| {
            schedule().after_refusal(retry_after.map(Duration::from_secs), Duration::from_secs(elapsed), 0)
        };
        assert_eq!(ask(None, 0), Ok(Duration::from_millis(100)));
        assert_eq!(ask(Some(0), 0), Ok(Duration::from_millis(100)));
        assert_eq!(ask(Some(9), 0), Ok(Duration::from_secs(9)));
        assert_eq!(ask(Some(9), 2), Err(Stop::NoTimeLeft));
        assert_eq!(ask(Some(61), 0), Err(Stop::ServerDelayTooLong));
    }

    proptest! {
        #[test]
        fn a_delay_keeps_all_limits_whatever_the_settings(
            max_tries in any::<u32>(), tries in 1..u32::MAX, elapsed in any::<Duration>(), max_elapsed in any::<Option<Duration>>(),
            asked in any::<Option<Duration>>(), max_server_delay in any::<Duration>(), jitter in any::<bool>(), random in any::<u64>(),
        ) {
            let jitter = if jitter { Jitter::Full } else { Jitter::None };
            let schedule = Schedule {
                backoff: Backoff { jitter, ..Backoff::default() }, max_tries, max_elapsed, max_server_delay,
            };
            let progress = Progress { tries, elapsed, previous_delay: None, server_delay: asked };
            if let Ok(delay) = schedule.next(&progress, random) {
                prop_assert!(tries < max_tries);
                prop_assert!(max_elapsed.is_none_or(|max| elapsed.saturating_add(delay) <= max));
                let own = schedule.backoff.delay(tries, None, random);
                let floor = asked.unwrap_or_default();
                prop_assert!(floor <= max_server_delay || asked.is_none());
                prop_assert!(delay >= own.max(floor) && delay <= own.max(floor.saturating_add(floor / 10)));
            }
        }
    }
}

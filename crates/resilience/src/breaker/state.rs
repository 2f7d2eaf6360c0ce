//! The state machine, without time, threads and memory of its own: what a breaker does next follows from its state, what
//! happened, and the time.
//!
//! ```text
//!            enough failures                  time is up
//!   Closed ──────────────────► Open ────────────────────────► HalfOpen
//!     ▲                         ▲      a probe failed, or       │  │
//!     │                         └──── took longer than it may ──┘  │
//!     └────────────────── enough probes succeeded ─────────────────┘
//!
//!   by hand, from any state: ForcedOpen, Disabled, Closed
//! ```
//!
//! Each change of mode begins a new **period**. A call carries the period in which it was admitted, and its
//! outcome counts only in that one: what began before the breaker opened can't close it again, and a probe that was
//! given up can't free a place that isn't its own.

use std::fmt;
use std::time::Duration;

use crate::clock::MonotonicTime;
use crate::random::{self, Random, SplitMix64};

/// Bits of a period. It wraps after 16 million changes; a call under way for just that long would be taken for one of today.
pub(crate) const PERIOD_BITS: u32 = 24;

/// The most times that a breaker counts as opened again without having closed in between.
pub(crate) const MAX_OPENINGS: u8 = 31;

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum State {
    /// Lets them through and counts failures.
    Closed,
    /// Rejects them until its time is up.
    Open,
    /// Lets a few through as probes and rejects the others.
    HalfOpen,
    /// Rejects them until told otherwise.
    ForcedOpen,
    /// Lets them through whatever their outcome.
    Disabled,
}

impl State {
    /// `closed`, `open`, `half_open`, `forced_open`, `disabled`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }

    /// Every state's name, in order.
    pub const NAMES: &'static [&'static str] = &["closed", "open", "half_open", "forced_open", "disabled"];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A state with what it has to remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Closed {
        /// Failures since the last success.
        failures: u32,
    },
    Open,
    HalfOpen {
        /// Probes under way.
        probes: u16,
        /// Probes that succeeded.
        successes: u16,
    },
    ForcedOpen,
    Disabled,
}

/// All that a breaker remembers, but for when it entered its mode and the window of past outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Which mode this is, counted from the first; of [`PERIOD_BITS`].
    pub(crate) period: u32,
    /// How often the breaker opened since it was last closed, up to [`MAX_OPENINGS`].
    pub(crate) openings: u8,
    pub(crate) mode: Mode,
}

impl Memory {
    pub(crate) const NEW: Self = Self { period: 0, openings: 0, mode: Mode::Closed { failures: 0 } };

    #[inline]
    pub(crate) fn state(self) -> State {
        match self.mode {
            Mode::Closed { .. } => State::Closed,
            Mode::Open => State::Open,
            Mode::HalfOpen { .. } => State::HalfOpen,
            Mode::ForcedOpen => State::ForcedOpen,
            Mode::Disabled => State::Disabled,
        }
    }

    /// The same mode with something else remembered.
    fn with(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Another mode, and with it a new period.
    fn enter(self, mode: Mode, openings: u8) -> Self {
        let period = self.period.wrapping_add(1) & ((1 << PERIOD_BITS) - 1);
        Self { period, openings, mode }
    }

    fn open(self) -> Self {
        self.enter(Mode::Open, self.openings.saturating_add(1).min(MAX_OPENINGS))
    }
}

/// The number of a change that counts on for ever, from the wrapping period and the newest number known.
pub(crate) fn sequence(newest: u64, period: u32) -> u64 {
    const SPAN: u64 = 1 << PERIOD_BITS;
    let ahead = u64::from(period).wrapping_sub(newest) % SPAN;
    // More than half a lap ahead is a little behind: another thread has reported a later change first.
    if ahead > SPAN / 2 { newest.saturating_sub(SPAN - ahead) } else { newest.saturating_add(ahead) }
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cause {
    ConsecutiveFailures(u32),
    FailureRate { failed: u64, total: u64 },
    SlowCallRate { slow: u64, total: u64 },
    TimeIsUp,
    ProbeFailed,
    ProbeSlow,
    ProbesSucceeded(u16),
    ProbesOverdue,
    ByHand,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsecutiveFailures(count) => write!(f, "{count} consecutive failures"),
            Self::FailureRate { failed, total } => write!(f, "{failed} of the last {total} calls failed"),
            Self::SlowCallRate { slow, total } => write!(f, "{slow} of the last {total} calls were slow"),
            Self::TimeIsUp => f.write_str("the time to stay open is up"),
            Self::ProbeFailed => f.write_str("a probe failed"),
            Self::ProbeSlow => f.write_str("a probe was slow"),
            Self::ProbesSucceeded(1) => f.write_str("a probe succeeded"),
            Self::ProbesSucceeded(count) => write!(f, "{count} probes succeeded"),
            Self::ProbesOverdue => f.write_str("the probes brought no verdict in time"),
            Self::ByHand => f.write_str("by hand"),
        }
    }
}

/// How long a breaker stays open.
#[derive(Debug, Clone)]
pub(crate) struct OpenTimes {
    /// Nanoseconds by opening: the first, the second without having closed in between…
    by_opening: [u64; MAX_OPENINGS as usize],
    /// How much longer it may be, as a part of it.
    jitter: f64,
    /// Makes the jitter of one breaker differ from another's.
    seed: u64,
}

impl OpenTimes {
    pub(crate) fn new(first: Duration, growth: f64, longest: Duration, jitter: f64, seed: u64) -> Self {
        let mut by_opening = [0; MAX_OPENINGS as usize];
        let mut next = first.as_secs_f64();
        for time in &mut by_opening {
            // From the float only when it has grown: the first time is exactly what was asked for.
            let grown = Duration::try_from_secs_f64(next).unwrap_or(Duration::MAX);
            let duration = if next <= first.as_secs_f64() { first } else { grown.min(longest).max(first) };
            *time = crate::clock::nanos(duration);
            next *= growth;
        }
        Self { by_opening, jitter, seed }
    }

    /// When a breaker that has opened for the n-th time, at `since`, lets a probe through.
    #[inline]
    pub(crate) fn until(&self, memory: Memory, since: MonotonicTime) -> MonotonicTime {
        let index = usize::from(memory.openings.saturating_sub(1));
        let mut nanos = self.by_opening.get(index).copied().unwrap_or(u64::MAX);
        if self.jitter > 0.0 {
            nanos = nanos.saturating_add(self.extra(nanos, memory.period));
        }
        since.after(Duration::from_nanos(nanos))
    }

    /// The jitter of one period: random, but the same whenever it is asked for.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a part of a positive time, and casts saturate"
    )]
    fn extra(&self, nanos: u64, period: u32) -> u64 {
        let part = random::fraction(SplitMix64::seeded(self.seed ^ u64::from(period)).next());
        (nanos as f64 * self.jitter * part) as u64
    }
}

/// What the state machine goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Failures in a row that open the breaker.
    pub(crate) consecutive_failures: Option<u32>,
    pub(crate) open: OpenTimes,
    /// Probes under way at once, at least 1.
    pub(crate) probes: u16,
    /// Probes that must succeed, at least 1.
    pub(crate) successes_to_close: u16,
    /// How long the breaker waits half-open for a verdict.
    pub(crate) half_open_limit: Option<Duration>,
    /// Whether a slow probe is as bad as one that failed.
    pub(crate) slow_probes_fail: bool,
    /// Whether a call that was given up counts as failed.
    pub(crate) cancelled_fails: bool,
}

/// What a breaker answers to a call that wants in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Admission {
    /// Come in; nothing to remember.
    Admit,
    /// Come in as a probe, if the breaker then remembers this.
    Probe { then: Memory, cause: Option<Cause> },
    /// Stay out; the next probe is let through at that time, if it is known.
    Reject { until: Option<MonotonicTime> },
    /// Stay out, and the breaker then remembers this.
    RejectAnd { then: Memory, cause: Cause },
}

/// A call wants in. `since` is when the breaker opened, or since when it waits half-open for a verdict ([`waits_anew`]).
pub(crate) fn admit(rules: &Rules, memory: Memory, since: MonotonicTime, now: MonotonicTime) -> Admission {
    match memory.mode {
        Mode::Closed { .. } | Mode::Disabled => Admission::Admit,
        Mode::ForcedOpen => Admission::Reject { until: None },
        Mode::Open => {
            let until = rules.open.until(memory, since);
            if now < until {
                return Admission::Reject { until: Some(until) };
            }
            let then = memory.enter(Mode::HalfOpen { probes: 1, successes: 0 }, memory.openings);
            Admission::Probe { then, cause: Some(Cause::TimeIsUp) }
        }
        Mode::HalfOpen { probes, successes } => {
            // Where no probe is under way none can hang: the next call is one, however late it comes.
            if probes > 0 && rules.half_open_limit.is_some_and(|limit| now.since(since) >= limit) {
                // The probes under way are of an old period then: whatever comes of them is too late.
                return Admission::RejectAnd { then: memory.open(), cause: Cause::ProbesOverdue };
            }
            if probes >= rules.probes {
                return Admission::Reject { until: None };
            }
            let then = memory.with(Mode::HalfOpen { probes: probes.saturating_add(1), successes });
            Admission::Probe { then, cause: None }
        }
    }
}

/// Whether a half-open breaker's wait for a verdict begins anew: it has just become so, the first probe of those under way begins, or
/// one has brought a verdict.
#[inline]
pub(crate) fn waits_anew(before: Memory, then: Memory) -> bool {
    match (before.mode, then.mode) {
        (Mode::HalfOpen { probes: 0, .. }, Mode::HalfOpen { probes, .. }) if probes > 0 => true,
        (Mode::HalfOpen { successes: before, .. }, Mode::HalfOpen { successes, .. }) => successes > before,
        (_, Mode::HalfOpen { .. }) => true,
        _ => false,
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// It was given up before its end.
    Cancelled,
    /// It ended, and says nothing about the service.
    Ignored,
}

/// A call has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// In which period it was admitted.
    pub(crate) period: u32,
    pub(crate) outcome: Outcome,
    pub(crate) slow: bool,
    /// The window of past outcomes, this one included, is bad enough to open the breaker.
    pub(crate) window: Option<Cause>,
}

impl Report {
    fn fails(self, rules: &Rules) -> bool {
        match self.outcome {
            Outcome::Failure => true,
            Outcome::Cancelled => rules.cancelled_fails,
            Outcome::Success | Outcome::Ignored => false,
        }
    }
}

/// What the breaker remembers after a call has ended; the cause if that is another mode.
#[inline]
pub(crate) fn settle(rules: &Rules, memory: Memory, report: Report) -> (Memory, Option<Cause>) {
    if report.period != memory.period {
        return (memory, None);
    }
    match memory.mode {
        Mode::Closed { failures } => settle_closed(rules, memory, failures, report),
        Mode::HalfOpen { probes, successes } => settle_probe(rules, memory, probes, successes, report),
        Mode::Open | Mode::ForcedOpen | Mode::Disabled => (memory, None),
    }
}

#[inline]
fn settle_closed(rules: &Rules, memory: Memory, failures: u32, report: Report) -> (Memory, Option<Cause>) {
    if report.fails(rules) {
        let failures = failures.saturating_add(1);
        if rules.consecutive_failures.is_some_and(|limit| failures >= limit) {
            return (memory.open(), Some(Cause::ConsecutiveFailures(failures)));
        }
        if report.window.is_some() {
            return (memory.open(), report.window);
        }
        return (memory.with(Mode::Closed { failures }), None);
    }
    if report.window.is_some() {
        return (memory.open(), report.window);
    }
    match report.outcome {
        Outcome::Success => (memory.with(Mode::Closed { failures: 0 }), None),
        _ => (memory, None),
    }
}

fn settle_probe(
    rules: &Rules,
    memory: Memory,
    probes: u16,
    successes: u16,
    report: Report,
) -> (Memory, Option<Cause>) {
    if report.fails(rules) {
        return (memory.open(), Some(Cause::ProbeFailed));
    }
    if report.slow && rules.slow_probes_fail && report.outcome != Outcome::Ignored {
        return (memory.open(), Some(Cause::ProbeSlow));
    }
    // The place is free again, whatever came of it.
    let probes = probes.saturating_sub(1);
    if report.outcome != Outcome::Success {
        return (memory.with(Mode::HalfOpen { probes, successes }), None);
    }
    let successes = successes.saturating_add(1);
    if successes >= rules.successes_to_close {
        let closed = memory.enter(Mode::Closed { failures: 0 }, 0);
        return (closed, Some(Cause::ProbesSucceeded(successes)));
    }
    (memory.with(Mode::HalfOpen { probes, successes }), None)
}

/// What one can tell a breaker to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Open,
    Close,
    /// Close, and forget all failures even if it is closed.
    Reset,
    Disable,
}

/// What the breaker remembers after a command; `None` if it is as told already.
pub(crate) fn command(memory: Memory, command: Command) -> Option<Memory> {
    let mode = match command {
        Command::Open => Mode::ForcedOpen,
        Command::Disable => Mode::Disabled,
        Command::Close | Command::Reset => Mode::Closed { failures: 0 },
    };
    let then = memory.enter(mode, 0);
    (command == Command::Reset || then.state() != memory.state()).then_some(then)
}

#[cfg(test)]
mod tests;

//! A breaker's memory in atomic words, changed by compare-and-swap: no lock, whoever holds it up.
//!
//! The first word holds the whole [`Memory`], so that a mode, its period and its counts can't be seen apart:
//!
//! ```text
//!   63   61 60        56 55             32 31            16 15            0
//!  ┌───────┬────────────┬─────────────────┬────────────────┬───────────────┐
//!  │ mode  │ openings   │ period          │ closed: failures                │
//!  │       │            │                 │ half-open: successes │ probes   │
//!  └───────┴────────────┴─────────────────┴────────────────┴───────────────┘
//! ```
//!
//! Two more hold when the breaker was last opened and since when it waits half-open for a verdict. They are raised before the first
//! word is swapped, and only ever raised: a thread that loses the swap leaves at worst a time that is a moment later than
//! the winner's, never an older one. They are two, because a thread that is about to make a breaker half-open must not make
//! it look freshly opened to a third.
//!
//! The words are generic so that the tests can run this very code under loom, which tries every interleaving.

use super::state::{self, Admission, Cause, Command, Memory, Mode, PERIOD_BITS, Report, Rules, State};
use crate::clock::MonotonicTime;
use crate::word::Word;

const MODE_SHIFT: u32 = 61;
const OPENINGS_SHIFT: u32 = 56;
const PERIOD_SHIFT: u32 = 32;

#[inline]
fn pack(memory: Memory) -> u64 {
    let (mode, counts) = match memory.mode {
        Mode::Closed { failures } => (0, u64::from(failures)),
        Mode::Open => (1, 0),
        Mode::HalfOpen { probes, successes } => (2, u64::from(successes) << 16 | u64::from(probes)),
        Mode::ForcedOpen => (3, 0),
        Mode::Disabled => (4, 0),
    };
    mode << MODE_SHIFT
        | u64::from(memory.openings) << OPENINGS_SHIFT
        | u64::from(memory.period) << PERIOD_SHIFT
        | counts
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the word apart, each part by its mask")]
fn unpack(word: u64) -> Memory {
    let mode = match word >> MODE_SHIFT {
        0 => Mode::Closed { failures: word as u32 },
        1 => Mode::Open,
        2 => Mode::HalfOpen { probes: word as u16, successes: (word >> 16) as u16 },
        3 => Mode::ForcedOpen,
        _ => Mode::Disabled,
    };
    Memory {
        period: (word >> PERIOD_SHIFT) as u32 & ((1 << PERIOD_BITS) - 1),
        openings: (word >> OPENINGS_SHIFT) as u8 & 0x1f,
        mode,
    }
}

/// A change of mode that this thread made, and that it must report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: Memory,
    pub(crate) cause: Cause,
}

/// How a call was received.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Entry {
    /// It may go on, in this period.
    Admitted { period: u32, change: Option<Change> },
    /// It may not; a probe is let through at that time, if it is known.
    Rejected { until: Option<MonotonicTime>, change: Option<Change> },
}

/// A breaker's memory, shared by threads.
#[derive(Debug)]
pub(crate) struct Cell<W> {
    word: W,
    opened: W,
    waiting: W,
}

impl<W: Word> Cell<W> {
    pub(crate) fn new() -> Self {
        Self { word: W::new(pack(Memory::NEW)), opened: W::new(0), waiting: W::new(0) }
    }

    #[inline]
    pub(crate) fn memory(&self) -> Memory {
        unpack(self.word.load())
    }

    /// When the breaker was opened, if it is open and not by hand.
    #[inline]
    pub(crate) fn open_since(&self) -> Option<(Memory, MonotonicTime)> {
        let memory = self.memory();
        (memory.mode == Mode::Open).then(|| (memory, self.since(State::Open)))
    }

    /// Since when the state lasts or waits, for those that end by time.
    #[inline]
    fn since(&self, state: State) -> MonotonicTime {
        MonotonicTime::from_nanos(match state {
            State::Open => self.opened.load(),
            State::HalfOpen => self.waiting.load(),
            State::Closed | State::ForcedOpen | State::Disabled => 0,
        })
    }

    /// Lets a call in or not, as the state machine says.
    pub(crate) fn admit(&self, rules: &Rules, now: MonotonicTime) -> Entry {
        let mut word = self.word.load();
        loop {
            let memory = unpack(word);
            let (then, cause) = match state::admit(rules, memory, self.since(memory.state()), now) {
                Admission::Admit => return Entry::Admitted { period: memory.period, change: None },
                Admission::Reject { until } => return Entry::Rejected { until, change: None },
                Admission::Probe { then, cause } => (then, cause),
                Admission::RejectAnd { then, cause } => (then, Some(cause)),
            };
            match self.swap(word, memory, then, cause, now) {
                Ok(change) if then.state() == State::HalfOpen => {
                    return Entry::Admitted { period: then.period, change };
                }
                Ok(change) => return Entry::Rejected { until: Some(rules.open.until(then, now)), change },
                Err(newer) => word = newer,
            }
        }
    }

    /// Takes note of how a call ended.
    #[inline(always)]
    pub(crate) fn settle(
        &self,
        rules: &Rules,
        report: Report,
        now: impl Fn() -> MonotonicTime,
    ) -> Option<Change> {
        let mut word = self.word.load();
        loop {
            let memory = unpack(word);
            let (then, cause) = state::settle(rules, memory, report);
            if then == memory {
                return None;
            }
            // The time is asked for only when it will be kept.
            let keeps_time = cause.is_some() || state::waits_anew(memory, then);
            let time = if keeps_time { now() } else { MonotonicTime::ZERO };
            match self.swap(word, memory, then, cause, time) {
                Ok(change) => return change,
                Err(newer) => word = newer,
            }
        }
    }

    /// Does as told. The change is `None` if it left the state as it was.
    pub(crate) fn command(&self, command: Command, now: MonotonicTime) -> Option<Change> {
        let mut word = self.word.load();
        loop {
            let memory = unpack(word);
            let then = state::command(memory, command)?;
            match self.swap(word, memory, then, Some(Cause::ByHand), now) {
                Ok(change) => return change,
                Err(newer) => word = newer,
            }
        }
    }

    fn swap(
        &self,
        word: u64,
        before: Memory,
        then: Memory,
        cause: Option<Cause>,
        now: MonotonicTime,
    ) -> Result<Option<Change>, u64> {
        if state::waits_anew(before, then) {
            self.waiting.raise_to(now.as_nanos());
        } else if cause.is_some() && then.mode == Mode::Open {
            self.opened.raise_to(now.as_nanos());
        }
        self.word.swap_if(word, pack(then))?;
        Ok(cause.map(|cause| Change { from: before.state(), to: then, cause }))
    }
}

#[cfg(test)]
mod tests;

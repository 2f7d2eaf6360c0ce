//! What all clones of a breaker share: the state machine's memory, and all that stands around it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cell::{Cell, Change, Entry};
use super::permit::{Rejection, Ticket};
use super::state::{self, Command, Mode, Outcome, Report, Rules, State};
use super::tally::{self, Tally};
use super::window::{Limits, Window};
use crate::changes::{Changes, StateChange};
use crate::clock::{MonotonicTime, SharedClock};
use crate::snapshot::{Counter, PolicyKind, PolicySnapshot};

/// What all clones of a breaker share.
pub(super) struct Shared {
    pub(super) cell: Apart<Cell<AtomicU64>>,
    rules: Rules,
    window: Option<(Window, Limits)>,
    /// Calls that take this long are slow; true if the coarse clock is fine enough to tell.
    slow: Option<(Duration, bool)>,
    pub(super) clock: SharedClock,
    tally: Tally,
    pub(super) changes: Changes,
    newest_change: AtomicU64,
    name: Arc<str>,
    settings: Vec<(&'static str, String)>,
}

/// Read by every call and written seldom: kept off the cache lines of what is written often.
#[repr(align(128))]
pub(super) struct Apart<T>(T);

impl<T> std::ops::Deref for Apart<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl Shared {
    pub(super) fn new(
        name: String,
        rules: Rules,
        window: Option<(Window, Limits)>,
        slow: Option<(Duration, bool)>,
        clock: SharedClock,
        settings: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            cell: Apart(Cell::new()),
            rules,
            window,
            slow,
            clock,
            tally: Tally::new(&name),
            changes: Changes::new(),
            newest_change: AtomicU64::new(0),
            name: name.into(),
            settings,
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    #[inline]
    pub(super) fn enter(&self) -> Result<Ticket, Rejection> {
        let memory = self.cell.memory();
        match memory.mode {
            Mode::Closed { .. } | Mode::Disabled => {
                Ok(Ticket { period: memory.period, started: self.started() })
            }
            Mode::Open | Mode::HalfOpen { .. } => self.enter_guarded(),
            Mode::ForcedOpen => Err(self.rejection(None)),
        }
    }

    /// A call wants in, and the breaker isn't closed.
    fn enter_guarded(&self) -> Result<Ticket, Rejection> {
        // The cheap look: the coarse clock is never ahead, so what it rejects is at worst rejected a tick too long.
        if let Some(until) = self.open_until() {
            let now = self.clock.coarse_now();
            if now < until {
                return Err(self.rejection(Some(until.since(now))));
            }
        }
        let now = self.clock.now();
        match self.cell.admit(&self.rules, now) {
            Entry::Admitted { period, change } => {
                self.announce(change);
                Ok(Ticket { period, started: self.started() })
            }
            Entry::Rejected { until, change } => {
                self.announce(change);
                Err(self.rejection(until.map(|until| until.since(now))))
            }
        }
    }

    #[inline]
    pub(super) fn open_until(&self) -> Option<MonotonicTime> {
        self.cell.open_since().map(|(memory, since)| self.rules.open.until(memory, since))
    }

    fn rejection(&self, retry_after: Option<Duration>) -> Rejection {
        let shard = self.tally.shard();
        tally::count(&shard.rejected);
        tracing::debug!(breaker = %self.name, ?retry_after, "call rejected");
        Rejection { name: shard.name.clone(), retry_after }
    }

    #[inline]
    fn started(&self) -> MonotonicTime {
        match self.slow {
            None => MonotonicTime::ZERO,
            Some((_, coarse)) => self.read_clock(coarse),
        }
    }

    fn read_clock(&self, coarse: bool) -> MonotonicTime {
        if coarse { self.clock.coarse_now() } else { self.clock.now() }
    }

    /// A call has ended.
    #[inline(always)]
    pub(super) fn leave(&self, ticket: Ticket, outcome: Outcome) {
        let shard = self.tally.shard();
        tally::count(match outcome {
            Outcome::Success => &shard.successful,
            Outcome::Failure => &shard.failed,
            Outcome::Cancelled => &shard.cancelled,
            Outcome::Ignored => &shard.ignored,
        });
        let mut report = Report { period: ticket.period, outcome, slow: false, window: None };
        if self.window.is_some() {
            self.weigh(ticket, &mut report);
        }
        let change = self.cell.settle(&self.rules, report, || self.clock.now());
        if change.is_some() {
            self.announce(change);
        }
    }

    /// Finds out whether a call was slow, records it in the window, and looks whether the window is bad enough.
    fn weigh(&self, ticket: Ticket, report: &mut Report) {
        let Some((window, limits)) = &self.window else { return };
        if let Some((threshold, coarse)) = self.slow {
            report.slow = self.read_clock(coarse).since(ticket.started) >= threshold;
            if report.slow && report.outcome != Outcome::Ignored {
                tally::count(&self.tally.shard().slow);
            }
        }
        let failed = report.outcome == Outcome::Failure
            || (report.outcome == Outcome::Cancelled && self.rules.cancelled_fails);
        let says_something = match report.outcome {
            Outcome::Success | Outcome::Failure => true,
            Outcome::Cancelled => failed || report.slow,
            Outcome::Ignored => false,
        };
        let memory = self.cell.memory();
        // Probes are judged one by one, and what began before the last change is judged no more.
        let counts = memory.period == ticket.period && matches!(memory.mode, Mode::Closed { .. });
        if !(says_something && counts) {
            return;
        }
        let now = if window.needs_time() { self.clock.coarse_now() } else { MonotonicTime::ZERO };
        window.record(failed, report.slow, now);
        if failed || report.slow {
            report.window = limits.exceeded(window.counts(now));
        }
    }

    pub(super) fn command(&self, command: Command) {
        let change = self.cell.command(command, self.clock.now());
        self.announce(change);
    }

    /// Tells everybody of a change that this thread made. It is in force already.
    #[cold]
    fn announce(&self, change: Option<Change>) {
        let Some(Change { from, to, cause }) = change else { return };
        let to_state = to.state();
        if to_state != State::HalfOpen
            && let Some((window, _)) = &self.window
        {
            window.clear();
        }
        let newest = self.newest_change.load(Ordering::Acquire);
        let sequence = state::sequence(newest, to.period);
        self.newest_change.fetch_max(sequence, Ordering::AcqRel);
        if from == to_state {
            return;
        }
        match to_state {
            State::Open | State::ForcedOpen => {
                tracing::warn!(breaker = %self.name, from = %from, to = %to_state, %cause, "circuit breaker opened");
            }
            State::HalfOpen | State::Closed | State::Disabled => {
                tracing::info!(breaker = %self.name, from = %from, to = %to_state, %cause, "circuit breaker changed");
            }
        }
        self.changes.record(StateChange {
            policy: PolicyKind::CircuitBreaker,
            name: self.name.clone(),
            from: from.as_str(),
            to: to_state.as_str(),
            cause: cause.to_string(),
            at: self.clock.wall(),
            sequence,
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "windows hold far fewer calls than 2^53")]
    pub(super) fn snapshot(&self) -> PolicySnapshot {
        const CALLS: &str = "Calls that were let through, by how they ended";
        let totals = self.tally.totals();
        let memory = self.cell.memory();
        let (failures, probes) = match memory.mode {
            Mode::Closed { failures } => (failures, 0),
            Mode::HalfOpen { probes, .. } => (0, probes),
            Mode::Open | Mode::ForcedOpen | Mode::Disabled => (0, 0),
        };
        let mut snapshot = PolicySnapshot::new(PolicyKind::CircuitBreaker, self.name.clone())
            .state(memory.state().as_str(), State::NAMES)
            .counter(Counter::of_kind("calls", "successful", CALLS, totals.successful))
            .counter(Counter::of_kind("calls", "failed", CALLS, totals.failed))
            .counter(Counter::of_kind("calls", "cancelled", CALLS, totals.cancelled))
            .counter(Counter::of_kind("calls", "ignored", CALLS, totals.ignored))
            .counter(Counter::total(
                "slow_calls",
                "Calls that took as long as a slow call or longer",
                totals.slow,
            ))
            .counter(Counter::total("not_permitted_calls", "Calls that were rejected", totals.rejected))
            .counter(Counter::total(
                "state_changes",
                "Changes of state",
                self.newest_change.load(Ordering::Acquire),
            ))
            .gauge("consecutive_failures", "Failures since the last success", f64::from(failures))
            .gauge("probes", "Probes that are under way", f64::from(probes));
        if let Some((window, _)) = &self.window {
            let counts = window.counts(self.clock.now());
            snapshot = snapshot
                .gauge("buffered_calls", "Calls in the window", counts.total as f64)
                .gauge("failure_rate", "Failed calls of those in the window, 0 to 1", counts.failure_rate())
                .gauge("slow_call_rate", "Slow calls of those in the window, 0 to 1", counts.slow_rate());
        }
        for (name, value) in &self.settings {
            snapshot = snapshot.setting(name, value);
        }
        snapshot
    }
}

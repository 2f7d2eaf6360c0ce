//! The right to make one call, and the duty to say what became of it.

use std::fmt;
use std::sync::Arc;

use super::shared::Shared;
use super::state::Outcome;
use crate::classify::Verdict;
use crate::clock::MonotonicTime;

/// What a call carries from its admission to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) period: u32,
    /// When it began; zero if the breaker doesn't ask how long calls take.
    pub(super) started: MonotonicTime,
}

enum Holder<'a> {
    Borrowed(&'a Shared),
    Owned(Arc<Shared>),
}

/// The right to make one call.
///
/// Say what became of it with [`success`](Permit::success), [`failure`](Permit::failure) or [`settle`](Permit::settle).
/// A permit that is dropped without that is a call that was given up: it counts as nothing (as failed, with
/// [`cancelled_calls_fail`](super::CircuitBreakerBuilder::cancelled_calls_fail)), but frees its place if it was a probe. Dropped by a
/// panic it counts as failed.
#[must_use = "a permit that is dropped at once is a call that was given up"]
pub struct Permit<'a> {
    holder: Holder<'a>,
    ticket: Ticket,
    settled: bool,
}

impl<'a> Permit<'a> {
    #[inline]
    pub(super) fn borrowed(shared: &'a Shared, ticket: Ticket) -> Self {
        Self { holder: Holder::Borrowed(shared), ticket, settled: false }
    }

    pub(super) fn owned(shared: Arc<Shared>, ticket: Ticket) -> Permit<'static> {
        Permit { holder: Holder::Owned(shared), ticket, settled: false }
    }

    /// The call went well.
    #[inline]
    pub fn success(self) {
        self.end(Outcome::Success);
    }

    /// The call failed.
    pub fn failure(self) {
        self.end(Outcome::Failure);
    }

    /// The call ended like that. [`Verdict::Ignored`] frees the permit's place and counts as nothing.
    #[inline]
    pub fn settle(self, verdict: Verdict) {
        self.end(match verdict {
            Verdict::Success => Outcome::Success,
            Verdict::Failure => Outcome::Failure,
            Verdict::Ignored => Outcome::Ignored,
        });
    }

    #[cfg(test)]
    pub(super) fn period(&self) -> u32 {
        self.ticket.period
    }

    #[inline]
    fn end(mut self, outcome: Outcome) {
        self.settled = true;
        self.shared().leave(self.ticket, outcome);
    }

    #[inline]
    fn shared(&self) -> &Shared {
        match &self.holder {
            Holder::Borrowed(shared) => shared,
            Holder::Owned(shared) => shared,
        }
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.settled {
            let outcome = if std::thread::panicking() { Outcome::Failure } else { Outcome::Cancelled };
            self.shared().leave(self.ticket, outcome);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("breaker", self.shared().name()).field("ticket", &self.ticket).finish()
    }
}

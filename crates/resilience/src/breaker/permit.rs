//! The right to make one call, and the duty to say what became of it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::shared::Shared;
use super::state::Outcome;
use crate::classify::Verdict;
use crate::clock::MonotonicTime;
use crate::error::Error;
use crate::held::Held;

/// What a call carries from its admission to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) period: u32,
    /// When it began; zero if the breaker doesn't ask how long calls take.
    pub(super) started: MonotonicTime,
}

/// A call that is not let through.
#[derive(Debug)]
pub struct Rejection {
    pub(super) name: Arc<str>,
    pub(super) retry_after: Option<Duration>,
}

impl<E> From<Rejection> for Error<E> {
    #[inline]
    fn from(Rejection { name, retry_after }: Rejection) -> Self {
        Self::CircuitOpen { name, retry_after }
    }
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
/// panic it counts as failed, because the panic is taken for the call's own; [`give_up`](Permit::give_up) says that it isn't.
#[must_use = "a permit that is dropped at once is a call that was given up"]
pub struct Permit<'a> {
    holder: Holder<'a>,
    ticket: Ticket,
    settled: bool,
    /// Its call waits at present. A panic that drops it then isn't the call's own.
    suspended: AtomicBool,
}

impl<'a> Permit<'a> {
    #[inline]
    pub(super) fn borrowed(shared: &'a Shared, ticket: Ticket) -> Self {
        Self { holder: Holder::Borrowed(shared), ticket, settled: false, suspended: AtomicBool::new(false) }
    }

    pub(super) fn owned(shared: Arc<Shared>, ticket: Ticket) -> Permit<'static> {
        Permit { holder: Holder::Owned(shared), ticket, settled: false, suspended: AtomicBool::new(false) }
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
    pub fn settle(self, verdict: Verdict) {
        self.settle_here(verdict);
    }

    /// The same without a call of a function, where that is worth more than being short.
    #[inline(always)]
    pub(super) fn settle_here(self, verdict: Verdict) {
        self.end(match verdict {
            Verdict::Success => Outcome::Success,
            Verdict::Failure => Outcome::Failure,
            Verdict::Ignored => Outcome::Ignored,
        });
    }

    /// The call was given up, whatever else happens: what a panic that isn't the call's own drops has not failed.
    pub fn give_up(self) {
        self.end(Outcome::Cancelled);
    }

    #[cfg(test)]
    pub(super) fn period(&self) -> u32 {
        self.ticket.period
    }

    #[inline(always)]
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

impl Held for Permit<'_> {
    #[inline]
    fn suspended(&self, is_suspended: bool) {
        self.suspended.store(is_suspended, Ordering::Relaxed);
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.settled {
            let panics = !*self.suspended.get_mut() && std::thread::panicking();
            let outcome = if panics { Outcome::Failure } else { Outcome::Cancelled };
            self.shared().leave(self.ticket, outcome);
        }
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("breaker", self.shared().name()).field("ticket", &self.ticket).finish()
    }
}

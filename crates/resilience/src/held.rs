//! A call under way with what it holds until its end: a permit.
//!
//! Three ends are told apart that would otherwise look alike: the call gives its output; it panics; or it is dropped, perhaps because
//! something else panics. Only while the call is polled can a panic be its own, so what is held is told when it is not.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Something that a call holds while it is under way.
pub trait Held {
    /// Whether the call is waiting at present: what drops this then is not the call.
    fn suspended(&self, is_suspended: bool) {
        let _ = is_suspended;
    }
}

/// A call that was admitted without a permit holds nothing.
impl Held for () {}

pin_project! {
    /// A call under way with what it holds; gives that back with the output.
    pub struct Holding<F, H> {
        #[pin]
        call: F,
        held: Option<H>,
    }
}

#[cfg(feature = "tower")]
impl<F, H: Held> Holding<F, H> {
    #[inline]
    pub(crate) fn new(held: H, call: F) -> Self {
        held.suspended(true);
        Self { call, held: Some(held) }
    }
}

/// Drops what is held when the call unwinds. Whoever catches the panic outside drops the call only later, when nothing tells it from
/// one that was given up.
struct DroppedByPanic<'a, H>(&'a mut Option<H>);

impl<H> Drop for DroppedByPanic<'_, H> {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

impl<F: Future, H: Held> Future for Holding<F, H> {
    type Output = (H, F::Output);

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(held) = this.held else { ended() };
        held.suspended(false);
        let guard = DroppedByPanic(this.held);
        let polled = this.call.poll(context);
        std::mem::forget(guard);
        match (polled, this.held.take()) {
            (Poll::Ready(output), Some(held)) => Poll::Ready((held, output)),
            (Poll::Pending, Some(held)) => {
                held.suspended(true);
                *this.held = Some(held);
                Poll::Pending
            }
            (_, None) => ended(),
        }
    }
}

#[cold]
fn ended() -> ! {
    panic!("a future is not polled again once it is ready or has panicked")
}

pin_project! {
    /// A call whose caller holds something for it.
    pub(crate) struct Watched<'a, F, H> {
        #[pin]
        call: F,
        held: &'a H,
        is_suspended: bool,
    }
}

/// Tells what is held when the call waits.
#[inline]
pub(crate) fn watched<F, H: Held>(held: &H, call: F) -> Watched<'_, F, H> {
    Watched { call, held, is_suspended: false }
}

impl<F: Future, H: Held> Future for Watched<'_, F, H> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if *this.is_suspended {
            this.held.suspended(false);
        }
        let polled = this.call.poll(context);
        if polled.is_pending() {
            *this.is_suspended = true;
            this.held.suspended(true);
        }
        polled
    }
}

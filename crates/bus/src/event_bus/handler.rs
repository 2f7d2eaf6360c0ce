//! Calling what others wrote: errors become counts, panics too.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What a handler gives back: nothing, or a result whose error is counted and logged.
pub trait Outcome {
    /// What went wrong, in words; `None` if nothing did.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// What was panicked with, in words.
pub(super) struct Panic(pub(super) String);

/// Awaits what `make` makes. A panic of either ends with it, and not with the task.
pub(super) async fn guarded<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, Panic> {
    let future = guarded_call(make)?;
    let mut future = pin!(future);
    // The future is dropped after a panic and never polled again, so nobody sees what it left half done.
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(payload) => Poll::Ready(Err(Panic::new(payload.as_ref()))),
    })
    .await
}

/// Calls `f`. A panic of it ends here.
pub(super) fn guarded_call<T>(f: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| Panic::new(payload.as_ref()))
}

impl Panic {
    fn new(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("something that is no text").to_owned())
    }
}

//! A retry for a loop that is the caller's own.

use std::time::Duration;

use super::decide::{AnyFailure, Decision, RetryIf};
use super::{Made, Retry};

/// The tries of one call, for a loop that is the caller's own.
///
/// After each try it says how long to wait before the next, or that there is none; the retry counts as it does for its own calls. Dropping
/// it gives the call up: nothing has to be given back.
///
/// ```
/// # use farol_resilience::Retry;
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let retry = Retry::idempotent("upload").build();
/// let mut tries = retry.tries();
/// let mut left = vec![Ok("stored"), Err("busy")];
/// let stored = loop {
///     let result = left.pop().unwrap();
///     match tries.after(&result) {
///         Some(delay) => {
///             println!("try {} failed, the next is in {delay:?}", tries.made());
///             tokio::time::sleep(delay).await;
///         }
///         None => break result,
///     }
/// };
/// assert_eq!(stored, Ok("stored"));
/// assert_eq!(tries.made(), 2);
/// # });
/// ```
#[derive(Debug)]
pub struct Tries<D = AnyFailure> {
    pub(super) retry: Retry<D>,
    pub(super) progress: Made,
}

impl<D> Tries<D> {
    /// A try ended with this result: the delay before the next one, or `None` if it was the last.
    #[must_use = "without a delay there is no further try"]
    pub fn after<T, E>(&mut self, result: &Result<T, E>) -> Option<Duration>
    where
        D: RetryIf<T, E>,
    {
        let decision = self.retry.shared.decide.decide(result);
        self.decided(decision, result.is_ok())
    }

    /// The same, where the caller has judged the try by itself; `successful` is how the call counts if it ends here.
    #[must_use = "without a delay there is no further try"]
    pub fn decided(&mut self, decision: Decision, successful: bool) -> Option<Duration> {
        self.retry.after(&mut self.progress, decision, successful)
    }

    /// Another policy refused to let a try be made, which is none: the delay before asking again, or `None` if that would be too late.
    /// Without a [`max_elapsed`](super::RetryBuilder::max_elapsed) it counts as a try, or it could go on for ever.
    #[must_use = "without a delay there is no further try"]
    pub fn refused(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        self.retry.refused(&mut self.progress, retry_after)
    }

    /// Tries that were made.
    pub fn made(&self) -> u32 {
        self.progress.tries
    }
}

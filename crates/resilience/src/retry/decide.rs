//! Which results are tried again, and how an error tells that the server asked for a pause.

use std::time::Duration;

/// What to do after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Give the result to the caller: it is a success, or trying again would not help.
    Done,
    /// Try again after the backoff's delay.
    Retry,
    /// Try again, no earlier than the server asked for: see [`Schedule`](super::Schedule).
    RetryAfter(Duration),
}

/// Judges the result of a try. It sees the operation's own results only: what to do when another policy refused the call
/// or gave it up is said by the retry's settings.
pub trait RetryIf<T, E> {
    /// What to do after this result.
    fn decide(&self, result: &Result<T, E>) -> Decision;
}

/// A closure judges.
impl<T, E, F: Fn(&Result<T, E>) -> Decision> RetryIf<T, E> for F {
    #[inline]
    fn decide(&self, result: &Result<T, E>) -> Decision {
        self(result)
    }
}

/// Every `Err` is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnyFailure;

impl<T, E> RetryIf<T, E> for AnyFailure {
    #[inline]
    fn decide(&self, result: &Result<T, E>) -> Decision {
        if result.is_ok() { Decision::Done } else { Decision::Retry }
    }
}

/// What the predicate is true for is tried again: an `Ok` can be worth a retry, too.
#[derive(Debug, Clone, Copy)]
pub struct When<F>(pub(super) F);

impl<T, E, F: Fn(&Result<T, E>) -> bool> RetryIf<T, E> for When<F> {
    #[inline]
    fn decide(&self, result: &Result<T, E>) -> Decision {
        if (self.0)(result) { Decision::Retry } else { Decision::Done }
    }
}

/// Errors that the predicate is true for are tried again.
#[derive(Debug, Clone, Copy)]
pub struct WhenError<F>(pub(super) F);

impl<T, E, F: Fn(&E) -> bool> RetryIf<T, E> for WhenError<F> {
    #[inline]
    fn decide(&self, result: &Result<T, E>) -> Decision {
        match result {
            Err(error) if (self.0)(error) => Decision::Retry,
            Ok(_) | Err(_) => Decision::Done,
        }
    }
}

/// Decides as `D`; errors that tell a pause are tried again after it.
#[derive(Debug, Clone, Copy)]
pub struct ServerDelay<D, F> {
    pub(super) decide: D,
    pub(super) delay: F,
}

impl<T, E, D: RetryIf<T, E>, F: Fn(&E) -> Option<Duration>> RetryIf<T, E> for ServerDelay<D, F> {
    #[inline]
    fn decide(&self, result: &Result<T, E>) -> Decision {
        match (self.decide.decide(result), result) {
            (Decision::Retry, Err(error)) => {
                (self.delay)(error).map_or(Decision::Retry, Decision::RetryAfter)
            }
            (decision, _) => decision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_sees_successes_as_well() {
        let decide = When(|result: &Result<u16, &str>| !matches!(result, Ok(status) if *status < 500));
        assert_eq!(decide.decide(&Ok(200)), Decision::Done);
        assert_eq!(decide.decide(&Ok(503)), Decision::Retry);
        assert_eq!(decide.decide(&Err("reset")), Decision::Retry);
    }

    #[test]
    fn a_pause_is_asked_for_only_where_there_is_a_retry() {
        struct Status(u16);
        let decide = ServerDelay {
            decide: WhenError(|error: &Status| error.0 != 404),
            delay: |error: &Status| (error.0 == 429).then_some(Duration::from_secs(3)),
        };
        let after = |status| RetryIf::<(), _>::decide(&decide, &Err(Status(status)));
        assert_eq!(after(404), Decision::Done);
        assert_eq!(after(500), Decision::Retry);
        assert_eq!(after(429), Decision::RetryAfter(Duration::from_secs(3)));
    }
}

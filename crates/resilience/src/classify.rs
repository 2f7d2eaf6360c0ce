//! Which results of a call count as failures.
//!
//! A policy asks a [`Classify`] about every result. By default every `Err` is a failure ([`AnyError`]); a closure
//! makes it depend on the result. [`ThroughPolicies`] is for a policy that stands around other policies.

use crate::error::Error;

/// What a result says about the service that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It answered as it should. An error can be a success: "not found" shows a service that works.
    Success,
    /// It failed.
    Failure,
    /// Nothing is known: the call never reached it, say.
    Ignored,
}

/// Judges results of calls.
pub trait Classify<T, E> {
    /// What this result says about the service.
    fn classify(&self, result: &Result<T, E>) -> Verdict;
}

/// Every `Err` is a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnyError;

impl<T, E> Classify<T, E> for AnyError {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}

/// A closure judges.
impl<T, E, F: Fn(&Result<T, E>) -> Verdict> Classify<T, E> for F {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        self(result)
    }
}

/// What the predicate is true for is a failure, everything else a success.
#[derive(Debug, Clone, Copy)]
pub struct FailureIf<F>(pub F);

impl<T, E, F: Fn(&Result<T, E>) -> bool> Classify<T, E> for FailureIf<F> {
    #[inline]
    fn classify(&self, result: &Result<T, E>) -> Verdict {
        if (self.0)(result) { Verdict::Failure } else { Verdict::Success }
    }
}

/// For a policy around other policies: their refusals say nothing about the service, a call that timed out is a
/// failure, and errors of the call itself are judged by `by_error`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThroughPolicies<F> {
    by_error: F,
}

impl<F> ThroughPolicies<F> {
    /// Judges the call's own errors by the given function.
    pub fn new(by_error: F) -> Self {
        Self { by_error }
    }
}

impl<T, E, F: Fn(&E) -> Verdict> Classify<T, Error<E>> for ThroughPolicies<F> {
    fn classify(&self, result: &Result<T, Error<E>>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(Error::Inner(error)) => (self.by_error)(error),
            Err(refusal) if refusal.is_rejected() => Verdict::Ignored,
            Err(_) => Verdict::Failure,
        }
    }
}

/// What a result of a call through policies says about the service: its own results as the classifier says, a refusal
/// nothing, and a call that was given up that the service failed. Gives the result back.
#[inline]
pub(crate) fn judge<T, E>(
    classify: &impl Classify<T, E>,
    result: Result<T, Error<E>>,
) -> (Verdict, Result<T, Error<E>>) {
    let own = match result {
        Ok(value) => Ok(value),
        Err(Error::Inner(error)) => Err(error),
        Err(refused) if refused.is_rejected() => return (Verdict::Ignored, Err(refused)),
        Err(given_up) => return (Verdict::Failure, Err(given_up)),
    };
    (classify.classify(&own), own.map_err(Error::Inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_predicate_decides_what_fails() {
        let server_errors =
            FailureIf(|result: &Result<u16, ()>| !matches!(result, Ok(status) if *status < 500));
        assert_eq!(server_errors.classify(&Ok(404)), Verdict::Success);
        assert_eq!(server_errors.classify(&Ok(503)), Verdict::Failure);
        assert_eq!(server_errors.classify(&Err(())), Verdict::Failure);
    }

    #[test]
    fn refusals_of_inner_policies_say_nothing_about_the_service() {
        let judge = ThroughPolicies::new(|_: &&str| Verdict::Failure);
        let full: Result<(), Error<&str>> = Err(Error::BulkheadFull { name: "db".into() });
        let late = Err(Error::TimedOut { name: "db".into(), after: Duration::from_secs(1) });
        assert_eq!(judge.classify(&full), Verdict::Ignored);
        assert_eq!(Classify::<(), _>::classify(&judge, &late), Verdict::Failure);
        assert_eq!(Classify::<(), _>::classify(&judge, &Err(Error::Inner("reset"))), Verdict::Failure);
    }
}

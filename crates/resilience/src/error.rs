//! Why a call failed or was refused: one type for all policies, so that they stand inside one another without nesting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The failure of a call that went through policies.
///
/// Either the call was made and failed ([`Inner`](Error::Inner)), or it was made and given up
/// ([`TimedOut`](Error::TimedOut)), or a policy refused to make it (all others, [`is_rejected`](Error::is_rejected)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The circuit breaker is open, or half-open with all its probes under way.
    CircuitOpen {
        /// The breaker.
        name: Arc<str>,
        /// When the next probe is let through; `None` if the breaker can't say: it was opened by hand, or waits for a probe's outcome.
        retry_after: Option<Duration>,
    },
    /// All permits of the bulkhead are taken, and its queue is full.
    BulkheadFull {
        /// The bulkhead.
        name: Arc<str>,
    },
    /// No permit of the bulkhead became free in the time that a caller may wait.
    BulkheadTimeout {
        /// The bulkhead.
        name: Arc<str>,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The rate limiter's allowance is used up.
    RateLimited {
        /// The limiter.
        name: Arc<str>,
        /// When there is allowance again.
        retry_after: Duration,
    },
    /// As many calls are under way as the adaptive limiter thinks good.
    LimitExceeded {
        /// The limiter.
        name: Arc<str>,
        /// The limit at that moment.
        limit: usize,
    },
    /// The call took longer than it may, and was given up. It may have had its effect.
    TimedOut {
        /// The timeout.
        name: Arc<str>,
        /// What a call may take.
        after: Duration,
    },
    /// The call was made and failed with this.
    Inner(E),
}

impl<E> Error<E> {
    /// Whether a policy refused to make the call: nothing was sent, nothing can have happened.
    pub fn is_rejected(&self) -> bool {
        !matches!(self, Self::Inner(_) | Self::TimedOut { .. })
    }

    /// How long to wait before trying again, if the policy that refused knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after, .. } => *retry_after,
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::BulkheadFull { .. }
            | Self::BulkheadTimeout { .. }
            | Self::LimitExceeded { .. }
            | Self::TimedOut { .. }
            | Self::Inner(_) => None,
        }
    }

    /// The policy that refused or gave up the call.
    pub fn policy(&self) -> Option<&str> {
        match self {
            Self::CircuitOpen { name, .. }
            | Self::BulkheadFull { name }
            | Self::BulkheadTimeout { name, .. }
            | Self::RateLimited { name, .. }
            | Self::LimitExceeded { name, .. }
            | Self::TimedOut { name, .. } => Some(name),
            Self::Inner(_) => None,
        }
    }

    /// The call's own error, if it was made and failed.
    pub fn inner(&self) -> Option<&E> {
        match self {
            Self::Inner(error) => Some(error),
            _ => None,
        }
    }

    /// The call's own error, if it was made and failed.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            _ => None,
        }
    }

    /// The same with the call's own error changed.
    pub fn map_inner<F>(self, change: impl FnOnce(E) -> F) -> Error<F> {
        match self.split() {
            Ok(error) => Error::Inner(change(error)),
            Err(refusal) => refusal.widen(),
        }
    }

    /// The call's own error, or else what the policies made of it, which holds no error of the call.
    fn split(self) -> Result<E, Error<std::convert::Infallible>> {
        Err(match self {
            Self::Inner(error) => return Ok(error),
            Self::CircuitOpen { name, retry_after } => Error::CircuitOpen { name, retry_after },
            Self::BulkheadFull { name } => Error::BulkheadFull { name },
            Self::BulkheadTimeout { name, waited } => Error::BulkheadTimeout { name, waited },
            Self::RateLimited { name, retry_after } => Error::RateLimited { name, retry_after },
            Self::LimitExceeded { name, limit } => Error::LimitExceeded { name, limit },
            Self::TimedOut { name, after } => Error::TimedOut { name, after },
        })
    }
}

impl Error<std::convert::Infallible> {
    /// A refusal as the error of a call that could also have failed by itself.
    ///
    /// What a permit is refused with has no error of the call: there was no call yet.
    pub fn widen<E>(self) -> Error<E> {
        match self {
            Self::CircuitOpen { name, retry_after } => Error::CircuitOpen { name, retry_after },
            Self::BulkheadFull { name } => Error::BulkheadFull { name },
            Self::BulkheadTimeout { name, waited } => Error::BulkheadTimeout { name, waited },
            Self::RateLimited { name, retry_after } => Error::RateLimited { name, retry_after },
            Self::LimitExceeded { name, limit } => Error::LimitExceeded { name, limit },
            Self::TimedOut { name, after } => Error::TimedOut { name, after },
            Self::Inner(never) => match never {},
        }
    }
}

impl<E> Error<Error<E>> {
    /// The error of a call through one policy inside another, as if they were one.
    pub fn flatten(self) -> Error<E> {
        match self.split() {
            Ok(inner) => inner,
            Err(refusal) => refusal.widen(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen { name, retry_after: Some(after) } => {
                write!(f, "circuit breaker {name} is open; it lets a probe through in {after:?}")
            }
            Self::CircuitOpen { name, retry_after: None } => {
                write!(f, "circuit breaker {name} is open, or waits for the outcome of its probes")
            }
            Self::BulkheadFull { name } => write!(f, "bulkhead {name} and its queue are full"),
            Self::BulkheadTimeout { name, waited } => {
                write!(f, "bulkhead {name} had no free permit within {waited:?}")
            }
            Self::RateLimited { name, retry_after } => {
                write!(f, "rate limiter {name} lets the next call through in {retry_after:?}")
            }
            Self::LimitExceeded { name, limit } => {
                write!(f, "limiter {name} has its {limit} calls under way")
            }
            Self::TimedOut { name, after } => write!(f, "timeout {name}: no answer within {after:?}"),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Shown as the inner error itself, so the chain goes on below that.
            Self::Inner(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(retry_after: Option<Duration>) -> Error<String> {
        Error::CircuitOpen { name: "payments".into(), retry_after }
    }

    #[test]
    fn refusals_are_told_from_failures() {
        assert!(open(None).is_rejected());
        assert!(Error::<()>::BulkheadFull { name: "db".into() }.is_rejected());
        assert!(!Error::Inner("refused").is_rejected());
        // The call was made: it may have had its effect.
        assert!(!Error::<()>::TimedOut { name: "api".into(), after: Duration::from_secs(1) }.is_rejected());
    }

    #[test]
    fn nested_errors_become_one() {
        let nested: Error<Error<String>> = Error::Inner(open(Some(Duration::from_secs(3))));
        assert_eq!(nested.flatten(), open(Some(Duration::from_secs(3))));
        let outer: Error<Error<String>> = Error::BulkheadFull { name: "db".into() };
        assert_eq!(outer.flatten(), Error::BulkheadFull { name: "db".into() });
    }

    #[test]
    fn an_error_says_who_refused_and_when_to_come_back() {
        let error = open(Some(Duration::from_secs(3)));
        assert_eq!(error.policy(), Some("payments"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(error.to_string(), "circuit breaker payments is open; it lets a probe through in 3s");
        assert_eq!(Error::Inner("no route").to_string(), "no route");
        assert_eq!(Error::Inner(3).map_inner(|code| code + 1).into_inner(), Some(4));
    }
}

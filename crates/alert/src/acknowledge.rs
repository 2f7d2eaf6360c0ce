//! Somebody takes an alert on.
//!
//! Who may acknowledge is not decided here; who *did* is kept as they named themselves. Limits: [`MAX_BY_BYTES`],
//! [`MAX_COMMENT_BYTES`].

use farol_event::{Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Timestamp, TransitionKind};

use crate::words;
pub use crate::words::{MAX_BY_BYTES, MAX_COMMENT_BYTES};

/// Why an acknowledgement was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeRefused {
    /// Somebody did so before.
    #[error("alert {id} was acknowledged by {} at {} already", .first.by, .first.at)]
    Already {
        /// The alert.
        id: AlertId,
        /// The acknowledgement that counts.
        first: Acknowledgement,
    },
    /// The alert is neither pending nor firing any more.
    #[error("alert {id} is {status}: only pending and firing alerts can be acknowledged")]
    Ended {
        /// The alert.
        id: AlertId,
        /// Where it stands.
        status: AlertStatus,
    },
    /// `by` is empty, too long, or has control characters.
    #[error("`by` must have 1 to {MAX_BY_BYTES} bytes and no control characters")]
    By,
    /// `comment` is too long, or has control characters other than line breaks and tabs.
    #[error(
        "`comment` must have at most {MAX_COMMENT_BYTES} bytes and no control characters but line breaks and tabs"
    )]
    Comment,
}

/// The transition by which `by` acknowledges `alert` at `now`. A `comment` of nothing but space counts as none.
///
/// # Errors
/// [`AcknowledgeRefused`] says whether the alert or the words stand in the way.
pub fn acknowledge(
    alert: &Alert,
    by: &str,
    comment: Option<&str>,
    now: Timestamp,
) -> Result<AlertTransition, AcknowledgeRefused> {
    let by = words::name(by).ok_or(AcknowledgeRefused::By)?;
    let comment = comment
        .filter(|comment| !comment.trim().is_empty())
        .map(|comment| words::comment(comment).ok_or(AcknowledgeRefused::Comment))
        .transpose()?;
    // Ended comes first: that somebody acknowledged an alert that is over changes nothing for whoever asks.
    if matches!(alert.status, AlertStatus::Resolved | AlertStatus::Dismissed) {
        return Err(AcknowledgeRefused::Ended { id: alert.id, status: alert.status });
    }
    if let Some(first) = &alert.acknowledgement {
        return Err(AcknowledgeRefused::Already { id: alert.id, first: first.clone() });
    }
    let given = Acknowledgement { by: by.to_owned(), at: now, comment: comment.map(str::to_owned) };
    Ok(AlertTransition {
        kind: TransitionKind::Acknowledged,
        at: now,
        evidence: None,
        acknowledgement: Some(given.clone()),
        alert: Alert { acknowledgement: Some(given), ..alert.clone() },
    })
}

#[cfg(test)]
mod tests;

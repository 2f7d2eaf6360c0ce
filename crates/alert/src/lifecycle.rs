//! One transition after another: the alert as it stands.
//!
//! ```text
//!            pending ──► firing ──► resolved
//!  (new) ──►    │
//!            dismissed        (new) ──► firing, if the rule asks for no duration
//! ```
//!
//! Acknowledging doesn't move an alert along: it is kept beside the status, and the first one counts. What has ended stays
//! ended; the next alert of the same rule and series is another one, with another id.
//!
//! [`fold`] is what a view does with each record of the topic `alerts`. A transition that was folded already changes nothing, so
//! reading a record again is harmless. Anything else that can't follow is refused with [`Illegal`], never guessed at.

use farol_event::{Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Timestamp, TransitionKind};

/// What became of an alert by one transition.
#[derive(Debug, Clone, PartialEq)]
pub enum Folded {
    /// The alert as it stands now.
    Changed(Box<Alert>),
    /// The transition had been folded before, or (a second acknowledgement) has no effect: nothing changes.
    Unchanged,
}

/// A transition that can't follow what went before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The transition can't happen to an alert of this status.
    #[error("alert {id}: `{kind:?}` can't follow `{from}`")]
    Transition {
        /// The alert.
        id: AlertId,
        /// Its status before.
        from: AlertStatus,
        /// What was to happen.
        kind: TransitionKind,
    },
    /// The alert isn't known, and this is not how one begins.
    #[error("alert {id}: `{kind:?}` can't be the first that is heard of an alert")]
    Beginning {
        /// The alert.
        id: AlertId,
        /// What was to happen.
        kind: TransitionKind,
    },
    /// The transition is of another alert.
    #[error("a transition of alert {given} can't be folded into alert {id}")]
    OtherAlert {
        /// The alert.
        id: AlertId,
        /// The alert that the transition is about.
        given: AlertId,
    },
    /// The transition says `acknowledged` and carries no acknowledgement.
    #[error("alert {id}: an acknowledgement without `acknowledgement`")]
    NoAcknowledgement {
        /// The alert.
        id: AlertId,
    },
}

/// Folds one transition into what is known of its alert.
///
/// # Errors
/// [`Illegal`] if it can't follow; `current` stands unchanged then.
pub fn fold(current: Option<&Alert>, transition: &AlertTransition) -> Result<Folded, Illegal> {
    let given = &transition.alert;
    let Some(current) = current else { return begin(transition) };
    if current.id != given.id {
        return Err(Illegal::OtherAlert { id: current.id, given: given.id });
    }
    let illegal = || Illegal::Transition { id: current.id, from: current.status, kind: transition.kind };
    match (transition.kind, current.status) {
        (TransitionKind::Acknowledged, AlertStatus::Pending | AlertStatus::Firing) => {
            acknowledged(current, transition)
        }
        // An acknowledgement may have been on its way when the alert ended. If it is the one that counted, it is a repeat.
        (TransitionKind::Acknowledged, AlertStatus::Resolved | AlertStatus::Dismissed) => {
            let repeated =
                current.acknowledgement.is_some() && current.acknowledgement == transition.acknowledgement;
            if repeated { Ok(Folded::Unchanged) } else { Err(illegal()) }
        }
        (TransitionKind::Fired, AlertStatus::Pending) => {
            Ok(advanced(current, transition, AlertStatus::Firing))
        }
        (TransitionKind::Dismissed, AlertStatus::Pending) => {
            Ok(advanced(current, transition, AlertStatus::Dismissed))
        }
        (TransitionKind::Resolved, AlertStatus::Firing) => {
            Ok(advanced(current, transition, AlertStatus::Resolved))
        }
        _ if happened(current, transition) => Ok(Folded::Unchanged),
        _ => Err(illegal()),
    }
}

fn begin(transition: &AlertTransition) -> Result<Folded, Illegal> {
    let status = match transition.kind {
        TransitionKind::Pending => AlertStatus::Pending,
        TransitionKind::Fired => AlertStatus::Firing,
        kind => return Err(Illegal::Beginning { id: transition.alert.id, kind }),
    };
    let alert = Alert {
        status,
        fired_at: (status == AlertStatus::Firing).then_some(transition.at),
        ended_at: None,
        acknowledgement: None,
        ..transition.alert.clone()
    };
    Ok(Folded::Changed(Box::new(alert)))
}

/// The alert after a transition along its life. What people did to it is kept: the detector knows nothing of it.
fn advanced(current: &Alert, transition: &AlertTransition, status: AlertStatus) -> Folded {
    let mut alert = Alert {
        status,
        summary: transition.alert.summary.clone(),
        value: transition.alert.value,
        ..current.clone()
    };
    match status {
        AlertStatus::Firing => alert.fired_at = Some(transition.at),
        AlertStatus::Resolved | AlertStatus::Dismissed => alert.ended_at = Some(transition.at),
        AlertStatus::Pending => {}
    }
    Folded::Changed(Box::new(alert))
}

fn acknowledged(current: &Alert, transition: &AlertTransition) -> Result<Folded, Illegal> {
    let given: &Acknowledgement =
        transition.acknowledgement.as_ref().ok_or(Illegal::NoAcknowledgement { id: current.id })?;
    if current.acknowledgement.is_some() {
        return Ok(Folded::Unchanged);
    }
    Ok(Folded::Changed(Box::new(Alert { acknowledgement: Some(given.clone()), ..current.clone() })))
}

/// Whether the transition is already part of the alert's life.
fn happened(current: &Alert, transition: &AlertTransition) -> bool {
    let at = Some(transition.at);
    match transition.kind {
        TransitionKind::Pending => current.began_at == transition.at,
        TransitionKind::Fired => current.fired_at == at,
        TransitionKind::Resolved => current.status == AlertStatus::Resolved && current.ended_at == at,
        TransitionKind::Dismissed => current.status == AlertStatus::Dismissed && current.ended_at == at,
        TransitionKind::Acknowledged => false,
    }
}

/// The alert as it stood at `at`, from its transitions in the order of the topic: those that happened at `at` or before. Nothing if it
/// hadn't begun.
///
/// # Errors
/// [`Illegal`] if a transition up to then can't follow the one before.
pub fn as_of<'a>(
    transitions: impl IntoIterator<Item = &'a AlertTransition>,
    at: Timestamp,
) -> Result<Option<Alert>, Illegal> {
    let mut alert: Option<Alert> = None;
    for transition in transitions.into_iter().filter(|transition| transition.at <= at) {
        if let Folded::Changed(next) = fold(alert.as_ref(), transition)? {
            alert = Some(*next);
        }
    }
    Ok(alert)
}

#[cfg(test)]
mod tests;

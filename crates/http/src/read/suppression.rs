//! Which alerts are held back, and by what: silences and inhibition, as they stand now.

use farol_alert::{Inhibitors, SilenceBook, SilenceId, Suppression};
use farol_event::{Alert, AlertId, AlertStatus, Timestamp};
use farol_view::{Queries, ViewError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::Notifying;

/// What holds alerts back at one instant.
pub(crate) struct Suppressions<'a> {
    silences: SilenceBook,
    firing: Vec<Alert>,
    notifying: &'a Notifying,
    now: Timestamp,
}

impl<'a> Suppressions<'a> {
    /// As the views show it.
    pub(crate) fn now(
        queries: &Queries<'_>,
        notifying: &'a Notifying,
        now: Timestamp,
    ) -> Result<Self, ViewError> {
        let mut silences = SilenceBook::default();
        queries.silences_ending_after(now)?.into_iter().for_each(|silence| silences.restore(silence));
        let inhibiting = !notifying.inhibit.is_empty();
        let firing = if inhibiting { queries.firing_alerts()? } else { Vec::new() };
        Ok(Self { silences, firing, notifying, now })
    }

    /// That nothing holds anything back.
    pub(crate) fn none(notifying: &'a Notifying, now: Timestamp) -> Self {
        Self { silences: SilenceBook::default(), firing: Vec::new(), notifying, now }
    }

    /// The alerts with what holds each back. Only those that fire or may come to can be held back.
    pub(crate) fn of_all(&self, alerts: Vec<Alert>) -> Vec<ListedAlert> {
        let inhibitors = Inhibitors::new(&self.notifying.inhibit, self.firing.iter());
        let listed = |alert: Alert| {
            let active = matches!(alert.status, AlertStatus::Pending | AlertStatus::Firing);
            let suppression = if active {
                Suppression {
                    silenced_by: self.silences.silencing(&alert, self.now),
                    inhibited_by: inhibitors.inhibiting(&alert),
                }
            } else {
                Suppression::default()
            };
            ListedAlert {
                alert,
                silenced_by: suppression.silenced_by,
                inhibited_by: suppression.inhibited_by,
            }
        };
        alerts.into_iter().map(listed).collect()
    }
}

/// An alert, and what holds it back at present.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ListedAlert {
    /// The alert.
    #[serde(flatten)]
    pub alert: Alert,
    /// Silences that hold for it.
    #[schema(value_type = Vec<Uuid>)]
    pub silenced_by: Vec<SilenceId>,
    /// Firing alerts that say it all.
    #[schema(value_type = Vec<Uuid>)]
    pub inhibited_by: Vec<AlertId>,
}

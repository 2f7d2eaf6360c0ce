//! Routes: who is told of which alerts, in which groups, and how often.
//!
//! Routes are an ordered list. An alert takes the first one whose matchers hold for it, and goes on to later ones as long as the
//! route that it took says `continue`. The timing is Alertmanager's: a new group waits `group_wait` for more of the same, a change is
//! told `group_interval` after the notification before it at the earliest, and what goes on unchanged is told again after
//! `repeat_interval`.

use std::collections::BTreeMap;
use std::time::Duration;

use farol_event::Alert;
use farol_matcher::Matchers;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::label;

/// When the notifications of a group are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupTiming {
    /// How long a new group waits for more alerts before its first notification.
    pub wait: Duration,
    /// The time between two notifications of a group that has changed.
    pub interval: Duration,
    /// After how long an unchanged group is told again.
    pub repeat: Duration,
}

impl Default for GroupTiming {
    /// 30 seconds, 5 minutes, 4 hours.
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            interval: Duration::from_secs(300),
            repeat: Duration::from_secs(4 * 3600),
        }
    }
}

/// What makes a group of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    /// Equal values of these labels; of none: everything together.
    Labels(Vec<String>),
    /// Every alert is a group of its own.
    EveryAlert,
}

impl Default for GroupBy {
    /// The rule.
    fn default() -> Self {
        GroupBy::Labels(vec![label::ALERTNAME.to_owned()])
    }
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which alerts take it.
    pub matchers: Matchers,
    /// Who is told, by name.
    pub receivers: Vec<String>,
    /// Whether an alert that takes it looks at later routes too.
    pub goes_on: bool,
    /// What makes a group.
    pub group_by: GroupBy,
    /// When notifications are due.
    pub timing: GroupTiming,
}

/// The routes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes(pub Vec<Route>);

impl Routes {
    /// The routes that `alert` takes.
    pub fn of(&self, alert: &Alert) -> impl Iterator<Item = &Route> {
        let mut done = false;
        self.0.iter().filter(move |route| {
            let taken = !done && route.matchers.hold(|name| label::value(alert, name));
            done |= taken && !route.goes_on;
            taken
        })
    }

    /// The receivers of `alert`, each once, in the order of routes.
    pub fn receivers(&self, alert: &Alert) -> Vec<&str> {
        let mut receivers: Vec<&str> = Vec::new();
        for receiver in self.of(alert).flat_map(|route| &route.receivers) {
            if !receivers.contains(&receiver.as_str()) {
                receivers.push(receiver);
            }
        }
        receivers
    }

    /// Every receiver that a route names.
    pub fn all_receivers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|route| &route.receivers).map(String::as_str)
    }
}

/// Which group an alert is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey {
    /// The matchers of its route.
    pub route: String,
    /// Who is told.
    pub receiver: String,
    /// What its alerts have in common.
    pub labels: BTreeMap<String, String>,
}

impl GroupKey {
    /// UUID v5 namespace of the ids of groups and their notifications.
    pub(crate) const NAMESPACE: Uuid = Uuid::from_u128(0x6fa4_01a1_e127_5d0e_9c3b_5a1e_47f0_a104);

    /// The group of `alert` on `route` for one of its receivers.
    pub fn of(alert: &Alert, route: &Route, receiver: &str) -> Self {
        let labels = match &route.group_by {
            GroupBy::EveryAlert => label::all(alert),
            GroupBy::Labels(names) => {
                let value = |name: &String| (name.clone(), label::value(alert, name).to_owned());
                names.iter().map(value).filter(|(_, value)| !value.is_empty()).collect()
            }
        };
        Self { route: route.matchers.to_string(), receiver: receiver.to_owned(), labels }
    }

    /// The group that takes in what would be one group too many: that of the route as a whole.
    pub(crate) fn overflow(self) -> Self {
        Self { labels: BTreeMap::new(), ..self }
    }

    /// A text that tells groups of one receiver apart: `{severity="critical"}:{alertname="hot"}`.
    pub fn text(&self) -> String {
        let label = |(name, value): (&String, &String)| format!("{name}={value:?}");
        let labels: Vec<String> = self.labels.iter().map(label).collect();
        format!("{}:{{{}}}", self.route, labels.join(", "))
    }

    /// An id made of all of it.
    pub fn id(&self) -> Uuid {
        let name = format!("{}:{}{}", self.receiver.len(), self.receiver, self.text());
        Uuid::new_v5(&Self::NAMESPACE, name.as_bytes())
    }
}

#[cfg(test)]
mod tests;

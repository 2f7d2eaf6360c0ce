//! One group of alerts on its way to one receiver: when something is due to be said, what, and what was said last.
//!
//! ```text
//! first alert ──wait──► look ──► (nothing to say) ──interval──► look ──► …
//!                         └────► notification on its way ──delivered──► interval after the look
//!                                                        └─gave up────► the same is due again, as it stands then
//! ```
//!
//! A look finds something to say when an alert fires that was not told, when one resolved that was told, or when the last notification
//! is older than the repeat interval while something fires that nobody has acknowledged. Alerts that are silenced or inhibited are
//! left out, and told if they still fire when that is over. An alert that resolves before it was told is never told.
//!
//! At most one notification of a group is on its way: what happens meanwhile is said by the next one.

use std::collections::{BTreeMap, BTreeSet};

use farol_event::{Alert, AlertId, AlertStatus, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::route::{GroupKey, GroupTiming};
use crate::silence::SilenceId;

/// Why an alert is not told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Suppression {
    /// Silences that are in force for it.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub silenced_by: Vec<SilenceId>,
    /// Firing alerts that say it all.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub inhibited_by: Vec<AlertId>,
}

impl Suppression {
    /// Whether nothing holds the alert back.
    pub fn is_none(&self) -> bool {
        self.silenced_by.is_empty() && self.inhibited_by.is_empty()
    }

    /// In words.
    pub fn reason(&self) -> String {
        let list = |ids: Vec<String>| ids.join(", ");
        let silenced = list(self.silenced_by.iter().map(ToString::to_string).collect());
        let inhibited = list(self.inhibited_by.iter().map(ToString::to_string).collect());
        match (silenced.is_empty(), inhibited.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!("silenced by {silenced}"),
            (true, false) => format!("inhibited by alert {inhibited}"),
            (false, false) => format!("silenced by {silenced}; inhibited by alert {inhibited}"),
        }
    }
}

/// Why a notification is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The first of its group.
    First,
    /// Alerts fired or resolved since the last one.
    Changed,
    /// Nothing fires any more.
    Resolved,
    /// It still fires, and nobody has acknowledged.
    Repeat,
}

/// One notification of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// The same for every attempt at the same content, after a restart too.
    pub id: Uuid,
    /// Its group.
    pub group: GroupKey,
    /// Why it is sent.
    pub reason: Reason,
    /// What fires, by id.
    pub firing: Vec<Alert>,
    /// What resolved since the last one, by id.
    pub resolved: Vec<Alert>,
}

/// How a notification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody has it.
    Delivered,
    /// The receiver will never take it; saying the same again makes no sense.
    Refused,
    /// The receiver could not be reached for as long as was tried.
    GaveUp,
}

/// What was said last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// When; nothing if never.
    pub at: Option<Timestamp>,
    /// How many notifications there were.
    pub sequence: u64,
    /// Alerts that were said to fire and have not been said to be resolved.
    pub firing: BTreeSet<AlertId>,
}

/// A group.
#[derive(Debug, Clone)]
pub struct Group {
    members: BTreeSet<AlertId>,
    told: Told,
    next_look: Timestamp,
    /// Alerts of which it was recorded that they are held back, and whether they fired then.
    held_back: BTreeMap<AlertId, bool>,
    on_its_way: Option<OnItsWay>,
}

#[derive(Debug, Clone)]
struct OnItsWay {
    firing: BTreeSet<AlertId>,
    resolved: BTreeSet<AlertId>,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    /// What to say, if there is something.
    pub say: Option<Saying>,
    /// Alerts that are newly held back.
    pub held_back: Vec<(AlertId, Suppression)>,
    /// Alerts that are no longer in the group.
    pub dropped: Vec<AlertId>,
}

/// What is to be said.
#[derive(Debug, PartialEq)]
pub struct Saying {
    /// Why.
    pub reason: Reason,
    /// What fires.
    pub firing: Vec<AlertId>,
    /// What resolved.
    pub resolved: Vec<AlertId>,
    /// How many notifications of the group there were before.
    pub sequence: u64,
}

impl Saying {
    /// The id of this notification of the group `key`.
    pub fn id(&self, key: &GroupKey) -> Uuid {
        let ids = |ids: &[AlertId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let text = format!("{}/{}/{}/{}", key.id(), self.sequence, ids(&self.firing), ids(&self.resolved));
        Uuid::new_v5(&GroupKey::NAMESPACE, text.as_bytes())
    }
}

impl Group {
    /// A group that begins now.
    pub fn new(timing: GroupTiming, now: Timestamp) -> Self {
        Self {
            members: BTreeSet::new(),
            told: Told::default(),
            next_look: now.saturating_add(timing.wait),
            held_back: BTreeMap::new(),
            on_its_way: None,
        }
    }

    /// A group as it was saved; what happened meanwhile is looked at once its interval is over.
    pub fn restored(told: Told, timing: GroupTiming, now: Timestamp) -> Self {
        let next_look = told.at.map_or(now, |at| at.saturating_add(timing.interval));
        Self { told, next_look, ..Self::new(timing, now) }
    }

    /// Takes an alert in; whether it is new here.
    pub fn insert(&mut self, id: AlertId) -> bool {
        self.members.insert(id)
    }

    /// Whether it has no alerts.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Its alerts.
    pub fn members(&self) -> impl Iterator<Item = AlertId> {
        self.members.iter().copied()
    }

    /// What was said last.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// When to look next; never while a notification is on its way.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.on_its_way.is_none().then_some(self.next_look)
    }

    /// Looks at the alerts as they stand. If there is something to say, it counts as on its way until [`Group::ended`].
    pub fn look<'a>(
        &mut self,
        alert: impl Fn(AlertId) -> Option<&'a Alert>,
        suppression: impl Fn(&Alert) -> Suppression,
        timing: GroupTiming,
        send_resolved: bool,
        now: Timestamp,
    ) -> Look {
        self.next_look = now.saturating_add(timing.interval);
        let mut look = Look::default();
        let (mut firing, mut resolved, mut unacknowledged) = (Vec::new(), Vec::new(), false);
        for id in &self.members {
            let Some(alert) = alert(*id) else {
                look.dropped.push(*id);
                continue;
            };
            let fires = alert.status == AlertStatus::Firing;
            let was_told = self.told.firing.contains(id);
            let wanted = fires || (was_told && send_resolved);
            if !wanted {
                look.dropped.push(*id);
                continue;
            }
            let held = suppression(alert);
            if !held.is_none() {
                if self.held_back.insert(*id, fires) != Some(fires) {
                    look.held_back.push((*id, held));
                }
                // What ends while nobody is to be told is over without a word.
                if !fires {
                    look.dropped.push(*id);
                }
            } else if fires {
                self.held_back.remove(id);
                unacknowledged |= alert.acknowledgement.is_none();
                firing.push(*id);
            } else {
                resolved.push(*id);
            }
        }
        for id in &look.dropped {
            self.forget(*id);
        }
        let is_new = firing.iter().any(|id| !self.told.firing.contains(id));
        let overdue = self.told.at.is_none_or(|at| now >= at.saturating_add(timing.repeat));
        let reason = match self.told.at {
            None if !firing.is_empty() => Reason::First,
            _ if is_new || (!resolved.is_empty() && !firing.is_empty()) => Reason::Changed,
            _ if !resolved.is_empty() => Reason::Resolved,
            _ if !firing.is_empty() && overdue && unacknowledged => Reason::Repeat,
            _ => return look,
        };
        self.on_its_way = Some(OnItsWay {
            firing: firing.iter().copied().collect(),
            resolved: resolved.iter().copied().collect(),
        });
        look.say = Some(Saying { reason, firing, resolved, sequence: self.told.sequence });
        look
    }

    /// What became of the notification that was on its way; the alerts that are no longer in the group.
    pub fn ended(&mut self, how: Ended, now: Timestamp) -> Vec<AlertId> {
        let Some(sent) = self.on_its_way.take() else { return Vec::new() };
        if how == Ended::GaveUp {
            return Vec::new();
        }
        self.told.at = Some(now);
        self.told.sequence += 1;
        self.told.firing.extend(sent.firing);
        let over: Vec<AlertId> = sent.resolved.into_iter().collect();
        for id in &over {
            self.forget(*id);
        }
        over
    }

    fn forget(&mut self, id: AlertId) {
        self.members.remove(&id);
        self.told.firing.remove(&id);
        self.held_back.remove(&id);
    }
}

#[cfg(test)]
mod tests;

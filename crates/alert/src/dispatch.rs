//! Everything between alerts and receivers: alerts and silences in, notifications that are due out.
//!
//! The dispatcher follows the facts (transitions, silences), keeps every firing alert and every group, and says at any instant which
//! notifications are due. It does nothing itself: whoever sends them tells how each ended. What it must not forget it hands out as
//! [`SavedRecord`]s of what changed, by key, to be committed together with the position in the log; given back to a new dispatcher,
//! they make it go on where the old one stood. Groups are made anew from alerts by the routes in force, so that routes can be
//! changed between two runs.
//!
//! Limits: [`MAX_ALERTS`] (a transition beyond it is refused with the reason), [`MAX_GROUPS`] (what would be one more joins the group of
//! its route as a whole).

use std::collections::{BTreeMap, BTreeSet};

use farol_event::{Alert, AlertId, AlertStatus, AlertTransition, Timestamp, TransitionKind};
use serde::{Deserialize, Serialize};

use crate::group::{Ended, Group, Notification, Suppression, Told};
use crate::inhibit::{InhibitRule, Inhibitors};
use crate::lifecycle::{Folded, fold};
use crate::route::{GroupKey, GroupTiming, Route, Routes};
use crate::silence::{Silence, SilenceBook, SilenceFact, SilenceState};

/// How many alerts are followed at a time.
pub const MAX_ALERTS: usize = 100_000;
/// How many groups there are at a time.
pub const MAX_GROUPS: usize = 10_000;

/// Who is told, as far as that matters for deciding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverRules {
    /// Whether it is told that alerts resolved.
    pub send_resolved: bool,
}

/// Why a transition was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_ALERTS} alerts fire already; alert {0} is not followed, and nobody is told about it by routes")]
pub struct TooManyAlerts(pub AlertId);

/// An alert that somebody would have been told of.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldBack {
    /// The alert as it stands.
    pub alert: Alert,
    /// Who would have been told.
    pub receiver: String,
    /// Why nobody is.
    pub suppression: Suppression,
}

/// What is due.
#[derive(Debug, Default)]
pub struct Due {
    /// Notifications to be sent.
    pub notifications: Vec<Notification>,
    /// Alerts that are newly held back.
    pub held_back: Vec<HeldBack>,
}

/// One record of what must not be forgotten: a key, and a value unless it may be forgotten now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRecord {
    /// Its key.
    pub key: String,
    /// Its value; nothing takes the key back.
    pub value: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Saved {
    Alert(Box<Alert>),
    Silence(Silence),
    Group { key: GroupKey, told: Told },
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
    #[serde(flatten)]
    saved: Saved,
}

const VERSION: u32 = 1;

#[derive(Debug, Clone)]
struct Followed {
    alert: Alert,
    /// In how many groups it is.
    groups: usize,
}

#[derive(Debug)]
struct Routed {
    group: Group,
    timing: GroupTiming,
}

/// See the module.
#[derive(Debug)]
pub struct Dispatcher {
    routes: Routes,
    inhibit: Vec<InhibitRule>,
    receivers: BTreeMap<String, ReceiverRules>,
    alerts: BTreeMap<AlertId, Followed>,
    silences: SilenceBook,
    groups: BTreeMap<GroupKey, Routed>,
    restored_groups: BTreeMap<GroupKey, Told>,
    changed: Changed,
}

#[derive(Debug, Default)]
struct Changed {
    alerts: BTreeSet<AlertId>,
    silences: BTreeSet<crate::silence::SilenceId>,
    groups: BTreeSet<GroupKey>,
}

impl Dispatcher {
    /// Without alerts. Routes to receivers that `receivers` doesn't have lead nowhere.
    pub fn new(
        routes: Routes,
        inhibit: Vec<InhibitRule>,
        receivers: BTreeMap<String, ReceiverRules>,
    ) -> Self {
        Self {
            routes,
            inhibit,
            receivers,
            alerts: BTreeMap::new(),
            silences: SilenceBook::default(),
            groups: BTreeMap::new(),
            restored_groups: BTreeMap::new(),
            changed: Changed::default(),
        }
    }

    /// Follows one transition.
    ///
    /// # Errors
    /// [`TooManyAlerts`]; everything else stands as it was.
    pub fn apply(&mut self, transition: &AlertTransition, now: Timestamp) -> Result<(), TooManyAlerts> {
        let id = transition.alert.id;
        let current = self.alerts.get(&id).map(|followed| &followed.alert);
        if current.is_none() && transition.kind != TransitionKind::Fired {
            // Nobody was told of it, so nobody needs to hear how it went on.
            return Ok(());
        }
        let Ok(Folded::Changed(next)) = fold(current, transition) else { return Ok(()) };
        if let Some(followed) = self.alerts.get_mut(&id) {
            followed.alert = *next;
        } else if self.alerts.len() >= MAX_ALERTS {
            return Err(TooManyAlerts(id));
        } else {
            let groups = self.join(&next, now);
            self.alerts.insert(id, Followed { alert: *next, groups });
        }
        self.changed.alerts.insert(id);
        self.drop_if_over(id);
        Ok(())
    }

    /// Puts an alert into its groups; how many those are.
    fn join(&mut self, alert: &Alert, now: Timestamp) -> usize {
        let mut joined = 0;
        let routes: Vec<Route> = self.routes.of(alert).cloned().collect();
        for route in &routes {
            let known = route.receivers.iter().filter(|receiver| self.receivers.contains_key(*receiver));
            for receiver in known.collect::<Vec<_>>() {
                let mut key = GroupKey::of(alert, route, receiver);
                if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
                    key = key.overflow();
                }
                let told = self.restored_groups.get(&key);
                let routed = self.groups.entry(key).or_insert_with(|| Routed {
                    group: told.map_or_else(
                        || Group::new(route.timing, now),
                        |told| Group::restored(told.clone(), route.timing, now),
                    ),
                    timing: route.timing,
                });
                joined += usize::from(routed.group.insert(alert.id));
            }
        }
        joined
    }

    /// Forgets an alert that is over and in no group.
    fn drop_if_over(&mut self, id: AlertId) {
        let over = |followed: &Followed| followed.groups == 0 && followed.alert.status != AlertStatus::Firing;
        if self.alerts.get(&id).is_some_and(over) {
            self.alerts.remove(&id);
            self.changed.alerts.insert(id);
        }
    }

    /// Follows one fact about silences; whether it changed anything.
    pub fn apply_silence(&mut self, fact: &SilenceFact) -> bool {
        let changed = self.silences.apply(fact).is_some();
        if changed {
            self.changed.silences.insert(fact.id());
        }
        changed
    }

    /// Every silence that is known.
    pub fn silences(&self) -> &SilenceBook {
        &self.silences
    }

    /// How many alerts are followed.
    pub fn alerts(&self) -> usize {
        self.alerts.len()
    }

    /// The next instant at which [`Dispatcher::due`] may have something for receivers that have room.
    pub fn next_due(&self, room: impl Fn(&str) -> usize) -> Option<Timestamp> {
        let with_room = self.groups.iter().filter(|(key, _)| room(&key.receiver) > 0);
        with_room.filter_map(|(_, routed)| routed.group.next_look()).min()
    }

    /// What is due at `now`. `room` says how many notifications more a receiver takes at present; what finds no room stays due.
    /// Every notification must come back to [`Dispatcher::ended`].
    pub fn due(&mut self, now: Timestamp, room: impl Fn(&str) -> usize) -> Due {
        let mut due = Due::default();
        let is_due = |routed: &Routed| routed.group.next_look().is_some_and(|at| at <= now);
        if !self.groups.values().any(is_due) {
            return due;
        }
        let (alerts, silences) = (&self.alerts, &self.silences);
        let inhibitors = Inhibitors::new(&self.inhibit, alerts.values().map(|followed| &followed.alert));
        let suppression = |alert: &Alert| Suppression {
            silenced_by: silences.silencing(alert, now),
            inhibited_by: inhibitors.inhibiting(alert),
        };
        let alert = |id: AlertId| alerts.get(&id).map(|followed| &followed.alert);
        let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
        let mut dropped = Vec::new();
        for (key, routed) in self.groups.iter_mut().filter(|(_, routed)| is_due(routed)) {
            let taken = taken.entry(&key.receiver).or_default();
            if *taken >= room(&key.receiver) {
                continue;
            }
            let send_resolved = self.receivers.get(&key.receiver).is_none_or(|rules| rules.send_resolved);
            let look = routed.group.look(alert, suppression, routed.timing, send_resolved, now);
            if let Some(saying) = look.say {
                *taken += 1;
                let all = |ids: &[AlertId]| ids.iter().filter_map(|id| alert(*id)).cloned().collect();
                due.notifications.push(Notification {
                    id: saying.id(key),
                    group: key.clone(),
                    reason: saying.reason,
                    firing: all(&saying.firing),
                    resolved: all(&saying.resolved),
                });
            }
            for (id, suppression) in look.held_back {
                let receiver = key.receiver.clone();
                due.held_back.extend(alert(id).cloned().map(|alert| HeldBack {
                    alert,
                    receiver,
                    suppression,
                }));
            }
            if !look.dropped.is_empty() {
                self.changed.groups.insert(key.clone());
            }
            dropped.extend(look.dropped);
        }
        self.left(&dropped);
        due
    }

    /// What became of a notification.
    pub fn ended(&mut self, key: &GroupKey, how: Ended, now: Timestamp) {
        let Some(routed) = self.groups.get_mut(key) else { return };
        let over = routed.group.ended(how, now);
        if how != Ended::GaveUp {
            self.changed.groups.insert(key.clone());
        }
        self.left(&over);
    }

    /// Alerts have left a group each.
    fn left(&mut self, ids: &[AlertId]) {
        for id in ids {
            if let Some(followed) = self.alerts.get_mut(id) {
                followed.groups = followed.groups.saturating_sub(1);
            }
            self.drop_if_over(*id);
        }
        let changed = &mut self.changed.groups;
        self.groups.retain(|key, routed| {
            let keep = !routed.group.is_empty() || routed.group.next_look().is_none();
            if !keep {
                changed.insert(key.clone());
            }
            keep
        });
    }

    /// Forgets silences that are over.
    pub fn forget_silences(&mut self, now: Timestamp) {
        self.changed.silences.extend(self.silences.forget_ended(now));
    }

    /// Whether there is something to save.
    pub fn has_changed(&self) -> bool {
        let Changed { alerts, silences, groups } = &self.changed;
        !(alerts.is_empty() && silences.is_empty() && groups.is_empty())
    }

    /// What changed since the last call.
    pub fn take_changed(&mut self) -> Vec<SavedRecord> {
        let Changed { alerts, silences, groups } = std::mem::take(&mut self.changed);
        let mut records = Vec::with_capacity(alerts.len() + silences.len() + groups.len());
        for id in alerts {
            let saved = self.alerts.get(&id).map(|followed| Saved::Alert(Box::new(followed.alert.clone())));
            records.push(record(format!("a:{id}"), saved));
        }
        for id in silences {
            records.push(record(format!("s:{id}"), self.silences.get(id).cloned().map(Saved::Silence)));
        }
        for key in groups {
            let told = self.groups.get(&key).map(|routed| routed.group.told());
            let told = told.filter(|told| told.at.is_some()).cloned();
            let name = format!("g:{}", key.id());
            records.push(record(name, told.map(|told| Saved::Group { key, told })));
        }
        records
    }

    /// Takes one record back. Of several with one key only the last one counts, so give only that one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(&mut self, value: &[u8]) -> Result<(), String> {
        let Versioned { version, saved } = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        if version != VERSION {
            return Err(format!("version {version} is not {VERSION}"));
        }
        match saved {
            Saved::Alert(alert) => {
                self.alerts.insert(alert.id, Followed { alert: *alert, groups: 0 });
            }
            Saved::Silence(silence) => self.silences.restore(silence),
            Saved::Group { key, told } => {
                self.restored_groups.insert(key, told);
            }
        }
        Ok(())
    }

    /// Makes the groups of what was restored, by the routes in force now.
    pub fn restored(&mut self, now: Timestamp) {
        let alerts: Vec<Alert> = self.alerts.values().map(|followed| followed.alert.clone()).collect();
        for alert in alerts {
            let groups = self.join(&alert, now);
            if let Some(followed) = self.alerts.get_mut(&alert.id) {
                followed.groups = groups;
            }
            self.drop_if_over(alert.id);
        }
        for key in std::mem::take(&mut self.restored_groups).into_keys() {
            if !self.groups.contains_key(&key) {
                self.changed.groups.insert(key);
            }
        }
    }

    /// How many silences are in force at `now`.
    pub fn active_silences(&self, now: Timestamp) -> usize {
        self.silences.iter().filter(|silence| silence.state(now) == SilenceState::Active).count()
    }
}

fn record(key: String, saved: Option<Saved>) -> SavedRecord {
    let value = saved.map(|saved| {
        serde_json::to_vec(&Versioned { version: VERSION, saved })
            .expect("what is saved has only string keys and finite numbers, so it serialises")
    });
    SavedRecord { key, value }
}

#[cfg(test)]
mod tests;

//! Many alerts in memory, folded from the topic `alerts`.
//!
//! For whoever needs alerts without a store: the notifier after a restart, a backtest, a test. It holds every alert that it was
//! given until [`AlertBook::forget_ended`] is called; a long-running owner calls it.

use std::collections::{BTreeMap, btree_map};

use farol_event::{Alert, AlertId, AlertStatus, AlertTransition, Timestamp};

use crate::lifecycle::{Folded, Illegal, fold};

/// Alerts by id, with never two active ones for one rule and series.
#[derive(Debug, Clone, Default)]
pub struct AlertBook {
    alerts: BTreeMap<AlertId, Alert>,
    /// The pending or firing alert of each series and rule.
    active: BTreeMap<(String, String), AlertId>,
}

/// Why a transition doesn't fit into the book. The book stands unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// It can't follow what its alert went through.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// Another alert of this rule and series is still pending or firing.
    #[error("alert {new} can't begin: alert {active} of rule `{rule}` and series `{series}` has not ended")]
    SecondActive {
        /// The alert that was to begin.
        new: AlertId,
        /// The one that has not ended.
        active: AlertId,
        /// Their rule.
        rule: String,
        /// Their series.
        series: String,
    },
}

impl AlertBook {
    /// An empty book.
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds one transition. The alert as it stands after it.
    ///
    /// # Errors
    /// [`BookError`] if it doesn't fit; the book stands unchanged.
    pub fn apply(&mut self, transition: &AlertTransition) -> Result<&Alert, BookError> {
        let id = transition.alert.id;
        let folded = fold(self.alerts.get(&id), transition)?;
        if let Folded::Changed(next) = &folded {
            let key = (next.series.clone(), next.rule.clone());
            match self.active.get(&key) {
                Some(active) if *active != id && is_active(next) => {
                    let (series, rule) = key;
                    return Err(BookError::SecondActive { new: id, active: *active, rule, series });
                }
                Some(active) if *active == id && !is_active(next) => {
                    self.active.remove(&key);
                }
                None if is_active(next) => {
                    self.active.insert(key, id);
                }
                _ => {}
            }
        }
        Ok(match (self.alerts.entry(id), folded) {
            (btree_map::Entry::Occupied(entry), Folded::Changed(next)) => {
                let alert = entry.into_mut();
                *alert = *next;
                alert
            }
            (btree_map::Entry::Occupied(entry), Folded::Unchanged) => entry.into_mut(),
            (btree_map::Entry::Vacant(entry), Folded::Changed(next)) => entry.insert(*next),
            // `fold` answers the first transition of an alert with a change or a refusal; if ever not, keep what came.
            (btree_map::Entry::Vacant(entry), Folded::Unchanged) => entry.insert(transition.alert.clone()),
        })
    }

    /// The alert of that id.
    pub fn get(&self, id: AlertId) -> Option<&Alert> {
        self.alerts.get(&id)
    }

    /// The pending or firing alert of a rule and series.
    pub fn active(&self, rule: &str, series: &str) -> Option<&Alert> {
        self.alerts.get(self.active.get(&(series.to_owned(), rule.to_owned()))?)
    }

    /// Every pending or firing alert, by series and rule.
    pub fn all_active(&self) -> impl Iterator<Item = &Alert> {
        self.active.values().filter_map(|id| self.alerts.get(id))
    }

    /// Every alert, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    /// How many alerts are in the book.
    pub fn len(&self) -> usize {
        self.alerts.len()
    }

    /// Whether the book is empty.
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty()
    }

    /// Forgets alerts that ended before `before`. Transitions of theirs that are read again are refused from then on.
    pub fn forget_ended(&mut self, before: Timestamp) {
        self.alerts.retain(|_, alert| is_active(alert) || alert.ended_at.is_none_or(|ended| ended >= before));
    }
}

fn is_active(alert: &Alert) -> bool {
    matches!(alert.status, AlertStatus::Pending | AlertStatus::Firing)
}

#[cfg(test)]
mod tests;

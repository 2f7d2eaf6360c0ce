//! Absence of data: which series to look at when, and what has become of them by then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use farol_event::{AlertTransition, Timestamp};

use super::judge::{self, Place, Subject};
use super::series::{RuleState, Series, rule_at};
use crate::rule_set::RuleSet;

/// Instants and the slots of the series to look at then, the earliest on top.
pub(super) type Timers = BinaryHeap<Reverse<(Timestamp, u32)>>;

/// Looks after the absence rules of a series.
pub(super) struct AbsenceWatch<'a> {
    pub rules: &'a RuleSet,
    pub place: &'a Place,
    pub listening_since: Timestamp,
}

impl AbsenceWatch<'_> {
    /// A reading arrived: what was due before it fires, and then all absence ends of which it is good enough to be the end.
    pub fn reading_arrived(
        &self,
        series: &mut Series,
        quality: Option<f64>,
        arrival: Timestamp,
        out: &mut Vec<AlertTransition>,
    ) {
        self.time_passed(series, arrival, out);
        for state in &mut series.states {
            let subject = Subject { place: self.place, id: &series.id, labels: &series.labels };
            if rule_at(self.rules, state.rule).is_some_and(|rule| rule.trusts(quality)) {
                judge::arrived(state, subject, (arrival, series.applied_through), out);
            }
        }
    }

    /// Fires what was due until `now`.
    pub fn time_passed(&self, series: &mut Series, now: Timestamp, out: &mut Vec<AlertTransition>) {
        let before = out.len();
        for state in &mut series.states {
            let Some(rule) = rule_at(self.rules, state.rule) else { continue };
            let subject = Subject { place: self.place, id: &series.id, labels: &series.labels };
            judge::absence(rule, state, subject, (now, self.listening_since), out);
        }
        // Rules of different patience were due at different times.
        if let Some(new) = out.get_mut(before..) {
            new.sort_by_key(|transition| transition.at);
        }
    }

    /// Sees to it that the series is looked at when it becomes absent.
    pub fn arm(&self, timers: &mut Timers, slot: u32, series: &mut Series) {
        let due = |state: &RuleState| {
            rule_at(self.rules, state.rule)
                .and_then(|rule| judge::absent_at(rule, state, self.listening_since))
        };
        let next = series.states.iter().filter_map(due).min();
        // A reading moves the instant on; the entry already there comes too early then, and is renewed when it is due.
        if let Some(next) = next
            && series.armed.is_none_or(|armed| next < armed)
        {
            series.armed = Some(next);
            timers.push(Reverse((next, slot)));
        }
    }
}

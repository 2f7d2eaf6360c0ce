//! What is remembered of one series, and of each rule that is about it.

use std::sync::Arc;

use farol_event::{Alert, AlertId, AlertStatus, Timestamp};

use super::labels::Labels;
use super::rate::Samples;
use crate::condition::Condition;
use crate::rule::{Rule, RuleFacts};
use crate::rule_set::RuleSet;

/// One series. Kept small: a partition may have hundreds of thousands.
#[derive(Debug)]
pub(crate) struct Series {
    pub id: Box<str>,
    pub labels: Labels,
    /// Offset of the newest record applied to it.
    pub applied_through: i64,
    /// The newest time at which a reading was judged; older readings are late.
    pub newest: Timestamp,
    /// The newest arrival of any reading.
    pub last_arrival: Timestamp,
    /// Changed since its state was last taken.
    pub dirty: bool,
    /// Its earliest entry among the timers.
    pub armed: Option<Timestamp>,
    /// One for every enabled rule that selects it, in the order of the rules.
    pub rules: Box<[RuleState]>,
}

/// What is remembered of one rule and series.
#[derive(Debug)]
pub(crate) struct RuleState {
    /// Index in the rule set.
    pub rule: u32,
    /// The earliest instant at which its next alert can begin: after the beginning of the last one, since an alert's id
    /// is made from rule, series and beginning.
    pub not_before: Timestamp,
    pub memory: Memory,
    pub active: Option<Box<Active>>,
}

/// What a condition needs to remember of earlier readings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Memory {
    /// Nothing: the condition looks at one reading at a time.
    Nothing,
    /// For a rate of change.
    Samples(Box<Samples>),
    /// For absence: when the last reading that counts arrived, and its offset.
    Arrival { at: Timestamp, offset: i64 },
}

/// An alert that is pending or firing.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    pub facts: Arc<RuleFacts>,
    pub id: AlertId,
    /// The series' labels when the alert began.
    pub labels: Labels,
    pub summary: String,
    pub value: Option<f64>,
    pub began_at: Timestamp,
    /// The reading with which the condition began (for absence, the last before it).
    pub began_offset: i64,
    pub fired_at: Option<Timestamp>,
    /// While firing: since when the value has been clear, and the reading that showed it.
    pub clearing: Option<(Timestamp, i64)>,
}

impl Active {
    /// When its newest transition happened.
    pub fn changed_at(&self) -> Timestamp {
        self.fired_at.unwrap_or(self.began_at)
    }

    /// The alert as it stands.
    pub fn alert(&self, series: &str) -> Alert {
        Alert {
            id: self.id,
            rule: self.facts.name.clone(),
            rule_definition: self.facts.definition.clone(),
            series: series.to_owned(),
            labels: self.labels.of_alert(series, &self.facts.labels),
            severity: self.facts.severity,
            status: if self.fired_at.is_some() { AlertStatus::Firing } else { AlertStatus::Pending },
            summary: self.summary.clone(),
            value: self.value,
            began_at: self.began_at,
            fired_at: self.fired_at,
            ended_at: None,
            acknowledgement: None,
        }
    }
}

/// When and where a series' rules come into force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce {
    /// From when on absence is counted.
    pub since: Timestamp,
}

impl RuleState {
    pub fn new(index: usize, rule: &Rule, series_offset: i64, in_force: InForce) -> Self {
        let memory = match rule.condition() {
            Condition::Value(_) => Memory::Nothing,
            Condition::Rate { .. } => Memory::Samples(Box::default()),
            Condition::Absent(_) => Memory::Arrival { at: in_force.since, offset: series_offset },
        };
        // A rule set has at most `MAX_RULES` rules, far below the range.
        let rule = u32::try_from(index).unwrap_or(u32::MAX);
        Self { rule, not_before: Timestamp::EPOCH, memory, active: None }
    }
}

impl Series {
    /// Matches the series with `rules` anew. `earlier` says which of its states belongs to a rule and goes on,
    /// `selects` whether a rule is about the series. Alerts whose rule is no longer there are returned.
    pub fn rematch(
        &mut self,
        rules: &RuleSet,
        in_force: InForce,
        mut earlier: impl FnMut(usize) -> Option<u32>,
        mut selects: impl FnMut(usize, &Rule, &Labels, &str) -> bool,
    ) -> Vec<Active> {
        let mut old: Vec<Option<RuleState>> = std::mem::take(&mut self.rules).into_iter().map(Some).collect();
        let mut new = Vec::new();
        for (index, rule) in rules.rules().iter().enumerate() {
            if !rule.enabled() || !selects(index, rule, &self.labels, &self.id) {
                continue;
            }
            let fresh = RuleState::new(index, rule, self.applied_through, in_force);
            let was = earlier(index);
            let is_it =
                |state: &&mut Option<RuleState>| state.as_ref().is_some_and(|state| Some(state.rule) == was);
            new.push(match old.iter_mut().find(is_it).and_then(Option::take) {
                Some(state) => RuleState { rule: fresh.rule, ..state },
                None => fresh,
            });
        }
        self.rules = new.into_boxed_slice();
        let ended: Vec<Active> =
            old.into_iter().flatten().filter_map(|state| state.active.map(|active| *active)).collect();
        self.keep_ids_apart(rules, &ended);
        ended
    }

    /// A rule that changed keeps its name, and so could make the id of its predecessor's alert again.
    pub fn keep_ids_apart(&mut self, rules: &RuleSet, ended: &[Active]) {
        for state in &mut self.rules {
            let Some(rule) = rule_at(rules, state.rule) else { continue };
            for alert in ended.iter().filter(|alert| alert.facts.name == rule.name()) {
                state.not_before = state.not_before.max(just_after(alert.began_at));
            }
        }
    }
}

/// The rule of a state.
pub(crate) fn rule_at(rules: &RuleSet, index: u32) -> Option<&Arc<Rule>> {
    rules.rules().get(usize::try_from(index).ok()?)
}

/// The next instant.
pub(crate) fn just_after(at: Timestamp) -> Timestamp {
    at.saturating_add(std::time::Duration::from_micros(1))
}

//! What is remembered of one series, and of each rule that is about it.

use std::sync::Arc;

use farol_event::{Alert, AlertId, AlertStatus, Timestamp};

use super::labels::{Labels, Shared};
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
    /// The enabled rules that select it, as indices in the rule set, in order.
    pub selected: Arc<[u32]>,
    /// What is remembered, in the order of the rules. A rule that looks at one reading at a time has nothing to remember
    /// while all is well, so most series have none.
    pub states: Vec<RuleState>,
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
    /// What a rule remembers of a series that it hasn't seen yet, if it remembers anything before an alert begins.
    fn at_first(index: u32, rule: &Rule, series_offset: i64, in_force: InForce) -> Option<Self> {
        let memory = match rule.condition() {
            Condition::Value(_) => return None,
            Condition::Rate { .. } => Memory::Samples(Box::default()),
            Condition::Absent(_) => Memory::Arrival { at: in_force.since, offset: series_offset },
        };
        Some(Self { memory, ..Self::nothing(index) })
    }

    pub fn nothing(rule: u32) -> Self {
        Self { rule, not_before: Timestamp::EPOCH, memory: Memory::Nothing, active: None }
    }

    /// Whether there is anything in it that matters to readings of `newest` and later.
    pub fn matters(&self, newest: Timestamp) -> bool {
        self.active.is_some() || self.memory != Memory::Nothing || self.not_before > newest
    }
}

impl Series {
    /// Matches the series with `rules` anew. `earlier` says where a rule stood before, if it did; what is remembered of it
    /// goes on then. `selects` says whether a rule is about the series, given the earlier selection. Alerts whose rule is
    /// no longer there are returned.
    pub fn rematch(
        &mut self,
        rules: &RuleSet,
        shared: &mut Shared,
        in_force: InForce,
        mut earlier: impl FnMut(u32) -> Option<u32>,
        mut selects: impl FnMut(u32, &Rule, &Self) -> bool,
    ) -> Vec<Active> {
        let mut old: Vec<Option<RuleState>> =
            std::mem::take(&mut self.states).into_iter().map(Some).collect();
        let (mut selected, mut states) = (Vec::new(), Vec::new());
        // A rule set has at most `MAX_RULES` rules, far below the range of an index.
        for (index, rule) in (0u32..).zip(rules.rules()) {
            if !rule.enabled() || !selects(index, rule, self) {
                continue;
            }
            selected.push(index);
            let was = earlier(index).filter(|was| self.selected.contains(was));
            let is_it =
                |state: &&mut Option<RuleState>| state.as_ref().is_some_and(|state| Some(state.rule) == was);
            match old.iter_mut().find(is_it).and_then(Option::take) {
                Some(state) => states.push(RuleState { rule: index, ..state }),
                None => states.extend(RuleState::at_first(index, rule, self.applied_through, in_force)),
            }
        }
        self.selected = shared.selection(&selected);
        self.states = states;
        let ended: Vec<Active> =
            old.into_iter().flatten().filter_map(|state| state.active.map(|active| *active)).collect();
        self.keep_ids_apart(rules, &ended);
        ended
    }

    /// A rule that changed keeps its name, and so could make the id of its predecessor's alert again.
    pub fn keep_ids_apart(&mut self, rules: &RuleSet, ended: &[Active]) {
        for alert in ended {
            let same_name =
                |index: &&u32| rule_at(rules, **index).is_some_and(|r| r.name() == alert.facts.name);
            let Some(index) = self.selected.iter().find(same_name).copied() else { continue };
            let state = state_of(&mut self.states, index);
            state.not_before = state.not_before.max(just_after(alert.began_at));
        }
    }
}

/// What is remembered of a rule, made if there is nothing yet. `states` are in the order of the rules.
pub(crate) fn state_of(states: &mut Vec<RuleState>, rule: u32) -> &mut RuleState {
    let at = states.partition_point(|state| state.rule < rule);
    if states.get(at).is_none_or(|state| state.rule != rule) {
        states.insert(at, RuleState::nothing(rule));
    }
    states.get_mut(at).expect("it was there or has just been inserted")
}

/// The rule of a state.
pub(crate) fn rule_at(rules: &RuleSet, index: u32) -> Option<&Arc<Rule>> {
    rules.rules().get(usize::try_from(index).ok()?)
}

/// The next instant.
pub(crate) fn just_after(at: Timestamp) -> Timestamp {
    at.saturating_add(std::time::Duration::from_micros(1))
}

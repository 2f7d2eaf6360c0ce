//! One rule, one series, one reading: what follows. The only place where alerts begin, fire and end.

use std::sync::Arc;
use std::time::Duration;

use farol_event::{AlertId, AlertStatus, AlertTransition, Evidence, Position, Timestamp, TransitionKind};

use super::labels::Labels;
use super::rate::{Sample, rate};
use super::series::{Active, Memory, RuleState, just_after};
use crate::condition::{Condition, Verdict};
use crate::duration::DurationText;
use crate::explain::{self, Finding, Found, RateOf};
use crate::measurement::ServiceEnd;
use crate::rule::Rule;
use crate::summary::{Summary, SummaryFacts};

/// Where the partition's records stand.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl Place {
    /// Positions of these offsets, in order and without repeats. Negative ones stand for no reading at all: an absence
    /// may begin before any reading that counts.
    fn positions(&self, mut offsets: Vec<i64>) -> Vec<Position> {
        offsets.retain(|offset| *offset >= 0);
        offsets.sort_unstable();
        offsets.dedup();
        let position =
            |offset| Position { topic: Arc::clone(&self.topic), partition: self.partition, offset };
        offsets.into_iter().map(position).collect()
    }
}

/// The series that is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub place: &'a Place,
    pub id: &'a str,
    pub labels: &'a Labels,
}

/// The reading that is judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The time at which it is judged, never older than the series' newest.
    pub at: Timestamp,
    pub value: f64,
    pub offset: i64,
}

/// Why an alert ended although its condition didn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndedBy {
    RuleRemoved,
    RuleChanged,
    RuleDisabled,
    NoLongerSelected,
    /// Its service, by the record at this offset.
    Service(ServiceEnd, i64),
}

/// Whether an alert begins with this value, when nothing is remembered of the rule.
pub(crate) fn begins(rule: &Rule, value: f64) -> bool {
    matches!(rule.condition(), Condition::Value(band) if band.judge(value) == Verdict::Breached)
}

/// Judges a reading by a rule about values or rates. Nothing for a rule about absence.
pub(crate) fn reading(
    rule: &Rule,
    state: &mut RuleState,
    subject: Subject<'_>,
    seen: Seen,
    out: &mut Vec<AlertTransition>,
) {
    let (verdict, finding) = match (rule.condition(), &mut state.memory) {
        (Condition::Value(band), _) => (band.judge(seen.value), Finding { compared: seen.value, rate: None }),
        (Condition::Rate { band, per, window }, Memory::Samples(samples)) => {
            let base = samples.base(seen.at, *window);
            samples.keep(Sample { at: seen.at, value: seen.value, offset: seen.offset }, *window);
            let Some(base) = base else { return };
            let compared = rate(&base, seen.value, seen.at, *per);
            let of = RateOf { base, value: seen.value, at: seen.at, per: *per };
            (band.judge(compared), Finding { compared, rate: Some(of) })
        }
        _ => return,
    };
    let judged = Judged { rule, subject, seen, finding };
    let Some(active) = &mut state.active else {
        if verdict == Verdict::Breached {
            judged.begin(state, out);
        }
        return;
    };
    match (active.fired_at, verdict) {
        (None, Verdict::Breached) => {
            if seen.at.since(active.began_at) >= rule.hold() {
                judged.fire(active, out);
            }
        }
        (None, Verdict::Between | Verdict::Clear) => {
            let transition = judged.dismissed(active);
            out.push(transition);
            state.active = None;
        }
        (Some(_), Verdict::Breached | Verdict::Between) => active.clearing = None,
        (Some(_), Verdict::Clear) => {
            let (clear_since, _) = *active.clearing.get_or_insert((seen.at, seen.offset));
            if seen.at.since(clear_since) >= rule.clear_for() {
                let transition = judged.resolved(active);
                out.push(transition);
                state.active = None;
            }
        }
    }
}

/// A reading with what was found about it.
struct Judged<'a> {
    rule: &'a Rule,
    subject: Subject<'a>,
    seen: Seen,
    finding: Finding,
}

impl Judged<'_> {
    fn begin(&self, state: &mut RuleState, out: &mut Vec<AlertTransition>) {
        let began_at = self.seen.at.max(state.not_before);
        state.not_before = just_after(began_at);
        let mut active = begin(self.rule, self.subject, began_at, self.seen.offset);
        active.summary = self.summary();
        active.value = Some(self.finding.compared);
        if self.rule.hold().is_zero() {
            active.fired_at = Some(began_at);
            let explanation = format!("{} is {}.", self.found(), self.breach_side());
            out.push(self.transition(TransitionKind::Fired, began_at, &active, vec![], explanation));
        } else {
            let (found, side, hold) = (self.found(), self.breach_side(), DurationText::new(self.rule.hold()));
            let explanation = format!("{found} is {side}; the rule asks that it stays so for {hold}.");
            out.push(self.transition(TransitionKind::Pending, began_at, &active, vec![], explanation));
        }
        state.active = Some(Box::new(active));
    }

    fn fire(&self, active: &mut Active, out: &mut Vec<AlertTransition>) {
        let at = self.seen.at.max(active.changed_at());
        active.fired_at = Some(at);
        active.summary = self.summary();
        active.value = Some(self.finding.compared);
        let (found, side, has_been) =
            (self.found(), self.breach_side(), explain::has_been(active.began_at, at));
        let hold = DurationText::new(self.rule.hold());
        let explanation = format!("{found} is {side}, and {has_been}; the rule asks for {hold}.");
        out.push(self.transition(TransitionKind::Fired, at, active, vec![active.began_offset], explanation));
    }

    fn dismissed(&self, active: &mut Active) -> AlertTransition {
        let at = self.seen.at.max(active.changed_at());
        active.value = Some(self.finding.compared);
        let held = DurationText::new(at.since(active.began_at));
        let hold = DurationText::new(self.rule.hold());
        let (found, side) = (self.found(), self.breach_side());
        let explanation = format!(
            "{found} is not {side}: the condition held for less than {held}, and the rule asks for {hold}."
        );
        self.transition(TransitionKind::Dismissed, at, active, vec![], explanation)
    }

    fn resolved(&self, active: &mut Active) -> AlertTransition {
        let at = self.seen.at.max(active.changed_at());
        active.value = Some(self.finding.compared);
        let (found, side) = (self.found(), explain::clear_side(self.rule, &self.subject.labels.unit));
        let (earlier, explanation) = match active.clearing {
            Some((since, offset)) if !self.rule.clear_for().is_zero() => {
                let clear_for = DurationText::new(self.rule.clear_for());
                let has_been = explain::has_been(since, at);
                (vec![offset], format!("{found} is {side}, and {has_been}; the rule asks for {clear_for}."))
            }
            _ => (vec![], format!("{found} is {side}.")),
        };
        self.transition(TransitionKind::Resolved, at, active, earlier, explanation)
    }

    fn transition(
        &self,
        kind: TransitionKind,
        at: Timestamp,
        active: &Active,
        mut offsets: Vec<i64>,
        explanation: String,
    ) -> AlertTransition {
        offsets.extend(self.finding.rate.map(|of| of.base.offset));
        offsets.push(self.seen.offset);
        let positions = self.subject.place.positions(offsets);
        let evidence = Evidence { positions, value: Some(self.finding.compared), explanation };
        transition(kind, at, active, self.subject.id, evidence)
    }

    fn found(&self) -> Found<'_> {
        Found { finding: self.finding, unit: &self.subject.labels.unit }
    }

    fn breach_side(&self) -> String {
        explain::breach_side(self.rule, &self.subject.labels.unit)
    }

    fn summary(&self) -> String {
        match self.rule.summary() {
            Some(template) => {
                let threshold = explain::threshold(self.rule, self.finding.compared);
                let duration = Some(self.rule.hold()).filter(|hold| !hold.is_zero());
                render(template, self.rule, self.subject, Some(self.finding.shown()), threshold, duration)
            }
            None => format!("{}: {} is {}", self.subject.id, self.found(), self.breach_side()),
        }
    }
}

/// When a series of that rule becomes absent, unless a reading arrives. `listening_since` is from when on readings
/// could arrive at all.
pub(crate) fn absent_at(rule: &Rule, state: &RuleState, listening_since: Timestamp) -> Option<Timestamp> {
    match (rule.condition(), &state.memory, &state.active) {
        (Condition::Absent(absent_for), Memory::Arrival { at, .. }, None) => {
            Some((*at).max(listening_since).saturating_add(*absent_for))
        }
        _ => None,
    }
}

/// Fires for absence if its time came before `now`. What has happened by itself has happened at its time, whenever
/// it is noticed: so the instants don't depend on how often anybody looks.
pub(crate) fn absence(
    rule: &Rule,
    state: &mut RuleState,
    subject: Subject<'_>,
    (now, listening_since): (Timestamp, Timestamp),
    out: &mut Vec<AlertTransition>,
) {
    let Some(at) = absent_at(rule, state, listening_since).filter(|at| *at <= now) else { return };
    let (Condition::Absent(absent_for), Memory::Arrival { at: last, offset }) =
        (rule.condition(), &state.memory)
    else {
        return;
    };
    let at = at.max(state.not_before);
    let explanation = explain::absence(rule, *absent_for, (*last).max(listening_since));
    let mut active = begin(rule, subject, at, *offset);
    active.fired_at = Some(at);
    active.summary = match rule.summary() {
        Some(template) => render(template, rule, subject, None, None, Some(*absent_for)),
        None => format!("{}: no reading for {}", subject.id, DurationText::new(*absent_for)),
    };
    let positions = subject.place.positions(vec![*offset]);
    let evidence = Evidence { positions, value: None, explanation: format!("{explanation}.") };
    out.push(transition(TransitionKind::Fired, at, &active, subject.id, evidence));
    state.not_before = just_after(at);
    state.active = Some(Box::new(active));
}

/// A reading that counts has arrived: absence ends, and is counted from here.
pub(crate) fn arrived(
    state: &mut RuleState,
    subject: Subject<'_>,
    (arrival, offset): (Timestamp, i64),
    out: &mut Vec<AlertTransition>,
) {
    let Memory::Arrival { at, offset: last_offset } = &mut state.memory else { return };
    *at = (*at).max(arrival);
    *last_offset = offset;
    let Some(active) = state.active.take() else { return };
    let ended = arrival.max(active.changed_at());
    // The clock that stamps arrivals may have gone back; the next absence must begin later than this one.
    *at = (*at).max(ended);
    let absent = DurationText::new(ended.since(active.began_at));
    let explanation = format!("A reading arrived, {absent} after the alert fired.");
    let evidence = Evidence { positions: subject.place.positions(vec![offset]), value: None, explanation };
    out.push(transition(TransitionKind::Resolved, ended, &active, subject.id, evidence));
}

/// Ends an alert whose rule is no longer there.
pub(crate) fn ended_by(
    active: &Active,
    place: &Place,
    series: &str,
    by: EndedBy,
    now: Timestamp,
) -> AlertTransition {
    let rule = &active.facts.name;
    let explanation = match by {
        EndedBy::RuleRemoved => format!("The rule `{rule}` was removed while this alert was active."),
        EndedBy::RuleChanged => format!("The rule `{rule}` was changed while this alert was active."),
        EndedBy::RuleDisabled => format!("The rule `{rule}` was disabled while this alert was active."),
        EndedBy::NoLongerSelected => {
            format!("The rule `{rule}` no longer selects this series, whose labels changed.")
        }
        EndedBy::Service(ServiceEnd::Stopped, _) => "The service stopped.".to_owned(),
        EndedBy::Service(ServiceEnd::Removed, _) => "The service was removed.".to_owned(),
    };
    let positions = match by {
        EndedBy::Service(_, offset) => place.positions(vec![offset]),
        _ => Vec::new(),
    };
    let kind = if active.fired_at.is_some() { TransitionKind::Resolved } else { TransitionKind::Dismissed };
    let evidence = Evidence { positions, value: None, explanation };
    transition(kind, now.max(active.changed_at()), active, series, evidence)
}

/// A new alert, neither fired nor summarised yet.
fn begin(rule: &Rule, subject: Subject<'_>, began_at: Timestamp, began_offset: i64) -> Active {
    Active {
        facts: Arc::clone(rule.facts()),
        id: AlertId::derive(rule.name(), subject.id, began_at),
        labels: subject.labels.clone(),
        summary: String::new(),
        value: None,
        began_at,
        began_offset,
        fired_at: None,
        clearing: None,
    }
}

/// The transition, with the alert as it stands after it.
fn transition(
    kind: TransitionKind,
    at: Timestamp,
    active: &Active,
    series: &str,
    evidence: Evidence,
) -> AlertTransition {
    let mut alert = active.alert(series);
    let ended = match kind {
        TransitionKind::Resolved => Some(AlertStatus::Resolved),
        TransitionKind::Dismissed => Some(AlertStatus::Dismissed),
        TransitionKind::Pending | TransitionKind::Fired | TransitionKind::Acknowledged => None,
    };
    if let Some(status) = ended {
        alert.status = status;
        alert.ended_at = Some(at);
    }
    AlertTransition { kind, at, evidence: Some(evidence), acknowledgement: None, alert }
}

fn render(
    template: &Summary,
    rule: &Rule,
    subject: Subject<'_>,
    value: Option<f64>,
    threshold: Option<f64>,
    duration: Option<Duration>,
) -> String {
    template.render(&SummaryFacts {
        labels: subject.labels.of(subject.id),
        rule_labels: &rule.definition().labels,
        rule: rule.name(),
        severity: rule.severity(),
        value,
        threshold,
        duration: duration.map(DurationText::new),
    })
}

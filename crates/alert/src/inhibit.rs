//! Inhibition: alerts that nobody needs to hear of while a graver one says it all.
//!
//! A rule names sources and targets by matchers, and labels that both must share: while a source fires, targets with equal values are
//! held back. An alert that is source and target of a rule at once is not held back by its equals, or two would silence each other.

use std::collections::BTreeMap;

use farol_event::{Alert, AlertId, AlertStatus};
use farol_matcher::{Matcher, Matchers, Operator};

use crate::label;

/// How many sources are named for one target.
pub const MAX_NAMED_SOURCES: usize = 10;

/// While a source fires, its targets are held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InhibitRule {
    /// Which alerts hold others back.
    pub source: Matchers,
    /// Which alerts are held back.
    pub target: Matchers,
    /// Labels whose values must be the same in both. One that neither has counts as the same.
    pub equal: Vec<String>,
}

impl InhibitRule {
    /// What is in force if nobody says otherwise: a critical alert holds back milder ones of the same series and family of rules.
    pub fn defaults() -> Vec<Self> {
        let severity = |operator, value| {
            let matcher = Matcher::new(label::SEVERITY, operator, value);
            let matchers = matcher.and_then(|matcher| Matchers::new(vec![matcher]));
            matchers.expect("a name and a value without special characters make a matcher")
        };
        vec![Self {
            source: severity(Operator::Equal, "critical"),
            target: severity(Operator::Matches, "info|warning|error"),
            equal: vec![label::SERIES.to_owned(), label::RULE_FAMILY.to_owned()],
        }]
    }

    fn key<'a>(&self, alert: &'a Alert) -> Vec<&'a str> {
        self.equal.iter().map(|name| label::value(alert, name)).collect()
    }

    fn is_source(&self, alert: &Alert) -> bool {
        self.source.hold(|name| label::value(alert, name))
    }

    fn is_target(&self, alert: &Alert) -> bool {
        self.target.hold(|name| label::value(alert, name))
    }
}

/// The firing sources of some rules, by what their targets must share.
#[derive(Debug)]
pub struct Inhibitors<'a> {
    rules: Vec<(&'a InhibitRule, SourcesByKey<'a>)>,
}

/// Sources by the values that their targets must share.
type SourcesByKey<'a> = BTreeMap<Vec<&'a str>, Vec<Source>>;

#[derive(Debug)]
struct Source {
    id: AlertId,
    is_target: bool,
}

impl<'a> Inhibitors<'a> {
    /// Of those of `alerts` that fire.
    pub fn new(rules: &'a [InhibitRule], alerts: impl Iterator<Item = &'a Alert>) -> Self {
        let mut rules: Vec<_> = rules.iter().map(|rule| (rule, BTreeMap::new())).collect();
        for alert in alerts.filter(|alert| alert.status == AlertStatus::Firing) {
            for (rule, sources) in &mut rules {
                if rule.is_source(alert) {
                    let of_key: &mut Vec<Source> = sources.entry(rule.key(alert)).or_default();
                    of_key.push(Source { id: alert.id, is_target: rule.is_target(alert) });
                }
            }
        }
        Self { rules }
    }

    /// The alerts that hold `alert` back, [`MAX_NAMED_SOURCES`] of them at most.
    pub fn inhibiting(&self, alert: &Alert) -> Vec<AlertId> {
        let mut found = Vec::new();
        for (rule, sources) in &self.rules {
            if !rule.is_target(alert) {
                continue;
            }
            let is_source = rule.is_source(alert);
            let of_key = sources.get(&rule.key(alert)).into_iter().flatten();
            let others = of_key.filter(|source| source.id != alert.id && !(is_source && source.is_target));
            for source in others {
                if found.len() == MAX_NAMED_SOURCES {
                    return found;
                }
                if !found.contains(&source.id) {
                    found.push(source.id);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;

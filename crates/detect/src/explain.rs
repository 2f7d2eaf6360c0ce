//! The sentences of evidence: what was found, with the numbers in it.

use std::fmt;
use std::time::Duration;

use farol_event::Timestamp;

use crate::condition::{Band, Condition};
use crate::detector::Sample;
use crate::duration::DurationText;
use crate::rule::Rule;
use crate::summary::Figure;

/// What a reading was found to be: the number that was compared, and for a rate what it was taken from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finding {
    pub compared: f64,
    pub rate: Option<RateOf>,
}

impl Finding {
    /// The number for people. A rate is a quotient and has many digits, of which they see nine.
    pub fn shown(&self) -> f64 {
        match self.rate {
            None => self.compared,
            Some(_) => format!("{:.8e}", self.compared).parse().unwrap_or(self.compared),
        }
    }
}

/// Both ends of a rate of change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateOf {
    pub base: Sample,
    pub value: f64,
    pub at: Timestamp,
    pub per: Duration,
}

/// The number that was compared, for people: `42.48 °C`, or for a rate
/// `3.2 °C per 1m (from 20 °C to 23.2 °C in 1m)`.
pub(crate) struct Found<'a> {
    pub finding: Finding,
    pub unit: &'a str,
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantity = |value| Quantity { value, unit: self.unit };
        match self.finding.rate {
            None => quantity(self.finding.shown()).fmt(f),
            Some(RateOf { base, value, at, per }) => {
                let span = DurationText::new(at.since(base.at));
                let (rate, per) = (quantity(self.finding.shown()), DurationText::new(per));
                write!(f, "{rate} per {per} (from {} to {} in {span})", quantity(base.value), quantity(value))
            }
        }
    }
}

/// A number with its unit, if it has one. Percent stands without a space.
struct Quantity<'a> {
    value: f64,
    unit: &'a str,
}

impl fmt::Display for Quantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if matches!(self.unit, "" | "%") { "" } else { " " };
        write!(f, "{}{space}{}", Figure(self.value), self.unit)
    }
}

/// `above 40 °C`, `outside 10 °C to 20 °C`, `below -5 °C per 1m`.
pub(crate) fn breach_side(rule: &Rule, unit: &str) -> String {
    let quantity = |value| Quantity { value, unit };
    let Some((band, per)) = band(rule) else { return String::new() };
    match band {
        Band::Above { threshold, .. } => format!("above {}{per}", quantity(threshold)),
        Band::Below { threshold, .. } => format!("below {}{per}", quantity(threshold)),
        Band::Outside { low, high, .. } => format!("outside {} to {}{per}", quantity(low), quantity(high)),
    }
}

/// `not above 39 °C`, `within 11 °C to 19 °C`.
pub(crate) fn clear_side(rule: &Rule, unit: &str) -> String {
    let quantity = |value| Quantity { value, unit };
    let Some((band, per)) = band(rule) else { return String::new() };
    match band {
        Band::Above { clear, .. } => format!("not above {}{per}", quantity(clear)),
        Band::Below { clear, .. } => format!("not below {}{per}", quantity(clear)),
        Band::Outside { clear_low, clear_high, .. } => {
            format!("within {} to {}{per}", quantity(clear_low), quantity(clear_high))
        }
    }
}

fn band(rule: &Rule) -> Option<(Band, String)> {
    match *rule.condition() {
        Condition::Value(band) => Some((band, String::new())),
        Condition::Rate { band, per, .. } => Some((band, format!(" per {}", DurationText::new(per)))),
        Condition::Absent(_) => None,
    }
}

/// The threshold that goes into a summary.
pub(crate) fn threshold(rule: &Rule, compared: f64) -> Option<f64> {
    band(rule).map(|(band, _)| band.threshold_near(compared))
}

/// `has been since 2025-09-16T21:41:41.011144Z (31s)`.
pub(crate) fn has_been(began: Timestamp, at: Timestamp) -> String {
    format!("has been since {began} ({})", DurationText::new(at.since(began)))
}

/// `No reading arrived for 5m after 2025-09-16T21:41:41.011144Z`.
pub(crate) fn absence(rule: &Rule, absent_for: Duration, since: Timestamp) -> String {
    let quality = match rule.definition().min_quality {
        Some(min) => format!(" of quality {} or better", Figure(min)),
        None => String::new(),
    };
    format!("No reading{quality} arrived for {} after {since}", DurationText::new(absent_for))
}

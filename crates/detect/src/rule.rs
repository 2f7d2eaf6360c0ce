//! One rule: as people write it ([`RuleDefinition`]), and checked and ready to judge ([`Rule`]).
//!
//! A definition says which series it is about (`select`), exactly one condition (`above`, `below`, `outside`,
//! `rate_above`, `rate_below` or `absent_for`), and how it behaves: `clear` (second threshold), `for` and `clear_for`
//! (how long the condition must hold to fire, and be clear to resolve), `min_quality`, `severity`, `labels`, `summary`,
//! `enabled`. Its JSON has the same keys as its TOML; it is what an alert carries as its `rule_definition`.
//!
//! [`Rule::new`] reports everything that is wrong with a definition at once. Limits: [`MAX_RULE_NAME_BYTES`],
//! [`MAX_RULE_LABELS`], [`MAX_RULE_LABEL_BYTES`], and those of [`crate::selector`] and [`crate::summary`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farol_event::Severity;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::condition::Condition;
use crate::duration::DurationText;
use crate::selector::{LabelName, Selector, SeriesLabels};
use crate::summary::Summary;

mod check;

/// The longest rule name, in bytes.
pub const MAX_RULE_NAME_BYTES: usize = 128;
/// How many labels of its own a rule may have.
pub const MAX_RULE_LABELS: usize = 16;
/// The longest name or value of a rule's label, in bytes.
pub const MAX_RULE_LABEL_BYTES: usize = 256;
/// `rate_per` if a rule doesn't say.
pub const DEFAULT_RATE_PER: Duration = Duration::from_secs(60);

/// A rule as people write it and as the API shows it. See the module's documentation for the meaning of each part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleDefinition {
    /// Unique among the rules in force.
    pub name: String,
    /// Which series: PromQL matchers in braces.
    pub select: String,
    /// Breached by values above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// Breached by values below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Breached by values outside `[low, high]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<[f64; 2]>,
    /// Breached when the value rises by more than this per `rate_per`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_above: Option<f64>,
    /// Breached when the value rises by less than this per `rate_per` (negative: falls by more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_below: Option<f64>,
    /// The time unit of a rate; one minute if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("1m")))]
    pub rate_per: Option<DurationText>,
    /// The shortest span over which a rate is taken; if absent, from one reading to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("5m")))]
    pub window: Option<DurationText>,
    /// Breached when no reading arrives for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("5m")))]
    pub absent_for: Option<DurationText>,
    /// The second threshold: a firing alert ends only when the value has passed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear: Option<ClearThreshold>,
    /// How long the condition must hold to fire.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("30s")))]
    pub hold: Option<DurationText>,
    /// How long the value must be clear to resolve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("30s")))]
    pub clear_for: Option<DurationText>,
    /// Readings of a lower quality are ignored. A reading without quality counts as 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_quality: Option<f64>,
    /// How bad it is.
    #[serde(default = "default_severity")]
    pub severity: Severity,
    /// Labels that the rule adds to its alerts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Template of the alert's summary; a sentence made from the condition if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Whether the rule is evaluated at all.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
}

/// The severity of a rule that doesn't say.
fn default_severity() -> Severity {
    Severity::Warning
}

fn default_enabled() -> bool {
    true
}

impl RuleDefinition {
    /// A definition with nothing but a name and a selector: enabled, of severity `warning`, still without a condition.
    pub fn new(name: impl Into<String>, select: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            select: select.into(),
            above: None,
            below: None,
            outside: None,
            rate_above: None,
            rate_below: None,
            rate_per: None,
            window: None,
            absent_for: None,
            clear: None,
            hold: None,
            clear_for: None,
            min_quality: None,
            severity: default_severity(),
            labels: BTreeMap::new(),
            summary: None,
            enabled: true,
        }
    }
}

/// The second threshold: a number, or for `outside` a pair within the first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum ClearThreshold {
    /// For `above`, `below` and the rates.
    Value(f64),
    /// For `outside`: `[low, high]`.
    Within([f64; 2]),
}

/// Identifies a definition: equal definitions have equal fingerprints, on every machine and in every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleFingerprint(pub Uuid);

impl RuleFingerprint {
    /// UUID v5 namespace of rule definitions, fixed for ever: saved detector state refers to rules by it.
    const NAMESPACE: Uuid = Uuid::from_u128(0x6fa4_01a1_e127_5d0e_9c3b_5a1e_47f0_a102);

    fn of(definition: &RuleDefinition) -> Self {
        let json =
            serde_json::to_vec(definition).expect("a definition has only string keys, so it serialises");
        Self(Uuid::new_v5(&Self::NAMESPACE, &json))
    }
}

impl fmt::Display for RuleFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What an alert needs of its rule, kept as long as the alert lives even if the rule changes.
#[derive(Debug)]
pub(crate) struct RuleFacts {
    pub name: String,
    pub definition: serde_json::Value,
    pub fingerprint: RuleFingerprint,
    pub severity: Severity,
    pub labels: BTreeMap<String, String>,
}

/// A checked rule.
#[derive(Debug, Clone)]
pub struct Rule {
    definition: RuleDefinition,
    facts: Arc<RuleFacts>,
    selector: Selector,
    condition: Condition,
    hold: Duration,
    clear_for: Duration,
    summary: Option<Summary>,
}

impl Rule {
    /// Checks a definition.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(definition: RuleDefinition) -> Result<Self, Vec<RuleMistake>> {
        check::rule(definition)
    }

    /// The rule's name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The rule as it was written.
    pub fn definition(&self) -> &RuleDefinition {
        &self.definition
    }

    /// Identifies the definition; changes whenever anything in it changes.
    pub fn fingerprint(&self) -> RuleFingerprint {
        self.facts.fingerprint
    }

    /// What it compares.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.definition.severity
    }

    /// Whether it is evaluated at all.
    pub fn enabled(&self) -> bool {
        self.definition.enabled
    }

    /// Whether it is about this series.
    pub fn selects(&self, labels: &SeriesLabels<'_>) -> bool {
        self.selector.selects(labels)
    }

    /// How long the condition must hold to fire.
    pub fn hold(&self) -> Duration {
        self.hold
    }

    /// How long the value must be clear to resolve.
    pub fn clear_for(&self) -> Duration {
        self.clear_for
    }

    /// Whether a reading of this quality is good enough to be judged.
    pub(crate) fn trusts(&self, quality: Option<f64>) -> bool {
        self.definition.min_quality.is_none_or(|min| quality.unwrap_or(1.0) >= min)
    }

    pub(crate) fn facts(&self) -> &Arc<RuleFacts> {
        &self.facts
    }

    pub(crate) fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.definition.serialize(serializer)
    }
}

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct RuleMistake {
    /// The key that it is about.
    pub key: &'static str,
    /// What is wrong and what to do, to be read after the key.
    pub problem: String,
}

/// One thing that is wrong with a rule file or a set of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// The file's name, if it came from one.
    pub file: Option<String>,
    /// The line in it, from 1, if known.
    pub line: Option<usize>,
    /// The rule's name, if it has one.
    pub rule: Option<String>,
    /// What is wrong and what to do.
    pub problem: String,
}

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file}:{line}: ")?,
            (Some(file), None) => write!(f, "{file}: ")?,
            (None, Some(line)) => write!(f, "line {line}: ")?,
            (None, None) => {}
        }
        if let Some(rule) = &self.rule {
            write!(f, "rule `{rule}`: ")?;
        }
        f.write_str(&self.problem)
    }
}

/// Everything that is wrong with a set of rules: one line each. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblems(pub Vec<RuleProblem>);

impl fmt::Display for RuleProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleProblems {}

/// Whether a label's name is one that PromQL would take, and no series label's.
fn own_label_problem(name: &str) -> Option<&'static str> {
    let mut chars = name.chars();
    let starts_well = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Some("must have only letters, digits and `_`, and not start with a digit");
    }
    if name.len() > MAX_RULE_LABEL_BYTES {
        return Some("is too long: at most 256 bytes");
    }
    LabelName::of(name).map(|_| "is a label of the series: choose another name")
}

#[cfg(test)]
mod tests;

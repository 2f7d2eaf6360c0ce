//! The sentence for people that an alert carries, made from a template such as
//! `{machine_id} is too hot: {value} {unit}`.
//!
//! Placeholders: the series' labels (of a service: `service`, `metric`, `unit`, and the tags that the rule's selector names), `value`, `threshold`, `rule`, `severity`, `duration` (the rule's `for`, or how long
//! data may be absent), and the rule's own labels. A literal brace is written twice. What has no content (a label that
//! the sender didn't give, the value of an absence) is left empty.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use farol_event::Severity;

use crate::duration::DurationText;
use crate::selector::{LabelName, METRIC, SERVICE, Selector, SeriesLabels};

/// The longest template, in bytes.
pub const MAX_SUMMARY_BYTES: usize = 1024;
/// The longest summary made from a template, in bytes; what is longer is cut.
pub const MAX_RENDERED_BYTES: usize = 4096;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Label(LabelName),
    RuleLabel(String),
    Service,
    Metric,
    Tag(String),
    Value,
    Threshold,
    Rule,
    Severity,
    Duration,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SummaryError {
    /// Longer than [`MAX_SUMMARY_BYTES`].
    #[error("has {0} bytes; at most {MAX_SUMMARY_BYTES} are accepted")]
    TooLong(usize),
    /// A `{` without its `}`, or the other way round.
    #[error("has a single `{0}`; write it twice to mean the character itself")]
    Unbalanced(char),
    /// A placeholder that stands for nothing.
    #[error(
        "has no meaning for `{{{0}}}`; use value, threshold, rule, severity, duration, sensor_id, sensor_type, unit, \
         factory_section, machine_id, zone or one of the rule's own labels (about services: value, threshold, rule, severity, \
         duration, service, metric, unit, a tag that `select` names, or one of the rule's own labels)"
    )]
    Unknown(String),
}

/// What the placeholders stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SummaryFacts<'a> {
    pub labels: SeriesLabels<'a>,
    pub rule_labels: &'a BTreeMap<String, String>,
    pub rule: &'a str,
    pub severity: Severity,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub duration: Option<DurationText>,
}

impl Summary {
    /// Parses a template; `rule_labels` are the rule's own, `selector` says what it is about.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`SummaryError`].
    pub fn parse(
        template: &str,
        rule_labels: &BTreeMap<String, String>,
        selector: &Selector,
    ) -> Result<Self, SummaryError> {
        if template.len() > MAX_SUMMARY_BYTES {
            return Err(SummaryError::TooLong(template.len()));
        }
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(at);
            text.push_str(before);
            if let Some(after) = from_brace.strip_prefix("{{") {
                text.push('{');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix("}}") {
                text.push('}');
                rest = after;
            } else if let Some(after) = from_brace.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or(SummaryError::Unbalanced('{'))?;
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(placeholder(name, rule_labels, selector)?);
                rest = after;
            } else {
                return Err(SummaryError::Unbalanced('}'));
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self { pieces })
    }

    /// The sentence, with every placeholder filled in.
    pub(crate) fn render(&self, facts: &SummaryFacts<'_>) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Label(name) => out.push_str(facts.labels.get(*name)),
                Piece::RuleLabel(name) => {
                    out.push_str(facts.rule_labels.get(name).map_or("", String::as_str))
                }
                Piece::Service => out.push_str(facts.labels.service.map_or("", |of| &of.service)),
                Piece::Metric => out.push_str(facts.labels.service.map_or("", |of| &of.metric)),
                Piece::Tag(name) => {
                    let tag = facts.labels.service.and_then(|of| of.tags.get(name));
                    out.push_str(tag.map_or("", String::as_str));
                }
                Piece::Rule => out.push_str(facts.rule),
                Piece::Severity => out.push_str(facts.severity.as_str()),
                Piece::Value => push(&mut out, facts.value.map(Figure)),
                Piece::Threshold => push(&mut out, facts.threshold.map(Figure)),
                Piece::Duration => push(&mut out, facts.duration),
            }
        }
        cut(&mut out, MAX_RENDERED_BYTES);
        out
    }
}

fn push(out: &mut String, shown: Option<impl fmt::Display>) {
    if let Some(shown) = shown {
        write!(out, "{shown}").expect("writing to a string can't fail");
    }
}

/// Cuts `text` to at most `max` bytes, at a character boundary.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

fn placeholder(
    name: &str,
    rule_labels: &BTreeMap<String, String>,
    selector: &Selector,
) -> Result<Piece, SummaryError> {
    let services = selector.is_about_services();
    if let Some(label) = LabelName::of(name).filter(|label| !services || *label == LabelName::Unit) {
        return Ok(Piece::Label(label));
    }
    match name {
        SERVICE if services => Ok(Piece::Service),
        METRIC if services => Ok(Piece::Metric),
        "value" => Ok(Piece::Value),
        "threshold" => Ok(Piece::Threshold),
        "rule" => Ok(Piece::Rule),
        "severity" => Ok(Piece::Severity),
        "duration" => Ok(Piece::Duration),
        own if rule_labels.contains_key(own) => Ok(Piece::RuleLabel(own.to_owned())),
        tag if selector.tags().any(|named| named == tag) => Ok(Piece::Tag(tag.to_owned())),
        other => Err(SummaryError::Unknown(other.chars().take(64).collect())),
    }
}

/// A number for people: the shortest text that means exactly this number, in scientific notation when that is shorter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure(pub f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size != 0.0 && !(1e-6..1e15).contains(&size) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(template: &str) -> String {
        let rule_labels = BTreeMap::from([("team".to_owned(), "maintenance".to_owned())]);
        let facts = SummaryFacts {
            labels: SeriesLabels { sensor_id: "t-1", machine_id: "m-7", unit: "°C", ..Default::default() },
            rule_labels: &rule_labels,
            rule: "hot",
            severity: Severity::Critical,
            value: Some(42.48),
            threshold: Some(40.0),
            duration: "1m30s".parse().ok(),
        };
        Summary::parse(template, &rule_labels, &"{}".parse().unwrap()).unwrap().render(&facts)
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(
            render(
                "{machine_id} {{hot}}: {value} {unit} > {threshold} for {duration} [{rule}, {severity}, {team}] {zone}."
            ),
            "m-7 {hot}: 42.48 °C > 40 for 1m30s [hot, critical, maintenance] ."
        );
        assert_eq!(render(""), "");
    }

    #[test]
    fn what_services_send_has_placeholders_of_its_own() {
        let selector = "{metric=\"disk_percent\", mount!=\"\"}".parse().unwrap();
        let none = BTreeMap::new();
        let parsed = Summary::parse("{service} {metric} {mount} {value}{unit}", &none, &selector).unwrap();
        let service = crate::selector::ServiceLabels {
            service: "shop".into(),
            metric: "disk_percent".into(),
            tags: BTreeMap::from([("mount".to_owned(), "/var".to_owned())]),
        };
        let facts = SummaryFacts {
            labels: SeriesLabels { unit: "%", service: Some(&service), ..Default::default() },
            rule_labels: &none,
            rule: "full",
            severity: Severity::Warning,
            value: Some(95.0),
            threshold: None,
            duration: None,
        };
        assert_eq!(parsed.render(&facts), "shop disk_percent /var 95%");
        for unknown in ["{sensor_id}", "{device}"] {
            assert!(Summary::parse(unknown, &none, &selector).is_err(), "{unknown}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let parse =
            |t: &str| Summary::parse(t, &BTreeMap::new(), &"{}".parse().unwrap()).unwrap_err().to_string();
        assert!(parse("{valeu}").contains("`{valeu}`"));
        assert!(parse("{value").contains("single `{`"));
        assert!(parse("value}").contains("single `}`"));
        assert!(parse(&"x".repeat(2000)).contains("1024"));
    }

    #[test]
    fn figures_are_short_and_exact() {
        for (value, shown) in
            [(40.0, "40"), (42.48, "42.48"), (-0.5, "-0.5"), (1e300, "1e300"), (2.5e-9, "2.5e-9"), (0.0, "0")]
        {
            assert_eq!(Figure(value).to_string(), shown);
        }
    }

    #[test]
    fn long_summaries_are_cut_between_characters() {
        let mut text = "é".repeat(10);
        cut(&mut text, 5);
        assert_eq!(text, "éé");
    }

    proptest! {
        #[test]
        fn arbitrary_templates_never_panic(template in "\\PC{0,60}|[{}a-z]{0,40}") {
            let _ = Summary::parse(&template, &BTreeMap::new(), &"{}".parse().unwrap());
        }
    }
}

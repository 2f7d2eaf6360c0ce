//! From the text of rule files to a [`RuleSet`].
//!
//! A file is TOML with one `[[rule]]` table per rule; its keys are those of [`RuleDefinition`]. Reading the bytes is the
//! caller's part. All problems of all files are reported together, each with file, line and rule; one bad rule refuses
//! the whole set, so that half a file is never in force.
//!
//! Limits: [`MAX_RULE_FILE_BYTES`] a file, [`MAX_REPORTED_PROBLEMS`] problems, [`crate::rule_set::MAX_RULES`] rules.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::rule::{ClearThreshold, Rule, RuleDefinition, RuleProblem, RuleProblems};
use crate::rule_set::{Origin, RuleSet};

/// The longest accepted rule file, in bytes.
pub const MAX_RULE_FILE_BYTES: usize = 4 * 1024 * 1024;
/// How many problems are reported at most.
pub const MAX_REPORTED_PROBLEMS: usize = 200;

impl RuleSet {
    /// Parses and checks rule files, given as (name, text) in the order in which their rules shall stand.
    ///
    /// # Errors
    /// Everything that is wrong in any of the files.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RuleProblems> {
        let (mut rules, mut names, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        for (name, text) in files {
            let mut file = RuleFile { name, text, names: Vec::new(), problems: Vec::new() };
            rules.extend(file.rules());
            names.append(&mut file.names);
            problems.append(&mut file.problems);
        }
        Self::assemble(rules, &names, problems).map_err(|RuleProblems(mut problems)| {
            if problems.len() > MAX_REPORTED_PROBLEMS {
                let more = problems.len() - MAX_REPORTED_PROBLEMS;
                problems.truncate(MAX_REPORTED_PROBLEMS);
                problems.push(Origin::default().problem(None, format!("and {more} more problems")));
            }
            RuleProblems(problems)
        })
    }
}

struct RuleFile<'a> {
    name: &'a str,
    text: &'a str,
    /// Of every rule that names itself, whatever else is wrong with it.
    names: Vec<(Origin, String)>,
    problems: Vec<RuleProblem>,
}

/// A byte range in the file.
type Span = std::ops::Range<usize>;

impl<'a> RuleFile<'a> {
    fn rules(&mut self) -> Vec<Rule> {
        if self.text.len() > MAX_RULE_FILE_BYTES {
            let problem =
                format!("the file has {} bytes; at most {MAX_RULE_FILE_BYTES} are accepted", self.text.len());
            self.problem(None, None, problem);
            return Vec::new();
        }
        let text = self.text;
        let (table, errors) = DeTable::parse_recoverable(text);
        let broken = !errors.is_empty();
        for error in errors {
            self.problem(error.span().as_ref(), None, format!("not TOML: {}", error.message().trim()));
        }
        if broken {
            // What recovery made of the rest would only give follow-up errors.
            return Vec::new();
        }
        let mut rules = Vec::new();
        for (key, value) in table.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("rule", DeValue::Array(tables)) => {
                    for table in tables.iter() {
                        rules.extend(self.rule(table));
                    }
                }
                ("rule", _) => {
                    self.problem(Some(&key.span()), None, "write each rule as a table `[[rule]]`".into())
                }
                (other, _) => {
                    let other: String = other.chars().take(64).collect();
                    self.problem(
                        Some(&key.span()),
                        None,
                        format!("unknown key `{other}`: a rule file has only [[rule]] tables"),
                    );
                }
            }
        }
        rules
    }

    fn rule(&mut self, table: &Spanned<DeValue<'a>>) -> Option<Rule> {
        let DeValue::Table(entries) = table.get_ref() else {
            self.problem(Some(&table.span()), None, "write each rule as a table `[[rule]]`".into());
            return None;
        };
        let before = self.problems.len();
        let mut fields =
            Fields { spans: BTreeMap::new(), mistakes: Vec::new(), definition: RuleDefinition::new("", "") };
        for (key, value) in entries {
            fields.take(key, value);
        }
        let Fields { spans, mistakes, definition } = fields;
        let name = (!definition.name.is_empty()).then(|| definition.name.clone());
        if let (Some(name), Some(span)) = (&name, spans.get("name")) {
            let origin = Origin { file: Some(self.name.to_owned()), line: Some(self.line(span)) };
            self.names.push((origin, name.clone()));
        }
        for (span, problem) in mistakes {
            self.problem(Some(&span), name.as_deref(), problem);
        }
        for key in ["name", "select"].into_iter().filter(|key| !spans.contains_key(*key)) {
            self.problem(Some(&table.span()), name.as_deref(), format!("missing key `{key}`"));
        }
        let complete = self.problems.len() == before;
        match Rule::new(definition) {
            Ok(rule) if complete => Some(rule),
            Ok(_) => None,
            Err(mistakes) => {
                for mistake in mistakes {
                    // What is missing or of the wrong type has been reported already, and a rule of which a part
                    // could not be read may seem to have no condition.
                    let reported =
                        matches!(mistake.key, "name" | "select") && !spans.contains_key(mistake.key);
                    let doubtful = mistake.key == "rule" && !complete;
                    if !reported && !doubtful {
                        let span = spans.get(mistake.key).cloned().unwrap_or_else(|| table.span());
                        let problem =
                            if mistake.key == "rule" { mistake.problem } else { mistake.to_string() };
                        self.problem(Some(&span), name.as_deref(), problem);
                    }
                }
                None
            }
        }
    }

    fn problem(&mut self, span: Option<&Span>, rule: Option<&str>, problem: String) {
        let line = span.map(|span| self.line(span));
        self.problems.push(Origin { file: Some(self.name.to_owned()), line }.problem(rule, problem));
    }

    fn line(&self, span: &Span) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|b| **b == b'\n').count()
    }
}

/// The keys of one table, read into a definition.
struct Fields {
    definition: RuleDefinition,
    /// Where each key stands, of those that could be read.
    spans: BTreeMap<String, Span>,
    mistakes: Vec<(Span, String)>,
}

impl Fields {
    fn take(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Spanned<DeValue<'_>>) {
        let name = key.get_ref().as_ref();
        let value = value.get_ref();
        let d = &mut self.definition;
        let read = match name {
            "name" => text(value).map(|t| d.name = t),
            "select" => text(value).map(|t| d.select = t),
            "above" => number(value).map(|n| d.above = Some(n)),
            "below" => number(value).map(|n| d.below = Some(n)),
            "outside" => pair(value).map(|p| d.outside = Some(p)),
            "rate_above" => number(value).map(|n| d.rate_above = Some(n)),
            "rate_below" => number(value).map(|n| d.rate_below = Some(n)),
            "rate_per" => duration(value).map(|t| d.rate_per = Some(t)),
            "window" => duration(value).map(|t| d.window = Some(t)),
            "absent_for" => duration(value).map(|t| d.absent_for = Some(t)),
            "clear" => clear(value).map(|c| d.clear = Some(c)),
            "for" => duration(value).map(|t| d.hold = Some(t)),
            "clear_for" => duration(value).map(|t| d.clear_for = Some(t)),
            "min_quality" => number(value).map(|n| d.min_quality = Some(n)),
            "severity" => text(value).and_then(|t| {
                d.severity =
                    t.parse().map_err(|e: farol_event::severity::UnknownSeverity| format!(": {e}"))?;
                Ok(())
            }),
            "labels" => labels(value).map(|l| d.labels = l),
            "summary" => text(value).map(|t| d.summary = Some(t)),
            "enabled" => match value {
                DeValue::Boolean(enabled) => {
                    d.enabled = *enabled;
                    Ok(())
                }
                other => Err(format!(" must be true or false, not {}", kind(other))),
            },
            other => {
                let other: String = other.chars().take(64).collect();
                self.mistakes.push((key.span(), format!("unknown key `{other}`; known are {KEYS}")));
                return;
            }
        };
        match read {
            Ok(()) => {
                self.spans.insert(name.to_owned(), key.span());
            }
            Err(problem) => {
                // `name` and `select` were given, even if wrongly: they aren't missing as well.
                self.spans.insert(name.to_owned(), key.span());
                self.mistakes.push((key.span(), format!("`{name}`{problem}")));
            }
        }
    }
}

const KEYS: &str = "name, select, above, below, outside, rate_above, rate_below, rate_per, window, absent_for, clear, for, \
                    clear_for, min_quality, severity, labels, summary and enabled";

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.as_ref().to_owned()),
        other => Err(format!(" must be a string, not {}", kind(other))),
    }
}

fn number(value: &DeValue<'_>) -> Result<f64, String> {
    let parsed = match value {
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
        // Integers are taken as text, because TOML's go beyond 2^53, and a float parser rounds them as it should.
        DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().replace('_', "").parse().ok(),
        DeValue::Integer(integer) => {
            i32::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok().map(f64::from)
        }
        other => return Err(format!(" must be a number, not {}", kind(other))),
    };
    match parsed {
        Some(number) if f64::is_finite(number) => Ok(number),
        _ => Err(" must be a finite number".into()),
    }
}

fn pair(value: &DeValue<'_>) -> Result<[f64; 2], String> {
    let DeValue::Array(items) = value else {
        return Err(format!(" must be two numbers [low, high], not {}", kind(value)));
    };
    let mut items = items.iter();
    match (items.next(), items.next(), items.next()) {
        (Some(low), Some(high), None) => Ok([number(low.get_ref())?, number(high.get_ref())?]),
        _ => Err(" must be two numbers [low, high]".into()),
    }
}

fn clear(value: &DeValue<'_>) -> Result<ClearThreshold, String> {
    match value {
        DeValue::Array(_) => pair(value).map(ClearThreshold::Within),
        _ => number(value).map(ClearThreshold::Value),
    }
}

fn duration(value: &DeValue<'_>) -> Result<crate::duration::DurationText, String> {
    match value {
        DeValue::String(text) => text.parse().map_err(|e| format!(": {e}")),
        other => Err(format!(" must be a string such as \"30s\", not {}", kind(other))),
    }
}

fn labels(value: &DeValue<'_>) -> Result<BTreeMap<String, String>, String> {
    let DeValue::Table(entries) = value else {
        return Err(format!(" must be a table of strings, not {}", kind(value)));
    };
    entries
        .iter()
        .map(|(key, value)| {
            let name = key.get_ref().as_ref().to_owned();
            let value = text(value.get_ref()).map_err(|problem| format!(" has `{name}`, which{problem}"))?;
            Ok((name, value))
        })
        .collect()
}

#[cfg(test)]
mod tests;

//! `farol rules check`: rule files read as `farol run` would read them.

use std::path::PathBuf;
use std::process::ExitCode;

use farol_detect::{Rule, RuleSet};
use farol_pipeline::rules::read_files;

use crate::terminal::{columns, say};

/// Prints every problem and fails, or prints a table of the rules.
pub fn check(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    match read_files(files) {
        Ok(rules) => {
            say(table(&rules));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let count = error.problems.len();
            let plural = if count == 1 { "" } else { "s" };
            anyhow::bail!("the rules have {count} problem{plural}\n  {}", error.problems.join("\n  "))
        }
    }
}

/// What a rule asks, in few words.
fn condition(rule: &Rule) -> String {
    let definition = rule.definition();
    let mut words = Vec::new();
    let mut add =
        |word: &str, number: Option<f64>| words.extend(number.map(|number| format!("{word} {number}")));
    add("above", definition.above);
    add("below", definition.below);
    add("rate above", definition.rate_above);
    add("rate below", definition.rate_below);
    words.extend(definition.outside.map(|[low, high]| format!("outside {low} to {high}")));
    words.extend(definition.rate_per.map(|per| format!("per {per}")));
    words.extend(definition.absent_for.map(|absent| format!("absent for {absent}")));
    words.extend(definition.hold.map(|hold| format!("for {hold}")));
    words.join(" ")
}

/// One line per rule, in columns.
fn table(rules: &RuleSet) -> String {
    let mut rows = vec![["RULE", "SEVERITY", "CONDITION", "SELECTS"].map(str::to_owned)];
    rows.extend(rules.rules().iter().map(|rule| {
        let definition = rule.definition();
        let state = if rule.enabled() { "" } else { " (not enabled)" };
        [
            format!("{}{state}", rule.name()),
            definition.severity.to_string(),
            condition(rule),
            definition.select.clone(),
        ]
    }));
    let mut lines = columns(&rows);
    lines.push(format!("{} rule{}, no problems", rules.len(), if rules.len() == 1 { "" } else { "s" }));
    lines.join("\n")
}

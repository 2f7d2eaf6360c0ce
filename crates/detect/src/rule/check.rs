//! From a definition to a rule, or to the list of all its mistakes.

use std::sync::Arc;
use std::time::Duration;

use super::{
    ClearThreshold, DEFAULT_RATE_PER, MAX_RULE_LABEL_BYTES, MAX_RULE_LABELS, MAX_RULE_NAME_BYTES, Rule,
    RuleDefinition, RuleFacts, RuleFingerprint, RuleMistake, own_label_problem,
};
use crate::condition::{Band, Condition};
use crate::duration::DurationText;
use crate::selector::{METRIC, SERVICE, Selector};
use crate::summary::Summary;

/// The keys of which a rule has exactly one.
const CONDITIONS: &str = "above, below, outside, rate_above, rate_below or absent_for";

/// Checks `definition` whole.
pub(super) fn rule(definition: RuleDefinition) -> Result<Rule, Vec<RuleMistake>> {
    let mut mistakes = Mistakes::default();
    name(&definition, &mut mistakes);
    labels(&definition, &mut mistakes);
    if definition.min_quality.is_some_and(|q| !(0.0..=1.0).contains(&q)) {
        mistakes.add("min_quality", "must be between 0 and 1");
    }
    let selector = mistakes.keep("select", definition.select.parse::<Selector>());
    if selector.as_ref().is_some_and(Selector::is_about_services) {
        for name in [SERVICE, METRIC].into_iter().filter(|name| definition.labels.contains_key(*name)) {
            mistakes
                .add("labels", format!("has `{name}`, which is a label of the series: choose another name"));
        }
    }
    // Under a selector that is none, a template can still be checked for what is about sensors.
    let about = selector.clone().unwrap_or_default();
    let summary =
        definition.summary.as_deref().map(|template| Summary::parse(template, &definition.labels, &about));
    let summary = summary.and_then(|parsed| mistakes.keep("summary", parsed));
    let condition = condition(&definition, &mut mistakes);
    let (Some(selector), Some(condition), true) = (selector, condition, mistakes.0.is_empty()) else {
        return Err(mistakes.0);
    };
    let facts = RuleFacts {
        name: definition.name.clone(),
        definition: serde_json::to_value(&definition)
            .expect("a definition has only string keys, so it serialises"),
        fingerprint: RuleFingerprint::of(&definition),
        severity: definition.severity,
        labels: definition.labels.clone(),
    };
    let span = |text: Option<DurationText>| text.map_or(Duration::ZERO, DurationText::get);
    Ok(Rule {
        facts: Arc::new(facts),
        selector,
        condition,
        hold: span(definition.hold),
        clear_for: span(definition.clear_for),
        summary,
        definition,
    })
}

#[derive(Default)]
struct Mistakes(Vec<RuleMistake>);

impl Mistakes {
    fn add(&mut self, key: &'static str, problem: impl Into<String>) {
        self.0.push(RuleMistake { key, problem: problem.into() });
    }

    fn keep<T>(&mut self, key: &'static str, result: Result<T, impl std::fmt::Display>) -> Option<T> {
        result
            .map_err(|e| {
                self.add(key, format!("{}{e}", if key == "select" { "is no selector: " } else { "" }))
            })
            .ok()
    }
}

fn name(definition: &RuleDefinition, mistakes: &mut Mistakes) {
    let name = &definition.name;
    if name.trim().is_empty() {
        mistakes.add("name", "must not be empty");
    }
    if name.len() > MAX_RULE_NAME_BYTES {
        mistakes.add("name", format!("must have at most {MAX_RULE_NAME_BYTES} bytes"));
    }
    if name.chars().any(char::is_control) {
        mistakes.add("name", "must not contain control characters");
    }
}

fn labels(definition: &RuleDefinition, mistakes: &mut Mistakes) {
    if definition.labels.len() > MAX_RULE_LABELS {
        mistakes.add("labels", format!("must be at most {MAX_RULE_LABELS}"));
    }
    for (name, value) in &definition.labels {
        let shown: String = name.chars().take(64).collect();
        if let Some(problem) = own_label_problem(name) {
            mistakes.add("labels", format!("has `{shown}`, which {problem}"));
        }
        if value.len() > MAX_RULE_LABEL_BYTES || value.chars().any(char::is_control) {
            let limit = format!("must have at most {MAX_RULE_LABEL_BYTES} bytes and no control characters");
            mistakes.add("labels", format!("has `{shown}`, whose value {limit}"));
        }
    }
}

fn condition(definition: &RuleDefinition, mistakes: &mut Mistakes) -> Option<Condition> {
    let given = [
        ("above", definition.above.is_some()),
        ("below", definition.below.is_some()),
        ("outside", definition.outside.is_some()),
        ("rate_above", definition.rate_above.is_some()),
        ("rate_below", definition.rate_below.is_some()),
        ("absent_for", definition.absent_for.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(key, is)| is.then_some(key)).collect();
    let [key] = given.as_slice() else {
        let problem = if given.is_empty() {
            format!("has no condition: give one of {CONDITIONS}")
        } else {
            format!(
                "has {} conditions ({}): give exactly one, and a rule of its own for each other",
                given.len(),
                given.join(", ")
            )
        };
        mistakes.add("rule", problem);
        return None;
    };
    if !key.starts_with("rate_") {
        for (rate_key, is) in
            [("rate_per", definition.rate_per.is_some()), ("window", definition.window.is_some())]
        {
            if is {
                mistakes.add(
                    rate_key,
                    format!("has a meaning only with rate_above or rate_below, not with {key}"),
                );
            }
        }
    }
    if let Some(absent_for) = definition.absent_for {
        return absence(definition, absent_for, mistakes);
    }
    let band = band(definition, mistakes)?;
    if !key.starts_with("rate_") {
        return Some(Condition::Value(band));
    }
    let per = definition.rate_per.map_or(DEFAULT_RATE_PER, DurationText::get);
    if per.is_zero() {
        mistakes.add("rate_per", "must be longer than zero");
        return None;
    }
    let window = definition.window.map_or(Duration::ZERO, DurationText::get);
    Some(Condition::Rate { band, per, window })
}

fn absence(
    definition: &RuleDefinition,
    absent_for: DurationText,
    mistakes: &mut Mistakes,
) -> Option<Condition> {
    let contradictions = [
        (
            "for",
            definition.hold.is_some(),
            "doesn't go with absent_for, which is itself how long: add the two",
        ),
        ("clear", definition.clear.is_some(), "doesn't go with absent_for: there is no value to compare"),
        (
            "clear_for",
            definition.clear_for.is_some(),
            "doesn't go with absent_for: the next reading ends the absence",
        ),
    ];
    for (key, _, problem) in contradictions.iter().filter(|(_, is, _)| *is) {
        mistakes.add(key, *problem);
    }
    if absent_for.get().is_zero() {
        mistakes.add("absent_for", "must be longer than zero");
    }
    Some(Condition::Absent(absent_for.get()))
}

fn band(definition: &RuleDefinition, mistakes: &mut Mistakes) -> Option<Band> {
    if let Some([low, high]) = definition.outside {
        return outside(low, high, definition.clear, mistakes);
    }
    let upper = [("above", definition.above), ("rate_above", definition.rate_above)];
    let lower = [("below", definition.below), ("rate_below", definition.rate_below)];
    let find = |keys: [(&'static str, Option<f64>); 2]| keys.into_iter().find_map(|(key, t)| Some((key, t?)));
    let (key, threshold, is_upper) = match (find(upper), find(lower)) {
        (Some((key, threshold)), _) => (key, threshold, true),
        (None, Some((key, threshold))) => (key, threshold, false),
        (None, None) => return None,
    };
    if !threshold.is_finite() {
        mistakes.add(key, "must be a finite number");
        return None;
    }
    let clear = match definition.clear {
        None => threshold,
        Some(ClearThreshold::Value(clear)) if clear.is_finite() => clear,
        Some(ClearThreshold::Value(_)) => {
            mistakes.add("clear", "must be a finite number");
            return None;
        }
        Some(ClearThreshold::Within(_)) => {
            mistakes.add("clear", format!("must be one number with {key}; a pair goes with outside"));
            return None;
        }
    };
    if is_upper && clear > threshold {
        mistakes.add(
            "clear",
            format!("is {clear}, on the breached side of {key} = {threshold}: it must not be above it"),
        );
    } else if !is_upper && clear < threshold {
        mistakes.add(
            "clear",
            format!("is {clear}, on the breached side of {key} = {threshold}: it must not be below it"),
        );
    }
    Some(if is_upper { Band::Above { threshold, clear } } else { Band::Below { threshold, clear } })
}

fn outside(low: f64, high: f64, clear: Option<ClearThreshold>, mistakes: &mut Mistakes) -> Option<Band> {
    if !low.is_finite() || !high.is_finite() {
        mistakes.add("outside", "must be two finite numbers");
        return None;
    }
    if low >= high {
        mistakes.add("outside", format!("must be [low, high] with low below high, not [{low}, {high}]"));
        return None;
    }
    let (clear_low, clear_high) = match clear {
        None => (low, high),
        Some(ClearThreshold::Within([clear_low, clear_high])) => (clear_low, clear_high),
        Some(ClearThreshold::Value(_)) => {
            mistakes.add("clear", "must be a pair [low, high] with outside");
            return None;
        }
    };
    // Written so that a NaN fails.
    let within = low <= clear_low && clear_low <= clear_high && clear_high <= high;
    if !within {
        mistakes.add("clear", format!("must be [low, high] within outside = [{low}, {high}]"));
    }
    Some(Band::Outside { low, high, clear_low, clear_high })
}

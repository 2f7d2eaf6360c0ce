use super::*;
use crate::rule_set::MAX_RULES;

fn problems(text: &str) -> Vec<String> {
    match RuleSet::parse([("rules.toml", text)]) {
        Ok(rules) => panic!("accepted {} rules", rules.len()),
        Err(RuleProblems(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_documented_keys_are_read() {
    let text = r#"
        [[rule]]
        name = "machine-temperature"
        select = '{sensor_type="temperature", machine_id=~"machine-.*"}'
        outside = [10, 40.5]
        clear = [12, 38]
        for = "30s"
        clear_for = "1m"
        min_quality = 0.5
        severity = "Critical"
        labels = { team = "maintenance" }
        summary = "{sensor_id}: {value}"
        enabled = false

        [[rule]]
        name = "rise"
        select = '{}'
        rate_above = 0x10
        rate_per = "1h"
        window = "5m"
    "#;
    let rules = RuleSet::parse([("rules.toml", text)]).unwrap();
    let first = rules.rules()[0].definition();
    assert_eq!(
        (first.outside, first.clear),
        (Some([10.0, 40.5]), Some(ClearThreshold::Within([12.0, 38.0])))
    );
    assert_eq!(first.hold.unwrap().to_string(), "30s");
    assert_eq!(first.severity, farol_event::Severity::Critical);
    assert_eq!(first.labels["team"], "maintenance");
    assert!(!first.enabled && rules.rules()[1].enabled());
    assert_eq!(rules.rules()[1].definition().rate_above, Some(16.0));
}

#[test]
fn all_problems_are_reported_with_file_line_and_rule() {
    let text = r#"
[[rule]]
name = "a"
select = '{sensor_tpye="x"}'
abvoe = 3
above = "hot"
severity = "bad"
for = "5"

[[rule]]
name = "b"
select = '{}'
above = 1
clear = 2
below = 3

[[rule]]
select = '{}'
above = nan

[other]
"#;
    let expected = [
        "rules.toml:21: unknown key `other`: a rule file has only [[rule]] tables",
        "rules.toml:5: rule `a`: unknown key `abvoe`; known are name, select,",
        "rules.toml:6: rule `a`: `above` must be a number, not a string",
        "rules.toml:8: rule `a`: `for`: `5` is not a duration",
        "rules.toml:7: rule `a`: `severity`: `bad` is not a severity",
        "rules.toml:4: rule `a`: `select` is no selector: at byte 1: no series has a label `sensor_tpye`",
        "rules.toml:10: rule `b`: has 2 conditions (above, below): give exactly one",
        "rules.toml:17: missing key `name`",
        "rules.toml:19: `above` must be a finite number",
    ];
    let found = problems(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for expected in expected {
        assert!(found.iter().any(|found| found.starts_with(expected)), "{expected} in {found:#?}");
    }
}

#[test]
fn a_name_twice_is_told_together_with_what_else_is_wrong() {
    let good = "[[rule]]\nname = \"a\"\nselect = '{}'\nabove = 1\n";
    let bad = "[[rule]]\nname = \"a\"\nselect = '{}'\nabove = \"hot\"\n";
    let RuleProblems(problems) = RuleSet::parse([("one.toml", bad), ("two.toml", good)]).unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("one.toml:4: rule `a`: `above` must be a number"), "{problems:#?}");
    assert_eq!(problems[1], "two.toml:2: rule `a`: this name is taken by one.toml:2: names must be unique");
}

#[test]
fn names_must_be_unique_across_files() {
    let rule = "[[rule]]\nname = \"a\"\nselect = '{}'\nabove = 1\n";
    let RuleProblems(problems) = RuleSet::parse([("one.toml", rule), ("two.toml", rule)]).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "two.toml:2: rule `a`: this name is taken by one.toml:2: names must be unique"
    );
}

#[test]
fn what_is_no_rule_file_is_refused() {
    assert!(problems("rule = 3")[0].contains("write each rule as a table `[[rule]]`"));
    assert!(problems("rule = [1, 2]")[1].contains("write each rule as a table `[[rule]]`"));
    assert!(problems("[[rule]]\nname = ")[0].starts_with("rules.toml:2: not TOML: "));
    assert!(problems("[[rule]]\nname = \"a\"\nname = \"b\"")[0].contains("not TOML: duplicate key"));
    assert!(problems(&" ".repeat(MAX_RULE_FILE_BYTES + 1))[0].contains("4194304"));
    assert!(RuleSet::parse([("empty.toml", "")]).unwrap().is_empty());
}

#[test]
fn numbers_of_rules_and_problems_are_bounded() {
    let many: String =
        (0..=MAX_RULES).map(|i| format!("[[rule]]\nname = \"{i}\"\nselect = '{{}}'\nabove = 1\n")).collect();
    assert_eq!(problems(&many), ["1001 rules; at most 1000 are accepted"]);
    let wrong: String = (0..1000).map(|i| format!("[[rule]]\nname = \"{i}\"\n")).collect();
    let found = problems(&wrong);
    assert_eq!(found.len(), MAX_REPORTED_PROBLEMS + 1);
    assert!(found.last().unwrap().starts_with("and "));
}

#[test]
fn changes_between_sets_are_named() {
    let rule =
        |name: &str, above: u8| format!("[[rule]]\nname = \"{name}\"\nselect = '{{}}'\nabove = {above}\n");
    let set = |text: String| RuleSet::parse([("rules.toml", text.as_str())]).unwrap();
    let before = set(rule("a", 1) + &rule("b", 1) + &rule("c", 1));
    let after = set(rule("d", 1) + &rule("c", 1) + &rule("b", 2));
    let changes = after.changes_since(&before);
    assert_eq!(
        (changes.added, changes.removed, changes.changed),
        (vec!["d".into()], vec!["a".into()], vec!["b".into()])
    );
    assert!(after.changes_since(&after).is_empty());
}

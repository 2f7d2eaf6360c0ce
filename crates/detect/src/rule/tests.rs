use proptest::prelude::*;

use super::*;
use crate::condition::Band;

fn base() -> RuleDefinition {
    RuleDefinition { above: Some(40.0), ..RuleDefinition::new("hot", "{sensor_type=\"temperature\"}") }
}

/// What is wrong with a definition, one line each.
fn mistakes(definition: RuleDefinition) -> Vec<String> {
    Rule::new(definition).map(|_| Vec::new()).unwrap_or_else(|m| m.iter().map(ToString::to_string).collect())
}

#[test]
fn a_definition_goes_to_json_and_back_whole() {
    let definition = RuleDefinition {
        clear: Some(ClearThreshold::Value(39.0)),
        hold: "30s".parse().ok(),
        labels: BTreeMap::from([("team".to_owned(), "maintenance".to_owned())]),
        summary: Some("{value}".to_owned()),
        severity: Severity::Critical,
        ..base()
    };
    let json = serde_json::to_value(&definition).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "name": "hot", "select": "{sensor_type=\"temperature\"}", "above": 40.0, "clear": 39.0, "for": "30s",
            "severity": "critical", "labels": { "team": "maintenance" }, "summary": "{value}", "enabled": true,
        })
    );
    assert_eq!(serde_json::from_value::<RuleDefinition>(json.clone()).unwrap(), definition);
    assert_eq!(serde_json::to_value(Rule::new(definition).unwrap()).unwrap(), json);
    assert!(serde_json::from_str::<RuleDefinition>(r#"{"name":"a","select":"{}","abvoe":1}"#).is_err());
}

#[test]
fn fingerprints_are_stable_and_change_with_the_definition() {
    let of = |definition: RuleDefinition| Rule::new(definition).unwrap().fingerprint();
    // Saved states refer to rules by this: it may never change.
    assert_eq!(of(base()).to_string(), "a0e2da3e-150b-5116-8454-dd2ed0f38377");
    assert_eq!(of(base()), of(base()));
    for other in [
        RuleDefinition { above: Some(41.0), ..base() },
        RuleDefinition { hold: "1s".parse().ok(), ..base() },
        RuleDefinition { enabled: false, ..base() },
        RuleDefinition { severity: Severity::Info, ..base() },
        RuleDefinition { summary: Some(String::new()), ..base() },
    ] {
        assert_ne!(of(other.clone()), of(base()), "{other:?}");
    }
}

#[test]
fn contradictions_are_all_named_at_once() {
    let found = mistakes(RuleDefinition {
        name: " ".into(),
        select: "{".into(),
        below: Some(1.0),
        min_quality: Some(2.0),
        labels: BTreeMap::from([("zone".to_owned(), "x".to_owned())]),
        summary: Some("{nothing}".to_owned()),
        ..base()
    });
    let expected =
        ["`name`", "`labels` has `zone`", "`min_quality`", "`select`", "`summary`", "above, below"];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found} has {expected}");
    }
}

#[test]
fn each_contradiction_is_refused() {
    let pair = |low, high| Some(ClearThreshold::Within([low, high]));
    let one = |value| Some(ClearThreshold::Value(value));
    let outside = RuleDefinition { above: None, outside: Some([1.0, 2.0]), ..base() };
    let absent = RuleDefinition { above: None, absent_for: "5m".parse().ok(), ..base() };
    for (definition, problem) in [
        (RuleDefinition { above: None, ..base() }, "has no condition"),
        (RuleDefinition { above: Some(f64::NAN), ..base() }, "finite"),
        (RuleDefinition { above: Some(f64::INFINITY), ..base() }, "finite"),
        (RuleDefinition { clear: one(41.0), ..base() }, "must not be above"),
        (RuleDefinition { clear: one(f64::NAN), ..base() }, "finite"),
        (RuleDefinition { clear: pair(1.0, 2.0), ..base() }, "one number"),
        (RuleDefinition { above: None, below: Some(4.0), clear: one(3.0), ..base() }, "must not be below"),
        (
            RuleDefinition { above: None, rate_below: Some(-4.0), clear: one(-5.0), ..base() },
            "must not be below",
        ),
        (RuleDefinition { outside: Some([2.0, 1.0]), ..outside.clone() }, "low below high"),
        (RuleDefinition { outside: Some([f64::NAN, 1.0]), ..outside.clone() }, "finite"),
        (RuleDefinition { clear: one(1.5), ..outside.clone() }, "pair"),
        (RuleDefinition { clear: pair(0.5, 2.0), ..outside.clone() }, "within"),
        (RuleDefinition { clear: pair(1.5, f64::NAN), ..outside.clone() }, "within"),
        (RuleDefinition { rate_per: "1m".parse().ok(), ..base() }, "only with rate_above"),
        (RuleDefinition { window: "1m".parse().ok(), ..absent.clone() }, "only with rate_above"),
        (
            RuleDefinition { above: None, rate_above: Some(1.0), rate_per: "0s".parse().ok(), ..base() },
            "longer than zero",
        ),
        (RuleDefinition { hold: "1m".parse().ok(), ..absent.clone() }, "add the two"),
        (RuleDefinition { clear: one(1.0), ..absent.clone() }, "no value"),
        (RuleDefinition { clear_for: "1m".parse().ok(), ..absent.clone() }, "next reading"),
        (RuleDefinition { absent_for: "0s".parse().ok(), ..absent }, "longer than zero"),
        (RuleDefinition { name: "x".repeat(200), ..base() }, "128"),
        (RuleDefinition { name: "a\u{7}".into(), ..base() }, "control"),
        (RuleDefinition { labels: BTreeMap::from([("9".into(), "x".into())]), ..base() }, "digit"),
        (RuleDefinition { labels: BTreeMap::from([("a".into(), "x\n".into())]), ..base() }, "control"),
    ] {
        let found = mistakes(definition.clone());
        assert_eq!(found.len(), 1, "{definition:?}: {found:?}");
        assert!(found[0].contains(problem), "{}", found[0]);
    }
    assert_eq!(mistakes(outside), Vec::<String>::new());
}

#[test]
fn conditions_are_resolved_with_their_defaults() {
    let rule = Rule::new(RuleDefinition { above: None, rate_above: Some(2.0), ..base() }).unwrap();
    let band = Band::Above { threshold: 2.0, clear: 2.0 };
    assert_eq!(*rule.condition(), Condition::Rate { band, per: DEFAULT_RATE_PER, window: Duration::ZERO });
    assert!(rule.trusts(None) && rule.trusts(Some(0.0)));
    let picky = Rule::new(RuleDefinition { min_quality: Some(1.0), ..base() }).unwrap();
    assert!(picky.trusts(None) && !picky.trusts(Some(0.99)));
}

proptest! {
    #[test]
    fn every_definition_that_is_accepted_goes_to_json_and_back(
        threshold in any::<f64>(), name in "[a-z-]{1,20}", hold_ms in 0u64..10_000_000, quality in 0.0f64..=1.0,
    ) {
        let definition = RuleDefinition {
            above: Some(threshold),
            hold: Some(DurationText::new(Duration::from_millis(hold_ms))),
            min_quality: Some(quality),
            ..RuleDefinition::new(name, "{}")
        };
        if let Ok(rule) = Rule::new(definition) {
            let json = serde_json::to_string(&rule).unwrap();
            let again = Rule::new(serde_json::from_str(&json).unwrap()).unwrap();
            prop_assert_eq!(again.fingerprint(), rule.fingerprint());
            prop_assert_eq!(again.definition(), rule.definition());
        }
    }
}

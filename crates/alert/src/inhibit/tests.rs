use farol_event::{Alert, AlertStatus, Severity};

use super::*;
use crate::fixture::{alert, at};

fn of(rule: &str, series: &str, severity: Severity) -> Alert {
    let id = AlertId::derive(rule, series, at(0));
    Alert { id, rule: rule.into(), series: series.into(), severity, ..alert(0) }
}

#[test]
fn critical_alert_holds_back_the_warning_of_its_series_and_family_by_default() {
    let rules = InhibitRule::defaults();
    let critical = of("temperature-critical", "t-1", Severity::Critical);
    let firing = [critical.clone(), of("cpu-critical", "t-2", Severity::Critical)];
    let inhibitors = Inhibitors::new(&rules, firing.iter());
    let by = |alert: &Alert| inhibitors.inhibiting(alert);
    assert_eq!(by(&of("temperature-warning", "t-1", Severity::Warning)), [critical.id]);
    assert_eq!(by(&of("temperature-info", "t-1", Severity::Info)), [critical.id]);
    assert!(by(&of("temperature-warning", "t-2", Severity::Warning)).is_empty(), "another family");
    assert!(by(&of("temperature-warning", "t-3", Severity::Warning)).is_empty(), "another series");
    assert!(by(&critical).is_empty());
}

#[test]
fn only_firing_alerts_hold_others_back() {
    let rules = InhibitRule::defaults();
    let mut critical = of("temperature-critical", "t-1", Severity::Critical);
    critical.status = AlertStatus::Resolved;
    let inhibitors = Inhibitors::new(&rules, std::iter::once(&critical));
    assert!(inhibitors.inhibiting(&of("temperature-warning", "t-1", Severity::Warning)).is_empty());
}

#[test]
fn alerts_that_are_source_and_target_do_not_silence_each_other() {
    let everything = InhibitRule {
        source: Matchers::default(),
        target: "severity=~\"warning|critical\"".parse().unwrap(),
        equal: vec!["absent".into()],
    };
    let (one, two) = (of("a", "1", Severity::Critical), of("b", "2", Severity::Warning));
    let info = of("c", "3", Severity::Info);
    let rules = [everything];
    let both = [one.clone(), two.clone()];
    let inhibitors = Inhibitors::new(&rules, both.iter());
    assert!(inhibitors.inhibiting(&one).is_empty() && inhibitors.inhibiting(&two).is_empty());
    let three = [one.clone(), info.clone()];
    let inhibitors = Inhibitors::new(&rules, three.iter());
    assert_eq!(inhibitors.inhibiting(&one), [info.id], "a source that is no target holds back");
    assert!(inhibitors.inhibiting(&info).is_empty(), "and is no target");
}

#[test]
fn no_more_than_a_few_sources_are_named() {
    let rules = [InhibitRule {
        source: "severity=critical".parse().unwrap(),
        target: "severity=warning".parse().unwrap(),
        equal: Vec::new(),
    }];
    let many: Vec<Alert> = (0..50).map(|n| of("a", &n.to_string(), Severity::Critical)).collect();
    let inhibitors = Inhibitors::new(&rules, many.iter());
    assert_eq!(inhibitors.inhibiting(&of("b", "x", Severity::Warning)).len(), MAX_NAMED_SOURCES);
}

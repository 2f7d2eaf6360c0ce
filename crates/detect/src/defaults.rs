//! The rules that are in force until somebody writes their own: two per known sensor type, `temperature-warning` and
//! `temperature-critical`, from the levels of [`SENSOR_TYPES`], and the founding documents' three about services: processor above
//! 90 %, answers slower than five seconds, a service that is unavailable.
//!
//! The machine on which Farol runs has a rule about its processor of its own (tag `kind` is `host`): a machine that is busy for some
//! seconds does what it is there for, so that one asks for two minutes.
//!
//! So that values that jitter around a level don't flap, an alert ends only when the value has come back by a tenth of
//! the way from the warning level to the usual value, and has stayed there for three sampling intervals.

use std::time::Duration;

use farol_event::{SENSOR_TYPES, SensorTypeDefaults, Severity};

use crate::duration::DurationText;
use crate::rule::{ClearThreshold, RuleDefinition};
use crate::rule_set::RuleSet;

/// The default rules, checked.
pub fn rules() -> RuleSet {
    RuleSet::from_definitions(definitions())
        .expect("the table of sensor types makes valid rules, which a test checks")
}

/// The default rules as people would write them.
pub fn definitions() -> Vec<RuleDefinition> {
    SENSOR_TYPES
        .iter()
        .flat_map(|t| {
            [("warning", t.warning, Severity::Warning), ("critical", t.critical, Severity::Critical)]
                .map(|(level, threshold, severity)| definition(t, level, threshold, severity))
        })
        .chain(about_services())
        .collect()
}

fn about_services() -> [RuleDefinition; 4] {
    let seconds = |seconds| Some(DurationText::new(Duration::from_secs(seconds)));
    let rule = |name: &str, select: &str, severity, summary: &str| RuleDefinition {
        severity,
        summary: Some(summary.to_owned()),
        ..RuleDefinition::new(name, select)
    };
    let busy = "{service}: processor at {value}%, above {threshold}%";
    let slow = "{service}: an answer took {value} ms, more than {threshold} ms";
    [
        RuleDefinition {
            above: Some(90.0),
            clear: Some(ClearThreshold::Value(85.0)),
            ..rule("service-cpu", "{metric=\"cpu_percent\", kind!=\"host\"}", Severity::Critical, busy)
        },
        RuleDefinition {
            above: Some(90.0),
            clear: Some(ClearThreshold::Value(85.0)),
            hold: seconds(120),
            clear_for: seconds(30),
            ..rule("host-cpu", "{metric=\"cpu_percent\", kind=\"host\"}", Severity::Critical, busy)
        },
        RuleDefinition {
            above: Some(5000.0),
            ..rule("service-response-time", "{metric=\"response_time_ms\"}", Severity::Warning, slow)
        },
        RuleDefinition {
            below: Some(0.5),
            ..rule(
                "service-unavailable",
                "{metric=\"available\"}",
                Severity::Critical,
                "{service} is unavailable",
            )
        },
    ]
}

/// The default rules as the text of a rule file, to start one's own from.
pub fn toml() -> String {
    #[derive(serde::Serialize)]
    struct File {
        rule: Vec<RuleDefinition>,
    }
    toml::to_string(&File { rule: definitions() })
        .expect("definitions have only string keys, so they serialise")
}

fn definition(t: &SensorTypeDefaults, level: &str, threshold: f64, severity: Severity) -> RuleDefinition {
    // Rounded to a hundredth, so that people read 4.7 and not 4.699999999999999.
    let clear = ((threshold - (t.warning - t.base) / 10.0) * 100.0).round() / 100.0;
    RuleDefinition {
        above: Some(threshold),
        clear: Some(ClearThreshold::Value(clear)),
        clear_for: Some(DurationText::new(t.interval * 3)),
        severity,
        ..RuleDefinition::new(format!("{}-{level}", t.name), format!("{{sensor_type=\"{}\"}}", t.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_defaults_are_the_defaults_in_force() {
        let written = RuleSet::parse([("defaults.toml", toml().as_str())]).unwrap();
        assert!(written.changes_since(&rules()).is_empty());
        assert_eq!(written.len(), 2 * SENSOR_TYPES.len() + about_services().len());
    }

    #[test]
    fn the_founding_documents_triggers_are_among_them() {
        let rules = rules();
        let of = |name: &str| rules.get(name).unwrap().definition().clone();
        assert_eq!((of("service-cpu").above, of("service-cpu").severity), (Some(90.0), Severity::Critical));
        let slow = of("service-response-time");
        assert_eq!((slow.above, slow.severity), (Some(5000.0), Severity::Warning));
        let down = of("service-unavailable");
        assert_eq!((down.below, down.severity), (Some(0.5), Severity::Critical));
    }

    #[test]
    fn thresholds_are_the_documented_ones() {
        let rules = rules();
        for (name, above, clear, severity) in [
            ("temperature-warning", 35.0, 34.0, Severity::Warning),
            ("temperature-critical", 40.0, 39.0, Severity::Critical),
            ("vibration-warning", 5.0, 4.7, Severity::Warning),
            ("vibration-critical", 7.0, 6.7, Severity::Critical),
            ("energy-warning", 150.0, 145.0, Severity::Warning),
            ("energy-critical", 180.0, 175.0, Severity::Critical),
        ] {
            let rule = rules.get(name).unwrap().definition();
            assert_eq!((rule.above, rule.clear), (Some(above), Some(ClearThreshold::Value(clear))), "{name}");
            assert_eq!(rule.severity, severity);
        }
    }
}

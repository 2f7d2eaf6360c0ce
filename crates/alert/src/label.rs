//! The labels of an alert, as routes, silences and inhibition see them.
//!
//! Those of its series and rule, and four of the alert itself, which win over others of the same name: `alertname` (its rule, under the
//! name that Alertmanager's tools use), `severity`, `series`, and `rule_family`: the rule's name without a severity at its end, so
//! that `temperature-warning` and `temperature-critical` are of one family. The last two are for matching only and are not listed.

use std::collections::BTreeMap;

use farol_event::Alert;

/// The label that names an alert's rule.
pub const ALERTNAME: &str = "alertname";
/// The label that carries its severity in lower case.
pub const SEVERITY: &str = "severity";
/// The label that names its series.
pub const SERIES: &str = "series";
/// The label that rules of one subject and different severities share.
pub const RULE_FAMILY: &str = "rule_family";

/// The value of a label; empty if there is none of that name.
pub fn value<'a>(alert: &'a Alert, name: &str) -> &'a str {
    match name {
        ALERTNAME => &alert.rule,
        SEVERITY => alert.severity.as_str(),
        SERIES => &alert.series,
        RULE_FAMILY => family(&alert.rule),
        _ => alert.labels.get(name).map_or("", String::as_str),
    }
}

/// Every label that is listed.
pub fn all(alert: &Alert) -> BTreeMap<String, String> {
    let mut labels = alert.labels.clone();
    labels.insert(ALERTNAME.to_owned(), alert.rule.clone());
    labels.insert(SEVERITY.to_owned(), alert.severity.as_str().to_owned());
    labels
}

fn family(rule: &str) -> &str {
    const ENDINGS: [&str; 4] = ["info", "warning", "error", "critical"];
    let shortened = ENDINGS.iter().find_map(|ending| {
        let rest = rule.strip_suffix(ending)?;
        rest.strip_suffix(['-', '_', ' ', '.'])
    });
    shortened.filter(|rest| !rest.is_empty()).unwrap_or(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::alert;

    #[test]
    fn labels_of_the_alert_win_over_those_of_its_series() {
        let mut hot = alert(0);
        hot.labels.insert("severity".into(), "made up".into());
        hot.labels.insert("alertname".into(), "made up".into());
        assert_eq!(value(&hot, "severity"), "critical");
        assert_eq!((value(&hot, "alertname"), value(&hot, "series")), ("hot", "temp-1"));
        assert_eq!((value(&hot, "unit"), value(&hot, "absent")), ("°C", ""));
        let listed = all(&hot);
        assert_eq!(listed.get("severity").map(String::as_str), Some("critical"));
        assert!(!listed.contains_key("series"));
    }

    #[test]
    fn rules_of_one_family_differ_in_their_severity_only() {
        for (rule, expected) in [
            ("temperature-critical", "temperature"),
            ("temperature-warning", "temperature"),
            ("cpu_info", "cpu"),
            ("critical", "critical"),
            ("-critical", "-critical"),
            ("hypercritical", "hypercritical"),
            ("hot", "hot"),
        ] {
            assert_eq!(family(rule), expected, "{rule}");
        }
    }
}

use std::collections::BTreeMap;

use farol_event::Acknowledgement;
use uuid::Uuid;

use super::*;
use crate::fixture::{alert, at};
use crate::route::GroupKey;

fn notification(reason: Reason, firing: Vec<Alert>, resolved: Vec<Alert>) -> Notification {
    let labels = BTreeMap::from([("alertname".to_owned(), "hot".to_owned())]);
    let group = GroupKey { route: "{}".into(), receiver: "ops".into(), labels };
    Notification { id: Uuid::nil(), group, reason, firing, resolved }
}

fn resolved(began: i64) -> Alert {
    Alert { status: AlertStatus::Resolved, ended_at: Some(at(60)), ..alert(began) }
}

#[test]
fn subject_says_severity_state_and_the_gravest_summary() {
    let warning = Alert { severity: Severity::Warning, summary: "temp-2 is warm".into(), ..alert(1) };
    for (notification, expected) in [
        (
            notification(Reason::First, vec![alert(0)], vec![]),
            "[CRITICAL] firing: temp-1: 41.5 °C is above 40 °C",
        ),
        (
            notification(Reason::Changed, vec![warning.clone()], vec![resolved(0)]),
            "[WARNING] firing: temp-2 is warm (and 1 more)",
        ),
        (notification(Reason::Repeat, vec![warning], vec![]), "[WARNING] still firing: temp-2 is warm"),
        (
            notification(Reason::Resolved, vec![], vec![resolved(0)]),
            "[INFO] resolved: temp-1: 41.5 °C is above 40 °C",
        ),
    ] {
        assert_eq!(Mail::new(&notification, None).subject, expected);
    }
}

#[test]
fn nothing_that_comes_from_outside_breaks_out_of_its_place() {
    let hostile = Alert { summary: "x\r\nBcc: all@example.org\n<script>\"&'".into(), ..alert(0) };
    let mail = Mail::new(&notification(Reason::First, vec![hostile], vec![]), Some("http://h/"));
    assert!(!mail.subject.contains(['\r', '\n']), "{}", mail.subject);
    assert!(!mail.html.contains("<script>") && mail.html.contains("&lt;script&gt;&quot;&amp;&#39;"));
    let long = Alert { summary: "é".repeat(1000), ..alert(0) };
    let mail = Mail::new(&notification(Reason::First, vec![long], vec![]), None);
    assert_eq!(mail.subject.chars().count(), MAX_SUBJECT_CHARS);
}

#[test]
fn text_and_html_tell_the_same() {
    let given = Acknowledgement { by: "ana <3".into(), at: at(30), comment: None };
    let known = Alert { acknowledgement: Some(given), ..alert(0) };
    let notification = notification(Reason::Changed, vec![known.clone()], vec![resolved(1)]);
    let mail = Mail::new(&notification, Some("http://127.0.0.1:5000"));
    let link = format!("http://127.0.0.1:5000/#/alerts/{}", known.id);
    assert_eq!(mail.text.lines().next(), Some("alertname=hot: 1 firing, 1 resolved"));
    for part in ["CRITICAL firing", "acknowledged by ana <3", &link, "CRITICAL resolved"] {
        assert!(mail.text.contains(part), "{part}\n{}", mail.text);
    }
    for part in ["acknowledged by ana &lt;3", &link, "<br>resolved<", "alertname=hot: 1 firing"] {
        assert!(mail.html.contains(part), "{part}\n{}", mail.html);
    }
}

#[test]
fn more_alerts_than_are_listed_are_counted() {
    let many = (0..130).map(alert).collect();
    let mail = Mail::new(&notification(Reason::First, many, vec![]), None);
    assert!(mail.text.contains("30 more alerts are not listed."));
    assert_eq!(mail.text.matches("CRITICAL firing").count(), MAX_LISTED_ALERTS);
}

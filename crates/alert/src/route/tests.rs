use super::*;
use crate::fixture::alert;

fn route(matchers: &str, receiver: &str, goes_on: bool) -> Route {
    Route {
        matchers: matchers.parse().unwrap(),
        receivers: vec![receiver.to_owned()],
        goes_on,
        group_by: GroupBy::default(),
        timing: GroupTiming::default(),
    }
}

#[test]
fn first_route_that_holds_is_taken_and_continue_looks_further() {
    for (routes, expected) in [
        (vec![route("severity=warning", "a", false), route("{}", "b", false)], vec!["b"]),
        (vec![route("severity=critical", "a", false), route("{}", "b", false)], vec!["a"]),
        (vec![route("severity=critical", "a", true), route("{}", "b", false)], vec!["a", "b"]),
        (
            vec![
                route("unit=\"°C\"", "a", true),
                route("zone=x", "b", true),
                route("{}", "a", true),
                route("{}", "c", false),
                route("{}", "d", false),
            ],
            vec!["a", "c"],
        ),
        (vec![route("zone=x", "a", false)], vec![]),
        (vec![], vec![]),
    ] {
        assert_eq!(Routes(routes).receivers(&alert(0)), expected);
    }
}

#[test]
fn groups_are_told_apart_by_route_receiver_and_labels() {
    let by_unit =
        Route { group_by: GroupBy::Labels(vec!["unit".into(), "absent".into()]), ..route("{}", "a", false) };
    let key = GroupKey::of(&alert(0), &by_unit, "a");
    assert_eq!(key.text(), r#"{}:{unit="°C"}"#);
    let other = GroupKey::of(&alert(0), &by_unit, "b");
    assert_ne!(key.id(), other.id());
    assert_eq!(key.id(), GroupKey::of(&alert(9), &by_unit, "a").id());
    let each = Route { group_by: GroupBy::EveryAlert, ..route("{}", "a", false) };
    assert_eq!(
        GroupKey::of(&alert(0), &each, "a").text(),
        r#"{}:{alertname="hot", sensor_id="temp-1", severity="critical", unit="°C"}"#
    );
    assert_eq!(key.overflow().text(), "{}:{}");
}

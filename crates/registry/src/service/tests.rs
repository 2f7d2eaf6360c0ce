use proptest::prelude::*;

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis_clamped(ms)
}

fn service(checks: &str) -> Service {
    let definition = serde_json::from_str(&format!(r#"{{"checks":[{checks}]}}"#)).unwrap();
    Service::new("shop".parse().unwrap(), Arc::new(definition), Origin::Api, at(0))
}

const TWO: &str = r#"{"name":"a","tcp":"x:1","down_after":2,"up_after":2},{"name":"b","tcp":"x:2","down_after":1,"up_after":1}"#;

fn answer(passed: bool) -> ProbeAnswer {
    let outcome = if passed { Ok(()) } else { Err(Failure::TimedOut(Duration::from_secs(1))) };
    ProbeAnswer { outcome, response_time: None }
}

/// What was found, in one word each.
fn words(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .map(|finding| match &finding.kind {
            FindingKind::CheckChanged { check, to, .. } => format!("{check}={}", to.as_str()),
            FindingKind::Measured { check, .. } => format!("{check} measured"),
            FindingKind::Unavailable { .. } => "unavailable".to_owned(),
            FindingKind::Recovered { .. } => "recovered".to_owned(),
            FindingKind::MaintenanceEnded => "maintenance ended".to_owned(),
        })
        .collect()
}

struct Played {
    service: Service,
    now: i64,
}

impl Played {
    fn new(checks: &str) -> Self {
        Self { service: service(checks), now: 0 }
    }

    fn step(&mut self, act: impl FnOnce(&mut Service, Timestamp, &mut Vec<Finding>)) -> Vec<String> {
        self.now += 1000;
        let mut findings = Vec::new();
        act(&mut self.service, at(self.now), &mut findings);
        words(&findings)
    }

    fn result(&mut self, check: &str, passed: bool) -> Vec<String> {
        let check = check.parse().unwrap();
        self.step(|service, now, findings| service.observe(&check, &answer(passed), now, findings))
    }

    fn maintain(&mut self, maintenance: Option<Maintenance>) -> Vec<String> {
        self.step(|service, now, findings| service.maintain(maintenance, now, findings))
    }
}

fn work(until: Option<i64>) -> Maintenance {
    Maintenance { by: "ana".into(), reason: None, until: until.map(at) }
}

#[test]
fn an_outage_lasts_while_any_check_is_down() {
    let mut shop = Played::new(TWO);
    assert_eq!(shop.result("a", true), ["a=up"]);
    assert_eq!(shop.result("b", false), ["b=down", "unavailable"]);
    assert_eq!(shop.result("a", false), [""; 0]);
    assert_eq!(shop.result("a", false), ["a=down"]);
    assert_eq!(shop.result("b", true), ["b=up"]);
    assert_eq!(shop.result("a", true), [""; 0]);
    assert_eq!(shop.result("a", true), ["a=up", "recovered"]);
}

#[test]
fn a_check_that_is_not_critical_is_told_and_makes_no_outage() {
    let mut shop = Played::new(r#"{"name":"a","tcp":"x:1","down_after":1,"critical":false}"#);
    assert_eq!(shop.result("a", false), ["a=down"]);
    assert_eq!(shop.service.outage(), None);
}

#[test]
fn a_check_that_goes_on_otherwise_knows_nothing_and_says_so() {
    let mut shop = Played::new(TWO);
    assert_eq!(shop.result("b", false), ["b=down", "unavailable"]);
    let other =
        r#"{"checks":[{"name":"a","tcp":"x:1","down_after":2,"up_after":2},{"name":"b","tcp":"y:2"}]}"#;
    let other = Arc::new(serde_json::from_str(other).unwrap());
    let told = shop.step(|service, now, findings| service.redefine(other, Origin::Api, now, findings));
    assert_eq!(told, ["b=unknown", "recovered"]);
    assert_eq!(shop.service.check(&"b".parse().unwrap()), Some(CheckState::Unknown));
}

#[test]
fn an_answer_is_measured_whether_it_was_right_or_wrong() {
    let mut shop = service(TWO);
    let mut findings = Vec::new();
    let wrong = ProbeAnswer {
        outcome: Err(Failure::Status { status: 500, expected: "200-299".into() }),
        response_time: Some(Duration::from_millis(7)),
    };
    shop.observe(&"a".parse().unwrap(), &wrong, at(1), &mut findings);
    shop.observe(&"unknown".parse().unwrap(), &wrong, at(1), &mut findings);
    assert_eq!(words(&findings), ["a measured"]);
}

#[test]
fn maintenance_silences_the_beginning_and_not_the_measuring() {
    let mut shop = Played::new(TWO);
    shop.result("b", true);
    assert_eq!(shop.maintain(Some(work(None))), [""; 0]);
    assert_eq!(shop.result("b", false), ["b=down"], "the check goes on");
    assert_eq!(shop.result("b", true), ["b=up"], "nothing was told, so nothing is taken back");
    assert_eq!(shop.result("b", false), ["b=down"]);
    assert_eq!(shop.maintain(None), ["unavailable"], "an outage that outlasts the maintenance is told");
    shop.maintain(Some(work(None)));
    assert_eq!(
        shop.result("b", true),
        ["b=up", "recovered"],
        "an end that somebody waits for is always told"
    );
}

#[test]
fn maintenance_runs_out_by_itself() {
    let mut shop = Played::new(TWO);
    shop.maintain(Some(work(Some(5000))));
    assert_eq!(shop.service.next_deadline(), Some(at(5000)));
    assert_eq!(shop.result("b", false), ["b=down"]);
    shop.now = 4000;
    assert_eq!(shop.step(Service::tick), ["maintenance ended", "unavailable"]);
    assert_eq!(shop.service.maintenance(), None);
}

#[test]
fn a_heartbeat_that_does_not_come_is_an_outage_and_the_next_one_ends_it() {
    let mut shop = Played::new(r#"{"ttl":"3s"}"#);
    assert_eq!(shop.step(|service, now, findings| assert!(service.beat(now, now, findings))), ["ttl=up"]);
    assert_eq!(shop.service.next_deadline(), Some(at(4000)));
    shop.now = 2500;
    assert_eq!(shop.step(Service::tick), [""; 0]);
    assert_eq!(shop.step(Service::tick), ["ttl=down", "unavailable"]);
    shop.now = 100_000;
    assert_eq!(shop.step(Service::tick), [""; 0]);
    assert_eq!(
        shop.step(|service, now, findings| assert!(service.beat(now, now, findings))),
        ["ttl=up", "recovered"]
    );
}

#[test]
fn a_service_that_never_says_that_it_lives_is_out_after_one_time_to_live() {
    let mut shop = Played::new(r#"{"ttl":"3s"}"#);
    shop.now = 2000;
    assert_eq!(shop.step(Service::tick), ["ttl=down", "unavailable"]);
}

#[test]
fn an_old_heartbeat_out_of_the_log_does_not_count_as_a_new_one() {
    let mut shop = Played::new(r#"{"ttl":"3s"}"#);
    shop.now = 60_000;
    shop.step(Service::tick);
    assert_eq!(shop.step(|service, now, findings| assert!(!service.beat(at(1000), now, findings))), [""; 0]);
}

#[test]
fn an_outage_that_was_told_before_a_restart_is_ended_after_it_and_not_told_again() {
    let mut shop = Played::new(TWO);
    let outage = Outage { since: at(-5000), check: "b".parse().unwrap() };
    assert_eq!(shop.step(|service, now, findings| service.restore_outage(outage, now, findings)), [""; 0]);
    assert_eq!(shop.result("b", false), [""; 0]);
    assert_eq!(shop.result("a", true), ["a=up"]);
    assert_eq!(shop.result("b", true), ["b=up", "recovered"]);
}

#[test]
fn an_outage_for_want_of_heartbeats_goes_on_after_a_restart_that_finds_the_last_one() {
    let mut shop = Played::new(r#"{"ttl":"3s"}"#);
    shop.now = 60_000;
    shop.service =
        Service::new("shop".parse().unwrap(), shop.service.definition().clone(), Origin::Api, at(60_000));
    let outage = Outage { since: at(5000), check: "ttl".parse().unwrap() };
    assert_eq!(shop.step(|service, now, findings| service.restore_outage(outage, now, findings)), [""; 0]);
    assert_eq!(shop.step(|service, now, findings| assert!(!service.beat(at(1000), now, findings))), [""; 0]);
    shop.now = 70_000;
    assert_eq!(shop.step(Service::tick), [""; 0], "it was told before the restart");
    assert_eq!(
        shop.step(|service, now, findings| assert!(service.beat(now, now, findings))),
        ["ttl=up", "recovered"]
    );
}

#[test]
fn a_check_that_asks_the_same_more_or_less_often_keeps_what_it_knows() {
    let mut shop = Played::new(r#"{"name":"a","tcp":"x:1","down_after":1},{"name":"t","ttl":"3s"}"#);
    assert_eq!(shop.result("a", false), ["a=down", "unavailable"]);
    assert_eq!(shop.step(|service, now, findings| assert!(service.beat(now, now, findings))), ["t=up"]);
    let other =
        r#"{"checks":[{"name":"a","tcp":"x:1","interval":"1s","up_after":1},{"name":"t","ttl":"5s"}]}"#;
    let other = Arc::new(serde_json::from_str(other).unwrap());
    let told = shop.step(|service, now, findings| service.redefine(other, Origin::Api, now, findings));
    assert_eq!(told, [""; 0]);
    assert_eq!(
        shop.service.next_deadline(),
        Some(at(shop.now + 5000)),
        "heartbeats have the new time to come"
    );
    assert_eq!(shop.result("a", true), ["a=up", "recovered"], "by the new threshold");
}

#[test]
fn removing_a_service_or_its_last_check_ends_its_outage() {
    let mut shop = Played::new(TWO);
    shop.result("b", false);
    let nothing = Arc::new(ServiceDefinition::default());
    assert_eq!(
        shop.step(|service, now, findings| service.redefine(nothing, Origin::Api, now, findings)),
        ["b=unknown", "recovered"]
    );
    let mut shop = Played::new(TWO);
    shop.result("b", false);
    let mut findings = Vec::new();
    shop.service.remove(at(9000), &mut findings);
    assert_eq!(words(&findings), ["b=unknown", "recovered"]);
}

#[test]
fn a_definition_that_comes_again_changes_nothing() {
    let mut shop = Played::new(TWO);
    shop.result("b", false);
    let same = Arc::clone(shop.service.definition());
    assert_eq!(
        shop.step(|service, now, findings| service.redefine(same, Origin::Api, now, findings)),
        [""; 0]
    );
    assert_eq!(shop.service.check(&"b".parse().unwrap()), Some(CheckState::Down));
}

#[derive(Debug, Clone)]
enum Step {
    Result(bool, bool),
    Beat,
    Wait(i64),
    Maintain(Option<i64>),
    EndMaintenance,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<bool>(), any::<bool>()).prop_map(|(a, passed)| Step::Result(a, passed)),
        2 => Just(Step::Beat),
        2 => (1i64..5000).prop_map(Step::Wait),
        1 => proptest::option::of(1i64..9000).prop_map(Step::Maintain),
        1 => Just(Step::EndMaintenance),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Whatever happens in whatever order, beginnings and ends of outages take turns, an outage is told while a check is
    /// down, and none is open that no check justifies.
    #[test]
    fn every_outage_is_told_once_and_ended_once(steps in steps()) {
        let checks = format!(r#"{TWO},{{"name":"t","ttl":"2s"}}"#);
        let mut shop = service(&checks);
        let mut now = 0;
        let mut told: Option<Outage> = None;
        for step in steps {
            let mut findings = Vec::new();
            match step {
                Step::Result(a, passed) => {
                    let check = if a { "a" } else { "b" }.parse().unwrap();
                    shop.observe(&check, &answer(passed), at(now), &mut findings);
                }
                Step::Beat => {
                    shop.beat(at(now), at(now), &mut findings);
                }
                Step::Wait(ms) => now += ms,
                Step::Maintain(ms) => shop.maintain(Some(work(ms.map(|ms| now + ms))), at(now), &mut findings),
                Step::EndMaintenance => shop.maintain(None, at(now), &mut findings),
                Step::Restart => {
                    shop = service(&checks);
                    if let Some(outage) = told.clone() {
                        shop.restore_outage(outage, at(now), &mut findings);
                    }
                }
            }
            shop.tick(at(now), &mut findings);
            for finding in findings {
                match finding.kind {
                    FindingKind::Unavailable { outage, .. } => {
                        prop_assert_eq!(&told, &None, "told twice");
                        told = Some(outage);
                    }
                    FindingKind::Recovered { outage, .. } => {
                        prop_assert_eq!(&told, &Some(outage), "ended what was not told");
                        told = None;
                    }
                    _ => {}
                }
            }
            let down = ["a", "b", "t"].iter().any(|name| shop.check(&name.parse().unwrap()) == Some(CheckState::Down));
            prop_assert_eq!(shop.outage(), told.as_ref());
            prop_assert!(told.is_none() || down, "an outage without a check that is down");
            prop_assert!(!down || told.is_some() || shop.maintenance().is_some(), "an outage that nobody was told of");
        }
    }
}

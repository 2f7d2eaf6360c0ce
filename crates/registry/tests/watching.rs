//! The watch in virtual time: the schedule, what hangs, what is told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farol_event::Timestamp;
use farol_registry::{
    Catalogue, Command, Failure, Finding, FindingKind, Origin, ProbeAnswer, Prober, Reach, ServiceDefinition,
    ServiceId, Target, Watch, WatchDeps,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Answers by the port that is asked: 1 at once, 2 never, 3 with a failure, 4 from the tenth second on with a failure. Keeps
/// when each was asked.
struct ByPort {
    began: Instant,
    asked: Arc<parking_lot::Mutex<BTreeMap<u16, Vec<Duration>>>>,
}

#[async_trait]
impl Prober for ByPort {
    async fn probe(&self, target: &Target, _reach: Reach) -> ProbeAnswer {
        let Target::Tcp(at) = target else { panic!("only TCP is asked here") };
        let elapsed = self.began.elapsed();
        self.asked.lock().entry(at.port).or_default().push(elapsed);
        let failed = || ProbeAnswer::none(Failure::Broken("as told".into()));
        match at.port {
            2 => std::future::pending().await,
            3 => failed(),
            4 if elapsed >= Duration::from_secs(10) => failed(),
            _ => ProbeAnswer { outcome: Ok(()), response_time: Some(Duration::from_millis(3)) },
        }
    }
}

struct Watching {
    watch: Watch,
    catalogue: Arc<Catalogue>,
    findings: mpsc::Receiver<Vec<Finding>>,
    asked: Arc<parking_lot::Mutex<BTreeMap<u16, Vec<Duration>>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn start() -> Watching {
    let (began, asked) = (Instant::now(), Arc::default());
    let catalogue = Arc::new(Catalogue::new(Some(Reach::Loopback)));
    let (findings, received) = mpsc::channel(100_000);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let deps = WatchDeps {
        prober: Arc::new(ByPort { began, asked: Arc::clone(&asked) }),
        clock: Arc::new(move || Timestamp::EPOCH.saturating_add(began.elapsed())),
        catalogue: Arc::clone(&catalogue),
        policies: farol_resilience::Registry::new(),
        findings,
    };
    let watch = Watch::start(deps, &tasks, stop.clone());
    Watching { watch, catalogue, findings: received, asked, stop, tasks }
}

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn define(name: &str, checks: &str) -> Command {
    let definition: ServiceDefinition = serde_json::from_str(&format!(r#"{{"checks":[{checks}]}}"#)).unwrap();
    Command::Define { id: id(name), definition: Arc::new(definition), origin: Origin::Api }
}

impl Watching {
    async fn apply(&self, command: Command) -> bool {
        self.watch.apply(command).await.unwrap()
    }

    fn found(&mut self) -> Vec<Finding> {
        let mut all = Vec::new();
        while let Ok(findings) = self.findings.try_recv() {
            all.extend(findings);
        }
        all
    }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[tokio::test(start_paused = true)]
async fn each_check_is_asked_at_its_interval_whatever_hangs_beside_it() {
    let mut watching = start();
    for number in 0..50 {
        watching
            .apply(define(&format!("hangs-{number}"), r#"{"tcp":"a:2","interval":"1s","timeout":"1s"}"#))
            .await;
    }
    watching.apply(define("answers", r#"{"tcp":"a:1","interval":"1s","timeout":"500ms"}"#)).await;
    tokio::time::sleep(seconds(60)).await;
    let asked = watching.asked.lock().clone();
    let answering = &asked[&1];
    assert!((59..=60).contains(&answering.len()), "{}", answering.len());
    for pair in answering.windows(2) {
        assert_eq!(pair[1] - pair[0], seconds(1));
    }
    // One that takes its whole interval is asked at every second turn at the least, never twice at a time.
    let hanging = asked[&2].len();
    assert!((50 * 29..=50 * 60).contains(&hanging), "{hanging}");
    let unavailable = watching
        .found()
        .iter()
        .filter(|finding| matches!(finding.kind, FindingKind::Unavailable { .. }))
        .count();
    assert_eq!(unavailable, 50, "every one that hangs, once");
}

#[tokio::test(start_paused = true)]
async fn first_questions_come_spread() {
    let watching = start();
    for number in 0..200 {
        watching.apply(define(&format!("service-{number}"), r#"{"tcp":"a:1","interval":"10s"}"#)).await;
    }
    tokio::time::sleep(seconds(5)).await;
    let asked = watching.asked.lock()[&1].clone();
    assert_eq!(asked.len(), 200, "all within the spread");
    let busiest =
        (0..50).map(|tenth| asked.iter().filter(|at| at.as_millis() / 100 == tenth).count()).max().unwrap();
    assert!(busiest <= 20, "{busiest} of 200 in one tenth of a second of five seconds");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_the_catalogue_shows_what_is_watched() {
    let mut watching = start();
    let check = r#"{"tcp":"a:4","interval":"1s","down_after":3}"#;
    assert!(watching.apply(define("shop", check)).await);
    assert!(watching.catalogue.get(&id("shop")).is_some());
    tokio::time::sleep(seconds(30)).await;
    let found = watching.found();
    let count = |wanted: fn(&FindingKind) -> bool| found.iter().filter(|f| wanted(&f.kind)).count();
    assert_eq!(count(|kind| matches!(kind, FindingKind::Unavailable { .. })), 1);
    assert_eq!(count(|kind| matches!(kind, FindingKind::CheckChanged { .. })), 2);
    let told = found.iter().find(|f| matches!(f.kind, FindingKind::Unavailable { .. })).unwrap();
    let after = told.at.since(Timestamp::EPOCH);
    assert!((seconds(12)..=seconds(13)).contains(&after), "third failure after the tenth second: {after:?}");

    assert!(watching.apply(Command::Remove { id: id("shop") }).await);
    assert!(!watching.apply(Command::Remove { id: id("shop") }).await, "it is gone");
    assert!(watching.catalogue.get(&id("shop")).is_none());
    assert!(watching.found().iter().any(|f| matches!(f.kind, FindingKind::Recovered { .. })));
    let asked = watching.asked.lock()[&4].len();
    tokio::time::sleep(seconds(30)).await;
    assert_eq!(watching.asked.lock()[&4].len(), asked, "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn another_definition_is_asked_instead_and_the_same_one_goes_on() {
    let watching = start();
    let first = define("shop", r#"{"tcp":"a:1","interval":"1s"}"#);
    watching.apply(first.clone()).await;
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    watching.apply(first).await;
    tokio::time::sleep(seconds(10)).await;
    let asked = watching.asked.lock()[&1].clone();
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] == seconds(1)), "{asked:?}");
    watching.apply(define("shop", r#"{"tcp":"a:3","interval":"1s"}"#)).await;
    tokio::time::sleep(seconds(10)).await;
    let after = watching.asked.lock().clone();
    assert_eq!(after[&1].len(), asked.len());
    assert!(after[&3].len() >= 9);
}

#[tokio::test(start_paused = true)]
async fn outages_of_before_a_restart_are_known_before_the_first_answer() {
    let mut watching = start();
    let check = r#"{"tcp":"a:3","interval":"100ms","down_after":1}"#;
    let names: Vec<String> = (0..100).map(|number| format!("service-{number}")).collect();
    let defined = names.iter().map(|name| define(name, check));
    let outage = farol_registry::Outage { since: Timestamp::EPOCH, check: "tcp".parse().unwrap() };
    let restored = names.iter().map(|name| Command::Restore { id: id(name), outage: outage.clone() });
    let commands: Vec<Command> = defined.chain(restored).collect();
    assert_eq!(watching.watch.apply_all(commands).await.unwrap(), 200);
    tokio::time::sleep(seconds(5)).await;
    assert!(watching.asked.lock()[&3].len() >= 100);
    assert_eq!(watching.found(), [], "they are still out, and that was told");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_service_up_and_their_absence_takes_it_down() {
    let mut watching = start();
    watching.apply(define("job", r#"{"ttl":"5s"}"#)).await;
    for second in 0..20_u64 {
        let at = Timestamp::EPOCH.saturating_add(seconds(second));
        assert!(watching.apply(Command::Beat { id: id("job"), at }).await);
        tokio::time::sleep(seconds(1)).await;
    }
    assert!(!watching.found().iter().any(|f| matches!(f.kind, FindingKind::Unavailable { .. })));
    tokio::time::sleep(seconds(10)).await;
    let found = watching.found();
    let told: Vec<_> = found.iter().filter(|f| matches!(f.kind, FindingKind::Unavailable { .. })).collect();
    assert_eq!(told.len(), 1, "{found:?}");
    assert_eq!(told[0].at, Timestamp::EPOCH.saturating_add(seconds(24)));
}

#[tokio::test(start_paused = true)]
async fn a_maintenance_that_runs_out_shows_in_the_catalogue() {
    let mut watching = start();
    watching.apply(define("shop", r#"{"tcp":"a:3","interval":"1s"}"#)).await;
    let until = Some(Timestamp::EPOCH.saturating_add(seconds(30)));
    let maintenance = farol_registry::Maintenance { by: "ana".into(), reason: None, until };
    watching.apply(Command::Maintain { id: id("shop"), maintenance: Some(maintenance) }).await;
    tokio::time::sleep(seconds(29)).await;
    assert!(watching.catalogue.get(&id("shop")).unwrap().maintenance.is_some());
    assert!(!watching.found().iter().any(|f| matches!(f.kind, FindingKind::Unavailable { .. })));
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(watching.catalogue.get(&id("shop")).unwrap().maintenance, None);
    let found = watching.found();
    assert!(found.iter().any(|f| f.kind == FindingKind::MaintenanceEnded), "{found:?}");
    assert!(found.iter().any(|f| matches!(f.kind, FindingKind::Unavailable { .. })), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_every_task() {
    let watching = start();
    for number in 0..20 {
        watching.apply(define(&format!("s{number}"), r#"{"tcp":"a:2","interval":"1s"}"#)).await;
    }
    watching.stop.cancel();
    watching.tasks.close();
    tokio::time::timeout(seconds(1), watching.tasks.wait()).await.expect("every task has ended");
    assert!(watching.watch.apply(Command::Remove { id: id("s1") }).await.is_err());
}

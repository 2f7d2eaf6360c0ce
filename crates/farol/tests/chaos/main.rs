//! The chaos run: twenty simulated services, an hour of virtual time, random outages from a printed seed.
//!
//! First half, in virtual time: the simulators' cores answer, the real schedule of checks asks them through its policies, and
//! callers of each service go through timeout, bulkhead and breaker. Second half, in real time: what the checks found goes as
//! events through the real log, detect workers and views. Every outage of the schedule must be told once, raise exactly one
//! alert, and resolve; no call may wait longer than its bound. `FAROL_CHAOS_SEED` plays a seed again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_bus::{Bus, ProducerRecord};
use farol_event::service::SimulationApplied;
use farol_event::{AlertStatus, Timestamp};
use farol_pipeline::services::event;
use farol_pipeline::{
    NotifierSettings, Pipeline, PipelineDeps, PipelineSettings, RuleSources, RulesHandle, TopicNames,
    ViewRetention, WorkerSettings, default_topics, ensure_topics,
};
use farol_registry::{
    Catalogue, Command, Failure, Finding, FindingKind, Origin, ProbeAnswer, Prober, Reach, ServiceDefinition,
    ServiceId, Target, Watch, WatchDeps,
};
use farol_resilience::{Bulkhead, CircuitBreaker, Error, Registry, Timeout, TokioClock};
use farol_simulate::services::behaviour::{Question, SimulatedService};
use farol_simulate::services::outages::OutageSchedule;
use farol_view::{Store, StoreOptions};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const SERVICES: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// An outage needs so long to be found for sure: three failures a second apart, the question before them, and their latency.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
/// What a caller's call may take: the wait for a place, and the time limit of the call itself.
const CALL_WAIT: Duration = Duration::from_millis(200);
const CALL_TIMEOUT: Duration = Duration::from_millis(300);
const BOUND: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Calls {
    made: AtomicU64,
    late: AtomicU64,
    timed_out: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    probes: AtomicU64,
}

/// The simulated services, reached without a network so that time can be virtual.
struct Town {
    services: Vec<Mutex<SimulatedService>>,
    base: Timestamp,
    began: Instant,
    calls: Arc<Calls>,
}

impl Town {
    fn now(&self) -> Timestamp {
        self.base.saturating_add(self.began.elapsed())
    }

    async fn ask(&self, index: usize, question: Question) -> u16 {
        let response = self.services[index].lock().respond(question, self.now());
        tokio::time::sleep(response.latency).await;
        response.status
    }
}

#[async_trait]
impl Prober for Town {
    async fn probe(&self, target: &Target, _reach: Reach) -> ProbeAnswer {
        let Target::Tcp(at) = target else { panic!("only TCP targets name simulated services here") };
        self.calls.probes.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let status = self.ask(usize::from(at.port) - 1, Question::Health).await;
        let outcome =
            if status == 200 { Ok(()) } else { Err(Failure::Status { status, expected: "200".to_owned() }) };
        ProbeAnswer { outcome, response_time: Some(began.elapsed()) }
    }
}

fn name(index: usize) -> ServiceId {
    format!("service-{}", index + 1).parse().unwrap()
}

/// The outages of each service up to the first moment after an hour that no outage's beginning is too near to, and that moment.
fn scheduled(seed: u64, base: Timestamp) -> (Vec<Vec<(Timestamp, Timestamp)>>, Duration) {
    let mut end = HOUR;
    loop {
        let last = base.saturating_add(end);
        let outages: Vec<Vec<_>> = (0..SERVICES)
            .map(|index| {
                let mut schedule = OutageSchedule::new(seed + index as u64, base);
                let mut outages = Vec::new();
                while schedule.outage().0 <= last {
                    outages.push(schedule.outage());
                    schedule.is_out(schedule.outage().1);
                }
                outages
            })
            .collect();
        let newest = outages.iter().flatten().map(|(from, _)| *from).max().unwrap();
        if last.since(newest) > FOUND_WITHIN {
            return (outages, end);
        }
        end += Duration::from_millis(100);
    }
}

/// Plays the hour; gives what the checks found.
async fn play(seed: u64, base: Timestamp, length: Duration, calls: &Arc<Calls>) -> Vec<Finding> {
    let behaviour = SimulationApplied {
        failure_rate: 0.05,
        latency_ms: 170,
        latency_variation_ms: 160,
        down: false,
        until: None,
    };
    let services = (0..SERVICES).map(|index| {
        let seed = seed + index as u64;
        let outages = OutageSchedule::new(seed, base);
        Mutex::new(SimulatedService::new(behaviour.clone(), Some(outages), seed, base))
    });
    let town = Arc::new(Town {
        services: services.collect(),
        base,
        began: Instant::now(),
        calls: Arc::clone(calls),
    });
    let (findings, mut found) = mpsc::channel(1024);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let clock = Arc::clone(&town);
    let watch = Watch::start(
        WatchDeps {
            prober: town.clone(),
            clock: Arc::new(move || clock.now()),
            catalogue: Arc::new(Catalogue::new(None)),
            policies: Registry::new(),
            findings,
        },
        &tasks,
        stop.clone(),
    );
    let collected = Arc::new(Mutex::new(Vec::new()));
    let collecting = Arc::clone(&collected);
    tasks.spawn(async move {
        while let Some(findings) = found.recv().await {
            collecting.lock().extend(findings);
        }
    });
    for index in 0..SERVICES {
        let check =
            format!(r#"{{"checks":[{{"tcp":"x:{}","interval":"1s","timeout":"900ms"}}]}}"#, index + 1);
        let definition: ServiceDefinition = serde_json::from_str(&check).unwrap();
        let command =
            Command::Define { id: name(index), definition: Arc::new(definition), origin: Origin::Settings };
        assert!(watch.apply(command).await.unwrap());
        tasks.spawn(call_again_and_again(Arc::clone(&town), index, stop.clone()));
    }
    tokio::time::sleep_until(town.began + length).await;
    // Then nothing goes down any more, so that everything can be seen to resolve.
    for service in &town.services {
        let up = serde_json::from_str(r#"{"down":false}"#).unwrap();
        service.lock().command(&up, town.now());
    }
    tokio::time::sleep(FOUND_WITHIN).await;
    stop.cancel();
    drop(watch);
    tasks.close();
    tasks.wait().await;
    std::mem::take(&mut *collected.lock())
}

/// Callers of one service: several at a time, through timeout, bulkhead and breaker.
async fn call_again_and_again(town: Arc<Town>, index: usize, stop: CancellationToken) {
    let breaker = CircuitBreaker::builder(format!("b{index}"))
        .open_for(Duration::from_secs(5))
        .clock(TokioClock::shared())
        .build()
        .unwrap();
    let bulkhead = Bulkhead::builder(format!("p{index}")).max_concurrent(2).max_wait(CALL_WAIT).build();
    let timeout = Timeout::new(format!("t{index}"), CALL_TIMEOUT);
    let calls = farol_resilience::Pipeline::outermost(breaker).then(bulkhead).then(timeout);
    let caller = async || {
        loop {
            let began = Instant::now();
            let outcome = calls
                .call_once(|| async {
                    let status = town.ask(index, Question::Work).await;
                    if status == 200 { Ok(()) } else { Err(status) }
                })
                .await;
            let count = &town.calls;
            count.made.fetch_add(1, Ordering::Relaxed);
            match outcome {
                Ok(()) => {}
                Err(Error::Inner(_)) => _ = count.failed.fetch_add(1, Ordering::Relaxed),
                Err(Error::TimedOut { .. }) => _ = count.timed_out.fetch_add(1, Ordering::Relaxed),
                Err(_) => _ = count.rejected.fetch_add(1, Ordering::Relaxed),
            }
            // Tokio's timers have a millisecond's grain.
            if began.elapsed() > BOUND + Duration::from_millis(5) {
                count.late.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = async { tokio::join!(caller(), caller(), caller()); } => {}
    }
}

#[test]
fn every_outage_of_an_hour_raises_one_alert_and_resolves_and_no_call_waits_longer_than_its_bound() {
    let seed =
        std::env::var("FAROL_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos())
        });
    println!("FAROL_CHAOS_SEED={seed}");
    let now = Timestamp::from_system_time(SystemTime::now());
    let base = now.saturating_sub(HOUR * 2);
    let (outages, length) = scheduled(seed, base);
    let calls = Arc::new(Calls::default());

    let virtual_time =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let found = virtual_time.block_on(play(seed, base, length, &calls));

    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let expected: usize = outages.iter().map(Vec::len).sum();
    println!(
        "{expected} outages, {} probes, {} calls: {} timed out, {} rejected, {} failed",
        of(&calls.probes),
        of(&calls.made),
        of(&calls.timed_out),
        of(&calls.rejected),
        of(&calls.failed)
    );
    assert_eq!(of(&calls.late), 0, "calls that waited longer than {BOUND:?}");
    assert!(expected > 300 && of(&calls.probes) > 65_000, "the hour was too quiet to show anything");
    for counter in [&calls.timed_out, &calls.rejected, &calls.failed] {
        assert!(of(counter) > 100, "a kind of failure hardly happened");
    }
    told_once_each(&outages, &found);

    let alerts = tokio::runtime::Runtime::new().unwrap().block_on(alerts(&found, expected));
    for (index, outages) in outages.iter().enumerate() {
        let count = alerts.get(name(index).as_str()).copied().unwrap_or_default();
        assert_eq!(count, outages.len(), "alerts of {}", name(index));
    }
}

/// Each outage of the schedule was found soon, and ended.
fn told_once_each(outages: &[Vec<(Timestamp, Timestamp)>], found: &[Finding]) {
    for (index, outages) in outages.iter().enumerate() {
        let mine = found.iter().filter(|finding| finding.service == name(index));
        let told: Vec<_> = mine
            .filter(|f| matches!(f.kind, FindingKind::Unavailable { .. } | FindingKind::Recovered { .. }))
            .collect();
        assert_eq!(told.len(), outages.len() * 2, "beginnings and ends of {}", name(index));
        for (pair, (from, _)) in told.chunks(2).zip(outages) {
            assert!(matches!(pair[0].kind, FindingKind::Unavailable { .. }), "{pair:?}");
            assert!(matches!(pair[1].kind, FindingKind::Recovered { .. }), "{pair:?}");
            assert!(pair[0].at >= *from && pair[0].at.since(*from) <= FOUND_WITHIN, "{pair:?} for {from}");
        }
    }
}

/// Sends what was found through the log; gives the resolved alerts of each service once there are as many as expected.
async fn alerts(found: &[Finding], expected: usize) -> BTreeMap<String, usize> {
    let dir = tempfile::tempdir().unwrap();
    let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path().join("log"))).unwrap();
    let bus: Arc<dyn Bus> = bus;
    ensure_topics(bus.as_ref(), default_topics(&TopicNames::default(), &BTreeMap::new())).await.unwrap();
    let store = Store::open(dir.path().join("views.db"), StoreOptions::default()).unwrap();
    let now = Timestamp::from_system_time(SystemTime::now());
    let rules = Arc::new(RulesHandle::load(RuleSources { defaults: true, files: Vec::new() }, now).unwrap());
    let settings = PipelineSettings {
        workers: vec!["worker-1".into(), "worker-2".into()],
        worker: WorkerSettings::default(),
        notifier: NotifierSettings { log: false, ..NotifierSettings::default() },
        retention: ViewRetention::default(),
    };
    let deps = PipelineDeps { bus: Arc::clone(&bus), store: store.clone(), rules, outgoing: Registry::new() };
    let pipeline = Pipeline::start(settings, deps).await.unwrap();
    let producer = bus.producer("chaos").await.unwrap();
    // Of response times a part is enough; of everything else, all.
    let told = found
        .iter()
        .enumerate()
        .filter(|(at, finding)| at % 20 == 0 || !matches!(finding.kind, FindingKind::Measured { .. }));
    let told: Vec<&Finding> = told.map(|(_, finding)| finding).collect();
    for found in told.chunks(2000) {
        let records = found.iter().map(|finding| {
            let event = event(finding);
            ProducerRecord::new(event.source.clone().into_bytes(), event.to_json(), event.time)
        });
        producer.send("system-events", records.collect()).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut counts;
    loop {
        let filter = farol_view::query::alerts::AlertFilter {
            rule: Some("service-unavailable".to_owned()),
            limit: Some(1000),
            ..Default::default()
        };
        let page = store.query(move |queries| queries.alerts(&filter)).await.unwrap();
        counts = BTreeMap::<String, usize>::new();
        for alert in &page.alerts {
            let service = alert.labels.get("service").cloned().unwrap_or_default();
            *counts.entry(service).or_default() += 1;
        }
        let resolved = page.alerts.iter().filter(|alert| alert.status == AlertStatus::Resolved).count();
        if resolved >= expected && resolved == page.alerts.len() {
            break;
        }
        assert!(Instant::now() < deadline, "{resolved} of {expected} alerts have resolved");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(pipeline.shutdown(Duration::from_secs(10)).await.is_empty());
    counts
}

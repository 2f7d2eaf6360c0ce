//! The list that starts the parts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use farol_bus::Bus;
use farol_bus::embedded::{EmbeddedBus, RecoverySummary};
use farol_event::{EventType, Timestamp};
use farol_http::settings::{About, AccessToken, HttpSettings, Limits};
use farol_http::{HttpDeps, ServeError};
use farol_pipeline::outgoing;
use farol_pipeline::{
    HostSettings, Pipeline, PipelineDeps, PipelineSettings, RuleSources, RulesHandle, ServiceWatch,
    ServiceWatchDeps, SystemEvents, TopicNames, TopicOverride, ViewRetention, WorkerSettings, default_topics,
    ensure_topics,
};
use farol_registry::{Catalogue, NetworkProber};
use farol_resilience::Registry;
use farol_simulate::{
    BusSink, SensorSimulators, ServerUrl, ServiceOptions, ServiceSimulators, Sink, demo_fleet,
    numbered_fleet, service_names,
};
use farol_view::Store;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::control::RunningParts;
use super::kafka;
use super::metrics::{EventBuses, RunningNumbers};
use super::rules_watch;
use super::stops::{PART_LIMIT, Stops};
use crate::data_folder::{self, DataFolder};
use crate::services::a_seed;
use crate::settings::Settings;
use crate::terminal::with_causes;

/// How many services the demonstration has.
const DEMO_SERVICES: usize = 3;

/// What the greeting tells of.
pub struct Started {
    /// The log, for other parts of this process.
    pub bus: Arc<EmbeddedBus>,
    /// What of it is to be on `/metrics` beside Farol's own numbers.
    pub event_buses: EventBuses,
    /// The dashboard's address.
    pub dashboard: String,
    /// Where Kafka clients connect, if they may.
    pub kafka: Option<SocketAddr>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// What opening the log found.
    pub recovery: RecoverySummary,
    /// Whether the disk is so full that nothing is taken for now.
    pub disk_full: bool,
    /// Views that start from nothing although there was something.
    pub cleared_views: Vec<String>,
    /// Rules in force.
    pub rules: usize,
    /// Simulated sensors.
    pub simulated_sensors: usize,
    /// Names of simulated services.
    pub simulated_services: Vec<String>,
}

/// Starts every part in order. Each one that started has put its stop into `stops`.
pub async fn start(settings: &Settings, demo: bool, stops: &mut Stops) -> anyhow::Result<Started> {
    let folder = data_folder::open(settings)?;
    stop_log(&folder.bus, stops);
    let names = topic_names(settings);
    // Both wait for the disk, and neither for the other.
    let (topics, store) =
        tokio::join!(make_topics(settings, &names, &folder.bus), folder.open_store(settings));
    let store = store?;
    stop_store(&store, stops);
    let new_folder = topics?;
    let DataFolder { dir, bus, recovery } = folder;

    let rules = start_rules(settings)?;
    // Of all of Farol's own calls: the notifier's and the checks'.
    let policies = outgoing::registry();
    let pipeline = start_pipeline(settings, names, &bus, &store, &rules, &policies).await?;
    let views_ahead: Vec<_> = pipeline.views_ahead_of_log().to_vec();
    let (events, workers, views) =
        (pipeline.events().clone(), Arc::clone(pipeline.workers()), pipeline.views().clone());
    let rebalances = Arc::clone(pipeline.rebalance_counts());
    stop_pipeline(pipeline, stops);
    announce(&events, stops).await;
    watch_host(settings, &events, stops);
    publish_policies(&policies, &events, stops);
    let catalogue = watch_services(settings, &bus, &events, &policies, stops).await?;
    let parts = RunningParts {
        bus: Arc::clone(&bus),
        recovery: recovery.clone(),
        rules: Arc::clone(&rules),
        workers,
        views,
        catalogue,
        notifying: Arc::new(super::notify::notifying(settings)?),
    };

    let kafka = kafka::start(settings, &bus, stops).await?;
    let event_buses = EventBuses::default();
    let numbers = Arc::new(RunningNumbers {
        bus: Arc::clone(&bus),
        store: store.clone(),
        views: parts.views.clone(),
        rebalances,
        kafka: kafka.as_ref().map(|kafka| Arc::clone(&kafka.numbers)),
        policies,
        event_buses: event_buses.clone(),
    });
    let address = start_http(settings, demo, &dir, &bus, numbers, parts, stops).await?;
    watch_rules(&rules, events, stops)?;
    let simulated_sensors = if demo { start_simulators(settings, &bus, stops).await? } else { 0 };
    let simulated_services = if demo { start_services(settings, address, stops).await? } else { Vec::new() };

    let cleared = if new_folder { &[] } else { store.cleared_at_open() };
    Ok(Started {
        disk_full: bus.stats().log.waiting_for_space.is_some(),
        bus,
        event_buses,
        dashboard: format!("http://{address}"),
        kafka: kafka.as_ref().map(|kafka| kafka.address),
        data_dir: dir,
        recovery,
        cleared_views: cleared.iter().chain(&views_ahead).map(ToString::to_string).collect(),
        rules: rules.current().rules.len(),
        simulated_sensors,
        simulated_services,
    })
}

fn stop_log(bus: &Arc<EmbeddedBus>, stops: &mut Stops) {
    let bus = Arc::clone(bus);
    stops.push("log", async move {
        bus.close().await.err().map(|error| with_causes(&error)).into_iter().collect()
    });
}

fn stop_store(store: &Store, stops: &mut Stops) {
    let store = store.clone();
    stops.push("store", async move {
        store.close().await;
        Vec::new()
    });
}

/// Makes the topics that aren't there, and tells whether none was.
async fn make_topics(
    settings: &Settings,
    names: &TopicNames,
    bus: &Arc<EmbeddedBus>,
) -> anyhow::Result<bool> {
    let none = bus.topics().await?.is_empty();
    let topics = default_topics(names, &topic_overrides(settings));
    ensure_topics(bus.as_ref(), topics).await.context("can't make the topics")?;
    Ok(none)
}

fn topic_names(settings: &Settings) -> TopicNames {
    TopicNames {
        sensor_data: settings.topic("sensor-data").to_owned(),
        alerts: settings.topic("alerts").to_owned(),
    }
}

fn topic_overrides(settings: &Settings) -> BTreeMap<String, TopicOverride> {
    let over = |topic: &crate::settings::TopicSettings| TopicOverride {
        partitions: topic.partitions.and_then(|count| i32::try_from(count.get()).ok()),
        config: data_folder::topic_config(settings, topic),
    };
    settings.topics.iter().map(|topic| (topic.name.clone(), over(topic))).collect()
}

fn start_rules(settings: &Settings) -> anyhow::Result<Arc<RulesHandle>> {
    let sources = RuleSources { defaults: settings.rules.defaults, files: settings.rules.files.clone() };
    let rules = RulesHandle::load(sources, now()).map_err(|error| {
        let count = error.problems.len();
        let plural = if count == 1 { "" } else { "s" };
        anyhow::anyhow!("the rules have {count} problem{plural}\n  {}", error.problems.join("\n  "))
    })?;
    Ok(Arc::new(rules))
}

async fn start_pipeline(
    settings: &Settings,
    names: TopicNames,
    bus: &Arc<EmbeddedBus>,
    store: &Store,
    rules: &Arc<RulesHandle>,
    policies: &Registry,
) -> anyhow::Result<Pipeline> {
    let workers = (1..=settings.pipeline.workers.get())
        .map(|number| format!("{}-{number}", settings.pipeline.consumer_id));
    let notifier = super::notify::settings(settings)?;
    let settings = PipelineSettings {
        workers: workers.collect(),
        worker: WorkerSettings {
            group: settings.pipeline.group.clone(),
            services_group: settings.pipeline.services_group.clone(),
            topics: names,
            session_timeout: settings.pipeline.session_timeout,
            ..WorkerSettings::default()
        },
        notifier,
        retention: ViewRetention {
            readings: settings.views.keep_readings,
            history: Some(settings.views.keep_history),
        },
    };
    let bus: Arc<dyn Bus> = bus.clone();
    let (rules, outgoing) = (Arc::clone(rules), policies.clone());
    let deps = PipelineDeps { bus, store: store.clone(), rules, outgoing };
    Ok(Pipeline::start(settings, deps).await?)
}

fn stop_pipeline(pipeline: Pipeline, stops: &mut Stops) {
    // A little less than the part's own limit, so that the pipeline can say which of its parts is late.
    let limit = PART_LIMIT - Duration::from_secs(1);
    stops.push("pipeline", async move {
        pipeline
            .shutdown(limit)
            .await
            .into_iter()
            .map(|part| format!("{part} was late and left behind"))
            .collect()
    });
}

/// Says in the log of events that Farol is here, and, when it stops, that it goes.
async fn announce(events: &SystemEvents, stops: &mut Stops) {
    let data = json!({ "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() });
    events.announce(EventType::SERVICE_STARTED, "farol", &data).await;
    // Without the machine's watch it sends no metrics from which it would be seen that it has started.
    events.announce(EventType::SERVICE_HEARTBEAT, "farol", &json!({})).await;
    let events = events.clone();
    stops.push("farewell", async move {
        events.announce(EventType::SERVICE_STOPPED, "farol", &data).await;
        Vec::new()
    });
}

/// From now on the policies of Farol's own calls are told as events.
fn publish_policies(policies: &Registry, events: &SystemEvents, stops: &mut Stops) {
    let stop = CancellationToken::new();
    let publishing =
        tokio::spawn(outgoing::publish(outgoing::CALLER, policies.clone(), events.clone(), stop.clone()));
    stops.push("policies of outgoing calls", async move {
        stop.cancel();
        publishing.await.err().map(|error| error.to_string()).into_iter().collect()
    });
}

/// Starts the checks of services. They stop before the pipeline, whose workers and views take what they find.
async fn watch_services(
    settings: &Settings,
    bus: &Arc<EmbeddedBus>,
    events: &SystemEvents,
    policies: &Registry,
    stops: &mut Stops,
) -> anyhow::Result<Arc<Catalogue>> {
    let catalogue = Arc::new(Catalogue::new(settings.api_targets.reach()));
    let deps = ServiceWatchDeps {
        bus: bus.clone(),
        events: events.clone(),
        policies: policies.clone(),
        prober: Arc::new(NetworkProber::default()),
        catalogue: Arc::clone(&catalogue),
        configured: settings.services.0.clone(),
    };
    let watch = ServiceWatch::start(deps).await.context("can't read which services are watched")?;
    stops.push("service checks", async move {
        let in_time = watch.shutdown(PART_LIMIT - Duration::from_secs(1)).await;
        if in_time { Vec::new() } else { vec!["some checks were late and left behind".to_owned()] }
    });
    Ok(catalogue)
}

/// Watches the machine itself, unless settings say otherwise.
fn watch_host(settings: &Settings, events: &SystemEvents, stops: &mut Stops) {
    let host = &settings.host;
    if !host.enabled {
        return;
    }
    let (stop, events) = (CancellationToken::new(), events.clone());
    let settings = HostSettings { interval: host.interval, name: host.name.clone() };
    let watching = tokio::spawn(farol_pipeline::watch_host(settings, events, stop.clone()));
    stops.push("host", async move {
        stop.cancel();
        watching.await.err().map(|error| error.to_string()).into_iter().collect()
    });
}

async fn start_http(
    settings: &Settings,
    demo: bool,
    dir: &std::path::Path,
    bus: &Arc<EmbeddedBus>,
    numbers: Arc<RunningNumbers>,
    parts: RunningParts,
    stops: &mut Stops,
) -> anyhow::Result<SocketAddr> {
    let http = &settings.http;
    let listen = http.listen.resolve().with_context(|| format!("`{}` has no address", http.listen))?;
    let limits = Limits {
        body_bytes: usize::try_from(http.body_limit.0)?,
        connections: usize::try_from(http.connections.get())?,
        concurrent_requests: usize::try_from(http.concurrency.get())?,
        streams: usize::try_from(http.streams.get())?,
        request_timeout: http.request_timeout,
        ..Limits::default()
    };
    let http_settings = HttpSettings {
        token: http.token.as_deref().map(AccessToken::new),
        allowed_hosts: http.allowed_hosts.clone(),
        topics: data_folder::view_topics(settings),
        about: About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: dir.display().to_string(),
            demo,
        },
        limits,
        ..HttpSettings::new(listen)
    };
    let stop = CancellationToken::new();
    let (bus, store): (Arc<dyn Bus>, _) = (bus.clone(), numbers.store.clone());
    let deps = HttpDeps { bus, store, control: Arc::new(parts), metrics: vec![numbers] };
    let handle = farol_http::serve(http_settings, deps, stop.clone()).await.map_err(in_setting_names)?;
    let address = handle.local_addr();
    stops.push("HTTP", async move {
        stop.cancel();
        handle.join().await;
        Vec::new()
    });
    Ok(address)
}

/// What to do about an address, in the names of settings.
fn in_setting_names(error: ServeError) -> anyhow::Error {
    const ADVICE: &str = "choose another with --listen (setting http.listen, FAROL_HTTP_LISTEN)";
    match error {
        ServeError::AddressInUse { address } => {
            anyhow::anyhow!(
                "{address} is in use by another program, perhaps another Farol\n  stop that one, or {ADVICE}"
            )
        }
        ServeError::Listen { address, source } => {
            anyhow::anyhow!("can't listen on {address}: {source}\n  {ADVICE}")
        }
        other => other.into(),
    }
}

fn watch_rules(rules: &Arc<RulesHandle>, events: SystemEvents, stops: &mut Stops) -> anyhow::Result<()> {
    let hangup = signal(SignalKind::hangup()).context("can't listen to SIGHUP")?;
    let stop = CancellationToken::new();
    let watch = tokio::spawn(rules_watch::watch(Arc::clone(rules), events, hangup, stop.clone()));
    stops.push("rules watch", async move {
        stop.cancel();
        watch.await.err().map(|error| error.to_string()).into_iter().collect()
    });
    Ok(())
}

async fn start_simulators(
    settings: &Settings,
    bus: &Arc<EmbeddedBus>,
    stops: &mut Stops,
) -> anyhow::Result<usize> {
    let fleet = match settings.demo.sensors {
        Some(count) => numbered_fleet(usize::try_from(count.get())?)?,
        None => demo_fleet(),
    };
    let sensors = fleet.len();
    let sink = BusSink {
        producer: bus.producer("simulators").await?,
        sensor_topic: settings.topic("sensor-data").into(),
        system_topic: settings.topic("system-events").into(),
    };
    let simulators = SensorSimulators::new(fleet, None)?;
    let stop = CancellationToken::new();
    let running = tokio::spawn(simulators.run(Sink::Bus(sink), stop.clone()));
    stops.push("simulators", async move {
        stop.cancel();
        match running.await {
            Ok(Ok(_)) => Vec::new(),
            Ok(Err(error)) => vec![error.to_string()],
            Err(error) => vec![error.to_string()],
        }
    });
    Ok(sensors)
}

/// Starts the demonstration's services, which are clients like any other. One that isn't taken is not worth stopping for.
async fn start_services(
    settings: &Settings,
    farol: SocketAddr,
    stops: &mut Stops,
) -> anyhow::Result<Vec<String>> {
    if settings.api_targets.reach().is_none() {
        return Ok(Vec::new());
    }
    let mut server: ServerUrl = format!("http://{farol}").parse()?;
    if let Some(token) = &settings.http.token {
        server = server.with_token(token)?;
    }
    let names = service_names(DEMO_SERVICES);
    let options = ServiceOptions { outages: true, ..ServiceOptions::new(names.clone(), a_seed()) };
    let simulators = ServiceSimulators::listen(options).await?;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move {
            let outcome = simulators.run(server, stop).await;
            if let Err(error) = &outcome {
                tracing::warn!(%error, "the demonstration's services are not simulated");
            }
            outcome
        }
    });
    stops.push("simulated services", async move {
        stop.cancel();
        match running.await {
            Ok(Ok(())) => Vec::new(),
            Ok(Err(error)) => vec![error.to_string()],
            Err(error) => vec![error.to_string()],
        }
    });
    Ok(names)
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

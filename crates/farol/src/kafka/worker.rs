//! `farol worker`: the detect processor in a process of its own. It needs the bus and nothing else: no store, no data folder.
//!
//! Which rules it evaluates it says when it starts: those that `farol run` publishes, whose changes it follows, or those of
//! `--rules`; it then compares them with the published ones, if there are any, and says so when they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use farol_bus::kafka::{KafkaBus, KafkaOptions};
use farol_bus::{Bus, BusError, TopicPartition};
use farol_detect::RuleSet;
use farol_event::Timestamp;
use farol_pipeline::{
    LoneWorker, Observer, RuleSources, RulesFollower, RulesHandle, Stopped, TopicNames, WorkerNews,
    WorkerSettings, bus_retry, create_missing_topics, default_topics,
};
use tokio_util::sync::CancellationToken;

use crate::settings::value::show_duration;
use crate::settings::{Given, Settings};
use crate::terminal::say;
use crate::{cli, client};

/// How long a broker may take to answer the first question.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How often it is looked whether topics can be made and rules are published by now.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A commit that takes longer than this is given up, if the session is no shorter.
const SLOW_COMMIT: Duration = Duration::from_secs(3);

/// Runs a worker until a signal ends it.
pub fn run(arguments: &cli::Worker, settings: &Settings, given: &Given) -> anyhow::Result<ExitCode> {
    let name = name(settings, given);
    let options = super::options(settings, &name)?;
    let transaction_limit =
        transaction_limit(settings.pipeline.session_timeout).min(options.transaction_limit);
    let bus = KafkaBus::new(KafkaOptions { transaction_limit, ..options })?;
    let own = (!arguments.rules.is_empty()).then(|| own_rules(arguments, settings)).transpose()?;
    client::until_interrupted(|stop| async move {
        say(format_args!("worker {name} of group {}, brokers {}", settings.pipeline.group, bus.brokers()));
        let terminal = Arc::new(Terminal::new(bus.brokers()));
        let Some(rules) = prepared(&bus, &name, settings, own, &terminal, &stop).await? else {
            told("was stopped before it had joined the group");
            return Ok(ExitCode::SUCCESS);
        };
        let observer: Observer = Arc::new(move |member, news| terminal.tell(member.group, &news));
        let source = if arguments.rules.is_empty() { Source::Published } else { Source::Files };
        let following = tokio::spawn(follow(Arc::clone(&bus), name.clone(), Arc::clone(&rules), source));
        let worker = LoneWorker {
            name: name.clone(),
            bus,
            rules,
            settings: WorkerSettings {
                group: settings.pipeline.group.clone(),
                services_group: settings.pipeline.services_group.clone(),
                topics: topic_names(settings),
                session_timeout: settings.pipeline.session_timeout,
                ..WorkerSettings::default()
            },
            retry: bus_retry(),
            observer,
        };
        let ended = worker.run(&stop).await;
        following.abort();
        match ended {
            Ok(Stopped::InOrder) => {
                told("has committed and left the group");
                Ok(ExitCode::SUCCESS)
            }
            Ok(Stopped::Failing) => {
                told(
                    "was stopped before it could go on; what it had not committed is evaluated again, with the same result",
                );
                Ok(ExitCode::SUCCESS)
            }
            Err(BusError::Fenced(reason)) => Err(anyhow::anyhow!(
                "another worker of the group is called `{name}`, and the two throw each other out ({reason})\n  \
                 give one of them another name with --consumer-id (CONSUMER_ID)"
            )),
            Err(error) => Err(error.into()),
        }
    })
}

/// How long a transaction of a worker may be open. Whoever takes over from a dead worker waits for the end of its session and of its last
/// transaction, so that one should be over first; but a commit of a busy machine takes its time.
fn transaction_limit(session_timeout: Duration) -> Duration {
    (session_timeout / 2).max(SLOW_COMMIT).min(session_timeout)
}

/// Where the rules in force come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Published,
    Files,
}

/// The given name, or one that no other process has.
fn name(settings: &Settings, given: &Given) -> String {
    let id = &settings.pipeline.consumer_id;
    if given.contains_key("pipeline.consumer_id") {
        return id.clone();
    }
    super::name_of_this_process(id)
}

fn own_rules(arguments: &cli::Worker, settings: &Settings) -> anyhow::Result<Arc<RulesHandle>> {
    let sources = RuleSources { defaults: settings.rules.defaults, files: arguments.rules.clone() };
    let rules = RulesHandle::load(sources, now())?;
    let files: Vec<String> = arguments.rules.iter().map(|file| file.display().to_string()).collect();
    let built_in = if settings.rules.defaults { " and the built-in thresholds" } else { "" };
    say(format_args!(
        "rules: {} from {}{built_in}, read once; rules that `farol run` publishes are not used",
        rules.current().rules.len(),
        files.join(", ")
    ));
    Ok(Arc::new(rules))
}

fn topic_names(settings: &Settings) -> TopicNames {
    TopicNames {
        sensor_data: settings.topic("sensor-data").to_owned(),
        alerts: settings.topic("alerts").to_owned(),
    }
}

/// A cluster that no Farol has prepared gets the topics that a worker reads and writes, but the one of rules: without it, a worker
/// without `--rules` knows that nobody publishes any.
async fn make_topics(bus: &dyn Bus, settings: &Settings) -> Result<(), BusError> {
    let mut topics = default_topics(&topic_names(settings), &BTreeMap::new());
    topics.retain(|topic| topic.name != farol_pipeline::topics::RULES);
    let created = create_missing_topics(bus, topics).await?;
    if !created.is_empty() {
        told(&format!("has made the topics {}", created.join(", ")));
    }
    Ok(())
}

/// Waits for a broker, and for rules if it hasn't got its own. `None` if told to stop first.
async fn prepared(
    bus: &Arc<KafkaBus>,
    name: &str,
    settings: &Settings,
    own: Option<Arc<RulesHandle>>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Arc<RulesHandle>>> {
    loop {
        if !connected(bus, terminal, stop).await? {
            return Ok(None);
        }
        match make_topics(bus.as_ref(), settings).await {
            Ok(()) => break,
            // It has gone again.
            Err(error) if error.is_retriable() => {
                tracing::debug!(%error, "the topics are not made yet");
                tokio::select! {
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                    () = stop.cancelled() => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if own.is_some() {
        return Ok(own);
    }
    let rules = published(bus, name, terminal, stop).await?;
    Ok(rules.map(|rules| Arc::new(RulesHandle::of(rules, now()))))
}

/// Waits until a broker answers. False if told to stop first; an error if one has said that this worker can't come in.
async fn connected(
    bus: &Arc<KafkaBus>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let mut tries = bus_retry().tries();
    loop {
        let answered = tokio::select! {
            answered = bus.check(ANSWER_LIMIT) => answered,
            () = stop.cancelled() => return Ok(false),
        };
        let Some(pause) = tries.after(&answered) else {
            terminal.answered();
            return Ok(answered.is_ok());
        };
        match answered {
            Ok(()) => {}
            Err(error @ BusError::NoAccess { obstacle, .. }) if obstacle.is_certain() => {
                return Err(super::no_access(bus.brokers(), error));
            }
            Err(error) => terminal.failed(&error, pause),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// Waits for published rules. `None` if told to stop first.
async fn published(
    bus: &Arc<KafkaBus>,
    name: &str,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> anyhow::Result<Option<RuleSet>> {
    let mut waiting = false;
    loop {
        let found = tokio::select! {
            found = first_published(bus.as_ref(), name) => found,
            () = tokio::time::sleep(ANSWER_LIMIT) => Err(BusError::Unavailable("no rules yet".to_owned())),
            () = stop.cancelled() => return Ok(None),
        };
        match found {
            Ok(rules) => {
                say(format_args!(
                    "rules: {}, as `farol run` publishes them at {}; changes are followed",
                    rules.len(),
                    bus.brokers()
                ));
                return Ok(Some(rules));
            }
            Err(error) => tracing::debug!(%error, "no published rules"),
        }
        if !connected(bus, terminal, stop).await? {
            return Ok(None);
        }
        if !waiting {
            waiting = true;
            told(&format!(
                "waits for rules: nobody publishes any at {}; start `farol run` there, or give --rules FILE",
                bus.brokers()
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

async fn first_published(bus: &KafkaBus, name: &str) -> Result<RuleSet, BusError> {
    RulesFollower::open(bus, &format!("{name}-rules")).await?.next().await
}

/// Follows what is published: puts it in force, or says that it is something else. Never ends.
async fn follow(bus: Arc<KafkaBus>, name: String, rules: Arc<RulesHandle>, source: Source) {
    let retry = bus_retry();
    let mut tries = retry.tries();
    loop {
        let began = tokio::time::Instant::now();
        // Without a topic nobody publishes rules, and without a broker the worker says so.
        let followed = follow_once(bus.as_ref(), &name, &rules, source).await;
        tracing::debug!(?followed, "published rules are not followed at present");
        if began.elapsed() > retry.schedule().backoff.max {
            tries = retry.tries();
        }
        let Some(pause) = tries.after(&followed) else { return };
        tokio::time::sleep(pause).await;
    }
}

async fn follow_once(
    bus: &KafkaBus,
    name: &str,
    rules: &RulesHandle,
    source: Source,
) -> Result<(), BusError> {
    let mut follower = RulesFollower::open(bus, &format!("{name}-rules")).await?;
    loop {
        let newest = follower.next().await?;
        match source {
            Source::Published => {
                rules.replace(newest, now());
            }
            Source::Files => {
                let differ = !newest.changes_since(&rules.current().rules).is_empty();
                if differ {
                    told(
                        "evaluates other rules than `farol run` publishes: its dashboard shows those, not these",
                    );
                }
            }
        }
    }
}

/// Tells the terminal what happens.
struct Terminal {
    brokers: String,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What the worker owns, by group.
    owned: BTreeMap<String, BTreeSet<TopicPartition>>,
    /// It has been told that the brokers are away. The worker is in two groups, and tries again and again.
    away: bool,
}

impl Terminal {
    fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned(), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        self.seen().away = false;
    }

    /// Something has failed and is tried again after a pause. That nobody answers is said once, until somebody does.
    fn failed(&self, error: &BusError, retry_in: Duration) {
        match error {
            BusError::Unreachable => {
                if !std::mem::replace(&mut self.seen().away, true) {
                    told(&format!("{} is away ({error}); trying again until it is back", self.brokers));
                }
            }
            BusError::NoAccess { obstacle, .. } => {
                let (brokers, advice) = (&self.brokers, super::advice(*obstacle));
                told(&format!("{brokers}: {error}; {advice}; trying again in {}", show_duration(retry_in)));
            }
            other => told(&format!("{other}; trying again in {}", show_duration(retry_in))),
        }
    }

    fn tell(&self, group: &str, news: &WorkerNews<'_>) {
        let count = |change: &dyn Fn(&mut BTreeSet<TopicPartition>)| {
            let mut seen = self.seen();
            let owned = seen.owned.entry(group.to_owned()).or_default();
            change(owned);
            owned.len()
        };
        match news {
            WorkerNews::Joining => {
                self.answered();
                count(&BTreeSet::clear);
                told(&format!("joins group {group} and waits for partitions"));
            }
            WorkerNews::Gained(partitions) => {
                let now = count(&|owned| owned.extend(partitions.iter().cloned()));
                told(&format!("gained {} (now {now})", names(partitions)));
            }
            WorkerNews::Lost(partitions) => {
                let now = count(&|owned| owned.retain(|partition| !partitions.contains(partition)));
                told(&format!("lost {} (now {now})", names(partitions)));
            }
            WorkerNews::Rules(rules) => {
                told(&format!("evaluates other rules from now on: {} in force", rules.rules.len()));
            }
            WorkerNews::Failed { error, retry_in } => {
                count(&BTreeSet::clear);
                self.failed(error, *retry_in);
            }
            // Each failure was told with the next try, and each try with the partitions that it got.
            WorkerNews::Recovered => {}
        }
    }
}

fn names(partitions: &[TopicPartition]) -> String {
    partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One line with the time in front of it.
fn told(news: &str) {
    let now = now().to_string();
    let time = now.get(11..19).unwrap_or(&now);
    say(format_args!("{time}Z  {news}"));
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_worker_s_transaction_is_over_no_later_than_its_session() {
        let limit = |session| transaction_limit(Duration::from_secs(session)).as_secs();
        assert_eq!([1, 4, 10, 60].map(limit), [1, 3, 5, 30]);
    }
}

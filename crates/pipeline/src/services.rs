//! Watched services on the log: what is watched is read from topic `services`, what checks find becomes events.
//!
//! Topic `services` ([`farol_registry::record`]) keeps what has to survive a restart: definitions that came through the API (and those of
//! the settings, so that a change of the file can be told), maintenance, the last heartbeats, outages that were told. At the
//! start it is read from its beginning; then it is followed, so that a command is in force when the log has it and not
//! before. Heartbeats and maintenance that services tell by events are followed as well (`announced`).
//!
//! Findings become events in the order in which they are made. The beginning and the end of an outage and the record that
//! remembers it are one transaction: after a crash an outage is neither told twice nor never.
//!
//! Failures: while the log refuses appends, findings wait and the checks with them ([`FINDINGS`] is the bound); nothing is left
//! out. A record that can't be read is logged and skipped. A follower that fails starts again where it was.

mod announced;
mod publish;

pub use publish::event;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{
    Bus, BusError, Consumer, ConsumerSettings, OffsetSpec, Polled, ProducerRecord, StartAt, TopicPartition,
};
use farol_event::service::Registration;
use farol_event::{Event, EventType, Timestamp};
use farol_registry::definition::NamedService;
use farol_registry::record::{Content, Replay, TOPIC};
use farol_registry::{Catalogue, Command, Origin, Prober, Record, ServiceId, Watch, WatchDeps};
use farol_resilience::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::supervision::caught;
use crate::system_events::{self, SystemEvents};

/// How many bundles of findings wait to be published.
pub const FINDINGS: usize = 256;
/// How long one poll for commands waits.
const POLL: Duration = Duration::from_secs(10);
/// How long a failed follower waits before it starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
/// The most bytes of records that one poll takes.
const POLL_BYTES: usize = 1024 * 1024;

/// What a service watch runs on.
pub struct ServiceWatchDeps {
    /// Where commands come from and findings go to. Its topics exist.
    pub bus: Arc<dyn Bus>,
    /// Publishes events.
    pub events: SystemEvents,
    /// The registry of Farol's own calls; see [`crate::outgoing`].
    pub policies: Registry,
    /// Who asks.
    pub prober: Arc<dyn Prober>,
    /// Where others see what is watched.
    pub catalogue: Arc<Catalogue>,
    /// The services of the settings.
    pub configured: Vec<NamedService>,
}

/// The running watch.
pub struct ServiceWatch {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ServiceWatch {
    /// Brings the watch to where it was, and goes on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the bus can't be read.
    pub async fn start(deps: ServiceWatchDeps) -> Result<Self, BusError> {
        let ServiceWatchDeps { bus, events, policies, prober, catalogue, configured } = deps;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let stop_on_error = stop.clone().drop_guard();
        let (findings, found) = mpsc::channel(FINDINGS);
        let watch = Watch::start(
            WatchDeps {
                prober,
                clock: Arc::new(system_events::now),
                policies,
                catalogue: Arc::clone(&catalogue),
                findings,
            },
            &tasks,
            stop.child_token(),
        );
        let publisher = publish::Publisher { bus: Arc::clone(&bus), events: events.clone() };
        tasks.spawn(publisher.run(found, stop.child_token()));
        let announced = announced::Announced {
            bus: Arc::clone(&bus),
            events: events.clone(),
            watch: watch.clone(),
            catalogue: Arc::clone(&catalogue),
        };
        let follower = Follower { bus, watch, catalogue };
        let next = follower.restore(&configured, &events).await?;
        tasks.spawn(announced.run(stop.child_token()));
        tasks.spawn(follower.run(next, stop.child_token()));
        stop_on_error.disarm();
        Ok(Self { tasks, stop })
    }

    /// Stops; whether everything had ended within `limit`. What was found and not published is found again.
    pub async fn shutdown(self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}

struct Follower {
    bus: Arc<dyn Bus>,
    watch: Watch,
    catalogue: Arc<Catalogue>,
}

impl Follower {
    fn partition() -> TopicPartition {
        TopicPartition::new(TOPIC, 0)
    }

    async fn consumer(&self, start: StartAt) -> Result<Box<dyn Consumer>, BusError> {
        let settings =
            ConsumerSettings { max_bytes: POLL_BYTES, ..ConsumerSettings::standalone("service-watch") };
        let mut consumer = self.bus.consumer(settings).await?;
        consumer.assign(vec![(Self::partition(), start)]).await?;
        Ok(consumer)
    }

    /// Reads what is kept, lays the settings over it, and brings the watch there. Gives the offset to follow from.
    async fn restore(&self, configured: &[NamedService], events: &SystemEvents) -> Result<i64, BusError> {
        let partition = Self::partition();
        let ends = self.bus.offsets(std::slice::from_ref(&partition), OffsetSpec::Latest).await?;
        let end = ends.get(&partition).copied().unwrap_or(0);
        let mut consumer = self.consumer(StartAt::Earliest).await?;
        let mut replay = Replay::default();
        while consumer.position(&partition).is_none_or(|position| position < end) {
            let Polled::Records(batches) = consumer.poll(Duration::from_millis(200)).await? else { continue };
            for record in batches.iter().flat_map(|batch| &batch.records) {
                if let Some(record) = read(record.offset, record.key.as_deref(), record.value.as_deref()) {
                    replay.take(record);
                }
            }
        }
        let next = consumer.position(&partition).unwrap_or(end);
        consumer.close().await?;
        // A log that takes nothing at present must not keep Farol from starting; the next start tells it.
        if let Err(error) = self.settle_settings(configured, &replay, events).await {
            tracing::warn!(%error, "what the settings changed among the watched services was not recorded");
        }
        let defined = configured.iter().map(|service| Command::Define {
            id: service.name.clone(),
            definition: Arc::new(service.definition.clone()),
            origin: Origin::Settings,
        });
        // The settings' word counts, also about what came through the API before.
        let taken_over = |command: &Command| {
            matches!(command, Command::Define { .. })
                && configured.iter().any(|service| service.name == *command.service())
        };
        let kept = replay.commands().into_iter().filter(|command| !taken_over(command));
        // When the watch has ended, Farol stops.
        let _ = self.watch.apply_all(defined.chain(kept).collect()).await;
        self.catalogue.applied(next - 1);
        Ok(next)
    }

    /// Tells what the settings file has changed since the last start.
    async fn settle_settings(
        &self,
        configured: &[NamedService],
        replay: &Replay,
        events: &SystemEvents,
    ) -> Result<(), BusError> {
        for service in configured {
            let definition = Some((Origin::Settings, Arc::new(service.definition.clone())));
            if replay.get(&service.name).is_some_and(|kept| kept.definition == definition) {
                continue;
            }
            let content = Content::Definition(definition);
            append(events, &Record { service: service.name.clone(), content }).await?;
            let registration = service.definition.registration();
            events.publish(&registered(&service.name, &registration, system_events::now())).await?;
        }
        for id in replay.defined_by(Origin::Settings) {
            if configured.iter().any(|service| service.name == *id) {
                continue;
            }
            for content in [Content::Definition(None), Content::Maintenance(None), Content::Heartbeat(None)] {
                append(events, &Record { service: id.clone(), content }).await?;
            }
            let gone = serde_json::Map::new();
            let event = Event::new(
                Uuid::now_v7(),
                system_events::now(),
                EventType::SERVICE_REMOVED,
                id.as_str(),
                &gone,
            );
            events.publish(&event).await?;
        }
        Ok(())
    }

    async fn run(self, mut next: i64, stop: CancellationToken) {
        loop {
            let following = caught(self.follow(&mut next));
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = following => outcome,
            };
            match outcome {
                Ok(()) | Err(BusError::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, retry_in = ?RESTART_PAUSE, "commands for watched services are held up");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }

    /// Follows until the watch has ended.
    async fn follow(&self, next: &mut i64) -> Result<(), BusError> {
        let mut consumer = self.consumer(StartAt::Offset(*next)).await?;
        loop {
            let Polled::Records(batches) = consumer.poll(POLL).await? else { continue };
            for batch in batches {
                for record in &batch.records {
                    let read = read(record.offset, record.key.as_deref(), record.value.as_deref());
                    if let Some(command) = read.and_then(Record::command)
                        && !self.apply(command).await
                    {
                        return Ok(());
                    }
                    self.catalogue.applied(record.offset);
                }
                *next = batch.next_offset;
            }
        }
    }

    /// Whether the watch still runs.
    async fn apply(&self, command: Command) -> bool {
        // A registration and the file may name one service; the file was there first.
        let taken = matches!(&command, Command::Define { id, origin: Origin::Api, .. } | Command::Remove { id }
            if self.catalogue.get(id).is_some_and(|entry| entry.origin == Origin::Settings));
        if taken {
            return true;
        }
        let service = command.service().clone();
        match self.watch.apply(command).await {
            Ok(true) => true,
            Ok(false) => {
                tracing::debug!(%service, "a command for a service that is not watched, or beyond the most that can be");
                true
            }
            Err(_) => false,
        }
    }
}

fn read(offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Record> {
    Record::read(key.unwrap_or_default(), value)
        .inspect_err(|error| tracing::error!(topic = TOPIC, offset, %error, "a record about a watched service is skipped"))
        .ok()
}

async fn append(events: &SystemEvents, record: &Record) -> Result<(), BusError> {
    let record = to_bus(record, system_events::now());
    events.producer().send(TOPIC, vec![record]).await.map(drop)
}

fn to_bus(record: &Record, now: Timestamp) -> ProducerRecord {
    let mut out = ProducerRecord::new(record.key().into_bytes(), Bytes::new(), now);
    out.value = record.value(now).map(Bytes::from);
    out
}

fn registered(id: &ServiceId, registration: &Registration, now: Timestamp) -> Event {
    Event::new(Uuid::now_v7(), now, EventType::SERVICE_REGISTERED, id.as_str(), registration)
}

//! Channels that tell at once: each follows topic `alerts` in a consumer group of its own, delivers, and records what
//! became of each attempt as an event.
//!
//! A channel's position is committed once every notification before it is delivered or given up. After a crash the ones
//! in between are delivered again, with the same `Idempotency-Key`: at least once. A new channel begins with the alerts
//! that come after it. Channels don't share anything, so a dead webhook delays only its own deliveries, and an alert that a webhook
//! doesn't take delays only what comes of its own series ([`Owed`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use farol_alert::{DeliveryRecord, NotificationPayload, NotifyOn, Suppression, from_event};
use farol_bus::{Bus, BusError, ConsumedRecord, Consumer, ConsumerSettings, OffsetReset, Polled};
use farol_event::{AlertTransition, Event, EventType};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempts::{Line, Telling};
use super::owed::Owed;
use super::progress::{HEARTBEAT_INTERVAL, Progress, keep_reporting};
use super::silences::SharedSilences;
use crate::supervision::{caught, unless_it_panics};
use crate::system_events::{SystemEvents, now};
use crate::webhook::Webhook;

/// How often positions are committed while notifications are on their way.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// How long a failed channel waits before it starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// By what means a channel tells.
pub(super) enum Channel {
    Log,
    Webhook { webhook: Box<Webhook>, line: Line },
}

impl Channel {
    fn name(&self) -> &str {
        match self {
            Channel::Log => "log",
            Channel::Webhook { line, .. } => line.name(),
        }
    }
}

/// One channel.
pub(super) struct Direct {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) topic: String,
    pub(super) events: SystemEvents,
    pub(super) silences: SharedSilences,
    pub(super) channel: Channel,
}

impl Direct {
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match caught(self.follow(&stop)).await {
                Ok(()) => return,
                Err(BusError::Closed) if stop.is_cancelled() => return,
                Err(error) => tracing::error!(
                    channel = self.channel.name(), %error, retry_in = ?RESTART_PAUSE, "notifications are held up"
                ),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RESTART_PAUSE) => {}
            }
        }
    }

    async fn follow(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), BusError> {
        let name = format!("notifier-{}", self.channel.name());
        let mut consumer = self
            .bus
            .consumer(ConsumerSettings {
                offset_reset: OffsetReset::Latest,
                // A webhook that is down holds a poll up for as long as its retries take.
                max_poll_interval: Duration::from_secs(24 * 3600),
                max_bytes: 256 * 1024,
                ..ConsumerSettings::member(&name, &name)
            })
            .await?;
        consumer.subscribe(&[&self.topic]).await?;
        let progress = Mutex::new(Progress::default());
        // Beside the deliveries, because a webhook that is down holds them up for long.
        let outcome = tokio::select! {
            outcome = self.deliver_all(consumer.as_mut(), &progress, stop) => outcome,
            () = keep_reporting(&self.events, &name, &progress) => Ok(()),
        };
        let closed = consumer.close().await;
        outcome.and(closed)
    }

    async fn deliver_all(
        self: &Arc<Self>,
        consumer: &mut dyn Consumer,
        progress: &Mutex<Progress>,
        stop: &CancellationToken,
    ) -> Result<(), BusError> {
        let mut owed = Owed::default();
        let mut on_their_way = JoinSet::new();
        let mut committed_at = Instant::now();
        loop {
            for next in owed.take_ready() {
                let this = Arc::clone(self);
                on_their_way.spawn(async move {
                    unless_it_panics(this.deliver(&next.transition)).await;
                    next
                });
            }
            if on_their_way.is_empty() || committed_at.elapsed() >= COMMIT_INTERVAL {
                committed_at = Instant::now();
                let moved = owed.take_commits();
                if !moved.is_empty() {
                    consumer.commit(moved).await?;
                }
            }
            let polled = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(ended) = on_their_way.join_next() => {
                    // A task ends with a panic only if it is told to end.
                    if let Ok(ended) = ended {
                        owed.ended(&ended, progress);
                    }
                    continue;
                }
                polled = consumer.poll(HEARTBEAT_INTERVAL), if owed.has_room() => polled?,
            };
            match polled {
                // Where a new channel begins is remembered at once: alerts that come while it is down are owed.
                Polled::Assigned(assignment) => {
                    progress.lock().gain(&assignment.partitions);
                    consumer.commit(assignment.partitions.into_iter().collect()).await?;
                }
                Polled::Revoked(lost) => {
                    progress.lock().lose(&lost);
                    owed.lose(&lost);
                }
                Polled::Records(batches) => {
                    for batch in &batches {
                        owed.take(batch, progress);
                    }
                }
            }
        }
    }

    async fn deliver(&self, transition: &AlertTransition) {
        match &self.channel {
            Channel::Log => log(transition),
            Channel::Webhook { webhook, line } => self.post(webhook, line, transition).await,
        }
    }

    /// Posts until delivered or given up, unless a silence holds the alert back.
    async fn post(&self, webhook: &Webhook, line: &Line, transition: &AlertTransition) {
        let alert = &transition.alert;
        let silenced_by = self.silences.silencing(alert, now()).await;
        if !silenced_by.is_empty() {
            let suppression = Suppression { silenced_by, inhibited_by: Vec::new() };
            let record = DeliveryRecord::held_back(transition.into(), line.name(), &suppression);
            self.events.announce(EventType::NOTIFICATION_ATTEMPTED, &alert.series, &record).await;
            return;
        }
        let payload = NotificationPayload::new(transition, None);
        let (body, key) = (bytes::Bytes::from(payload.to_json()), payload.id.to_string());
        let target = webhook.settings().url_for_people();
        let telling = Telling { source: &alert.series, target: &target, told: &[transition.into()] };
        line.tell_in_turn(&telling, &|| webhook.post(body.clone(), &key).boxed()).await;
    }
}

/// The transition that a record tells of, if it is one to notify about.
pub(super) fn due(record: &ConsumedRecord) -> Option<AlertTransition> {
    let event = Event::parse(record.value.as_deref()?, record.timestamp()).ok()?;
    let transition = from_event(&event).ok()?;
    NotifyOn::default().wants(transition.kind).then_some(transition)
}

fn log(transition: &AlertTransition) {
    let alert = &transition.alert;
    tracing::info!(
        target: "farol::alert",
        severity = %alert.severity, status = %alert.status, rule = %alert.rule, series = %alert.series,
        at = %transition.at, "{}", alert.summary
    );
}

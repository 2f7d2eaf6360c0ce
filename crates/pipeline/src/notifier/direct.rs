//! Channels that tell at once: each follows topic `alerts` in a consumer group of its own, delivers, and records what
//! became of each attempt as an event.
//!
//! A channel's position is committed once every notification before it is delivered or given up. After a crash the ones
//! in between are delivered again, with the same `Idempotency-Key`: at least once. A new channel begins with the alerts
//! that come after it. Channels don't share anything, so a dead webhook delays only its own deliveries; of those, those of one poll
//! wait at a time, and the topic holds the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_alert::{DeliveryRecord, NotificationPayload, NotifyOn, Suppression, from_event};
use farol_bus::{
    Bus, BusError, ConsumedRecord, Consumer, ConsumerSettings, OffsetReset, Polled, TopicPartition,
};
use farol_event::{AlertTransition, Event, EventType};
use futures_util::stream;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::attempts::{Line, MAX_WAITING, Telling};
use super::progress::{HEARTBEAT_INTERVAL, Progress, keep_reporting};
use super::silences::SharedSilences;
use crate::supervision::caught;
use crate::system_events::{SystemEvents, now};
use crate::webhook::Webhook;

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
    pub(super) async fn run(self, stop: CancellationToken) {
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

    async fn follow(&self, stop: &CancellationToken) -> Result<(), BusError> {
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
        &self,
        consumer: &mut dyn Consumer,
        progress: &Mutex<Progress>,
        stop: &CancellationToken,
    ) -> Result<(), BusError> {
        while !stop.is_cancelled() {
            let polled = tokio::select! {
                polled = consumer.poll(HEARTBEAT_INTERVAL) => polled?,
                () = stop.cancelled() => return Ok(()),
            };
            let batches = match polled {
                // Where a new channel begins is remembered at once: alerts that come while it is down are owed.
                Polled::Assigned(assignment) => {
                    progress.lock().gain(&assignment.partitions);
                    consumer.commit(assignment.partitions.into_iter().collect()).await?;
                    continue;
                }
                Polled::Revoked(lost) => {
                    progress.lock().lose(&lost);
                    continue;
                }
                Polled::Records(batches) => batches,
            };
            let offsets: BTreeMap<TopicPartition, i64> =
                batches.iter().map(|b| (b.partition.clone(), b.next_offset)).collect();
            if offsets.is_empty() {
                continue;
            }
            progress.lock().waiting(&batches);
            // One series' notifications go out one after the other: nobody is to hear of the end before the beginning.
            let mut by_series: BTreeMap<String, Vec<AlertTransition>> = BTreeMap::new();
            for record in batches.iter().flat_map(|b| b.records.iter()) {
                if let Some(transition) = due(record) {
                    by_series.entry(transition.alert.series.clone()).or_default().push(transition);
                }
            }
            let series = stream::iter(by_series.into_values());
            let all = series.for_each_concurrent(MAX_WAITING, |transitions| async move {
                for transition in &transitions {
                    self.deliver(transition).await;
                }
            });
            tokio::select! {
                () = all => {
                    consumer.commit(offsets).await?;
                    progress.lock().done(&batches);
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
        Ok(())
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
        let _place = line.place().await;
        let payload = NotificationPayload::new(transition, None);
        let (body, key) = (bytes::Bytes::from(payload.to_json()), payload.id.to_string());
        let target = webhook.settings().url_for_people();
        let telling = Telling { source: &alert.series, target: &target, told: &[transition.into()] };
        line.tell(&telling, &|| webhook.post(body.clone(), &key).boxed()).await;
    }
}

/// The transition that a record tells of, if it is one to notify about.
fn due(record: &ConsumedRecord) -> Option<AlertTransition> {
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

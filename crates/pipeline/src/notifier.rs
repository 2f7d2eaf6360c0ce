//! Alerts to people: each channel follows topic `alerts` in a consumer group of its own, delivers, and records what
//! became of each attempt as an event.
//!
//! A channel's position is committed once every notification before it is delivered or given up. After a crash the ones
//! in between are delivered again, with the same `Idempotency-Key`: at least once. A new channel begins with the alerts
//! that come after it. Channels don't share anything, so a dead webhook delays only its own deliveries; of those, at most
//! [`IN_FLIGHT`] wait at a time, and the topic holds the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_alert::notification::Verdict;
use farol_alert::{DeliveryRecord, NotificationPayload, NotifyOn, classify, from_event};
use farol_bus::{
    Bus, BusError, ConsumedBatch, ConsumedRecord, Consumer, ConsumerSettings, OffsetReset, Polled,
    TopicPartition,
};
use farol_event::{AlertTransition, Event, EventType};
use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::heartbeat::Heartbeat;
use crate::supervision::caught;
use crate::system_events::SystemEvents;
use crate::topics::TopicNames;
use crate::webhook::{Webhook, WebhookSettings, WebhookSettingsError};

/// How many notifications of one channel are on their way at a time.
pub const IN_FLIGHT: usize = 8;
/// How often a channel says that it lives, and how long a poll waits at most.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a failed channel waits before it starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Where alerts are sent.
#[derive(Debug, Clone)]
pub struct NotifierSettings {
    /// Whether each notification is also written to the program's own log.
    pub log: bool,
    /// Webhooks.
    pub webhooks: Vec<WebhookSettings>,
}

impl Default for NotifierSettings {
    fn default() -> Self {
        Self { log: true, webhooks: Vec::new() }
    }
}

enum Channel {
    Log,
    Webhook(Box<Webhook>),
}

impl Channel {
    fn name(&self) -> &str {
        match self {
            Channel::Log => "log",
            Channel::Webhook(webhook) => &webhook.settings().name,
        }
    }
}

/// Starts every channel.
pub(crate) fn start(
    settings: NotifierSettings,
    bus: &Arc<dyn Bus>,
    names: &TopicNames,
    events: &SystemEvents,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), WebhookSettingsError> {
    let mut channels = Vec::new();
    if settings.log {
        channels.push(Channel::Log);
    }
    for webhook in settings.webhooks {
        channels.push(Channel::Webhook(Box::new(Webhook::new(webhook)?)));
    }
    for channel in channels {
        let notifier =
            Notifier { bus: Arc::clone(bus), topic: names.alerts.clone(), events: events.clone(), channel };
        tasks.spawn(notifier.run(stop.child_token()));
    }
    Ok(())
}

/// What a channel's heartbeat tells.
#[derive(Default)]
struct Seen {
    lag: BTreeMap<TopicPartition, i64>,
    processed: u64,
}

impl Seen {
    fn gain(&mut self, partitions: &[(TopicPartition, i64)]) {
        self.lag.extend(partitions.iter().map(|(partition, _)| (partition.clone(), 0)));
    }

    fn lose(&mut self, partitions: &[TopicPartition]) {
        self.lag.retain(|partition, _| !partitions.contains(partition));
    }

    fn waiting(&mut self, batches: &[ConsumedBatch]) {
        for batch in batches {
            let first = batch.records.first().map_or(batch.next_offset, |record| record.offset);
            self.lag.insert(batch.partition.clone(), batch.end_offset - first);
        }
    }

    fn done(&mut self, batches: &[ConsumedBatch]) {
        for batch in batches {
            self.lag.insert(batch.partition.clone(), batch.end_offset - batch.next_offset);
            self.processed += batch.records.len() as u64;
        }
    }

    fn report(&self) -> (Vec<String>, u64, i64) {
        (self.lag.keys().map(ToString::to_string).collect(), self.processed, self.lag.values().sum())
    }
}

struct Notifier {
    bus: Arc<dyn Bus>,
    topic: String,
    events: SystemEvents,
    channel: Channel,
}

impl Notifier {
    async fn run(self, stop: CancellationToken) {
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
        let seen = Mutex::new(Seen::default());
        // Beside the deliveries, because a webhook that is down holds them up for long.
        let outcome = tokio::select! {
            outcome = self.deliver_all(consumer.as_mut(), &seen, stop) => outcome,
            () = self.keep_reporting(&name, &seen) => Ok(()),
        };
        let closed = consumer.close().await;
        outcome.and(closed)
    }

    async fn deliver_all(
        &self,
        consumer: &mut dyn Consumer,
        seen: &Mutex<Seen>,
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
                    seen.lock().gain(&assignment.partitions);
                    consumer.commit(assignment.partitions.into_iter().collect()).await?;
                    continue;
                }
                Polled::Revoked(lost) => {
                    seen.lock().lose(&lost);
                    continue;
                }
                Polled::Records(batches) => batches,
            };
            let offsets: BTreeMap<TopicPartition, i64> =
                batches.iter().map(|b| (b.partition.clone(), b.next_offset)).collect();
            if offsets.is_empty() {
                continue;
            }
            seen.lock().waiting(&batches);
            // One series' notifications go out one after the other: nobody is to hear of the end before the beginning.
            let mut by_series: BTreeMap<String, Vec<AlertTransition>> = BTreeMap::new();
            for record in batches.iter().flat_map(|b| b.records.iter()) {
                if let Some(transition) = due(record) {
                    by_series.entry(transition.alert.series.clone()).or_default().push(transition);
                }
            }
            let series = stream::iter(by_series.into_values());
            let all = series.for_each_concurrent(IN_FLIGHT, |transitions| async move {
                for transition in &transitions {
                    self.deliver(transition).await;
                }
            });
            tokio::select! {
                () = all => {
                    consumer.commit(offsets).await?;
                    seen.lock().done(&batches);
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
        Ok(())
    }

    /// Never ends.
    async fn keep_reporting(&self, name: &str, seen: &Mutex<Seen>) {
        loop {
            let (partitions, records_processed, lag_records) = seen.lock().report();
            let heartbeat = Heartbeat {
                group: name,
                partitions,
                records_processed,
                records_per_s: 0.0,
                lag_records,
                lag_ms: 0,
                errors: 0,
            };
            heartbeat.publish(&self.events, name).await;
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
        }
    }

    async fn deliver(&self, transition: &AlertTransition) {
        match &self.channel {
            Channel::Log => log(transition),
            Channel::Webhook(webhook) => self.post(webhook, transition).await,
        }
    }

    /// Posts until delivered or given up, and records every attempt.
    async fn post(&self, webhook: &Webhook, transition: &AlertTransition) {
        let settings = webhook.settings();
        let payload = NotificationPayload::new(transition, None);
        let (body, key) = (bytes::Bytes::from(payload.to_json()), payload.id.to_string());
        let (target, began) = (settings.url_for_people(), tokio::time::Instant::now());
        for attempt in 1.. {
            let came_to = webhook.post(body.clone(), &key).await;
            let delay = match classify(&came_to) {
                Verdict::Retry { not_before } => {
                    settings.retry.delay(attempt, began.elapsed(), not_before, rand::random())
                }
                Verdict::Delivered | Verdict::GiveUp => None,
            };
            let record = DeliveryRecord::new(
                transition,
                (&settings.name, &target),
                attempt,
                &came_to,
                delay.is_some(),
            );
            self.events.announce(EventType::NOTIFICATION_ATTEMPTED, &transition.alert.series, &record).await;
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return,
            }
        }
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

//! Following topics `alerts` and `system-events`: each record becomes one frame at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_bus::{
    Bus, BusError, ConsumedBatch, ConsumedRecord, ConsumerSettings, OffsetSpec, Polled, StartAt,
    TopicPartition,
};
use farol_event::{Event, EventType, TransitionKind};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::stream::frame::{self, Frame, Scope, Stream};
use crate::stream::place::{FactTopics, MAX_PARTITIONS, Place};
use crate::stream::ring::Ring;

/// How long a poll waits when nothing happens.
const POLL: Duration = Duration::from_secs(5);
/// How long after a failure the bus is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many bytes of records one poll brings at most.
const POLL_BYTES: usize = 1024 * 1024;

/// Follows the facts for all clients.
pub(crate) struct Facts {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) topics: FactTopics,
    pub(crate) ring: Arc<Ring>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What one record has to tell.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) stream: Stream,
    pub(crate) json: Vec<u8>,
    /// Whether an alert fired.
    pub(crate) fired: bool,
}

impl Facts {
    /// Follows until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let follow = async {
            loop {
                match self.follow().await {
                    Ok(never) => match never {},
                    Err(BusError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the event stream can't read the log at present; it goes on from where it was");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = follow => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, BusError> {
        let mut place = self.ring.place();
        let partitions = self.all_partitions(&place).await?;
        let settings =
            ConsumerSettings { max_bytes: POLL_BYTES, ..ConsumerSettings::standalone("http-stream") };
        let mut consumer = self.bus.consumer(settings).await?;
        let start = partitions.iter().map(|(p, offset)| (p.clone(), StartAt::Offset(*offset))).collect();
        consumer.assign(start).await?;
        for (partition, offset) in &partitions {
            place.advance(&self.topics, partition, *offset);
        }
        loop {
            if let Polled::Records(batches) = consumer.poll(POLL).await?
                && !batches.is_empty()
            {
                self.tell(batches, &mut place);
            }
        }
    }

    /// Every partition of both topics with where to start. A partition that the place doesn't know was made after the
    /// server started: everything in it is new.
    async fn all_partitions(&self, place: &Place) -> Result<Vec<(TopicPartition, i64)>, BusError> {
        let known = partitions_of(self.bus.as_ref(), &self.topics).await?;
        for topic in [&self.topics.alerts, &self.topics.system_events] {
            if !known.iter().any(|p| p.topic == *topic) {
                return Err(BusError::UnknownTopicOrPartition(format!("topic `{topic}`")));
            }
        }
        Ok(known.into_iter().map(|p| (p.clone(), place.get(&self.topics, &p).unwrap_or(0))).collect())
    }

    fn tell(&self, batches: Vec<ConsumedBatch>, place: &mut Place) {
        let mut frames = Vec::new();
        for batch in batches {
            for record in &batch.records {
                place.advance(&self.topics, &batch.partition, record.offset + 1);
                let Some(fact) = fact_of(&self.topics, &batch.partition, record) else { continue };
                if fact.fired {
                    self.rates.alert_fired();
                }
                self.metrics.frame(fact.stream.as_str());
                frames.push(fact.into_frame(place));
            }
            place.advance(&self.topics, &batch.partition, batch.next_offset);
        }
        self.ring.push_facts(frames, place.clone());
    }
}

impl Fact {
    /// The frame of this fact, after which the facts have been told up to `place`.
    pub(crate) fn into_frame(self, place: &Place) -> Frame {
        let text = frame::encode(self.stream.as_str(), Some(&place.to_string()), &self.json);
        Frame { stream: self.stream, scope: Scope::Overview, text }
    }
}

/// Where the facts end now.
pub(crate) async fn end_of_facts(bus: &dyn Bus, topics: &FactTopics) -> Result<Place, BusError> {
    let partitions = partitions_of(bus, topics).await?;
    let ends: BTreeMap<TopicPartition, i64> = bus.offsets(&partitions, OffsetSpec::Latest).await?;
    Ok(Place::from_offsets(topics, &ends))
}

async fn partitions_of(bus: &dyn Bus, topics: &FactTopics) -> Result<Vec<TopicPartition>, BusError> {
    let all = bus.topics().await?;
    let mut ours = Vec::new();
    for topic in all.into_iter().filter(|t| t.name == topics.alerts || t.name == topics.system_events) {
        let told = i32::try_from(MAX_PARTITIONS).unwrap_or(i32::MAX).min(topic.partitions);
        if told < topic.partitions {
            let (topic, partitions) = (&topic.name, topic.partitions);
            tracing::error!(%topic, partitions, told, "the event stream can't tell of all partitions; what is in the others is in the views alone");
        }
        ours.extend((0..told).map(|p| TopicPartition::new(Arc::clone(&topic.name), p)));
    }
    Ok(ours)
}

/// What a record has to tell; `None` for one that is no event (whoever wrote it): the views count those.
pub(crate) fn fact_of(
    topics: &FactTopics,
    partition: &TopicPartition,
    record: &ConsumedRecord,
) -> Option<Fact> {
    let event = Event::parse(record.value.as_deref()?, record.timestamp()).ok()?;
    if partition.topic == topics.alerts {
        let transition = farol_alert::from_event(&event).ok()?;
        let json = serde_json::to_vec(&transition).ok()?;
        return Some(Fact { stream: Stream::Alert, json, fired: transition.kind == TransitionKind::Fired });
    }
    let stream = if is_about_pipeline(&event.event_type) { Stream::Pipeline } else { Stream::Event };
    Some(Fact { stream, json: event.to_json(), fired: false })
}

fn is_about_pipeline(event_type: &EventType) -> bool {
    let text = event_type.as_str();
    text.starts_with("consumidor_")
        || text.starts_with("produtor_")
        || *event_type == EventType::PARTITIONS_REASSIGNED
        || *event_type == EventType::RULES_CHANGED
}

//! Following topics `alerts` and `system-events`: each record that somebody wants becomes one frame at once. Of an event
//! that nobody wants only type and source are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_bus::{
    Bus, BusError, ConsumedBatch, ConsumedRecord, ConsumerSettings, OffsetSpec, Polled, StartAt,
    TopicPartition,
};
use farol_event::{AlertTransition, Event, EventHead, EventType, TransitionKind};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::rates::Rates;
use crate::stream::audience::Audience;
use crate::stream::frame::{self, Frame, Stream};
use crate::stream::place::{FactTopics, MAX_PARTITIONS, Place};
use crate::stream::wish::Subject;

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
    pub(crate) audience: Arc<Audience>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What one record has to tell.
#[derive(Debug)]
pub(crate) struct Fact {
    stream: Stream,
    event_type: EventType,
    source: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Alert(Box<AlertTransition>),
    Event(Box<Event>),
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
        let mut place = self.audience.place();
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
        let mut telling = self.audience.tell();
        for batch in batches {
            let is_alerts = batch.partition.topic == self.topics.alerts;
            for record in &batch.records {
                place.advance(&self.topics, &batch.partition, record.offset + 1);
                // Alerts are counted, whoever listens.
                let is_worth_reading = is_alerts
                    || (telling.has_audience() && is_wanted(record, |subject| telling.is_wanted(subject)));
                if !is_worth_reading {
                    continue;
                }
                let Some(fact) = fact_of(&self.topics, &batch.partition, record) else { continue };
                if fact.is_fired_alert() {
                    self.rates.alert_fired();
                }
                if telling.fact(&fact.subject(), || fact.to_frame(place)) {
                    self.metrics.frame(fact.stream.as_str());
                }
            }
            place.advance(&self.topics, &batch.partition, batch.next_offset);
        }
        telling.reach(place.clone());
    }
}

/// Whether anybody wants this event, by its type and source alone.
fn is_wanted(record: &ConsumedRecord, wanted: impl FnOnce(&Subject<'_>) -> bool) -> bool {
    let Some(value) = &record.value else { return false };
    // What is no event is told to nobody.
    EventHead::parse(value).is_some_and(|head| {
        let stream = stream_of(&head.event_type);
        wanted(&Subject { stream, event_type: &head.event_type, source: &head.source, severity: None })
    })
}

impl Fact {
    /// What filters look at.
    pub(crate) fn subject(&self) -> Subject<'_> {
        let severity = match &self.content {
            Content::Alert(transition) => Some(transition.alert.severity),
            Content::Event(_) => None,
        };
        Subject { stream: self.stream, event_type: self.event_type.as_str(), source: &self.source, severity }
    }

    fn is_fired_alert(&self) -> bool {
        matches!(&self.content, Content::Alert(transition) if transition.kind == TransitionKind::Fired)
    }

    /// The frame of this fact, after which the facts have been told up to `place`.
    pub(crate) fn to_frame(&self, place: &Place) -> Frame {
        let json = match &self.content {
            Content::Alert(transition) => {
                serde_json::to_vec(transition).expect("it was read from JSON, so it serialises")
            }
            Content::Event(event) => event.to_json(),
        };
        let text = frame::encode(self.stream.as_str(), Some(&place.to_string()), &json);
        Frame { stream: self.stream, text }
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
    let (event_type, source) = (event.event_type.clone(), event.source.clone());
    if partition.topic == topics.alerts {
        let transition = farol_alert::from_event(&event).ok()?;
        let content = Content::Alert(Box::new(transition));
        return Some(Fact { stream: Stream::Alert, event_type, source, content });
    }
    let stream = stream_of(event_type.as_str());
    Some(Fact { stream, event_type, source, content: Content::Event(Box::new(event)) })
}

/// The stream of an event of topic `system-events`.
fn stream_of(event_type: &str) -> Stream {
    let is_about_pipeline = event_type.starts_with("consumidor_")
        || event_type.starts_with("produtor_")
        || event_type == EventType::PARTITIONS_REASSIGNED.as_str()
        || event_type == EventType::RULES_CHANGED.as_str();
    if is_about_pipeline { Stream::Pipeline } else { Stream::Event }
}

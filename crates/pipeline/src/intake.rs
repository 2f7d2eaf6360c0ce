//! What a detect processor reads: readings of sensors, or what events tell of services.
//!
//! Both are evaluated alike, by the same rules, with the same guarantees. They are two consumer groups and not one with two topics,
//! because assignors balance how many partitions members have, not which: one worker could get all readings and its neighbour all
//! events.
//!
//! Of the events, most tell nothing that rules judge (Farol's own account of itself foremost): their type is looked at before
//! anything else, and they are passed over. What claims to tell something and doesn't is a dead letter.
//!
//! So is what stands in another partition than its source's key leads to ([`Place`]): the beginning of an outage in one partition and
//! its end in another would be an alert that never ends, and two beginnings two alerts. Where a key belongs follows from how many
//! partitions the topic has now, as for producers: events that wait to be read while that is changed may be refused. That number is
//! asked for when a partition is taken over, and again before anything is refused; not for every poll, because a Kafka
//! broker is asked over the network.

use std::borrow::Cow;
use std::time::Duration;

use farol_bus::{ConsumedRecord, partition_for_key};
use farol_detect::{PartitionState, ServiceNews};
use farol_event::{AlertTransition, Event, Reading};
use serde::Deserialize;

use crate::detect_worker::WorkerSettings;
use crate::topics::{DETECTOR_STATE, SERVICE_DETECTOR_STATE, SYSTEM_EVENTS};

/// How often a worker tells of itself in the group of services, at most.
const SERVICES_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);

/// What a detect processor reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intake {
    /// Readings of sensors.
    Readings,
    /// What events tell of services.
    Services,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its partition.
    pub(crate) partition: i32,
    /// How many the topic has.
    pub(crate) partitions: i32,
}

impl Place {
    /// Why rules don't judge an event of this service here, if they don't.
    fn refuses(self, service: &str) -> Option<String> {
        let Self { partition, partitions } = self;
        let home = partition_for_key(service.as_bytes(), partitions);
        (partitions > 0 && home != partition).then(|| {
            format!(
                "it stands in partition {partition}, and its source `{service}` as key belongs into {home} of {partitions}; rules judge \
                 events of a service only there. Send it with its source as key, to where Kafka's default partitioner puts it \
                 (librdkafka, kcat: -X partitioner=murmur2_random -k '{service}')"
            )
        })
    }
}

/// What became of a record.
pub(crate) enum Judged {
    /// Rules have judged it.
    Applied(Vec<AlertTransition>),
    /// Series have ended, and are forgotten.
    Ended(Vec<AlertTransition>, Vec<String>),
    /// It is nothing that rules judge.
    PassedOver,
    /// It claims to be something that it isn't.
    Refused(String),
    /// It stands in another partition than it should, if the topic has as many as was said.
    OutOfPlace(String),
}

/// As much of an event as tells whether the rest matters.
#[derive(Deserialize)]
struct Claim<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
}

impl Intake {
    /// The topic.
    pub(crate) fn topic(self, settings: &WorkerSettings) -> &str {
        match self {
            Intake::Readings => &settings.topics.sensor_data,
            Intake::Services => SYSTEM_EVENTS,
        }
    }

    /// Where the detector's state is kept.
    pub(crate) fn state_topic(self) -> &'static str {
        match self {
            Intake::Readings => DETECTOR_STATE,
            Intake::Services => SERVICE_DETECTOR_STATE,
        }
    }

    /// The consumer group.
    pub(crate) fn group(self, settings: &WorkerSettings) -> &str {
        match self {
            Intake::Readings => &settings.group,
            Intake::Services => &settings.services_group,
        }
    }

    /// How often a worker tells of itself as a member of the group. Of services there is less to tell.
    pub(crate) fn heartbeat_interval(self, settings: &WorkerSettings) -> Duration {
        match self {
            Intake::Readings => settings.heartbeat_interval,
            Intake::Services => settings.heartbeat_interval.max(SERVICES_HEARTBEAT_INTERVAL),
        }
    }

    /// Applies one record.
    pub(crate) fn judge(
        self,
        record: &ConsumedRecord,
        place: Place,
        detector: &mut PartitionState,
    ) -> Judged {
        let (offset, arrival) = (record.offset, record.timestamp());
        let applied = match self {
            Intake::Readings => reading(record).and_then(|reading| {
                detector.apply_reading(&reading, offset, arrival).map_err(|e| e.to_string())
            }),
            Intake::Services => match news(record) {
                Ok(None) => return Judged::PassedOver,
                Ok(Some(news)) => match (place.refuses(news.service()), news) {
                    (Some(reason), _) => return Judged::OutOfPlace(reason),
                    (None, ServiceNews::Sample(sample)) => {
                        detector.apply(&sample.measurement(), offset, arrival).map_err(|e| e.to_string())
                    }
                    (None, ServiceNews::Ended { service, how }) => {
                        let (transitions, forgotten) = detector.service_ended(&service, how, offset, arrival);
                        return Judged::Ended(transitions, forgotten);
                    }
                },
                Err(reason) => Err(reason),
            },
        };
        applied.map_or_else(Judged::Refused, Judged::Applied)
    }
}

fn reading(record: &ConsumedRecord) -> Result<Reading<'_>, String> {
    let value = record.value.as_deref().ok_or("the record has no value")?;
    Reading::parse(value, record.timestamp()).map_err(|e| e.to_string())
}

fn news(record: &ConsumedRecord) -> Result<Option<ServiceNews>, String> {
    let value = record.value.as_deref().unwrap_or_default();
    // What isn't even JSON with a type claims nothing.
    match serde_json::from_slice::<Claim<'_>>(value) {
        Ok(claim) if ServiceNews::is_claimed_by(&claim.event_type) => {}
        _ => return Ok(None),
    }
    let event = Event::parse(value, record.timestamp()).map_err(|e| e.to_string())?;
    ServiceNews::of(&event).map_err(|e| e.to_string())
}

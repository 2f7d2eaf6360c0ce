//! Following topic `sensor-data` for those who watch readings, [`TICK`] by tick.
//!
//! Only the newest reading of each sensor in a tick is parsed; the others are told apart by their record's key, which is
//! the sensor's id. So the cost of a tick hangs on the number of sensors shown, not on the rate of readings. When
//! nobody watches, nothing is read at all; when somebody comes, following starts at the end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{Bus, BusError, ConsumedRecord, Consumer, ConsumerSettings, Polled, StartAt, TopicPartition};
use farol_event::{Location, Reading, Timestamp};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::stream::audience::Audience;
use crate::stream::frame::{self, Frame, Scope, Stream};

/// How often readings are told.
pub const TICK: Duration = Duration::from_millis(200);
/// How many sensors one frame of the overview has at most.
pub const MAX_SENSORS: usize = 500;
/// How many readings of one watched sensor one frame has at most, the newest.
pub const MAX_READINGS: usize = 1000;
/// How many records one tick reads at most; what is beyond is skipped, only counted.
pub const MAX_RECORDS: usize = 200_000;

/// How long a poll waits when nothing is there: the tick has waited already.
const POLL: Duration = Duration::from_millis(2);
/// How long after a failure the bus is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Who watches readings.
#[derive(Debug)]
pub(crate) struct Watchers {
    sensors: Mutex<HashMap<Arc<str>, usize>>,
    overview: Mutex<usize>,
    /// How many watch anything.
    count: watch::Sender<usize>,
}

/// One watcher; gone when dropped.
#[derive(Debug)]
pub(crate) struct Watching {
    watchers: Arc<Watchers>,
    scopes: Vec<Scope>,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self { sensors: Mutex::default(), overview: Mutex::default(), count: watch::Sender::new(0) }
    }

    pub(crate) fn watch(self: &Arc<Self>, scopes: Vec<Scope>) -> Watching {
        for scope in &scopes {
            match scope {
                Scope::Overview => *self.overview.lock() += 1,
                Scope::Sensor(id) => *self.sensors.lock().entry(Arc::clone(id)).or_default() += 1,
            }
        }
        self.count.send_modify(|count| *count += scopes.len());
        Watching { watchers: Arc::clone(self), scopes }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        for scope in &self.scopes {
            match scope {
                Scope::Overview => *self.watchers.overview.lock() -= 1,
                Scope::Sensor(id) => {
                    let mut sensors = self.watchers.sensors.lock();
                    if let Some(count) = sensors.get_mut(id) {
                        *count -= 1;
                        if *count == 0 {
                            sensors.remove(id);
                        }
                    }
                }
            }
        }
        self.watchers.count.send_modify(|count| *count -= self.scopes.len());
    }
}

/// Follows the readings for all clients.
pub(crate) struct Live {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) topic: Arc<str>,
    pub(crate) audience: Arc<Audience>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Live {
    /// Follows, whenever somebody watches, until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let follow = async {
            let mut count = self.watchers.count.subscribe();
            // The sender lives in `self.watchers`, so waiting can't fail.
            while count.wait_for(|count| *count > 0).await.is_ok() {
                match self.follow().await {
                    Ok(()) => {}
                    Err(BusError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "the stream of readings can't read the log at present");
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

    /// Follows until nobody watches.
    async fn follow(&self) -> Result<(), BusError> {
        let topics = self.bus.topics().await?;
        let Some(topic) = topics.into_iter().find(|t| t.name == self.topic) else {
            return Err(BusError::UnknownTopicOrPartition(format!("topic `{}`", self.topic)));
        };
        let mut consumer = self.bus.consumer(ConsumerSettings::standalone("http-live")).await?;
        let all =
            (0..topic.partitions).map(|p| (TopicPartition::new(Arc::clone(&self.topic), p), StartAt::Latest));
        consumer.assign(all.collect()).await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        while *self.watchers.count.borrow() > 0 {
            ticks.tick().await;
            let mut tick = Tick::new(&self.watchers);
            self.gather(consumer.as_mut(), &mut tick).await?;
            if tick.total == 0 {
                continue;
            }
            turn += 1;
            // Parsing and writing hundreds of readings takes longer than an async thread should be held.
            let made = tokio::task::spawn_blocking(move || tick.into_frames(turn)).await;
            let frames =
                made.map_err(|e| BusError::Unavailable(format!("making a frame of readings failed: {e}")))?;
            for _ in &frames {
                self.metrics.frame(Stream::Reading.as_str());
            }
            self.audience.tell_readings(frames);
        }
        consumer.close().await
    }

    /// Takes in everything that has come since the last tick.
    async fn gather(&self, consumer: &mut dyn Consumer, tick: &mut Tick) -> Result<(), BusError> {
        loop {
            let Polled::Records(batches) = consumer.poll(POLL).await? else { continue };
            let mut behind = false;
            for batch in &batches {
                for record in &batch.records {
                    tick.take(record);
                }
            }
            for batch in batches {
                if batch.next_offset >= batch.end_offset {
                    continue;
                }
                if tick.total < MAX_RECORDS {
                    behind = true;
                } else {
                    let skipped = usize::try_from(batch.end_offset - batch.next_offset).unwrap_or(0);
                    tick.total = tick.total.saturating_add(skipped);
                    consumer.seek(&batch.partition, batch.end_offset)?;
                }
            }
            if !behind {
                return Ok(());
            }
        }
    }
}

/// What came in one tick.
struct Tick {
    /// The newest record of each sensor, by key; records without a key by nothing at all.
    newest: Option<HashMap<Bytes, Taken>>,
    watched: HashMap<Arc<str>, Watched>,
    total: usize,
}

struct Taken {
    value: Bytes,
    arrival: Timestamp,
}

#[derive(Default)]
struct Watched {
    readings: VecDeque<Taken>,
    total: usize,
}

impl Tick {
    fn new(watchers: &Watchers) -> Self {
        let watched = watchers.sensors.lock().keys().map(|id| (Arc::clone(id), Watched::default())).collect();
        let newest = (*watchers.overview.lock() > 0).then(HashMap::new);
        Self { newest, watched, total: 0 }
    }

    fn take(&mut self, record: &ConsumedRecord) {
        let Some(value) = &record.value else { return };
        self.total += 1;
        let taken = || Taken { value: value.clone(), arrival: record.timestamp() };
        // A client of another protocol may leave the key out; then the reading itself says whose it is.
        let key = match &record.key {
            Some(key) => key.clone(),
            None => match Reading::parse(value, record.timestamp()) {
                Ok(reading) => Bytes::copy_from_slice(reading.sensor_id.as_bytes()),
                Err(_) => return,
            },
        };
        if !self.watched.is_empty()
            && let Some(watched) = std::str::from_utf8(&key).ok().and_then(|id| self.watched.get_mut(id))
        {
            watched.total += 1;
            if watched.readings.len() == MAX_READINGS {
                watched.readings.pop_front();
            }
            watched.readings.push_back(taken());
        }
        if let Some(newest) = &mut self.newest {
            newest.insert(key, taken());
        }
    }

    /// One frame for the overview, one for each watched sensor of which something came. `turn` decides which sensors
    /// are shown when there are too many, so that over time all are.
    fn into_frames(self, turn: usize) -> Vec<(Scope, Frame)> {
        let mut frames = Vec::new();
        if let Some(newest) = self.newest {
            let skipped = newest.len().saturating_sub(MAX_SENSORS);
            let start = if skipped == 0 { 0 } else { turn.wrapping_mul(MAX_SENSORS) % newest.len() };
            let mut values: Vec<&Taken> = newest.values().collect();
            values.rotate_left(start);
            values.truncate(MAX_SENSORS);
            frames.extend(frame_of(Scope::Overview, values, self.total, skipped));
        }
        for (id, watched) in self.watched {
            let skipped = watched.total - watched.readings.len();
            if watched.total > 0 {
                frames.extend(frame_of(Scope::Sensor(id), &watched.readings, watched.total, skipped));
            }
        }
        frames
    }
}

/// The data of a `reading` event.
#[derive(Debug, Serialize)]
pub(crate) struct LiveReadings<R> {
    /// Readings.
    pub(crate) readings: Vec<R>,
    /// How many came in all.
    pub(crate) total: usize,
    /// Overview: sensors left out. One sensor: readings left out.
    pub(crate) skipped: usize,
}

#[derive(Debug, Serialize)]
struct LiveReading<'a> {
    sensor_id: &'a str,
    sensor_type: &'a str,
    timestamp: Timestamp,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a Location<'a>>,
}

fn frame_of<'t>(
    scope: Scope,
    taken: impl IntoIterator<Item = &'t Taken>,
    total: usize,
    skipped: usize,
) -> Option<(Scope, Frame)> {
    // What is no reading goes to the dead letters; it is not for here to complain.
    let parsed: Vec<Reading<'_>> =
        taken.into_iter().filter_map(|t| Reading::parse(&t.value, t.arrival).ok()).collect();
    let none = Location::default();
    let readings = parsed
        .iter()
        .map(|r| LiveReading {
            sensor_id: &r.sensor_id,
            sensor_type: &r.sensor_type,
            timestamp: r.timestamp,
            value: r.value,
            unit: r.unit.as_deref(),
            location: (r.location != none).then_some(&r.location),
        })
        .collect();
    // Finite numbers and texts always serialise; if they did not, one frame of many is left out.
    let json = serde_json::to_vec(&LiveReadings { readings, total, skipped }).ok()?;
    Some((
        scope,
        Frame { stream: Stream::Reading, text: frame::encode(Stream::Reading.as_str(), None, &json) },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: Option<&str>, json: &str) -> ConsumedRecord {
        ConsumedRecord {
            offset: 0,
            timestamp_ms: 1_700_000_000_000,
            key: key.map(|k| Bytes::copy_from_slice(k.as_bytes())),
            value: Some(Bytes::copy_from_slice(json.as_bytes())),
            headers: Vec::new(),
        }
    }

    fn reading(id: &str, value: usize) -> ConsumedRecord {
        record(Some(id), &format!(r#"{{"sensor_id":"{id}","value":{value}}}"#))
    }

    fn data(frame: &Frame) -> serde_json::Value {
        let text = std::str::from_utf8(&frame.text).unwrap();
        let data = text.lines().find_map(|l| l.strip_prefix("data: ")).unwrap();
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn the_overview_has_the_newest_reading_of_each_sensor() {
        let watchers = Arc::new(Watchers::new());
        let _watching = watchers.watch(vec![Scope::Overview]);
        let mut tick = Tick::new(&watchers);
        for value in 0..10 {
            tick.take(&reading("a", value));
            tick.take(&record(None, &format!(r#"{{"sensor_id":"b","value":{value}}}"#)));
        }
        tick.take(&record(Some("c"), "rubbish"));
        let frames = tick.into_frames(0);
        let data = data(&frames[0].1);
        assert_eq!(data["total"], 21);
        assert_eq!(data["skipped"], 0);
        let mut shown: Vec<_> = data["readings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["sensor_id"].to_string(), r["value"].as_f64()))
            .collect();
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(shown, [("\"a\"".to_owned(), Some(9.0)), ("\"b\"".to_owned(), Some(9.0))]);
    }

    #[test]
    fn too_many_sensors_take_turns() {
        let watchers = Arc::new(Watchers::new());
        let _watching = watchers.watch(vec![Scope::Overview]);
        let mut tick = Tick::new(&watchers);
        for sensor in 0..MAX_SENSORS + 7 {
            tick.take(&reading(&format!("s{sensor}"), 1));
        }
        let data = data(&tick.into_frames(3)[0].1);
        assert_eq!(data["skipped"], 7);
        assert_eq!(data["readings"].as_array().unwrap().len(), MAX_SENSORS);
    }

    #[test]
    fn a_watched_sensor_shows_every_reading_up_to_the_bound() {
        let watchers = Arc::new(Watchers::new());
        let watching = watchers.watch(vec![Scope::Sensor("a".into())]);
        let mut tick = Tick::new(&watchers);
        for value in 0..MAX_READINGS + 5 {
            tick.take(&reading("a", value));
            tick.take(&reading("b", value));
        }
        let frames = tick.into_frames(0);
        assert_eq!(frames.len(), 1, "nobody watches the overview");
        let data = data(&frames[0].1);
        assert_eq!(data["readings"].as_array().unwrap().len(), MAX_READINGS);
        assert_eq!(data["readings"][0]["value"], 5.0);
        assert_eq!(data["skipped"], 5);
        drop(watching);
        assert_eq!(*watchers.count.borrow(), 0);
        assert!(watchers.sensors.lock().is_empty());
    }
}

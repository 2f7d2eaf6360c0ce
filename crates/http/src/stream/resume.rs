//! Giving a client that comes back the facts that it missed, from the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{Bus, BusError, Consumer, ConsumerSettings, OffsetSpec, Polled, StartAt, TopicPartition};
use tokio::time::Instant;

use crate::stream::facts::fact_of;
use crate::stream::frame::{self, Gap, Stream};
use crate::stream::place::{FactTopics, Place};
use crate::stream::wish::Wish;

/// How many records are read for a client, wanted or not; beyond them fetching the lists anew is cheaper for both.
pub const MAX_RECORDS: u64 = 5000;
/// How many bytes of records are held at one time for one client.
const POLL_BYTES: usize = 256 * 1024;
/// How long one poll waits. The records are all there, so this is only reached at the very end.
const POLL: Duration = Duration::from_millis(100);
/// How long the whole may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What a client that comes back is given.
pub(crate) enum Resumption {
    /// Everything from the log.
    Replay(Replay),
    /// Nothing was missed.
    Nothing,
    /// Too much, or the log no longer has it: gaps to be told.
    Gaps(Vec<Bytes>),
}

/// The facts from one place to another.
pub(crate) struct Replay {
    consumer: Box<dyn Consumer>,
    topics: FactTopics,
    place: Place,
    target: Vec<(TopicPartition, i64)>,
    wish: Arc<Wish>,
    deadline: Instant,
}

/// Decides what a client is given that has been told everything up to `from`, when its session begins at `to`.
pub(crate) async fn resume(
    bus: &dyn Bus,
    topics: &FactTopics,
    from: &Place,
    to: &Place,
    wish: &Arc<Wish>,
) -> Result<Resumption, BusError> {
    let target = to.partitions(topics);
    let partitions: Vec<TopicPartition> = target.iter().map(|(p, _)| p.clone()).collect();
    let earliest = bus.offsets(&partitions, OffsetSpec::Earliest).await?;
    let mut missed: BTreeMap<bool, u64> = BTreeMap::new();
    let mut lost = false;
    let mut start = Vec::new();
    for (partition, end) in &target {
        let offset = from.get(topics, partition).unwrap_or(0);
        // A place beyond the end is one of another log: what it had told there says nothing about this one.
        lost |= offset > *end || earliest.get(partition).is_some_and(|first| offset < *first);
        let count = u64::try_from(end - offset).unwrap_or(0);
        *missed.entry(partition.topic == topics.alerts).or_default() += count;
        if count > 0 {
            start.push((partition.clone(), StartAt::Offset(offset)));
        }
    }
    if !lost && start.is_empty() {
        return Ok(Resumption::Nothing);
    }
    let of = |alerts: bool| missed.get(&alerts).copied().unwrap_or(0);
    if lost || of(true) + of(false) > MAX_RECORDS {
        let streams = [(Stream::Alert, of(true)), (Stream::Event, of(false)), (Stream::Pipeline, of(false))];
        let wanted = streams.into_iter().filter(|(stream, _)| wish.wants_stream(*stream));
        return Ok(Resumption::Gaps(wanted.map(|(stream, missed)| gap(stream, missed)).collect()));
    }
    let settings = ConsumerSettings { max_bytes: POLL_BYTES, ..ConsumerSettings::standalone("http-resume") };
    let mut consumer = bus.consumer(settings).await?;
    consumer.assign(start).await?;
    let deadline = Instant::now() + TIME_LIMIT;
    Ok(Resumption::Replay(Replay {
        consumer,
        topics: topics.clone(),
        place: from.clone(),
        target,
        wish: Arc::clone(wish),
        deadline,
    }))
}

/// A `gap` event.
pub(crate) fn gap(stream: Stream, missed: u64) -> Bytes {
    let json =
        serde_json::to_vec(&Gap { stream: stream.as_str(), missed }).expect("a name and a number serialise");
    frame::encode("gap", None, &json)
}

impl Replay {
    /// The next frames into `queue`; `false` when that was all. A failure is told as gaps.
    pub(crate) async fn next(&mut self, queue: &mut VecDeque<Bytes>) -> bool {
        match self.step(queue).await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "a stream could not be resumed from the log");
                let facts = [Stream::Alert, Stream::Event, Stream::Pipeline];
                queue.extend(facts.into_iter().filter(|s| self.wish.wants_stream(*s)).map(|s| gap(s, 0)));
                false
            }
        }
    }

    async fn step(&mut self, queue: &mut VecDeque<Bytes>) -> Result<bool, BusError> {
        if self.reached() {
            return Ok(false);
        }
        if Instant::now() >= self.deadline {
            return Err(BusError::Unavailable(format!("reading took more than {} s", TIME_LIMIT.as_secs())));
        }
        let Polled::Records(batches) = self.consumer.poll(POLL).await? else { return Ok(true) };
        if batches.is_empty() {
            // What lies between here and the target are markers of transactions, which nobody gets to see.
            return Ok(false);
        }
        for batch in batches {
            let end = self.target.iter().find(|(p, _)| *p == batch.partition).map_or(0, |(_, end)| *end);
            for record in batch.records.iter().filter(|r| r.offset < end) {
                self.place.advance(&self.topics, &batch.partition, record.offset + 1);
                if let Some(fact) = fact_of(&self.topics, &batch.partition, record)
                    && self.wish.wants(&fact.subject())
                {
                    queue.push_back(fact.to_frame(&self.place).text);
                }
            }
            self.place.advance(&self.topics, &batch.partition, batch.next_offset.min(end));
        }
        Ok(true)
    }

    fn reached(&self) -> bool {
        self.target
            .iter()
            .all(|(partition, end)| self.place.get(&self.topics, partition).unwrap_or(0) >= *end)
    }
}

//! How old the oldest record is that a group has not read: what turns lag in records into lag in seconds.
//!
//! The record at the committed offset is read and its timestamp taken, a batch per partition that is behind. A record
//! doesn't change, so a timestamp is remembered: a group that stands still costs one reading, one that moves a reading
//! whenever somebody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use farol_bus::{Bus, BusError, Consumer, ConsumerSettings, Polled, StartAt, TopicPartition};
use farol_event::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How many timestamps are remembered; then all are forgotten.
pub(crate) const MAX_REMEMBERED: usize = 10_000;
/// How long one partition is waited for. Its record is there already, unless a transaction that is still open hides it.
const PARTITION_LIMIT: Duration = Duration::from_millis(10);
/// How long all partitions of one answer may take; what is not known then is told as unknown.
const ANSWER_LIMIT: Duration = Duration::from_millis(250);

/// Timestamps of records that groups have yet to read.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    remembered: Mutex<BTreeMap<(TopicPartition, i64), Timestamp>>,
}

impl Unread {
    /// The timestamp of the first record at or after each offset. What can't be read is left out.
    pub(crate) async fn oldest(
        &self,
        bus: &dyn Bus,
        wanted: &[(TopicPartition, i64)],
    ) -> BTreeMap<TopicPartition, Timestamp> {
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        {
            let remembered = self.remembered.lock();
            for place in wanted {
                match remembered.get(place) {
                    Some(at) => drop(found.insert(place.0.clone(), *at)),
                    None => missing.push(place),
                }
            }
        }
        if missing.is_empty() {
            return found;
        }
        let deadline = Instant::now() + ANSWER_LIMIT;
        let settings = ConsumerSettings { max_bytes: 1, ..ConsumerSettings::standalone("http-lag") };
        let mut consumer = match bus.consumer(settings).await {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::debug!(%error, "the age of unread records can't be told at present");
                return found;
            }
        };
        for (partition, offset) in missing {
            if Instant::now() >= deadline {
                break;
            }
            match timestamp_at(consumer.as_mut(), partition, *offset).await {
                Ok(Some(at)) => {
                    self.remember(partition, *offset, at);
                    found.insert(partition.clone(), at);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, %partition, offset, "an unread record can't be read"),
            }
        }
        if let Err(error) = consumer.close().await {
            tracing::debug!(%error, "a consumer without a group was not closed");
        }
        found
    }

    fn remember(&self, partition: &TopicPartition, offset: i64, at: Timestamp) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert((partition.clone(), offset), at);
    }
}

async fn timestamp_at(
    consumer: &mut dyn Consumer,
    partition: &TopicPartition,
    offset: i64,
) -> Result<Option<Timestamp>, BusError> {
    consumer.assign(vec![(partition.clone(), StartAt::Offset(offset))]).await?;
    let Polled::Records(batches) = consumer.poll(PARTITION_LIMIT).await? else { return Ok(None) };
    let record = batches.iter().flat_map(|batch| &batch.records).find(|record| record.offset >= offset);
    Ok(record.map(|record| record.timestamp()))
}

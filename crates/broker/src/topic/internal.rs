//! Reading a topic of the broker's own when the broker opens: from its start to its end, record by record.

use farol_log::{Partition, Verify};

use crate::error::BrokerError;
use crate::partition::TopicPartition;

/// How much of the topic is read at once.
const READ_BYTES: usize = 1024 * 1024;

/// Calls `see` with key and value of every record of an internal topic's only partition. A record without a key has an empty one.
pub(crate) fn read_records(
    topic: &str,
    partition: &Partition,
    mut see: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<(), BrokerError> {
    let name = TopicPartition::new(topic, 0);
    let mut from = partition.start_offset();
    let end = partition.end_offset();
    while from < end {
        let fetched = partition
            .read(from, READ_BYTES, Verify::Checksums)
            .map_err(|error| BrokerError::from_read(&name, from, &error))?;
        for batch in fetched.batches() {
            let damaged = |error| BrokerError::from_batch(&name, from, &error);
            for record in batch.map_err(damaged)?.records().map_err(damaged)? {
                let record = record.map_err(damaged)?;
                see(record.key.as_deref().unwrap_or_default(), record.value.as_deref());
            }
        }
        if fetched.next_offset <= from {
            break;
        }
        from = fetched.next_offset;
    }
    Ok(())
}

//! What a change of a consumer's partitions asks of the cluster: where each starts, and that it is read from there.
//!
//! Everything here waits for the network.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Told;
use crate::engine::{BusError, OffsetReset, OffsetSpec, StartAt};
use crate::kafka::error::{bus_error, code_error};
use crate::kafka::{CALL_LIMIT, admin};
use crate::record::TopicPartition;

type Native = BaseConsumer<Told>;

/// Where a partition starts, and where it ended then.
pub(super) struct Start {
    pub(super) partition: TopicPartition,
    pub(super) offset: i64,
    pub(super) end: i64,
}

/// Answers an assignment: finds out where each partition starts, and has it read from there.
pub(super) fn take_over(
    native: &Native,
    partitions: Vec<TopicPartition>,
    reset: OffsetReset,
) -> Result<Vec<Start>, BusError> {
    let starts = starts(native, partitions, reset)?;
    let list = admin::list(starts.iter().map(|start| (&start.partition, Offset::Offset(start.offset))))?;
    native.incremental_assign(&list).map_err(|error| bus_error(&error, "the assignment"))?;
    Ok(starts)
}

fn starts(
    native: &Native,
    partitions: Vec<TopicPartition>,
    reset: OffsetReset,
) -> Result<Vec<Start>, BusError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut asked = TopicPartitionList::new();
    for partition in &partitions {
        asked.add_partition(&partition.topic, partition.partition);
    }
    // Offsets of a transaction that isn't over yet are waited for.
    let found = native
        .committed_offsets(asked, CALL_LIMIT * 3)
        .map_err(|error| bus_error(&error, "the committed offsets"))?;
    let first = admin::offsets(native, &partitions, OffsetSpec::Earliest)?;
    let ends = admin::offsets(native, &partitions, OffsetSpec::Latest)?;
    let start = |partition: TopicPartition| {
        let first = first.get(&partition).copied().unwrap_or(0);
        let end = ends.get(&partition).copied().unwrap_or(first);
        let fresh = match reset {
            OffsetReset::Earliest => first,
            OffsetReset::Latest => end,
        };
        let committed = found.find_partition(&partition.topic, partition.partition);
        let offset = match committed.map(|element| element.error().map(|()| element.offset())) {
            Some(Err(error)) => return Err(bus_error(&error, &partition.to_string())),
            Some(Ok(Offset::Offset(committed))) if committed < first => {
                tracing::warn!(%partition, offset = committed, start = first, end, position = fresh, "offset is gone and was reset");
                fresh
            }
            Some(Ok(Offset::Offset(committed))) => committed,
            _ => fresh,
        };
        Ok(Start { partition, offset, end: end.max(offset) })
    };
    partitions.into_iter().map(start).collect()
}

/// Answers a revocation.
pub(super) fn give_up(native: &Native, partitions: &[TopicPartition]) -> Result<(), BusError> {
    let list = admin::list(partitions.iter().map(|partition| (partition, Offset::Invalid)))?;
    native.incremental_unassign(&list).map_err(|error| bus_error(&error, "the revocation"))
}

pub(super) fn assign(
    native: &Native,
    partitions: Vec<(TopicPartition, StartAt)>,
) -> Result<Vec<Start>, BusError> {
    let names: Vec<_> = partitions.iter().map(|(partition, _)| partition.clone()).collect();
    let first = admin::offsets(native, &names, OffsetSpec::Earliest)?;
    let ends = admin::offsets(native, &names, OffsetSpec::Latest)?;
    let start = |(partition, start): (TopicPartition, StartAt)| {
        let first = first.get(&partition).copied().unwrap_or(0);
        let end = ends.get(&partition).copied().unwrap_or(first);
        let offset = match start {
            StartAt::Offset(offset) => offset.max(first),
            StartAt::Earliest => first,
            StartAt::Latest => end,
        };
        Start { partition, offset, end: end.max(offset) }
    };
    let starts: Vec<Start> = partitions.into_iter().map(start).collect();
    let list = admin::list(starts.iter().map(|start| (&start.partition, Offset::Offset(start.offset))))?;
    native.assign(&list).map_err(|error| bus_error(&error, "the assignment"))?;
    Ok(starts)
}

/// Seeks, and returns when whatever was fetched before is out of the way.
pub(super) fn seek(
    native: &Native,
    seeks: BTreeMap<TopicPartition, i64>,
) -> Result<Vec<(TopicPartition, i64)>, BusError> {
    let deadline = Instant::now() + CALL_LIMIT;
    for (partition, offset) in &seeks {
        loop {
            let list = admin::list([(partition, Offset::Offset(*offset))])?;
            let done = native
                .seek_partitions(list, CALL_LIMIT)
                .map_err(|error| bus_error(&error, &partition.to_string()))?;
            let failed = done.elements().first().and_then(|element| element.error().err());
            match failed.as_ref().and_then(KafkaError::rdkafka_error_code) {
                None => break,
                // An assignment of a moment ago takes a moment to be read.
                Some(Code::State | Code::PreviousInProgress) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Some(code) => return Err(code_error(code, &partition.to_string())),
            }
        }
    }
    Ok(seeks.into_iter().collect())
}

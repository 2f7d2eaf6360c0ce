//! Reading and decoding for one poll. Pure of waiting: what is there is read, on whichever thread this runs.
//!
//! Committed records only: up to the last stable offset, without what aborted transactions of Kafka clients wrote and without
//! their markers.

use std::collections::BTreeMap;

use bytes::Bytes;
use farol_broker::{BrokerError, FetchedBatches, Isolation, PartitionReader};
use farol_log::{Batch, BatchError, Compression, ReadError, Record, Verify};

use crate::engine::BusError;
use crate::record::{ConsumedBatch, ConsumedRecord, TopicPartition};

/// Reading and decoding this much takes about half a millisecond.
pub(super) const INLINE_BYTES: usize = 64 * 1024;
/// The same if it is compressed.
const INLINE_COMPRESSED_BYTES: usize = 8 * 1024;

/// One partition to read from.
#[derive(Clone)]
pub(super) struct Portion {
    /// Which of the consumer's partitions it is.
    pub(super) slot: usize,
    pub(super) partition: TopicPartition,
    pub(super) reader: PartitionReader,
    /// The offset to read from.
    pub(super) position: i64,
}

/// What reading gave.
#[derive(Default)]
pub(super) struct Gathered {
    /// Records by slot.
    pub(super) batches: BTreeMap<usize, ConsumedBatch>,
    /// Where each slot reads on, also those that gave no record (compaction leaves gaps).
    pub(super) positions: Vec<(usize, i64)>,
    /// What stopped the reading of a slot.
    pub(super) problem: Option<(usize, Problem)>,
    /// Bytes read, as stored.
    pub(super) bytes: usize,
    /// Whether every portion was read to its end.
    pub(super) drained: bool,
}

/// Why a partition could not be read on.
pub(super) enum Problem {
    /// The position isn't there.
    OutOfRange {
        /// The first offset that is.
        start: i64,
        /// The end.
        end: i64,
    },
    /// Damage, or the operating system.
    Failed(BusError),
}

/// How much work a call may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// What an async thread may be held up for; `None` is returned if that isn't enough.
    Inline,
    /// Up to this many stored bytes, but for a single batch that is larger.
    UpTo(usize),
}

/// Reads the portions in order, each its fair share.
pub(super) fn gather(portions: Vec<Portion>, effort: Effort) -> Option<Gathered> {
    let mut left = match effort {
        Effort::Inline => INLINE_BYTES,
        Effort::UpTo(bytes) => bytes.max(1),
    };
    let mut gathered = Gathered::default();
    let mut active = portions;
    while !active.is_empty() && left > 0 && gathered.problem.is_none() {
        let share = (left / active.len()).max(1);
        let mut unfinished = Vec::with_capacity(active.len());
        for mut portion in active {
            if left == 0 || gathered.problem.is_some() {
                unfinished.push(portion);
                continue;
            }
            match read_portion(&portion, share.min(left)) {
                Ok(fetched) => {
                    if effort == Effort::Inline && !fits_inline(&fetched) {
                        return None;
                    }
                    left = left.saturating_sub(fetched.batches.len());
                    gathered.bytes = gathered.bytes.saturating_add(fetched.batches.len());
                    if let Err(problem) = gathered.take(&portion, &fetched) {
                        gathered.problem = Some((portion.slot, Problem::Failed(problem)));
                    } else if fetched.next_offset < fetched.stable_offset {
                        portion.position = fetched.next_offset;
                        unfinished.push(portion);
                    }
                }
                Err(problem) => gathered.problem = Some((portion.slot, problem)),
            }
        }
        active = unfinished;
    }
    gathered.drained = active.is_empty() && gathered.problem.is_none();
    if effort == Effort::Inline && !gathered.drained && gathered.problem.is_none() {
        return None;
    }
    Some(gathered)
}

fn read_portion(portion: &Portion, max_bytes: usize) -> Result<FetchedBatches, Problem> {
    let read = |max_bytes| {
        portion.reader.read(portion.position, max_bytes, Verify::Checksums, Isolation::ReadCommitted)
    };
    let outcome = match read(max_bytes) {
        // Batch by batch up to the damaged one: those before it are good, and then the error names the right offset.
        Err(ReadError::Damaged { .. }) => read(1),
        other => other,
    };
    outcome.map_err(|error| match error {
        ReadError::OffsetOutOfRange { start, end, .. } => Problem::OutOfRange { start, end },
        error => Problem::Failed(BrokerError::from_read(&portion.partition, portion.position, &error).into()),
    })
}

/// Whether decoding may hold up an async thread.
fn fits_inline(fetched: &FetchedBatches) -> bool {
    let limit = match fetched.batches().next() {
        Some(Ok(batch)) if batch.header().compression().is_ok_and(|c| c != Compression::None) => {
            INLINE_COMPRESSED_BYTES
        }
        _ => INLINE_BYTES,
    };
    fetched.batches.len() <= limit
}

impl Gathered {
    /// Decodes what was read of a portion and adds it. Nothing is added if a batch is damaged.
    fn take(&mut self, portion: &Portion, fetched: &FetchedBatches) -> Result<(), BusError> {
        let mut records = Vec::new();
        for batch in fetched.batches() {
            let damaged = |error: &BatchError| -> BusError {
                BrokerError::from_batch(&portion.partition, portion.position, error).into()
            };
            let batch = batch.map_err(|error| damaged(&error))?;
            if !fetched.is_committed(batch.header()) {
                continue;
            }
            decode(&batch, portion.position, &mut records).map_err(|error| damaged(&error))?;
        }
        self.positions.push((portion.slot, fetched.next_offset));
        if records.is_empty() {
            if let Some(batch) = self.batches.get_mut(&portion.slot) {
                batch.next_offset = fetched.next_offset;
            }
            return Ok(());
        }
        match self.batches.get_mut(&portion.slot) {
            Some(batch) => {
                batch.records.append(&mut records);
                batch.next_offset = fetched.next_offset;
                batch.end_offset = fetched.end_offset;
            }
            None => {
                self.batches.insert(
                    portion.slot,
                    ConsumedBatch {
                        partition: portion.partition.clone(),
                        records,
                        next_offset: fetched.next_offset,
                        end_offset: fetched.end_offset,
                    },
                );
            }
        }
        Ok(())
    }
}

/// Adds the records of a batch from `position` on.
fn decode(batch: &Batch, position: i64, into: &mut Vec<ConsumedRecord>) -> Result<(), BatchError> {
    let records = batch.records()?;
    into.reserve(records.size_hint().1.unwrap_or(0));
    for record in records {
        let record = record?;
        if record.offset >= position {
            into.push(consumed(record));
        }
    }
    Ok(())
}

fn consumed(record: Record) -> ConsumedRecord {
    let headers = record
        .headers
        .into_iter()
        .map(|header| {
            let name = String::from_utf8_lossy(&header.key).into_owned();
            (name, header.value.unwrap_or_else(Bytes::new))
        })
        .collect();
    ConsumedRecord {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers,
    }
}

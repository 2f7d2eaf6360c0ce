//! Leaving records out of a batch without moving the others, for compaction.

use super::header::HEADER_BYTES;
use super::record::{RecordParts, record_timestamp_ms};
use super::{Batch, BatchError, builder};

/// One record as a filter sees it.
pub(crate) struct RecordRef<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) is_tombstone: bool,
}

/// What a filter left of a batch.
pub(crate) enum Filtered {
    /// Every record stays: the batch's own bytes serve.
    Whole,
    /// Some records stay, at the offsets that they had.
    Part(Batch),
    /// None stays.
    Nothing,
}

/// Calls `see` with every record of `batch`.
pub(crate) fn visit(
    batch: &Batch,
    max_decompressed_bytes: usize,
    mut see: impl FnMut(RecordRef<'_>),
) -> Result<(), BatchError> {
    let mut records = batch.records_within(max_decompressed_bytes)?;
    let plain = records.plain().clone();
    while let Some(parts) = records.next_parts()? {
        see(record_ref(batch, &plain, &parts));
    }
    Ok(())
}

/// The records of `batch` that `keep` wants, in a batch with the same offsets, timestamps, producer and compression.
pub(crate) fn filter(
    batch: &Batch,
    max_decompressed_bytes: usize,
    mut keep: impl FnMut(RecordRef<'_>) -> bool,
) -> Result<Filtered, BatchError> {
    let mut records = batch.records_within(max_decompressed_bytes)?;
    let plain = records.plain().clone();
    let mut kept = vec![0; HEADER_BYTES];
    let mut kept_count = 0;
    while let Some(parts) = records.next_parts()? {
        if keep(record_ref(batch, &plain, &parts)) {
            // The encoded record only holds deltas to the header, which stays, so its bytes can stay too.
            kept.extend_from_slice(plain.get(parts.whole).unwrap_or_default());
            kept_count += 1;
        }
    }
    if kept_count == batch.header().record_count {
        return Ok(Filtered::Whole);
    }
    if kept_count == 0 {
        return Ok(Filtered::Nothing);
    }
    let mut header = *batch.header();
    header.record_count = kept_count;
    Ok(Filtered::Part(builder::finish(header, header.compression()?, kept)?))
}

fn record_ref<'a>(batch: &Batch, plain: &'a [u8], parts: &RecordParts) -> RecordRef<'a> {
    RecordRef {
        offset: batch.header().base_offset + i64::from(parts.offset_delta),
        timestamp_ms: record_timestamp_ms(batch.header(), parts),
        key: parts.key.clone().and_then(|range| plain.get(range)),
        is_tombstone: parts.value.is_none(),
    }
}

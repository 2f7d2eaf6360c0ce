//! Finding batches without reading them: where whole batches lie in a segment's file, for whoever lets the kernel send them.
//!
//! Only headers are looked at, and of those only the ones near both ends: the index leads from the first batch to near the
//! last. What lies there can't change any more, and the open file keeps it when retention or compaction takes its name.

use std::sync::Arc;

use bytes::Bytes;

use super::read::{damaged, indexed_position, read_at, scan_failed};
use super::stored::StoredBatches;
use super::{PartitionInner, ReadError};
use crate::batch::{BatchError, BatchHeader, HEADER_BYTES};
use crate::segment::Segment;

/// Bytes that are read at once to look at headers: some tens of small batches, or little of a large one.
const LOOK_BYTES: usize = 4096;

/// Where batches lie.
#[derive(Debug, Clone)]
pub struct Located {
    /// Whole batches, back to back. The first may begin before the offset asked for. `None` if there is nothing to read.
    pub batches: Option<StoredBatches>,
    /// When the first of them was made by its header, milliseconds since the Unix epoch.
    pub first_timestamp_ms: Option<i64>,
    /// Where to read on.
    pub next_offset: i64,
    /// First offset of the partition that can be read.
    pub start_offset: i64,
    /// Offset after the last of the partition that can be read (Kafka's high watermark).
    pub end_offset: i64,
}

impl PartitionInner {
    /// See [`super::Partition::locate`].
    pub(super) fn locate(
        &self,
        from_offset: i64,
        max_bytes: usize,
        before_offset: i64,
    ) -> Result<Located, ReadError> {
        self.restarting(|| self.locate_once(from_offset, max_bytes, before_offset))
    }

    fn locate_once(
        &self,
        from_offset: i64,
        max_bytes: usize,
        before_offset: i64,
    ) -> Result<Located, ReadError> {
        let mut next = super::read::SegmentsFrom::new(self, from_offset)?;
        let (start_offset, end_offset) = (next.start_offset, next.end_offset);
        let nothing_until = |next_offset| Located {
            batches: None,
            first_timestamp_ms: None,
            next_offset,
            start_offset,
            end_offset,
        };
        let before_offset = before_offset.min(end_offset);
        while let Some((segment, limit)) = next.segment() {
            let Some(mut range) = Range::first(segment, limit, from_offset)? else { continue };
            if range.base_offset >= before_offset {
                break;
            }
            range.extend(max_bytes, before_offset)?;
            let io = |source| ReadError::Io { path: segment.path().to_owned(), position: range.from, source };
            let file = segment.file().map_err(io)?;
            let bytes = usize::try_from(range.to - range.from).unwrap_or(usize::MAX);
            self.counters.bytes_read.add(range.to - range.from);
            let batches = StoredBatches::new(file, Arc::from(segment.path()), range.from, bytes);
            return Ok(Located {
                batches: Some(batches),
                first_timestamp_ms: Some(range.timestamp_ms),
                next_offset: range.next_offset,
                start_offset,
                end_offset,
            });
        }
        Ok(nothing_until(before_offset.max(from_offset)))
    }
}

/// Where the first batch of a segment that ends at or after an offset begins, and its timestamp.
pub(super) fn first_batch(
    segment: &Segment,
    limit: u64,
    from_offset: i64,
) -> Result<Option<(u64, i64)>, ReadError> {
    let first = Range::first(segment, limit, from_offset)?;
    Ok(first.map(|range| (range.from, range.timestamp_ms)))
}

/// Whole batches of a segment.
struct Range<'a> {
    headers: Headers<'a>,
    from: u64,
    to: u64,
    /// Of the first batch.
    base_offset: i64,
    /// Of the first batch.
    timestamp_ms: i64,
    /// After the last batch.
    next_offset: i64,
}

impl<'a> Range<'a> {
    /// The first batch that ends at or after an offset.
    fn first(segment: &'a Segment, limit: u64, from_offset: i64) -> Result<Option<Self>, ReadError> {
        let mut headers = Headers { segment, limit, chunk: Bytes::new(), chunk_start: 0 };
        let mut from = indexed_position(segment, limit, from_offset)?;
        while from < limit {
            let header = headers.at(from)?;
            let to = from + header.total_bytes as u64;
            if header.last_offset() >= from_offset {
                if to > limit {
                    let available = usize::try_from(limit - from).unwrap_or(usize::MAX);
                    let source = BatchError::BatchCut { available, expected: header.total_bytes };
                    return Err(damaged(segment, from, source));
                }
                return Ok(Some(Self {
                    headers,
                    from,
                    to,
                    base_offset: header.base_offset,
                    timestamp_ms: header.base_timestamp_ms,
                    next_offset: header.next_offset(),
                }));
            }
            from = to;
        }
        Ok(None)
    }

    /// Takes the batches that follow, up to `max_bytes` in all, as far as they begin before an offset.
    fn extend(&mut self, max_bytes: usize, before_offset: i64) -> Result<(), ReadError> {
        let limit = self.headers.limit.min(self.from.saturating_add(max_bytes as u64));
        self.jump(limit, before_offset)?;
        while self.to < limit && self.next_offset < before_offset {
            let header = self.headers.at(self.to)?;
            let to = self.to + header.total_bytes as u64;
            if to > limit || header.base_offset >= before_offset {
                break;
            }
            self.to = to;
            self.next_offset = header.next_offset();
        }
        Ok(())
    }

    /// Goes at once to the last batch that the index knows within the bounds.
    fn jump(&mut self, limit: u64, before_offset: i64) -> Result<(), ReadError> {
        let segment = self.headers.segment;
        let failed = |error| scan_failed(segment, error);
        let by_position = segment.entry_for_position(limit).map_err(failed)?;
        let by_offset = segment.entry_for_offset(before_offset).map_err(failed)?;
        let (Some(by_position), Some(by_offset)) = (by_position, by_offset) else { return Ok(()) };
        let entry = if by_position.position <= by_offset.position { by_position } else { by_offset };
        let position = u64::from(entry.position);
        if position <= self.to || position >= self.headers.limit {
            return Ok(());
        }
        // An index may be from before a compaction; then every header is looked at.
        let base_offset = segment.offset_of(entry);
        if self.headers.at(position).is_ok_and(|header| header.base_offset == base_offset) {
            self.to = position;
            self.next_offset = base_offset;
        }
        Ok(())
    }
}

/// Headers of a segment, of which a few are often in one piece.
struct Headers<'a> {
    segment: &'a Segment,
    limit: u64,
    chunk: Bytes,
    chunk_start: u64,
}

impl Headers<'_> {
    fn at(&mut self, position: u64) -> Result<BatchHeader, ReadError> {
        let in_chunk = position.checked_sub(self.chunk_start).and_then(|skip| usize::try_from(skip).ok());
        let mut rest = in_chunk.and_then(|skip| self.chunk.get(skip..)).unwrap_or_default();
        if rest.len() < HEADER_BYTES {
            let left = usize::try_from(self.limit.saturating_sub(position)).unwrap_or(usize::MAX);
            self.chunk = read_at(self.segment, position, LOOK_BYTES.min(left))?;
            self.chunk_start = position;
            rest = &self.chunk;
        }
        BatchHeader::parse(rest).map_err(|source| damaged(self.segment, position, source))
    }
}

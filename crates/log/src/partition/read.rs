//! Reading: by offset, and the search by timestamp. Never blocks the commit thread for longer than a pointer copy.

use std::sync::Arc;

use bytes::Bytes;

use super::{Fetched, PartitionInner, ReadError, TimestampOffset, View};
use crate::batch::{Batch, BatchHeader, Batches, HEADER_BYTES, verify_checksum};
use crate::fs;
use crate::segment::{INDEX_INTERVAL_BYTES, ScanError, Segment};

/// Whether a read checks the batches' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Headers only.
    Headers,
    /// Every batch's checksum.
    Checksums,
}

/// Times that a read starts again because the segment it wanted was replaced or deleted meanwhile.
const MAX_RESTARTS: usize = 3;

impl PartitionInner {
    pub(super) fn read(
        &self,
        from_offset: i64,
        max_bytes: usize,
        verify: Verify,
    ) -> Result<Fetched, ReadError> {
        self.restarting(|| self.read_once(from_offset, max_bytes, verify))
    }

    /// Reads again if retention or compaction took the file between the look at the list and the opening of the file.
    pub(super) fn restarting<T>(
        &self,
        mut read: impl FnMut() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut restarts = 0;
        loop {
            match read() {
                Err(ReadError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && restarts < MAX_RESTARTS =>
                {
                    restarts += 1;
                }
                other => return other,
            }
        }
    }

    fn read_once(&self, from_offset: i64, max_bytes: usize, verify: Verify) -> Result<Fetched, ReadError> {
        let mut next = SegmentsFrom::new(self, from_offset)?;
        let (start_offset, end_offset) = (next.start_offset, next.end_offset);
        while let Some((segment, limit)) = next.segment() {
            if let Some((batches, next_offset)) =
                read_segment(segment, limit, from_offset, max_bytes, verify)?
            {
                self.counters.bytes_read.add(batches.len() as u64);
                return Ok(Fetched { batches, next_offset, start_offset, end_offset });
            }
        }
        Ok(Fetched { batches: Bytes::new(), next_offset: end_offset, start_offset, end_offset })
    }

    /// Calls `see` with the header of every batch that ends at or after `from_offset`.
    pub(super) fn visit_headers(
        &self,
        from_offset: i64,
        mut see: impl FnMut(&BatchHeader),
    ) -> Result<(), ReadError> {
        let view = self.view.read().clone();
        let after = view.segments.partition_point(|segment| segment.base_offset() <= from_offset);
        for segment in view.segments.get(after.saturating_sub(1)..).unwrap_or_default() {
            let limit = view.committed_bytes(segment);
            let position = indexed_position(segment, limit, from_offset)?;
            segment
                .scan(position, limit, |header| {
                    if header.last_offset() >= from_offset {
                        see(header);
                    }
                })
                .map_err(|error| scan_failed(segment, error))?;
        }
        Ok(())
    }

    pub(super) fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let view = self.view.read().clone();
        for segment in &view.segments {
            let limit = view.committed_bytes(segment);
            let damaged = |error| scan_failed(segment, error);
            if limit == 0 || segment.max_timestamp_ms().map_err(damaged)? < timestamp_ms {
                continue;
            }
            let entry = segment.entry_for_timestamp(timestamp_ms).map_err(damaged)?;
            let position = entry.map_or(0, |entry| u64::from(entry.position));
            if let Some(found) = search_timestamp(segment, &view, position, limit, timestamp_ms)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl PartitionInner {
    pub(super) fn max_timestamp_ms(&self) -> Result<Option<i64>, ReadError> {
        let view = self.view.read().clone();
        let mut newest = None;
        for segment in &view.segments {
            let of_segment = if view.committed_bytes(segment) == 0 {
                continue;
            } else if segment.base_offset() == view.committed.segment_base {
                view.committed.max_timestamp_ms
            } else {
                segment.max_timestamp_ms().map_err(|error| scan_failed(segment, error))?
            };
            newest = newest.max(Some(of_segment));
        }
        Ok(newest)
    }
}

/// The segments that may hold an offset and what follows it, from one look at the partition.
pub(super) struct SegmentsFrom {
    pub(super) start_offset: i64,
    pub(super) end_offset: i64,
    segments: std::vec::IntoIter<(Arc<Segment>, u64)>,
    current: Option<(Arc<Segment>, u64)>,
}

impl SegmentsFrom {
    pub(super) fn new(partition: &PartitionInner, from_offset: i64) -> Result<Self, ReadError> {
        let view = partition.view.read();
        let (start_offset, end_offset) = (view.start_offset, view.committed.end_offset);
        if !(start_offset..=end_offset).contains(&from_offset) {
            return Err(ReadError::OffsetOutOfRange {
                partition: partition.id.clone(),
                offset: from_offset,
                start: start_offset,
                end: end_offset,
            });
        }
        let mut wanted = Vec::new();
        if from_offset < end_offset {
            let after = view.segments.partition_point(|segment| segment.base_offset() <= from_offset);
            let segments = view.segments.get(after.saturating_sub(1)..).unwrap_or_default();
            for segment in segments {
                let limit = view.committed_bytes(segment);
                wanted.push((Arc::clone(segment), limit));
                // Compaction may have emptied segments: take them along up to one that surely has something.
                if segment.base_offset() > from_offset && limit > 0 {
                    break;
                }
            }
        }
        Ok(Self { start_offset, end_offset, segments: wanted.into_iter(), current: None })
    }

    pub(super) fn segment(&mut self) -> Option<(&Segment, u64)> {
        self.current = self.segments.next();
        self.current.as_ref().map(|(segment, limit)| (&**segment, *limit))
    }
}

/// Whole batches of a segment from the one with `from_offset` on, and where to read on. `None` if there is none.
fn read_segment(
    segment: &Segment,
    limit: u64,
    from_offset: i64,
    max_bytes: usize,
    verify: Verify,
) -> Result<Option<(Bytes, i64)>, ReadError> {
    let mut position = indexed_position(segment, limit, from_offset)?;
    let lookup_bytes = usize::try_from(INDEX_INTERVAL_BYTES).unwrap_or(0);
    while position < limit {
        let left = usize::try_from(limit - position).unwrap_or(usize::MAX);
        let chunk = read_at(segment, position, max_bytes.saturating_add(lookup_bytes).min(left))?;
        if chunk.is_empty() {
            return Err(damaged(segment, position, crate::BatchError::HeaderCut { available: 0 }));
        }
        let mut walk = Walk { at: 0, wanted_from: None, next_offset: from_offset };
        let needed = walk.through(segment, position, &chunk, from_offset, max_bytes, verify)?;
        if let Some(wanted_from) = walk.wanted_from {
            return Ok(Some((chunk.slice(wanted_from..walk.at), walk.next_offset)));
        }
        position += walk.at as u64;
        if let Some(needed) = needed {
            // The one batch that is wanted doesn't fit what was read: read exactly it.
            return one_batch(segment, position, limit, needed, verify).map(Some);
        }
    }
    Ok(None)
}

/// A walk over the batches in a piece of a segment.
struct Walk {
    at: usize,
    wanted_from: Option<usize>,
    next_offset: i64,
}

impl Walk {
    /// Walks as far as whole batches and `max_bytes` go. Returns the bytes of the next batch if it is wanted, not whole
    /// in the chunk, and nothing wanted came before it.
    fn through(
        &mut self,
        segment: &Segment,
        position: u64,
        chunk: &[u8],
        from_offset: i64,
        max_bytes: usize,
        verify: Verify,
    ) -> Result<Option<usize>, ReadError> {
        loop {
            let rest = chunk.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(None);
            }
            let cut = rest.len() < HEADER_BYTES;
            if cut && (self.wanted_from.is_some() || self.at > 0) {
                return Ok(None);
            }
            let here = position + self.at as u64;
            let header = BatchHeader::parse(rest).map_err(|source| damaged(segment, here, source))?;
            let wanted = header.last_offset() >= from_offset;
            let taken = self.wanted_from.map_or(0, |wanted_from| self.at - wanted_from);
            if wanted && taken > 0 && taken + header.total_bytes > max_bytes {
                return Ok(None);
            }
            let Some(batch) = rest.get(..header.total_bytes) else {
                if wanted {
                    return Ok(self.wanted_from.is_none().then_some(header.total_bytes));
                }
                // Step over a large batch that isn't wanted: its rest need not be read.
                self.at += header.total_bytes;
                return Ok(None);
            };
            if wanted {
                if verify == Verify::Checksums {
                    verify_checksum(&header, batch).map_err(|source| damaged(segment, here, source))?;
                }
                self.wanted_from.get_or_insert(self.at);
                self.next_offset = header.next_offset();
            }
            self.at += header.total_bytes;
        }
    }
}

fn one_batch(
    segment: &Segment,
    position: u64,
    limit: u64,
    bytes: usize,
    verify: Verify,
) -> Result<(Bytes, i64), ReadError> {
    let available = usize::try_from(limit - position).unwrap_or(usize::MAX);
    if bytes > available {
        let source = crate::BatchError::BatchCut { available, expected: bytes };
        return Err(damaged(segment, position, source));
    }
    let batch = read_at(segment, position, bytes)?;
    let header = BatchHeader::parse(&batch).map_err(|source| damaged(segment, position, source))?;
    if verify == Verify::Checksums {
        verify_checksum(&header, &batch).map_err(|source| damaged(segment, position, source))?;
    }
    Ok((batch, header.next_offset()))
}

/// Where the index says to begin for an offset, checked against the batch that stands there: index files may be from
/// before a compaction.
pub(super) fn indexed_position(segment: &Segment, limit: u64, offset: i64) -> Result<u64, ReadError> {
    let failed = |error| scan_failed(segment, error);
    for attempt in 0..2 {
        let Some(entry) = segment.entry_for_offset(offset).map_err(failed)? else { return Ok(0) };
        let position = u64::from(entry.position);
        if position < limit {
            let start =
                read_at(segment, position, HEADER_BYTES.min(usize::try_from(limit - position).unwrap_or(0)))?;
            let header = BatchHeader::parse(&start);
            if header.is_ok_and(|header| header.base_offset == segment.offset_of(entry)) {
                return Ok(position);
            }
        }
        if attempt == 0 {
            segment.rebuild_head().map_err(failed)?;
        }
    }
    Ok(0)
}

fn search_timestamp(
    segment: &Segment,
    view: &View,
    mut position: u64,
    limit: u64,
    timestamp_ms: i64,
) -> Result<Option<TimestampOffset>, ReadError> {
    let chunk_bytes = usize::try_from(4 * INDEX_INTERVAL_BYTES).unwrap_or(0);
    while position < limit {
        let left = usize::try_from(limit - position).unwrap_or(usize::MAX);
        let mut chunk = read_at(segment, position, chunk_bytes.min(left))?;
        let header = BatchHeader::parse(&chunk).map_err(|source| damaged(segment, position, source))?;
        if header.total_bytes > chunk.len() {
            chunk = read_at(segment, position, header.total_bytes.min(left))?;
        }
        if header.total_bytes > chunk.len() {
            let source = crate::BatchError::BatchCut { available: chunk.len(), expected: header.total_bytes };
            return Err(damaged(segment, position, source));
        }
        for batch in Batches::new(chunk) {
            // The chunk's last batch may be cut; the next round begins with it.
            let Ok(batch) = batch else { break };
            if batch.header().max_timestamp_ms >= timestamp_ms
                && batch.header().last_offset() >= view.start_offset
            {
                let found = first_at_or_after(segment, view, &batch, position, timestamp_ms)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            position += batch.bytes().len() as u64;
        }
    }
    Ok(None)
}

fn first_at_or_after(
    segment: &Segment,
    view: &View,
    batch: &Batch,
    position: u64,
    timestamp_ms: i64,
) -> Result<Option<TimestampOffset>, ReadError> {
    for record in batch.records().map_err(|source| damaged(segment, position, source))? {
        let record = record.map_err(|source| damaged(segment, position, source))?;
        if record.timestamp_ms >= timestamp_ms && record.offset >= view.start_offset {
            return Ok(Some(TimestampOffset { offset: record.offset, timestamp_ms: record.timestamp_ms }));
        }
    }
    Ok(None)
}

pub(super) fn read_at(segment: &Segment, position: u64, len: usize) -> Result<Bytes, ReadError> {
    segment
        .file()
        .and_then(|file| fs::read_up_to(&*file, len, position))
        .map(Bytes::from)
        .map_err(|source| ReadError::Io { path: segment.path().to_owned(), position, source })
}

pub(super) fn damaged(segment: &Segment, position: u64, source: crate::BatchError) -> ReadError {
    ReadError::Damaged { path: segment.path().to_owned(), position, source }
}

pub(super) fn scan_failed(segment: &Segment, error: ScanError) -> ReadError {
    match error {
        ScanError::Io { position, source } => {
            ReadError::Io { path: segment.path().to_owned(), position, source }
        }
        ScanError::Damaged { position, source } => damaged(segment, position, source),
    }
}

//! Deleting old segments, whole ones only, and never one that recovery would need: those below the checkpoint.

use std::sync::Arc;
use std::time::Duration;

use super::read::scan_failed;
use super::{PartitionInner, ReadError};
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::checkpoint::{CheckpointError, Kind};
use crate::fs;
use crate::log::{PartitionError, Shared};
use crate::segment::Segment;

impl PartitionInner {
    pub(super) fn delete_records_before(&self, offset: i64) -> Result<i64, PartitionError> {
        let _pass = self.maintenance.lock();
        let log = self.open_log()?;
        let start_offset = {
            let mut view = self.view.write();
            view.start_offset = view.start_offset.max(offset.min(view.committed.end_offset));
            view.start_offset
        };
        // The start offset must be durable before the records it hides go.
        log.write_checkpoint(Kind::Forced).map_err(|error| self.checkpoint_failed(error))?;
        self.remove_while(|_, next_base| next_base <= start_offset)?;
        Ok(start_offset)
    }

    pub(super) fn enforce_retention(&self, now_ms: i64) -> Result<u64, PartitionError> {
        let _pass = self.maintenance.lock();
        let log = self.open_log()?;
        let (retention, segment_age) = {
            let options = self.options.read();
            (options.retention, options.segment_age)
        };
        let active = {
            let view = self.view.read();
            view.segments.last().map(|segment| (Arc::clone(segment), view.committed_bytes(segment)))
        };
        let mut closed = Ok(());
        if let (Some(age), Some((active, committed))) = (segment_age, active)
            && self.first_timestamp_ms(&active, committed)?.is_some_and(|first| is_older(first, age, now_ms))
        {
            // On a full disk it can't be closed. What is already closed goes all the same: that is what makes room.
            closed = self.close_active_segment(&log);
        }
        let start_offset = self.view.read().start_offset;
        let mut size = self.view.read().size_bytes();
        let mut failed = None;
        let removed = self.remove_while(|segment, next_base| {
            let too_old = retention.max_age.is_some_and(|age| match segment.max_timestamp_ms() {
                Ok(newest) => is_older(newest, age, now_ms),
                Err(error) => {
                    failed = Some(scan_failed(segment, error));
                    false
                }
            });
            let too_much = retention.max_bytes.is_some_and(|limit| size > limit);
            let goes = next_base <= start_offset || too_old || too_much;
            size -= if goes { segment.len() } else { 0 };
            goes
        })?;
        closed?;
        failed.map_or(Ok(removed), |source| Err(self.read_failed(source)))
    }

    /// Removes the oldest segments as long as `goes` says so of a segment and the base offset of the one after it.
    fn remove_while(&self, mut goes: impl FnMut(&Segment, i64) -> bool) -> Result<u64, PartitionError> {
        let checkpointed_base = self.checkpointed.lock().segment_base;
        let segments = self.view.read().segments.clone();
        let mut removed: Vec<Arc<Segment>> = Vec::new();
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            if segment.base_offset() >= checkpointed_base || !goes(segment, next.base_offset()) {
                break;
            }
            removed.push(Arc::clone(segment));
        }
        if removed.is_empty() {
            return Ok(0);
        }
        {
            let mut view = self.view.write();
            view.segments.drain(..removed.len());
            let first = view.segments.first().map_or(0, |segment| segment.base_offset());
            view.start_offset = view.start_offset.max(first);
        }
        self.counters.segments_deleted.add(removed.len() as u64);
        for segment in &removed {
            segment.remove().map_err(|source| self.io_failed("removing", segment.path(), source))?;
        }
        Ok(removed.len() as u64)
    }

    /// Closes the segment being written, so that retention or compaction can have it, and lets a checkpoint cover it.
    pub(super) fn close_active_segment(&self, log: &Shared) -> Result<(), PartitionError> {
        log.roll(self)?;
        log.write_checkpoint(Kind::Forced).map_err(|error| self.checkpoint_failed(error))
    }

    /// Timestamp of the first batch in a segment with so many committed bytes.
    pub(super) fn first_timestamp_ms(
        &self,
        segment: &Segment,
        committed: u64,
    ) -> Result<Option<i64>, PartitionError> {
        if committed == 0 {
            return Ok(None);
        }
        let start = segment
            .file()
            .and_then(|file| fs::read_up_to(&*file, HEADER_BYTES, 0))
            .map_err(|source| self.io_failed("reading", segment.path(), source))?;
        BatchHeader::parse(&start).map(|header| Some(header.base_timestamp_ms)).map_err(|source| {
            self.read_failed(ReadError::Damaged { path: segment.path().to_owned(), position: 0, source })
        })
    }

    pub(super) fn open_log(&self) -> Result<Arc<Shared>, PartitionError> {
        if self.is_deleted() {
            return Err(PartitionError::Missing { partition: self.id.clone() });
        }
        let log = self.log.get().and_then(std::sync::Weak::upgrade);
        log.filter(|log| !log.is_closed()).ok_or(PartitionError::Closed)
    }

    pub(crate) fn checkpoint_failed(&self, error: CheckpointError) -> PartitionError {
        match error {
            CheckpointError::Poisoned(reason) => PartitionError::LogPoisoned { reason },
            CheckpointError::Io { step, path, source } => {
                PartitionError::Io { partition: self.id.clone(), step, path, source }
            }
            CheckpointError::Unsynced { dir, source } => self.io_failed("syncing", &dir, source),
        }
    }

    pub(super) fn io_failed(
        &self,
        step: &'static str,
        path: &std::path::Path,
        source: std::io::Error,
    ) -> PartitionError {
        PartitionError::Io { partition: self.id.clone(), step, path: path.to_owned(), source }
    }

    pub(super) fn read_failed(&self, source: ReadError) -> PartitionError {
        PartitionError::Read { partition: self.id.clone(), source }
    }
}

/// Whether `timestamp_ms` lies more than `age` before `now_ms`.
pub(super) fn is_older(timestamp_ms: i64, age: Duration, now_ms: i64) -> bool {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    timestamp_ms < now_ms.saturating_sub(age_ms)
}

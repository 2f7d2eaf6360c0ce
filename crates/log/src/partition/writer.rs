//! Appending to a partition, as whoever commits does: write first, count it later, or take it back.

use std::io;
use std::sync::Arc;

use super::{Committed, PartitionInner, View};
use crate::segment::{MAX_SEGMENT_BYTES, Segment};

/// The end of a partition as whoever commits sees it: ahead of what readers see while a group is being committed.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) next_offset: i64,
    active: Arc<Segment>,
    /// Segments begun since the last publication.
    pub(crate) new_segments: Vec<Arc<Segment>>,
    /// Whether batches that the journal only names were written since their segments were last synced for that.
    pub(crate) has_named: bool,
    /// Place in the group that is being committed.
    pub(crate) slot: Option<usize>,
}

/// A place to come back to.
#[derive(Debug, Clone)]
pub(crate) struct WriterMark {
    next_offset: i64,
    active: Arc<Segment>,
    len: u64,
    max_timestamp_ms: i64,
}

/// What the index wants to know of one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchExtent {
    pub(crate) base_offset: i64,
    pub(crate) last_offset_delta: i32,
    pub(crate) bytes: u64,
    pub(crate) max_timestamp_ms: i64,
}

impl Writer {
    /// At the end of `view`; `None` if it has no segment.
    pub(super) fn at_end_of(view: &View) -> Option<Self> {
        Some(Self {
            next_offset: view.committed.end_offset,
            active: Arc::clone(view.segments.last()?),
            new_segments: Vec::new(),
            has_named: false,
            slot: None,
        })
    }

    pub(crate) fn mark(&self) -> WriterMark {
        WriterMark {
            next_offset: self.next_offset,
            active: Arc::clone(&self.active),
            len: self.active.len(),
            max_timestamp_ms: self.active.tail_max_timestamp_ms(),
        }
    }

    /// Whether a further batch of `bytes`, after `pending_bytes` that aren't written yet, belongs in a new segment.
    pub(crate) fn wants_roll(
        &self,
        segment_bytes: u32,
        pending_bytes: u64,
        bytes: u64,
        last_offset: i64,
    ) -> bool {
        let held = self.active.len() + pending_bytes;
        let limit = u64::from(segment_bytes.min(MAX_SEGMENT_BYTES));
        let offset_fits = last_offset.saturating_sub(self.active.base_offset()) <= i64::from(i32::MAX);
        held > 0 && (held + bytes > limit || !offset_fits)
    }

    /// Closes the segment being written and begins the next at `next_offset`.
    pub(crate) fn roll(&mut self, partition: &PartitionInner) -> io::Result<()> {
        let segment = Arc::new(Segment::create(&partition.file_system, &partition.dir, self.next_offset)?);
        self.active = Arc::clone(&segment);
        self.new_segments.push(segment);
        Ok(())
    }

    /// Goes on in a segment whose file is there already.
    pub(crate) fn go_on_in(&mut self, segment: Arc<Segment>) {
        self.active = Arc::clone(&segment);
        self.new_segments.push(segment);
    }

    /// Writes batches at the end; their offsets were assigned from `next_offset` on.
    pub(crate) fn write(
        &mut self,
        slices: &mut [io::IoSlice<'_>],
        extents: &[BatchExtent],
    ) -> io::Result<()> {
        self.active.write(slices)?;
        for extent in extents {
            self.active.index_batch(extent.base_offset, extent.bytes, extent.max_timestamp_ms);
            self.next_offset = extent.base_offset + i64::from(extent.last_offset_delta) + 1;
        }
        Ok(())
    }

    /// Takes back everything since `mark`.
    pub(crate) fn roll_back(&mut self, mark: &WriterMark) -> io::Result<()> {
        self.next_offset = mark.next_offset;
        self.active = Arc::clone(&mark.active);
        let removed = self.new_segments.drain(..).try_for_each(|segment| segment.remove());
        self.active.cut(mark.len, mark.max_timestamp_ms)?;
        removed
    }

    pub(crate) fn committed(&self) -> Committed {
        Committed {
            end_offset: self.next_offset,
            segment_base: self.active.base_offset(),
            position: self.active.len(),
            max_timestamp_ms: self.active.tail_max_timestamp_ms(),
        }
    }

    pub(crate) fn active(&self) -> &Arc<Segment> {
        &self.active
    }
}

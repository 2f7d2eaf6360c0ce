//! What segments hold behind the checkpoint, of partitions whose batches the journal only names.
//!
//! Nothing of such a partition is cut before the journal has been read: each reference is looked up where the batch must stand, and
//! what no reference reached is cut at the end. After a kill everything is there. After a power cut the operating system may not have
//! written a batch yet, which [`crate::SyncPolicy::Never`] allows: from the first that is missing on the references are given up.
//! What the journal holds itself still counts, and then leaves a gap before it.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;

use super::restore::{Listed, existing};
use super::{OpenError, Replay};
use crate::batch::Batch;
use crate::fs;
use crate::journal::frame::BatchReference;
use crate::journal::scan::{self, Content, ScannedFile};
use crate::partition::PartitionInner;
use crate::partition::writer::{BatchExtent, Writer};
use crate::segment;

/// Files of a partition beyond what has been replayed.
#[derive(Debug)]
pub(super) struct Tail {
    /// Bytes of the file that the writer is in.
    pub(super) file_bytes: u64,
    /// Segments after that.
    pub(super) beyond: VecDeque<Listed>,
}

/// The partitions of which the journal names batches after a checkpoint.
pub(super) fn referenced(
    files: &[ScannedFile],
    epoch: u64,
    after_sequence: u64,
) -> Result<HashSet<u32>, OpenError> {
    let mut numbers = HashSet::new();
    scan::replay(files, epoch, after_sequence, |batches| {
        let references = batches.iter().filter(|batch| matches!(batch.content, Content::Reference(_)));
        numbers.extend(references.map(|batch| batch.partition_number));
        Ok::<(), OpenError>(())
    })?;
    Ok(numbers)
}

impl Replay {
    /// Goes on in the file that begins with what comes next, if there is one.
    pub(super) fn follow_files(
        &mut self,
        partition: &PartitionInner,
        writer: &mut Writer,
    ) -> Result<(), OpenError> {
        let Some(tail) = self.tails.get_mut(&partition.number) else { return Ok(()) };
        let Some(next) = tail.beyond.front().copied().filter(|next| next.base_offset == writer.next_offset)
        else {
            return Ok(());
        };
        tail.beyond.pop_front();
        let former_bytes = std::mem::replace(&mut tail.file_bytes, next.len);
        self.cut(writer, former_bytes)?;
        let empty = Listed { len: 0, ..next };
        segment::remove_indexes(
            &*partition.file_system,
            &segment::log_path(&partition.dir, next.base_offset),
        );
        writer.go_on_in(Arc::new(existing(&partition.file_system, &partition.dir, empty)));
        Ok(())
    }

    /// Counts the batch of a reference, or gives up what the partition's segments hold behind the last that was found.
    pub(super) fn reference(
        &mut self,
        partition: &PartitionInner,
        writer: &mut Writer,
        reference: BatchReference,
    ) -> Result<(), OpenError> {
        let file_bytes = self.tails.get(&partition.number).map_or(0, |tail| tail.file_bytes);
        match find(writer, reference, file_bytes)? {
            Some(batch) => {
                let extent = BatchExtent {
                    base_offset: reference.base_offset,
                    last_offset_delta: batch.header().last_offset_delta,
                    bytes: u64::from(reference.bytes),
                    max_timestamp_ms: batch.header().max_timestamp_ms,
                };
                // Written again: after a sync that failed it may be in memory only, and not be written by another sync.
                writer
                    .write(&mut [IoSlice::new(batch.bytes())], &[extent])
                    .map_err(OpenError::io("writing again in", &partition.dir))?;
                self.report.batches_found += 1;
            }
            None => {
                self.report.batches_lost += 1;
                self.lost.insert(partition.number);
                self.cut_tail(partition, writer)?;
            }
        }
        Ok(())
    }

    /// Cuts what nothing has reached.
    pub(super) fn cut_tail(&mut self, partition: &PartitionInner, writer: &Writer) -> Result<(), OpenError> {
        let Some(tail) = self.tails.remove(&partition.number) else { return Ok(()) };
        self.cut(writer, tail.file_bytes)?;
        let beyond: Vec<_> = tail.beyond.into();
        self.remove_beyond(&partition.file_system, &partition.dir, &beyond)
    }

    fn cut(&mut self, writer: &Writer, file_bytes: u64) -> Result<(), OpenError> {
        let active = writer.active();
        let Some(rest) = file_bytes.checked_sub(active.len()).filter(|rest| *rest > 0) else { return Ok(()) };
        self.report.segment_bytes_cut += rest;
        active
            .cut(active.len(), active.tail_max_timestamp_ms())
            .map_err(OpenError::io("cutting", active.path()))
    }
}

/// The batch of a reference, if it stands whole where it must.
fn find(writer: &Writer, reference: BatchReference, file_bytes: u64) -> Result<Option<Batch>, OpenError> {
    let active = writer.active();
    let is_next = reference.base_offset == writer.next_offset;
    if !is_next || active.len() + u64::from(reference.bytes) > file_bytes {
        return Ok(None);
    }
    let failed = || OpenError::io("reading", active.path());
    let wanted = usize::try_from(reference.bytes).unwrap_or(usize::MAX);
    let file = active.file().map_err(failed())?;
    let bytes = fs::read_up_to(&*file, wanted, active.len()).map_err(failed())?;
    let batch = Batch::from_trusted(&Bytes::from(bytes)).ok();
    Ok(batch.filter(|batch| {
        let header = batch.header();
        header.base_offset == reference.base_offset
            && header.crc == reference.crc
            && header.total_bytes == wanted
            && batch.verify_checksum().is_ok()
    }))
}

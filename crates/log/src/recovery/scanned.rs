//! Finding out how far segments go when no checkpoint says it: by reading them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;

use super::restore::{Listed, existing, list_segments};
use super::{OpenError, Replay};
use crate::batch::BatchHeader;
use crate::fs::FileSystem;
use crate::journal::scan::{self, Content, ScannedFile};
use crate::partition::{Committed, View, finish_interrupted};
use crate::segment::{self, ScanError, Segment};

/// First and last word of the journal on one partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journaled {
    first_offset: i64,
    end_offset: i64,
}

/// What the journal holds of each partition.
pub(super) fn journaled(
    files: &[ScannedFile],
    epoch: u64,
    after_sequence: u64,
) -> Result<HashMap<u32, Journaled>, OpenError> {
    let mut found: HashMap<u32, Journaled> = HashMap::new();
    scan::replay(files, epoch, after_sequence, |batches| {
        for batch in &batches {
            let (first_offset, end_offset) = match &batch.content {
                Content::Batch(bytes) => match BatchHeader::parse(bytes) {
                    Ok(header) => (header.base_offset, header.next_offset()),
                    Err(_) => continue,
                },
                // How far it goes, its segment says.
                Content::Reference(reference) => (reference.base_offset, reference.base_offset + 1),
            };
            let journaled =
                found.entry(batch.partition_number).or_insert(Journaled { first_offset, end_offset });
            journaled.end_offset = end_offset;
        }
        Ok::<(), OpenError>(())
    })?;
    Ok(found)
}

impl Replay {
    /// A partition as far as its segments are whole, and no further than the journal's last word on it.
    pub(super) fn scan_partition(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dir: &Path,
        journaled: Option<Journaled>,
    ) -> Result<View, OpenError> {
        finish_interrupted(&**file_system, dir).map_err(OpenError::io("finishing a compaction in", dir))?;
        let listed = list_segments(&**file_system, dir)?;
        let mut committed = Committed::NOTHING;
        let mut kept: Vec<(Listed, Committed)> = Vec::with_capacity(listed.len());
        for place in &listed {
            let limit = journaled.map_or(i64::MAX, |journaled| journaled.end_offset);
            if place.base_offset > limit {
                break;
            }
            let whole = scan_segment(file_system, dir, *place, journaled, &listed, &mut committed)?;
            kept.push((*place, committed));
            if !whole {
                break;
            }
        }
        self.remove_beyond(file_system, dir, listed.get(kept.len()..).unwrap_or_default())?;
        let mut segments = Vec::with_capacity(kept.len().max(1));
        for (place, reached) in kept {
            let newest = reached.max_timestamp_ms;
            let segment = Segment::existing(file_system, dir, place.base_offset, reached.position, newest);
            segment::remove_indexes(&**file_system, segment.path());
            if reached.position < place.len {
                self.report.segment_bytes_cut += place.len - reached.position;
                segment.cut(reached.position, newest).map_err(OpenError::io("cutting", segment.path()))?;
            }
            segments.push(Arc::new(segment));
        }
        if segments.is_empty() {
            let first = Segment::create(file_system, dir, 0);
            segments.push(Arc::new(first.map_err(OpenError::io("beginning a segment in", dir))?));
        }
        let start_offset = segments.first().map_or(0, |segment| segment.base_offset());
        Ok(View { start_offset, segments, committed })
    }
}

/// Reads one segment up to its end, the journal's last word, or the first damage. Whether it was read to its end.
fn scan_segment(
    file_system: &Arc<dyn FileSystem>,
    dir: &Path,
    place: Listed,
    journaled: Option<Journaled>,
    all: &[Listed],
    committed: &mut Committed,
) -> Result<bool, OpenError> {
    let segment = existing(file_system, dir, place);
    *committed = Committed {
        end_offset: committed.end_offset.max(place.base_offset),
        segment_base: place.base_offset,
        ..Committed::NOTHING
    };
    let limit = journaled.map_or(i64::MAX, |journaled| journaled.end_offset);
    let visited = segment.visit_batches(0, place.len, |position, batch| {
        let header: &BatchHeader = batch.header();
        if header.base_offset >= limit || header.base_offset < committed.end_offset {
            return ControlFlow::Break(());
        }
        committed.end_offset = header.next_offset();
        committed.position = position + batch.bytes().len() as u64;
        committed.max_timestamp_ms = committed.max_timestamp_ms.max(header.max_timestamp_ms);
        ControlFlow::Continue(())
    });
    match visited {
        Ok(()) => Ok(committed.position == place.len),
        Err(ScanError::Io { source, .. }) => Err(OpenError::io("reading", segment.path())(source)),
        Err(ScanError::Damaged { position, .. }) => {
            // Cutting here is right only if the journal goes on from here and reaches past every later segment.
            let later = all.iter().filter(|other| other.base_offset > place.base_offset && other.len > 0);
            let reach = later.map(|other| other.base_offset).max();
            let given_back = match journaled {
                Some(journaled) => {
                    journaled.first_offset <= committed.end_offset
                        && reach.is_none_or(|reach| journaled.end_offset >= reach)
                }
                None => reach.is_none(),
            };
            if given_back {
                return Ok(false);
            }
            Err(OpenError::SegmentDamaged { path: segment.path().to_owned(), position })
        }
    }
}

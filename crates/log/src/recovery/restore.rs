//! Bringing partitions to the state that the journal goes on from.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;

use super::folder::{PartitionDir, sync_names};
use super::scanned::{Journaled, journaled};
use super::tail::Tail;
use super::{OpenError, Replay, remove_dir};
use crate::checkpoint::{Checkpoint, PartitionCheckpoint};
use crate::fs::FileSystem;
use crate::journal::scan::ScannedFile;
use crate::options::PartitionOptions;
use crate::partition::{Committed, PartitionInner, View, finish_interrupted};
use crate::segment::{self, Segment};

/// A segment's file as a listing shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed {
    pub(super) base_offset: i64,
    pub(super) len: u64,
}

impl Replay {
    /// Cuts every partition back to what the checkpoint says is durable.
    pub(super) fn restore_from_checkpoint(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dirs: Vec<PartitionDir>,
        checkpoint: &Checkpoint,
    ) -> Result<(), OpenError> {
        let mut listed: HashMap<&str, &PartitionCheckpoint> =
            checkpoint.partitions.iter().map(|entry| (entry.name.as_str(), entry)).collect();
        for dir in dirs {
            let entry = match (listed.remove(dir.id.as_str()), dir.number) {
                (Some(entry), _) => entry.clone(),
                (None, Some(number)) if number >= checkpoint.next_partition_number => {
                    // The crash may have come before its names were synced.
                    sync_names(&**file_system, &dir)?;
                    made_since(&dir, number)
                }
                // Deleted, or never finished being made: not in the checkpoint, and not newer than it.
                (None, _) => {
                    remove_dir(&**file_system, &dir.dir)?;
                    continue;
                }
            };
            self.next_partition_number = self.next_partition_number.max(entry.number + 1);
            let view = self.return_to(file_system, &dir.dir, &entry)?;
            let checkpointed = view.committed;
            let partition = self.add(file_system, dir, entry.number, view, checkpointed)?;
            partition.compacted_through.store(entry.compacted_through, Ordering::Relaxed);
        }
        match listed.into_values().next() {
            None => Ok(()),
            Some(missing) => Err(OpenError::PartitionMissing {
                partition: missing.name.clone(),
                dir: self.partitions_dir.clone(),
            }),
        }
    }

    /// Reads all segments, because nothing says how far they are durable.
    pub(super) fn restore_by_scan(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dirs: Vec<PartitionDir>,
        files: &[ScannedFile],
        epoch: u64,
        after_sequence: u64,
    ) -> Result<(), OpenError> {
        let journaled: HashMap<u32, Journaled> = journaled(files, epoch, after_sequence)?;
        self.next_partition_number = journaled.keys().copied().max().map_or(0, |number| number + 1);
        for dir in dirs {
            let Some(number) = dir.number else {
                let segments = list_segments(&**file_system, &dir.dir)?;
                if segments.iter().any(|segment| segment.len > 0) {
                    let partition = format!("{} (the number in its file)", dir.id);
                    return Err(OpenError::PartitionMissing { partition, dir: dir.dir });
                }
                remove_dir(&**file_system, &dir.dir)?;
                continue;
            };
            self.next_partition_number = self.next_partition_number.max(number + 1);
            sync_names(&**file_system, &dir)?;
            let view = self.scan_partition(file_system, &dir.dir, journaled.get(&number).copied())?;
            // Whatever was found may not be durable yet: let the first checkpoint sync everything.
            let nothing = Committed { segment_base: i64::MIN, ..view.committed };
            self.add(file_system, dir, number, view, nothing)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dir: PartitionDir,
        number: u32,
        view: View,
        checkpointed: Committed,
    ) -> Result<Arc<PartitionInner>, OpenError> {
        let options = PartitionOptions::default();
        let PartitionDir { id, dir, .. } = dir;
        let partition = PartitionInner::new(Arc::clone(file_system), id, number, dir.clone(), options, view)
            .map(Arc::new)
            .ok_or(OpenError::SegmentShort { path: dir, found: 0, expected: 0 })?;
        *partition.checkpointed.lock() = checkpointed;
        self.partitions.insert(number, Arc::clone(&partition));
        Ok(partition)
    }

    /// The partition as the checkpoint has it. What its files hold beyond that is cut, or kept for references to it.
    fn return_to(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dir: &Path,
        entry: &PartitionCheckpoint,
    ) -> Result<View, OpenError> {
        finish_interrupted(&**file_system, dir).map_err(OpenError::io("finishing a compaction in", dir))?;
        let listed = list_segments(&**file_system, dir)?;
        let durable = entry.committed;
        let active_len = listed.iter().find(|s| s.base_offset == durable.segment_base).map(|s| s.len);
        if active_len.unwrap_or(0) < durable.position {
            return Err(OpenError::SegmentShort {
                path: segment::log_path(dir, durable.segment_base),
                found: active_len.unwrap_or(0),
                expected: durable.position,
            });
        }
        let mut segments = Vec::with_capacity(listed.len());
        for closed in listed.iter().filter(|s| s.base_offset < durable.segment_base) {
            segments.push(Arc::new(existing(file_system, dir, *closed)));
        }
        let is_referenced = self.referenced.contains(&entry.number);
        let active = match active_len {
            Some(len) if is_referenced && len > durable.position => {
                let base = durable.segment_base;
                segment::remove_indexes(&**file_system, &segment::log_path(dir, base));
                Segment::existing(file_system, dir, base, durable.position, durable.max_timestamp_ms)
            }
            Some(len) => self.cut_active(file_system, dir, len, &durable)?,
            None => Segment::create(file_system, dir, durable.segment_base)
                .map_err(OpenError::io("beginning a segment in", dir))?,
        };
        segments.push(Arc::new(active));
        let beyond: Vec<_> = listed.into_iter().filter(|s| s.base_offset > durable.segment_base).collect();
        if is_referenced {
            let file_bytes = active_len.unwrap_or(0);
            self.tails.insert(entry.number, Tail { file_bytes, beyond: beyond.into() });
        } else {
            self.remove_beyond(file_system, dir, &beyond)?;
        }
        let start_offset = remove_hidden(&mut segments, entry.start_offset)?;
        Ok(View { start_offset, segments, committed: durable })
    }

    fn cut_active(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dir: &Path,
        len: u64,
        durable: &Committed,
    ) -> Result<Segment, OpenError> {
        let base = durable.segment_base;
        let active = Segment::existing(file_system, dir, base, durable.position, durable.max_timestamp_ms);
        if len > durable.position {
            self.report.segment_bytes_cut += len - durable.position;
            segment::remove_indexes(&**file_system, active.path());
            active
                .cut(durable.position, durable.max_timestamp_ms)
                .map_err(OpenError::io("cutting", active.path()))?;
        }
        Ok(active)
    }

    /// Segments begun after the state to return to. Their names must be gone for good before others are begun.
    pub(super) fn remove_beyond(
        &mut self,
        file_system: &Arc<dyn FileSystem>,
        dir: &Path,
        beyond: &[Listed],
    ) -> Result<(), OpenError> {
        for listed in beyond {
            self.report.segment_bytes_cut += listed.len;
            let segment = existing(file_system, dir, *listed);
            segment.remove().map_err(OpenError::io("removing", segment.path()))?;
        }
        if beyond.is_empty() {
            return Ok(());
        }
        file_system.sync_dir(dir).map_err(OpenError::io("syncing", dir))
    }
}

/// A partition that is newer than the checkpoint: all its records are in the journal.
fn made_since(dir: &PartitionDir, number: u32) -> PartitionCheckpoint {
    PartitionCheckpoint {
        number,
        name: dir.id.as_str().to_owned(),
        start_offset: 0,
        committed: Committed::NOTHING,
        compacted_through: 0,
    }
}

pub(super) fn existing(file_system: &Arc<dyn FileSystem>, dir: &Path, listed: Listed) -> Segment {
    Segment::existing(file_system, dir, listed.base_offset, listed.len, i64::MIN)
}

/// The segments' files, by base offset.
pub(super) fn list_segments(file_system: &dyn FileSystem, dir: &Path) -> Result<Vec<Listed>, OpenError> {
    let entries = file_system.read_dir(dir).map_err(OpenError::io("listing", dir))?;
    let mut listed: Vec<Listed> = entries
        .iter()
        .filter_map(|entry| {
            Some(Listed { base_offset: segment::base_offset_of(&entry.name)?, len: entry.len })
        })
        .collect();
    listed.sort_by_key(|listed| listed.base_offset);
    Ok(listed)
}

/// Removes segments that hold nothing but deleted records; a crash may have brought them back. Returns where the
/// partition starts.
fn remove_hidden(segments: &mut Vec<Arc<Segment>>, start_offset: i64) -> Result<i64, OpenError> {
    let bases: Vec<i64> = segments.iter().map(|segment| segment.base_offset()).collect();
    let hidden = bases.iter().skip(1).take_while(|next_base| **next_base <= start_offset).count();
    for segment in segments.drain(..hidden) {
        segment.remove().map_err(OpenError::io("removing", segment.path()))?;
    }
    Ok(start_offset.max(segments.first().map_or(0, |segment| segment.base_offset())))
}

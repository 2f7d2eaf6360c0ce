//! Compaction: keep the newest record of each key.
//!
//! A pass reads the keys of the closed segments that came since the last pass, then rewrites all closed segments without
//! the records that have a newer one. Offsets stay; gaps appear. Neighbours that are small by now become one segment.
//! Records without a key always stay.
//!
//! Whether a record of a transaction counts can't be told from the log alone, so the partition's [`CompactionGuard`] says it. A
//! pass ends before the first transaction that is open. What an aborted transaction wrote goes, and is never the newest of a
//! key. Markers stay until the guard needs them no more, and through the grace of a tombstone. Without a guard, batches of
//! transactions stay.
//!
//! A tombstone stays through the pass that removes what it deletes, and goes in a later pass when its timestamp is older
//! than the grace. So a tombstone never goes before the older records of its key have.
//!
//! # Crash safety
//!
//! The new content is written to `FIRST-LAST.cleaned`, synced, and renamed to `FIRST-LAST.swap`; from then on it counts:
//! the segments FIRST to LAST are removed and the file takes FIRST's name. Opening a folder removes `.cleaned` files and
//! finishes `.swap` files.

use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;

use super::locate::first_batch;
use super::read::scan_failed;
use super::retain::is_older;
use super::{PartitionInner, ReadError};
use crate::batch::rewrite::{self, Filtered, RecordRef};
use crate::batch::{Batch, BatchError, BatchHeader, DEFAULT_MAX_DECOMPRESSED_BYTES};
use crate::fs::{self, File, FileSystem, OpenMode};
use crate::log::PartitionError;
use crate::options::Compaction;
use crate::segment::{self, ScanError, Segment};

/// Knows the transactions of a compacted partition. Asked by the thread that compacts, about batches below
/// [`CompactionGuard::stable_offset`].
pub trait CompactionGuard: Send + Sync {
    /// The first offset of the earliest open transaction, or the partition's end. It must never go back.
    fn stable_offset(&self) -> i64;

    /// Whether the transaction that wrote the batch was aborted.
    fn is_aborted(&self, batch: &BatchHeader) -> bool;

    /// Whether somebody may still need the marker at `offset`, although what its transaction wrote has been compacted.
    fn needs_marker(&self, offset: i64) -> bool;

    /// Nothing that an aborted transaction wrote is left below `offset`.
    fn compacted_through(&self, offset: i64);
}

/// What one key costs in memory besides its bytes.
const KEY_OVERHEAD_BYTES: usize = 64;

/// The newest offset of each key in `covered_from..covered_to`.
struct NewestOffsets {
    by_key: HashMap<Box<[u8]>, i64>,
    key_bytes: usize,
    covered_from: i64,
    covered_to: i64,
}

/// What a pass would find that no earlier one has seen.
struct Dirty {
    bytes: u64,
    /// When the first of it was written.
    first_timestamp_ms: Option<i64>,
}

impl Dirty {
    /// Whether it is much, or there is something and it has waited for too long.
    fn is_due(&self, compaction: &Compaction, now_ms: i64) -> bool {
        let Some(first) = self.first_timestamp_ms else { return false };
        let overdue = compaction.max_lag.is_some_and(|max_lag| is_older(first, max_lag, now_ms));
        overdue || self.bytes >= compaction.min_dirty_bytes
    }
}

/// What decides whether a record stays.
struct Rule<'a> {
    newest: &'a NewestOffsets,
    guard: Option<&'a dyn CompactionGuard>,
    tombstone_grace: Duration,
    now_ms: i64,
}

impl PartitionInner {
    pub(super) fn compact(&self, now_ms: i64) -> Result<u64, PartitionError> {
        let (compaction, segment_bytes) = {
            let options = self.options.read();
            (options.compaction, options.segment_bytes)
        };
        let Some(compaction) = compaction else { return Ok(0) };
        let _pass = self.maintenance.lock();
        let log = self.open_log()?;
        let guard = self.compaction_guard.read().clone();
        let guard = guard.as_deref();
        let stable_offset = guard.map_or(i64::MAX, CompactionGuard::stable_offset);
        let dirty = self.dirty(stable_offset).map_err(|error| self.read_failed(error))?;
        if !dirty.is_due(&compaction, now_ms) {
            return Ok(0);
        }
        self.close_active_segment(&log)?;
        let closed = self.closed_segments();
        let newest = self.newest_offsets(&closed, &compaction, guard, stable_offset)?;
        if newest.covered_to <= newest.covered_from {
            // The segment with what is new could not be closed: nothing would change.
            return Ok(0);
        }
        let rule = Rule { newest: &newest, guard, tombstone_grace: compaction.tombstone_grace, now_ms };
        let mut removed = 0;
        for group in groups(&closed, newest.covered_to, u64::from(segment_bytes)) {
            removed += self.rewrite(group, &rule)?;
        }
        self.compacted_through.store(newest.covered_to, Ordering::Relaxed);
        if let Some(guard) = guard {
            guard.compacted_through(newest.covered_to);
        }
        self.counters.records_compacted.add(removed);
        Ok(removed)
    }

    /// What came since the last pass, as far as the next one could get: up to `stable_offset`. What earlier passes left in the
    /// same segment is not new.
    fn dirty(&self, stable_offset: i64) -> Result<Dirty, ReadError> {
        let through = self.compacted_through.load(Ordering::Relaxed);
        let segments: Vec<_> = {
            let view = self.view.read();
            let first = view.segments.partition_point(|segment| segment.base_offset() <= through);
            let new = view.segments.iter().skip(first.saturating_sub(1));
            new.take_while(|segment| segment.base_offset() < stable_offset)
                .map(|segment| (Arc::clone(segment), view.committed_bytes(segment)))
                .collect()
        };
        let mut dirty = Dirty { bytes: 0, first_timestamp_ms: None };
        for (segment, committed) in segments {
            let Some((from, timestamp_ms)) = first_batch(&segment, committed, through)? else { continue };
            let to = first_batch(&segment, committed, stable_offset)?.map_or(committed, |(to, _)| to);
            if from < to {
                dirty.bytes += to - from;
                dirty.first_timestamp_ms.get_or_insert(timestamp_ms);
            }
        }
        Ok(dirty)
    }

    /// Segments that won't change any more and are durable.
    fn closed_segments(&self) -> Vec<Arc<Segment>> {
        let checkpointed_base = self.checkpointed.lock().segment_base;
        let view = self.view.read();
        view.segments.iter().filter(|s| s.base_offset() < checkpointed_base).map(Arc::clone).collect()
    }

    fn newest_offsets(
        &self,
        closed: &[Arc<Segment>],
        compaction: &Compaction,
        guard: Option<&dyn CompactionGuard>,
        stable_offset: i64,
    ) -> Result<NewestOffsets, PartitionError> {
        let through = self.compacted_through.load(Ordering::Relaxed);
        let closed_end = self.checkpointed.lock().segment_base;
        let mut newest = NewestOffsets {
            by_key: HashMap::new(),
            key_bytes: 0,
            covered_from: through,
            covered_to: closed_end.min(stable_offset),
        };
        let first_dirty =
            closed.partition_point(|segment| segment.base_offset() <= through).saturating_sub(1);
        for segment in closed.iter().skip(first_dirty) {
            let complete = newest.note(segment, guard, compaction.max_key_bytes);
            if !complete.map_err(|error| self.read_failed(scan_failed(segment, error)))? {
                break;
            }
        }
        Ok(newest)
    }

    /// Rewrites neighbouring segments into one. Returns how many records went.
    fn rewrite(&self, group: &[Arc<Segment>], rule: &Rule<'_>) -> Result<u64, PartitionError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(0) };
        let name = format!("{:020}-{:020}", first.base_offset(), last.base_offset());
        let cleaned = self.dir.join(format!("{name}.cleaned"));
        let swap = self.dir.join(format!("{name}.swap"));
        let (len, removed) = match self.write_swap(&cleaned, &swap, group, rule) {
            Ok(Some(written)) => written,
            nothing => {
                // On a full disk this is the space that the log waits for.
                let gone = self.file_system.remove_file(&cleaned);
                return nothing.and(gone.map_err(self.compacting_failed(&cleaned))).map(|()| 0);
            }
        };
        self.file_system.sync_dir(&self.dir).map_err(self.compacting_failed(&swap))?;
        // From here on the new content counts, so a failure leaves the folder ahead of this process.
        finish_swap(&*self.file_system, &self.dir, &swap).map_err(|source| {
            self.poison(&format!("finishing {}: {source}", swap.display()));
            self.io_failed("finishing", &swap, source)
        })?;
        self.replace(group, len);
        Ok(removed)
    }

    /// Writes what is kept of the segments to `cleaned`, syncs it, and gives it the name `swap`. Returns its length and how many records
    /// went; `None`, and neither, if it would be what is there already.
    fn write_swap(
        &self,
        cleaned: &Path,
        swap: &Path,
        group: &[Arc<Segment>],
        rule: &Rule<'_>,
    ) -> Result<Option<(u64, u64)>, PartitionError> {
        let file =
            self.file_system.open(cleaned, OpenMode::Create).map_err(self.compacting_failed(cleaned))?;
        let mut output = Output { file: &*file, len: 0, removed: 0 };
        for segment in group {
            // Readers that hold the old segment must keep its file when the name gets another.
            segment.file().map_err(self.compacting_failed(segment.path()))?;
            output.take(segment, rule).map_err(|error| self.read_failed(scan_failed(segment, error)))?;
        }
        let Output { len, removed, .. } = output;
        if removed == 0 && group.len() == 1 {
            return Ok(None);
        }
        file.sync_data().map_err(self.compacting_failed(cleaned))?;
        self.file_system.rename(cleaned, swap).map_err(self.compacting_failed(swap))?;
        Ok(Some((len, removed)))
    }

    fn compacting_failed(&self, path: &Path) -> impl FnOnce(io::Error) -> PartitionError {
        move |source| self.io_failed("compacting into", path, source)
    }

    fn replace(&self, group: &[Arc<Segment>], len: u64) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
        let (first, last) = (first.base_offset(), last.base_offset());
        let merged = Arc::new(Segment::existing(&self.file_system, &self.dir, first, len, i64::MIN));
        {
            let mut view = self.view.write();
            let from = view.segments.partition_point(|segment| segment.base_offset() < first);
            let to = view.segments.partition_point(|segment| segment.base_offset() <= last);
            view.segments.splice(from..to, [Arc::clone(&merged)]);
        }
        if merged.save_index().is_err() {
            tracing::debug!(segment = %merged.path().display(), "index not saved; it will be made again");
        }
    }
}

impl NewestOffsets {
    /// Takes note of a segment's keys. `false` when memory is used up; `covered_to` says how far it went.
    fn note(
        &mut self,
        segment: &Segment,
        guard: Option<&dyn CompactionGuard>,
        max_key_bytes: usize,
    ) -> Result<bool, ScanError> {
        let mut complete = true;
        let mut failed = None;
        segment.visit_batches(0, segment.len(), |position, batch| {
            if batch.header().base_offset >= self.covered_to {
                complete = false;
                return ControlFlow::Break(());
            }
            if !counts(batch, guard) || batch.header().last_offset() < self.covered_from {
                return ControlFlow::Continue(());
            }
            let seen = rewrite::visit(batch, DEFAULT_MAX_DECOMPRESSED_BYTES, |record| {
                if complete && record.offset >= self.covered_from {
                    complete = self.note_record(&record, max_key_bytes);
                }
            });
            if let Err(source) = seen {
                failed = Some(ScanError::Damaged { position, source });
            }
            if complete && failed.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed.map_or(Ok(complete), Err)
    }

    fn note_record(&mut self, record: &RecordRef<'_>, max_key_bytes: usize) -> bool {
        let Some(key) = record.key else { return true };
        if let Some(newest) = self.by_key.get_mut(key) {
            *newest = record.offset;
            return true;
        }
        let cost = key.len() + KEY_OVERHEAD_BYTES;
        // One key always fits, so that every pass gets on.
        if self.key_bytes + cost > max_key_bytes && !self.by_key.is_empty() {
            self.covered_to = record.offset;
            return false;
        }
        self.key_bytes += cost;
        self.by_key.insert(key.into(), record.offset);
        true
    }
}

/// What happens to a batch.
enum Verdict {
    Keep,
    Drop,
    /// Record by record.
    Filter,
}

impl Rule<'_> {
    fn verdict(&self, batch: &Batch) -> Verdict {
        let header = batch.header();
        if !header.is_control() && !header.is_transactional() {
            return Verdict::Filter;
        }
        let Some(guard) = self.guard.filter(|_| header.base_offset < self.newest.covered_to) else {
            return Verdict::Keep;
        };
        if !header.is_control() {
            return if guard.is_aborted(header) { Verdict::Drop } else { Verdict::Filter };
        }
        let seen_before = header.base_offset < self.newest.covered_from;
        let expired = is_older(header.max_timestamp_ms, self.tombstone_grace, self.now_ms);
        if seen_before && expired && !guard.needs_marker(header.base_offset) {
            Verdict::Drop
        } else {
            Verdict::Keep
        }
    }

    fn keeps(&self, record: &RecordRef<'_>) -> bool {
        let Some(key) = record.key else { return true };
        if self.newest.by_key.get(key).is_some_and(|newest| record.offset < *newest) {
            return false;
        }
        let seen_before = record.offset < self.newest.covered_from;
        let expired = is_older(record.timestamp_ms, self.tombstone_grace, self.now_ms);
        !(record.is_tombstone && seen_before && expired)
    }
}

/// A segment being written from others.
struct Output<'a> {
    file: &'a dyn File,
    len: u64,
    removed: u64,
}

impl Output<'_> {
    fn take(&mut self, segment: &Segment, rule: &Rule<'_>) -> Result<(), ScanError> {
        let mut failed = None;
        segment.visit_batches(0, segment.len(), |position, batch| match self.take_batch(batch, rule) {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(source)) => {
                failed = Some(ScanError::Io { position, source });
                ControlFlow::Break(())
            }
            Err(source) => {
                failed = Some(ScanError::Damaged { position, source });
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn take_batch(&mut self, batch: &Batch, rule: &Rule<'_>) -> Result<io::Result<()>, BatchError> {
        let filtered = match rule.verdict(batch) {
            Verdict::Keep => Filtered::Whole,
            Verdict::Drop => Filtered::Nothing,
            Verdict::Filter => {
                rewrite::filter(batch, DEFAULT_MAX_DECOMPRESSED_BYTES, |record| rule.keeps(&record))?
            }
        };
        let count = |batch: &Batch| u64::try_from(batch.header().record_count).unwrap_or(0);
        Ok(match filtered {
            Filtered::Whole => self.write(batch),
            Filtered::Part(part) => {
                self.removed += count(batch) - count(&part);
                self.write(&part)
            }
            Filtered::Nothing => {
                self.removed += count(batch);
                Ok(())
            }
        })
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        fs::write_all_at(self.file, &mut [IoSlice::new(batch.bytes())], self.len)?;
        self.len += batch.bytes().len() as u64;
        Ok(())
    }
}

/// Whether the records of a batch below the stable offset can be the newest of their keys.
fn counts(batch: &Batch, guard: Option<&dyn CompactionGuard>) -> bool {
    let header = batch.header();
    if header.is_control() {
        return false;
    }
    !header.is_transactional() || guard.is_some_and(|guard| !guard.is_aborted(header))
}

/// Neighbours that together stay within a segment's size and span of offsets, as far as they begin before `covered_to`.
fn groups(closed: &[Arc<Segment>], covered_to: i64, segment_bytes: u64) -> Vec<&[Arc<Segment>]> {
    let mut groups = Vec::new();
    let mut rest = closed.get(..closed.partition_point(|s| s.base_offset() < covered_to)).unwrap_or_default();
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|segment| {
            bytes += segment.len();
            // The next segment's base bounds the offsets of this one, and 32 bits hold twice the span.
            bytes <= segment_bytes && segment.base_offset() - first.base_offset() <= i64::from(i32::MAX)
        });
        let (group, others) = rest.split_at(fitting.count().max(1));
        groups.push(group);
        rest = others;
    }
    groups
}

/// Finishes what a crash left of a compaction in a partition's directory. Returns whether there was anything.
pub(crate) fn finish_interrupted(file_system: &dyn FileSystem, dir: &Path) -> io::Result<bool> {
    let mut found = false;
    for entry in file_system.read_dir(dir)? {
        let path = dir.join(&entry.name);
        if entry.name.ends_with(".cleaned") {
            file_system.remove_file(&path)?;
            found = true;
        } else if entry.name.ends_with(".swap") {
            finish_swap(file_system, dir, &path)?;
            found = true;
        }
    }
    Ok(found)
}

/// Puts a `.swap` file in the place of the segments that it replaces. May be repeated.
fn finish_swap(file_system: &dyn FileSystem, dir: &Path, swap: &Path) -> io::Result<()> {
    let Some((first, last)) = swapped_range(swap) else { return Ok(()) };
    for entry in file_system.read_dir(dir)? {
        let Some(base) = segment::base_offset_of(&entry.name).filter(|base| (first..=last).contains(base))
        else {
            continue;
        };
        let path = dir.join(&entry.name);
        segment::remove_indexes(file_system, &path);
        if base != first {
            file_system.remove_file(&path)?;
        }
    }
    // The removals first: a leftover of the old segments beside the new one would repeat records.
    file_system.sync_dir(dir)?;
    file_system.rename(swap, &segment::log_path(dir, first))?;
    file_system.sync_dir(dir)
}

fn swapped_range(swap: &Path) -> Option<(i64, i64)> {
    let name: PathBuf = swap.file_name()?.into();
    let (first, last) = name.to_str()?.strip_suffix(".swap")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

//! Group commit: one thread at a time takes what has queued up, writes it, syncs once, and answers everyone.
//!
//! For each group, in this order:
//!
//! 1. preconditions are asked and offsets assigned;
//! 2. the batches are written to their segments, without a sync (but for what the journal only names and something that will be
//!    synced comes after). A failure takes the whole group back, poisons the
//!    partition whose write failed, refuses the requests that need it, and begins again with the others;
//! 3. all batches together are written to the journal as one frame, those that nobody waits to be synced by reference only;
//! 4. the journal is synced, if a partition's policy or an append to several partitions asks for it;
//! 5. the batches become readable, the requests are answered, waiting readers are told.
//!
//! A full disk in 2 or 3 poisons nothing: the group is taken back and refused, and so is what comes after it until there is space
//! (`space`). The same goes for a journal that has no place because no checkpoint can be written. Any other failure in 3, or one in 4, poisons the log: what the journal holds is unknown from there on, so nothing more
//! is written until the folder is opened again. Readers never see anything that has not passed 4.

use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::append::{
    AppendError, AppendRequest, AppendResult, Appended, OnAppended, Precondition, Rejection,
};
use crate::batch::Batch;
use crate::checkpoint::{self, CheckpointError, Failure, Kind};
use crate::journal::Journal;
use crate::journal::frame::{
    BatchReference, ENTRY_HEADER_BYTES, FRAME_HEADER_BYTES, REFERENCE_BYTES, REFERENCE_LENGTH,
};
use crate::log::Shared;
use crate::options::{Background, SyncPolicy};
use crate::partition::writer::{BatchExtent, WriterMark};
use crate::partition::{Partition, PartitionInner};
use crate::queue::{By, Next, Queued};
use crate::space::{self, Waiting};

/// Bytes of the base offset, which the log writes in place of the batch's own.
const BASE_OFFSET_BYTES: usize = 8;
/// What stands before the rest of each batch in a frame: entry header and base offset.
const PREFIX_BYTES: usize = ENTRY_HEADER_BYTES + BASE_OFFSET_BYTES;
/// How often a commit that waits for a journal file looks whether the log was poisoned meanwhile.
const JOURNAL_WAIT: Duration = Duration::from_millis(50);

/// Bytes that are in their segments only count for so much less towards the next checkpoint: no journal file is to be freed for them,
/// and nobody waits for their sync.
const UNSYNCED_SHARE: u64 = 32;
/// How many groups somebody commits at most who came to append.
const GROUPS_HERE: usize = 4;

/// What only the thread that commits may touch.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    /// When the journal must be synced for partitions with [`SyncPolicy::Interval`].
    sync_deadline: Option<Instant>,
}

/// A request whose precondition agreed.
struct Admitted {
    batches: Vec<(Partition, Batch)>,
    on_appended: OnAppended,
    base_offsets: Vec<i64>,
    /// Whether the journal only names its batches.
    by_reference: bool,
}

/// A partition that the group appends to.
struct Touched {
    partition: Arc<PartitionInner>,
    mark: WriterMark,
    next_offset: i64,
    /// Places in [`Plan::batches`].
    batches: Vec<usize>,
}

struct PlannedBatch<'a> {
    batch: &'a Batch,
    prefix: [u8; PREFIX_BYTES],
    extent: BatchExtent,
    /// What the journal has instead of the batch, but for the base offset.
    reference: Option<[u8; REFERENCE_BYTES - BASE_OFFSET_BYTES]>,
}

/// What to write where.
struct Plan<'a> {
    touched: Vec<Touched>,
    batches: Vec<PlannedBatch<'a>>,
}

/// Why nothing of a group was appended.
enum GroupFailure {
    /// This partition was poisoned; the others may be tried again.
    Partition(Arc<PartitionInner>),
    /// The group was taken back, and the log takes no appends for now.
    Waiting(Waiting),
    /// The log was poisoned.
    Log,
}

/// Why a frame was not written.
enum FrameFailure {
    /// There was no space for it.
    NoSpace { reason: String, bytes: u64 },
    /// There was no place for it without a checkpoint, and none can be written.
    NoCheckpoint(Failure),
    /// The log was poisoned.
    Log,
}

impl Committer {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, sync_deadline: None }
    }
}

impl Shared {
    /// The commit thread: runs until the queue is closed and empty.
    pub(crate) fn commit_until_closed(&self) {
        loop {
            let deadline = self.committer.lock().sync_deadline;
            match self.queue.wait(deadline) {
                Next::Commit => _ = self.commit_next(),
                Next::Deadline => self.sync_journal(),
                Next::Closed => return,
            }
        }
    }

    /// Commits everything that waits, on the caller's thread.
    pub(crate) fn commit_waiting(&self) {
        while self.commit_next() {}
    }

    fn commit_next(&self) -> bool {
        let _turn = self.commit_turn.lock();
        let committer = self.committer.lock();
        let group = self.queue.take(self.options.group_bytes);
        group.map(|group| self.commit(committer, group)).is_some()
    }

    /// Whoever appends to one partition that is never synced commits it himself if he can: two changes of threads would take longer
    /// than the commit.
    pub(crate) fn who_commits(&self, request: &AppendRequest) -> By {
        let is_quick = self.options.background == Background::Threads && is_never_synced(&request.batches);
        if is_quick { By::Sender } else { By::Thread }
    }

    /// Commits what waits on the caller's thread if that doesn't have to wait for the disk; leaves it to the commit thread otherwise.
    pub(crate) fn commit_here(&self) {
        for _ in 0..GROUPS_HERE {
            let Some(bytes) = self.queue.bytes_for_senders() else { break };
            let Some(_turn) = self.commit_turn.try_lock() else { break };
            let Some(committer) = self.committer.try_lock() else { break };
            // An entry's header is far less than a quarter of its batch.
            let needed = (bytes + bytes / 4) as u64;
            if committer.sync_deadline.is_some() || committer.journal.is_full_for(needed) {
                break;
            }
            let Some(group) = self.queue.take(self.options.group_bytes) else { break };
            self.commit(committer, group);
        }
        self.queue.hand_over();
    }

    /// Syncs what was acknowledged before its sync.
    pub(crate) fn sync_journal(&self) {
        let mut committer = self.committer.lock();
        committer.sync_deadline = None;
        if self.poison.get().is_none() && self.timed_sync(&mut committer.journal).is_err() {
            tracing::debug!("the log was poisoned by an interval sync");
        }
    }

    fn commit(&self, mut committer: MutexGuard<'_, Committer>, group: Vec<Queued>) {
        let mut admitted: Vec<Admitted> = group.into_iter().filter_map(|queued| self.admit(queued)).collect();
        while !admitted.is_empty() {
            match self.attempt(&mut committer, &mut admitted) {
                Ok(touched) => {
                    // Waiting threads (a roll, a new partition) get their turn between groups.
                    MutexGuard::unlock_fair(committer);
                    self.announce(admitted, &touched);
                    return;
                }
                Err(GroupFailure::Partition(poisoned)) => {
                    admitted = self.refuse_those_on(&poisoned, admitted);
                }
                Err(GroupFailure::Waiting(waiting)) => {
                    self.refuse_all(admitted, || waiting.append_error());
                    return;
                }
                Err(GroupFailure::Log) => {
                    let reason = self.poison.get().cloned().unwrap_or_else(|| "unknown".into());
                    self.refuse_all(admitted, || AppendError::LogPoisoned { reason: Arc::clone(&reason) });
                    return;
                }
            }
        }
    }

    fn refuse_all(&self, admitted: Vec<Admitted>, error: impl Fn() -> AppendError) {
        for request in admitted {
            self.answer(request.on_appended, Err(error()));
        }
    }

    fn admit(&self, queued: Queued) -> Option<Admitted> {
        let Queued { request, on_appended, .. } = queued;
        let refusal = self
            .first_refusal(&request.batches)
            .or_else(|| ask(request.precondition?).err().map(AppendError::Rejected));
        if let Some(error) = refusal {
            self.answer(on_appended, Err(error));
            return None;
        }
        Some(Admitted {
            base_offsets: Vec::with_capacity(request.batches.len()),
            by_reference: is_never_synced(&request.batches) && !request.batches.iter().any(is_transactional),
            batches: request.batches,
            on_appended,
        })
    }

    fn first_refusal(&self, batches: &[(Partition, Batch)]) -> Option<AppendError> {
        if let Some(reason) = self.poison.get() {
            return Some(AppendError::LogPoisoned { reason: Arc::clone(reason) });
        }
        if let Some(waiting) = &*self.waiting.read() {
            return Some(waiting.append_error());
        }
        batches.iter().find_map(|(Partition { inner }, _)| {
            if inner.is_deleted() || !self.owns(inner) {
                return Some(AppendError::UnknownPartition { partition: inner.id.clone() });
            }
            inner.poison.get().map(|reason| AppendError::PartitionPoisoned {
                partition: inner.id.clone(),
                reason: Arc::clone(reason),
            })
        })
    }

    /// Writes, syncs and publishes.
    fn attempt(
        &self,
        committer: &mut Committer,
        admitted: &mut [Admitted],
    ) -> Result<Vec<Touched>, GroupFailure> {
        let policy = GroupPolicy::of(admitted);
        let plan = Plan::new(admitted).map_err(|partition| {
            partition.poison("its offsets have reached their end");
            GroupFailure::Partition(partition)
        })?;
        if let Err((failed, error)) = plan.write_segments() {
            plan.take_back();
            let reason = format!("writing a segment in {}: {error}", failed.dir.display());
            if space::is_full_disk(&error) {
                return Err(GroupFailure::Waiting(self.wait_for_space(&reason, plan.segment_bytes())));
            }
            failed.poison(&reason);
            return Err(GroupFailure::Partition(failed));
        }
        if policy.needs_sync
            && let Err(error) = plan.sync_what_is_only_named()
        {
            self.poison_log(&error.to_string());
            return Err(GroupFailure::Log);
        }
        let sequence = match self.write_frame(committer, &plan, &policy) {
            Ok(sequence) => sequence,
            Err(FrameFailure::NoSpace { reason, bytes }) => {
                plan.take_back();
                return Err(GroupFailure::Waiting(self.wait_for_space(&reason, bytes)));
            }
            Err(FrameFailure::NoCheckpoint(Failure { reason, waits_for })) => {
                plan.take_back();
                return Err(GroupFailure::Waiting(self.wait_for_checkpoint(waits_for, &reason)));
            }
            Err(FrameFailure::Log) => return Err(GroupFailure::Log),
        };
        let Plan { touched, .. } = plan;
        {
            let mut published = self.published.lock();
            for touched in &touched {
                touched.partition.publish();
            }
            *published = sequence;
        }
        Ok(touched)
    }

    fn write_frame(
        &self,
        committer: &mut Committer,
        plan: &Plan<'_>,
        policy: &GroupPolicy,
    ) -> Result<u64, FrameFailure> {
        let journal = &mut committer.journal;
        let body_bytes = plan.body_bytes();
        if journal.is_full_for(body_bytes) {
            self.switch_journal_file(journal, body_bytes)?;
        }
        let mut header = [0; FRAME_HEADER_BYTES];
        let mut body = Vec::with_capacity(plan.batches.len() * 2 + 1);
        for planned in &plan.batches {
            body.push(IoSlice::new(&planned.prefix));
            body.push(IoSlice::new(planned.reference.as_ref().map_or(planned.rest(), <[u8; _]>::as_slice)));
        }
        let batch_count = u32::try_from(plan.batches.len()).unwrap_or(u32::MAX);
        let sequence = journal
            .write(&mut body, &mut header, batch_count)
            .map_err(|error| self.frame_failure("writing", journal, &error, body_bytes))?;
        self.counters.journal_bytes.add(body_bytes + FRAME_HEADER_BYTES as u64);
        if policy.needs_sync {
            self.timed_sync(journal)?;
            committer.sync_deadline = None;
        } else if let Some(interval) = policy.interval {
            let deadline = Instant::now() + interval;
            committer.sync_deadline = Some(committer.sync_deadline.map_or(deadline, |d| d.min(deadline)));
        }
        if committer.sync_deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // Under steady load the queue never lets a deadline pass by itself.
            self.timed_sync(&mut committer.journal)?;
            committer.sync_deadline = None;
        }
        Ok(sequence)
    }

    fn timed_sync(&self, journal: &mut Journal) -> Result<(), FrameFailure> {
        if !journal.has_unsynced() {
            return Ok(());
        }
        let started = Instant::now();
        journal.sync().map_err(|error| self.poison_journal("syncing", journal, &error))?;
        self.counters.syncs.count(started.elapsed());
        Ok(())
    }

    fn switch_journal_file(&self, journal: &mut Journal, body_bytes: u64) -> Result<(), FrameFailure> {
        let bytes = crate::journal::frame::frame_bytes(body_bytes);
        let mut checkpointed = false;
        let failures = self.checkpoints.failures();
        loop {
            match journal.files.take(bytes) {
                Ok(Some(file)) => {
                    return journal
                        .switch_to(file)
                        .map_err(|error| self.poison_journal("syncing", journal, &error));
                }
                Err(error) if checkpointed => {
                    let needed = bytes.max(journal.files.next_bytes());
                    return Err(self.frame_failure("making a file after", journal, &error, needed));
                }
                // A checkpoint may free a file; on a full disk that is the one way on.
                Err(_) => {
                    checkpointed = true;
                    self.checkpoint_for_journal()?;
                }
                Ok(None) => {
                    self.counters.journal_waits.add(1);
                    if self.options.background == Background::Inline {
                        self.checkpoint_for_journal()?;
                    } else if let Some(failure) = self.checkpoints.failed_since(failures) {
                        return Err(self.no_checkpoint(failure));
                    } else {
                        self.checkpoints.request();
                        journal.files.wait_for_free(JOURNAL_WAIT);
                    }
                }
            }
            if self.poison.get().is_some() {
                return Err(FrameFailure::Log);
            }
        }
    }

    fn checkpoint_for_journal(&self) -> Result<(), FrameFailure> {
        self.write_checkpoint(Kind::Needed).map_err(|error| {
            self.no_checkpoint(Failure { reason: error.to_string().into(), waits_for: error.waits_for() })
        })
    }

    /// Nothing was written to the journal, so what it holds is known; only a failed sync of a segment has poisoned the log.
    fn no_checkpoint(&self, Failure { reason, waits_for }: Failure) -> FrameFailure {
        if self.poison.get().is_some() {
            return FrameFailure::Log;
        }
        let reason = format!("checkpoint to free a journal file: {reason}").into();
        FrameFailure::NoCheckpoint(Failure { reason, waits_for })
    }

    /// A frame that had no space left nothing behind that counts: the next one is written in its place.
    fn frame_failure(&self, step: &str, journal: &Journal, error: &io::Error, bytes: u64) -> FrameFailure {
        if space::is_full_disk(error) {
            let reason = format!("{step} {}: {error}", journal.path().display());
            return FrameFailure::NoSpace { reason, bytes };
        }
        self.poison_journal(step, journal, error)
    }

    fn poison_journal(&self, step: &str, journal: &Journal, error: &io::Error) -> FrameFailure {
        self.poison_log(&format!("{step} {}: {error}", journal.path().display()));
        FrameFailure::Log
    }

    fn refuse_those_on(&self, poisoned: &Arc<PartitionInner>, admitted: Vec<Admitted>) -> Vec<Admitted> {
        let mut others = Vec::with_capacity(admitted.len());
        for request in admitted {
            // Taking the group back may have poisoned further partitions.
            match self.first_refusal(&request.batches) {
                Some(error) => self.answer(request.on_appended, Err(error)),
                None => others.push(request),
            }
        }
        debug_assert!(poisoned.poison.get().is_some(), "or the group would be tried for ever");
        others
    }

    fn announce(&self, admitted: Vec<Admitted>, touched: &[Touched]) {
        let mut dirty_bytes = 0;
        for request in admitted {
            let share = if request.by_reference { UNSYNCED_SHARE } else { 1 };
            for (partition, batch) in &request.batches {
                let records = u64::try_from(batch.header().record_count).unwrap_or(0);
                let bytes = batch.bytes().len() as u64;
                let counters = &partition.inner.counters;
                counters.batches.add(1);
                counters.records.add(records);
                counters.bytes.add(bytes);
                self.counters.batches.add(1);
                self.counters.records.add(records);
                self.counters.bytes.add(bytes);
                dirty_bytes += bytes / share;
            }
            self.answer(request.on_appended, Ok(Appended { base_offsets: request.base_offsets }));
        }
        // After the callbacks, which may decide what a listener's reader gets to see.
        for touched in touched {
            run_guarded("a listener", || touched.partition.notify());
        }
        self.counters.groups.add(1);
        self.checkpoints.count_dirty(dirty_bytes, self.options.checkpoint_bytes);
    }

    fn answer(&self, on_appended: OnAppended, result: AppendResult) {
        match &result {
            Ok(_) => self.counters.requests.add(1),
            Err(_) => self.counters.requests_failed.add(1),
        }
        run_guarded("an append callback", || on_appended(result));
    }
}

/// A panic in foreign code must not end the commit thread.
fn run_guarded(what: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!("{what} panicked on the commit thread");
    }
}

/// Whether nobody waits for a sync: all is for one partition that asks for none.
fn is_never_synced(batches: &[(Partition, Batch)]) -> bool {
    let mut partitions = batches.iter().map(|(partition, _)| partition);
    partitions
        .next()
        .is_some_and(|first| first.inner.is_never_synced() && partitions.all(|other| other == first))
}

/// Its marker will be synced, and it with that, which is cheap only if the journal holds it.
fn is_transactional((_, batch): &(Partition, Batch)) -> bool {
    batch.header().is_transactional()
}

fn ask(precondition: Precondition) -> Result<(), Rejection> {
    catch_unwind(AssertUnwindSafe(precondition)).unwrap_or_else(|_| Err("the precondition panicked".into()))
}

/// What the policies of a group's partitions ask for together.
struct GroupPolicy {
    needs_sync: bool,
    interval: Option<Duration>,
}

impl GroupPolicy {
    fn of(admitted: &[Admitted]) -> Self {
        let mut policy = Self { needs_sync: false, interval: None };
        for request in admitted.iter().filter(|request| !request.by_reference) {
            let mut first: Option<&Partition> = None;
            for (partition, _) in &request.batches {
                // All or none across partitions must hold across a power cut too.
                policy.needs_sync |= *first.get_or_insert(partition) != partition;
                match partition.inner.options.read().sync {
                    SyncPolicy::Always => policy.needs_sync = true,
                    SyncPolicy::Interval(every) => {
                        policy.interval = Some(policy.interval.map_or(every, |least| least.min(every)));
                    }
                    SyncPolicy::Never => {}
                }
            }
        }
        policy
    }
}

impl<'a> Plan<'a> {
    /// Assigns offsets. An error names the partition that has no offsets left.
    fn new(admitted: &'a mut [Admitted]) -> Result<Self, Arc<PartitionInner>> {
        let mut plan = Self { touched: Vec::new(), batches: Vec::with_capacity(admitted.len()) };
        let planned = admitted.iter_mut().try_for_each(|request| {
            request.base_offsets.clear();
            for (partition, batch) in &request.batches {
                let base_offset = plan.add(&partition.inner, batch, request.by_reference)?;
                request.base_offsets.push(base_offset);
            }
            Ok(())
        });
        for touched in &plan.touched {
            touched.partition.writer.lock().slot = None;
        }
        planned.map(|()| plan)
    }

    fn add(
        &mut self,
        partition: &Arc<PartitionInner>,
        batch: &'a Batch,
        by_reference: bool,
    ) -> Result<i64, Arc<PartitionInner>> {
        let slot = self.slot_of(partition);
        let place = self.batches.len();
        let header = batch.header();
        let length = u32::try_from(batch.bytes().len()).unwrap_or(u32::MAX);
        // The slot was just found or made.
        let Some(touched) = self.touched.get_mut(slot) else { return Err(Arc::clone(partition)) };
        let base_offset = touched.next_offset;
        touched.next_offset = base_offset
            .checked_add(i64::from(header.last_offset_delta) + 1)
            .filter(|next| *next < i64::MAX)
            .ok_or_else(|| Arc::clone(partition))?;
        touched.batches.push(place);
        let reference =
            by_reference.then_some(BatchReference { base_offset, bytes: length, crc: header.crc });
        let entry_length = reference.map_or(length, |_| REFERENCE_LENGTH);
        let mut prefix = [0; PREFIX_BYTES];
        let fields: [&[u8]; 3] =
            [&partition.number.to_be_bytes(), &entry_length.to_be_bytes(), &base_offset.to_be_bytes()];
        for (place, byte) in prefix.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        let extent = BatchExtent {
            base_offset,
            last_offset_delta: header.last_offset_delta,
            bytes: u64::from(length),
            max_timestamp_ms: header.max_timestamp_ms,
        };
        let reference = reference.map(|reference| reference.encode_rest());
        self.batches.push(PlannedBatch { batch, prefix, extent, reference });
        Ok(base_offset)
    }

    fn slot_of(&mut self, partition: &Arc<PartitionInner>) -> usize {
        let mut writer = partition.writer.lock();
        if let Some(slot) = writer.slot {
            return slot;
        }
        let slot = self.touched.len();
        writer.slot = Some(slot);
        self.touched.push(Touched {
            mark: writer.mark(),
            next_offset: writer.next_offset,
            batches: Vec::new(),
            partition: Arc::clone(partition),
        });
        slot
    }

    fn segment_bytes(&self) -> u64 {
        self.batches.iter().map(|planned| planned.extent.bytes).sum()
    }

    /// Bytes of the frame's body.
    fn body_bytes(&self) -> u64 {
        let bytes = |planned: &PlannedBatch<'_>| {
            planned.reference.map_or(planned.extent.bytes, |_| REFERENCE_BYTES as u64)
        };
        self.batches.iter().map(|planned| bytes(planned) + ENTRY_HEADER_BYTES as u64).sum()
    }

    /// Writes the batches to their segments, one write a partition unless a segment is full.
    fn write_segments(&self) -> Result<(), (Arc<PartitionInner>, io::Error)> {
        self.touched.iter().try_for_each(|touched| {
            self.write_partition(touched).map_err(|error| (Arc::clone(&touched.partition), error))
        })
    }

    fn write_partition(&self, touched: &Touched) -> io::Result<()> {
        let segment_bytes = touched.partition.options.read().segment_bytes;
        let mut writer = touched.partition.writer.lock();
        let mut slices = Vec::with_capacity(touched.batches.len() * 2);
        let mut extents: Vec<BatchExtent> = Vec::with_capacity(touched.batches.len());
        let mut pending_bytes = 0;
        for planned in touched.batches.iter().filter_map(|place| self.batches.get(*place)) {
            let extent = planned.extent;
            let last_offset = extent.base_offset + i64::from(extent.last_offset_delta);
            if writer.wants_roll(segment_bytes, pending_bytes, extent.bytes, last_offset) {
                writer.write(&mut slices, &extents)?;
                slices.clear();
                extents.clear();
                pending_bytes = 0;
                writer.roll(&touched.partition)?;
            }
            slices.push(IoSlice::new(planned.base_offset_bytes()));
            slices.push(IoSlice::new(planned.rest()));
            extents.push(extent);
            pending_bytes += extent.bytes;
            writer.has_named |= planned.reference.is_some();
        }
        writer.write(&mut slices, &extents)
    }

    /// What is synced in the journal must have nothing before it in its partition that a power cut takes.
    fn sync_what_is_only_named(&self) -> Result<(), CheckpointError> {
        let is_held =
            |place: &usize| self.batches.get(*place).is_some_and(|planned| planned.reference.is_none());
        let touched = self.touched.iter().filter(|touched| touched.batches.iter().any(is_held));
        touched.map(|touched| &touched.partition).try_for_each(|partition| {
            let mut writer = partition.writer.lock();
            if !std::mem::take(&mut writer.has_named) {
                return Ok(());
            }
            let from = partition.checkpointed.lock().segment_base;
            let grown: Vec<_> = {
                let view = partition.view.read();
                let segments = view.segments.iter().chain(&writer.new_segments);
                segments.filter(|segment| segment.base_offset() >= from).map(Arc::clone).collect()
            };
            checkpoint::sync_segments(partition, &grown)
        })
    }

    /// Cuts every touched partition back to where it was.
    fn take_back(&self) {
        for touched in &self.touched {
            let taken_back = touched.partition.writer.lock().roll_back(&touched.mark);
            if let Err(error) = taken_back {
                let dir = touched.partition.dir.display();
                touched.partition.poison(&format!("taking back a failed append in {dir}: {error}"));
            }
        }
    }
}

impl PlannedBatch<'_> {
    fn base_offset_bytes(&self) -> &[u8] {
        self.prefix.get(ENTRY_HEADER_BYTES..).unwrap_or_default()
    }

    /// The batch after its base offset.
    fn rest(&self) -> &[u8] {
        self.batch.bytes().get(BASE_OFFSET_BYTES..).unwrap_or_default()
    }
}

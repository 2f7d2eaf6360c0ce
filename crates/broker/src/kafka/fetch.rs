//! Fetch: batches out of partitions, as they lie, and the long poll for those that aren't there yet.
//!
//! A fetch reads each partition from its offset on until it has `max_bytes`, or at least one batch. If that gives less than
//! `min_bytes`, it waits: every append to one of its partitions wakes it, and it reads on from where it was, never twice.
//! A failure of one partition is answered at once. What is read into memory counts against a budget of all connections, the one batch
//! that comes however large it is as well: if there is no room for it, it is waited for. Records are never looked into. The newest few are read and go into the
//! answer as pieces of their own, without a copy; where more are waiting, the answer only says where they lie, and the
//! connection takes them from the page cache (`outlet`). What isn't there is read here, off the async threads.

pub(super) mod answer;
pub(super) mod sessions;

use std::sync::Arc;
use std::time::Duration;

use farol_log::{ReadError, Subscription, Verify};
use kafka_protocol::messages::FetchRequest;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};

use self::answer::FetchAnswer;
use self::sessions::{Plan, Target};
use super::Server;
use super::admission::Bytes;
use super::api::{Answer, Call, Piece};
use super::error_code::Failure;
use super::frame::FREE_BYTES;
use crate::broker::Broker;
use crate::error::BrokerError;
pub(super) use crate::fetch::Isolation;
use crate::fetch::PartitionReader;
use crate::partition::TopicPartition;
use crate::producers::AbortedTransaction;

/// Longest wait that a client may ask for.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// So few records at the end of a partition are in the page cache and read at once; more are read off the async threads.
const INLINE_RECORDS: i64 = 256;
/// From so many bytes on, they are left in the page cache until they are sent.
const SENT_FROM_FILE_BYTES: usize = 32 * 1024;

impl From<i8> for Isolation {
    fn from(level: i8) -> Self {
        if level == 1 { Self::ReadCommitted } else { Self::ReadUncommitted }
    }
}

/// After the last offset that a reader may see.
pub(super) fn last_readable(reader: &PartitionReader, isolation: Isolation) -> i64 {
    match isolation {
        Isolation::ReadUncommitted => reader.end_offset(),
        Isolation::ReadCommitted => reader.stable_offset(),
    }
}

/// What was read of one partition.
pub(super) struct PartitionRead {
    pub(super) target: Target,
    pub(super) outcome: Result<Reading, Failure>,
}

/// A partition that is being read.
pub(super) struct Reading {
    reader: PartitionReader,
    name: TopicPartition,
    next_offset: i64,
    pub(super) high_watermark: i64,
    pub(super) last_stable_offset: i64,
    pub(super) log_start_offset: i64,
    /// Transactions among the records that were aborted.
    pub(super) aborted: Vec<AbortedTransaction>,
    pub(super) records: Vec<Piece>,
    pub(super) bytes: usize,
}

/// What one read of a partition gave.
struct Found {
    piece: Option<Piece>,
    next_offset: i64,
    aborted: Vec<AbortedTransaction>,
}

/// How much may be read.
#[derive(Clone, Copy)]
struct Bounds {
    isolation: Isolation,
    /// Bytes of the whole answer.
    max_bytes: usize,
    min_bytes: usize,
}

/// Finds the session, then reads, and waits if there is too little.
pub(super) async fn fetch(call: Call, request: FetchRequest) -> Answer<FetchAnswer> {
    let non_negative = |number: i32| usize::try_from(number).unwrap_or(0);
    let max_bytes = non_negative(request.max_bytes).min(call.server.settings.limits.fetch_bytes);
    let bounds = Bounds {
        isolation: Isolation::from(request.isolation_level),
        max_bytes,
        min_bytes: non_negative(request.min_bytes).min(max_bytes),
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let plan = match call.server.fetch_sessions.plan(call.version, request) {
        Ok(plan) => plan,
        Err(error) => return FetchAnswer::refused(error).into(),
    };
    Answer::later(async move {
        let began = Instant::now();
        gather(&call.server, plan, bounds, began + wait).await
    })
}

async fn gather(server: &Arc<Server>, plan: Plan, bounds: Bounds, deadline: Instant) -> FetchAnswer {
    let mut round = Round::begin(&server.broker, plan.targets, bounds);
    let mut permit = None;
    let news = Arc::new(Notify::new());
    let mut subscriptions: Option<Vec<Subscription>> = None;
    let mut waited_for = None;
    loop {
        round = round.read(server, waited_for.take(), &mut permit).await;
        if round.is_enough() || Instant::now() >= deadline || server.stopping.is_cancelled() {
            break;
        }
        if let Some(bytes) = round.short_of.take() {
            // Other answers hold the room for even one batch. They are taken or given up in time.
            tokio::select! {
                share = server.admission.answers.take(bytes) => waited_for = share,
                () = sleep_until(deadline) => {}
                () = server.stopping.cancelled() => {}
                () = server.broker.closing().cancelled() => break,
            }
            continue;
        }
        if subscriptions.is_none() {
            // Whatever came before the listeners are there is found by reading once more.
            subscriptions = Some(round.subscribe(&news));
            continue;
        }
        tokio::select! {
            () = news.notified() => {}
            () = sleep_until(deadline) => {}
            () = server.stopping.cancelled() => {}
            () = server.broker.closing().cancelled() => break,
        }
    }
    FetchAnswer::new(plan.session, round.reads, permit)
}

/// The partitions of a fetch and what was read of them so far.
struct Round {
    reads: Vec<PartitionRead>,
    bounds: Bounds,
    bytes: usize,
    /// Of these, what is held in memory.
    memory_bytes: usize,
    /// The first batch has so many bytes, and there was no room for it.
    short_of: Option<usize>,
}

/// Room for what is read into memory.
struct Room {
    /// How much may be read.
    allowed: usize,
    /// The share of the budget for it. Without one, there is what each connection has of its own.
    share: Option<OwnedSemaphorePermit>,
}

/// Why nothing was read.
enum Unread {
    Failed(Failure),
    /// The first batch needs so much room.
    ShortOf(usize),
}

impl Round {
    fn begin(broker: &Broker, targets: Vec<Target>, bounds: Bounds) -> Self {
        let read = |target: Target| {
            let outcome = Reading::new(broker, &target);
            PartitionRead { target, outcome }
        };
        Self {
            reads: targets.into_iter().map(read).collect(),
            bounds,
            bytes: 0,
            memory_bytes: 0,
            short_of: None,
        }
    }

    fn is_enough(&self) -> bool {
        self.bytes >= self.bounds.min_bytes || self.reads.iter().any(|read| read.outcome.is_err())
    }

    fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.reads.iter().filter_map(|read| read.outcome.as_ref().ok())
    }

    fn subscribe(&self, news: &Arc<Notify>) -> Vec<Subscription> {
        let subscribe = |reading: &Reading| {
            let news = Arc::clone(news);
            reading.reader.on_advance(move |_| news.notify_one())
        };
        self.readings().map(subscribe).collect()
    }

    /// Reads on in every partition, within what all answers together may hold; of that, `share` has been waited for.
    async fn read(
        mut self,
        server: &Arc<Server>,
        share: Option<OwnedSemaphorePermit>,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Self {
        let behind = self.readings().map(|reading| reading.behind(self.bounds.isolation));
        let behind = behind.fold(0i64, i64::saturating_add);
        if behind == 0 {
            self.look();
            return self;
        }
        let wanted = self.bounds.max_bytes.saturating_sub(self.bytes);
        let mut room = match share {
            Some(share) => Room { allowed: wanted.min(share.num_permits()), share: Some(share) },
            None => Room::reserve(&server.admission.answers, wanted),
        };
        let before = self.memory_bytes;
        let (round, room) = if behind <= INLINE_RECORDS {
            self.read_now(&mut room, &server.admission.answers);
            (self, room)
        } else {
            let server = Arc::clone(server);
            let reading = tokio::task::spawn_blocking(move || {
                self.read_now(&mut room, &server.admission.answers);
                (self, room)
            });
            // A panic of the reader is passed on: there is no answer without it.
            reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        };
        room.keep(permit, round.memory_bytes.saturating_sub(before));
        round
    }

    /// Notes how far the partitions reach, without reading.
    fn look(&mut self) {
        for read in &mut self.reads {
            if let Ok(reading) = &mut read.outcome {
                reading.look();
            }
        }
    }

    /// Reads at most what is allowed, but at least one batch if the answer has none and there is room for it.
    fn read_now(&mut self, room: &mut Room, answers: &Bytes) {
        let mut left = room.allowed;
        for read in &mut self.reads {
            let Ok(reading) = &mut read.outcome else { continue };
            let of_partition = read.target.max_bytes.saturating_sub(reading.bytes);
            let first = self.bytes == 0;
            if !first && left.min(of_partition) == 0 {
                reading.look();
                continue;
            }
            let at_least_one = first.then_some((&mut *room, answers));
            match reading.read(self.bounds.isolation, left.min(of_partition), at_least_one) {
                Ok(Some(piece)) => {
                    let bytes = piece.len();
                    self.bytes = self.bytes.saturating_add(bytes);
                    self.memory_bytes = self.memory_bytes.saturating_add(piece.memory_bytes());
                    left = left.saturating_sub(bytes);
                    reading.add(piece);
                }
                Ok(None) => {}
                Err(Unread::ShortOf(bytes)) => {
                    self.short_of = Some(bytes);
                    return;
                }
                Err(Unread::Failed(failure)) if reading.bytes == 0 => read.outcome = Err(failure),
                // What came before it is answered now; the next fetch meets the failure.
                Err(Unread::Failed(_)) => {}
            }
        }
    }
}

impl Reading {
    fn new(broker: &Broker, target: &Target) -> Result<Self, Failure> {
        broker.check_open()?;
        let topic = match target.topic_id {
            Some(id) => broker.topic_by_id(id)?,
            None => broker.topic(&target.name)?,
        };
        let name = TopicPartition::new(Arc::clone(topic.name()), target.index);
        let reader = broker.reader(&name)?;
        let (start, end) = (reader.start_offset(), reader.end_offset());
        if !(start..=end).contains(&target.offset) {
            let offset = target.offset;
            return Err(BrokerError::OffsetOutOfRange { partition: name, offset, start, end }.into());
        }
        Ok(Self {
            name,
            next_offset: target.offset,
            high_watermark: end,
            last_stable_offset: last_readable(&reader, Isolation::ReadCommitted),
            log_start_offset: start,
            reader,
            aborted: Vec::new(),
            records: Vec::new(),
            bytes: 0,
        })
    }

    /// Offsets that can be read and weren't.
    fn behind(&self, isolation: Isolation) -> i64 {
        last_readable(&self.reader, isolation).saturating_sub(self.next_offset).max(0)
    }

    fn look(&mut self) {
        self.high_watermark = self.reader.end_offset();
        self.last_stable_offset = last_readable(&self.reader, Isolation::ReadCommitted);
        self.log_start_offset = self.reader.start_offset();
    }

    /// Reads on. A batch that is larger than `max_bytes` is only taken if at least one is wanted, and if there is room for it.
    fn read(
        &mut self,
        isolation: Isolation,
        max_bytes: usize,
        at_least_one: Option<(&mut Room, &Bytes)>,
    ) -> Result<Option<Piece>, Unread> {
        self.look();
        let behind = self.behind(isolation);
        if behind == 0 {
            return Ok(None);
        }
        let found = if behind <= INLINE_RECORDS {
            self.read_batches(isolation, max_bytes)
        } else {
            self.locate_batches(isolation, max_bytes)
        };
        let Found { piece, next_offset, aborted } = found.map_err(|error| {
            Unread::Failed(BrokerError::from_read(&self.name, self.next_offset, &error).into())
        })?;
        if let Some(piece) = piece.as_ref().filter(|piece| piece.len() > max_bytes) {
            let Some((room, answers)) = at_least_one else { return Ok(None) };
            if !room.covers(piece.memory_bytes(), answers) {
                return Err(Unread::ShortOf(piece.memory_bytes()));
            }
        }
        self.next_offset = next_offset;
        // What an earlier read of this answer has listed reaches into this one.
        for aborted in aborted {
            if !self.aborted.contains(&aborted) {
                self.aborted.push(aborted);
            }
        }
        Ok(piece)
    }

    fn read_batches(&self, isolation: Isolation, max_bytes: usize) -> Result<Found, ReadError> {
        let fetched = self.reader.read(self.next_offset, max_bytes.max(1), Verify::Headers, isolation)?;
        let piece = (!fetched.batches.is_empty()).then_some(Piece::Bytes(fetched.batches));
        Ok(Found { piece, next_offset: fetched.next_offset, aborted: fetched.aborted })
    }

    fn locate_batches(&self, isolation: Isolation, max_bytes: usize) -> Result<Found, ReadError> {
        let located = self.reader.locate(self.next_offset, max_bytes.max(1), isolation)?;
        let piece = located.batches.map(|stored| {
            if stored.len() >= SENT_FROM_FILE_BYTES && stored.is_cached() {
                Ok(Piece::Stored(stored))
            } else {
                stored.read(stored.len()).map(Piece::Bytes)
            }
        });
        Ok(Found { piece: piece.transpose()?, next_offset: located.next_offset, aborted: located.aborted })
    }

    fn add(&mut self, piece: Piece) {
        self.bytes = self.bytes.saturating_add(piece.len());
        self.records.push(piece);
    }
}

impl Room {
    /// What may be read now. When the budget is nearly spent, because many clients are slow to take what was read for them,
    /// everybody gets a little.
    fn reserve(answers: &Bytes, wanted: usize) -> Self {
        let allowed = wanted.min((answers.left() / 2).max(FREE_BYTES));
        match answers.try_take(allowed) {
            Some(share) => Self { allowed, share: Some(share) },
            None => Self { allowed: wanted.min(FREE_BYTES), share: None },
        }
    }

    /// Whether so much may be held; takes what is missing, if it is there now.
    fn covers(&mut self, bytes: usize, answers: &Bytes) -> bool {
        let held = self.share.as_ref().map_or(FREE_BYTES, OwnedSemaphorePermit::num_permits);
        let missing = answers.capped(bytes).saturating_sub(held);
        if missing == 0 {
            return true;
        }
        let Some(more) = answers.try_take(missing) else { return false };
        match &mut self.share {
            Some(share) => share.merge(more),
            None => self.share = Some(more),
        }
        true
    }

    /// Keeps room for `bytes`, and gives the rest back.
    fn keep(self, permit: &mut Option<OwnedSemaphorePermit>, bytes: usize) {
        let Some(mut share) = self.share else { return };
        let bytes = bytes.min(share.num_permits());
        let Some(kept) = share.split(bytes) else { return };
        match permit {
            Some(permit) => permit.merge(kept),
            None => *permit = Some(kept),
        }
    }
}

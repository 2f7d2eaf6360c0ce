//! Fetch sessions (KIP-227): the server remembers what a client reads, and both say only what has changed.
//!
//! A client begins one with a full request, and then names only partitions that are new or have moved, and those that it
//! reads no more. It is told only of partitions with records, a failure, or another end. Sessions are remembered by an id,
//! up to a number; beyond it the one that was used longest ago goes if nobody has used it for [`EVICT_AFTER`], and otherwise
//! the client reads without a session. Whoever names a session that is gone is told so, and begins a new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::PartitionRead;
use super::answer::TOPIC_IDS_FROM;
use crate::kafka::distinct::distinct;

/// A session that nobody has used for so long may make room for another.
const EVICT_AFTER: Duration = Duration::from_secs(120);
/// Most partitions that all sessions together remember.
const MAX_PARTITIONS: usize = 200_000;
/// The session epoch of a request without a session, which also ends the session that it names.
const FINAL_EPOCH: i32 = -1;
/// The session epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;

/// A partition that is to be read.
#[derive(Debug, Clone)]
pub(in crate::kafka) struct Target {
    /// The topic's name; empty if the client knows it by its id.
    pub(super) name: Arc<str>,
    /// The topic's id if the client knows it by that.
    pub(super) topic_id: Option<Uuid>,
    pub(super) index: i32,
    /// Where to read from.
    pub(super) offset: i64,
    /// Bytes of this partition.
    pub(super) max_bytes: usize,
}

/// What a request asks to read, and the session that it belongs to.
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    pub(super) session: SessionUse,
}

/// A request's session.
pub(super) enum SessionUse {
    /// None.
    None,
    /// One that begins: everything is told.
    Begun(Arc<Mutex<Session>>),
    /// One that goes on: changes are told.
    Continued(Arc<Mutex<Session>>),
}

/// What is news to a client, of one partition.
pub(super) struct Changed {
    pub(super) has_records: bool,
    /// High watermark, last stable offset, log start offset; `None` is a failure.
    pub(super) offsets: Option<(i64, i64, i64)>,
}

/// Every session.
pub(in crate::kafka) struct FetchSessions {
    sessions: Mutex<Remembered>,
    max_sessions: usize,
}

#[derive(Default)]
struct Remembered {
    by_id: HashMap<i32, Entry>,
    partitions: usize,
}

struct Entry {
    session: Arc<Mutex<Session>>,
    last_used: Instant,
    /// Partitions that were counted for it.
    partitions: usize,
}

/// One client's session.
pub(super) struct Session {
    id: i32,
    /// What the next request must say.
    epoch: i32,
    by_topic_id: bool,
    places: HashMap<Key, u64>,
    /// In the order of reading. A partition that gave records goes to the end, so that every one gets its turn.
    partitions: BTreeMap<u64, Remembering>,
    next_place: u64,
}

type Key = (Arc<str>, Option<Uuid>, i32);

/// A partition of a session, and what its client was told last.
struct Remembering {
    target: Target,
    told: Option<(i64, i64, i64)>,
}

impl Target {
    /// Whether both are of one topic.
    pub(super) fn is_same_topic(&self, other: &Self) -> bool {
        self.topic_id == other.topic_id && self.name == other.name
    }

    fn key(&self) -> Key {
        (Arc::clone(&self.name), self.topic_id, self.index)
    }
}

impl FetchSessions {
    pub(in crate::kafka) fn new(max_sessions: usize) -> Self {
        Self { sessions: Mutex::default(), max_sessions }
    }

    /// What a request asks to read.
    pub(super) fn plan(&self, version: i16, request: FetchRequest) -> Result<Plan, ResponseError> {
        let (session_id, epoch) = (request.session_id, request.session_epoch);
        let by_topic_id = version >= TOPIC_IDS_FROM;
        let forgotten = forgotten(&request, by_topic_id);
        // As in Kafka: a partition that is named twice is read once.
        let targets: Vec<Target> = distinct(targets(request, by_topic_id), Target::key).collect();
        match epoch {
            FINAL_EPOCH => {
                self.forget(session_id);
                Ok(Plan { targets, session: SessionUse::None })
            }
            INITIAL_EPOCH => {
                self.forget(session_id);
                let begun = self.begin(&targets, by_topic_id, Instant::now());
                Ok(Plan { targets, session: begun.map_or(SessionUse::None, SessionUse::Begun) })
            }
            epoch => self.go_on(session_id, epoch, targets, &forgotten, by_topic_id, Instant::now()),
        }
    }

    fn forget(&self, session_id: i32) {
        self.sessions.lock().remove(session_id);
    }

    /// A session for these partitions, if there is room for it.
    fn begin(&self, targets: &[Target], by_topic_id: bool, now: Instant) -> Option<Arc<Mutex<Session>>> {
        let mut sessions = self.sessions.lock();
        let fits = |sessions: &Remembered| {
            sessions.by_id.len() < self.max_sessions
                && sessions.partitions.saturating_add(targets.len()) <= MAX_PARTITIONS
        };
        if !fits(&sessions) {
            sessions.evict(now);
        }
        if !fits(&sessions) {
            return None;
        }
        let id = sessions.new_id();
        let mut session = Session {
            id,
            epoch: INITIAL_EPOCH + 1,
            by_topic_id,
            places: HashMap::new(),
            partitions: BTreeMap::new(),
            next_place: 0,
        };
        targets.iter().for_each(|target| session.set(target.clone()));
        let partitions = session.partitions.len();
        let session = Arc::new(Mutex::new(session));
        sessions.partitions += partitions;
        sessions.by_id.insert(id, Entry { session: Arc::clone(&session), last_used: now, partitions });
        Some(session)
    }

    fn go_on(
        &self,
        session_id: i32,
        epoch: i32,
        targets: Vec<Target>,
        forgotten: &[Key],
        by_topic_id: bool,
        now: Instant,
    ) -> Result<Plan, ResponseError> {
        let mut sessions = self.sessions.lock();
        let Remembered { by_id, partitions: total } = &mut *sessions;
        let entry = by_id.get_mut(&session_id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        let mut session = entry.session.lock();
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.by_topic_id != by_topic_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        if total.saturating_add(targets.len()) > MAX_PARTITIONS {
            drop(session);
            sessions.remove(session_id);
            // The client begins anew, and gets a session if there is room.
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        targets.into_iter().for_each(|target| session.set(target));
        forgotten.iter().for_each(|key| session.drop_partition(key));
        *total = *total - entry.partitions + session.partitions.len();
        entry.partitions = session.partitions.len();
        entry.last_used = now;
        let targets = session.partitions.values().map(|remembering| remembering.target.clone()).collect();
        drop(session);
        Ok(Plan { targets, session: SessionUse::Continued(Arc::clone(&entry.session)) })
    }
}

impl Remembered {
    fn remove(&mut self, session_id: i32) {
        if let Some(entry) = self.by_id.remove(&session_id) {
            self.partitions = self.partitions.saturating_sub(entry.partitions);
        }
    }

    /// Forgets the session that was used longest ago, if that is long ago.
    fn evict(&mut self, now: Instant) {
        let oldest = self.by_id.iter().min_by_key(|(_, entry)| entry.last_used);
        if let Some((id, entry)) = oldest
            && now.saturating_duration_since(entry.last_used) >= EVICT_AFTER
        {
            let id = *id;
            self.remove(id);
        }
    }

    /// An id that isn't used: random, so that a client of an earlier process doesn't meet another's session.
    fn new_id(&self) -> i32 {
        loop {
            let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
            let id = i32::from_be_bytes([a & 0x7f, b, c, d]);
            if id != 0 && !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Session {
    /// Reads a partition from an offset on.
    fn set(&mut self, target: Target) {
        match self.places.get(&target.key()) {
            Some(place) => {
                if let Some(remembering) = self.partitions.get_mut(place) {
                    remembering.target = target;
                }
            }
            None => self.append(Remembering { target, told: None }),
        }
    }

    fn append(&mut self, remembering: Remembering) {
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(remembering.target.key(), place);
        self.partitions.insert(place, remembering);
    }

    fn drop_partition(&mut self, key: &Key) {
        if let Some(place) = self.places.remove(key) {
            self.partitions.remove(&place);
        }
    }

    /// Notes what the client is told of a partition. Whether it is news.
    fn tell(&mut self, target: &Target, changed: &Changed) -> bool {
        let Some(place) = self.places.get(&target.key()).copied() else { return true };
        let Some(remembering) = self.partitions.get_mut(&place) else { return true };
        let is_news = changed.has_records || changed.offsets.is_none() || remembering.told != changed.offsets;
        remembering.told = changed.offsets;
        if changed.has_records
            && let Some(remembering) = self.partitions.remove(&place)
        {
            self.append(remembering);
        }
        is_news
    }
}

impl SessionUse {
    /// Leaves what is news to the client, and gives the session's id; 0 without one.
    pub(super) fn finish(
        self,
        reads: &mut Vec<PartitionRead>,
        changed: impl Fn(&PartitionRead) -> Changed,
    ) -> i32 {
        match self {
            Self::None => 0,
            Self::Begun(session) => {
                let mut session = session.lock();
                for read in reads.iter() {
                    session.tell(&read.target, &changed(read));
                }
                session.id
            }
            Self::Continued(session) => {
                let mut session = session.lock();
                reads.retain(|read| session.tell(&read.target, &changed(read)));
                session.id
            }
        }
    }
}

fn targets(request: FetchRequest, by_topic_id: bool) -> Vec<Target> {
    let mut targets = Vec::new();
    for topic in request.topics {
        // Copied: a session outlives the frame.
        let name: Arc<str> = topic.topic.as_str().into();
        let topic_id = by_topic_id.then_some(topic.topic_id);
        targets.extend(topic.partitions.into_iter().map(|partition| Target {
            name: Arc::clone(&name),
            topic_id,
            index: partition.partition,
            offset: partition.fetch_offset,
            max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
        }));
    }
    targets
}

fn forgotten(request: &FetchRequest, by_topic_id: bool) -> Vec<Key> {
    let mut keys = Vec::new();
    for topic in &request.forgotten_topics_data {
        let name: Arc<str> = topic.topic.as_str().into();
        let topic_id = by_topic_id.then_some(topic.topic_id);
        keys.extend(topic.partitions.iter().map(|index| (Arc::clone(&name), topic_id, *index)));
    }
    keys
}

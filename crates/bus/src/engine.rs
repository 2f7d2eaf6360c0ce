//! The traits that an engine implements, and the words that go with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use farol_broker::{LeaveReason, RebalanceCause, RebalanceRecord};

use crate::kafka::MemberProof;
use crate::record::{ConsumedBatch, ProducerRecord, RecordMetadata, TopicPartition};

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name: letters, digits, `.`, `_`, `-`; at most 249 bytes.
    pub name: String,
    /// Number of partitions, from 1.
    pub partitions: i32,
    /// Kafka's topic configuration by Kafka's names: `cleanup.policy`, `retention.ms`, `retention.bytes`,
    /// `segment.bytes`, `compression.type`, … and Farol's `farol.sync` (`always`, `never`, or an interval such as `50ms`).
    pub config: BTreeMap<String, String>,
}

/// A topic as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: Arc<str>,
    /// Number of partitions.
    pub partitions: i32,
    /// Its configuration where it differs from the defaults.
    pub config: BTreeMap<String, String>,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one still stored.
    Earliest,
    /// The end: one after the last committed record.
    Latest,
    /// The first record with a timestamp of at least this many milliseconds since the Unix epoch; the end if there is none.
    Timestamp(i64),
}

/// Where a consumer starts in a partition for which its group has no committed offset, or whose offset is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first record still stored.
    Earliest,
    /// At the end.
    Latest,
}

/// Where a consumer without a group starts in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At this offset (clamped forward to the first one still stored).
    Offset(i64),
    /// At the first record still stored.
    Earliest,
    /// At the end.
    Latest,
}

/// How a consumer behaves.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// A name for people: the worker's name, shown on the pipeline page.
    pub client_id: String,
    /// The group, if the consumer is to share partitions with others.
    pub group: Option<String>,
    /// Where to start without a committed offset.
    pub offset_reset: OffsetReset,
    /// A member that has not been heard of for this long is expelled.
    pub session_timeout: Duration,
    /// A member that has not polled for this long is expelled even if it lives. Kafka takes it as no shorter than
    /// `session_timeout`.
    pub max_poll_interval: Duration,
    /// How many bytes of records one poll returns at most (one whole batch may exceed it).
    pub max_bytes: usize,
}

impl ConsumerSettings {
    /// A member of `group` with Kafka's defaults, starting at the earliest record.
    pub fn member(client_id: impl Into<String>, group: impl Into<String>) -> Self {
        Self { group: Some(group.into()), ..Self::standalone(client_id) }
    }

    /// A consumer without a group; give it partitions with [`Consumer::assign`].
    pub fn standalone(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            group: None,
            offset_reset: OffsetReset::Earliest,
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(300),
            max_bytes: 4 * 1024 * 1024,
        }
    }
}

/// Who a member is, at which generation: proof, when offsets are sent, that it is still a member. Given by
/// [`Consumer::group_metadata`] of the engine that is to check it.
#[derive(Debug, Clone, Default)]
pub struct GroupMetadata {
    /// The group.
    pub group: String,
    /// The member's id: the coordinator's, or, where the engine doesn't learn that one (Kafka), one of its own.
    pub member_id: String,
    /// Rises when the member's group is rebalanced: the coordinator's generation, or, where the engine doesn't learn that one
    /// (Kafka), how often this member has heard of an assignment.
    pub generation: i32,
    /// What the Kafka engine sends to the coordinator.
    pub(crate) proof: Option<Arc<MemberProof>>,
}

impl GroupMetadata {
    /// A member by what the coordinator knows of it.
    pub fn new(group: impl Into<String>, member_id: impl Into<String>, generation: i32) -> Self {
        Self { group: group.into(), member_id: member_id.into(), generation, proof: None }
    }
}

/// What a poll brought.
#[derive(Debug, Clone)]
pub enum Polled {
    /// Records. May be an empty list when the time was up.
    Records(Vec<ConsumedBatch>),
    /// These partitions are no longer this member's. Whatever it has not committed for them, the next owner does again.
    Revoked(Vec<TopicPartition>),
    /// These partitions are now this member's (in addition to those that it kept), at these offsets.
    Assigned(Assignment),
}

/// Partitions gained, with the offset that each starts from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// Partition and first offset to be polled.
    pub partitions: Vec<(TopicPartition, i64)>,
    /// The member's generation from now on; see [`GroupMetadata::generation`].
    pub generation: i32,
}

/// A group as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Its generation, which rises at every rebalance; `None` where the engine isn't told (Kafka).
    pub generation: Option<i32>,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`, as Kafka writes them.
    pub state: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Id given by the coordinator.
    pub member_id: String,
    /// The name that it gave itself.
    pub client_id: String,
    /// Where it calls from, as the coordinator sees it; `in-process` for one of the coordinator's own process.
    pub host: String,
    /// What it owns.
    pub assignment: Vec<TopicPartition>,
}

/// What can go wrong on a bus. [`BusError::is_retriable`] tells whose fault it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BusError {
    /// No such topic or partition.
    #[error("there is no {0}")]
    UnknownTopicOrPartition(String),
    /// A topic of that name exists.
    #[error("topic `{0}` exists already")]
    TopicExists(String),
    /// The name, partition count or configuration of a topic is not acceptable.
    #[error("topic `{topic}`: {problem}")]
    InvalidTopic {
        /// Which topic.
        topic: String,
        /// What is wrong.
        problem: String,
    },
    /// A record, or a whole request, is larger than the engine takes.
    #[error("{bytes} bytes are more than the {limit} that one {what} may have")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Offsets were sent by a member of an older generation, or a producer was replaced by a newer one.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The partition refuses appends after a failed write or fsync (disk full, broken disk). What was acknowledged stays
    /// readable.
    #[error("{partition} refuses appends: {problem}")]
    Poisoned {
        /// Which partition, or the whole log.
        partition: String,
        /// What failed, and what to do.
        problem: String,
    },
    /// A stored batch is damaged.
    #[error("{position} is damaged: {problem}")]
    Corrupt {
        /// Where.
        position: String,
        /// What was found.
        problem: String,
    },
    /// The engine is closing or closed.
    #[error("the bus is closed")]
    Closed,
    /// A broker is there, but it can't be used until somebody changes something.
    #[error("{obstacle} ({detail})")]
    NoAccess {
        /// What stands in the way.
        obstacle: Obstacle,
        /// What was seen of it.
        detail: String,
    },
    /// The engine can't be used for this at present.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// Nobody answers: no broker of the cluster can be reached at present.
    #[error("no broker answers")]
    Unreachable,
    /// The call makes no sense in the present state (commit without begin, assign with a group).
    #[error("{0}")]
    InvalidState(String),
}

/// What stands between a client and a broker that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The broker doesn't know the user, or not by this password.
    #[error("the broker takes no such user and password")]
    Credentials,
    /// The broker wants the password proven in another way.
    #[error("the broker takes another SASL mechanism")]
    Mechanism,
    /// Nobody who is trusted vouches for the broker's certificate, or it is out of date.
    #[error("the broker's certificate is not trusted")]
    Certificate,
    /// The broker's certificate is for other host names than the one that was connected to.
    #[error("the broker's certificate is for another host name")]
    HostName,
    /// TLS was begun, and the broker ended the connection: it seems to speak plain text.
    #[error("the broker ends connections by TLS; it seems to speak plain text")]
    NotTls,
    /// Plain text was begun, and the broker ended the connection: it seems to speak TLS.
    #[error("the broker ends connections in plain text; it seems to speak TLS")]
    Tls,
    /// The broker ended a connection whose client hadn't said who it is.
    #[error("the broker ends connections of clients that don't say who they are")]
    NoUser,
}

impl Obstacle {
    /// Whether the broker has said so itself. What it seems to be may also be a broker that is just starting or stopping.
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Credentials | Self::Mechanism | Self::Certificate | Self::HostName)
    }
}

impl BusError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retriable(&self) -> bool {
        matches!(self, BusError::Unavailable(_) | BusError::Unreachable)
    }
}

/// An engine. Cheap to clone behind an [`Arc`].
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Asks whether the engine answers at all. An embedded one always does.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] if nobody answers within `limit`, [`BusError::NoAccess`] if somebody is there who can't be used.
    async fn check(&self, _limit: Duration) -> Result<(), BusError> {
        Ok(())
    }

    /// Creates a topic. Returns when it can be used.
    async fn create_topic(&self, spec: TopicSpec) -> Result<(), BusError>;

    /// Gives a topic another configuration, in place of all that it had. Returns when it is in force.
    async fn configure_topic(&self, topic: &str, config: BTreeMap<String, String>) -> Result<(), BusError>;

    /// Gives a topic so many partitions, if it has fewer. Returns when they can be used; over Kafka, a producer that was made before may
    /// take a while to know of them.
    async fn grow_topic(&self, topic: &str, partitions: i32) -> Result<(), BusError>;

    /// Every topic, by name.
    async fn topics(&self) -> Result<Vec<TopicDescription>, BusError>;

    /// The offset of each given partition that fits the specification.
    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>, BusError>;

    /// Like [`Bus::offsets`], but without partitions that aren't there: a group may be assigned, and have committed, some that
    /// were deleted meanwhile.
    async fn known_offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        let topics = self.topics().await?;
        let counts: BTreeMap<&str, i32> =
            topics.iter().map(|topic| (&*topic.name, topic.partitions)).collect();
        let is_known = |partition: &&TopicPartition| {
            counts.get(&*partition.topic).is_some_and(|count| (0..*count).contains(&partition.partition))
        };
        let known: Vec<TopicPartition> = partitions.iter().filter(is_known).cloned().collect();
        match self.offsets(&known, spec).await {
            // One went between the two questions: one by one, then.
            Err(BusError::UnknownTopicOrPartition(_)) => {
                let mut found = BTreeMap::new();
                for partition in &known {
                    match self.offsets(std::slice::from_ref(partition), spec).await {
                        Err(BusError::UnknownTopicOrPartition(_)) => {}
                        other => found.extend(other?),
                    }
                }
                Ok(found)
            }
            other => other,
        }
    }

    /// A producer whose records stand alone.
    async fn producer(&self, client_id: &str) -> Result<Arc<dyn Producer>, BusError>;

    /// A producer of transactions. A newer one with the same transactional id fences an older one.
    async fn transactional_producer(
        &self,
        transactional_id: &str,
    ) -> Result<Box<dyn TransactionalProducer>, BusError>;

    /// A consumer; see [`ConsumerSettings`].
    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, BusError>;

    /// Every consumer group that has members or committed offsets.
    async fn groups(&self) -> Result<Vec<GroupDescription>, BusError>;

    /// The committed offsets of a group.
    async fn committed(&self, group: &str) -> Result<BTreeMap<TopicPartition, i64>, BusError>;

    /// Finished rebalances after this call, as they happen, for as long as the receiver lives; a receiver that is too slow
    /// misses the oldest and is told how many. An engine that can't see them (Kafka) gives those of its own members.
    fn rebalances(&self) -> tokio::sync::broadcast::Receiver<RebalanceRecord>;
}

/// Sends records that stand alone. Shared; calls from several tasks are grouped into common commits.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Sends records to one topic and returns when all are durable, with where each stands, in order. Records that go to the
    /// same partition keep their order. On an error, none, some or (after a crash) all of the records may be stored; of a record that
    /// is too large, nothing ever is.
    async fn send(&self, topic: &str, records: Vec<ProducerRecord>) -> Result<Vec<RecordMetadata>, BusError>;
}

/// Sends records and offsets that become visible together or not at all. One transaction at a time.
#[async_trait]
pub trait TransactionalProducer: Send {
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), BusError>;

    /// Adds records to the transaction. What is wrong with them may be told here or by the commit; afterwards the transaction
    /// can only be aborted.
    async fn send(&mut self, topic: &str, records: Vec<ProducerRecord>) -> Result<(), BusError>;

    /// Adds consumed offsets (the next offset to read, per partition) of the member that `group` names.
    async fn send_offsets(
        &mut self,
        offsets: BTreeMap<TopicPartition, i64>,
        group: &GroupMetadata,
    ) -> Result<(), BusError>;

    /// Commits: when this returns `Ok`, records and offsets are durable and visible. [`BusError::Fenced`] means that nothing
    /// is ever seen of it, because the member's generation is over (drop the state and poll) or a newer producer has the
    /// transactional id. After [`BusError::Unavailable`] nobody knows, and this producer can't be used any more: a new one with the same
    /// id finds it settled one way or the other. Any error ends the transaction.
    async fn commit(&mut self) -> Result<(), BusError>;

    /// Gives the transaction up; nothing of it is ever seen.
    async fn abort(&mut self) -> Result<(), BusError>;
}

/// Reads records.
#[async_trait]
pub trait Consumer: Send {
    /// Joins the group of the settings for these topics. Partitions come with a later poll.
    async fn subscribe(&mut self, topics: &[&str]) -> Result<(), BusError>;

    /// Reads these partitions, for a consumer without a group. Replaces what was assigned before.
    async fn assign(&mut self, partitions: Vec<(TopicPartition, StartAt)>) -> Result<(), BusError>;

    /// Waits up to `timeout` for records or a change of assignment. Also the sign of life that the group waits for, and
    /// the acknowledgement of an earlier `Revoked`. Cancel-safe: a dropped call loses no record.
    async fn poll(&mut self, timeout: Duration) -> Result<Polled, BusError>;

    /// The offset from which this partition will be polled next: everything committed before it has been polled. Also moves, a
    /// little later perhaps, over what lies between records (the markers of transactions). `None` if the partition isn't this
    /// consumer's.
    fn position(&self, partition: &TopicPartition) -> Option<i64>;

    /// The next poll of this partition starts at `offset`.
    fn seek(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), BusError>;

    /// Commits offsets (the next offset to read) outside any transaction.
    async fn commit(&mut self, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), BusError>;

    /// Who this member is at present; goes with offsets that a transaction sends.
    fn group_metadata(&self) -> GroupMetadata;

    /// Leaves the group, if in one, so that its partitions move at once. Dropping without closing does the same in the
    /// background.
    async fn close(&mut self) -> Result<(), BusError>;
}

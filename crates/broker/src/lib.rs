//! The embedded engine: topics, the group coordinator, committed offsets and transactions, over the log.
//!
//! It stores and hands out whole record batches and knows who may; it neither makes events nor reads them. `farol-bus`
//! puts records in and takes them out; [`kafka`] does so for clients on the network.
//!
//! # Limits
//!
//! One process, one copy of the data. [`MAX_PARTITIONS`] partitions a topic, [`BrokerOptions::max_partitions`] in all; a record, a request, a name and the bytes
//! on their way have bounds with names ([`TopicConfig::max_message_bytes`], [`Broker::max_request_bytes`],
//! [`MAX_NAME_BYTES`], [`BrokerOptions::max_in_flight_bytes`]).
//!
//! # Layout
//!
//! In the data folder: `topics.json`, the list of topics with their configuration, replaced as a whole; and the log's
//! files. Partition 3 of topic `t` is the log's partition `t-3`. Committed offsets are records of the compacted topic
//! [`OFFSETS_TOPIC`], in Kafka's layout; transactional ids and what their open transactions hold, records of
//! [`TRANSACTIONS_TOPIC`]. What a partition remembers of producers stands in a file beside its segments.
//!
//! # Main flow
//!
//! A sender encodes records into [`TopicBatches`] on its own thread and gives them to [`Broker::append`], which bounds
//! the bytes on their way and resolves when the thread that commits says so. A reader reads a partition through a
//! [`PartitionReader`]. A member of a group ([`Member`]) learns from its polls what is its own. A
//! transaction inside the process ([`TransactionalId::commit`]) is one append to many partitions, committed offsets among
//! them, with a precondition that the thread that commits checks: that is why nothing half-done can ever be read and no marker is
//! needed. Kafka clients send whole batches ([`Broker::begin_produce`]), once each if they are idempotent, and those of a
//! transaction count when it ends ([`Broker::end_transaction`]).
//!
//! # Failures
//!
//! A failed write or sync makes a partition, or all, refuse appends ([`BrokerError::Poisoned`]) while reads go on; after a full disk
//! they are taken again by themselves. A
//! killed process loses nothing acknowledged; members and the epochs of producers inside it are gone with it, offsets, Kafka
//! clients' producers and their open transactions stay.
//!
//! Modules, in reading order: [`coordinator`] (pure), `topic`, `batches`, `groups` (the fence), `member`, `transaction`, `producers`
//! (what partitions remember), `transactions` (of Kafka clients), `produce`, `fetch`, `broker`, [`kafka`].

mod batches;
mod broker;
mod clock;
pub mod coordinator;
mod error;
mod fetch;
mod groups;
pub mod kafka;
mod last_alive;
mod member;
mod offsets;
mod partition;
pub mod partitioner;
mod produce;
mod producers;
mod stats;
mod topic;
mod transaction;
mod transactions;

pub use batches::{PartitionBatches, RecordToEncode, TopicBatches, encoded_size_hint};
pub use broker::{AppendUnderWay, Broker, BrokerOptions, poll_pace};
pub use coordinator::rebalance::{LeaveReason, RebalanceCause, RebalanceRecord};
pub use coordinator::{
    CommitCheck, Committer, GroupError, GroupState, Joined, JoinedMember, Leaving, MemberDescription,
    MemberRef, Protocol, Synced,
};
pub use error::{BrokerError, OpenError};
pub use fetch::{FetchedBatches, Isolation, LocatedBatches, PartitionReader};
pub use groups::{
    CommittedOffset, DescribedGroup, FetchedOffset, GroupOptions, GroupSnapshot, JoinRequest, LeftOffsets,
    MAX_GROUP_HELD_BYTES, MAX_HELD_BYTES, MAX_METADATA_BYTES, MAX_NAME_BYTES, MAX_OFFSET_METADATA_BYTES,
    MAX_PROTOCOLS, Membership, OffsetCommit, SMALL_BYTES, SyncRequest,
};
pub use member::{Member, MemberNews, MemberSettings};
pub use partition::TopicPartition;
pub use produce::Producing;
pub use producers::{
    AbortedTransaction, Fate, MAX_PRODUCERS, MAX_REMEMBERED_BATCHES, ProducerDescription, ProducerError,
    ProducerLimits, ProducerStats,
};
pub use stats::{BrokerStats, GroupPartitionStats, GroupStats, TopicStats};
pub use topic::{
    CONFIG_KEYS, CleanupPolicy, ConfigKey, ConfigKind, Effect, MAX_PARTITIONS, OFFSETS_TOPIC, Topic,
    TopicConfig,
};
pub use transaction::TransactionalId;
pub use transactions::{
    MAX_OPEN_PARTITIONS, MAX_TRANSACTION_GROUPS, MAX_TRANSACTION_PARTITIONS, MAX_TRANSACTION_TIMEOUT,
    MAX_TRANSACTIONAL_IDS, PRODUCER_ID_BLOCK, ProducerIdentity, Status, TRANSACTIONS_TOPIC, TransactionError,
    Transactional,
};

//! Publish, subscribe, consumer groups and transactions, as the rest of Farol sees them.
//!
//! Two kinds of engine fit behind these traits: Farol's own log (the [`embedded`] engine, over `farol-broker`) and
//! Apache Kafka. The words are Kafka's where Kafka has words, and there is no method that Kafka can't honour:
//!
//! * a record is acknowledged when it is as durable as its topic's policy asks (`acks=all`);
//! * a transactional producer's records and the offsets that it sends commit together or not at all, and consumers
//!   read committed records only;
//! * a consumer of a group learns of lost and gained partitions from [`Consumer::poll`], in order, and the sending of
//!   offsets by a member of an older generation is refused ([`BusError::Fenced`]).
//!
//! Modules, in reading order: [`record`] (what is sent and polled), [`engine`] (the traits), [`embedded`], [`kafka`],
//! [`event_bus`] (handlers in the same process, over any engine).

pub mod embedded;
pub mod engine;
pub mod event_bus;
pub mod kafka;
pub mod record;

pub use engine::{
    Assignment, Bus, BusError, Consumer, ConsumerSettings, GroupDescription, GroupMember, GroupMetadata,
    LeaveReason, Obstacle, OffsetReset, OffsetSpec, Polled, Producer, RebalanceCause, RebalanceRecord,
    StartAt, TopicDescription, TopicSpec, TransactionalProducer,
};
pub use event_bus::{EventBus, EventBusSettings, Received, Subscription, SubscriptionSettings};
pub use farol_broker::partitioner::partition_for_key;
pub use record::{
    ConsumedBatch, ConsumedRecord, Partitioning, ProducerRecord, RecordMetadata, TopicPartition,
};

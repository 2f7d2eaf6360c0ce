//! The embedded engine: topics, the group coordinator, committed offsets and transactions, over the log.

pub mod coordinator;
mod partition;

pub use coordinator::rebalance::{LeaveReason, RebalanceCause, RebalanceRecord};
pub use partition::TopicPartition;

//! The name of one partition of one topic.

use std::fmt;
use std::sync::Arc;

use farol_event::Position;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Names one partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }

    /// The position of `offset` in this partition.
    pub fn at(&self, offset: i64) -> Position {
        Position { topic: Arc::clone(&self.topic), partition: self.partition, offset }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

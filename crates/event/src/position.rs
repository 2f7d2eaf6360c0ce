//! Where a record stands in the log.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where one record stands: topic, partition, offset. Written `topic/partition@offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Position {
    /// The topic's name.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
    /// The record's offset within the partition, from 0.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

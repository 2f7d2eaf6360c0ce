//! The name of a partition, which is also the name of its directory.

use std::fmt;
use std::sync::Arc;

/// Longest name: what Kafka allows for a topic, and room for the partition's number.
const MAX_BYTES: usize = 249 + 1 + 10;

/// The name of a partition, such as `sensor-data-0`: letters, digits, `.`, `_` and `-`, not beginning with a dot. It
/// names the partition's directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(Arc<str>);

/// Why a text can't name a partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` can't name a partition: 1 to {MAX_BYTES} letters, digits, `.`, `_`, `-`, no dot in front")]
pub struct PartitionIdError {
    name: String,
}

impl PartitionId {
    /// Checks the name.
    ///
    /// # Errors
    /// [`PartitionIdError`] for a name that isn't a safe directory name.
    pub fn new(name: &str) -> Result<Self, PartitionIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=MAX_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(PartitionIdError { name: name.chars().take(80).collect() })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\0", &"x".repeat(300)] {
            assert!(PartitionId::new(name).is_err(), "{name:?}");
        }
        assert_eq!(PartitionId::new("sensor-data-0").unwrap().as_str(), "sensor-data-0");
    }
}

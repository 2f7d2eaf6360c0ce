//! What was refused of a request, by index, with the reason.

use farol_event::{EventError, ReadingError};
use serde::Serialize;
use utoipa::ToSchema;

/// How many rejections one answer lists; the rest is only counted.
pub const MAX_LISTED: usize = 100;

/// One refused part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rejection {
    /// Its place in the request, from 0: in the array, or the line (empty ones count) of newline-delimited JSON.
    #[schema(minimum = 0)]
    pub index: usize,
    /// What is wrong with it.
    #[schema(example = "missing field `value`")]
    pub error: String,
}

/// What every answer says of what was sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// How many are stored durably.
    #[schema(minimum = 0, example = 1)]
    pub accepted: u64,
    /// The first hundred that were refused.
    #[schema(max_items = 100)]
    pub rejected: Vec<Rejection>,
    /// How many were refused.
    #[schema(minimum = 0, example = 0)]
    pub rejected_total: u64,
}

/// Why something was refused, as a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// Not JSON, or a field of the wrong type, or a required field missing.
    Malformed,
    /// Too many bytes.
    TooLong,
    /// A field whose content is not acceptable.
    InvalidField,
    /// A timestamp that can't be read or can't be true.
    Timestamp,
    /// A type that only Farol itself may write.
    Reserved,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 5] =
        [Reason::Malformed, Reason::TooLong, Reason::InvalidField, Reason::Timestamp, Reason::Reserved];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::TooLong => "too_long",
            Reason::InvalidField => "invalid_field",
            Reason::Timestamp => "timestamp",
            Reason::Reserved => "reserved_type",
        }
    }
}

impl From<&ReadingError> for Reason {
    fn from(error: &ReadingError) -> Self {
        match error {
            ReadingError::Malformed(_) => Reason::Malformed,
            ReadingError::TooLong { .. } => Reason::TooLong,
            ReadingError::SensorId(_)
            | ReadingError::Label { .. }
            | ReadingError::ValueNotFinite
            | ReadingError::Quality(_)
            | ReadingError::Metadata
            | ReadingError::TooManyUnknownFields => Reason::InvalidField,
            ReadingError::Timestamp(_) | ReadingError::AbsurdTimestamp { .. } => Reason::Timestamp,
        }
    }
}

impl From<&EventError> for Reason {
    fn from(error: &EventError) -> Self {
        match error {
            EventError::TooLong { .. } => Reason::TooLong,
            EventError::Malformed(_) | EventError::Missing(_) => Reason::Malformed,
            EventError::Attribute { .. } => Reason::InvalidField,
            EventError::Time(_) | EventError::TimeAhead(_) => Reason::Timestamp,
        }
    }
}

/// The rejections of one request: a list of the first [`MAX_LISTED`], and counts.
#[derive(Debug, Default)]
pub struct Rejections {
    listed: Vec<Rejection>,
    by_reason: [u64; Reason::ALL.len()],
}

impl Rejections {
    /// Adds one.
    pub fn push(&mut self, index: usize, reason: Reason, error: &impl ToString) {
        if let Some(count) = self.by_reason.get_mut(reason as usize) {
            *count += 1;
        }
        if self.listed.len() < MAX_LISTED {
            self.listed.push(Rejection { index, error: error.to_string() });
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.by_reason.iter().sum()
    }

    /// The first ones.
    pub fn listed(&self) -> &[Rejection] {
        &self.listed
    }

    /// What the answer says, when the rest is durable.
    pub fn into_answer(self, accepted: u64) -> Accepted {
        Accepted { accepted, rejected_total: self.total(), rejected: self.listed }
    }

    /// How many for each reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.by_reason.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_capped_and_the_count_is_not() {
        let mut rejections = Rejections::default();
        for index in 0..250 {
            rejections.push(index, Reason::Malformed, &"no");
        }
        rejections.push(250, Reason::Timestamp, &"no");
        assert_eq!(rejections.listed().len(), MAX_LISTED);
        assert_eq!(rejections.total(), 251);
        assert_eq!(
            rejections.by_reason().find(|(r, _)| *r == Reason::Timestamp),
            Some((Reason::Timestamp, 1))
        );
    }
}

//! Control batches: the markers that end a transaction of a producer in a partition.
//!
//! A marker is a batch with the transactional and the control bit and one record. The record's key is a version `i16` (0)
//! and a type `i16` (0 aborts, 1 commits), its value a version `i16` (0) and the coordinator's epoch `i32`; all big-endian.
//! Source: `EndTransactionMarker` in <https://kafka.apache.org/documentation/#controlbatch>.

use super::builder::{self, BatchProducer};
use super::{Batch, BatchBuilder, BatchError};

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;
/// One coordinator, which is never elected.
const COORDINATOR_EPOCH: i32 = 0;

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Its records don't count.
    Abort,
    /// Its records count.
    Commit,
}

impl Batch {
    /// The marker that ends the transaction of a producer.
    ///
    /// # Errors
    /// [`BatchError::TooLarge`], which a marker's few bytes never give.
    pub fn marker(
        marker: Marker,
        producer_id: i64,
        producer_epoch: i16,
        timestamp_ms: i64,
    ) -> Result<Self, BatchError> {
        let kind = match marker {
            Marker::Abort => ABORT,
            Marker::Commit => COMMIT,
        };
        let key = [VERSION.to_be_bytes(), kind.to_be_bytes()].concat();
        let mut value = VERSION.to_be_bytes().to_vec();
        value.extend_from_slice(&COORDINATOR_EPOCH.to_be_bytes());
        let producer =
            BatchProducer { producer_id, producer_epoch, base_sequence: -1, is_transactional: true };
        let mut builder = BatchBuilder::default().written_by(producer);
        builder.push(Some(&key), Some(&value), &[], timestamp_ms)?;
        builder::build_control(builder)
    }

    /// The marker that this batch is. `None` for records of users and for control records of other types.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn as_marker(&self) -> Result<Option<Marker>, BatchError> {
        if !self.header().is_control() {
            return Ok(None);
        }
        let Some(record) = self.records()?.next().transpose()? else { return Ok(None) };
        // Later versions may add fields behind these.
        let kind = record.key.as_deref().and_then(|key| key.get(2..4)?.first_chunk().copied());
        Ok(match kind.map(i16::from_be_bytes) {
            Some(ABORT) => Some(Marker::Abort),
            Some(COMMIT) => Some(Marker::Commit),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::BatchLimits;
    use super::*;

    #[test]
    fn a_marker_reads_back_and_has_kafkas_bytes() {
        let commit = Batch::marker(Marker::Commit, 7, 3, 1_758_058_901_011).unwrap();
        let header = commit.header();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, -1));
        // Record: length 16, attributes, timestamp and offset delta 0, key of 4 bytes, value of 6, no headers.
        let record = [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(commit.bytes().get(61..).unwrap(), record);
        let limits = BatchLimits::default();
        let read = Batch::validate(Bytes::copy_from_slice(commit.bytes()), &limits).unwrap();
        assert_eq!(read.as_marker().unwrap(), Some(Marker::Commit));
        let abort = Batch::marker(Marker::Abort, 7, 3, 0).unwrap();
        assert_eq!(abort.as_marker().unwrap(), Some(Marker::Abort));
    }

    #[test]
    fn records_of_users_are_no_markers() {
        let mut builder = BatchBuilder::default();
        builder.push(Some(&[0, 0, 0, 1]), None, &[], 0).unwrap();
        assert_eq!(builder.build().unwrap().as_marker().unwrap(), None);
    }
}

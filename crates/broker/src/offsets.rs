//! Committed offsets: how they stand in the compacted topic [`crate::OFFSETS_TOPIC`].
//!
//! Keys and values have Kafka's own layout (`OffsetCommitKey` version 1, `OffsetCommitValue` version 3), big-endian:
//!
//! * key: version `i16` = 1, group (string), topic (string), partition `i32`;
//! * value: version `i16` = 3, offset `i64`, leader epoch `i32` (−1 if not known), metadata (string), commit time `i64` ms.
//!   No value: the offset was deleted.
//!
//! A string is its length as `i16` and its UTF-8 bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use farol_log::{Batch, BatchBuilder, Partition};

use crate::error::BrokerError;
use crate::groups::{CommittedOffset, MAX_NAME_BYTES, MAX_OFFSET_METADATA_BYTES, OffsetChange};
use crate::partition::TopicPartition;
use crate::topic::{OFFSETS_TOPIC, read_records};

/// Committed offsets by group.
pub(crate) type CommittedOffsets = BTreeMap<String, BTreeMap<TopicPartition, CommittedOffset>>;

const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;

/// The records of changes as one batch, all committed at `now_ms`; `None` if they hold no offset.
pub(crate) fn encode(changes: &mut [OffsetChange], now_ms: i64) -> Result<Option<Batch>, BrokerError> {
    let mut builder = BatchBuilder::default();
    for change in changes {
        let bytes = change.group().len();
        if bytes > MAX_NAME_BYTES {
            return Err(BrokerError::TooLarge { what: "group name", bytes, limit: MAX_NAME_BYTES });
        }
        match change {
            OffsetChange::Commit(commit) => {
                for (partition, offset) in &mut commit.offsets {
                    offset.committed_at_ms = now_ms;
                    let (key, value) = (encode_key(&commit.group, partition), encode_value(offset));
                    builder.push(Some(&key), Some(&value), &[], now_ms).map_err(BrokerError::Encode)?;
                }
            }
            OffsetChange::Delete(deletion) => {
                for partition in &deletion.partitions {
                    let key = encode_key(&deletion.group, partition);
                    builder.push(Some(&key), None, &[], now_ms).map_err(BrokerError::Encode)?;
                }
            }
        }
    }
    if builder.is_empty() { Ok(None) } else { builder.build().map(Some).map_err(BrokerError::Encode) }
}

/// The newest committed offset of every group and partition.
pub(crate) fn load(partition: &Partition) -> Result<CommittedOffsets, BrokerError> {
    let mut committed = CommittedOffsets::new();
    let mut unknown = 0u64;
    read_records(OFFSETS_TOPIC, partition, |key, value| match (decode_key(key), value) {
        (Some((group, partition)), None) => {
            committed.entry(group).or_default().remove(&partition);
        }
        (Some((group, partition)), Some(value)) => match decode_value(value) {
            Some(offset) => {
                committed.entry(group).or_default().insert(partition, offset);
            }
            None => unknown += 1,
        },
        (None, _) => unknown += 1,
    })?;
    if unknown > 0 {
        tracing::warn!(unknown, topic = OFFSETS_TOPIC, "records of an unknown layout were skipped");
    }
    committed.retain(|_, offsets| !offsets.is_empty());
    Ok(committed)
}

/// The key of a group's offset in a partition. Names are bounded far below what the length field holds.
pub(crate) fn encode_key(group: &str, partition: &TopicPartition) -> Vec<u8> {
    let mut out = Vec::with_capacity(10 + group.len() + partition.topic.len());
    out.put_i16(KEY_VERSION);
    put_string(&mut out, group);
    put_string(&mut out, &partition.topic);
    out.put_i32(partition.partition);
    out
}

/// The value of a committed offset.
pub(crate) fn encode_value(committed: &CommittedOffset) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 + committed.metadata.len());
    out.put_i16(VALUE_VERSION);
    out.put_i64(committed.offset);
    out.put_i32(committed.leader_epoch);
    put_string(&mut out, &committed.metadata);
    out.put_i64(committed.committed_at_ms);
    out
}

/// Reads a key; `None` if it isn't one of this version.
pub(crate) fn decode_key(mut bytes: &[u8]) -> Option<(String, TopicPartition)> {
    if bytes.try_get_i16().ok()? != KEY_VERSION {
        return None;
    }
    let group = get_string(&mut bytes)?;
    let topic: Arc<str> = get_string(&mut bytes)?.into();
    let partition = bytes.try_get_i32().ok()?;
    bytes.is_empty().then(|| (group, TopicPartition::new(topic, partition)))
}

/// Reads a value; `None` if it isn't one of this version.
pub(crate) fn decode_value(mut bytes: &[u8]) -> Option<CommittedOffset> {
    if bytes.try_get_i16().ok()? != VALUE_VERSION {
        return None;
    }
    let offset = bytes.try_get_i64().ok()?;
    let leader_epoch = bytes.try_get_i32().ok()?;
    let metadata = get_string(&mut bytes)?;
    let committed_at_ms = bytes.try_get_i64().ok()?;
    let fits = bytes.is_empty() && metadata.len() <= MAX_OFFSET_METADATA_BYTES;
    fits.then_some(CommittedOffset { offset, leader_epoch, metadata, committed_at_ms })
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Names and metadata are checked against their bounds before they come here, topics against their own.
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    out.put_i16(length);
    out.extend_from_slice(text.as_bytes());
}

fn get_string(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_kafkas() {
        let key = encode_key("g", &TopicPartition::new("tt", 3));
        assert_eq!(key, [0, 1, 0, 1, b'g', 0, 2, b't', b't', 0, 0, 0, 3]);
        let value = encode_value(&CommittedOffset { committed_at_ms: 7, ..CommittedOffset::new(5) });
        assert_eq!(
            value,
            [0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(
            group in ".{0,40}",
            topic in "[a-z]{1,20}",
            partition: i32,
            offset: i64,
            leader_epoch: i32,
            metadata in ".{0,40}",
            committed_at_ms: i64,
        ) {
            let tp = TopicPartition::new(topic.as_str(), partition);
            prop_assert_eq!(decode_key(&encode_key(&group, &tp)), Some((group, tp)));
            let committed = CommittedOffset { offset, leader_epoch, metadata, committed_at_ms };
            prop_assert_eq!(decode_value(&encode_value(&committed)), Some(committed));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_key(&bytes);
            let _ = decode_value(&bytes);
        }
    }
}

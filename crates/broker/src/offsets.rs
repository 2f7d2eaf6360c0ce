//! Committed offsets: how they stand in the compacted topic [`crate::OFFSETS_TOPIC`].
//!
//! Keys and values have Kafka's own layout (`OffsetCommitKey` version 1, `OffsetCommitValue` version 3), big-endian:
//!
//! * key: version `i16` = 1, group (string), topic (string), partition `i32`;
//! * value: version `i16` = 3, offset `i64`, leader epoch `i32` = -1, metadata (string, empty), commit time `i64` ms.
//!
//! A string is its length as `i16` and its UTF-8 bytes.

use std::sync::Arc;

use bytes::{Buf, BufMut};

use crate::partition::TopicPartition;

const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 3;
const NO_LEADER_EPOCH: i32 = -1;

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
pub(crate) fn encode_value(offset: i64, committed_at_ms: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    out.put_i16(VALUE_VERSION);
    out.put_i64(offset);
    out.put_i32(NO_LEADER_EPOCH);
    put_string(&mut out, "");
    out.put_i64(committed_at_ms);
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

/// Reads the offset of a value; `None` if it isn't one of this version.
pub(crate) fn decode_value(mut bytes: &[u8]) -> Option<i64> {
    if bytes.try_get_i16().ok()? != VALUE_VERSION {
        return None;
    }
    let offset = bytes.try_get_i64().ok()?;
    bytes.try_get_i32().ok()?;
    get_string(&mut bytes)?;
    bytes.try_get_i64().ok()?;
    bytes.is_empty().then_some(offset)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Groups are checked against MAX_GROUP_BYTES before they come here, topics against their own bound.
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
        let value = encode_value(5, 7);
        assert_eq!(
            value,
            [0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(group in ".{0,40}", topic in "[a-z]{1,20}", partition: i32, offset: i64, at: i64) {
            let tp = TopicPartition::new(topic.as_str(), partition);
            prop_assert_eq!(decode_key(&encode_key(&group, &tp)), Some((group, tp)));
            prop_assert_eq!(decode_value(&encode_value(offset, at)), Some(offset));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_key(&bytes);
            let _ = decode_value(&bytes);
        }
    }
}

//! How transactional ids stand in the compacted topic [`crate::TRANSACTIONS_TOPIC`].
//!
//! Keys and values have Kafka's own layout (`TransactionLogKey` version 0, `TransactionLogValue` version 0), big-endian:
//!
//! * key: version `i16` = 0, transactional id (string);
//! * value: version `i16` = 0, producer id `i64`, epoch `i16`, timeout `i32` ms, status `i8`, topics (array: name, array of
//!   partitions `i32`; the array is null outside a transaction), last change `i64` ms, start `i64` ms (-1 if none).
//!
//! One more key, which Kafka doesn't have, holds how far producer ids were handed out:
//!
//! * key: version `i16` = 100; value: version `i16` = 0, the first id that is free `i64`.
//!
//! A string is its length as `i16` and its UTF-8 bytes; an array is its length as `i32` (-1: null) and its elements.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::state::{Status, Transactional};
use crate::partition::TopicPartition;

const ID_KEY_VERSION: i16 = 0;
const NEXT_PRODUCER_ID_KEY_VERSION: i16 = 100;
const VALUE_VERSION: i16 = 0;

/// What a record of the topic says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StateRecord {
    /// A transactional id stands so.
    Id(String, Box<Transactional>),
    /// A transactional id was forgotten.
    Forgotten(String),
    /// Ids from here on were never handed out.
    NextProducerId(i64),
}

impl StateRecord {
    pub(crate) fn encode_key(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Id(id, _) | Self::Forgotten(id) => {
                out.put_i16(ID_KEY_VERSION);
                put_string(&mut out, id);
            }
            Self::NextProducerId(_) => out.put_i16(NEXT_PRODUCER_ID_KEY_VERSION),
        }
        out
    }

    /// `None` for a tombstone.
    pub(crate) fn encode_value(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        out.put_i16(VALUE_VERSION);
        match self {
            Self::Id(_, state) => encode_state(&mut out, state),
            Self::Forgotten(_) => return None,
            Self::NextProducerId(next) => out.put_i64(*next),
        }
        Some(out)
    }

    /// `None` for a layout that isn't known.
    pub(crate) fn decode(mut key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        match (key.try_get_i16().ok()?, value) {
            (ID_KEY_VERSION, value) => {
                let id = get_string(&mut key)?;
                let Some(value) = value else { return Some(Self::Forgotten(id)) };
                decode_state(value).map(|state| Self::Id(id, Box::new(state)))
            }
            (NEXT_PRODUCER_ID_KEY_VERSION, Some(mut value)) => {
                let version = value.try_get_i16().ok()?;
                let next = value.try_get_i64().ok()?;
                (version == VALUE_VERSION && value.is_empty()).then_some(Self::NextProducerId(next))
            }
            _ => None,
        }
    }
}

fn encode_state(out: &mut Vec<u8>, state: &Transactional) {
    out.put_i64(state.producer_id);
    out.put_i16(state.epoch);
    out.put_i32(state.timeout_ms);
    out.put_i8(state.status.code());
    if state.status == Status::Ongoing {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in &state.partitions {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        out.put_i32(array_length(topics.len()));
        for (topic, partitions) in topics {
            put_string(out, topic);
            out.put_i32(array_length(partitions.len()));
            for partition in partitions {
                out.put_i32(partition);
            }
        }
    } else {
        out.put_i32(-1);
    }
    out.put_i64(state.changed_at_ms);
    out.put_i64(state.started_at_ms);
}

fn decode_state(mut value: &[u8]) -> Option<Transactional> {
    let value = &mut value;
    if value.try_get_i16().ok()? != VALUE_VERSION {
        return None;
    }
    let mut state = Transactional {
        producer_id: value.try_get_i64().ok()?,
        epoch: value.try_get_i16().ok()?,
        timeout_ms: value.try_get_i32().ok()?,
        status: Status::from_code(value.try_get_i8().ok()?)?,
        ..Transactional::default()
    };
    for _ in 0..value.try_get_i32().ok()? {
        let topic: Arc<str> = get_string(value)?.into();
        for _ in 0..value.try_get_i32().ok()? {
            state.partitions.insert(TopicPartition::new(Arc::clone(&topic), value.try_get_i32().ok()?));
        }
    }
    state.changed_at_ms = value.try_get_i64().ok()?;
    state.started_at_ms = value.try_get_i64().ok()?;
    value.is_empty().then_some(state)
}

fn array_length(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Ids are checked against MAX_NAME_BYTES before they come here, topics against their own bound.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
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

    fn ongoing() -> Transactional {
        Transactional {
            producer_id: 7,
            epoch: 2,
            timeout_ms: 60_000,
            status: Status::Ongoing,
            partitions: [TopicPartition::new("tt", 0), TopicPartition::new("tt", 3)].into(),
            changed_at_ms: 5,
            started_at_ms: 4,
            ..Transactional::default()
        }
    }

    #[test]
    fn the_layout_is_kafkas() {
        let record = StateRecord::Id("x".to_owned(), Box::new(ongoing()));
        assert_eq!(record.encode_key(), [0, 0, 0, 1, b'x']);
        #[rustfmt::skip]
        let expected = [
            0, 0, // version
            0, 0, 0, 0, 0, 0, 0, 7, // producer id
            0, 2, // epoch
            0, 0, 0xea, 0x60, // timeout
            1, // ongoing
            0, 0, 0, 1, 0, 2, b't', b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3,
            0, 0, 0, 0, 0, 0, 0, 5,
            0, 0, 0, 0, 0, 0, 0, 4,
        ];
        assert_eq!(record.encode_value().unwrap(), expected);
        let next = StateRecord::NextProducerId(1_000);
        assert_eq!(next.encode_key(), [0, 100]);
        assert_eq!(next.encode_value().unwrap(), [0, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8]);
    }

    #[test]
    fn what_is_encoded_decodes() {
        let records = [
            StateRecord::Id("some id".to_owned(), Box::new(ongoing())),
            StateRecord::Id(String::new(), Box::default()),
            StateRecord::Forgotten("gone".to_owned()),
            StateRecord::NextProducerId(i64::MAX),
        ];
        for record in records {
            let (key, value) = (record.encode_key(), record.encode_value());
            assert_eq!(StateRecord::decode(&key, value.as_deref()), Some(record));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(key: Vec<u8>, value: Option<Vec<u8>>, cut in 0usize..60) {
            let _ = StateRecord::decode(&key, value.as_deref());
            let record = StateRecord::Id("x".to_owned(), Box::new(ongoing()));
            let whole = record.encode_value().unwrap();
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(StateRecord::decode(&record.encode_key(), whole.get(..cut)), None);
        }
    }
}

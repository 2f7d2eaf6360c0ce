//! How transactional ids stand in the compacted topic [`crate::TRANSACTIONS_TOPIC`].
//!
//! Keys and values have Kafka's own layout (`TransactionLogKey` version 0, `TransactionLogValue` version 0), big-endian:
//!
//! * key: version `i16` = 0, transactional id (string);
//! * value: version `i16` = 0, producer id `i64`, epoch `i16`, timeout `i32` ms, status `i8`, topics (array: name, array of
//!   partitions `i32`; the array is null outside a transaction), last change `i64` ms, start `i64` ms (-1 if none).
//!
//! Two more keys, which Kafka doesn't have, hold how far producer ids were handed out, and the offsets that an open transaction
//! will commit (in Kafka they lie in the offsets' topic, where every reader must know of transactions):
//!
//! * key: version `i16` = 100; value: version `i16` = 0, the first id that is free `i64`;
//! * key: version `i16` = 101, transactional id (string), group (string); value: version `i16` = 0, producer id `i64`,
//!   epoch `i16`, array of offsets, each: topic (string), partition `i32`, offset `i64`, leader epoch `i32`, metadata (string).
//!   No value: the transaction is over.
//!
//! A string is its length as `i16` and its UTF-8 bytes; an array is its length as `i32` (-1: null) and its elements.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::state::{ProducerIdentity, Status, Transactional};
use crate::groups::CommittedOffset;
use crate::partition::TopicPartition;

const ID_KEY_VERSION: i16 = 0;
const NEXT_PRODUCER_ID_KEY_VERSION: i16 = 100;
const OFFSETS_KEY_VERSION: i16 = 101;
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
    /// An open transaction will commit these offsets of a group; `None` when it is over.
    Offsets { transactional_id: String, group: String, pending: Option<PendingOffsets> },
}

/// Offsets that an open transaction will commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingOffsets {
    pub(crate) producer: ProducerIdentity,
    pub(crate) offsets: BTreeMap<TopicPartition, CommittedOffset>,
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
            Self::Offsets { transactional_id, group, .. } => {
                out.put_i16(OFFSETS_KEY_VERSION);
                put_string(&mut out, transactional_id);
                put_string(&mut out, group);
            }
        }
        out
    }

    /// `None` for a tombstone.
    pub(crate) fn encode_value(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        out.put_i16(VALUE_VERSION);
        match self {
            Self::Id(_, state) => encode_state(&mut out, state),
            Self::Forgotten(_) | Self::Offsets { pending: None, .. } => return None,
            Self::NextProducerId(next) => out.put_i64(*next),
            Self::Offsets { pending: Some(pending), .. } => pending.encode(&mut out),
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
            (OFFSETS_KEY_VERSION, value) => {
                let (transactional_id, group) = (get_string(&mut key)?, get_string(&mut key)?);
                let pending = match value {
                    Some(value) => Some(PendingOffsets::decode(value)?),
                    None => None,
                };
                Some(Self::Offsets { transactional_id, group, pending })
            }
            _ => None,
        }
    }
}

impl PendingOffsets {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_i64(self.producer.producer_id);
        out.put_i16(self.producer.epoch);
        out.put_i32(array_length(self.offsets.len()));
        for (partition, offset) in &self.offsets {
            put_string(out, &partition.topic);
            out.put_i32(partition.partition);
            out.put_i64(offset.offset);
            out.put_i32(offset.leader_epoch);
            put_string(out, &offset.metadata);
        }
    }

    fn decode(mut value: &[u8]) -> Option<Self> {
        let value = &mut value;
        if value.try_get_i16().ok()? != VALUE_VERSION {
            return None;
        }
        let (producer_id, epoch) = (value.try_get_i64().ok()?, value.try_get_i16().ok()?);
        let mut offsets = BTreeMap::new();
        for _ in 0..value.try_get_i32().ok()? {
            let topic: Arc<str> = get_string(value)?.into();
            let partition = TopicPartition::new(topic, value.try_get_i32().ok()?);
            let offset = CommittedOffset {
                offset: value.try_get_i64().ok()?,
                leader_epoch: value.try_get_i32().ok()?,
                metadata: get_string(value)?,
                committed_at_ms: 0,
            };
            offsets.insert(partition, offset);
        }
        let producer = ProducerIdentity { producer_id, epoch };
        value.is_empty().then_some(Self { producer, offsets })
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

    fn offsets(pending: Option<PendingOffsets>) -> StateRecord {
        StateRecord::Offsets { transactional_id: "x".to_owned(), group: "g".to_owned(), pending }
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
        let offset =
            CommittedOffset { offset: 5, leader_epoch: 1, metadata: "m".to_owned(), committed_at_ms: 0 };
        let pending = offsets(Some(PendingOffsets {
            producer: ProducerIdentity { producer_id: 7, epoch: 2 },
            offsets: [(TopicPartition::new("tt", 3), offset)].into(),
        }));
        assert_eq!(pending.encode_key(), [0, 101, 0, 1, b'x', 0, 1, b'g']);
        #[rustfmt::skip]
        let expected = [
            0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 0, 0, 0, 1,
            0, 2, b't', b't', 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, b'm',
        ];
        assert_eq!(pending.encode_value().unwrap(), expected);
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
            offsets(None),
            offsets(Some(PendingOffsets {
                producer: ProducerIdentity { producer_id: 7, epoch: 2 },
                offsets: [(TopicPartition::new("tt", 3), CommittedOffset::new(5))].into(),
            })),
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

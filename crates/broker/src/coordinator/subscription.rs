//! What consumers tell their assignor and hear from it: Kafka's `ConsumerProtocolSubscription` and
//! `ConsumerProtocolAssignment`, versions 0 to 3.
//!
//! Big-endian. A string is its length as `i16` and UTF-8 bytes; an array its length as `i32`; bytes likewise, −1 for none.
//!
//! * Subscription: version `i16`, topics, user data; from 1 on, partitions owned; from 2 on, the generation of that
//!   ownership; from 3 on, the rack.
//! * Assignment: version `i16`, partitions, user data.
//! * Partitions: an array of topic and array of `i32`.
//!
//! Reading is liberal, since members bring these bytes from libraries of every age: a version that isn't known is read as
//! the newest known one, and what follows is ignored. It is bounded as well: [`MAX_PARTITIONS_READ`] partitions at most,
//! and no list is believed to be longer than the bytes that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::partition::TopicPartition;

/// Partitions that are read of one subscription or assignment; with more, it can't be read.
pub const MAX_PARTITIONS_READ: usize = 65_536;
/// Topics that are read of one subscription.
const MAX_TOPICS_READ: usize = 16_384;

const SUBSCRIPTION_VERSION: i16 = 2;
const ASSIGNMENT_VERSION: i16 = 0;
/// The generation of a member that has none.
pub const NO_GENERATION: i32 = -1;

/// What a consumer tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscription {
    /// The topics that it reads.
    pub topics: BTreeSet<Arc<str>>,
    /// What it still has and will not give up by joining.
    pub owned: BTreeSet<TopicPartition>,
    /// The generation in which it got what it has.
    pub generation: i32,
}

impl Subscription {
    /// Reads one; `None` if the bytes aren't one.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let version = bytes.try_get_i16().ok()?;
        let count = array_length(bytes, 2)?;
        if count > MAX_TOPICS_READ {
            return None;
        }
        let mut topics = BTreeSet::new();
        for _ in 0..count {
            topics.insert(string(bytes)?.into());
        }
        let user_data = nullable_bytes(bytes)?;
        let owned = if version >= 1 { partitions(bytes)? } else { BTreeSet::new() };
        let generation = if version >= 2 {
            bytes.try_get_i32().ok()?
        } else {
            // The cooperative assignors put it at the end of their user data, alone or after the partitions.
            user_data
                .and_then(|data| data.last_chunk::<4>())
                .map_or(NO_GENERATION, |last| i32::from_be_bytes(*last))
        };
        Some(Self { topics, owned, generation })
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_i16(SUBSCRIPTION_VERSION);
        put_length(&mut out, self.topics.len());
        for topic in &self.topics {
            put_string(&mut out, topic);
        }
        // For assignors that read version 1, as Java's cooperative one writes it.
        out.put_i32(4);
        out.put_i32(self.generation);
        put_partitions(&mut out, &self.owned);
        out.put_i32(self.generation);
        out.into()
    }
}

/// Reads an assignment; `None` if the bytes aren't one. No bytes at all are no partitions.
pub fn decode_assignment(mut bytes: &[u8]) -> Option<BTreeSet<TopicPartition>> {
    if bytes.is_empty() {
        return Some(BTreeSet::new());
    }
    let bytes = &mut bytes;
    bytes.try_get_i16().ok()?;
    partitions(bytes)
}

/// An assignment as bytes.
pub fn encode_assignment(assigned: &BTreeSet<TopicPartition>) -> Bytes {
    let mut out = Vec::new();
    out.put_i16(ASSIGNMENT_VERSION);
    put_partitions(&mut out, assigned);
    out.put_i32(-1);
    out.into()
}

fn partitions(bytes: &mut &[u8]) -> Option<BTreeSet<TopicPartition>> {
    let mut found = BTreeSet::new();
    for _ in 0..array_length(bytes, 6)? {
        let topic: Arc<str> = string(bytes)?.into();
        let count = array_length(bytes, 4)?;
        if found.len().saturating_add(count) > MAX_PARTITIONS_READ {
            return None;
        }
        for _ in 0..count {
            found.insert(TopicPartition::new(Arc::clone(&topic), bytes.try_get_i32().ok()?));
        }
    }
    Some(found)
}

/// The length of an array whose elements have `least` bytes each; `None` if so many can't follow.
fn array_length(bytes: &mut &[u8], least: usize) -> Option<usize> {
    let length = bytes.try_get_i32().ok()?;
    // A null array is an empty one.
    let length = usize::try_from(length.max(0)).ok()?;
    (length.checked_mul(least)? <= bytes.len()).then_some(length)
}

fn string(bytes: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn nullable_bytes<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = bytes.try_get_i32().ok()?;
    if length < 0 {
        return Some(None);
    }
    let (data, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(data))
}

fn put_partitions(out: &mut Vec<u8>, partitions: &BTreeSet<TopicPartition>) {
    let mut by_topic: BTreeMap<&Arc<str>, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(&partition.topic).or_default().push(partition.partition);
    }
    put_length(out, by_topic.len());
    for (topic, partitions) in by_topic {
        put_string(out, topic);
        put_length(out, partitions.len());
        for partition in partitions {
            out.put_i32(partition);
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    // Lists are of a broker's topics and partitions, whose numbers have bounds far below.
    out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Names of topics have at most 249 bytes.
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tps(pairs: &[(&str, i32)]) -> BTreeSet<TopicPartition> {
        pairs.iter().map(|(topic, partition)| TopicPartition::new(*topic, *partition)).collect()
    }

    #[test]
    fn the_layouts_are_kafkas() {
        let subscription =
            Subscription { topics: ["t".into()].into(), owned: tps(&[("t", 1), ("t", 2)]), generation: 7 };
        let bytes = [
            0, 2, // version
            0, 0, 0, 1, 0, 1, b't', // topics
            0, 0, 0, 4, 0, 0, 0, 7, // user data
            0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, // owned
            0, 0, 0, 7, // generation
        ];
        assert_eq!(&subscription.encode()[..], bytes);
        let assignment = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(&encode_assignment(&tps(&[("t", 5)]))[..], assignment);
    }

    #[test]
    fn older_and_newer_versions_are_read() {
        let version_0 = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        let read = Subscription::decode(&version_0).unwrap();
        assert_eq!((read.topics.len(), read.owned.len(), read.generation), (1, 0, -1));
        // Version 1 with the generation in the user data alone, and version 3 with a rack.
        let version_1 = [0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, 0];
        assert_eq!(Subscription::decode(&version_1).unwrap().generation, 9);
        let version_3 =
            [0, 3, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, b'r'];
        assert_eq!(Subscription::decode(&version_3).unwrap().generation, 4);
        assert_eq!(decode_assignment(&[]), Some(BTreeSet::new()));
    }

    #[test]
    fn a_list_that_claims_to_be_longer_than_its_bytes_is_refused() {
        assert_eq!(Subscription::decode(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(decode_assignment(&[0, 0, 0, 0, 0, 1, 0, 1, b't', 0x7f, 0xff, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(
            topics in proptest::collection::btree_set("[a-z]{1,8}", 0..5),
            owned in proptest::collection::btree_set(("[a-z]{1,8}", 0i32..50), 0..20),
            generation: i32,
        ) {
            let owned: BTreeSet<_> = owned.into_iter().map(|(t, p)| TopicPartition::new(t.as_str(), p)).collect();
            let subscription = Subscription {
                topics: topics.iter().map(|topic| topic.as_str().into()).collect(),
                owned: owned.clone(),
                generation,
            };
            prop_assert_eq!(Subscription::decode(&subscription.encode()), Some(subscription));
            prop_assert_eq!(decode_assignment(&encode_assignment(&owned)), Some(owned));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Subscription::decode(&bytes);
            let _ = decode_assignment(&bytes);
        }
    }
}

//! What members own: the assignment that a group's leader encoded for each of them, in Kafka's `ConsumerProtocolAssignment`.
//!
//! The bytes are another client's, so anything can be in them; what can't be read is an empty assignment.

use std::sync::Arc;

use rdkafka::groups::{GroupInfo, GroupList, GroupMemberInfo};

use crate::engine::{GroupDescription, GroupMember};
use crate::record::TopicPartition;

/// The groups that librdkafka lists.
pub(super) fn describe(list: &GroupList) -> Vec<GroupDescription> {
    let mut groups: Vec<_> = list.groups().iter().map(group).collect();
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    groups
}

fn group(info: &GroupInfo) -> GroupDescription {
    GroupDescription {
        group: info.name().to_owned(),
        generation: None,
        state: info.state().to_owned(),
        members: info.members().iter().map(member).collect(),
    }
}

fn member(info: &GroupMemberInfo) -> GroupMember {
    let assignment = info.assignment().and_then(decode).unwrap_or_default();
    GroupMember {
        member_id: info.id().to_owned(),
        client_id: info.client_id().to_owned(),
        host: info.client_host().to_owned(),
        assignment,
    }
}

/// Version, then topics with their partitions; what follows is the assignor's own business.
fn decode(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    let mut rest = bytes;
    let _version = take::<2>(&mut rest)?;
    let mut owned = Vec::new();
    for _ in 0..count(&mut rest)? {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let topic: Arc<str> = std::str::from_utf8(name).ok()?.into();
        for _ in 0..count(&mut rest)? {
            owned.push(TopicPartition::new(Arc::clone(&topic), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(owned)
}

/// The length of a list. Each of its items takes bytes, so a length that lies ends with the bytes.
fn count(rest: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(rest)?))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        let count = |n: usize| i32::try_from(n).expect("few").to_be_bytes();
        bytes.extend(count(topics.len()));
        for (topic, partitions) in topics {
            bytes.extend(i16::try_from(topic.len()).expect("short").to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend(count(partitions.len()));
            partitions.iter().for_each(|partition| bytes.extend(partition.to_be_bytes()));
        }
        bytes
    }

    #[test]
    fn an_assignment_is_read_with_whatever_follows_it() {
        let mut bytes = encoded(&[("a", &[0, 7]), ("b", &[1])]);
        let expected =
            [TopicPartition::new("a", 0), TopicPartition::new("a", 7), TopicPartition::new("b", 1)];
        assert_eq!(decode(&bytes).as_deref(), Some(&expected[..]));
        bytes.extend([0, 0, 0, 3, 1, 2, 3]);
        assert_eq!(decode(&bytes).as_deref(), Some(&expected[..]));
    }

    #[test]
    fn rubbish_is_no_assignment_and_no_panic() {
        let whole = encoded(&[("topic", &[0, 1, 2])]);
        for cut in 0..whole.len() {
            assert_eq!(decode(whole.get(..cut).expect("within")), None, "cut at {cut}");
        }
        assert_eq!(decode(&[0, 0, 0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, b'x']), None);
        assert_eq!(decode(&[0, 0, 0xff, 0xff, 0xff, 0xff]), Some(Vec::new()), "an empty list may be null");
        assert_eq!(decode(&[0, 0, 0, 0, 0, 1, 0xff, 0xff]), None, "a name without a length");
    }
}

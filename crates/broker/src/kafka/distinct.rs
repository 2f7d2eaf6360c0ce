//! What a request names twice is answered once: an answer must not be larger than what there is to say.

use std::hash::Hash;

use hashbrown::HashSet;
use kafka_protocol::messages::TopicName;

/// The first of all items with the same key, in their order.
pub(super) fn distinct<T, K: Eq + Hash>(
    items: impl IntoIterator<Item = T>,
    key: impl Fn(&T) -> K,
) -> impl Iterator<Item = T> {
    let mut seen = HashSet::new();
    items.into_iter().filter(move |item| seen.insert(key(item)))
}

/// Topics with their partitions, each partition at its first place only.
pub(super) fn distinct_partitions(
    topics: impl IntoIterator<Item = (TopicName, Vec<i32>)>,
) -> Vec<(TopicName, Vec<i32>)> {
    let mut seen = HashSet::new();
    let first = |(topic, mut indexes): (TopicName, Vec<i32>)| {
        indexes.retain(|index| seen.insert((topic.clone(), *index)));
        (topic, indexes)
    };
    topics.into_iter().map(first).filter(|(_, indexes)| !indexes.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn each_is_kept_once_at_its_first_place() {
        let kept: Vec<_> = distinct(["b", "a", "b", "c", "a"], |name| *name).collect();
        assert_eq!(kept, ["b", "a", "c"]);
        let topic = |name| TopicName(StrBytes::from_static_str(name));
        let topics = vec![
            (topic("t"), vec![1, 0, 1]),
            (topic("u"), vec![1]),
            (topic("t"), vec![0, 2]),
            (topic("u"), vec![1]),
        ];
        let kept = distinct_partitions(topics);
        assert_eq!(kept, [(topic("t"), vec![1, 0]), (topic("u"), vec![1]), (topic("t"), vec![2])]);
    }
}

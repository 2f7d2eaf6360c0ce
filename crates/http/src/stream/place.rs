//! How far the facts have been told: one offset for each partition of topics `alerts` and `system-events`.
//!
//! Its text is the `id` of every frame: `1-` (the version), the next offsets of the alerts' partitions, `-`, those of
//! the system events' partitions, each joined by `.`: `1-17.3-204.199.230`. Clients hand it back and never look inside.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use farol_bus::TopicPartition;

/// More partitions than this in one topic can't be told about in an id: with the longest offsets, the two lists are 10 KiB,
/// and clients send them back in a header.
pub const MAX_PARTITIONS: usize = 256;

/// The next offset to be told, per partition of the two topics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Of topic `alerts`, by partition.
    pub alerts: Vec<i64>,
    /// Of topic `system-events`, by partition.
    pub system_events: Vec<i64>,
}

/// The two topics that places are about.
#[derive(Debug, Clone)]
pub struct FactTopics {
    /// Topic `alerts`, whatever it is called.
    pub alerts: Arc<str>,
    /// Topic `system-events`.
    pub system_events: Arc<str>,
}

impl Place {
    /// Reads an id. `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        if parts.next() != Some("1") {
            return None;
        }
        let alerts = offsets(parts.next()?)?;
        let system_events = offsets(parts.next()?)?;
        parts.next().is_none().then_some(Self { alerts, system_events })
    }

    /// From offsets by partition. Partitions that are missing start at 0.
    pub fn from_offsets(topics: &FactTopics, offsets: &BTreeMap<TopicPartition, i64>) -> Self {
        let of = |topic: &str| {
            let mut list = Vec::new();
            for (partition, offset) in offsets.iter().filter(|(p, _)| *p.topic == *topic) {
                if let Ok(index) = usize::try_from(partition.partition) {
                    set(&mut list, index, *offset);
                }
            }
            list
        };
        Self { alerts: of(&topics.alerts), system_events: of(&topics.system_events) }
    }

    /// The next offset of one partition; `None` if the place doesn't know it.
    pub fn get(&self, topics: &FactTopics, partition: &TopicPartition) -> Option<i64> {
        let list = if partition.topic == topics.alerts { &self.alerts } else { &self.system_events };
        list.get(usize::try_from(partition.partition).ok()?).copied()
    }

    /// Moves one partition to `offset`.
    pub fn advance(&mut self, topics: &FactTopics, partition: &TopicPartition, offset: i64) {
        let list = if partition.topic == topics.alerts { &mut self.alerts } else { &mut self.system_events };
        if let Ok(index) = usize::try_from(partition.partition) {
            set(list, index, offset);
        }
    }

    /// Every partition with its next offset.
    pub fn partitions(&self, topics: &FactTopics) -> Vec<(TopicPartition, i64)> {
        let of = |topic: &Arc<str>, list: &[i64]| -> Vec<(TopicPartition, i64)> {
            list.iter()
                .zip(0..)
                .map(|(offset, index)| (TopicPartition::new(Arc::clone(topic), index), *offset))
                .collect()
        };
        let mut all = of(&topics.alerts, &self.alerts);
        all.extend(of(&topics.system_events, &self.system_events));
        all
    }
}

fn set(list: &mut Vec<i64>, index: usize, offset: i64) {
    if index >= MAX_PARTITIONS {
        return;
    }
    if list.len() <= index {
        list.resize(index + 1, 0);
    }
    if let Some(slot) = list.get_mut(index) {
        *slot = offset;
    }
}

fn offsets(text: &str) -> Option<Vec<i64>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let list: Vec<i64> = text
        .split('.')
        .take(MAX_PARTITIONS + 1)
        .map(|o| o.parse().ok().filter(|o| *o >= 0))
        .collect::<Option<_>>()?;
    (list.len() <= MAX_PARTITIONS).then_some(list)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1")?;
        for list in [&self.alerts, &self.system_events] {
            for (index, offset) in list.iter().enumerate() {
                write!(f, "{}{offset}", if index == 0 { '-' } else { '.' })?;
            }
            if list.is_empty() {
                f.write_str("-")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_place_reads_back(
            alerts in proptest::collection::vec(0..i64::MAX, 0..MAX_PARTITIONS),
            system_events in proptest::collection::vec(0..i64::MAX, 0..MAX_PARTITIONS),
        ) {
            let place = Place { alerts, system_events };
            proptest::prop_assert_eq!(Place::parse(&place.to_string()), Some(place));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _parsed = Place::parse(&text);
        }
    }

    #[test]
    fn what_is_no_place_is_not_read() {
        for text in [
            "",
            "1",
            "1-",
            "2-1-1",
            "1-1",
            "1-1-1-1",
            "1-a-1",
            "1--5-1",
            "1-1..2-3",
            "1-99999999999999999999-1",
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
        assert_eq!(Place::parse("1--"), Some(Place::default()));
    }
}

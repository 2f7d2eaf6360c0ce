//! Who is to own which partition: sticky and balanced.
//!
//! A partition stays with its member unless balance demands otherwise; free ones go to whoever has least; then single
//! partitions move from the fullest to the emptiest member as long as that makes their shares more equal. With equal
//! subscriptions, shares then differ by one at most and no fewer moves would do. With unequal subscriptions every
//! single move that helps has been made; a chain of moves that would help only together is not looked for.
//!
//! The result depends on the arguments alone: ties go to the member that stands first and to the highest partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::partition::TopicPartition;

/// A member as the assignor sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subscriber<'a> {
    pub(super) member_id: &'a str,
    /// The topics that it reads, with their partition counts.
    pub(super) topics: &'a BTreeMap<Arc<str>, i32>,
}

/// One partition and who reads it.
struct Slot {
    partition: TopicPartition,
    /// Members (as indexes) that subscribe to it.
    readers: Vec<usize>,
    /// Who has it now.
    current: Option<usize>,
    /// Who is to have it.
    target: Option<usize>,
}

/// A member for every partition that anybody subscribes to. `current` names the member that has a partition now.
pub(super) fn assign<'a>(
    subscribers: &[Subscriber<'a>],
    current: impl Fn(&TopicPartition) -> Option<&'a str>,
) -> BTreeMap<TopicPartition, String> {
    let mut slots = slots(subscribers, current);
    let mut load = vec![0usize; subscribers.len()];
    for slot in &mut slots {
        slot.target = slot.current;
        if let Some(load) = slot.target.and_then(|member| load.get_mut(member)) {
            *load += 1;
        }
    }
    place_free(&mut slots, &mut load);
    while move_one(&mut slots, &mut load) {}
    slots
        .into_iter()
        .filter_map(|slot| {
            let member = subscribers.get(slot.target?)?;
            Some((slot.partition, member.member_id.to_owned()))
        })
        .collect()
}

fn slots<'a>(
    subscribers: &[Subscriber<'a>],
    current: impl Fn(&TopicPartition) -> Option<&'a str>,
) -> Vec<Slot> {
    let mut readers: BTreeMap<&Arc<str>, (i32, Vec<usize>)> = BTreeMap::new();
    for (member, subscriber) in subscribers.iter().enumerate() {
        for (topic, partitions) in subscriber.topics {
            let entry = readers.entry(topic).or_insert((0, Vec::new()));
            entry.0 = entry.0.max(*partitions);
            entry.1.push(member);
        }
    }
    let mut slots = Vec::new();
    for (topic, (partitions, readers)) in readers {
        for partition in 0..partitions {
            let partition = TopicPartition::new(Arc::clone(topic), partition);
            let owner = current(&partition);
            let current = readers
                .iter()
                .copied()
                .find(|member| subscribers.get(*member).is_some_and(|s| Some(s.member_id) == owner));
            slots.push(Slot { partition, readers: readers.clone(), current, target: None });
        }
    }
    slots
}

/// Gives every free partition to the reader that has least; those with few readers first, as they have little choice.
fn place_free(slots: &mut [Slot], load: &mut [usize]) {
    let mut free: Vec<&mut Slot> = slots.iter_mut().filter(|slot| slot.target.is_none()).collect();
    free.sort_by_key(|slot| slot.readers.len());
    for slot in free {
        slot.target = emptiest(&slot.readers, load);
        if let Some(load) = slot.target.and_then(|member| load.get_mut(member)) {
            *load += 1;
        }
    }
}

/// Moves one partition from the fullest member that can give to the emptiest that can take. Whether there was one: the
/// sum of squared shares falls with every move, so this ends.
fn move_one(slots: &mut [Slot], load: &mut [usize]) -> bool {
    let mut givers: Vec<usize> = (0..load.len()).collect();
    givers.sort_by_key(|member| std::cmp::Reverse(load.get(*member).copied().unwrap_or(0)));
    for giver in givers {
        let giver_load = load.get(giver).copied().unwrap_or(0);
        let best = slots
            .iter_mut()
            .rev()
            .filter(|slot| slot.target == Some(giver))
            .filter_map(|slot| {
                let taker = emptiest(&slot.readers, load)?;
                let taker_load = load.get(taker).copied().unwrap_or(0);
                (taker_load + 1 < giver_load).then_some((slot, taker, taker_load))
            })
            // A partition that nobody holds yet moves for free.
            .min_by_key(|(slot, _, taker_load)| (*taker_load, slot.current == Some(giver)));
        if let Some((slot, taker, _)) = best {
            slot.target = Some(taker);
            if let Some(load) = load.get_mut(giver) {
                *load -= 1;
            }
            if let Some(load) = load.get_mut(taker) {
                *load += 1;
            }
            return true;
        }
    }
    false
}

fn emptiest(readers: &[usize], load: &[usize]) -> Option<usize> {
    readers.iter().copied().min_by_key(|member| (load.get(*member).copied().unwrap_or(0), *member))
}

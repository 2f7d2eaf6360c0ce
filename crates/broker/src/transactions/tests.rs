//! The coordinator against what must hold of any interleaving of its calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::Duration;

use farol_event::Timestamp;
use farol_log::Marker;
use proptest::prelude::*;

use super::record::StateRecord;
use super::state::{
    Change, Coordinator, MAX_TRANSACTION_PARTITIONS, ProducerIdentity, Status, Step, TransactionError,
};
use crate::partition::TopicPartition;

const TIMEOUT_MS: i32 = 10_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis_clamped(second * 1000)
}

fn partitions(numbers: &[i32]) -> BTreeSet<TopicPartition> {
    numbers.iter().map(|number| TopicPartition::new("t", *number)).collect()
}

fn written(coordinator: &mut Coordinator, step: Step) -> Option<Change> {
    match step {
        Step::Done => None,
        Step::Write(change) => {
            coordinator.finish((*change).clone(), true);
            Some(*change)
        }
    }
}

fn init(coordinator: &mut Coordinator, expected: Option<ProducerIdentity>, fresh: i64) -> ProducerIdentity {
    let (step, producer) = coordinator.begin_init("id", TIMEOUT_MS, expected, fresh, at(0)).unwrap();
    written(coordinator, step);
    producer
}

#[test]
fn a_change_on_its_way_keeps_others_out_and_one_that_fails_leaves_all_as_it_was() {
    let mut coordinator = Coordinator::default();
    let (step, producer) = coordinator.begin_init("id", TIMEOUT_MS, None, 7, at(0)).unwrap();
    let again = coordinator.begin_init("id", TIMEOUT_MS, None, 8, at(0));
    assert_eq!(again, Err(TransactionError::Concurrent));
    let Step::Write(change) = step else { panic!("an id is written") };
    coordinator.finish(*change, false);
    assert_eq!(coordinator.describe("id"), None, "nobody has the id");
    let end = coordinator.begin_end("id", producer, Marker::Commit, at(0));
    assert_eq!(end, Err(TransactionError::UnknownProducerId));

    let producer = init(&mut coordinator, None, 9);
    let step = coordinator.begin_add("id", producer, &partitions(&[0]), at(0)).unwrap();
    written(&mut coordinator, step);
    let Step::Write(end) = coordinator.begin_end("id", producer, Marker::Commit, at(0)).unwrap() else {
        panic!("it is open");
    };
    let behind = coordinator.may_write(producer, &TopicPartition::new("t", 0));
    assert!(matches!(behind, Err(TransactionError::InvalidState { .. })), "nothing goes behind the marker");
    coordinator.finish(*end, false);
    assert_eq!(coordinator.may_write(producer, &TopicPartition::new("t", 0)), Ok(()));
    assert_eq!(coordinator.describe("id").unwrap().status, Status::Ongoing);
}

#[test]
fn open_transactions_together_have_a_bound_of_partitions() {
    let mut coordinator = Coordinator::with_bound(5);
    let mut begin = |id: &str, fresh| {
        let (step, producer) = coordinator.begin_init(id, TIMEOUT_MS, None, fresh, at(0)).unwrap();
        written(&mut coordinator, step);
        producer
    };
    let (one, two) = (begin("one", 1), begin("two", 2));
    let full = Err(TransactionError::TooMany { what: "partitions in open transactions", limit: 5 });
    let change = |step: Step| match step {
        Step::Write(change) => *change,
        Step::Done => panic!("it is written"),
    };

    let adding = change(coordinator.begin_add("one", one, &partitions(&[0, 1, 2]), at(0)).unwrap());
    assert_eq!(coordinator.begin_add("two", two, &partitions(&[0, 1, 2]), at(0)), full, "what is on its way");
    coordinator.finish(adding, false);
    // What wasn't written doesn't count, and what is added twice counts once.
    for numbers in [&[0, 1, 2][..], &[1, 2, 3]] {
        let adding = change(coordinator.begin_add("one", one, &partitions(numbers), at(0)).unwrap());
        coordinator.finish(adding, true);
    }
    assert_eq!(coordinator.begin_add("two", two, &partitions(&[0, 1]), at(0)), full);
    let adding = change(coordinator.begin_add("two", two, &partitions(&[0]), at(0)).unwrap());
    coordinator.finish(adding, true);
    let ending = change(coordinator.begin_end("one", one, Marker::Commit, at(0)).unwrap());
    coordinator.finish(ending, true);
    let adding = change(coordinator.begin_add("two", two, &partitions(&[1, 2, 3, 4]), at(0)).unwrap());
    coordinator.finish(adding, true);
    assert_eq!(coordinator.begin_add("one", one, &partitions(&[0]), at(0)), full);

    // The log says it again at the next start.
    let two_as_it_stands = coordinator.describe("two").unwrap();
    coordinator.restore("two".to_owned(), two_as_it_stands);
    assert_eq!(coordinator.begin_add("one", one, &partitions(&[0]), at(0)), full);
    coordinator.forget("two");
    coordinator.begin_add("one", one, &partitions(&[0, 1, 2, 3, 4]), at(0)).unwrap();
}

#[test]
fn a_producer_whose_epochs_are_used_up_gets_another_id() {
    let mut coordinator = Coordinator::default();
    let mut producer = init(&mut coordinator, None, 1);
    for _ in 0..i32::from(i16::MAX) - 1 {
        let next = init(&mut coordinator, Some(producer), 2);
        assert!(next.producer_id == producer.producer_id && next.epoch == producer.epoch + 1);
        producer = next;
    }
    assert_eq!(producer.epoch, i16::MAX - 1);
    let step = coordinator.begin_add("id", producer, &partitions(&[0]), at(0)).unwrap();
    written(&mut coordinator, step);
    let (step, next) = coordinator.begin_init("id", TIMEOUT_MS, None, 2, at(0)).unwrap();
    assert_eq!(next, ProducerIdentity { producer_id: 2, epoch: 0 });
    let ending = written(&mut coordinator, step).unwrap().ending.unwrap();
    assert_eq!((ending.producer_id, ending.epoch), (1, i16::MAX), "one epoch is left to fence with");
    assert_eq!(
        coordinator.may_write(producer, &TopicPartition::new("t", 0)),
        Err(TransactionError::UnknownProducerId)
    );
}

#[test]
fn unused_ids_are_forgotten_and_open_transactions_never() {
    let mut coordinator = Coordinator::default();
    let producer = init(&mut coordinator, None, 1);
    let step = coordinator.begin_add("id", producer, &partitions(&[0]), at(0)).unwrap();
    written(&mut coordinator, step);
    let week = 7 * 24 * 3600;
    assert_eq!(coordinator.begin_forget("id", at(2 * week)), None);
    let step = coordinator.begin_end("id", producer, Marker::Abort, at(10)).unwrap();
    written(&mut coordinator, step);
    assert_eq!(coordinator.begin_forget("id", at(week + 9)), None);
    let change = coordinator.begin_forget("id", at(week + 10)).unwrap();
    coordinator.finish(change, true);
    assert_eq!(coordinator.describe("id"), None);
    // Who comes back under its old name gets a new one.
    assert_eq!(init(&mut coordinator, Some(producer), 5).producer_id, 5);
}

#[test]
fn a_transaction_has_a_bound_of_partitions() {
    let mut coordinator = Coordinator::default();
    let producer = init(&mut coordinator, None, 1);
    let many: Vec<i32> = (0..i32::try_from(MAX_TRANSACTION_PARTITIONS).unwrap()).collect();
    let step = coordinator.begin_add("id", producer, &partitions(&many), at(0)).unwrap();
    written(&mut coordinator, step);
    let more = coordinator.begin_add("id", producer, &partitions(&[-1]), at(0));
    assert!(matches!(more, Err(TransactionError::TooMany { .. })), "{more:?}");
    let more = coordinator.begin_add("id", producer, &partitions(&[0]), at(0));
    assert_eq!(more, Ok(Step::Done), "what is there may be named again");
}

/// What somebody does. Producers are named by how many inits ago they were the newest.
#[derive(Debug, Clone)]
enum Call {
    Init {
        expected: Option<usize>,
    },
    Add {
        producer: usize,
        partition: i32,
    },
    End {
        producer: usize,
        marker: Marker,
    },
    Expire {
        seconds: u8,
    },
    /// Everything is read back from the records.
    Restart,
}

fn calls() -> impl Strategy<Value = Vec<(Call, bool)>> {
    let marker = prop_oneof![Just(Marker::Commit), Just(Marker::Abort)];
    let call = prop_oneof![
        2 => prop::option::of(0usize..3).prop_map(|expected| Call::Init { expected }),
        5 => (0usize..3, 0i32..3).prop_map(|(producer, partition)| Call::Add { producer, partition }),
        4 => (0usize..3, marker).prop_map(|(producer, marker)| Call::End { producer, marker }),
        2 => (0u8..8).prop_map(|seconds| Call::Expire { seconds }),
        1 => Just(Call::Restart),
    ];
    prop::collection::vec((call, prop::bool::weighted(0.85)), 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn only_the_newest_producer_acts_and_every_transaction_ends_once(calls in calls()) {
        let mut coordinator = Coordinator::default();
        let mut producers: Vec<ProducerIdentity> = Vec::new();
        let mut record: Option<StateRecord> = None;
        let mut second = 0;
        let mut fresh = 0;
        for (call, is_written) in calls {
            let before = coordinator.describe("id");
            let is_open = before.as_ref().is_some_and(|state| state.status == Status::Ongoing);
            let ago = |ago: usize| producers.len().checked_sub(1 + ago).map(|place| producers[place]);
            let (decided, newest) = match call {
                Call::Init { expected } => {
                    fresh += 1;
                    let expected = expected.and_then(ago);
                    match coordinator.begin_init("id", TIMEOUT_MS, expected, fresh, at(second)) {
                        Ok((step, producer)) => (Ok(step), Some(producer)),
                        Err(error) => (Err(error), None),
                    }
                }
                Call::Add { producer, partition } => {
                    let Some(producer) = ago(producer) else { continue };
                    (coordinator.begin_add("id", producer, &partitions(&[partition]), at(second)), None)
                }
                Call::End { producer, marker } => {
                    let Some(producer) = ago(producer) else { continue };
                    (coordinator.begin_end("id", producer, marker, at(second)), None)
                }
                Call::Expire { seconds } => {
                    second += i64::from(seconds);
                    let due = before.as_ref().is_some_and(|state| {
                        is_open && state.started_at_ms + i64::from(TIMEOUT_MS) <= second * 1000
                    });
                    let change = coordinator.begin_expire("id", at(second));
                    prop_assert_eq!(change.is_some(), due);
                    (Ok(change.map_or(Step::Done, |change| Step::Write(Box::new(change)))), None)
                }
                Call::Restart => {
                    coordinator = Coordinator::default();
                    if let Some(StateRecord::Id(id, state)) = &record {
                        let (key, value) = (record.as_ref().unwrap().encode_key(), record.as_ref().unwrap().encode_value());
                        let decoded = StateRecord::decode(&key, value.as_deref()).unwrap();
                        let StateRecord::Id(_, decoded) = decoded else { panic!("it was an id") };
                        let mut expected = (**state).clone();
                        expected.previous_epoch = None;
                        prop_assert_eq!(&*decoded, &expected);
                        coordinator.restore(id.clone(), *decoded);
                    }
                    continue;
                }
            };
            let Ok(Step::Write(change)) = decided else {
                // A refusal, or nothing to do, changes nothing. Whoever is answered is the one in force.
                prop_assert_eq!(coordinator.describe("id"), before.clone());
                if let (Ok(Step::Done), Some(newest)) = (&decided, newest) {
                    prop_assert_eq!(newest, before.unwrap().producer());
                    producers.push(newest);
                }
                continue;
            };
            // A transaction ends with markers to all its partitions, and only one that is open.
            let next = change.next.clone().unwrap();
            if let Some(ending) = &change.ending {
                let before = before.clone().unwrap();
                prop_assert!(is_open);
                prop_assert_eq!(&ending.partitions, &before.partitions);
                prop_assert_eq!(ending.producer_id, before.producer_id);
                prop_assert!(next.status != Status::Ongoing && next.partitions.is_empty());
                if ending.marker == Marker::Commit {
                    prop_assert_eq!(ending.epoch, before.epoch);
                }
            } else {
                prop_assert!(!is_open || next.status == Status::Ongoing);
            }
            coordinator.finish((*change).clone(), is_written);
            if is_written {
                record = Some(StateRecord::Id("id".to_owned(), Box::new(next.clone())));
                prop_assert_eq!(coordinator.describe("id"), Some(next.clone()));
                producers.extend(newest);
                // Whoever isn't the one in force is kept out everywhere.
                for old in producers.iter().filter(|old| **old != next.producer()) {
                    let end = coordinator.begin_end("id", *old, Marker::Commit, at(second));
                    let is_kept_out = matches!(
                        end,
                        Err(TransactionError::Fenced | TransactionError::UnknownProducerId)
                    );
                    prop_assert!(is_kept_out, "{end:?}");
                    prop_assert!(coordinator.may_write(*old, &TopicPartition::new("t", 0)).is_err());
                }
            } else {
                prop_assert_eq!(coordinator.describe("id"), before);
            }
        }
    }
}

#[test]
fn a_timeout_is_reckoned_from_the_start_of_the_transaction() {
    let mut coordinator = Coordinator::default();
    let producer = init(&mut coordinator, None, 1);
    for (second, partition) in [(5, 0), (9, 1)] {
        let step = coordinator.begin_add("id", producer, &partitions(&[partition]), at(second)).unwrap();
        written(&mut coordinator, step);
    }
    let timeout = Duration::from_millis(u64::try_from(TIMEOUT_MS).unwrap());
    assert!(coordinator.expired(at(14)).is_empty());
    assert_eq!(coordinator.expired(at(5).saturating_add(timeout)), ["id"]);
}

//! What is told of a rebalance: causes, owners before and after, and above all how long each partition paused.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;

#[test]
fn a_silent_member_is_expelled_and_its_pause_counts_from_its_last_sign_of_life() {
    let mut case = Case::stable(2);
    assert_eq!(case.group.next_deadline(), Some(at(10_030)));
    case.heartbeat("m1", at(9_000)).unwrap();
    case.apply(Input::Tick, at(10_030));
    assert_eq!(case.expelled, [("m2".to_owned(), LeaveReason::MissedHeartbeats)]);
    let (_, answers) = case.rejoin("m1", &[0], at(12_000));
    assert_eq!(answers.len(), 1, "nobody else is waited for");
    case.sync("m1", &[("m1", &[0, 1])], at(12_030));
    assert_eq!(case.records.len(), 1, "nobody goes on with partition 1 yet");
    case.goes_on("m1", 1, at(15_030));
    let record = case.records.last().unwrap();
    assert_eq!(record.paused, BTreeMap::from([(tp(1), Duration::from_millis(15_000))]));
    assert_eq!(record.completed_at, at(15_030));
    let reason = LeaveReason::MissedHeartbeats;
    assert_eq!(
        record.causes,
        [RebalanceCause::Left { member_id: "m2".into(), client_id: "m2".into(), reason }]
    );
    assert_eq!(record.before["m2"], [tp(1)]);
}

/// A case in which m2 has left and m1 has its partition 1, from 1 000 ms on.
fn taken_over() -> Case {
    let mut case = Case::stable(2);
    case.leave(MemberRef::id("m2"), None, at(1_000));
    case.rejoin("m1", &[0], at(1_000));
    case.sync("m1", &[("m1", &[0, 1])], at(1_000));
    case
}

#[test]
fn a_pause_goes_on_for_as_long_as_the_new_owner_must_wait_for_offsets() {
    let (mut case, moved) = (taken_over(), tp(1));
    let before = case.records.len();
    for second in 2..40 {
        case.group.waits(Reader::Client("m1"), [&moved].into_iter(), at(second * 1000));
        case.heartbeat("m1", at(second * 1000)).unwrap();
        case.apply(Input::Tick, at(second * 1000));
    }
    case.goes_on("somebody else", 1, at(39_000));
    assert_eq!(case.records.len(), before, "it still waits");
    case.goes_on("m1", 1, at(40_000));
    let record = case.records.last().unwrap();
    assert_eq!(record.paused, BTreeMap::from([(moved, Duration::from_secs(39))]));
    assert_eq!((record.began_at, record.completed_at), (at(1_000), at(40_000)));
}

#[test]
fn a_pause_passes_on_to_the_next_owner_and_ends_with_the_first_that_goes_on() {
    let mut case = taken_over();
    let before = case.records.len();
    let (second, _) = case.join("b", at(2_000));
    let (_, answers) = case.rejoin("m1", &[0], at(2_000));
    let newcomer = joined(&answers, second).member_id;
    case.sync("m1", &[("m1", &[0]), (&newcomer, &[1])], at(2_000));
    assert_eq!(case.records.len(), before);
    case.goes_on(&newcomer, 1, at(3_000));
    let record = case.records.last().unwrap();
    assert_eq!((record.causes.len(), record.began_at), (2, at(1_000)), "{:?}", record.causes);
    assert_eq!(record.paused, BTreeMap::from([(tp(1), Duration::from_secs(2))]));
}

#[test]
fn whoever_is_never_seen_to_go_on_has_gone_on_with_the_assignment() {
    let mut case = taken_over();
    let before = case.records.len();
    case.heartbeat("m1", at(10_000)).unwrap();
    case.apply(Input::Tick, at(1_000 + 10_000));
    let record = case.records.last().unwrap();
    assert_eq!((case.records.len(), record.completed_at), (before + 1, at(1_000)));
    assert_eq!(record.paused, BTreeMap::from([(tp(1), Duration::ZERO)]));
}

#[test]
fn after_a_restart_of_the_broker_partitions_stand_still_until_somebody_goes_on() {
    // The broker was down for ten minutes.
    let (stopped_at, started_at) = (at(0), 600_000);
    for (back_after, expected) in
        [(5_000, BTreeMap::from([(tp(0), Duration::from_millis(605_200))])), (61_000, BTreeMap::new())]
    {
        let mut case = Case::new();
        let back_at = started_at + back_after;
        case.group.resume_from([tp(0)].into_iter(), stopped_at, at(started_at));
        case.join("a", at(back_at));
        case.sync("m1", &[("m1", &[0, 1])], at(back_at + 100));
        case.goes_on("m1", 0, at(back_at + 200));
        let record = case.records.last().unwrap();
        assert_eq!(record.paused, expected, "1 is new; a group that nobody used for a minute was not paused");
    }
}

#[test]
fn a_partition_that_moves_twice_in_a_rebalance_paused_for_as_long_as_both_times_together() {
    let mut case = Case::new();
    case.group.resume_from([tp(0), tp(1)].into_iter(), at(0), at(4_000));
    case.join("a", at(4_000));
    case.sync("m1", &[("m1", &[0, 1])], at(4_000));
    case.goes_on("m1", 0, at(5_000));
    let (second, _) = case.join("b", at(6_000));
    let (_, answers) = case.rejoin("m1", &[1], at(6_000));
    let newcomer = joined(&answers, second).member_id;
    case.sync("m1", &[("m1", &[1]), (&newcomer, &[0])], at(6_000));
    case.goes_on(&newcomer, 0, at(6_500));
    assert!(case.records.is_empty(), "1 still stands still");
    case.goes_on("m1", 1, at(7_000));
    let paused = &case.records.last().unwrap().paused;
    assert_eq!(
        *paused,
        BTreeMap::from([(tp(0), Duration::from_millis(5_500)), (tp(1), Duration::from_secs(7))])
    );
}

#[test]
fn a_partition_that_moves_cooperatively_makes_one_record_of_two_generations() {
    let mut case = Case::new();
    case.join("m1", at(0));
    case.sync("m1", &[("m1", &[0, 1])], at(0));
    let (second, _) = case.join("b", at(100));
    let (_, answers) = case.rejoin("m1", &[0, 1], at(110));
    let newcomer = joined(&answers, second).member_id;
    case.sync(&newcomer, &[], at(120));
    case.sync("m1", &[("m1", &[0])], at(120));
    assert_eq!(case.records.len(), 1, "partition 1 has yet to be given up");
    // Until then it is m1's.
    assert_eq!(case.commit("m1", 1, CommitCheck::Ownership, 1), Ok(()));
    case.rejoin("m1", &[0], at(200));
    assert!(matches!(case.commit("m1", 2, CommitCheck::Ownership, 1), Err(GroupError::NotOwner { .. })));
    case.rejoin(&newcomer, &[], at(210));
    case.sync(&newcomer, &[], at(220));
    case.sync("m1", &[("m1", &[0]), (&newcomer, &[1])], at(230));
    case.goes_on(&newcomer, 1, at(240));
    let record = case.records.last().unwrap();
    assert_eq!((case.records.len(), record.generation, record.began_at), (2, 3, at(100)));
    assert_eq!(record.causes.len(), 1, "that m1 joined again carries on what b began: {:?}", record.causes);
    assert_eq!(record.paused, BTreeMap::from([(tp(1), Duration::from_millis(40))]));
    assert_eq!(record.before["m1"].len(), 2);
    // What stayed can be committed at the older generation; what moved, by its new owner from its own on.
    assert_eq!(case.commit("m1", 1, CommitCheck::Ownership, 0), Ok(()));
    assert_eq!(case.commit(&newcomer, 3, CommitCheck::Ownership, 1), Ok(()));
    assert!(case.commit(&newcomer, 2, CommitCheck::Ownership, 1).is_err());
}

#[test]
fn a_rebalance_whose_partition_is_never_given_up_is_recorded_all_the_same() {
    let mut case = Case::new();
    case.join("m1", at(0));
    case.sync("m1", &[("m1", &[0, 1])], at(0));
    case.rejoin("m1", &[0, 1], at(100));
    case.sync("m1", &[("m1", &[0])], at(110));
    assert_eq!(case.records.len(), 1);
    for second in (5..=60).step_by(5) {
        case.heartbeat("m1", at(second * 1000)).unwrap();
    }
    case.apply(Input::Tick, at(60_110));
    assert_eq!(case.records.len(), 2);
}

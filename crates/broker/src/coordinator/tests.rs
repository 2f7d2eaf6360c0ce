//! The coordinator, case by case.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use farol_event::Timestamp;

use super::rebalance::{LeaveReason, RebalanceCause, RebalanceRecord};
use super::subscription::{Subscription, encode_assignment};
use super::{
    Answer, CommitCheck, Committer, Effect, Group, GroupError, GroupLimits, GroupState, Input, Join, Joined,
    Leaving, MISSED_POLLS, MemberRef, Protocol, Reader, Sync, Synced, Ticket,
};
use crate::partition::TopicPartition;

pub(super) const SESSION: Duration = Duration::from_secs(10);
pub(super) const REBALANCE: Duration = Duration::from_secs(60);

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::EPOCH.saturating_add(Duration::from_millis(ms))
}

fn tps(partitions: &[i32]) -> BTreeSet<TopicPartition> {
    partitions.iter().map(|partition| TopicPartition::new("t", *partition)).collect()
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

/// What a consumer of topic `t` tells its assignor.
fn claims(owned: &[i32]) -> Bytes {
    Subscription { topics: BTreeSet::from(["t".into()]), owned: tps(owned), generation: 0 }.encode()
}

/// A group, and requests that count their tickets.
struct Case {
    group: Group,
    next_ticket: u64,
    records: Vec<RebalanceRecord>,
    expelled: Vec<(String, LeaveReason)>,
}

impl Case {
    fn new() -> Self {
        let group = Group::new("g", GroupLimits { max_members: 3 }, at(0));
        Self { group, next_ticket: 0, records: Vec::new(), expelled: Vec::new() }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn apply(&mut self, input: Input, now: Timestamp) -> BTreeMap<Ticket, Answer> {
        let mut answers = BTreeMap::new();
        for effect in self.group.apply(input, now) {
            match effect {
                Effect::Answer { ticket, answer } => {
                    assert!(answers.insert(ticket, answer).is_none(), "{ticket:?} answered twice");
                }
                Effect::Rebalanced(record) => self.records.push(*record),
                Effect::Expelled { member_id, reason, .. } => self.expelled.push((member_id, reason)),
                Effect::Wake { .. } => {}
            }
        }
        answers
    }

    fn goes_on(&mut self, member_id: &str, partition: i32, now: Timestamp) {
        let partition = tp(partition);
        for effect in self.group.goes_on(Reader::Member(member_id), [&partition].into_iter(), now) {
            let Effect::Rebalanced(record) = effect else { panic!("{effect:?}") };
            self.records.push(*record);
        }
    }

    fn join_with(
        &mut self,
        now: Timestamp,
        change: impl FnOnce(&mut Join),
    ) -> (Ticket, BTreeMap<Ticket, Answer>) {
        let ticket = self.ticket();
        let mut join = Join {
            ticket,
            member: MemberRef::default(),
            new_member_id: format!("m{}", ticket.0),
            require_member_id: false,
            skips_assignment: true,
            client_id: "client".to_owned(),
            client_host: "here".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol("range", claims(&[]))],
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            initial_delay: Duration::ZERO,
            reason: None,
        };
        change(&mut join);
        let answers = self.apply(Input::Join(join), now);
        (ticket, answers)
    }

    fn join(&mut self, client_id: &str, now: Timestamp) -> (Ticket, BTreeMap<Ticket, Answer>) {
        self.join_with(now, |join| join.client_id = client_id.to_owned())
    }

    fn rejoin(
        &mut self,
        member_id: &str,
        owned: &[i32],
        now: Timestamp,
    ) -> (Ticket, BTreeMap<Ticket, Answer>) {
        self.join_with(now, |join| {
            join.member = MemberRef::id(member_id);
            join.client_id = member_id.to_owned();
            join.protocols = vec![protocol("range", claims(owned))];
        })
    }

    fn sync(
        &mut self,
        member: &str,
        assignments: &[(&str, &[i32])],
        now: Timestamp,
    ) -> (Ticket, BTreeMap<Ticket, Answer>) {
        let ticket = self.ticket();
        let sync = Sync {
            ticket,
            member: MemberRef::id(member),
            generation: self.group.generation(),
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: assignments
                .iter()
                .map(|(member_id, partitions)| ((*member_id).to_owned(), encode_assignment(&tps(partitions))))
                .collect(),
        };
        (ticket, self.apply(Input::Sync(sync), now))
    }

    fn heartbeat(&mut self, member: &str, now: Timestamp) -> Result<(), GroupError> {
        let (ticket, generation) = (self.ticket(), self.group.generation());
        let member = MemberRef::id(member);
        match self.apply(Input::Heartbeat { ticket, member, generation }, now).remove(&ticket) {
            Some(Answer::Heartbeat(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, member: MemberRef, reason: Option<&str>, now: Timestamp) -> BTreeMap<Ticket, Answer> {
        let ticket = self.ticket();
        let leaving = vec![Leaving { member, reason: reason.map(str::to_owned) }];
        self.apply(Input::Leave { ticket, leaving }, now)
    }

    /// Members `m1`, `m2`, … that have shared partitions 0, 1, … one by one.
    fn stable(members: usize) -> Self {
        let mut case = Case::new();
        let names: Vec<String> = (1..=members).map(|n| format!("m{n}")).collect();
        for name in &names {
            case.join_with(at(0), |join| {
                join.new_member_id.clone_from(name);
                join.client_id.clone_from(name);
                join.initial_delay = Duration::from_millis(10);
            });
        }
        case.apply(Input::Tick, at(10));
        case.apply(Input::Tick, at(20));
        let owned: Vec<[i32; 1]> = (0..members).map(|n| [i32::try_from(n).unwrap()]).collect();
        let shares: Vec<(&str, &[i32])> =
            names.iter().zip(&owned).map(|(name, owned)| (name.as_str(), owned.as_slice())).collect();
        for name in names.iter().rev() {
            case.sync(name, if name == "m1" { &shares } else { &[] }, at(30));
        }
        assert_eq!(case.group.state(), GroupState::Stable);
        case
    }

    fn commit(
        &mut self,
        member: &str,
        generation: i32,
        check: CommitCheck,
        partition: i32,
    ) -> Result<(), GroupError> {
        let committer = Committer { member: MemberRef::id(member), generation, check };
        self.group.decide_commit(&committer, [tp(partition)].iter(), at(1_000_000))
    }
}

pub(super) fn protocol(name: &str, metadata: Bytes) -> Protocol {
    Protocol { name: name.to_owned(), metadata }
}

fn joined(answers: &BTreeMap<Ticket, Answer>, ticket: Ticket) -> Joined {
    match answers.get(&ticket) {
        Some(Answer::Join(Ok(joined))) => joined.clone(),
        other => panic!("{other:?}"),
    }
}

fn join_error(answers: &BTreeMap<Ticket, Answer>, ticket: Ticket) -> GroupError {
    match answers.get(&ticket) {
        Some(Answer::Join(Err(error))) => error.clone(),
        other => panic!("{other:?}"),
    }
}

fn synced(answers: &BTreeMap<Ticket, Answer>, ticket: Ticket) -> Synced {
    match answers.get(&ticket) {
        Some(Answer::Sync(Ok(synced))) => synced.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_member_leads_and_assigns() {
    let mut case = Case::new();
    let (ticket, answers) = case.join("a", at(0));
    let answer = joined(&answers, ticket);
    assert_eq!((answer.generation, answer.leader.as_str(), answer.protocol.as_str()), (1, "m1", "range"));
    assert_eq!(answer.members.len(), 1);
    assert_eq!(case.group.state(), GroupState::CompletingRebalance);
    let (ticket, answers) = case.sync("m1", &[("m1", &[0, 1])], at(5));
    assert_eq!(synced(&answers, ticket).assignment, encode_assignment(&tps(&[0, 1])));
    assert_eq!(case.group.state(), GroupState::Stable);
    let record = &case.records[0];
    assert_eq!((record.generation, record.began_at, record.completed_at), (1, at(0), at(5)));
    assert_eq!(record.causes, [RebalanceCause::Joined { member_id: "m1".into(), client_id: "a".into() }]);
    assert_eq!(record.after, BTreeMap::from([("a".to_owned(), vec![tp(0), tp(1)])]));
    assert!(record.before.is_empty() && record.paused.is_empty(), "nobody had them before");
}

#[test]
fn a_group_waits_for_more_members_before_its_first_generation() {
    let delay = |join: &mut Join| join.initial_delay = Duration::from_millis(100);
    let mut case = Case::new();
    let (first, answers) = case.join_with(at(0), delay);
    assert!(answers.is_empty());
    assert_eq!(case.group.next_deadline(), Some(at(100)));
    let (second, _) = case.join_with(at(90), delay);
    assert!(case.apply(Input::Tick, at(100)).is_empty(), "a newcomer makes it wait once more");
    let answers = case.apply(Input::Tick, at(200));
    assert_eq!(joined(&answers, first).members.len(), 2);
    assert_eq!(joined(&answers, second).members.len(), 0, "only the leader is told who is there");
}

#[test]
fn a_joining_member_waits_until_everybody_has_joined_again() {
    let mut case = Case::stable(1);
    let (second, answers) = case.join("b", at(100));
    assert!(answers.is_empty());
    assert!(matches!(case.heartbeat("m1", at(200)), Err(GroupError::RebalanceInProgress { .. })));
    let (first, answers) = case.rejoin("m1", &[], at(300));
    assert_eq!(joined(&answers, first).generation, 2);
    assert_eq!(joined(&answers, second).leader, "m1", "the leader stays");
    // A follower that syncs first waits for the leader.
    let follower = joined(&answers, second).member_id;
    let (waiting, answers) = case.sync(&follower, &[], at(310));
    assert!(answers.is_empty());
    let (_, answers) = case.sync("m1", &[("m1", &[1]), (&follower, &[0])], at(320));
    assert_eq!(synced(&answers, waiting).assignment, encode_assignment(&tps(&[0])));
    case.goes_on(&follower, 0, at(350));
    let record = case.records.last().unwrap();
    // An eager member gives everything up when it joins again; partition 0 moved, partition 1 is new.
    assert_eq!(record.paused, BTreeMap::from([(tp(0), Duration::from_millis(50))]));
    assert_eq!(record.before["m1"], [tp(0)]);
    assert_eq!((record.after["m1"].as_slice(), record.after["b"].as_slice()), (&[tp(1)][..], &[tp(0)][..]));
}

#[test]
fn who_does_not_join_again_in_time_is_removed() {
    let mut case = Case::stable(2);
    let (newcomer, _) = case.join("c", at(1_000));
    let (first, answers) = case.rejoin("m1", &[0], at(2_000));
    assert!(answers.is_empty());
    // m2 lives, but takes no part.
    for second in (5..=60).step_by(5) {
        assert!(case.heartbeat("m2", at(second * 1000)).is_err());
        assert!(case.apply(Input::Tick, at(second * 1000)).is_empty());
    }
    let answers = case.apply(Input::Tick, at(61_000));
    assert_eq!(joined(&answers, first).members.len(), 2);
    assert_eq!(joined(&answers, newcomer).generation, 2);
    assert_eq!(case.expelled, [("m2".to_owned(), LeaveReason::RebalanceTimeout)]);
    let error = case.heartbeat("m2", at(61_001)).unwrap_err();
    assert!(error.to_string().contains("did not join the rebalance in time"), "{error}");
}

#[test]
fn static_members_that_are_away_and_allow_no_time_are_not_waited_for_in_a_circle() {
    let mut case = Case::new();
    let named = |join: &mut Join| {
        join.member.instance_id = Some("s".to_owned());
        join.rebalance_timeout = Duration::ZERO;
    };
    case.join_with(at(0), named);
    case.sync("m1", &[("m1", &[0])], at(0));
    // Another one makes it join again, which it doesn't, and is gone itself.
    let (other, _) = case.join_with(at(100), |join| join.rebalance_timeout = Duration::ZERO);
    case.apply(Input::Abandon { ticket: other }, at(100));
    let mut ticks = 0;
    let mut now = at(100);
    while let Some(next) = case.group.next_deadline().filter(|next| *next < at(5_000)) {
        now = next.max(now);
        case.apply(Input::Tick, now);
        ticks += 1;
        assert!(ticks < 100, "a tick each time, and nothing changes: {:?}", case.group.next_deadline());
    }
    assert_eq!(case.group.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_leader_that_never_assigns_is_removed_and_the_others_go_on() {
    let mut case = Case::new();
    let (_, _) = case.join("a", at(0));
    let (second, _) = case.join("b", at(1));
    let (_, answers) = case.rejoin("m1", &[], at(2));
    let follower = joined(&answers, second).member_id;
    let (waiting, _) = case.sync(&follower, &[], at(3));
    for second in (5..60).step_by(5) {
        case.heartbeat("m1", at(second * 1000)).unwrap();
        assert!(case.apply(Input::Tick, at(second * 1000)).is_empty());
    }
    let answers = case.apply(Input::Tick, at(60_002));
    assert_eq!(case.expelled, [("m1".to_owned(), LeaveReason::RebalanceTimeout)]);
    assert!(matches!(answers[&waiting], Answer::Sync(Err(GroupError::RebalanceInProgress { .. }))));
    let (ticket, answers) = case.rejoin(&follower, &[], at(60_010));
    assert_eq!(joined(&answers, ticket).leader, follower);
}

#[test]
fn a_new_member_is_told_its_id_first_and_holds_a_place_until_its_session_is_over() {
    let mut case = Case::new();
    let ask = |join: &mut Join| join.require_member_id = true;
    let (ticket, answers) = case.join_with(at(0), ask);
    let error = join_error(&answers, ticket);
    let GroupError::MemberIdRequired { member_id, .. } = error else { panic!("{error}") };
    assert!(!case.group.has_members() && !case.group.is_unused());
    let (ticket, answers) = case.join_with(at(10), |join| {
        ask(join);
        join.member = MemberRef::id(member_id.as_str());
    });
    assert_eq!(joined(&answers, ticket).member_id, member_id);
    // Ids that nobody comes back with take up places, for a while.
    for _ in 0..2 {
        case.join_with(at(20), ask);
    }
    let (ticket, answers) = case.join_with(at(30), ask);
    assert!(matches!(join_error(&answers, ticket), GroupError::GroupFull { limit: 3, .. }));
    case.heartbeat(&member_id, at(9_000)).unwrap();
    case.apply(Input::Tick, at(10_020));
    let (ticket, answers) = case.join_with(at(10_030), ask);
    assert!(matches!(join_error(&answers, ticket), GroupError::MemberIdRequired { .. }));
}

#[test]
fn an_id_that_nobody_knows_is_refused() {
    let mut case = Case::stable(1);
    let (ticket, answers) = case.rejoin("ghost", &[], at(100));
    assert!(matches!(join_error(&answers, ticket), GroupError::UnknownMember { reason: None, .. }));
    assert!(matches!(case.heartbeat("ghost", at(100)), Err(GroupError::UnknownMember { .. })));
    assert_eq!(case.group.state(), GroupState::Stable);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_older_instance() {
    let instance = |join: &mut Join| join.member.instance_id = Some("i".to_owned());
    let mut case = Case::new();
    let (_, answers) = case.join_with(at(0), instance);
    assert_eq!(answers.len(), 1);
    case.sync("m1", &[("m1", &[0])], at(10));
    let (ticket, answers) = case.join_with(at(5_000), instance);
    let answer = joined(&answers, ticket);
    assert_eq!((answer.generation, answer.skip_assignment, answer.members.len()), (1, true, 1));
    assert_eq!(case.group.state(), GroupState::Stable);
    let (ticket, answers) = case.sync(&answer.member_id, &[], at(5_010));
    assert_eq!(synced(&answers, ticket).assignment, encode_assignment(&tps(&[0])));
    // The older instance is told that it was replaced, whatever it asks.
    let old = MemberRef { member_id: "m1".into(), instance_id: Some("i".into()) };
    let committer = Committer { member: old.clone(), generation: 1, check: CommitCheck::Generation };
    assert!(matches!(
        case.group.decide_commit(&committer, [tp(0)].iter(), at(5_020)),
        Err(GroupError::FencedInstance { .. })
    ));
    let answers = case.leave(old, None, at(5_030));
    assert!(
        matches!(answers.values().next(), Some(Answer::Leave(left)) if matches!(left[0], Err(GroupError::FencedInstance { .. })))
    );
    // One that doesn't know of skipping is not told that it leads.
    let (ticket, answers) = case.join_with(at(6_000), |join| {
        instance(join);
        join.skips_assignment = false;
    });
    let answer = joined(&answers, ticket);
    assert!(answer.leader != answer.member_id && answer.members.is_empty());
    assert_eq!(case.records.len(), 1, "nothing moved");
    // With other things to say, it does set off a rebalance.
    let (ticket, answers) = case.join_with(at(7_000), |join| {
        instance(join);
        join.protocols = vec![protocol("range", Bytes::from_static(b"other"))];
    });
    assert_eq!(joined(&answers, ticket).generation, 2);
    // An administrator sends it away by its name.
    case.leave(MemberRef { member_id: String::new(), instance_id: Some("i".into()) }, None, at(8_000));
    assert_eq!(case.group.state(), GroupState::Empty);
}

#[test]
fn a_static_member_that_is_away_keeps_its_place_until_its_session_is_over() {
    let mut case = Case::stable(1);
    let (one, _) = case.join_with(at(100), |join| join.member.instance_id = Some("i".to_owned()));
    let (_, answers) = case.rejoin("m1", &[0], at(110));
    let away = joined(&answers, one).member_id;
    case.sync(&away, &[], at(120));
    case.sync("m1", &[("m1", &[0]), (&away, &[1])], at(120));
    // It goes silent; a third member joins and m1 joins again. The barrier's time would be up after a minute.
    case.join("c", at(5_000));
    case.rejoin("m1", &[0], at(5_010));
    case.apply(Input::Tick, at(10_119));
    assert!(case.expelled.is_empty());
    let answers = case.apply(Input::Tick, at(10_120));
    assert_eq!(case.expelled, [(away, LeaveReason::MissedHeartbeats)]);
    assert_eq!(answers.len(), 2, "those that waited for it go on");
}

#[test]
fn every_member_needs_an_assignor_in_common_and_the_most_wanted_is_chosen() {
    let offer = |names: &'static [&str]| {
        move |join: &mut Join| {
            join.protocols = names.iter().map(|name| protocol(name, claims(&[]))).collect();
            join.initial_delay = Duration::from_millis(10);
        }
    };
    let mut case = Case::new();
    let (first, _) = case.join_with(at(0), offer(&["range", "sticky"]));
    case.join_with(at(0), offer(&["sticky", "range"]));
    case.join_with(at(0), offer(&["other", "sticky", "range"]));
    case.apply(Input::Tick, at(10));
    let answers = case.apply(Input::Tick, at(20));
    assert_eq!(joined(&answers, first).protocol, "sticky");

    let mut case = Case::stable(1);
    let (ticket, answers) = case.join_with(at(40), offer(&["roundrobin"]));
    assert!(
        matches!(join_error(&answers, ticket), GroupError::InconsistentProtocol { protocols, .. } if protocols == ["range"])
    );
    let (ticket, answers) = case.join_with(at(40), |join| join.protocol_type = "connect".to_owned());
    assert!(matches!(join_error(&answers, ticket), GroupError::InconsistentProtocol { .. }));
    assert_eq!(case.group.state(), GroupState::Stable, "who is refused disturbs nobody");
}

#[test]
fn a_follower_that_says_the_same_again_is_answered_without_a_rebalance() {
    let mut case = Case::stable(2);
    let (ticket, answers) = case.rejoin("m2", &[], at(100));
    assert_eq!(joined(&answers, ticket).generation, 1);
    assert_eq!(case.group.state(), GroupState::Stable);
    // The leader joins again because it wants to assign again.
    let (_, answers) = case.rejoin("m1", &[], at(110));
    assert!(answers.is_empty());
    assert_eq!(case.group.state(), GroupState::PreparingRebalance);
    assert!(case.rejoin("m2", &[], at(120)).1.len() == 2);
}

#[test]
fn a_member_whose_connection_breaks_while_it_joins_holds_nobody_up_for_long() {
    // A new one can't come back, since it doesn't know its id.
    let mut case = Case::stable(1);
    let (lost, _) = case.join("b", at(100));
    case.apply(Input::Abandon { ticket: lost }, at(200));
    let (ticket, answers) = case.rejoin("m1", &[0], at(300));
    assert_eq!(joined(&answers, ticket).members.len(), 1);
    // One that knows its id has its session timeout.
    let mut case = Case::stable(2);
    let (lost, _) = case.rejoin("m2", &[5], at(100));
    case.apply(Input::Abandon { ticket: lost }, at(200));
    let (waiting, answers) = case.rejoin("m1", &[0], at(250));
    assert!(answers.is_empty());
    assert!(case.apply(Input::Tick, at(10_199)).is_empty());
    let answers = case.apply(Input::Tick, at(10_200));
    assert_eq!(joined(&answers, waiting).members.len(), 1);
}

#[test]
fn a_reason_to_leave_is_understood() {
    let mut case = Case::stable(3);
    case.leave(MemberRef::id("m1"), Some("the consumer is being closed"), at(100));
    case.leave(MemberRef::id("m2"), Some(MISSED_POLLS), at(100));
    case.leave(MemberRef::id("m3"), Some("consumer poll timeout has expired."), at(100));
    let reasons: Vec<LeaveReason> = case
        .records
        .last()
        .unwrap()
        .causes
        .iter()
        .map(|cause| match cause {
            RebalanceCause::Left { reason, .. } => *reason,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(reasons, [LeaveReason::Left, LeaveReason::MissedPolls, LeaveReason::MissedPolls]);
    assert_eq!((case.group.state(), case.group.empty_since()), (GroupState::Empty, Some(at(100))));
}

#[test]
fn commits_are_fenced_by_member_and_generation_as_in_kafka() {
    let mut case = Case::stable(1);
    assert_eq!(case.commit("m1", 1, CommitCheck::Generation, 7), Ok(()), "of any partition");
    assert!(matches!(
        case.commit("m1", 0, CommitCheck::Generation, 0),
        Err(GroupError::IllegalGeneration { given: 0, current: 1, .. })
    ));
    assert!(matches!(
        case.commit("ghost", 1, CommitCheck::Generation, 0),
        Err(GroupError::UnknownMember { .. })
    ));
    assert!(case.commit("", -1, CommitCheck::Generation, 0).is_err(), "a group with members is theirs");
    assert_eq!(
        case.commit("", -1, CommitCheck::Transaction, 0),
        Ok(()),
        "clients before KIP-447 name no member"
    );
    // While members join, those of the last generation may still commit; while the leader assigns, it is put off.
    case.rejoin("m1", &[0], at(100));
    assert!(matches!(
        case.commit("m1", 2, CommitCheck::Generation, 0),
        Err(GroupError::RebalanceInProgress { .. })
    ));
    assert_eq!(case.commit("m1", 2, CommitCheck::Transaction, 0), Ok(()));
    case.leave(MemberRef::id("m1"), None, at(200));
    assert_eq!(case.commit("", -1, CommitCheck::Generation, 0), Ok(()), "nobody's group");
    assert!(case.commit("m1", 2, CommitCheck::Generation, 0).is_err());
    assert!(case.commit("", -1, CommitCheck::Ownership, 0).is_err());
}

#[test]
fn groups_that_are_not_of_consumers_are_handed_their_bytes_and_nothing_is_read_into_them() {
    let mut case = Case::new();
    let (ticket, answers) = case.join_with(at(0), |join| {
        join.protocol_type = "connect".to_owned();
        join.protocols = vec![protocol("range", claims(&[0, 1]))];
    });
    assert_eq!(joined(&answers, ticket).protocol_type, "connect");
    let ticket = case.ticket();
    let sync = Sync {
        ticket,
        member: MemberRef::id("m1"),
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![
            ("m1".to_owned(), encode_assignment(&tps(&[0]))),
            ("ghost".to_owned(), Bytes::new()),
        ],
    };
    let answers = case.apply(Input::Sync(sync), at(1));
    assert_eq!(synced(&answers, ticket).assignment, encode_assignment(&tps(&[0])));
    assert_eq!(case.records[0].after, BTreeMap::from([("client".to_owned(), Vec::new())]));
    assert!(!case.group.is_subscribed("t"));
}

#[test]
fn a_group_that_is_being_deleted_takes_nobody() {
    let mut case = Case::new();
    case.group.kill();
    let (ticket, answers) = case.join("a", at(0));
    assert!(matches!(join_error(&answers, ticket), GroupError::Dead { .. }));
}

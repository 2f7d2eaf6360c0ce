//! The coordinator against a model, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::rebalance::{LeaveReason, RebalanceCause, RebalanceRecord};
use super::{Effect, Fence, Group, GroupState, Input, Join};
use crate::partition::TopicPartition;

const SESSION: Duration = Duration::from_secs(10);
const MAX_POLL: Duration = Duration::from_secs(300);

fn at(ms: u64) -> Timestamp {
    Timestamp::EPOCH.saturating_add(Duration::from_millis(ms))
}

fn join(member: &str, topics: &[(&str, i32)]) -> Input {
    Input::Join(Join {
        member_id: member.to_owned(),
        client_id: member.to_owned(),
        topics: topics.iter().map(|(name, partitions)| (Arc::from(*name), *partitions)).collect(),
        session_timeout: SESSION,
        max_poll_interval: MAX_POLL,
    })
}

fn poll(group: &mut Group, member: &str, now: Timestamp) -> Vec<Effect> {
    group.apply(Input::Poll { member_id: member.to_owned() }, now)
}

fn leave(group: &mut Group, member: &str, now: Timestamp) -> Vec<Effect> {
    group.apply(Input::Leave { member_id: member.to_owned() }, now)
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn assigned(effects: &[Effect]) -> Vec<TopicPartition> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Assign { partitions, .. } => Some(partitions.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn revoked(effects: &[Effect]) -> Vec<TopicPartition> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Revoke { partitions, .. } => Some(partitions.clone()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn record(effects: &[Effect]) -> Option<RebalanceRecord> {
    effects.iter().find_map(|effect| match effect {
        Effect::Rebalanced(record) => Some(record.as_ref().clone()),
        _ => None,
    })
}

#[test]
fn first_member_gets_every_partition_with_its_first_poll() {
    let mut group = Group::new("g");
    assert_eq!(group.state(), GroupState::Empty);
    let effects = group.apply(join("a", &[("t", 3)]), at(0));
    assert_eq!(effects, [Effect::Wake { member_id: "a".into() }]);
    assert_eq!(group.state(), GroupState::CompletingRebalance);
    let effects = poll(&mut group, "a", at(5));
    assert_eq!(assigned(&effects), [tp(0), tp(1), tp(2)]);
    let record = record(&effects).unwrap();
    assert_eq!((record.generation, record.began_at, record.completed_at), (1, at(0), at(5)));
    assert!(record.paused.is_empty(), "nobody had them before");
    assert_eq!(group.state(), GroupState::Stable);
}

#[test]
fn a_moving_partition_is_told_acknowledged_and_only_then_given() {
    let mut group = Group::new("g");
    group.apply(join("a", &[("t", 3)]), at(0));
    poll(&mut group, "a", at(0));
    let effects = group.apply(join("b", &[("t", 3)]), at(100));
    assert_eq!(effects, [Effect::Wake { member_id: "a".into() }]);
    assert_eq!(group.state(), GroupState::PreparingRebalance);
    assert_eq!(poll(&mut group, "b", at(110)), [], "not free yet");
    assert_eq!(revoked(&poll(&mut group, "a", at(120))), [tp(2)], "one partition moves, two stay");
    // Told but not acknowledged: still a's, which may commit what it has done.
    assert_eq!(poll(&mut group, "b", at(130)), []);
    assert_eq!(group.decide_commit("a", 1, [tp(2)].iter()), Ok(()));
    group.finish_commit([tp(2)].iter());
    // The next poll acknowledges.
    let effects = poll(&mut group, "a", at(140));
    assert_eq!(effects, [Effect::Wake { member_id: "b".into() }]);
    assert_eq!(group.state(), GroupState::CompletingRebalance);
    assert!(matches!(group.decide_commit("a", 2, [tp(2)].iter()), Err(Fence::NotOwner { .. })));
    let effects = poll(&mut group, "b", at(150));
    assert_eq!(assigned(&effects), [tp(2)]);
    let record = record(&effects).unwrap();
    assert_eq!(record.paused, BTreeMap::from([(tp(2), Duration::from_millis(10))]));
    assert_eq!(record.before, BTreeMap::from([("a".to_owned(), vec![tp(0), tp(1), tp(2)])]));
    let after = BTreeMap::from([("a".to_owned(), vec![tp(0), tp(1)]), ("b".to_owned(), vec![tp(2)])]);
    assert_eq!(record.after, after);
    assert_eq!(record.causes, [RebalanceCause::Joined { member_id: "b".into(), client_id: "b".into() }]);
}

#[test]
fn a_partition_with_a_commit_in_flight_waits_for_it() {
    let mut group = Group::new("g");
    group.apply(join("a", &[("t", 1)]), at(0));
    poll(&mut group, "a", at(0));
    group.apply(join("b", &[("t", 1)]), at(1));
    assert_eq!(group.decide_commit("a", 1, [tp(0)].iter()), Ok(()));
    leave(&mut group, "a", at(2));
    assert_eq!(poll(&mut group, "b", at(3)), [], "a's commit is not decided on disk yet");
    assert_eq!(group.finish_commit([tp(0)].iter()), [Effect::Wake { member_id: "b".into() }]);
    assert_eq!(assigned(&poll(&mut group, "b", at(4))), [tp(0)]);
}

#[test]
fn silent_and_stuck_members_are_expelled_with_the_reason() {
    let mut group = Group::new("g");
    for member in ["silent", "stuck", "well"] {
        group.apply(join(member, &[("t", 3)]), at(0));
    }
    for member in ["silent", "stuck", "well"] {
        poll(&mut group, member, at(0));
    }
    assert_eq!(group.next_deadline(), Some(at(10_000)));
    for second in (3..=300).step_by(3) {
        let now = at(second * 1000);
        group.apply(Input::Heartbeat { member_id: "stuck".into() }, now);
        poll(&mut group, "well", now);
        let effects = group.apply(Input::Tick, now);
        let expelled: Vec<_> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Expelled { client_id, reason, .. } => Some((client_id.as_str(), *reason)),
                _ => None,
            })
            .collect();
        match second {
            12 => assert_eq!(expelled, [("silent", LeaveReason::MissedHeartbeats)]),
            300 => assert_eq!(expelled, [("stuck", LeaveReason::MissedPolls)]),
            _ => assert_eq!(expelled, [], "at {second} s"),
        }
    }
    poll(&mut group, "well", at(301_000));
    assert_eq!(group.members().len(), 1);
    assert!((0..3).all(|partition| group.owner(&tp(partition)) == Some("well")));
    let fence = group.decide_commit("stuck", 3, [tp(0)].iter()).unwrap_err();
    assert!(fence.to_string().contains("did not poll in time"), "{fence}");
    let effects = poll(&mut group, "silent", at(302_000));
    let reason = Some(LeaveReason::MissedHeartbeats);
    assert_eq!(effects, [Effect::NotMember { member_id: "silent".into(), reason }]);
}

#[test]
fn a_commit_of_an_older_generation_is_refused() {
    let mut group = Group::new("g");
    group.apply(join("a", &[("t", 2)]), at(0));
    poll(&mut group, "a", at(0));
    group.apply(join("b", &[("t", 2)]), at(1));
    assert_eq!(group.decide_commit("a", 1, [tp(0)].iter()), Ok(()), "not yet told of the new one");
    group.finish_commit([tp(0)].iter());
    poll(&mut group, "a", at(2));
    poll(&mut group, "a", at(3));
    let fence = group.decide_commit("a", 1, [tp(0)].iter()).unwrap_err();
    assert!(matches!(fence, Fence::Generation { given: 1, current: 2, .. }), "{fence}");
    assert_eq!(group.decide_commit("a", 2, [tp(0)].iter()), Ok(()));
}

#[test]
fn a_partition_wanted_back_after_it_was_told_goes_through_free_and_returns() {
    let mut group = Group::new("g");
    group.apply(join("a", &[("t", 2)]), at(0));
    poll(&mut group, "a", at(0));
    group.apply(join("b", &[("t", 2)]), at(1));
    assert_eq!(revoked(&poll(&mut group, "a", at(2))), [tp(1)]);
    leave(&mut group, "b", at(3));
    // a has dropped its state for it, so it must hear of it again.
    let effects = poll(&mut group, "a", at(4));
    assert_eq!(assigned(&effects), [tp(1)]);
    assert_eq!(group.state(), GroupState::Stable);
    assert_eq!(record(&effects).unwrap().causes.len(), 2);
}

#[test]
fn a_changed_subscription_moves_only_what_it_must() {
    let mut group = Group::new("g");
    group.apply(join("a", &[("t", 2)]), at(0));
    poll(&mut group, "a", at(0));
    let effects = group.apply(join("a", &[("t", 2), ("u", 1)]), at(1));
    assert_eq!(effects, [Effect::Wake { member_id: "a".into() }]);
    let effects = poll(&mut group, "a", at(2));
    assert_eq!(assigned(&effects), [TopicPartition::new("u", 0)]);
    assert_eq!(record(&effects).unwrap().causes, [RebalanceCause::SubscriptionChanged]);
    assert_eq!(group.apply(join("a", &[("t", 2), ("u", 1)]), at(3)), [], "nothing has changed");
    group.apply(join("a", &[("u", 1)]), at(4));
    assert_eq!(revoked(&poll(&mut group, "a", at(5))), [tp(0), tp(1)]);
    assert!(record(&poll(&mut group, "a", at(6))).is_some());
}

#[test]
fn members_of_different_topics_share_what_both_read() {
    let mut group = Group::new("g");
    group.apply(join("a", &[("t", 4)]), at(0));
    group.apply(join("b", &[("t", 4), ("u", 2)]), at(0));
    settle(&mut group, &["a", "b"], at(1));
    let owned =
        |member: &str| group.members().iter().find(|m| m.member_id == member).unwrap().partitions.len();
    assert_eq!((owned("a"), owned("b")), (3, 3));
}

/// Polls everybody until nothing changes.
fn settle(group: &mut Group, members: &[&str], now: Timestamp) {
    for _ in 0..4 {
        for member in members {
            poll(group, member, now);
        }
    }
    assert_eq!(group.state(), GroupState::Stable);
}

/// What one member believes.
#[derive(Default, Clone)]
struct Believer {
    held: BTreeSet<TopicPartition>,
    /// Lives, but polls no more.
    stuck: bool,
    /// Sends nothing any more.
    dead: bool,
}

/// A group, members that act at random, and what must always hold.
struct Simulation {
    group: Group,
    rng: StdRng,
    now: Timestamp,
    believers: BTreeMap<String, Believer>,
    /// Commits that passed and are not finished: who, and which partitions.
    in_flight: Vec<(String, Vec<TopicPartition>)>,
    partitions: i32,
    next_member: u32,
    history: Vec<String>,
    moves: usize,
    records: Vec<RebalanceRecord>,
}

impl Simulation {
    fn new(seed: u64, partitions: i32) -> Self {
        Self {
            group: Group::new("g"),
            rng: StdRng::seed_from_u64(seed),
            now: at(0),
            believers: BTreeMap::new(),
            in_flight: Vec::new(),
            partitions,
            next_member: 0,
            history: Vec::new(),
            moves: 0,
            records: Vec::new(),
        }
    }

    fn random_member(&mut self) -> Option<String> {
        let members: Vec<String> = self.believers.keys().cloned().collect();
        members.choose(&mut self.rng).cloned()
    }

    fn step(&mut self) {
        self.now = self.now.saturating_add(Duration::from_millis(self.rng.random_range(0..800)));
        match self.rng.random_range(0..100) {
            0..8 if self.believers.len() < 6 => {
                let member = format!("m{}", self.next_member);
                self.next_member += 1;
                let partitions = self.partitions;
                self.believers.insert(member.clone(), Believer::default());
                self.apply(&join(&member, &[("t", partitions)]));
            }
            8..12 => {
                if let Some(member) = self.random_member() {
                    self.believers.remove(&member);
                    self.apply(&Input::Leave { member_id: member });
                }
            }
            12..14 => {
                if let Some(member) = self.random_member() {
                    self.believers.get_mut(&member).unwrap().dead = true;
                }
            }
            14..15 => {
                if let Some(member) = self.random_member() {
                    self.believers.get_mut(&member).unwrap().stuck = true;
                }
            }
            15..30 => self.decide(),
            30..45 => self.finish(),
            _ => {
                if let Some(member) = self.random_member()
                    && !self.believers[&member].dead
                    && !self.believers[&member].stuck
                {
                    self.poll(&member);
                }
            }
        }
        self.everybody_alive_heartbeats();
        self.apply(&Input::Tick);
        self.check();
    }

    fn everybody_alive_heartbeats(&mut self) {
        let alive: Vec<String> =
            self.believers.iter().filter(|(_, b)| !b.dead).map(|(member, _)| member.clone()).collect();
        for member_id in alive {
            self.apply(&Input::Heartbeat { member_id });
        }
    }

    fn poll(&mut self, member: &str) {
        self.apply(&Input::Poll { member_id: member.to_owned() });
    }

    fn apply(&mut self, input: &Input) {
        let effects = self.group.apply(input.clone(), self.now);
        if !effects.is_empty() {
            self.history.push(format!("{} {input:?} -> {effects:?}", self.now));
        }
        for effect in effects {
            match effect {
                Effect::Revoke { member_id, partitions } => {
                    let believer = self.believers.get_mut(&member_id).unwrap();
                    for partition in partitions {
                        assert!(believer.held.remove(&partition), "revoked what {member_id} did not have");
                        self.moves += 1;
                    }
                }
                Effect::Assign { member_id, partitions, .. } => {
                    for partition in &partitions {
                        for (other, believer) in &self.believers {
                            assert!(!believer.held.contains(partition), "{partition} is still {other}'s");
                        }
                        let waiting = self.in_flight.iter().any(|(_, pending)| pending.contains(partition));
                        assert!(!waiting, "{partition} was given away under a commit in flight");
                    }
                    self.believers.get_mut(&member_id).unwrap().held.extend(partitions);
                }
                Effect::Expelled { member_id, .. } => {
                    let believer = self.believers.remove(&member_id).unwrap();
                    assert!(believer.dead || believer.stuck, "{member_id} was well and was expelled");
                }
                Effect::Rebalanced(record) => {
                    assert!(record.began_at <= record.completed_at);
                    assert!(!record.causes.is_empty());
                    self.records.push(*record);
                }
                Effect::Wake { .. } => {}
                Effect::NotMember { member_id, .. } => panic!("{member_id} acts without being a member"),
            }
        }
    }

    /// A member commits for some of what it believes to have; it must pass.
    fn decide(&mut self) {
        let Some(member) = self.random_member() else { return };
        let partitions: Vec<_> = self.believers[&member].held.iter().take(2).cloned().collect();
        let generation = self.group.member_generation(&member).unwrap();
        self.group.decide_commit(&member, generation, partitions.iter()).unwrap();
        self.in_flight.push((member, partitions));
    }

    fn finish(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.in_flight.len());
        let (_, partitions) = self.in_flight.swap_remove(index);
        self.group.finish_commit(partitions.iter());
    }

    fn check(&self) {
        let mut owners: BTreeMap<&TopicPartition, &str> = BTreeMap::new();
        for (member, believer) in &self.believers {
            for partition in &believer.held {
                assert_eq!(owners.insert(partition, member), None, "{partition} has two owners");
                assert_eq!(self.group.owner(partition), Some(member.as_str()), "{partition}");
            }
        }
    }

    /// Lets everybody who can poll do so until the dead are gone and nothing is left to do.
    fn settle(&mut self) {
        while !self.in_flight.is_empty() {
            self.finish();
        }
        // Twice as long as it takes to expel the stuck.
        for _ in 0..200 {
            self.now = self.now.saturating_add(Duration::from_secs(3));
            self.everybody_alive_heartbeats();
            let well: Vec<String> = self
                .believers
                .iter()
                .filter(|(_, believer)| !believer.dead && !believer.stuck)
                .map(|(member, _)| member.clone())
                .collect();
            for member in well {
                self.poll(&member);
            }
            self.apply(&Input::Tick);
            self.check();
        }
        let shares: Vec<usize> = self.believers.values().map(|believer| believer.held.len()).collect();
        if shares.is_empty() {
            assert_eq!(self.group.state(), GroupState::Empty);
            return;
        }
        assert_eq!(self.group.state(), GroupState::Stable, "{:#?}", self.group);
        let partitions = usize::try_from(self.partitions).unwrap();
        assert_eq!(shares.iter().sum::<usize>(), partitions, "every partition has an owner");
        let (least, most) = (*shares.iter().min().unwrap(), *shares.iter().max().unwrap());
        assert!(most - least <= 1, "shares {shares:?}");
        assert!(least > 0 || shares.len() > partitions, "somebody starves: {shares:?}");
    }
}

fn simulate(seed: u64, partitions: i32, steps: usize) -> Simulation {
    let mut simulation = Simulation::new(seed, partitions);
    for _ in 0..steps {
        simulation.step();
    }
    simulation.settle();
    simulation
}

#[test]
fn members_at_random_never_share_a_partition_and_end_balanced() {
    let base: u64 =
        std::env::var("FAROL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("FAROL_TEST_SEED={base}");
    let (mut moves, mut records) = (0, 0);
    for run in 0..60 {
        let simulation = simulate(base.wrapping_add(run), 1 + i32::try_from(run % 12).unwrap(), 250);
        moves += simulation.moves;
        records += simulation.records.len();
    }
    // The checks saw something.
    assert!(moves > 100 && records > 200, "{moves} moves, {records} rebalances");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, other) = (simulate(7, 5, 300), simulate(7, 5, 300));
    assert!(one.history.len() > 50);
    assert_eq!(one.history, other.history);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A member that joins or leaves a balanced group makes no more partitions move than balance needs.
    #[test]
    fn a_partition_moves_only_when_it_must(members in 1usize..7, partitions in 1i32..20, leaves: bool) {
        let names: Vec<String> = (0..=members).map(|n| format!("m{n}")).collect();
        let mut group = Group::new("g");
        let first: Vec<&str> = names.iter().take(members).map(String::as_str).collect();
        for member in &first {
            group.apply(join(member, &[("t", partitions)]), at(0));
        }
        settle(&mut group, &first, at(1));
        let before: BTreeMap<_, _> =
            (0..partitions).map(|p| (p, group.owner(&tp(p)).unwrap().to_owned())).collect();

        let now: Vec<&str> = if leaves && members > 1 {
            leave(&mut group, "m0", at(2));
            first.iter().copied().skip(1).collect()
        } else {
            group.apply(join(&names[members], &[("t", partitions)]), at(2));
            names.iter().map(String::as_str).collect()
        };
        settle(&mut group, &now, at(3));
        let moved = (0..partitions)
            .filter(|p| now.contains(&before[p].as_str()) && group.owner(&tp(*p)) != Some(before[p].as_str()))
            .count();
        // A newcomer needs its share; when a member goes, only its own partitions move.
        let needed = if now.len() > members { usize::try_from(partitions).unwrap() / now.len() } else { 0 };
        prop_assert!(moved <= needed, "{moved} moved, {needed} needed");
    }
}

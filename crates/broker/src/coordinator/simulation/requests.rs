//! Bare requests: eager members, dynamic and static, slow, stuck, killed, cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use farol_event::Timestamp;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::super::subscription::{Subscription, decode_assignment, encode_assignment};
use super::super::tests::{at, protocol};
use super::super::{
    Answer, Effect, Group, GroupError, GroupLimits, GroupState, Input, Join, Joined, Leaving, MemberRef,
    Sync, Ticket,
};
use crate::partition::TopicPartition;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(20);
const MAX_MEMBERS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Out,
    Joining(Ticket, Timestamp),
    Syncing(Ticket, Timestamp),
    In,
}

#[derive(Debug)]
struct Actor {
    instance: Option<String>,
    member_id: String,
    generation: i32,
    phase: Phase,
    /// Sends nothing any more.
    dead: bool,
    /// Sends heartbeats and nothing else.
    stuck: bool,
    must_join: bool,
    next_heartbeat: Timestamp,
    assigned: BTreeSet<TopicPartition>,
}

struct Simulation {
    group: Group,
    rng: StdRng,
    now: Timestamp,
    actors: BTreeMap<String, Actor>,
    partitions: i32,
    next: u64,
    inputs: Vec<(Timestamp, Input)>,
    /// By generation: who was told that a partition is its own. Static members by their names.
    owners: BTreeMap<i32, BTreeMap<TopicPartition, String>>,
    last_generation: i32,
    /// Generations in which everybody was assigned.
    stable_generations: BTreeSet<i32>,
    expelled: usize,
}

impl Simulation {
    fn new(seed: u64, partitions: i32) -> Self {
        Self {
            group: Group::new("g", GroupLimits { max_members: MAX_MEMBERS + 2 }, at(0)),
            rng: StdRng::seed_from_u64(seed),
            now: at(0),
            actors: BTreeMap::new(),
            partitions,
            next: 0,
            inputs: Vec::new(),
            owners: BTreeMap::new(),
            last_generation: 0,
            stable_generations: BTreeSet::new(),
            expelled: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn random_actor(&mut self) -> Option<String> {
        let names: Vec<String> = self.actors.keys().cloned().collect();
        names.choose(&mut self.rng).cloned()
    }

    fn step(&mut self) {
        self.now = self.now.saturating_add(Duration::from_millis(self.rng.random_range(0..500)));
        match self.rng.random_range(0..100) {
            0..6 if self.actors.len() < MAX_MEMBERS => {
                let n = self.fresh();
                let instance = self.rng.random_bool(0.3).then(|| format!("i{n}"));
                self.add(&format!("c{n}"), instance);
            }
            6..8 => self.leave(),
            8..10 => self.cut_off(true),
            10..12 => self.cut_off(false),
            12..13 => {
                if let Some(name) = self.random_actor() {
                    self.actors.get_mut(&name).unwrap().stuck = true;
                }
            }
            13..15 => self.restart_static(),
            15..17 => self.lead_anew(),
            _ => {}
        }
        self.everybody_acts(0.5);
        self.apply(Input::Tick);
        self.check();
    }

    fn add(&mut self, name: &str, instance: Option<String>) {
        let actor = Actor {
            instance,
            member_id: String::new(),
            generation: -1,
            phase: Phase::Out,
            dead: false,
            stuck: false,
            must_join: false,
            next_heartbeat: self.now,
            assigned: BTreeSet::new(),
        };
        self.actors.insert(name.to_owned(), actor);
    }

    fn leave(&mut self) {
        let Some(name) = self.random_actor() else { return };
        let actor = self.actors.remove(&name).unwrap();
        if actor.dead || actor.member_id.is_empty() {
            self.actors.insert(name, actor);
            return;
        }
        let ticket = Ticket(self.fresh());
        let member = MemberRef { member_id: actor.member_id, instance_id: actor.instance };
        self.apply(Input::Leave { ticket, leaving: vec![Leaving { member, reason: None }] });
    }

    /// A member is killed, and its connection is closed, or the answers go nowhere.
    fn cut_off(&mut self, connection_closes: bool) {
        let Some(name) = self.random_actor() else { return };
        let actor = self.actors.get_mut(&name).unwrap();
        actor.dead = true;
        if let (true, Phase::Joining(ticket, _) | Phase::Syncing(ticket, _)) =
            (connection_closes, actor.phase)
        {
            self.apply(Input::Abandon { ticket });
        }
    }

    /// Another process with the same static name, while the older may still run.
    fn restart_static(&mut self) {
        let Some(name) = self.random_actor() else { return };
        let Some(instance) = self.actors[&name].instance.clone() else { return };
        self.actors.remove(&name);
        let n = self.fresh();
        self.add(&format!("c{n}"), Some(instance));
    }

    /// The leader has seen a new partition.
    fn lead_anew(&mut self) {
        let Some(name) = self.random_actor() else { return };
        let actor = self.actors.get_mut(&name).unwrap();
        actor.must_join |= actor.phase == Phase::In;
    }

    fn everybody_acts(&mut self, probability: f64) {
        let names: Vec<String> = self.actors.keys().cloned().collect();
        for name in names {
            let acts = self.rng.random_bool(probability);
            let Some(actor) = self.actors.get_mut(&name) else { continue };
            if actor.dead {
                continue;
            }
            let due = actor.phase == Phase::In && actor.next_heartbeat <= self.now;
            if due {
                actor.next_heartbeat = self.now.saturating_add(Duration::from_secs(3));
                self.heartbeat(&name);
            }
            let Some(actor) = self.actors.get(&name) else { continue };
            let wants_in = actor.phase == Phase::Out || (actor.phase == Phase::In && actor.must_join);
            if acts && wants_in && !actor.stuck {
                self.join(&name);
            }
        }
    }

    fn heartbeat(&mut self, name: &str) {
        let ticket = Ticket(self.fresh());
        let actor = &self.actors[name];
        let member = MemberRef { member_id: actor.member_id.clone(), instance_id: actor.instance.clone() };
        let generation = actor.generation;
        self.apply(Input::Heartbeat { ticket, member, generation });
    }

    fn join(&mut self, name: &str) {
        let ticket = Ticket(self.fresh());
        let metadata =
            Subscription { topics: BTreeSet::from(["t".into()]), ..Subscription::default() }.encode();
        let now = self.now;
        let actor = self.actors.get_mut(name).unwrap();
        actor.phase = Phase::Joining(ticket, now);
        actor.must_join = false;
        // Eager: it gives everything up.
        actor.assigned.clear();
        let member = MemberRef { member_id: actor.member_id.clone(), instance_id: actor.instance.clone() };
        let join = Join {
            ticket,
            member,
            new_member_id: format!("{name}-{}", ticket.0),
            require_member_id: self.rng.random_bool(0.7),
            skips_assignment: true,
            client_id: name.to_owned(),
            client_host: String::new(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol("range", metadata)],
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            initial_delay: Duration::from_millis(self.rng.random_range(0..300)),
            reason: None,
        };
        self.apply(Input::Join(join));
    }

    fn sync(&mut self, name: &str, assignments: Vec<(String, Bytes)>) {
        let ticket = Ticket(self.fresh());
        let now = self.now;
        let actor = self.actors.get_mut(name).unwrap();
        actor.phase = Phase::Syncing(ticket, now);
        let sync = Sync {
            ticket,
            member: MemberRef { member_id: actor.member_id.clone(), instance_id: actor.instance.clone() },
            generation: actor.generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        self.apply(Input::Sync(sync));
    }

    fn apply(&mut self, input: Input) {
        self.inputs.push((self.now, input.clone()));
        for effect in self.group.apply(input, self.now) {
            match effect {
                Effect::Answer { ticket, answer } => self.answered(ticket, answer),
                Effect::Expelled { .. } => self.expelled += 1,
                Effect::Rebalanced(record) => {
                    assert!(
                        record.began_at <= record.completed_at && !record.causes.is_empty(),
                        "{record:?}"
                    );
                }
                Effect::Wake { .. } => {}
            }
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let waiting = |actor: &Actor| match actor.phase {
            Phase::Joining(waiting, _) | Phase::Syncing(waiting, _) => waiting == ticket,
            _ => false,
        };
        match answer {
            Answer::Join(joined) => {
                let Some(name) = self.waiter(waiting) else { return };
                match joined {
                    Ok(joined) => self.joined(&name, &joined),
                    Err(error) => self.refused(&name, &error),
                }
            }
            Answer::Sync(synced) => {
                let Some(name) = self.waiter(waiting) else { return };
                match synced {
                    Ok(synced) => self.assigned(&name, &synced.assignment),
                    Err(error) => self.refused(&name, &error),
                }
            }
            Answer::Heartbeat(Err(error)) => {
                // The only heartbeat on its way is the last input's.
                let Some((_, Input::Heartbeat { member, .. })) = self.inputs.last() else { panic!() };
                let member = member.clone();
                let of_member = |actor: &Actor| actor.member_id == member.member_id && !actor.dead;
                let Some(name) = self.waiter(of_member) else { return };
                self.refused(&name, &error);
            }
            Answer::Heartbeat(Ok(())) | Answer::Leave(_) => {}
        }
    }

    fn waiter(&self, is_it: impl Fn(&Actor) -> bool) -> Option<String> {
        self.actors.iter().find(|(_, actor)| is_it(actor)).map(|(name, _)| name.clone())
    }

    fn joined(&mut self, name: &str, joined: &Joined) {
        assert!(joined.generation >= self.last_generation, "generations only rise");
        self.last_generation = joined.generation;
        let actor = self.actors.get_mut(name).unwrap();
        actor.member_id.clone_from(&joined.member_id);
        actor.generation = joined.generation;
        if actor.dead || actor.stuck {
            actor.phase = Phase::In;
            return;
        }
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let mut shares: Vec<(String, BTreeSet<TopicPartition>)> =
            joined.members.iter().map(|member| (member.member_id.clone(), BTreeSet::new())).collect();
        if leads {
            for (partition, turn) in (0..self.partitions).zip((0..shares.len()).cycle()) {
                shares[turn].1.insert(TopicPartition::new("t", partition));
            }
        }
        let assignments =
            shares.into_iter().map(|(member_id, share)| (member_id, encode_assignment(&share))).collect();
        self.sync(name, if leads { assignments } else { Vec::new() });
    }

    fn assigned(&mut self, name: &str, assignment: &[u8]) {
        let actor = self.actors.get_mut(name).unwrap();
        actor.phase = Phase::In;
        actor.assigned = decode_assignment(assignment).unwrap();
        self.stable_generations.insert(actor.generation);
        let owner = actor.instance.clone().unwrap_or_else(|| actor.member_id.clone());
        let owners = self.owners.entry(actor.generation).or_default();
        for partition in &actor.assigned {
            let other = owners.insert(partition.clone(), owner.clone());
            assert!(
                other.as_ref().is_none_or(|other| *other == owner),
                "{partition} is {other:?}'s and {owner}'s"
            );
        }
    }

    fn refused(&mut self, name: &str, error: &GroupError) {
        let actor = self.actors.get_mut(name).unwrap();
        match error {
            GroupError::RebalanceInProgress { .. } if actor.phase == Phase::In => actor.must_join = true,
            GroupError::RebalanceInProgress { .. } => actor.phase = Phase::Out,
            GroupError::MemberIdRequired { member_id, .. } => {
                actor.member_id.clone_from(member_id);
                actor.phase = Phase::Out;
            }
            GroupError::FencedInstance { .. } => actor.dead = true,
            GroupError::UnknownMember { .. } | GroupError::IllegalGeneration { .. } => {
                actor.member_id.clear();
                actor.generation = -1;
                actor.assigned.clear();
                actor.phase = Phase::Out;
            }
            GroupError::GroupFull { .. } => actor.phase = Phase::Out,
            other => panic!("{other}"),
        }
    }

    fn check(&self) {
        let limit = (SESSION + REBALANCE) * 2;
        for (name, actor) in &self.actors {
            if let Phase::Joining(_, since) | Phase::Syncing(_, since) = actor.phase
                && !actor.dead
            {
                assert!(self.now.since(since) <= limit, "{name} has waited since {since}: {:#?}", self.group);
            }
        }
        assert_eq!(self.group.has_members(), self.group.empty_since().is_none());
        if let Some(deadline) = self.group.next_deadline() {
            assert!(deadline > self.now, "a deadline of the past: {:#?}", self.group);
        }
    }

    /// Nothing happens any more but what members do by themselves.
    fn settle(&mut self) {
        for actor in self.actors.values_mut() {
            actor.stuck = false;
        }
        let until = self.now.saturating_add((SESSION + REBALANCE) * 3);
        while self.now < until {
            self.now = self.now.saturating_add(Duration::from_millis(300));
            self.everybody_acts(1.0);
            self.apply(Input::Tick);
            self.check();
        }
        let alive: Vec<(&String, &Actor)> = self.actors.iter().filter(|(_, actor)| !actor.dead).collect();
        if alive.is_empty() {
            assert_eq!(self.group.state(), GroupState::Empty, "{:#?}", self.group);
            return;
        }
        assert_eq!(self.group.state(), GroupState::Stable, "{:#?} {:#?}", self.actors, self.group);
        for (name, actor) in &alive {
            assert_eq!(actor.phase, Phase::In, "{name} starves: {:#?}", self.group);
            assert_eq!(actor.generation, self.group.generation(), "{name}");
        }
        let shares: usize = alive.iter().map(|(_, actor)| actor.assigned.len()).sum();
        assert_eq!(shares, usize::try_from(self.partitions).unwrap(), "every partition has one owner");
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
fn members_at_random_share_each_generation_and_none_starves_or_waits_for_ever() {
    let base = super::base_seed();
    let (mut generations, mut expelled) = (0, 0);
    for run in 0..60 {
        println!("run {run}");
        let simulation = simulate(base.wrapping_add(run), 1 + i32::try_from(run % 8).unwrap(), 250);
        generations += simulation.stable_generations.len();
        expelled += simulation.expelled;
    }
    // The checks saw something.
    assert!(generations > 300 && expelled > 50, "{generations} generations, {expelled} expelled");
}

#[test]
fn the_same_inputs_at_the_same_times_make_the_same_group() {
    let (one, other) = (simulate(11, 5, 300), simulate(11, 5, 300));
    assert!(one.inputs.len() > 300);
    assert_eq!(one.inputs, other.inputs, "the simulation follows from its seed");
    let mut replayed = Group::new("g", GroupLimits { max_members: MAX_MEMBERS + 2 }, at(0));
    for (now, input) in one.inputs {
        replayed.apply(input, now);
    }
    assert_eq!(replayed, one.group);
    assert_eq!(replayed, other.group);
}

//! Members of this process, and what their applications believe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::super::client::{Client, News, PROTOCOL, Request};
use super::super::rebalance::{LeaveReason, RebalanceCause, RebalanceRecord};
use super::super::tests::{at, protocol};
use super::super::{
    Answer, CommitCheck, Committer, Effect, Group, GroupLimits, GroupState, Input, Join, Leaving, MemberRef,
    Reader, Sync, Ticket,
};
use crate::partition::TopicPartition;

const SESSION: Duration = Duration::from_secs(10);
const MAX_POLL: Duration = Duration::from_secs(300);

/// A client and its application.
struct Worker {
    client: Client,
    held: BTreeSet<TopicPartition>,
    /// Lives, but polls no more.
    stuck: bool,
    /// Sends nothing any more.
    dead: bool,
    inbox: Vec<(u64, Answer)>,
    woken: bool,
    next_heartbeat: Timestamp,
}

struct Simulation {
    group: Group,
    rng: StdRng,
    now: Timestamp,
    workers: BTreeMap<String, Worker>,
    waiting: BTreeMap<Ticket, (String, u64)>,
    ids: BTreeMap<String, String>,
    partitions: i32,
    next: u64,
    history: Vec<String>,
    records: Vec<RebalanceRecord>,
    moves: usize,
    /// Answers may lie in the mailbox for a while.
    delays: bool,
    /// Everybody carries on until nobody has anything to do.
    prompt: bool,
}

impl Simulation {
    fn new(seed: u64, partitions: i32) -> Self {
        Self {
            group: Group::new("g", GroupLimits { max_members: 20 }, at(0)),
            rng: StdRng::seed_from_u64(seed),
            now: at(0),
            workers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ids: BTreeMap::new(),
            partitions,
            next: 0,
            history: Vec::new(),
            records: Vec::new(),
            moves: 0,
            delays: true,
            prompt: false,
        }
    }

    fn add(&mut self, name: &str) {
        let mut client = Client::new(MAX_POLL, self.now);
        client.subscribe(BTreeSet::from(["t".into()]), self.now);
        let worker = Worker {
            client,
            held: BTreeSet::new(),
            stuck: false,
            dead: false,
            inbox: Vec::new(),
            woken: false,
            next_heartbeat: self.now,
        };
        self.workers.insert(name.to_owned(), worker);
    }

    fn remove(&mut self, name: &str) {
        let worker = self.workers.remove(name).unwrap();
        let member = MemberRef::id(worker.client.member_id());
        let ticket = self.ticket();
        let open: Vec<Ticket> = self
            .waiting
            .iter()
            .filter(|(_, (waiter, _))| waiter == name)
            .map(|(ticket, _)| *ticket)
            .collect();
        if member.member_id.is_empty() {
            for ticket in open {
                self.apply(Input::Abandon { ticket });
            }
        } else {
            self.apply(Input::Leave { ticket, leaving: vec![Leaving { member, reason: None }] });
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    fn step(&mut self) {
        self.now = self.now.saturating_add(Duration::from_millis(self.rng.random_range(0..800)));
        let name = {
            let names: Vec<String> = self.workers.keys().cloned().collect();
            names.choose(&mut self.rng).cloned()
        };
        match (self.rng.random_range(0..100), name) {
            (0..8, _) if self.workers.len() < 6 => {
                let ticket = self.ticket();
                self.add(&format!("w{}", ticket.0));
            }
            (8..12, Some(name)) => self.remove(&name),
            (12..14, Some(name)) => self.workers.get_mut(&name).unwrap().dead = true,
            (14..15, Some(name)) => self.workers.get_mut(&name).unwrap().stuck = true,
            (15..16, _) => self.partitions += 1,
            (_, Some(name)) => self.poll(&name),
            _ => {}
        }
        self.carry_on();
        self.apply(Input::Tick);
        self.check();
    }

    fn poll(&mut self, name: &str) {
        let worker = self.workers.get_mut(name).unwrap();
        if worker.dead || worker.stuck {
            return;
        }
        match worker.client.poll(self.now) {
            News::Nothing => {
                let gained: Vec<_> = worker.client.gained().iter().cloned().collect();
                worker.client.hand_over(&gained);
                // It asks from where to read them.
                let reader = Reader::Member(worker.client.member_id());
                let effects = self.group.goes_on(reader, gained.iter(), self.now);
                self.carry_out(effects);
                for partition in gained {
                    self.history.push(format!("{} {name} gets {partition}", self.now));
                    for (other, worker) in &self.workers {
                        // Who is dead has not heard that it lost it; its commits are refused.
                        assert!(
                            worker.dead || worker.stuck || !worker.held.contains(&partition),
                            "{partition} is {other}'s"
                        );
                    }
                    self.workers.get_mut(name).unwrap().held.insert(partition);
                }
            }
            News::Revoked(partitions) => {
                for partition in partitions {
                    self.history.push(format!("{} {name} gives {partition} up", self.now));
                    assert!(worker.held.remove(&partition), "revoked what {name} did not have");
                    self.moves += 1;
                }
            }
            News::Expelled(_, lost) => {
                assert_eq!(lost, worker.held);
                worker.held.clear();
            }
            News::Refused(error) => panic!("{error}"),
        }
    }

    /// Everybody who lives takes in and sends what there is.
    fn carry_on(&mut self) {
        let names: Vec<String> = self.workers.keys().cloned().collect();
        for _ in 0..20 {
            for name in &names {
                self.attend(name);
            }
            if !self.prompt {
                break;
            }
        }
    }

    fn attend(&mut self, name: &str) {
        let partitions = self.partitions;
        let count = move |topic: &str| (topic == "t").then_some(partitions);
        let late = self.delays && self.rng.random_bool(0.3);
        let now = self.now;
        let Some(worker) = self.workers.get_mut(name).filter(|worker| !worker.dead) else { return };
        if !late {
            for (number, answer) in std::mem::take(&mut worker.inbox) {
                worker.client.answer(number, answer, &count);
            }
            if std::mem::take(&mut worker.woken) {
                worker.client.heartbeat(&count);
            }
        }
        if worker.next_heartbeat <= now {
            worker.next_heartbeat = now.saturating_add(SESSION / 3);
            worker.client.heartbeat(&count);
        }
        worker.client.check_polls(now);
        for (number, request) in worker.client.take_requests() {
            let ticket = self.ticket();
            self.waiting.insert(ticket, (name.to_owned(), number));
            let input = input(request, ticket, name);
            self.apply(input);
        }
    }

    fn apply(&mut self, input: Input) {
        let effects = self.group.apply(input, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Answer { ticket, answer } => {
                    let Some((name, number)) = self.waiting.remove(&ticket) else { continue };
                    if let Answer::Join(Ok(joined)) = &answer {
                        self.ids.insert(joined.member_id.clone(), name.clone());
                    }
                    if let Some(worker) = self.workers.get_mut(&name) {
                        worker.inbox.push((number, answer));
                    }
                }
                Effect::Wake { member_id } => {
                    let name = self.ids.get(&member_id);
                    if let Some(worker) = name.and_then(|name| self.workers.get_mut(name)) {
                        worker.woken = true;
                    }
                }
                Effect::Expelled { client_id, reason, .. } => {
                    let worker = self.workers.get(&client_id);
                    let deserved = worker.is_none_or(|worker| worker.dead || worker.stuck)
                        || reason == LeaveReason::MissedPolls;
                    assert!(deserved, "{client_id} was well and {}", reason.as_str());
                }
                Effect::Rebalanced(record) => {
                    assert!(
                        record.began_at <= record.completed_at && !record.causes.is_empty(),
                        "{record:?}"
                    );
                    self.records.push(*record);
                }
            }
        }
    }

    /// Whoever may commit a partition is one at most, and who has it and lives may.
    fn check(&self) {
        let mut group = self.group.clone();
        for partition in (0..self.partitions).map(|partition| TopicPartition::new("t", partition)) {
            let mut may: Vec<&str> = Vec::new();
            for (name, worker) in &self.workers {
                let committer = Committer {
                    member: MemberRef::id(worker.client.member_id()),
                    generation: worker.client.generation(),
                    check: CommitCheck::Ownership,
                };
                let passes = group.decide_commit(&committer, [&partition].into_iter(), self.now).is_ok();
                if passes {
                    may.push(name);
                } else if worker.held.contains(&partition) {
                    assert!(worker.dead || worker.stuck, "{name} has {partition} and may not commit it");
                }
            }
            assert!(may.len() <= 1, "{may:?} may commit {partition}");
        }
    }

    /// Lets everybody who can poll do so until the dead are gone and nothing is left to do.
    fn settle(&mut self) {
        self.delays = false;
        let until = self.now.saturating_add(MAX_POLL * 2);
        while self.now < until {
            self.now = self.now.saturating_add(Duration::from_secs(2));
            let names: Vec<String> = self.workers.keys().cloned().collect();
            for name in names {
                self.poll(&name);
            }
            self.carry_on();
            self.apply(Input::Tick);
            self.check();
        }
        let shares: Vec<usize> = self
            .workers
            .values()
            .filter(|worker| !worker.dead && !worker.stuck)
            .map(|worker| worker.held.len())
            .collect();
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

    /// Polls everybody, without delay, until nothing changes.
    fn come_to_rest(&mut self) {
        (self.delays, self.prompt) = (false, true);
        for _ in 0..8 {
            let names: Vec<String> = self.workers.keys().cloned().collect();
            for name in names {
                self.poll(&name);
                self.carry_on();
            }
        }
        assert_eq!(self.group.state(), GroupState::Stable);
    }

    fn owners(&self) -> BTreeMap<TopicPartition, String> {
        let of = |(name, worker): (&String, &Worker)| {
            worker.held.iter().map(|partition| (partition.clone(), name.clone())).collect::<Vec<_>>()
        };
        self.workers.iter().flat_map(of).collect()
    }
}

fn input(request: Request, ticket: Ticket, name: &str) -> Input {
    match request {
        Request::Join { member_id, metadata } => Input::Join(Join {
            ticket,
            member: MemberRef::id(member_id),
            new_member_id: format!("{name}-{}", ticket.0),
            require_member_id: false,
            skips_assignment: true,
            client_id: name.to_owned(),
            client_host: String::new(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![protocol(PROTOCOL, metadata)],
            session_timeout: SESSION,
            rebalance_timeout: MAX_POLL,
            initial_delay: Duration::ZERO,
            reason: None,
        }),
        Request::Sync { member_id, generation, assignments } => Input::Sync(Sync {
            ticket,
            member: MemberRef::id(member_id),
            generation,
            protocol_type: None,
            protocol: None,
            assignments,
        }),
        Request::Heartbeat { member_id, generation } => {
            Input::Heartbeat { ticket, member: MemberRef::id(member_id), generation }
        }
        Request::Leave { member_id, reason } => {
            let member = MemberRef::id(member_id);
            Input::Leave { ticket, leaving: vec![Leaving { member, reason: Some(reason.to_owned()) }] }
        }
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
fn applications_at_random_never_share_a_partition_and_end_balanced() {
    let base = super::base_seed();
    let (mut moves, mut records) = (0, 0);
    for run in 0..40 {
        println!("run {run}");
        let simulation = simulate(base.wrapping_add(run), 1 + i32::try_from(run % 12).unwrap(), 250);
        moves += simulation.moves;
        records += simulation.records.len();
    }
    // The checks saw something.
    assert!(moves > 100 && records > 200, "{moves} moves, {records} rebalances");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, other) = (simulate(7, 5, 600), simulate(7, 5, 600));
    assert!(one.history.len() > 50, "{}", one.history.len());
    assert_eq!(one.history, other.history);
    assert_eq!(one.group, other.group);
}

#[test]
fn a_busy_member_holds_nobody_up_that_does_not_want_its_partitions() {
    let mut simulation = Simulation::new(1, 4);
    for name in ["busy", "other"] {
        simulation.add(name);
        simulation.come_to_rest();
    }
    assert_eq!(simulation.workers["busy"].held.len(), 2);
    // It polls no more; the other leaves, and a third comes and gets what the other had.
    simulation.workers.get_mut("busy").unwrap().stuck = true;
    simulation.add("third");
    simulation.carry_on();
    simulation.remove("other");
    simulation.come_to_rest();
    assert_eq!(simulation.workers["third"].held.len(), 2);
    assert_eq!(simulation.workers["busy"].held.len(), 2);
}

#[test]
fn a_member_that_polls_too_rarely_says_so_and_comes_back_under_another_id() {
    let mut simulation = Simulation::new(1, 2);
    simulation.add("slow");
    simulation.come_to_rest();
    let id = simulation.workers["slow"].client.member_id().to_owned();
    simulation.now = simulation.now.saturating_add(MAX_POLL);
    simulation.carry_on();
    let reason = LeaveReason::MissedPolls;
    let cause = RebalanceCause::Left { member_id: id.clone(), client_id: "slow".into(), reason };
    assert_eq!(simulation.records.last().unwrap().causes, [cause]);
    assert_eq!(simulation.group.state(), GroupState::Empty);
    simulation.poll("slow");
    assert!(simulation.workers["slow"].held.is_empty());
    simulation.come_to_rest();
    assert_eq!(simulation.workers["slow"].held.len(), 2);
    assert_ne!(simulation.workers["slow"].client.member_id(), id);
}

#[test]
fn a_changed_subscription_gives_up_what_it_no_longer_names() {
    let mut simulation = Simulation::new(1, 2);
    simulation.add("one");
    simulation.come_to_rest();
    let topics: BTreeSet<Arc<str>> = BTreeSet::from(["elsewhere".into()]);
    simulation.workers.get_mut("one").unwrap().client.subscribe(topics, simulation.now);
    simulation.come_to_rest();
    assert!(simulation.workers["one"].held.is_empty());
    assert_eq!(simulation.records.last().unwrap().causes, [RebalanceCause::SubscriptionChanged]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A member that joins or leaves a balanced group makes no more partitions move than balance needs.
    #[test]
    fn a_partition_moves_only_when_it_must(members in 1usize..7, partitions in 1i32..20, leaves: bool) {
        let mut simulation = Simulation::new(1, partitions);
        for n in 0..members {
            simulation.add(&format!("w{n}"));
            simulation.come_to_rest();
        }
        let before = simulation.owners();
        if leaves && members > 1 {
            simulation.remove("w0");
        } else {
            simulation.add("new");
        }
        simulation.come_to_rest();
        let after = simulation.owners();
        let stayed = |name: &String| simulation.workers.contains_key(name);
        let moved = before.iter().filter(|(partition, owner)| stayed(owner) && after[*partition] != **owner).count();
        // A newcomer needs its share; when a member goes, only its own partitions move.
        let now = simulation.workers.len();
        let needed = if now > members { usize::try_from(partitions).unwrap() / now } else { 0 };
        prop_assert!(moved <= needed, "{moved} moved, {needed} needed");
    }
}

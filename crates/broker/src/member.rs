//! A member of a group inside this process: the shell around [`Client`].
//!
//! The client's requests go to the coordinator directly; answers, and the news that a rebalance has begun, come into a
//! mailbox. Whoever finds something there first carries on from it: the poll of the consumer, or the member's own task, which
//! also sends the heartbeats. So a member takes its part in a rebalance while its consumer is busy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::coordinator::client::{Client, News, PROTOCOL, Request};
use crate::coordinator::rebalance::LeaveReason;
use crate::coordinator::{
    Answer, CONSUMER_PROTOCOL, GroupError, Input, Join, Leaving, MemberRef, Protocol, Reader, Sync, Ticket,
};
use crate::error::BrokerError;
use crate::groups::{Groups, MAX_NAME_BYTES, Mailbox, Membership, Reply};
use crate::partition::TopicPartition;
use crate::topic::Topic;

/// Heartbeats in one session timeout, as Kafka's clients send them.
const HEARTBEATS_PER_SESSION: u32 = 3;
/// The shortest time between two heartbeats, however short the session.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(10);
/// Where a member of this process calls from.
const CLIENT_HOST: &str = "in-process";

/// The broker's topics, as its members see them.
type Topics = RwLock<BTreeMap<Arc<str>, Arc<Topic>>>;

/// What a member wants of its group.
#[derive(Debug, Clone)]
pub struct MemberSettings {
    /// The group.
    pub group: String,
    /// The member's name.
    pub client_id: String,
    /// The topics that it reads.
    pub topics: Vec<String>,
    /// Expelled when not heard of for this long.
    pub session_timeout: Duration,
    /// Leaves when it hasn't polled for this long.
    pub max_poll_interval: Duration,
}

/// What a poll of a member brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberNews {
    /// Nothing.
    Nothing,
    /// These partitions are to be given up by the next poll.
    Revoked(Vec<TopicPartition>),
    /// These are the member's now, with the offset committed for each, if one is.
    Assigned(Vec<(TopicPartition, Option<i64>)>),
    /// It was no member any more, lost these partitions, and joins again.
    Expelled(Option<LeaveReason>, Vec<TopicPartition>),
}

/// A member. Its heartbeats are sent for as long as it lives; dropping it leaves the group.
pub struct Member {
    shared: Arc<Shared>,
    attendant: JoinHandle<()>,
}

struct Shared {
    groups: Arc<Groups>,
    topics: Weak<Topics>,
    settings: MemberSettings,
    mailbox: Arc<Mailbox>,
    state: Mutex<State>,
    /// Told when a poll would bring something.
    waker: Arc<Notify>,
}

struct State {
    client: Client,
    /// The newest join, to be taken back by a member that leaves before it has an id.
    join: Option<Ticket>,
    /// What the last poll gave it: it goes on with these when it polls again, and not while it restores what it needs for them.
    taking_over: Vec<TopicPartition>,
}

impl Member {
    /// Joins. `waker` is notified when the member should poll.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`]; [`BrokerError::TooLarge`] for names that are too long.
    pub(crate) fn join(
        broker: &Broker,
        settings: MemberSettings,
        waker: Arc<Notify>,
    ) -> Result<Self, BrokerError> {
        for (what, name) in [("group name", &settings.group), ("client id", &settings.client_id)] {
            if name.len() > MAX_NAME_BYTES {
                return Err(BrokerError::TooLarge { what, bytes: name.len(), limit: MAX_NAME_BYTES });
            }
        }
        let topics = existing(broker, &settings.topics)?;
        let groups = Arc::clone(broker.groups());
        let mut client = Client::new(settings.max_poll_interval, groups.now());
        client.subscribe(topics, groups.now());
        let shared = Arc::new(Shared {
            groups,
            topics: broker.weak_topics(),
            settings,
            mailbox: Arc::default(),
            state: Mutex::new(State { client, join: None, taking_over: Vec::new() }),
            waker,
        });
        shared.carry_on(&mut shared.state.lock());
        let attendant = tokio::spawn(attend(Arc::clone(&shared)));
        Ok(Self { shared, attendant })
    }

    /// Reads other topics from now on.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn subscribe(&mut self, broker: &Broker, topics: &[String]) -> Result<(), BrokerError> {
        let topics = existing(broker, topics)?;
        let mut state = self.shared.state.lock();
        state.client.subscribe(topics, self.shared.groups.now());
        self.shared.carry_on(&mut state);
        Ok(())
    }

    /// What is new. Shows that the member polls, and acknowledges an earlier [`MemberNews::Revoked`].
    ///
    /// # Errors
    /// [`BrokerError::Group`] if the group doesn't take the member; the next poll tries again.
    pub fn poll(&mut self) -> Result<MemberNews, BrokerError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        shared.has_taken_over(&mut state);
        shared.carry_on(&mut state);
        let news = state.client.poll(shared.groups.now());
        shared.carry_on(&mut state);
        match news {
            News::Refused(error) => Err(BrokerError::Group(error)),
            News::Revoked(partitions) => Ok(MemberNews::Revoked(partitions.into_iter().collect())),
            News::Expelled(reason, lost) => Ok(MemberNews::Expelled(reason, lost.into_iter().collect())),
            News::Nothing if state.client.gained().is_empty() => Ok(MemberNews::Nothing),
            News::Nothing => {
                let settled = shared.groups.settled_offsets(&shared.settings.group, state.client.gained());
                let partitions: Vec<_> = settled.iter().map(|(partition, _)| partition.clone()).collect();
                state.client.hand_over(&partitions);
                state.taking_over = partitions;
                Ok(if settled.is_empty() { MemberNews::Nothing } else { MemberNews::Assigned(settled) })
            }
        }
    }

    /// Who this member is at present.
    pub fn membership(&self) -> Membership {
        let state = self.shared.state.lock();
        Membership {
            group: self.shared.settings.group.clone(),
            member_id: state.client.member_id().to_owned(),
            generation: state.client.generation(),
        }
    }

    /// Its group.
    pub fn group(&self) -> &str {
        &self.shared.settings.group
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.attendant.abort();
        let state = self.shared.state.lock();
        let member_id = state.client.member_id().to_owned();
        let input = match state.join {
            Some(ticket) if member_id.is_empty() => Input::Abandon { ticket },
            _ if member_id.is_empty() => return,
            _ => Input::Leave {
                ticket: self.shared.groups.new_ticket(),
                leaving: vec![Leaving { member: MemberRef::id(member_id), reason: None }],
            },
        };
        if let Err(error) = self.shared.groups.request(&self.shared.settings.group, input, None) {
            tracing::debug!(%error, group = self.shared.settings.group, "leaving a group that isn't there");
        }
    }
}

impl Shared {
    /// Takes in what has come and sends what is due, until there is nothing of either.
    fn carry_on(&self, state: &mut State) {
        let topics = self.topics.upgrade();
        let partition_count = |topic: &str| {
            topics.as_ref().and_then(|topics| topics.read().get(topic).map(|topic| topic.partition_count()))
        };
        loop {
            while let Some((number, answer)) = self.mailbox.take_answer() {
                state.client.answer(number, answer, &partition_count);
            }
            if self.mailbox.take_wake() {
                state.client.heartbeat(&partition_count);
            }
            let requests = state.client.take_requests();
            if requests.is_empty() {
                return;
            }
            for (number, request) in requests {
                if let Some(refusal) = self.send(state, number, request) {
                    state.client.answer(number, refusal, &partition_count);
                }
            }
        }
    }

    /// The member polls again: it goes on with what the last poll gave it.
    fn has_taken_over(&self, state: &mut State) {
        let taken_over = std::mem::take(&mut state.taking_over);
        self.tell_coordinator(state, &taken_over, true);
    }

    /// Tells whether the member goes on with partitions, or is still taking them over.
    fn tell_coordinator(&self, state: &State, partitions: &[TopicPartition], goes_on: bool) {
        // Nearly always: each poll and each heartbeat comes by here.
        if partitions.is_empty() {
            return;
        }
        let reader = Reader::Member(state.client.member_id());
        let told = partitions.iter().map(|partition| (partition, goes_on));
        self.groups.goes_on(&self.settings.group, reader, &told);
    }

    fn heartbeat(&self, state: &mut State) {
        self.tell_coordinator(state, &state.taking_over, false);
        let topics = self.topics.upgrade();
        state.client.heartbeat(&|topic| {
            topics.as_ref().and_then(|topics| topics.read().get(topic).map(|topic| topic.partition_count()))
        });
    }

    /// Sends a request. An answer at once if the coordinator doesn't take it.
    fn send(&self, state: &mut State, number: u64, request: Request) -> Option<Answer> {
        let ticket = self.groups.new_ticket();
        let refused: fn(GroupError) -> Answer = match &request {
            Request::Join { .. } => |error| Answer::Join(Err(error)),
            Request::Sync { .. } => |error| Answer::Sync(Err(error)),
            Request::Heartbeat { .. } => |error| Answer::Heartbeat(Err(error)),
            Request::Leave { .. } => |error| Answer::Leave(vec![Err(error)]),
        };
        let input = match request {
            Request::Join { member_id, metadata } => {
                state.join = Some(ticket);
                Input::Join(self.join(ticket, member_id, metadata))
            }
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
                let reason = Some(reason.to_owned());
                Input::Leave { ticket, leaving: vec![Leaving { member: MemberRef::id(member_id), reason }] }
            }
        };
        let reply = Reply::Mailbox(Arc::clone(&self.mailbox), number);
        let error = self.groups.request(&self.settings.group, input, Some((ticket, reply))).err()?;
        tracing::warn!(%error, group = self.settings.group, "the coordinator refused a request");
        Some(refused(error))
    }

    fn join(&self, ticket: Ticket, member_id: String, metadata: bytes::Bytes) -> Join {
        Join {
            ticket,
            member: MemberRef::id(member_id),
            new_member_id: self.groups.new_member_id(&self.settings.client_id),
            require_member_id: false,
            skips_assignment: true,
            client_id: self.settings.client_id.clone(),
            client_host: CLIENT_HOST.to_owned(),
            protocol_type: CONSUMER_PROTOCOL.to_owned(),
            protocols: vec![Protocol { name: PROTOCOL.to_owned(), metadata }],
            session_timeout: self.settings.session_timeout,
            rebalance_timeout: self.settings.max_poll_interval,
            // Members of this process hear of each other at once, so waiting for more of them saves nothing.
            initial_delay: Duration::ZERO,
            reason: None,
        }
    }
}

/// Looks after a member between its polls. Never ends.
async fn attend(shared: Arc<Shared>) {
    let interval = (shared.settings.session_timeout / HEARTBEATS_PER_SESSION).max(MIN_HEARTBEAT_INTERVAL);
    let mut next_heartbeat = tokio::time::Instant::now() + interval;
    loop {
        let polls_due = shared.groups.instant(shared.state.lock().client.polls_due());
        let now = tokio::time::Instant::now();
        // A member that has been expelled for not polling has nothing due until it polls.
        let until = if polls_due > now { next_heartbeat.min(polls_due) } else { next_heartbeat };
        tokio::select! {
            () = shared.mailbox.rung() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        let mut state = shared.state.lock();
        if tokio::time::Instant::now() >= next_heartbeat {
            next_heartbeat = tokio::time::Instant::now() + interval;
            shared.heartbeat(&mut state);
        }
        state.client.check_polls(shared.groups.now());
        shared.carry_on(&mut state);
        if state.client.has_news() {
            shared.waker.notify_one();
        }
    }
}

fn existing(broker: &Broker, topics: &[String]) -> Result<BTreeSet<Arc<str>>, BrokerError> {
    topics.iter().map(|name| broker.topic(name).map(|topic| Arc::clone(topic.name()))).collect()
}

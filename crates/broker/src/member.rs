//! A member of a group inside this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::coordinator::Join;
use crate::error::BrokerError;
use crate::groups::{Groups, MAX_NAME_BYTES, MemberNews, Membership};

/// Heartbeats in one session timeout, as Kafka's clients send them.
const HEARTBEATS_PER_SESSION: u32 = 3;
/// The shortest time between two heartbeats, however short the session.
const MIN_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(10);

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
    /// Expelled when it hasn't polled for this long.
    pub max_poll_interval: Duration,
}

/// A member. Its heartbeats are sent for as long as it lives; dropping it leaves the group.
pub struct Member {
    groups: Arc<Groups>,
    settings: MemberSettings,
    member_id: String,
    generation: i32,
    waker: Arc<Notify>,
    heartbeats: JoinHandle<()>,
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
        let groups = Arc::clone(broker.groups());
        let member_id = groups.new_member_id(&settings.client_id);
        let topics = broker.partition_counts(&settings.topics)?;
        let join = Join {
            member_id: member_id.clone(),
            client_id: settings.client_id.clone(),
            topics,
            session_timeout: settings.session_timeout,
            max_poll_interval: settings.max_poll_interval,
        };
        let generation = groups.join(&settings.group, join, &waker);
        let heartbeats =
            tokio::spawn(send_heartbeats(Arc::clone(&groups), settings.clone(), member_id.clone()));
        Ok(Self { groups, settings, member_id, generation, waker, heartbeats })
    }

    /// Reads other topics from now on.
    ///
    /// # Errors
    /// [`BrokerError::UnknownTopicOrPartition`].
    pub fn subscribe(&mut self, broker: &Broker, topics: Vec<String>) -> Result<(), BrokerError> {
        let join = Join {
            member_id: self.member_id.clone(),
            client_id: self.settings.client_id.clone(),
            topics: broker.partition_counts(&topics)?,
            session_timeout: self.settings.session_timeout,
            max_poll_interval: self.settings.max_poll_interval,
        };
        self.settings.topics = topics;
        self.groups.join(&self.settings.group, join, &self.waker);
        Ok(())
    }

    /// What is new. Shows that the member lives and polls, and acknowledges an earlier [`MemberNews::Revoked`].
    pub fn poll(&mut self) -> MemberNews {
        let (news, generation) = self.groups.poll(&self.settings.group, &self.member_id);
        if generation >= 0 {
            self.generation = generation;
        }
        news
    }

    /// Who this member is at present.
    pub fn membership(&self) -> Membership {
        Membership {
            group: self.settings.group.clone(),
            member_id: self.member_id.clone(),
            generation: self.generation,
        }
    }

    /// What it wanted when it joined or subscribed last.
    pub fn settings(&self) -> &MemberSettings {
        &self.settings
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.heartbeats.abort();
        self.groups.leave(&self.settings.group, &self.member_id);
    }
}

async fn send_heartbeats(groups: Arc<Groups>, settings: MemberSettings, member_id: String) {
    let interval = (settings.session_timeout / HEARTBEATS_PER_SESSION).max(MIN_HEARTBEAT_INTERVAL);
    loop {
        tokio::time::sleep(interval).await;
        if !groups.heartbeat(&settings.group, &member_id) {
            return;
        }
    }
}

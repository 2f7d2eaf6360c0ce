//! Settings and bounds of the group coordinator.

use std::time::Duration;

/// Longest name of a group, a transactional id, a client, a static member and an assignor.
pub const MAX_NAME_BYTES: usize = 255;
/// Assignors that one member may offer.
pub const MAX_PROTOCOLS: usize = 64;
/// Bytes that one member may tell all its assignors, and that it may be assigned.
pub const MAX_METADATA_BYTES: usize = 1024 * 1024;
/// Bytes that the members of one group make the coordinator keep: what they tell, and what they are assigned.
pub const MAX_GROUP_HELD_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that all members of all groups together make the coordinator keep. Who tells little more than before
/// ([`SMALL_BYTES`]) may go beyond it, up to twice as much, so that a few talkative groups don't keep the others from
/// rebalancing.
pub const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// What ordinary members tell, and are assigned.
pub const SMALL_BYTES: usize = 4096;
/// Longest text that may go with a committed offset; Kafka's `offset.metadata.max.bytes`.
pub const MAX_OFFSET_METADATA_BYTES: usize = 4096;

/// Settings of the group coordinator, as Kafka names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// `group.min.session.timeout.ms`: shorter ones are refused. Kafka says 6 s, against clients that can't keep what they
    /// promise over a network; on one machine one second is safe.
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`: longer ones are refused.
    pub max_session_timeout: Duration,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members than the first. Kafka waits 3 s, to
    /// spare members that load much state; workers that one command starts are there within a tenth of a second, and a
    /// lone consumer should not wait for nobody. Members of this process never wait: they hear of each other at once.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`: members of one group.
    pub max_size: usize,
    /// Groups that are kept, with members or committed offsets.
    pub max_groups: usize,
    /// `offsets.retention.minutes`: how long committed offsets outlast their group's members and their last commit.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`: how often it is looked for offsets that have had their time.
    pub offsets_retention_check_interval: Duration,
}

impl Default for GroupOptions {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            min_session_timeout: Duration::from_secs(1),
            max_session_timeout: Duration::from_secs(30 * 60),
            initial_rebalance_delay: Duration::from_millis(100),
            max_size: 1000,
            max_groups: 10_000,
            offsets_retention: 7 * DAY,
            offsets_retention_check_interval: Duration::from_secs(10 * 60),
        }
    }
}

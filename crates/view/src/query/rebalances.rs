//! Rebalances of consumer groups: who came and went and why, who owned what before and after, and what it cost.

use std::collections::{BTreeMap, BTreeSet};

use farol_event::Timestamp;
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::condition::Conditions;
use crate::query::{Queries, cursor, instant, json, page_size, sql_limit};

/// The default number of rebalances on a page.
pub const DEFAULT_LIMIT: usize = 50;
/// The largest number of rebalances on a page.
pub const MAX_LIMIT: usize = 1000;

/// One finished rebalance of one consumer group: the `data` of `particoes_reatribuidas`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rebalance {
    /// Which group.
    pub group: String,
    /// The generation that it led to.
    pub generation: i32,
    /// When it began.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub began_at: Timestamp,
    /// When every member had its new partitions.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub completed_at: Timestamp,
    /// What set it off, in words.
    pub causes: Vec<String>,
    /// What set it off, one by one. Empty for rebalances that were recorded before this was written down.
    #[serde(default)]
    pub changes: Vec<MemberChange>,
    /// Who owned what before: consumer → `topic/partition`.
    pub before: BTreeMap<String, Vec<String>>,
    /// Who owns what now.
    pub after: BTreeMap<String, Vec<String>>,
    /// How long each partition that changed hands stood still, in milliseconds: from when its last owner (or, over a stop
    /// of the broker, the broker) was last known to work until the next one could go on.
    pub paused_ms: BTreeMap<String, u64>,
    /// What it cost.
    #[serde(default)]
    pub cost: RebalanceCost,
}

/// What changed among the members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MemberChange {
    /// What happened.
    pub change: ChangeKind,
    /// To whom, by its own name. Absent if topics changed rather than members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_id: Option<String>,
    /// The id that the coordinator gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// Why it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DepartureReason>,
}

/// How a group changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A member came.
    Joined,
    /// A member went.
    Left,
    /// A member changed its topics, or a topic its number of partitions.
    SubscriptionChanged,
}

/// Why a member left its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DepartureReason {
    /// It said goodbye.
    Left,
    /// It was not heard of for its session timeout: it crashed, hangs, or is cut off.
    MissedHeartbeats,
    /// It lived but did not poll for its maximum poll interval.
    MissedPolls,
    /// It lived but did not take its part in a rebalance in time.
    RebalanceTimeout,
}

/// What a rebalance cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RebalanceCost {
    /// Milliseconds from its beginning to its end.
    pub took_ms: u64,
    /// Partitions whose owner is another one now, or none any more, or one for the first time.
    pub partitions_moved: u64,
    /// The longest time that a partition stood still, in milliseconds.
    pub longest_pause_ms: u64,
}

/// Which rebalances are listed.
#[derive(Debug, Clone, Default)]
pub struct RebalanceFilter {
    /// Of exactly this group.
    pub group: Option<String>,
    /// Completed at or after this instant.
    pub from: Option<Timestamp>,
    /// Completed at or before this instant.
    pub to: Option<Timestamp>,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// A page of rebalances, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RebalancePage {
    /// The rebalances.
    pub rebalances: Vec<Rebalance>,
    /// How many fit the filter, on all pages.
    pub total: u64,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

impl RebalanceCost {
    /// The larger of two figures each: one may be of a part only.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            took_ms: self.took_ms.max(other.took_ms),
            partitions_moved: self.partitions_moved.max(other.partitions_moved),
            longest_pause_ms: self.longest_pause_ms.max(other.longest_pause_ms),
        }
    }

    /// Works it out from times, owners and pauses.
    pub fn of(
        began_at: Timestamp,
        completed_at: Timestamp,
        before: &BTreeMap<String, Vec<String>>,
        after: &BTreeMap<String, Vec<String>>,
        paused_ms: &BTreeMap<String, u64>,
    ) -> Self {
        let took = completed_at.since(began_at).as_millis();
        let owners = |assignment: &BTreeMap<String, Vec<String>>| -> BTreeSet<(String, String)> {
            assignment
                .iter()
                .flat_map(|(owner, partitions)| partitions.iter().map(|p| (p.clone(), owner.clone())))
                .collect()
        };
        let (had, has) = (owners(before), owners(after));
        // A pause tells of a move even between members that go by the same name.
        let moved: BTreeSet<&String> =
            had.symmetric_difference(&has).map(|(partition, _)| partition).chain(paused_ms.keys()).collect();
        Self {
            took_ms: u64::try_from(took).unwrap_or(u64::MAX),
            partitions_moved: moved.len() as u64,
            longest_pause_ms: paused_ms.values().copied().max().unwrap_or(0),
        }
    }
}

impl Queries<'_> {
    /// The newest `limit` rebalances of all groups (at most [`MAX_LIMIT`]), newest first.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn newest_rebalances(&self, limit: usize) -> Result<Vec<Rebalance>, ViewError> {
        let filter = RebalanceFilter { limit: Some(limit.clamp(1, MAX_LIMIT)), ..RebalanceFilter::default() };
        Ok(self.rebalances(&filter)?.rebalances)
    }

    /// The rebalances that fit the filter, newest first.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn rebalances(&self, filter: &RebalanceFilter) -> Result<RebalancePage, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let failed = self.failed("rebalancing_events");
        let mut conditions = filter.conditions();
        let count = format!("SELECT count(*) FROM rebalancing_events {}", conditions.sql());
        let total = self.number(&count, conditions.values_and([])).map_err(&failed)?;
        if let Some(text) = &filter.cursor {
            conditions
                .and("(completed_at, partition, offset) < (?, ?, ?)", cursor::decode::<3>(CURSOR, text)?);
        }
        let sql = format!(
            "SELECT consumer_group, generation, began_at, completed_at, causes, changes, before, after, paused_ms,
                 took_ms, partitions_moved, longest_pause_ms, partition, offset
             FROM rebalancing_events {} ORDER BY completed_at DESC, partition DESC, offset DESC LIMIT ?",
            conditions.sql()
        );
        let mut rows = self
            .rows(&sql, conditions.values_and([sql_limit(limit + 1)]), |row| {
                let key =
                    [Value::Integer(row.get(3)?), Value::Integer(row.get(12)?), Value::Integer(row.get(13)?)];
                Ok((rebalance_of_row(row)?, key))
            })
            .map_err(&failed)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|(_, key)| cursor::encode(CURSOR, key));
        Ok(RebalancePage {
            rebalances: rows.into_iter().map(|(rebalance, _)| rebalance).collect(),
            total,
            next_cursor,
        })
    }
}

/// What the cursors of the list of rebalances are called.
const CURSOR: &str = "rebalances";

impl RebalanceFilter {
    fn conditions(&self) -> Conditions {
        let micros = |at: Timestamp| Value::Integer(at.as_micros());
        let mut conditions = Conditions::default();
        conditions.and_if("consumer_group = ?", self.group.clone());
        conditions.and_if("completed_at >= ?", self.from.map(micros));
        conditions.and_if("completed_at <= ?", self.to.map(micros));
        conditions
    }
}

fn rebalance_of_row(row: &Row<'_>) -> rusqlite::Result<Rebalance> {
    Ok(Rebalance {
        group: row.get(0)?,
        generation: row.get(1)?,
        began_at: instant(row, 2)?,
        completed_at: instant(row, 3)?,
        causes: json(row, 4)?,
        changes: json(row, 5)?,
        before: json(row, 6)?,
        after: json(row, 7)?,
        paused_ms: json(row, 8)?,
        cost: RebalanceCost {
            took_ms: super::count(row, 9)?,
            partitions_moved: super::count(row, 10)?,
            longest_pause_ms: super::count(row, 11)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(owners: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        owners
            .iter()
            .map(|(owner, partitions)| {
                ((*owner).to_owned(), partitions.iter().map(|p| (*p).to_owned()).collect())
            })
            .collect()
    }

    #[test]
    fn the_cost_counts_what_moved_and_takes_the_longest_pause() {
        let at = |ms: i64| Timestamp::from_micros(ms * 1000).unwrap();
        let before = assignment(&[("a", &["t/0", "t/1"]), ("b", &["t/2"])]);
        let after = assignment(&[("b", &["t/1", "t/2"]), ("c", &["t/0", "t/3"])]);
        // The last one went from one `b` to another.
        let paused = BTreeMap::from([("t/0".to_owned(), 40), ("t/1".to_owned(), 7), ("t/2".to_owned(), 8)]);
        let cost = RebalanceCost::of(at(1000), at(1250), &before, &after, &paused);
        assert_eq!(cost, RebalanceCost { took_ms: 250, partitions_moved: 4, longest_pause_ms: 40 });
        let nothing = RebalanceCost::of(at(5), at(5), &after, &after, &BTreeMap::new());
        assert_eq!(nothing, RebalanceCost::default());
    }
}

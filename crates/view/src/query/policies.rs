//! Resilience policies: how each stands, and how breakers moved.

use std::collections::BTreeMap;

use farol_event::Timestamp;
use farol_event::service::BreakerState;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::error::ViewError;
use crate::query::condition::Conditions;
use crate::query::{Queries, cursor, instant, instant_if_any, json, page_size, sql_limit, word};

/// The default number of policies or changes on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of policies or changes on a page.
pub const MAX_LIMIT: usize = 1000;

/// Which policies, or changes of policies, are listed.
#[derive(Debug, Clone, Default)]
pub struct PolicyFilter {
    /// In front of this service.
    pub service: Option<String>,
    /// Of this caller.
    pub caller: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// A policy as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// Who makes the calls that it guards.
    pub caller: String,
    /// Its name, unique among those of its kind of one caller.
    pub name: String,
    /// What it is (`circuit_breaker`, `retry`, `bulkhead`, …).
    pub kind: String,
    /// The service that is called, if it has a name.
    pub service: Option<String>,
    /// Its state, in the words of its kind.
    pub state: Option<String>,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<Timestamp>,
    /// Why it is in that state.
    pub cause: Option<String>,
    /// What it has counted.
    pub counters: BTreeMap<String, f64>,
    /// How it is set.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub settings: Map<String, serde_json::Value>,
    /// When it last said so.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub measured_at: Option<Timestamp>,
    /// Whether its caller has stopped or was not heard of for five minutes: it may be otherwise by now, and an open breaker degrades no
    /// service any more.
    pub stale: bool,
}

/// A page of policies, by caller, name and kind.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyPage {
    /// The policies.
    pub policies: Vec<Policy>,
    /// How many fit the filter, on all pages.
    pub total: u64,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// A move of a circuit breaker.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyChange {
    /// Who makes the calls that it guards.
    pub caller: String,
    /// Its name.
    pub name: String,
    /// The service that is called, if it has a name.
    pub service: Option<String>,
    /// What it was.
    pub from: BreakerState,
    /// What it became.
    pub to: BreakerState,
    /// Why.
    pub cause: Option<String>,
    /// What it had counted.
    pub counters: BTreeMap<String, f64>,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
}

/// A page of changes, newest first.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyChangePage {
    /// The changes.
    pub changes: Vec<PolicyChange>,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// What the cursors of the lists are called.
const CURSOR: &str = "policies";
const CHANGES_CURSOR: &str = "policy_changes";

impl Policy {
    /// What tells it from every other.
    pub(crate) fn key(&self) -> (&str, &str, &str) {
        (&self.caller, &self.name, &self.kind)
    }
}

impl PolicyFilter {
    fn conditions(&self) -> Conditions {
        let mut conditions = Conditions::default();
        conditions.and_if("service = ?", self.service.clone());
        conditions.and_if("caller = ?", self.caller.clone());
        conditions.and_if("name = ?", self.name.clone());
        conditions
    }
}

impl Queries<'_> {
    /// The policies that fit the filter, by caller, name and kind. `now` decides which are stale.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn policies(&self, filter: &PolicyFilter, now: Timestamp) -> Result<PolicyPage, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let failed = self.failed("policies");
        let mut conditions = filter.conditions();
        let total = self
            .number(&format!("SELECT count(*) FROM policies {}", conditions.sql()), conditions.values_and([]))
            .map_err(&failed)?;
        if let Some(text) = &filter.cursor {
            conditions.and("(caller, name, kind) > (?, ?, ?)", cursor::decode::<3>(CURSOR, text)?);
        }
        let sql = format!(
            "SELECT caller, name, kind, service, state, since, cause, counters, settings, measured_at, expires_at FROM policies {}
             ORDER BY caller, name, kind LIMIT ?",
            conditions.sql()
        );
        let mut policies = self
            .rows(&sql, conditions.values_and([sql_limit(limit + 1)]), |row| {
                Ok(Policy {
                    caller: row.get(0)?,
                    name: row.get(1)?,
                    kind: row.get(2)?,
                    service: row.get(3)?,
                    state: row.get(4)?,
                    since: instant_if_any(row, 5)?,
                    cause: row.get(6)?,
                    counters: json(row, 7)?,
                    settings: json(row, 8)?,
                    measured_at: instant_if_any(row, 9)?,
                    stale: instant(row, 10)? <= now,
                })
            })
            .map_err(&failed)?;
        let more = policies.len() > limit;
        policies.truncate(limit);
        let next_cursor = policies.last().filter(|_| more).map(|last| {
            let (caller, name, kind) = last.key();
            cursor::encode(CURSOR, &[caller, name, kind].map(|part| Value::Text(part.to_owned())))
        });
        Ok(PolicyPage { policies, total, next_cursor })
    }

    /// The moves of breakers that fit the filter, newest first.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn policy_changes(&self, filter: &PolicyFilter) -> Result<PolicyChangePage, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let mut conditions = filter.conditions();
        if let Some(text) = &filter.cursor {
            conditions.and("(at, partition, offset) < (?, ?, ?)", cursor::decode::<3>(CHANGES_CURSOR, text)?);
        }
        let sql = format!(
            "SELECT caller, name, service, from_state, to_state, cause, counters, at, partition, offset
             FROM policy_changes {} ORDER BY at DESC, partition DESC, offset DESC LIMIT ?",
            conditions.sql()
        );
        let mut rows = self
            .rows(&sql, conditions.values_and([sql_limit(limit + 1)]), |row| {
                let change = PolicyChange {
                    caller: row.get(0)?,
                    name: row.get(1)?,
                    service: row.get(2)?,
                    from: word(row, 3)?,
                    to: word(row, 4)?,
                    cause: row.get(5)?,
                    counters: json(row, 6)?,
                    at: instant(row, 7)?,
                };
                let key = [7, 8, 9].map(|column| row.get(column).map(Value::Integer));
                let [at, partition, offset] = key;
                Ok((change, [at?, partition?, offset?]))
            })
            .map_err(self.failed("policy_changes"))?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|(_, key)| cursor::encode(CHANGES_CURSOR, key));
        Ok(PolicyChangePage { changes: rows.into_iter().map(|(change, _)| change).collect(), next_cursor })
    }
}

//! What can be asked of the views, and the shapes of the answers.
//!
//! Each answer is a serde structure whose JSON is what the HTTP API sends (with a schema behind feature `openapi`). Lists
//! are pages: a page ends with an opaque cursor that names the last row shown, so that going on costs the same however far
//! one has come, and rows that arrive meanwhile shift nothing.
//!
//! Every query runs in one read transaction (it sees one state of all views), is stopped after
//! [`crate::StoreOptions::query_time_limit`], and has its limits enforced here, whatever the caller asks for.

use std::time::{Duration, Instant};

use farol_event::Timestamp;
use rusqlite::types::{Type, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, Row, params_from_iter};
use serde::de::DeserializeOwned;

use crate::error::ViewError;
use crate::name::ViewTopics;

pub mod alerts;
mod condition;
mod cursor;
mod decimate;
pub mod events;
pub mod metrics;
pub mod pipeline;
pub mod policies;
pub mod readings;
pub mod rebalances;
pub mod sensors;
pub mod services;
pub mod silences;
mod stored;

/// The views as one reader sees them: one consistent state for as long as it lives. Made by [`crate::Store::query`].
pub struct Queries<'c> {
    connection: &'c Connection,
    topics: &'c ViewTopics,
    settings: QuerySettings,
    deadline: Instant,
}

/// What queries need to know beside the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuerySettings {
    pub(crate) time_limit: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) member_stale_after: Duration,
}

impl<'c> Queries<'c> {
    pub(crate) fn new(
        connection: &'c Connection,
        topics: &'c ViewTopics,
        settings: QuerySettings,
        deadline: Instant,
    ) -> Self {
        Self { connection, topics, settings, deadline }
    }

    /// SQLite stops itself at the deadline; work between its steps asks here.
    fn check_deadline(&self, what: &'static str) -> Result<(), ViewError> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(ViewError::TimedOut { what, limit: self.settings.time_limit })
    }

    /// Turns SQLite's error into one that says what was asked.
    fn failed(&self, what: &'static str) -> impl Fn(rusqlite::Error) -> ViewError + use<> {
        let limit = self.settings.time_limit;
        move |source| match source {
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..) => {
                ViewError::Corrupt { table: what, problem: source.to_string() }
            }
            _ if source.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                ViewError::TimedOut { what, limit }
            }
            _ => ViewError::Query { what, source },
        }
    }

    /// Every row of a query.
    fn rows<T>(
        &self,
        sql: &str,
        values: Vec<Value>,
        of_row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_map(params_from_iter(values), of_row)?.collect()
    }

    /// The number that a query answers with.
    fn number(&self, sql: &str, values: Vec<Value>) -> rusqlite::Result<u64> {
        self.connection.prepare_cached(sql)?.query_row(params_from_iter(values), |row| count(row, 0))
    }
}

/// How many rows a page has: the asked number within `1..=most`, or the default.
fn page_size(asked: Option<usize>, default: usize, most: usize) -> Result<usize, ViewError> {
    match asked {
        None => Ok(default),
        Some(asked) if (1..=most).contains(&asked) => Ok(asked),
        Some(asked) => Err(ViewError::InvalidFilter {
            field: "limit",
            problem: format!("must be between 1 and {most}, not {asked}"),
        }),
    }
}

/// A number of rows for SQLite; one more than a page shows tells whether there is a next one.
fn sql_limit(rows: usize) -> Value {
    Value::Integer(i64::try_from(rows).unwrap_or(i64::MAX))
}

/// A column of a number that is never negative.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A column of microseconds.
fn instant(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let micros = row.get(column)?;
    Timestamp::from_micros(micros).map_err(|error| unreadable(column, error))
}

/// A column of microseconds that may be empty.
fn instant_if_any(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let micros: Option<i64> = row.get(column)?;
    micros.map(|micros| Timestamp::from_micros(micros).map_err(|error| unreadable(column, error))).transpose()
}

/// A column of JSON.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|error| unreadable(column, error))?;
    serde_json::from_str(text).map_err(|error| unreadable(column, error))
}

/// A column of JSON that may be empty.
fn json_if_any<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    if row.get_ref(column)? == ValueRef::Null { Ok(None) } else { json(row, column).map(Some) }
}

/// A column that holds one of the words of an enum.
fn word<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_value(text.into()).map_err(|error| unreadable(column, error))
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

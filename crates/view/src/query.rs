//! What can be asked of the views, and the shapes of the answers.
//!
//! Each answer is a serde structure whose JSON is what the HTTP API sends (with a schema behind feature `openapi`). Lists
//! are pages: a page ends with an opaque cursor that names the last row shown, so that going on costs the same however far
//! one has come, and rows that arrive meanwhile shift nothing.
//!
//! Every query runs in one read transaction (it sees one state of all views), is stopped after
//! [`crate::StoreOptions::query_time_limit`], and has its limits enforced here, whatever the caller asks for.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::error::ViewError;
use crate::name::ViewTopics;

pub mod alerts;
mod cursor;
mod decimate;
pub mod events;
pub mod pipeline;
pub mod readings;
pub mod sensors;

/// The views as one reader sees them: one consistent state for as long as it lives. Made by [`crate::Store::query`].
pub struct Queries<'c> {
    connection: &'c Connection,
    topics: &'c ViewTopics,
    settings: QuerySettings,
}

/// What queries need to know beside the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuerySettings {
    pub(crate) time_limit: Duration,
    pub(crate) stale_after: Duration,
    pub(crate) member_stale_after: Duration,
}

impl<'c> Queries<'c> {
    pub(crate) fn new(connection: &'c Connection, topics: &'c ViewTopics, settings: QuerySettings) -> Self {
        Self { connection, topics, settings }
    }

    /// Turns SQLite's error into one that says what was asked.
    fn failed(&self, what: &'static str) -> impl Fn(rusqlite::Error) -> ViewError + use<> {
        let limit = self.settings.time_limit;
        move |source| match source.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => ViewError::TimedOut { what, limit },
            _ => ViewError::Query { what, source },
        }
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

//! What can go wrong with the store, whose fault it is, and whether to try again.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::ErrorCode;

use crate::name::ViewName;

/// Why a call on the store failed. Nothing of a failed call is kept.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The file can't be opened, or is no SQLite file.
    #[error("cannot open the views' file {}: {source}. If it is damaged, delete it together with its -wal and -shm: the views are derived again from the log", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The writer thread can't be started.
    #[error("cannot start the views' writer thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The tables of a view can't be made or cleared.
    #[error("cannot prepare the tables of view `{view}`: {source}")]
    Schema {
        /// Which view.
        view: ViewName,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Records can't be applied to a view.
    #[error("cannot apply records to view `{view}`: {source}")]
    Apply {
        /// Which view.
        view: ViewName,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A transaction of the writer can't be begun or committed.
    #[error("cannot {step} the views' transaction: {source}")]
    Transaction {
        /// `begin` or `commit`.
        step: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Old rows can't be deleted.
    #[error("cannot prune {what}: {source}")]
    Prune {
        /// Of which table.
        what: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A query failed.
    #[error("query on {what} failed: {source}")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A stored row has content that this program never writes.
    #[error("table `{table}` holds something unreadable: {problem}. `farol view rebuild` derives it again")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What was found.
        problem: String,
    },
    /// A query took longer than allowed.
    #[error("the query on {what} took longer than {} ms and was stopped; ask for less", limit.as_millis())]
    TimedOut {
        /// What was asked for.
        what: &'static str,
        /// How long a query may take.
        limit: Duration,
    },
    /// Too many queries are waiting already.
    #[error("{waiting} queries are waiting for a connection already; try again later")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The cursor was not made by this query.
    #[error("the cursor is not one that this list gave; leave it out to start at the first page")]
    InvalidCursor,
    /// A filter makes no sense.
    #[error("`{field}` {problem}")]
    InvalidFilter {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The store is closing or closed.
    #[error("the views' store is closed")]
    Closed,
}

impl ViewError {
    /// Whether the same call may succeed later: the disk was full or busy, the queue long.
    pub fn is_retriable(&self) -> bool {
        match self {
            ViewError::Busy { .. } => true,
            ViewError::Apply { source, .. }
            | ViewError::Transaction { source, .. }
            | ViewError::Schema { source, .. }
            | ViewError::Prune { source, .. }
            | ViewError::Query { source, .. } => is_passing(source),
            _ => false,
        }
    }

    /// Whether nothing but room for the index of the WAL is missing to open the file.
    pub(crate) fn lacks_room_for_wal_index(&self) -> bool {
        let Self::Open { source, .. } = self else { return false };
        source.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }

    /// Whether the request itself was wrong (a bad cursor or filter): an HTTP 400, not a 500.
    pub fn is_callers_fault(&self) -> bool {
        matches!(self, ViewError::InvalidCursor | ViewError::InvalidFilter { .. })
    }
}

/// Conditions of the machine that may pass without anybody changing the file or the program.
fn is_passing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
        )
    )
}

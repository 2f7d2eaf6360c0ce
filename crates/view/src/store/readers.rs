//! A few read-only connections, and the queue in front of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use crate::error::ViewError;
use crate::name::ViewTopics;
use crate::query::{Queries, QuerySettings};
use crate::store::WAITING_QUERIES;
use crate::store::schema::WalIndex;

/// A query looks at the clock after every so many steps of SQLite's virtual machine: some tens of microseconds of work.
const STEPS_BETWEEN_CHECKS: i32 = 4000;

/// Read-only connections, handed out one query at a time.
pub(crate) struct Readers {
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
    waiting: AtomicUsize,
    topics: Arc<ViewTopics>,
    settings: QuerySettings,
}

impl Readers {
    pub(crate) fn open(
        path: &Path,
        wal_index: WalIndex,
        count: usize,
        cache_bytes: usize,
        topics: ViewTopics,
        settings: QuerySettings,
    ) -> Result<Self, ViewError> {
        let idle =
            (0..count).map(|_| open_reader(path, wal_index, cache_bytes)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            free: Arc::new(Semaphore::new(count)),
            idle: Arc::new(Mutex::new(idle)),
            waiting: AtomicUsize::new(0),
            topics: Arc::new(topics),
            settings,
        })
    }

    pub(crate) async fn query<T, F>(&self, ask: F) -> Result<T, ViewError>
    where
        T: Send + 'static,
        F: FnOnce(&Queries<'_>) -> Result<T, ViewError> + Send + 'static,
    {
        let permit = {
            let _place = Place::take(&self.waiting)?;
            Arc::clone(&self.free).acquire_owned().await.map_err(|_| ViewError::Closed)?
        };
        let (idle, free) = (Arc::clone(&self.idle), Arc::clone(&self.free));
        let topics = Arc::clone(&self.topics);
        let settings = self.settings;
        let work = move || {
            let connection = idle.lock().pop().ok_or(ViewError::Closed)?;
            let mut borrowed = Borrowed { connection: Some(connection), idle, free };
            let answer = borrowed.ask(&topics, settings, ask);
            drop(borrowed);
            drop(permit);
            answer
        };
        // A panic in the closure is the closure's mistake; the connection went back when it unwound.
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer,
            Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
            Err(_) => Err(ViewError::Closed),
        }
    }

    /// Refuses further queries and closes the connections that no query is using.
    pub(crate) fn close(&self) {
        self.free.close();
        self.idle.lock().clear();
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self, ViewError> {
        let ahead = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(waiting);
        if ahead >= WAITING_QUERIES { Err(ViewError::Busy { waiting: ahead }) } else { Ok(place) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that goes back when dropped, even by a panic; or is closed, if the pool is.
struct Borrowed {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Borrowed {
    fn ask<T>(
        &mut self,
        topics: &ViewTopics,
        settings: QuerySettings,
        ask: impl FnOnce(&Queries<'_>) -> Result<T, ViewError>,
    ) -> Result<T, ViewError> {
        let connection = self.connection.as_mut().ok_or(ViewError::Closed)?;
        let failed = |source| ViewError::Query { what: "the views", source };
        let deadline = Instant::now() + settings.time_limit;
        connection
            .progress_handler(STEPS_BETWEEN_CHECKS, Some(move || Instant::now() >= deadline))
            .map_err(failed)?;
        // Rolled back when dropped: it only reads.
        let transaction = connection.unchecked_transaction().map_err(failed)?;
        ask(&Queries::new(&transaction, topics, settings, deadline))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.free.is_closed()
        {
            self.idle.lock().push(connection);
        }
    }
}

fn open_reader(path: &Path, wal_index: WalIndex, cache_bytes: usize) -> Result<Connection, ViewError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = wal_index.connect(path, flags)?;
        let kibibytes = i64::try_from(cache_bytes / 1024).unwrap_or(i64::MAX);
        connection.pragma_update(None, "cache_size", -kibibytes)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| ViewError::Open { path: path.to_path_buf(), source })
}

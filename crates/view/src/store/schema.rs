//! Making tables, and telling whether those on disk are this program's.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use crate::error::ViewError;
use crate::fold;
use crate::name::ViewName;
use crate::store::StoreOptions;

/// Tables of no view: positions, versions, and the dictionaries that `readings` and `sensors` share.
const SHARED_TABLES: &str = "
CREATE TABLE IF NOT EXISTS view_versions (
    view TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS view_positions (
    view TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    moved_at INTEGER NOT NULL,
    PRIMARY KEY (view, topic, partition)
) WITHOUT ROWID;
";

/// Where SQLite keeps the index of the WAL, which tells connections what of it to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WalIndex {
    /// In the `-shm` file, so that other programs can read the views meanwhile.
    File,
    /// In this process's memory, for a disk that has no room for that file. Other programs are locked out.
    Memory,
}

impl WalIndex {
    /// Opens a connection so.
    pub(crate) fn connect(self, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match self {
            Self::File => Connection::open_with_flags(path, flags),
            Self::Memory => Connection::open_with_flags_and_vfs(path, flags, "unix-excl"),
        }
    }
}

/// Opens the writer's connection.
pub(crate) fn open_writer(
    path: &Path,
    wal_index: WalIndex,
    options: &StoreOptions,
) -> Result<Connection, ViewError> {
    let open = || {
        let connection = wal_index.connect(path, OpenFlags::default())?;
        // First of all, because it can only be set while the file is empty. Rows are small: larger pages would write more
        // for every row changed.
        connection.pragma_update(None, "page_size", 4096)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // A power cut may undo the newest transactions, rows and positions together: the log gives them back.
        connection.pragma_update(None, "synchronous", "normal")?;
        let kibibytes = i64::try_from(options.writer_cache_bytes / 1024).unwrap_or(i64::MAX);
        connection.pragma_update(None, "cache_size", -kibibytes)?;
        let checkpoint_pages = i64::try_from(options.checkpoint_bytes / 4096).unwrap_or(i64::MAX).max(1);
        connection.pragma_update(None, "wal_autocheckpoint", checkpoint_pages)?;
        let wal_bytes = i64::try_from(options.checkpoint_bytes).unwrap_or(i64::MAX);
        connection.pragma_update(None, "journal_size_limit", wal_bytes)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        // Somebody's sqlite3 may hold a lock for a moment (a checkpoint); longer than this, the call fails and is retriable.
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| ViewError::Open { path: path.to_path_buf(), source })
}

/// Makes what is missing and clears the views whose tables have another version. Which ones were cleared or are new.
pub(crate) fn prepare(connection: &mut Connection, path: &Path) -> Result<Vec<ViewName>, ViewError> {
    let opening = |source| ViewError::Open { path: path.to_path_buf(), source };
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(opening)?;
    transaction.execute_batch(SHARED_TABLES).map_err(opening)?;
    fold::dictionary::prepare(&transaction).map_err(opening)?;
    let mut cleared = Vec::new();
    for view in ViewName::ALL {
        let schema = |source| ViewError::Schema { view, source };
        if version_on_disk(&transaction, view).map_err(schema)? != Some(fold::version(view)) {
            clear(&transaction, view).map_err(schema)?;
            cleared.push(view);
        }
    }
    transaction.commit().map_err(opening)?;
    Ok(cleared)
}

/// Drops and makes anew the tables of one view, and forgets its positions.
pub(crate) fn clear(transaction: &Transaction<'_>, view: ViewName) -> rusqlite::Result<()> {
    transaction.execute_batch(fold::drop_tables(view))?;
    transaction.execute_batch(fold::create_tables(view))?;
    transaction.execute("DELETE FROM view_positions WHERE view = ?1", [view.as_str()])?;
    transaction.execute(
        "INSERT INTO view_versions (view, version) VALUES (?1, ?2)
         ON CONFLICT (view) DO UPDATE SET version = excluded.version",
        (view.as_str(), fold::version(view)),
    )?;
    Ok(())
}

fn version_on_disk(transaction: &Transaction<'_>, view: ViewName) -> rusqlite::Result<Option<i64>> {
    transaction
        .query_row("SELECT version FROM view_versions WHERE view = ?1", [view.as_str()], |row| row.get(0))
        .optional()
}

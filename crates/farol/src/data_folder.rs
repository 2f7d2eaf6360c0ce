//! The data folder: what lies where, and opening it, with errors that say what to do.
//!
//! ```text
//! farol-data/
//!   log/            the log: every record; one process at a time (log/LOCK)
//!   views.db    the views, derived from the log; can be deleted while Farol is stopped
//! ```

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use farol_bus::embedded::{EmbeddedBus, EmbeddedError, EmbeddedOptions, RecoverySummary};
use farol_view::{Store, StoreOptions, ViewError};

use crate::settings::value::SyncPolicy;
use crate::settings::{Settings, TopicSettings};
use crate::terminal::with_causes;

/// The folder of the log, within the data folder.
const LOG_FOLDER: &str = "log";
/// The file of the views, within the data folder.
const VIEWS_FILE: &str = "views.db";

/// Why the data folder can't be used. Each text says the cause and ends with advice, so no variant has a source that would be
/// printed after it.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// The folder can't be made.
    #[error("can't make the data folder {}: {error}\n  {}", dir.display(), advice(error.kind()))]
    Make { dir: PathBuf, error: io::Error },
    /// The log can't be opened.
    #[error("can't open the log in {}: {}\n  {}", dir.display(), with_causes(error.as_ref()), log_advice(error))]
    Log { dir: PathBuf, error: Box<EmbeddedError> },
    /// The views can't be opened. The error names the file and says what to do.
    #[error("{0}")]
    Views(ViewError),
}

/// What to do about an error of the file system.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "it must be writable for this user: change its owner, or choose another with --data (setting data.dir)"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, or choose a folder on another disk with --data (setting data.dir)"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file is in the way: choose another folder with --data (setting data.dir)"
        }
        _ => "choose another folder with --data (setting data.dir) if this one can't be used",
    }
}

fn log_advice(error: &EmbeddedError) -> &'static str {
    if with_causes(error).contains("in use") {
        return "stop the other Farol first, or give this one a folder of its own with --data (setting data.dir)";
    }
    cause_kind(error).map_or("see the message above", advice)
}

/// The kind of the I/O error at the root, if there is one.
fn cause_kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = current.source();
    }
    None
}

/// The log of a folder, open: whoever has it has the folder.
pub struct DataFolder {
    /// The folder, as an absolute path.
    pub dir: PathBuf,
    /// The bus over the log.
    pub bus: Arc<EmbeddedBus>,
    /// What opening the log found.
    pub recovery: RecoverySummary,
}

/// Opens the log, whose lock keeps a second process out of the folder. Blocks for file I/O; must be called within a tokio
/// runtime.
///
/// # Errors
/// [`DataFolderError`].
pub fn open(settings: &Settings) -> Result<DataFolder, DataFolderError> {
    let dir = &settings.data.dir;
    std::fs::create_dir_all(dir).map_err(|error| DataFolderError::Make { dir: dir.clone(), error })?;
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let mut options = EmbeddedOptions::new(dir.join(LOG_FOLDER));
    options.sync = sync(settings.log.sync);
    let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    options.groups.max_size = count(settings.kafka.group_members.get());
    options.groups.max_groups = count(settings.kafka.groups.get());
    options.producers.max_producers = count(settings.kafka.producers.get());
    let (bus, recovery) = EmbeddedBus::open(options)
        .map_err(|error| DataFolderError::Log { dir: dir.clone(), error: Box::new(error) })?;
    Ok(DataFolder { dir, bus, recovery })
}

impl DataFolder {
    /// Opens the views.
    ///
    /// # Errors
    /// [`DataFolderError::Views`].
    pub async fn open_store(&self, settings: &Settings) -> Result<Store, DataFolderError> {
        let options = StoreOptions {
            topics: view_topics(settings),
            stale_after: settings.views.stale_after,
            ..StoreOptions::default()
        };
        let path = self.dir.join(VIEWS_FILE);
        let opening = tokio::task::spawn_blocking(move || Store::open(path, options));
        let opened = opening.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        opened.map_err(DataFolderError::Views)
    }
}

/// What the topics are called, for the views.
pub fn view_topics(settings: &Settings) -> farol_view::ViewTopics {
    farol_view::ViewTopics {
        sensor_data: settings.topic("sensor-data").into(),
        alerts: settings.topic("alerts").into(),
        system_events: settings.topic("system-events").into(),
        dead_letters: settings.topic("dead-letters").into(),
    }
}

/// The settings of one topic in Kafka's words.
pub fn topic_config(
    settings: &Settings,
    topic: &TopicSettings,
) -> std::collections::BTreeMap<String, String> {
    let mut config = std::collections::BTreeMap::from([
        ("segment.bytes".to_owned(), settings.log.segment_size.0.to_string()),
        ("farol.sync".to_owned(), topic.sync.as_config()),
    ]);
    if let Some(retention) = topic.retention {
        config.insert("retention.ms".to_owned(), retention.as_millis().to_string());
    }
    if let Some(size) = topic.retention_size {
        config.insert("retention.bytes".to_owned(), size.0.to_string());
    }
    config
}

fn sync(policy: SyncPolicy) -> farol_bus::embedded::SyncPolicy {
    match policy {
        SyncPolicy::Always => farol_bus::embedded::SyncPolicy::Always,
        SyncPolicy::Interval(interval) => farol_bus::embedded::SyncPolicy::Interval(interval),
        SyncPolicy::Never => farol_bus::embedded::SyncPolicy::Never,
    }
}

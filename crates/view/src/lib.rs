//! The views: folds over Farol's log into one SQLite file, and the queries on them.
//!
//! A view reads topics and writes tables. Its rows and its position (the offset to resume from, per partition) change in
//! **one** SQLite transaction, so that after a crash at any instant a view's content is exactly the fold of the records
//! before its position: nothing lost, nothing twice. A view holds nothing that the log doesn't: it can be cleared and
//! fed again from offset zero, and then answers every query with the same bytes.
//!
//! This crate is the only one that knows SQL. It does not read the log: its caller polls a [`farol_bus::Consumer`] and
//! hands the batches to [`Store::apply`].
//!
//! # The views
//!
//! | view | reads topics | public relations |
//! | --- | --- | --- |
//! | [`ViewName::Readings`] | `sensor-data` | `sensor_readings` |
//! | [`ViewName::Sensors`] | `sensor-data` | `sensors` |
//! | [`ViewName::Alerts`] | `alerts`, `system-events` | `alerts`, `alert_transitions`, `deliveries` |
//! | [`ViewName::Events`] | `system-events`, `alerts` | `events` |
//! | [`ViewName::Pipeline`] | `system-events`, `dead-letters` | `consumer_health`, `producer_health`, `rebalancing_events`, `dead_letters` |
//! | [`ViewName::Services`] | `system-events` | `services`, `service_metrics`, `service_metric_points`, `service_checks`, `policies`, `policy_changes` |
//!
//! The public relations are documented, column by column, in `docs/sql.md`: people read them with `sqlite3`.
//!
//! # Flow
//!
//! One thread owns the only writing connection and takes commands from a bounded queue; queries run on a small pool of
//! read-only connections, off the async threads, each with a time limit. The file is in WAL mode, so that neither waits for
//! the other. `synchronous=NORMAL`: a power cut may undo the newest transactions, never tear one, and whatever it undoes
//! is derived again from the log, because the positions go back with the rows.
//!
//! # Failures
//!
//! A record that a view can't read is skipped and counted with the reason ([`ViewStats::skipped`]); it never stops the view.
//! A busy or full disk fails the one call with an error that [says so](ViewError::is_retriable), and nothing of that call
//! is kept. A view whose tables have another version than this program's is cleared when the store opens, and reported in
//! [`Store::cleared_at_open`].
//!
//! Modules, in reading order: [`name`] (which views there are), [`service_state`] (what state a service is in), [`store`] (open, apply, query, clear, prune), [`query`]
//! (what can be asked, and the shapes of the answers), [`error`].

mod block;
mod decode;
pub mod error;
mod fold;
pub mod name;
pub mod query;
pub mod service_state;
pub mod store;

pub use error::ViewError;
pub use name::{ViewName, ViewTopics};
pub use query::Queries;
pub use store::{Applied, PositionMap, Pruned, Retention, Store, StoreOptions, ViewStats};

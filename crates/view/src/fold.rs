//! The folds: how each view's tables change with each record.
//!
//! A fold's result depends on the records and their positions alone, never on how they were grouped into batches, on the
//! clock, or on what another view holds. Where records of different partitions meet in one row, the row says which of them
//! is the newest by time, then partition, then offset, so that it doesn't matter which came first.

use std::collections::BTreeMap;

use farol_event::AlertLevel;
use rusqlite::Transaction;
use serde::Serialize;

use crate::decode::{Decoded, Starts};
use crate::name::ViewName;
use crate::store::Applied;

pub(crate) mod alerts;
pub(crate) mod dictionary;
pub(crate) mod events;
pub(crate) mod pipeline;
pub(crate) mod readings;
pub(crate) mod sensors;
pub(crate) mod services;
pub(crate) mod silences;

/// What the folds remember between transactions, all of it only to save look-ups.
#[derive(Default)]
pub(crate) struct Folds {
    pub(crate) dictionary: dictionary::Dictionary,
    slots: Option<readings::Slots>,
    sensors: sensors::Remembered,
}

impl Folds {
    /// Folds the records from `starts` on into the tables of `view`.
    pub(crate) fn apply(
        &mut self,
        view: ViewName,
        transaction: &Transaction<'_>,
        decoded: &Decoded,
        starts: &Starts,
        tally: &mut Tally,
    ) -> rusqlite::Result<()> {
        match view {
            ViewName::Readings => readings::apply(transaction, &mut self.slots, decoded, starts, tally),
            ViewName::Sensors => sensors::apply(transaction, &mut self.sensors, decoded, starts, tally),
            ViewName::Alerts => alerts::apply(transaction, decoded, starts, tally),
            ViewName::Events => events::apply(transaction, decoded, starts, tally),
            ViewName::Pipeline => pipeline::apply(transaction, decoded, starts, tally),
            ViewName::Services => services::apply(transaction, decoded, starts, tally),
            ViewName::Silences => silences::apply(transaction, decoded, starts, tally),
        }
    }

    /// Forgets all, because it may not be in the tables.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Forgets the slots, because some may be gone.
    pub(crate) fn forget_slots(&mut self) {
        self.slots = None;
    }
}

/// What one apply did to one view.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) applied: u64,
    pub(crate) already_applied: u64,
    pub(crate) skipped: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }

    pub(crate) fn applied(&self) -> Applied {
        Applied {
            applied: self.applied,
            skipped: self.skipped.values().sum(),
            already_applied: self.already_applied,
        }
    }
}

/// The version of a view's tables. Raise it with any change of the tables or of what the fold writes into them: the view is
/// then derived again from the log.
pub(crate) fn version(view: ViewName) -> i64 {
    match view {
        ViewName::Readings => 1,
        ViewName::Sensors => 1,
        ViewName::Alerts => 2,
        ViewName::Events => 2,
        ViewName::Pipeline => 3,
        ViewName::Services => 5,
        ViewName::Silences => 2,
    }
}

/// The statements that make a view's tables.
pub(crate) fn create_tables(view: ViewName) -> &'static str {
    match view {
        ViewName::Readings => readings::CREATE,
        ViewName::Sensors => sensors::CREATE,
        ViewName::Alerts => alerts::CREATE,
        ViewName::Events => events::CREATE,
        ViewName::Pipeline => pipeline::CREATE,
        ViewName::Services => services::CREATE,
        ViewName::Silences => silences::CREATE,
    }
}

/// The statements that drop a view's tables, if they are there.
pub(crate) fn drop_tables(view: ViewName) -> &'static str {
    match view {
        ViewName::Readings => readings::DROP,
        ViewName::Sensors => sensors::DROP,
        ViewName::Alerts => alerts::DROP,
        ViewName::Events => events::DROP,
        ViewName::Pipeline => pipeline::DROP,
        ViewName::Services => services::DROP,
        ViewName::Silences => silences::DROP,
    }
}

/// What the tables hold for the sender's own judgement.
pub(crate) fn level_number(level: AlertLevel) -> i64 {
    match level {
        AlertLevel::Normal => 0,
        AlertLevel::Warning => 1,
        AlertLevel::Critical => 2,
    }
}

/// JSON for a column.
pub(crate) fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .expect("what the tables hold has only string keys and finite numbers, so it serialises")
}

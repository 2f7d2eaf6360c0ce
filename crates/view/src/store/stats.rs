//! What each view has done since the store was opened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::name::ViewName;
use crate::store::{AllPositions, Applied, PositionMap};

/// What one view has done since the store was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ViewStats {
    /// The next offset to apply, per partition.
    pub positions: PositionMap,
    /// Records folded into the view.
    pub applied: u64,
    /// Records that the view could not read, by reason. The reasons are a fixed, short list.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Records before the view's position, left alone.
    pub already_applied: u64,
    /// Calls that failed.
    pub errors: u64,
    /// What the last failed call said; `None` once a later call has succeeded.
    pub last_error: Option<String>,
    /// How long the last successful apply with this view took, commit included.
    pub last_apply: Duration,
}

/// Counters shared by the writer thread and whoever asks.
#[derive(Clone, Default)]
pub(crate) struct SharedStats(Arc<Mutex<BTreeMap<ViewName, ViewStats>>>);

impl SharedStats {
    pub(crate) fn succeeded(
        &self,
        view: ViewName,
        did: &Applied,
        reasons: &BTreeMap<&'static str, u64>,
        took: Duration,
    ) {
        let mut all = self.0.lock();
        let stats = all.entry(view).or_default();
        stats.applied += did.applied;
        stats.already_applied += did.already_applied;
        for (reason, count) in reasons {
            *stats.skipped.entry(reason).or_default() += count;
        }
        stats.last_apply = took;
        stats.last_error = None;
    }

    pub(crate) fn failed(&self, view: ViewName, error: &str) {
        let mut all = self.0.lock();
        let stats = all.entry(view).or_default();
        stats.errors += 1;
        stats.last_error = Some(error.to_owned());
    }

    pub(crate) fn snapshot(&self, positions: &AllPositions) -> BTreeMap<ViewName, ViewStats> {
        let mut all = self.0.lock().clone();
        for view in ViewName::ALL {
            let stats = all.entry(view).or_default();
            stats.positions = positions.get(&view).cloned().unwrap_or_default();
        }
        all
    }
}

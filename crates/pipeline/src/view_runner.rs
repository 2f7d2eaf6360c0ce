//! Feeds the views from the log: polls topics, hands batches to the store, which moves content and position together.
//!
//! Views that read the same topics run together, so that a reading is decoded once for both. A run starts from the
//! oldest position among its views; the store skips what a view has already applied. A failing store (busy, full disk)
//! is tried again with the same batches until it takes them: a view may fall behind, visibly, but never skips.
//!
//! What comes after a pause is applied at once. While readings keep coming, the views of readings take them in every
//! `READINGS_PACE`: a transaction of its own for the few readings of each group commit would cost several times as much as what
//! it writes, in processor time and in writes beside the journal's, and each alert would wait for that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_bus::{
    Bus, BusError, ConsumedBatch, ConsumerSettings, OffsetSpec, Polled, StartAt, TopicPartition,
};
use farol_view::{Store, ViewName};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::supervision::caught;
use crate::system_events::now;

/// The longest pause before a refused batch is offered to the store again.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long a poll waits when nothing comes.
const POLL: Duration = Duration::from_secs(1);
/// How many bytes of records one transaction of the store takes at most: some 20,000 readings. Larger ones would cost each reading a little
/// less, and memory several times their size on each thread that has read one.
const POLL_BYTES: usize = 4 * 1024 * 1024;

/// From the beginning of one apply of readings to that of the next, at least. At 20,000 readings a second, an apply is then large
/// enough to be packed into blocks instead of rows.
const READINGS_PACE: Duration = Duration::from_millis(250);

/// The views that run together.
pub(crate) const RUNS: [&[ViewName]; 2] = [
    &[ViewName::Readings, ViewName::Sensors],
    &[ViewName::Alerts, ViewName::Events, ViewName::Pipeline, ViewName::Services, ViewName::Silences],
];

/// Where one view stands, as seen by its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewProgress {
    /// Records between the run's position and the end of its topics, at the newest poll.
    pub lag_records: i64,
    /// Why the store refuses the run's batches at present.
    pub problem: Option<String>,
}

/// Where every view stands.
#[derive(Debug, Clone, Default)]
pub struct ViewsProgress(Arc<Mutex<BTreeMap<&'static str, ViewProgress>>>);

impl ViewsProgress {
    /// By view name.
    pub fn snapshot(&self) -> BTreeMap<&'static str, ViewProgress> {
        self.0.lock().clone()
    }

    fn update(&self, views: &[ViewName], change: impl Fn(&mut ViewProgress)) {
        let mut all = self.0.lock();
        for view in views {
            change(all.entry(view.as_str()).or_default());
        }
    }
}

/// One run: some views, fed together.
pub(crate) struct ViewRun {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Store,
    pub(crate) views: &'static [ViewName],
    /// Those of them to empty first.
    pub(crate) ahead: Vec<ViewName>,
    pub(crate) progress: ViewsProgress,
}

/// The views that have applied records which the log no longer has: it lost an unsynced tail in a power cut (sync policies
/// `interval` and `never`), or its folder comes from a backup. What they hold is not what the log says, and they would skip
/// the records that take the lost ones' offsets. To be asked before anything is appended, or the ends have moved on.
pub(crate) async fn views_ahead_of_log(bus: &dyn Bus, store: &Store) -> Result<Vec<ViewName>, BusError> {
    let mut partitions = Vec::new();
    for topic in bus.topics().await? {
        partitions.extend((0..topic.partitions).map(|p| TopicPartition::new(Arc::clone(&topic.name), p)));
    }
    let ends = bus.offsets(&partitions, OffsetSpec::Latest).await?;
    let mut ahead = Vec::new();
    for view in ViewName::ALL {
        let positions = store.positions(view);
        let beyond = positions.iter().find_map(|(partition, next)| {
            ends.get(partition).filter(|end| *next > **end).map(|end| (partition, next, end))
        });
        if let Some((partition, position, end)) = beyond {
            tracing::warn!(
                view = view.as_str(), %partition, position, end,
                "the view has read further than the log reaches: the log lost its end; the view is built again"
            );
            ahead.push(view);
        }
    }
    Ok(ahead)
}

impl ViewRun {
    /// Runs until told to stop; starts anew, after a pause, when the bus fails.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if !self.empty_those_ahead(&stop).await {
            return;
        }
        let mut pause = Duration::from_millis(200);
        while !stop.is_cancelled() {
            match caught(self.follow(&stop, false)).await {
                Ok(()) => return,
                Err(BusError::Closed) if stop.is_cancelled() => return,
                Err(error) => {
                    tracing::error!(views = ?self.views, %error, retry_in = ?pause, "views can't read the log");
                    self.progress.update(self.views, |p| p.problem = Some(error.to_string()));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
            }
        }
    }

    /// Empties the views that were ahead of the log, however often the store refuses. False when told to stop first.
    async fn empty_those_ahead(&self, stop: &CancellationToken) -> bool {
        for view in &self.ahead {
            let mut pause = Duration::from_millis(100);
            while let Err(error) = self.store.clear(*view).await {
                tracing::error!(view = view.as_str(), %error, retry_in = ?pause, "a view can't be emptied");
                self.progress.update(&[*view], |p| p.problem = Some(error.to_string()));
                tokio::select! {
                    () = stop.cancelled() => return false,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                }
            }
        }
        true
    }

    /// Feeds the views up to the ends that the topics have now, then returns.
    pub(crate) async fn catch_up(&self, stop: &CancellationToken) -> Result<(), BusError> {
        self.follow(stop, true).await
    }

    async fn follow(&self, stop: &CancellationToken, until_caught_up: bool) -> Result<(), BusError> {
        let (starts, ends) = self.starts_and_ends().await?;
        let mut open: BTreeMap<TopicPartition, i64> = ends;
        open.retain(|partition, end| starts.get(partition).is_none_or(|start| start < end));
        let mut consumer = self
            .bus
            .consumer(ConsumerSettings { max_bytes: POLL_BYTES, ..ConsumerSettings::standalone("views") })
            .await?;
        let assignment = starts.into_iter().map(|(p, offset)| (p, StartAt::Offset(offset))).collect();
        consumer.assign(assignment).await?;
        let mut lag = BTreeMap::new();
        let pace = pace_of(self.views);
        let mut next_apply = Instant::now();
        while !(until_caught_up && open.is_empty()) {
            let polled = tokio::select! {
                polled = consumer.poll(POLL) => polled?,
                () = stop.cancelled() => break,
            };
            let Polled::Records(mut batches) = polled else {
                continue;
            };
            if !batches.is_empty() {
                // What waits for its time or is being applied counts as lag meanwhile.
                for batch in &batches {
                    let first = batch.records.first().map_or(batch.next_offset, |record| record.offset);
                    lag.insert(batch.partition.clone(), batch.end_offset - first);
                }
                let lag_records = lag.values().sum();
                self.progress.update(self.views, |p| *p = ViewProgress { lag_records, problem: None });
            }
            if !batches.is_empty() && Instant::now() < next_apply {
                tokio::select! {
                    () = tokio::time::sleep_until(next_apply) => {}
                    () = stop.cancelled() => break,
                }
                if let Polled::Records(more) = consumer.poll(Duration::ZERO).await? {
                    batches.extend(more);
                }
            }
            for batch in &batches {
                lag.insert(batch.partition.clone(), batch.end_offset - batch.next_offset);
            }
            // A partition may end with what brings no record: the marker of an aborted transaction.
            open.retain(|partition, end| consumer.position(partition).is_some_and(|next| next < *end));
            if !batches.is_empty() {
                next_apply = Instant::now() + pace;
                if !self.apply(batches, stop).await {
                    break;
                }
            }
            let lag_records = lag.values().sum();
            self.progress.update(self.views, |p| *p = ViewProgress { lag_records, problem: None });
        }
        consumer.close().await
    }

    /// Hands batches to the store until it takes them. False when told to stop first.
    async fn apply(&self, batches: Vec<ConsumedBatch>, stop: &CancellationToken) -> bool {
        let batches: Arc<[ConsumedBatch]> = batches.into();
        let mut pause = Duration::from_millis(100);
        loop {
            let Err(error) = self.store.apply(self.views, Arc::clone(&batches), now()).await else {
                return true;
            };
            tracing::error!(views = ?self.views, %error, retry_in = ?pause, "the store refused a batch; it will be offered again");
            self.progress.update(self.views, |p| p.problem = Some(error.to_string()));
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
            }
        }
    }

    /// Where to start: for each partition of the topics, the oldest position among the views that read it.
    async fn starts_and_ends(
        &self,
    ) -> Result<(BTreeMap<TopicPartition, i64>, BTreeMap<TopicPartition, i64>), BusError> {
        let mut starts = BTreeMap::new();
        for topic in self.bus.topics().await? {
            let readers: Vec<_> =
                self.views.iter().filter(|view| self.store.topics(**view).contains(&topic.name)).collect();
            for partition in (0..topic.partitions).map(|p| TopicPartition::new(Arc::clone(&topic.name), p)) {
                let positions = readers
                    .iter()
                    .map(|view| self.store.positions(**view).get(&partition).copied().unwrap_or(0));
                if let Some(oldest) = positions.min() {
                    starts.insert(partition, oldest);
                }
            }
        }
        let partitions: Vec<_> = starts.keys().cloned().collect();
        let ends = self.bus.offsets(&partitions, OffsetSpec::Latest).await?;
        for (partition, earliest) in self.bus.offsets(&partitions, OffsetSpec::Earliest).await? {
            // What retention has taken away can't be waited for.
            starts.entry(partition).and_modify(|start| *start = earliest.max(*start));
        }
        Ok((starts, ends))
    }
}

/// How far apart the applies of these views begin at least. Whoever acknowledges an alert waits for the view of alerts, and what it
/// reads comes seldom: it waits for nothing.
fn pace_of(views: &[ViewName]) -> Duration {
    if views.contains(&ViewName::Readings) || views.contains(&ViewName::Sensors) {
        READINGS_PACE
    } else {
        Duration::ZERO
    }
}

/// The run of one view by itself.
pub(crate) fn alone(view: ViewName) -> &'static [ViewName] {
    match view {
        ViewName::Readings => &[ViewName::Readings],
        ViewName::Sensors => &[ViewName::Sensors],
        ViewName::Alerts => &[ViewName::Alerts],
        ViewName::Events => &[ViewName::Events],
        ViewName::Pipeline => &[ViewName::Pipeline],
        ViewName::Services => &[ViewName::Services],
        ViewName::Silences => &[ViewName::Silences],
    }
}

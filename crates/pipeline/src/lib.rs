//! The running topology: what stands between the log and everything that people see.
//!
//! Two kinds of folds, and no third (see `ARCHITECTURE.md`):
//!
//! * the **detect processor** ([`detect_worker`]) reads readings and services' events and writes alert transitions; what it writes, its state
//!   and the offsets it has consumed commit in one bus transaction. Its workers are members of two consumer groups, one for each;
//!   [`workers`] starts and stops them;
//! * the **views** ([`view_runner`]) read topics and write a store, content and position in one transaction.
//!
//! Beside them: [`rules`] (the rules in force, replaced without a restart), [`published_rules`] (the same for workers in other
//! processes), [`notifier`] (alerts to webhooks, e-mail and the
//! log, by routes or at once, each delivery recorded), [`rebalances`] (who joined, who left, what it cost, as events), [`host`]
//! (the machine as a service), [`housekeeping`] (retention of the views), [`services`] (watched services: commands from the log,
//! findings to it), [`outgoing`] (the policies of Farol's own calls, as events) and [`topics`].
//!
//! Nothing here decides: rules are evaluated in `farol-detect`, an alert's life and the retry schedule in
//! `farol-alert`. These are the shells that poll, commit and deliver.

mod detect_partition;
pub mod detect_worker;
pub mod email;
mod heartbeat;
pub mod host;
pub mod housekeeping;
mod intake;
pub mod notifier;
pub mod outgoing;
pub mod published_rules;
pub mod rebalances;
pub mod rules;
pub mod services;
mod supervision;
pub mod system_events;
pub mod topics;
pub mod view_runner;
pub mod webhook;
pub mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farol_bus::{Bus, BusError};
use farol_log::Trouble;
use farol_resilience::Registry;
use farol_view::Store;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use notifier::NotifierDeps;

pub use detect_worker::{Member, Observer, WorkerNews, WorkerSettings};
pub use email::{EmailSettings, SmtpTls};
pub use host::{HostSettings, watch_host};
pub use housekeeping::ViewRetention;
pub use notifier::{NotifierSettings, ReceiverSettingsError, retry_schedule};
pub use published_rules::RulesFollower;
pub use rebalances::RebalanceCounts;
pub use rules::{RuleSources, RulesChange, RulesError, RulesHandle, RulesInForce};
pub use services::{ServiceWatch, ServiceWatchDeps};
pub use system_events::SystemEvents;
pub use topics::{TopicNames, TopicOverride, create_missing_topics, default_topics, ensure_topics};
pub use view_runner::{ViewProgress, ViewsProgress};
pub use webhook::WebhookSettings;
pub use workers::{LoneWorker, Stopped, WorkerError, WorkerState, WorkerStatus, Workers, bus_retry};

/// How the pipeline runs.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// Names of the workers, one each; none runs no worker.
    pub workers: Vec<String>,
    /// How workers behave, and the names of topics.
    pub worker: WorkerSettings,
    /// Where alerts are sent.
    pub notifier: NotifierSettings,
    /// How long the views keep what.
    pub retention: ViewRetention,
}

/// What the pipeline runs on.
pub struct PipelineDeps {
    /// Where readings come from and alerts go to. Its topics exist ([`ensure_topics`]).
    pub bus: Arc<dyn Bus>,
    /// Where the views are.
    pub store: Store,
    /// The rules in force.
    pub rules: Arc<RulesHandle>,
    /// Where the policies of calls to others are registered.
    pub outgoing: Registry,
}

/// Why the pipeline can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bus refuses.
    #[error("the pipeline can't use the bus: {0}")]
    Bus(#[from] BusError),
    /// A receiver's settings are wrong.
    #[error(transparent)]
    Receiver(#[from] ReceiverSettingsError),
    /// A worker can't be started.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// The running pipeline.
pub struct Pipeline {
    workers: Arc<Workers>,
    views: ViewsProgress,
    views_ahead: Vec<farol_view::ViewName>,
    events: SystemEvents,
    rebalance_counts: Arc<RebalanceCounts>,
    /// Stops what only follows the workers: views, notifier, rebalances.
    followers: CancellationToken,
    tasks: TaskTracker,
}

impl Pipeline {
    /// Starts every part. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the bus refuses, a receiver's settings are wrong, or a worker gets no thread. What had started then stops.
    pub async fn start(settings: PipelineSettings, deps: PipelineDeps) -> Result<Self, StartError> {
        let PipelineDeps { bus, store, rules, outgoing } = deps;
        let (followers, tasks, views) =
            (CancellationToken::new(), TaskTracker::new(), ViewsProgress::default());
        let stop_on_error = followers.clone().drop_guard();
        // First of all: every other part appends.
        let views_ahead = view_runner::views_ahead_of_log(bus.as_ref(), &store).await?;
        let events = SystemEvents::new(bus.as_ref()).await?;
        let names = settings.worker.topics.clone();

        let rebalance_counts = Arc::<RebalanceCounts>::default();
        tasks.spawn(rebalances::publish_rebalances(
            bus.rebalances(),
            events.clone(),
            Arc::clone(&rebalance_counts),
            followers.child_token(),
        ));
        for run in view_runner::RUNS {
            let run = view_runner::ViewRun {
                bus: Arc::clone(&bus),
                store: store.clone(),
                views: run,
                ahead: views_ahead.iter().copied().filter(|view| run.contains(view)).collect(),
                progress: views.clone(),
            };
            tasks.spawn(run.run(followers.child_token()));
        }
        let (producer, published) = (Arc::clone(events.producer()), Arc::clone(&rules));
        tasks.spawn(published_rules::publish_rules(producer, published, followers.child_token()));
        let notifier_deps = NotifierDeps { bus: &bus, names: &names, events: &events, outgoing: &outgoing };
        notifier::start(settings.notifier, &notifier_deps, &tasks, &followers)?;
        tasks.spawn(housekeeping::prune(store, settings.retention, followers.child_token()));
        let retry = bus_retry();
        if let Err(error) = outgoing.register(retry.clone()) {
            tracing::warn!(%error, "how often workers are started again is not shown");
        }
        let deps = detect_worker::WorkerDeps {
            bus,
            rules,
            events: events.clone(),
            settings: settings.worker,
            started_at: system_events::now(),
            retry,
            observer: log_failures(),
        };
        let workers = Workers::start_all(Arc::new(deps), &settings.workers)?;
        stop_on_error.disarm();
        Ok(Self { workers, views, views_ahead, events, rebalance_counts, followers, tasks })
    }

    /// The workers of this process.
    pub fn workers(&self) -> &Arc<Workers> {
        &self.workers
    }

    /// Where every view stands.
    pub fn views(&self) -> &ViewsProgress {
        &self.views
    }

    /// The views that had read further than the log reaches and are built again: the log had lost its end.
    pub fn views_ahead_of_log(&self) -> &[farol_view::ViewName] {
        &self.views_ahead
    }

    /// Publishes events about Farol itself.
    pub fn events(&self) -> &SystemEvents {
        &self.events
    }

    /// Rebalances that were not told one by one.
    pub fn rebalance_counts(&self) -> &Arc<RebalanceCounts> {
        &self.rebalance_counts
    }

    /// Stops in order: workers commit and leave, then views, notifier and the rest. Gives the names of the parts that
    /// were not done within `limit` (none, normally); they are abandoned, which loses nothing.
    pub async fn shutdown(self, limit: Duration) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut late = Vec::new();
        if tokio::time::timeout_at(deadline, self.workers.stop_all()).await.is_err() {
            let still = self.workers.list().into_iter().filter(|w| w.state != WorkerState::Stopped);
            late.extend(still.map(|w| w.consumer_id));
        }
        self.followers.cancel();
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_err() {
            late.push(format!("{} of views, notifier, rebalances, housekeeping", self.tasks.len()));
        }
        late
    }
}

/// Logs that workers fail and that they work again, each worker for itself.
fn log_failures() -> Observer {
    let failing = Mutex::new(HashMap::<(String, String), Trouble>::new());
    Arc::new(move |Member { worker, group }, news| {
        let mut failing = failing.lock();
        let failing = failing.entry((worker.to_owned(), group.to_owned())).or_default();
        match news {
            WorkerNews::Failed { error, retry_in } => {
                if let Some(untold) = failing.again(Instant::now()) {
                    tracing::error!(worker, group, %error, untold, ?retry_in, "worker failed; it will be started again");
                }
            }
            WorkerNews::Recovered if failing.is_over() => tracing::warn!(worker, group, "worker works again"),
            _ => {}
        }
    })
}

/// Rebuilds one view from the log: clears it and feeds it up to the end that its topics have now. `report` is called with
/// records still to go, about once a second.
///
/// # Errors
/// When the bus or the store refuses; the view then holds a correct, older state and goes on at the next start.
pub async fn rebuild_view(
    bus: Arc<dyn Bus>,
    store: Store,
    view: farol_view::ViewName,
    stop: &CancellationToken,
    mut report: impl FnMut(i64),
) -> Result<(), RebuildError> {
    store.clear(view).await?;
    let (progress, views) = (ViewsProgress::default(), view_runner::alone(view));
    let run = view_runner::ViewRun { bus, store, views, ahead: Vec::new(), progress: progress.clone() };
    let mut caught_up = std::pin::pin!(run.catch_up(stop));
    loop {
        tokio::select! {
            done = &mut caught_up => return Ok(done?),
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                report(progress.snapshot().get(view.as_str()).map_or(0, |p| p.lag_records));
            }
        }
    }
}

/// Why a view was not rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log can't be read.
    #[error("the log can't be read: {0}")]
    Bus(#[from] BusError),
    /// The store refuses.
    #[error("the view can't be written: {0}")]
    View(#[from] farol_view::ViewError),
}

//! What the HTTP face asks of the running parts.

use std::sync::Arc;

use async_trait::async_trait;
use farol_bus::embedded::{EmbeddedBus, RecoverySummary};
use farol_detect::RuleSet;
use farol_http::control::{
    Control, LogReport, Notifying, RecoveryReport, RulesReport, TopicReport, ViewReport, WorkerRefusal,
    WorkerState, WorkerStatus,
};
use farol_pipeline::{RulesHandle, ViewsProgress, WorkerError, Workers};
use farol_registry::Catalogue;

/// The running parts, as the HTTP face sees them.
pub struct RunningParts {
    pub bus: Arc<EmbeddedBus>,
    pub recovery: RecoverySummary,
    pub rules: Arc<RulesHandle>,
    pub workers: Arc<Workers>,
    pub views: ViewsProgress,
    pub catalogue: Arc<Catalogue>,
    pub notifying: Arc<Notifying>,
}

#[async_trait]
impl Control for RunningParts {
    fn rules(&self) -> RulesReport {
        let current = self.rules.current();
        RulesReport {
            rules: Arc::new(RuleSet::clone(&current.rules)),
            loaded_at: current.loaded_at,
            files: self.rules.files().iter().map(|file| file.display().to_string()).collect(),
            problem: self.rules.problem(),
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let status = |worker: farol_pipeline::WorkerStatus| WorkerStatus {
            consumer_id: worker.consumer_id,
            state: match worker.state {
                farol_pipeline::WorkerState::Running => WorkerState::Running,
                farol_pipeline::WorkerState::Stopping => WorkerState::Stopping,
                farol_pipeline::WorkerState::Stopped => WorkerState::Stopped,
            },
        };
        self.workers.list().into_iter().map(status).collect()
    }

    async fn stop_worker(&self, consumer_id: &str) -> Result<(), WorkerRefusal> {
        self.workers.stop(consumer_id).map_err(refusal)
    }

    async fn start_worker(&self, consumer_id: &str) -> Result<(), WorkerRefusal> {
        self.workers.start(consumer_id).map_err(refusal)
    }

    fn notifying(&self) -> Arc<Notifying> {
        Arc::clone(&self.notifying)
    }

    fn log(&self) -> LogReport {
        let stats = self.bus.stats();
        let topics = stats.topics.iter().filter(|topic| !topic.internal).map(|topic| TopicReport {
            name: topic.name.to_string(),
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            records: u64::try_from(topic.records()).unwrap_or(0),
            bytes: topic.bytes(),
        });
        LogReport {
            topics: topics.collect(),
            poisoned: stats.poisoned().is_some(),
            waiting_for_space: stats.log.waiting_for_space.is_some(),
            folder_not_writable: stats.log.folder_not_writable.is_some(),
            recovered: Some(self.recovered()),
        }
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    fn views(&self) -> Vec<ViewReport> {
        let report = |(name, progress): (&'static str, farol_pipeline::ViewProgress)| ViewReport {
            name: name.to_owned(),
            lag_records: u64::try_from(progress.lag_records).unwrap_or(0),
            ok: progress.problem.is_none(),
            error: progress.problem,
        };
        self.views.snapshot().into_iter().map(report).collect()
    }
}

impl RunningParts {
    fn recovered(&self) -> RecoveryReport {
        RecoveryReport {
            clean_shutdown: self.recovery.clean_shutdown,
            records_replayed: self.recovery.records_replayed,
            torn_bytes: self.recovery.torn_bytes,
            elapsed_ms: u64::try_from(self.recovery.elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn refusal(error: WorkerError) -> WorkerRefusal {
    match error {
        WorkerError::Unknown(name) => WorkerRefusal::Unknown(name),
        WorkerError::WrongState { .. } => WorkerRefusal::WrongState(error.to_string()),
        WorkerError::Thread { .. } => WorkerRefusal::Failed(error.to_string()),
    }
}

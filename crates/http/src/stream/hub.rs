//! What the stream of one server consists of: the audience, who watches, the two tasks that follow the log.

use std::sync::Arc;

use farol_bus::{Bus, BusError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::rates::Rates;
use crate::settings::HttpSettings;
use crate::stream::audience::Audience;
use crate::stream::facts::{self, Facts};
use crate::stream::live::{Live, Watchers};
use crate::stream::place::FactTopics;

/// The stream of one server.
#[derive(Debug)]
pub struct Hub {
    pub(crate) audience: Arc<Audience>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) topics: FactTopics,
    sessions: Arc<Semaphore>,
    most_sessions: usize,
}

impl Hub {
    /// Starts following the log from its end.
    pub(crate) async fn start(
        bus: &Arc<dyn Bus>,
        settings: &HttpSettings,
        metrics: Arc<Metrics>,
        rates: Arc<Rates>,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, BusError> {
        let topics = FactTopics {
            alerts: Arc::clone(&settings.topics.alerts),
            system_events: Arc::clone(&settings.topics.system_events),
        };
        let audience = Arc::new(Audience::new(facts::end_of_facts(bus.as_ref(), &topics).await?));
        let watchers = Arc::new(Watchers::new());
        let facts = Facts {
            bus: Arc::clone(bus),
            topics: topics.clone(),
            audience: Arc::clone(&audience),
            rates,
            metrics: Arc::clone(&metrics),
        };
        tasks.spawn(facts.run(shutdown.clone()));
        let live = Live {
            bus: Arc::clone(bus),
            topic: Arc::clone(&settings.topics.sensor_data),
            audience: Arc::clone(&audience),
            watchers: Arc::clone(&watchers),
            metrics,
        };
        tasks.spawn(live.run(shutdown.clone()));
        let most_sessions = settings.limits.streams;
        Ok(Arc::new(Self {
            audience,
            watchers,
            topics,
            sessions: Arc::new(Semaphore::new(most_sessions)),
            most_sessions,
        }))
    }

    /// A place for one more client.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.sessions).try_acquire_owned().map_err(|_| {
            Problem::busy(format!(
                "{} event streams are open already; close one or try again later",
                self.most_sessions
            ))
        })
    }
}

//! Simulated services: real HTTP servers on loopback that fail and are slow as they are told, announce themselves to a
//! running Farol, and send their metrics.
//!
//! Each answers `/health` (right unless the service is down) and `/work` (which fails at the failure rate), both after the
//! simulated latency. Outages come from a seeded schedule, or by command: `PATCH /api/services/{id}/simulation` appends
//! `simulacao_alterada`, the simulators follow it on the live stream, obey, and answer with `simulacao_aplicada`.
//!
//! Modules, in reading order: [`behaviour`] (one service's decisions, pure), [`outages`] (when it is down by itself, pure),
//! `server` (the HTTP server), `report` (what Farol is told, and what it says).
//!
//! A name that somebody else has (a service that is not simulated, a simulator that still answers) is refused; what a killed
//! simulator left behind is taken over.
//!
//! Limits: [`MAX_SERVICES`] services, [`server::MAX_CONNECTIONS`] connections each. A Farol that goes away is waited for; what
//! could not be sent meanwhile is gone, as with the simulated sensors.

pub mod behaviour;
pub mod outages;
mod report;
pub mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use farol_event::service::SimulationApplied;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::{Answer, ClientError, ServerUrl};
use behaviour::SimulatedService;
use outages::OutageSchedule;

pub use hyper::Method;

/// The most services of one run.
pub const MAX_SERVICES: usize = 200;
/// How long the goodbye to Farol may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// Names of the services that are simulated when nobody names any.
const NAMES: [&str; 8] =
    ["payments", "inventory", "orders", "users", "search", "mailer", "gateway", "reports"];

/// What is simulated.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Names, each once.
    pub names: Vec<String>,
    /// How they begin.
    pub behaviour: SimulationApplied,
    /// The seed of everything that is random.
    pub seed: u64,
    /// Whether they have outages by themselves.
    pub outages: bool,
    /// The port of the first; the next ones follow. Free ones, without it.
    pub port_base: Option<u16>,
    /// How often Farol checks each.
    pub check_interval: Duration,
    /// How often metrics are sent.
    pub metrics_interval: Duration,
}

impl ServiceOptions {
    /// Services of these names that behave, without outages.
    pub fn new(names: Vec<String>, seed: u64) -> Self {
        Self {
            names,
            behaviour: SimulationApplied {
                failure_rate: 0.02,
                latency_ms: 100,
                latency_variation_ms: 30,
                down: false,
                until: None,
            },
            seed,
            outages: false,
            port_base: None,
            check_interval: Duration::from_secs(2),
            metrics_interval: Duration::from_secs(2),
        }
    }
}

/// The names of so many services.
pub fn service_names(count: usize) -> Vec<String> {
    let name = |index: usize| match NAMES.get(index) {
        Some(name) => (*name).to_owned(),
        None => format!("service-{}", index + 1),
    };
    (0..count).map(name).collect()
}

/// One request to a Farol, with a JSON body (none for a GET and a DELETE), on a connection of its own.
///
/// # Errors
/// See [`ClientError`].
pub async fn call(
    farol: &ServerUrl,
    method: Method,
    path: &str,
    body: &impl serde::Serialize,
) -> Result<Answer, ClientError> {
    report::call(farol, method, path, body).await
}

/// What an answer says about why it is none.
pub fn problem_of(answer: &Answer) -> String {
    crate::upload::problem_detail(&answer.body)
}

/// Why services can't be simulated.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// Too many, none, or one name twice.
    #[error("{0}")]
    Names(String),
    /// A port can't be had.
    #[error("can't listen on {at}: {source}")]
    Listen {
        /// Where.
        at: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Farol does not take a service.
    #[error("{0}")]
    Refused(String),
}

/// One simulated service that listens.
#[derive(Clone)]
pub struct Listening {
    /// Its name.
    pub name: Arc<str>,
    /// Where.
    pub address: SocketAddr,
    core: Arc<Mutex<SimulatedService>>,
}

/// Simulated services that listen.
pub struct ServiceSimulators {
    services: Vec<Listening>,
    options: ServiceOptions,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ServiceSimulators {
    /// Lets them listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`ServicesError`].
    pub async fn listen(options: ServiceOptions) -> Result<Self, ServicesError> {
        check_names(&options.names)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut services = Vec::with_capacity(options.names.len());
        let now = crate::now();
        for (index, name) in (0_u16..).zip(&options.names) {
            let port = options.port_base.map_or(0, |base| base.saturating_add(index));
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let failed = |source| ServicesError::Listen { at, source };
            let listener = TcpListener::bind(at).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            let seed = options.seed.wrapping_add(u64::from(index));
            let outages = options.outages.then(|| OutageSchedule::new(seed, now));
            let core = SimulatedService::new(options.behaviour.clone(), outages, seed, now);
            let core = Arc::new(Mutex::new(core));
            tasks.spawn(server::serve(listener, name.as_str().into(), Arc::clone(&core), stop.child_token()));
            services.push(Listening { name: name.as_str().into(), address, core });
        }
        Ok(Self { services, options, tasks, stop })
    }

    /// Where each listens.
    pub fn services(&self) -> &[Listening] {
        &self.services
    }

    /// Announces them to a Farol, reports and obeys until `shutdown`, then says goodbye.
    ///
    /// # Errors
    /// [`ServicesError::Refused`] when Farol does not take them. One that can't be reached is waited for.
    pub async fn run(self, farol: ServerUrl, shutdown: CancellationToken) -> Result<(), ServicesError> {
        let Self { services, options, tasks, stop } = self;
        let reporter = report::Reporter::new(farol, services, options);
        let outcome = reporter.run(&shutdown).await;
        if outcome.is_ok() && tokio::time::timeout(GOODBYE_LIMIT, reporter.goodbye()).await.is_err() {
            tracing::warn!("the simulated services' goodbye took too long");
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        outcome
    }
}

fn check_names(names: &[String]) -> Result<(), ServicesError> {
    if names.is_empty() || names.len() > MAX_SERVICES {
        return Err(ServicesError::Names(format!("there must be from 1 to {MAX_SERVICES} services")));
    }
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|other| other == name) {
            return Err(ServicesError::Names(format!("there are two services `{name}`")));
        }
    }
    Ok(())
}

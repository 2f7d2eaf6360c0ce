//! The workers of this process: members of the two consumer groups that run the detect processor, of readings and of services.
//!
//! Each worker is a thread of its own that drives its consumers on the shared runtime: evaluating a poll's readings takes
//! milliseconds, which would hold up an async thread. A worker that fails (the bus refuses, a partition is poisoned) is
//! started again after a growing pause ([`bus_retry`]); the error is logged and counted in its heartbeat.

use std::sync::Arc;
use std::time::Duration;

use farol_bus::{Bus, BusError};
use farol_resilience::retry::{Decision, Jitter};
use farol_resilience::{Registry, Retry};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::detect_worker::{DetectWorker, Member, Observer, WorkerDeps, WorkerNews, WorkerSettings};
use crate::intake::Intake;
use crate::outgoing;
use crate::rules::RulesHandle;
use crate::supervision::caught;
use crate::system_events::{SystemEvents, now};

/// The longest pause before a failed worker is started again. A run that lasted longer was healthy.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How often a worker may find that another one has its name and has thrown it out before it gives up, unless it was left alone for
/// [`UNDISTURBED`] in between.
const MAX_FENCED: u32 = 3;
/// After this long, whoever had the worker's name is gone.
const UNDISTURBED: Duration = Duration::from_secs(300);
/// How often a running worker looks whether the bus answers, and how long the bus may take. Single calls wait for longer, each for what it
/// is about; a worker whose bus is away should say so, and soon.
const CHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));

/// When somebody who lost the bus tries again: after half a second, doubling to ten seconds, half of that by chance so that workers don't
/// come back together, without end.
pub fn bus_retry() -> Retry {
    Retry::idempotent("bus")
        .max_tries(u32::MAX)
        .initial_delay(Duration::from_millis(500))
        .max_delay(MAX_PAUSE)
        .jitter(Jitter::Equal)
        .build()
}

/// Whether a worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// It is a member of the group, or becomes one.
    Running,
    /// It has been told to stop and has not left yet.
    Stopping,
    /// It has left the group.
    Stopped,
}

/// One worker as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerStatus {
    /// Its name, as shown among the consumers.
    pub consumer_id: String,
    /// Whether it runs.
    pub state: WorkerState,
}

/// Why a worker can't be started or stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// No worker of that name in this process.
    #[error("there is no worker `{0}` in this process")]
    Unknown(String),
    /// It is already on its way.
    #[error("worker `{name}` is {state}")]
    WrongState {
        /// Which worker.
        name: String,
        /// What it is doing.
        state: &'static str,
    },
    /// The operating system gave no thread.
    #[error("no thread for worker `{name}`: {problem}")]
    Thread {
        /// Which worker.
        name: String,
        /// What the operating system said.
        problem: String,
    },
}

struct Slot {
    name: String,
    state: watch::Sender<WorkerState>,
    stop: CancellationToken,
}

/// Starts, stops and lists the workers of this process.
pub struct Workers {
    deps: Arc<WorkerDeps>,
    runtime: tokio::runtime::Handle,
    slots: Mutex<Vec<Slot>>,
}

impl Workers {
    /// Starts one worker for each name.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start_all(deps: Arc<WorkerDeps>, names: &[String]) -> Result<Arc<Self>, WorkerError> {
        let slot = |name: &String| Slot {
            name: name.clone(),
            state: watch::Sender::new(WorkerState::Stopped),
            stop: CancellationToken::new(),
        };
        let workers = Arc::new(Self {
            deps,
            runtime: tokio::runtime::Handle::current(),
            slots: Mutex::new(names.iter().map(slot).collect()),
        });
        for name in names {
            workers.start(name)?;
        }
        Ok(workers)
    }

    /// Every worker, in the order of settings.
    pub fn list(&self) -> Vec<WorkerStatus> {
        let status =
            |slot: &Slot| WorkerStatus { consumer_id: slot.name.clone(), state: *slot.state.borrow() };
        self.slots.lock().iter().map(status).collect()
    }

    /// Starts a stopped worker.
    ///
    /// # Errors
    /// When there is no such worker, when it has not stopped, or when the operating system gives no thread.
    pub fn start(&self, name: &str) -> Result<(), WorkerError> {
        let mut slots = self.slots.lock();
        let slot = find(&mut slots, name)?;
        let current = *slot.state.borrow();
        if current != WorkerState::Stopped {
            return Err(wrong_state(name, current));
        }
        slot.stop = CancellationToken::new();
        let (deps, stop, state) = (Arc::clone(&self.deps), slot.stop.clone(), slot.state.clone());
        let (runtime, worker) = (self.runtime.clone(), name.to_owned());
        slot.state.send_replace(WorkerState::Running);
        let spawned = std::thread::Builder::new().name(worker.clone()).spawn(move || {
            // Whatever ends the thread, a panic included, the worker counts as stopped afterwards.
            let _stopped = StoppedOnDrop(state);
            if let Err(error) = runtime.block_on(run_until_stopped(&deps, &worker, &stop)) {
                tracing::error!(worker, %error, "worker has stopped: another one of the same name runs somewhere");
            }
        });
        if let Err(error) = spawned {
            slot.state.send_replace(WorkerState::Stopped);
            return Err(WorkerError::Thread { name: name.into(), problem: error.to_string() });
        }
        Ok(())
    }

    /// Tells a running worker to commit, leave its group and end. Returns at once; its partitions move when it has left.
    ///
    /// # Errors
    /// When there is no such worker, or when it isn't running.
    pub fn stop(&self, name: &str) -> Result<(), WorkerError> {
        let mut slots = self.slots.lock();
        let slot = find(&mut slots, name)?;
        let current = *slot.state.borrow();
        if current != WorkerState::Running {
            return Err(wrong_state(name, current));
        }
        slot.state.send_replace(WorkerState::Stopping);
        slot.stop.cancel();
        Ok(())
    }

    /// Stops every worker and waits until all have left. Cancel-safe; [`Workers::list`] tells who is late.
    pub async fn stop_all(&self) {
        let states: Vec<_> = {
            let slots = self.slots.lock();
            slots.iter().for_each(|slot| slot.stop.cancel());
            slots.iter().map(|slot| slot.state.subscribe()).collect()
        };
        for mut state in states {
            // An error would mean that the slot is gone, and with it the worker.
            let _ = state.wait_for(|s| *s == WorkerState::Stopped).await;
        }
    }
}

fn find<'a>(slots: &'a mut [Slot], name: &str) -> Result<&'a mut Slot, WorkerError> {
    slots.iter_mut().find(|slot| slot.name == name).ok_or_else(|| WorkerError::Unknown(name.into()))
}

fn wrong_state(name: &str, state: WorkerState) -> WorkerError {
    let state = match state {
        WorkerState::Running => "running",
        WorkerState::Stopping => "stopping",
        WorkerState::Stopped => "stopped",
    };
    WorkerError::WrongState { name: name.into(), state }
}

struct StoppedOnDrop(watch::Sender<WorkerState>);

impl Drop for StoppedOnDrop {
    fn drop(&mut self) {
        self.0.send_replace(WorkerState::Stopped);
    }
}

/// How a worker ended that was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopped {
    /// It has committed and left its groups.
    InOrder,
    /// It had failed, mostly because the bus was away, and could not commit. What it had not committed is evaluated again by whoever takes
    /// the partitions over, to the same result.
    Failing,
}

/// One worker, run by a process that has nothing else: no views, no store.
pub struct LoneWorker {
    /// Its name among the group's members; also what its transactions are known by, so no two may have the same.
    pub name: String,
    /// Where readings come from and alerts go to.
    pub bus: Arc<dyn Bus>,
    /// The rules in force.
    pub rules: Arc<RulesHandle>,
    /// How it behaves.
    pub settings: WorkerSettings,
    /// When it tries again after it lost the bus.
    pub retry: Retry,
    /// Who is told what happens to it.
    pub observer: Observer,
}

impl LoneWorker {
    /// Runs until told to stop, then commits and leaves its group. Whatever fails is tried again; how often, it tells as events, as the
    /// caller of its name.
    ///
    /// # Errors
    /// [`BusError::Fenced`] when somebody else uses its name; or that the bus gives no producer.
    pub async fn run(self, stop: &CancellationToken) -> Result<Stopped, BusError> {
        let events = SystemEvents::new(self.bus.as_ref()).await?;
        let policies = Registry::new();
        if let Err(error) = policies.register(self.retry.clone()) {
            tracing::warn!(%error, "how often the bus is tried again is not told");
        }
        let deps = WorkerDeps {
            events: events.clone(),
            bus: self.bus,
            rules: self.rules,
            settings: self.settings,
            started_at: now(),
            retry: self.retry,
            observer: self.observer,
        };
        let (caller, stop_telling) = (self.name.clone(), stop.child_token());
        let telling =
            tokio::spawn(async move { outgoing::publish(&caller, policies, events, stop_telling).await });
        let outcome = Box::pin(run_until_stopped(&Arc::new(deps), &self.name, stop)).await;
        // It may wait for a bus that is away.
        telling.abort();
        outcome
    }
}

/// A worker in both groups. If somebody else has its name in one of them, it gives up both.
async fn run_until_stopped(
    deps: &Arc<WorkerDeps>,
    name: &str,
    stop: &CancellationToken,
) -> Result<Stopped, BusError> {
    let both = stop.child_token();
    let member = async |intake| {
        let ended = run_member(deps, intake, name, &both).await;
        both.cancel();
        ended
    };
    let (readings, services) = tokio::join!(member(Intake::Readings), member(Intake::Services));
    Ok(readings?.max(services?))
}

async fn run_member(
    deps: &Arc<WorkerDeps>,
    intake: Intake,
    name: &str,
    stop: &CancellationToken,
) -> Result<Stopped, BusError> {
    let mut tries = deps.retry.tries();
    let (mut errors, mut fenced) = (0, 0);
    let mut stopped = Stopped::InOrder;
    while !stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        let worker = DetectWorker::new(Arc::clone(deps), intake, name, errors);
        let member = Member { worker: name, group: intake.group(&deps.settings) };
        let run = run_while_answered(deps.bus.as_ref(), worker, stop);
        let recovers = async {
            tokio::time::sleep(MAX_PAUSE).await;
            if errors > 0 {
                (deps.observer)(member, WorkerNews::Recovered);
            }
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = run => ended,
            never = recovers => never,
        };
        let pause = match ended {
            Ok(()) => return Ok(Stopped::InOrder),
            Err(BusError::Closed) if stop.is_cancelled() => return Ok(stopped),
            Err(error) => {
                (errors, stopped) = (errors + 1, Stopped::Failing);
                // A run that lasted was healthy: its failure is a new story.
                if began.elapsed() > MAX_PAUSE {
                    tries = deps.retry.tries();
                }
                if began.elapsed() > UNDISTURBED {
                    fenced = 0;
                }
                // It may also be a transaction that took too long, and two of the same name may have met only once.
                let group = intake.group(&deps.settings);
                if matches!(error, BusError::Fenced(_)) && is_taken(deps.bus.as_ref(), group, name).await {
                    fenced += 1;
                }
                if fenced >= MAX_FENCED {
                    return Err(error);
                }
                let Some(pause) = tries.decided(Decision::Retry, false) else { return Err(error) };
                (deps.observer)(member, WorkerNews::Failed { error: &error, retry_in: pause });
                pause
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(stopped)
}

/// Whether a member of the group has the name of a worker that has just left it.
async fn is_taken(bus: &dyn Bus, group: &str, name: &str) -> bool {
    let groups = bus.groups().await.unwrap_or_else(|error| {
        tracing::debug!(%error, group, "whether another worker has the name of this one is not known");
        Vec::new()
    });
    let members = groups.iter().filter(|described| described.group == group).flat_map(|group| &group.members);
    members.map(|member| &*member.client_id).any(|client_id| client_id == name)
}

/// One run, for as long as the bus answers. What a run leaves behind that ends in the middle of a call is settled by the next one: its
/// producer ends the last one's transaction, one way or the other, before it reads what was committed.
async fn run_while_answered(
    bus: &dyn Bus,
    worker: DetectWorker,
    stop: &CancellationToken,
) -> Result<(), BusError> {
    let answers = async || {
        tokio::select! {
            answered = bus.check(CHECK.1) => answered,
            () = stop.cancelled() => Ok(()),
        }
    };
    let lost = async {
        loop {
            tokio::time::sleep(CHECK.0).await;
            if let Err(lost) = bus.check(CHECK.1).await {
                return lost;
            }
        }
    };
    answers().await?;
    if stop.is_cancelled() {
        return Err(BusError::Closed);
    }
    let ended = tokio::select! {
        ended = caught(worker.run(stop)) => ended,
        lost = lost => return Err(lost),
    };
    // Which call notices first is chance. If nobody answers, that is what there is to say.
    if matches!(&ended, Err(BusError::Unavailable(_))) {
        answers().await?;
    }
    ended
}

//! The shell around the [`Book`]: it keeps the schedule, asks, and tells.
//!
//! Each check has a task of its own that asks, waits for the answer, and waits for its next turn: so a service that hangs
//! delays nobody's check but its own, and a check has at most one question under way. Turns lie on a grid of the check's
//! interval whose phase comes from its name, so that checks don't ask all at once, neither at the start nor later; a turn that
//! comes while the last question is still under way is left out. One task owns the book and takes commands, answers and time.
//!
//! Each question goes through policies of `farol-resilience`: a timeout around everything, a bulkhead for each service.
//!
//! Bounds: [`MAX_SERVICES`](crate::MAX_SERVICES) times [`MAX_CHECKS`] tasks; of one service at most
//! [`MAX_CALLS`] questions at a time. Whoever receives the findings holds everything up when he is slow: nothing is told out of
//! order, nothing is dropped.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use farol_resilience::pipeline::Stack;
use farol_resilience::{Bulkhead, Error, Pipeline, PolicyKind, Registry, Timeout};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::book::{Book, Command};
use crate::catalogue::{Catalogue, Entry};
use crate::definition::{CheckDefinition, MAX_CHECKS, MAX_TIMEOUT, ServiceDefinition};
use crate::id::{CheckName, ServiceId};
use crate::probe::{Failure, ProbeAnswer, Prober, Reach};
use crate::service::{Finding, FindingKind, Service};
use crate::target::Target;

/// How many questions to one service are under way at a time.
pub const MAX_CALLS: usize = 4;
/// The first questions after a start are spread over this time, or the check's interval if that is shorter.
pub const START_SPREAD: Duration = Duration::from_secs(5);
/// How many answers wait for their turn.
const ANSWERS: usize = 1024;
/// How many commands wait for their turn.
const COMMANDS: usize = 64;
/// How long at most nobody looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The wall clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a watch needs.
pub struct WatchDeps {
    /// Who asks.
    pub prober: Arc<dyn Prober>,
    /// What the time is.
    pub clock: Clock,
    /// Where others see what is watched.
    pub catalogue: Arc<Catalogue>,
    /// Where the policies of its calls are registered, `check:SERVICE` the bulkhead and `check:SERVICE/CHECK` the timeouts.
    pub policies: Registry,
    /// Where findings go, in the order in which they were made.
    pub findings: mpsc::Sender<Vec<Finding>>,
}

/// A running watch.
#[derive(Clone)]
pub struct Watch {
    commands: mpsc::Sender<Commands>,
}

/// Commands that are carried out together, and who is told how many of them did something.
type Commands = (Vec<Command>, oneshot::Sender<usize>);

/// The watch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nothing is watched any more: Farol is stopping")]
pub struct Ended;

/// An answer on its way to the book.
struct Answered {
    service: ServiceId,
    /// Of which definition of the service: an answer to an older one's question says nothing about this one.
    generation: u64,
    check: CheckName,
    answer: ProbeAnswer,
}

impl Watch {
    /// Starts watching nothing yet. Its tasks end with `stop`.
    pub fn start(deps: WatchDeps, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let (commands, received) = mpsc::channel(COMMANDS);
        let (answers, answered) = mpsc::channel(ANSWERS);
        let watcher = Watcher {
            deps,
            book: Book::default(),
            asked: HashMap::new(),
            generation: 0,
            answers,
            tasks: tasks.clone(),
            stop,
        };
        tasks.spawn(watcher.run(received, answered));
        Self { commands }
    }

    /// Carries a command out and returns when the catalogue shows it; whether it did anything.
    ///
    /// # Errors
    /// When the watch has ended.
    pub async fn apply(&self, command: Command) -> Result<bool, Ended> {
        self.apply_all(vec![command]).await.map(|did| did > 0)
    }

    /// Carries several out, in order and before any check asks because of them: so an outage that a restart found is known before
    /// the first answer. How many of them did something.
    ///
    /// # Errors
    /// When the watch has ended.
    pub async fn apply_all(&self, commands: Vec<Command>) -> Result<usize, Ended> {
        let (done, carried_out) = oneshot::channel();
        self.commands.send((commands, done)).await.map_err(|_| Ended)?;
        carried_out.await.map_err(|_| Ended)
    }
}

struct Watcher {
    deps: WatchDeps,
    book: Book,
    asked: HashMap<ServiceId, Asked>,
    generation: u64,
    answers: mpsc::Sender<Answered>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The tasks that ask one service.
struct Asked {
    definition: Arc<ServiceDefinition>,
    reach: Reach,
    generation: u64,
    _stop: DropGuard,
    _policies: Registered,
}

/// The policies of one service's checks, registered for as long as it is asked like this.
struct Registered {
    registry: Registry,
    names: Vec<(PolicyKind, String)>,
}

impl Registered {
    fn add(&mut self, kind: PolicyKind, name: String, policy: impl farol_resilience::Policy) {
        match self.registry.register(policy) {
            Ok(()) => self.names.push((kind, name)),
            // It works all the same; it is only not seen.
            Err(error) => tracing::warn!(%name, %error, "a policy of a check is not shown"),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        for (kind, name) in &self.names {
            self.registry.remove(*kind, name);
        }
    }
}

impl Watcher {
    async fn run(mut self, mut commands: mpsc::Receiver<Commands>, mut answers: mpsc::Receiver<Answered>) {
        let stop = self.stop.clone();
        loop {
            let mut findings = Vec::new();
            let sleep = self.until_deadline();
            let mut carried_out = None;
            tokio::select! {
                () = stop.cancelled() => return,
                command = commands.recv() => match command {
                    Some((commands, done)) => carried_out = Some((self.apply(commands, &mut findings), done)),
                    None => return,
                },
                Some(answered) = answers.recv() => self.take(&answered, &mut findings),
                () = tokio::time::sleep(sleep) => {}
            }
            self.book.tick((self.deps.clock)(), &mut findings);
            self.show_ended_maintenance(&findings);
            if !findings.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    sent = self.deps.findings.send(findings) => if sent.is_err() { return },
                }
            }
            if let Some((did, done)) = carried_out {
                // Whoever asked may have gone.
                let _ = done.send(did);
            }
        }
    }

    fn until_deadline(&self) -> Duration {
        let now = (self.deps.clock)();
        self.book.next_deadline().map_or(LONGEST_SLEEP, |deadline| deadline.since(now)).min(LONGEST_SLEEP)
    }

    /// How many of the commands did something.
    fn apply(&mut self, commands: Vec<Command>, findings: &mut Vec<Finding>) -> usize {
        let now = (self.deps.clock)();
        let touched: BTreeSet<ServiceId> = commands.iter().map(|command| command.service().clone()).collect();
        let mut did = 0;
        for command in commands {
            did += usize::from(self.book.apply(command, now, findings));
        }
        for id in &touched {
            self.show(id);
            self.ask(id);
        }
        did
    }

    /// Lets a service be asked as its definition says.
    fn ask(&mut self, id: &ServiceId) {
        let Some(service) = self.book.get(id) else {
            self.asked.remove(id);
            return;
        };
        let (definition, reach) = (service.definition().clone(), self.deps.catalogue.reach(service.origin()));
        if self.asked.get(id).is_some_and(|asked| asked.definition == definition && asked.reach == reach) {
            return;
        }
        // The policies of the old definition give their names back.
        self.asked.remove(id);
        self.generation += 1;
        let stop = self.stop.child_token();
        let mut policies = Registered { registry: self.deps.policies.clone(), names: Vec::new() };
        let name = format!("check:{id}");
        // Who waits for a place is bounded by the check's own timeout, which stands around the bulkhead.
        let bulkhead = Bulkhead::builder(name.as_str())
            .max_concurrent(MAX_CALLS)
            .max_waiting(MAX_CHECKS)
            .max_wait(MAX_TIMEOUT)
            .build();
        policies.add(PolicyKind::Bulkhead, name, bulkhead.clone());
        for check in &definition.checks {
            if matches!(check.target, Target::Heartbeat) {
                continue;
            }
            let name = format!("check:{id}/{}", check.name);
            let timeout = Timeout::new(name.as_str(), check.timeout);
            policies.add(PolicyKind::Timeout, name, timeout.clone());
            let calls = Pipeline::outermost(timeout).then(bulkhead.clone());
            let task = CheckTask {
                service: id.clone(),
                generation: self.generation,
                check: check.clone(),
                reach,
                prober: Arc::clone(&self.deps.prober),
                calls,
                answers: self.answers.clone(),
            };
            let stop = stop.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = task.run() => {}
                }
            });
        }
        let asked = Asked {
            definition,
            reach,
            generation: self.generation,
            _stop: stop.drop_guard(),
            _policies: policies,
        };
        self.asked.insert(id.clone(), asked);
    }

    fn take(&mut self, answered: &Answered, findings: &mut Vec<Finding>) {
        let Answered { service, generation, check, answer } = answered;
        if self.asked.get(service).is_some_and(|asked| asked.generation == *generation) {
            let now = (self.deps.clock)();
            self.book.observe(service, check, answer, now, findings);
            self.deps.catalogue.set_checked(service, now);
        }
    }

    /// Has the catalogue show a service as the book has it.
    fn show(&self, id: &ServiceId) {
        let watched = self.book.get(id).map(entry);
        let unwatched = if watched.is_some() { None } else { self.book.maintenance(id).cloned() };
        self.deps.catalogue.set(id, watched);
        self.deps.catalogue.set_unwatched(id, unwatched);
    }

    fn show_ended_maintenance(&self, findings: &[Finding]) {
        for finding in findings.iter().filter(|finding| finding.kind == FindingKind::MaintenanceEnded) {
            self.show(&finding.service);
        }
    }
}

fn entry(service: &Service) -> Entry {
    Entry {
        definition: Arc::clone(service.definition()),
        origin: service.origin(),
        maintenance: service.maintenance().cloned(),
        listens: service.listens(),
        results: service.results(),
    }
}

/// One check's turns.
struct CheckTask {
    service: ServiceId,
    generation: u64,
    check: CheckDefinition,
    reach: Reach,
    prober: Arc<dyn Prober>,
    calls: Pipeline<Stack<Timeout, Bulkhead>>,
    answers: mpsc::Sender<Answered>,
}

impl CheckTask {
    async fn run(self) {
        let interval = self.check.interval;
        let mut turn = Instant::now() + phase(&self.service, &self.check.name, interval.min(START_SPREAD));
        loop {
            tokio::time::sleep_until(turn).await;
            if let Some(answer) = self.ask().await {
                let answered = Answered {
                    service: self.service.clone(),
                    generation: self.generation,
                    check: self.check.name.clone(),
                    answer,
                };
                if self.answers.send(answered).await.is_err() {
                    return;
                }
            }
            turn = next_turn(turn, interval, Instant::now());
        }
    }

    /// The answer; none if the question was not asked, which says nothing about the service.
    async fn ask(&self) -> Option<ProbeAnswer> {
        let asking =
            || async { Ok::<_, Infallible>(self.prober.probe(&self.check.target, self.reach).await) };
        match self.calls.call_once(asking).await {
            Ok(answer) => Some(answer),
            Err(Error::TimedOut { after, .. }) => Some(ProbeAnswer::none(Failure::TimedOut(after))),
            Err(refused) => {
                tracing::debug!(service = %self.service, check = %self.check.name, %refused, "a check was not asked");
                None
            }
        }
    }
}

/// Where within `spread` a check's first turn lies: always the same for the same names, and anywhere for different ones.
fn phase(service: &ServiceId, check: &CheckName, spread: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (service.as_str(), check.as_str()).hash(&mut hasher);
    let micros = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(hasher.finish() % micros)
}

/// The next turn on the grid that is still to come.
fn next_turn(turn: Instant, interval: Duration, now: Instant) -> Instant {
    let late = now.saturating_duration_since(turn);
    let turns = late.as_micros() / interval.as_micros().max(1) + 1;
    turn + interval.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_stay_on_the_grid_and_missed_ones_are_left_out() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        for (late_ms, expected_s) in [(0, 1), (200, 1), (999, 1), (1000, 2), (3500, 4)] {
            let next = next_turn(start, second, start + Duration::from_millis(late_ms));
            assert_eq!(next - start, second * expected_s, "{late_ms} ms late");
        }
    }

    #[test]
    fn first_turns_are_spread_over_the_time_that_is_given() {
        let check: CheckName = "http".parse().unwrap();
        let spread = Duration::from_secs(5);
        let mut tenths = [0_u32; 10];
        for number in 0..1000 {
            let service: ServiceId = format!("service-{number}").parse().unwrap();
            let phase = phase(&service, &check, spread);
            assert!(phase < spread);
            tenths[usize::try_from(phase.as_millis() / 500).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (50..=200).contains(count)), "{tenths:?}");
    }
}

//! One simulated service: what it answers, what it measures, what a command changes. A function of (state, input, now).
//!
//! A command without an end replaces what it names until the next one; with an end, everything is then as the simulation
//! began. A command about `down` goes before the schedule of outages, in both directions.

use std::time::Duration;

use farol_event::Timestamp;
use farol_event::service::{Metric, SimulationApplied, SimulationChanged, names};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::outages::OutageSchedule;

/// Requests a second of the made-up users.
const USUAL_REQUESTS: std::ops::Range<f64> = 20.0..80.0;
/// Memory that it has in use, in percent.
const USUAL_MEMORY: std::ops::Range<f64> = 30.0..60.0;
/// Memory of a made-up machine.
const MEMORY_BYTES: f64 = 2.0 * 1024.0 * 1024.0 * 1024.0;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Whether it is there.
    Health,
    /// Some work.
    Work,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// After which time.
    pub latency: Duration,
}

/// A simulated service with everything it remembers.
#[derive(Debug)]
pub struct SimulatedService {
    began: SimulationApplied,
    now_applied: SimulationApplied,
    /// What was commanded about `down`; the schedule decides without.
    commanded_down: Option<bool>,
    outages: Option<OutageSchedule>,
    rng: SmallRng,
    started: Timestamp,
    usual_requests: f64,
    usual_memory: f64,
    /// Since the last metrics.
    served: Served,
}

#[derive(Debug, Clone, Copy)]
struct Served {
    since: Timestamp,
    requests: u32,
    failed: u32,
    latency: Duration,
}

impl Served {
    fn new(since: Timestamp) -> Self {
        Self { since, requests: 0, failed: 0, latency: Duration::ZERO }
    }
}

impl SimulatedService {
    /// A service that starts now.
    pub fn new(
        behaviour: SimulationApplied,
        outages: Option<OutageSchedule>,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let (usual_requests, usual_memory) =
            (rng.random_range(USUAL_REQUESTS), rng.random_range(USUAL_MEMORY));
        Self {
            began: behaviour.clone(),
            now_applied: behaviour,
            commanded_down: None,
            outages,
            rng,
            started: now,
            usual_requests,
            usual_memory,
            served: Served::new(now),
        }
    }

    /// Whether it is down.
    pub fn is_down(&mut self, now: Timestamp) -> bool {
        let by_schedule = self.outages.as_mut().is_some_and(|outages| outages.is_out(now));
        self.commanded_down.unwrap_or(self.now_applied.down || by_schedule)
    }

    /// How it behaves.
    pub fn applied(&mut self, now: Timestamp) -> SimulationApplied {
        SimulationApplied { down: self.is_down(now), ..self.now_applied.clone() }
    }

    /// Answers a question.
    pub fn respond(&mut self, question: Question, now: Timestamp) -> Response {
        let down = self.is_down(now);
        let fails = match question {
            Question::Health => false,
            Question::Work => self.rng.random_bool(self.now_applied.failure_rate.clamp(0.0, 1.0)),
        };
        let status = match (down, fails) {
            (true, _) => 503,
            (false, true) => 500,
            (false, false) => 200,
        };
        // Who is down says so at once.
        let latency = if down { Duration::ZERO } else { self.latency() };
        if question == Question::Work {
            self.served.requests = self.served.requests.saturating_add(1);
            self.served.failed = self.served.failed.saturating_add(u32::from(status != 200));
            self.served.latency = self.served.latency.saturating_add(latency);
        }
        Response { status, latency }
    }

    fn latency(&mut self) -> Duration {
        let SimulationApplied { latency_ms, latency_variation_ms, .. } = self.now_applied;
        let variation = latency_variation_ms.min(latency_ms);
        let ms = self.rng.random_range(latency_ms - variation..=latency_ms.saturating_add(variation));
        Duration::from_millis(ms)
    }

    /// Obeys a command; what is in force then.
    pub fn command(&mut self, change: &SimulationChanged, now: Timestamp) -> SimulationApplied {
        let applied = &mut self.now_applied;
        applied.failure_rate = change.failure_rate.unwrap_or(applied.failure_rate);
        applied.latency_ms = change.latency_ms.unwrap_or(applied.latency_ms);
        applied.latency_variation_ms = change.latency_variation_ms.unwrap_or(applied.latency_variation_ms);
        applied.until = change.until;
        self.commanded_down = change.down.or(self.commanded_down);
        // A command whose time is up already is over.
        self.tick(now);
        self.applied(now)
    }

    /// What time alone brings: the end of a command. What is in force then, if it changed.
    pub fn tick(&mut self, now: Timestamp) -> Option<SimulationApplied> {
        if self.now_applied.until.is_none_or(|until| until > now) {
            return None;
        }
        self.now_applied = self.began.clone();
        self.commanded_down = None;
        Some(self.applied(now))
    }

    /// What it measured since the last time.
    pub fn metrics(&mut self, now: Timestamp) -> Vec<Metric> {
        let down = self.is_down(now);
        let served = std::mem::replace(&mut self.served, Served::new(now));
        let seconds = now.since(served.since).as_secs_f64().max(0.001);
        // The made-up users ask beside the real ones, and leave while it is down.
        let users = if down { 0.0 } else { self.usual_requests * self.rng.random_range(0.8..1.2) };
        let asked = users * seconds + f64::from(served.requests);
        let failure_rate = (self.now_applied.failure_rate * self.rng.random_range(0.8..1.2)).clamp(0.0, 1.0);
        let failed = users * seconds * failure_rate + f64::from(served.failed);
        let error_rate = if asked > 0.0 { failed / asked * 100.0 } else { 0.0 };
        let latency = if served.requests > 0 {
            served.latency.as_secs_f64() * 1000.0 / f64::from(served.requests)
        } else {
            self.latency().as_secs_f64() * 1000.0
        };
        let requests = asked / seconds;
        let cpu =
            if down { 1.0 } else { (10.0 + requests * 0.6 + self.rng.random_range(0.0..8.0)).min(100.0) };
        let memory = (self.usual_memory + self.rng.random_range(-2.0..2.0)).clamp(0.0, 100.0);
        let mut metrics = vec![
            Metric::new(names::CPU_PERCENT, tenths(cpu), "%"),
            Metric::new(names::MEMORY_PERCENT, tenths(memory), "%"),
            Metric::new(names::MEMORY_BYTES, (MEMORY_BYTES * memory / 100.0).round(), "B"),
            Metric::new(names::REQUESTS_PER_SECOND, tenths(requests), "1/s"),
            Metric::new(names::ERROR_RATE_PERCENT, tenths(error_rate), "%"),
            Metric::new(names::UPTIME_SECONDS, now.since(self.started).as_secs_f64().round(), "s"),
        ];
        if !down {
            metrics.push(Metric::new(names::RESPONSE_TIME_MS, tenths(latency), "ms"));
        }
        metrics
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis_clamped(seconds * 1000)
    }

    fn service() -> SimulatedService {
        let behaviour = SimulationApplied {
            failure_rate: 0.25,
            latency_ms: 100,
            latency_variation_ms: 30,
            down: false,
            until: None,
        };
        SimulatedService::new(behaviour, None, 42, at(0))
    }

    #[test]
    fn work_fails_at_the_failure_rate_and_health_does_not() {
        let mut service = service();
        let failed = (0..10_000).filter(|_| service.respond(Question::Work, at(1)).status == 500).count();
        assert!((2300..2700).contains(&failed), "{failed} of 10000 at a rate of 0.25");
        assert!((0..1000).all(|_| service.respond(Question::Health, at(1)).status == 200));
    }

    #[test]
    fn latency_stays_within_its_variation() {
        let mut service = service();
        let latencies: Vec<_> =
            (0..1000).map(|_| service.respond(Question::Work, at(1)).latency.as_millis()).collect();
        assert!(latencies.iter().all(|ms| (70..=130).contains(ms)));
        assert!(latencies.iter().any(|ms| *ms < 85) && latencies.iter().any(|ms| *ms > 115));
    }

    #[test]
    fn a_command_holds_until_its_end_and_then_everything_is_as_it_began() {
        let mut service = service();
        let change = SimulationChanged {
            failure_rate: Some(1.0),
            latency_ms: Some(5),
            down: Some(true),
            until: Some(at(30)),
            ..SimulationChanged::default()
        };
        let applied = service.command(&change, at(10));
        assert_eq!((applied.failure_rate, applied.latency_ms, applied.down), (1.0, 5, true));
        assert_eq!(
            service.respond(Question::Health, at(20)),
            Response { status: 503, latency: Duration::ZERO }
        );
        assert_eq!(service.tick(at(29)), None);
        let after = service.tick(at(30)).expect("its time is up");
        assert_eq!((after.failure_rate, after.latency_ms, after.down, after.until), (0.25, 100, false, None));
        assert_eq!(service.respond(Question::Health, at(31)).status, 200);
        assert_eq!(service.tick(at(99)), None);
    }

    #[test]
    fn a_command_goes_before_the_schedule() {
        let schedule = OutageSchedule::new(3, at(0));
        let (from, _) = schedule.outage();
        let mut service = SimulatedService::new(service().began, Some(schedule), 3, at(0));
        assert!(service.is_down(from));
        let up = SimulationChanged { down: Some(false), ..SimulationChanged::default() };
        assert!(!service.command(&up, from).down);
    }

    #[test]
    fn metrics_tell_of_what_was_served() {
        let mut service = service();
        service.began.failure_rate = 0.0;
        let down = SimulationChanged { down: Some(true), ..SimulationChanged::default() };
        service.command(&down, at(0));
        for _ in 0..20 {
            service.respond(Question::Work, at(1));
        }
        let metrics = service.metrics(at(2));
        let value = |name: &str| metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value);
        assert_eq!(value(names::REQUESTS_PER_SECOND), Some(10.0));
        assert_eq!(value(names::ERROR_RATE_PERCENT), Some(100.0));
        assert_eq!(value(names::UPTIME_SECONDS), Some(2.0));
        assert_eq!(value(names::RESPONSE_TIME_MS), None, "nothing was answered");
        assert!(service.metrics(at(4)).iter().all(|metric| metric.value.is_finite()));
    }
}

//! Attempts at telling one receiver one thing, until it is delivered or given up; each one recorded as an event.
//!
//! All that guards the calls to a receiver is its [`Line`]: places for notifications on their way, retries, and around each attempt a
//! circuit breaker and a time limit. While the breaker is open nobody tries: a rejected attempt is no attempt, it waits until the
//! breaker lets a probe through, for as long as the retry schedule lasts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use farol_alert::group::Ended;
use farol_alert::notification::{ToldTransition, Verdict};
use farol_alert::{Attempt, DeliveryRecord, classify};
use farol_event::EventType;
use farol_resilience::classify::FailureIf;
use farol_resilience::pipeline::Stack;
use farol_resilience::retry::{Backoff, Decision, Jitter, Schedule, Tries};
use farol_resilience::{Bulkhead, CircuitBreaker, Error, Pipeline, Retry, Timeout, bulkhead};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{NotifierDeps, ReceiverSettingsError};
use crate::system_events::SystemEvents;

/// How many notifications one receiver has on their way at a time.
const MAX_ON_THEIR_WAY: usize = 8;
/// How many wait for that.
pub(super) const MAX_WAITING: usize = 1000;
/// How long it is waited for before it is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long a receiver's breaker stays open after five failures in a row.
const OPEN_FOR: Duration = Duration::from_secs(15);
/// How long a receiver is tried for.
const MAX_ELAPSED: Duration = Duration::from_secs(3600);

/// When a receiver is tried again: after a random part of a second, doubling to five minutes, so many attempts within an hour. A receiver
/// that asks to be left alone for longer than that is not asked again.
pub fn retry_schedule(attempts: u32) -> Schedule {
    Schedule {
        backoff: Backoff {
            initial: Duration::from_secs(1),
            multiplier: 2.0,
            max: Duration::from_secs(300),
            jitter: Jitter::Full,
        },
        max_tries: attempts,
        max_elapsed: Some(MAX_ELAPSED),
        max_server_delay: MAX_ELAPSED,
    }
}

type Fails = FailureIf<fn(&Result<Attempt, Infallible>) -> bool>;

/// The way to one receiver: the policies of its calls, and who is told of each attempt.
#[derive(Clone)]
pub(super) struct Line {
    name: Arc<str>,
    places: Bulkhead,
    retry: Retry,
    calls: Pipeline<Stack<CircuitBreaker<Fails>, Timeout>>,
    events: SystemEvents,
}

/// Makes one attempt.
pub(super) type TryOnce<'a> = dyn Fn() -> BoxFuture<'a, Attempt> + Send + Sync + 'a;

/// What is told, and where.
pub(super) struct Telling<'a> {
    /// The source of the events that record it: the series, or the receiver for several.
    pub(super) source: &'a str,
    /// The target in words, without secrets.
    pub(super) target: &'a str,
    /// The transitions that are told; the first one names the record.
    pub(super) told: &'a [ToldTransition],
}

impl Line {
    /// A line of the receiver `name`, an attempt taking `timeout` at most. Its policies are registered among the outgoing ones, the breaker
    /// as `notify-` and `guarded` (the receiver, or the one of its recipients that the line leads to), the others by that name and
    /// what they are.
    pub(super) fn new(
        name: &str,
        guarded: &str,
        timeout: Duration,
        schedule: Schedule,
        deps: &NotifierDeps<'_>,
    ) -> Result<Self, ReceiverSettingsError> {
        let refuse = |problem: String| ReceiverSettingsError::new(name, problem);
        let policy = format!("notify-{guarded}");
        let breaker = CircuitBreaker::builder(policy.as_str())
            .open_for(OPEN_FOR)
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        let timeout = Timeout::new(format!("{policy}:timeout"), timeout);
        // Whoever is told twice can tell by the key of the request, or by the id of the message.
        let retry = Retry::idempotent(format!("{policy}:retry")).schedule(schedule).build();
        let places = Bulkhead::builder(format!("{policy}:bulkhead"))
            .max_concurrent(MAX_ON_THEIR_WAY)
            .max_waiting(MAX_WAITING)
            .max_wait(LONGEST_WAIT)
            .build();
        let shown = |registered: Result<(), farol_resilience::registry::RegisterError>| {
            registered.map_err(|error| refuse(error.to_string()))
        };
        shown(deps.outgoing.register(breaker.clone()))?;
        shown(deps.outgoing.register(timeout.clone()))?;
        shown(deps.outgoing.register(retry.clone()))?;
        shown(deps.outgoing.register(places.clone()))?;
        let calls = Pipeline::outermost(breaker.classify(FailureIf(fails as fn(&_) -> _))).then(timeout);
        Ok(Self { name: name.into(), places, retry, calls, events: deps.events.clone() })
    }

    /// The receiver's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many notifications more may be on their way.
    pub(super) fn room(&self) -> usize {
        self.places.available()
    }

    /// A place for a notification on its way, if there is one.
    pub(super) fn try_place(&self) -> Option<bulkhead::Permit> {
        self.places.try_acquire().ok()
    }

    /// The same; waits until there is one. At most [`MAX_WAITING`] may.
    async fn place(&self) -> bulkhead::Permit {
        loop {
            match self.places.acquire().await {
                Ok(place) => return place,
                Err(late) => {
                    tracing::warn!(receiver = &*self.name, %late, "notifications wait for their turn")
                }
            }
        }
    }

    /// Tries until delivered or given up. The caller holds a place.
    pub(super) async fn tell(&self, telling: &Telling<'_>, attempt: &TryOnce<'_>) -> Ended {
        self.tell_until_ended(telling, attempt, false).await
    }

    /// The same with a place for each attempt: what waits to be tried again holds up nothing else.
    pub(super) async fn tell_in_turn(&self, telling: &Telling<'_>, attempt: &TryOnce<'_>) -> Ended {
        self.tell_until_ended(telling, attempt, true).await
    }

    async fn tell_until_ended(&self, telling: &Telling<'_>, attempt: &TryOnce<'_>, in_turn: bool) -> Ended {
        let mut tries = self.retry.tries();
        loop {
            let place = if in_turn { Some(self.place().await) } else { None };
            let came_to = self.once(attempt).await;
            drop(place);
            let delay = delay(&mut tries, &came_to);
            if delay.is_none() || !matches!(came_to, Attempt::Rejected { .. }) {
                self.record(telling, tries.made(), &came_to, delay.is_some()).await;
            }
            match (delay, classify(&came_to)) {
                (Some(delay), _) => tokio::time::sleep(delay).await,
                (None, Verdict::Delivered) => return Ended::Delivered,
                (None, Verdict::Retry { .. }) => return Ended::GaveUp,
                (None, Verdict::GiveUp) => return Ended::Refused,
            }
        }
    }

    /// One attempt, unless the breaker is open.
    async fn once(&self, attempt: &TryOnce<'_>) -> Attempt {
        match self.calls.call_once(|| attempt().map(Ok::<_, Infallible>)).await {
            Ok(attempt) => attempt,
            Err(Error::TimedOut { .. }) => Attempt::TimedOut,
            Err(rejected) => Attempt::Rejected { retry_after: rejected.retry_after() },
        }
    }

    async fn record(&self, telling: &Telling<'_>, tries: u32, came_to: &Attempt, again: bool) {
        let Some((first, others)) = telling.told.split_first() else { return };
        let record = DeliveryRecord::new(*first, others, (&self.name, telling.target), tries, came_to, again);
        self.events.announce(EventType::NOTIFICATION_ATTEMPTED, telling.source, &record).await;
    }
}

/// What the breaker counts as a failure of the receiver: what may pass. A refusal is an answer.
fn fails(result: &Result<Attempt, Infallible>) -> bool {
    match result {
        Ok(attempt) => matches!(classify(attempt), Verdict::Retry { .. }),
        Err(never) => match *never {},
    }
}

/// How long to wait after this attempt, or nothing if it was the last.
fn delay(tries: &mut Tries, came_to: &Attempt) -> Option<Duration> {
    match (classify(came_to), came_to) {
        (_, Attempt::Rejected { retry_after }) => tries.refused(*retry_after),
        (Verdict::Retry { not_before: Some(asked) }, _) => tries.decided(Decision::RetryAfter(asked), false),
        (Verdict::Retry { not_before: None }, _) => tries.decided(Decision::Retry, false),
        (Verdict::Delivered, _) => tries.decided(Decision::Done, true),
        (Verdict::GiveUp, _) => tries.decided(Decision::Done, false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use farol_resilience::{ManualClock, SplitMix64};

    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn delays_double_up_to_a_bound_and_end_after_the_attempts() {
        let mut schedule = retry_schedule(12);
        schedule.backoff.jitter = Jitter::None;
        let retry = Retry::idempotent("ops").schedule(schedule).clock(ManualClock::new().shared()).build();
        let mut tries = retry.tries();
        let delays: Vec<_> = (0..12).map(|_| delay(&mut tries, &Attempt::TimedOut)).collect();
        let expected = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(|seconds| Some(secs(seconds)));
        assert_eq!(delays, [expected.as_slice(), &[None]].concat());
    }

    #[test]
    fn what_a_receiver_asks_for_is_kept_but_not_beyond_the_end() {
        let clock = ManualClock::new();
        let random = SplitMix64::seeded(7).shared();
        let retry = Retry::idempotent("ops")
            .schedule(retry_schedule(12))
            .clock(clock.shared())
            .random(random)
            .build();
        let asks = |seconds| Attempt::Answered { status: 429, retry_after: Some(secs(seconds)) };
        let mut tries = retry.tries();
        let kept = delay(&mut tries, &asks(100)).unwrap();
        assert!((secs(100)..=secs(110)).contains(&kept), "{kept:?}");
        let open = Attempt::Rejected { retry_after: Some(secs(15)) };
        assert!(delay(&mut tries, &open).unwrap() >= secs(15));
        assert_eq!(tries.made(), 1, "a rejection is no attempt");
        clock.advance(secs(3590));
        assert_eq!(delay(&mut tries, &open), None, "it would be asked after the end");
        let mut tries = retry.tries();
        assert_eq!(delay(&mut tries, &asks(4000)), None);
    }
}

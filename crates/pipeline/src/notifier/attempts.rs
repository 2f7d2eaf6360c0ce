//! Attempts at telling one receiver one thing, until it is delivered or given up; each one recorded as an event.
//!
//! A receiver's attempts pass its circuit breaker. While that is open nobody tries: a rejected attempt is no attempt, it waits until the
//! breaker lets a probe through, for as long as the retry schedule lasts.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use farol_alert::group::Ended;
use farol_alert::notification::{ToldTransition, Verdict};
use farol_alert::{Attempt, DeliveryRecord, RetrySchedule, classify};
use farol_event::EventType;
use farol_resilience::CircuitBreaker;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{NotifierDeps, ReceiverSettingsError};
use crate::system_events::SystemEvents;

/// How long a receiver's breaker stays open after five failures in a row.
const OPEN_FOR: Duration = Duration::from_secs(15);
/// How often the same rejection is looked at again at least, when the breaker doesn't say when it lets somebody through.
const REJECTED_PAUSE: Duration = Duration::from_secs(1);

/// The way to one receiver: its breaker, its retries, and who is told of each attempt.
#[derive(Clone)]
pub(super) struct Line {
    name: Arc<str>,
    breaker: CircuitBreaker,
    retry: RetrySchedule,
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
    /// A line of the receiver `name` with a breaker of its own, registered among the outgoing policies as `notify-` and `guarded`: the
    /// receiver, or the one of its recipients that the line leads to.
    pub(super) fn new(
        name: &str,
        guarded: &str,
        retry: RetrySchedule,
        deps: &NotifierDeps<'_>,
    ) -> Result<Self, ReceiverSettingsError> {
        let refuse = |problem: String| ReceiverSettingsError::new(name, problem);
        let breaker = CircuitBreaker::builder(format!("notify-{guarded}"))
            .open_for(OPEN_FOR)
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        deps.outgoing.register(breaker.clone()).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { name: name.into(), breaker, retry, events: deps.events.clone() })
    }

    /// The receiver's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tries until delivered or given up.
    pub(super) async fn tell(&self, telling: &Telling<'_>, attempt: &TryOnce<'_>) -> Ended {
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let came_to = self.once(attempt).await;
            let rejected = matches!(came_to, Attempt::Rejected { .. });
            tries += u32::from(!rejected);
            let verdict = classify(&came_to);
            let delay = match verdict {
                // The schedule counts attempts; a rejection is none, and only the time runs out.
                Verdict::Retry { not_before } if rejected => {
                    let pause = not_before.max(REJECTED_PAUSE);
                    (began.elapsed() + pause <= self.retry.max_elapsed).then_some(pause)
                }
                Verdict::Retry { not_before } => {
                    self.retry.delay(tries, began.elapsed(), not_before, rand::random())
                }
                Verdict::Delivered | Verdict::GiveUp => None,
            };
            if !rejected || delay.is_none() {
                self.record(telling, tries, &came_to, delay.is_some()).await;
            }
            match (delay, verdict) {
                (Some(delay), _) => tokio::time::sleep(delay).await,
                (None, Verdict::Delivered) => return Ended::Delivered,
                (None, Verdict::Retry { .. }) => return Ended::GaveUp,
                (None, Verdict::GiveUp) => return Ended::Refused,
            }
        }
    }

    /// One attempt, unless the breaker is open.
    async fn once(&self, attempt: &TryOnce<'_>) -> Attempt {
        let fails = |result: &Result<Attempt, Infallible>| match result {
            Ok(attempt) => matches!(classify(attempt), Verdict::Retry { .. }),
            Err(never) => match *never {},
        };
        let breaker = self.breaker.clone().failure_if(fails);
        match breaker.call(|| attempt().map(Ok)).await {
            Ok(attempt) => attempt,
            Err(rejected) => Attempt::Rejected { retry_after: rejected.retry_after() },
        }
    }

    async fn record(&self, telling: &Telling<'_>, tries: u32, came_to: &Attempt, again: bool) {
        let Some((first, others)) = telling.told.split_first() else { return };
        let record = DeliveryRecord::new(*first, others, (&self.name, telling.target), tries, came_to, again);
        self.events.announce(EventType::NOTIFICATION_ATTEMPTED, telling.source, &record).await;
    }
}

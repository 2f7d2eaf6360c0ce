//! Who sends readings over HTTP, how much, and whether they still do.
//!
//! A client names itself with the header `Farol-Producer` (and, if it is no plain HTTP client, its kind with
//! `Farol-Producer-Kind`). Every [`PULSE_EVERY`] each producer that has sent within [`SILENT_AFTER`] is reported to
//! topic `system-events` as `produtor_pulsou`; one that has fallen silent is reported `stopped` once. At most
//! [`MAX_PRODUCERS`] names are kept: names beyond them count as [`OVERFLOW`], so that clients can't fill the memory
//! by inventing names. A name that has stopped makes room for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use bytes::Bytes;
use farol_bus::{Producer, ProducerRecord};
use farol_event::{Event, EventType, Timestamp};
use parking_lot::RwLock;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::problem::Problem;

/// How often an active producer is reported.
pub const PULSE_EVERY: Duration = Duration::from_secs(5);
/// A producer that has sent nothing for this long is reported as stopped.
pub const SILENT_AFTER: Duration = Duration::from_secs(30);
/// How many names are kept.
pub const MAX_PRODUCERS: usize = 256;
/// What producers beyond [`MAX_PRODUCERS`] count as.
pub const OVERFLOW: &str = "other";
/// What a client without a name counts as.
pub const UNNAMED: &str = "http";
/// The header that names a producer.
pub const PRODUCER_HEADER: &str = "farol-producer";
/// The header that says what kind of producer it is.
pub const KIND_HEADER: &str = "farol-producer-kind";
/// The longest accepted name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// The kinds that there are; the first is the default.
pub const KINDS: [&str; 4] = ["http", "simulator", "replay", "load"];

/// Counters of one producer.
#[derive(Debug)]
pub struct ProducerCounters {
    kind: &'static str,
    sent: AtomicU64,
    rejected: AtomicU64,
    /// Milliseconds from [`Producers::started`] to the newest request.
    last_request_ms: AtomicU64,
}

/// Every producer seen.
#[derive(Debug)]
pub struct Producers {
    started: Instant,
    by_name: RwLock<HashMap<Arc<str>, Arc<ProducerCounters>>>,
}

/// Who a request says that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerName {
    /// The name, if one was given.
    pub name: Option<String>,
    /// One of [`KINDS`].
    pub kind: &'static str,
}

impl ProducerName {
    /// Reads the two headers.
    ///
    /// # Errors
    /// 400 for a name or kind that is not acceptable.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let name = headers
            .get(PRODUCER_HEADER)
            .map(|value| {
                value.to_str().ok().filter(|name| is_valid(name)).map(str::to_owned).ok_or_else(|| {
                    Problem::bad_request(format!(
                        "header `Farol-Producer` must have 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_`, `-` or `:`"
                    ))
                })
            })
            .transpose()?;
        let [default, ..] = KINDS;
        let kind = match headers.get(KIND_HEADER) {
            None => default,
            Some(value) => KINDS.into_iter().find(|k| value.as_bytes() == k.as_bytes()).ok_or_else(|| {
                Problem::bad_request(format!(
                    "header `Farol-Producer-Kind` must be one of {}",
                    KINDS.join(", ")
                ))
            })?,
        };
        Ok(Self { name, kind })
    }
}

fn is_valid(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':'))
}

impl Default for Producers {
    fn default() -> Self {
        Self { started: Instant::now(), by_name: RwLock::default() }
    }
}

impl Producers {
    /// Counts one request of `name`.
    pub fn count(&self, name: &ProducerName, sent: u64, rejected: u64) {
        let counters = self.counters(name);
        counters.sent.fetch_add(sent, Ordering::Relaxed);
        counters.rejected.fetch_add(rejected, Ordering::Relaxed);
        counters.last_request_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn counters(&self, name: &ProducerName) -> Arc<ProducerCounters> {
        let text = name.name.as_deref().unwrap_or(UNNAMED);
        if let Some(known) = self.by_name.read().get(text) {
            return Arc::clone(known);
        }
        let mut by_name = self.by_name.write();
        let (text, kind) =
            if by_name.len() < MAX_PRODUCERS { (text, name.kind) } else { (OVERFLOW, UNNAMED) };
        let fresh = || {
            Arc::new(ProducerCounters {
                kind,
                sent: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
                last_request_ms: AtomicU64::new(0),
            })
        };
        Arc::clone(by_name.entry(text.into()).or_insert_with(fresh))
    }

    fn forget(&self, name: &str) {
        self.by_name.write().remove(name);
    }

    fn all(&self) -> Vec<(Arc<str>, Arc<ProducerCounters>)> {
        self.by_name.read().iter().map(|(name, counters)| (Arc::clone(name), Arc::clone(counters))).collect()
    }
}

/// Reports producers until `shutdown`, and then each active one as stopped.
pub(crate) async fn report(
    producers: Arc<Producers>,
    bus: Arc<dyn Producer>,
    topic: Arc<str>,
    shutdown: CancellationToken,
) {
    let mut sent_before: HashMap<Arc<str>, u64> = HashMap::new();
    let mut ticks = tokio::time::interval(PULSE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        let stopping = tokio::select! {
            _ = ticks.tick() => false,
            () = shutdown.cancelled() => true,
        };
        let interval = last.elapsed();
        last = Instant::now();
        let now = Timestamp::from_system_time(std::time::SystemTime::now());
        let mut records = Vec::new();
        for (name, counters) in producers.all() {
            let idle =
                producers.elapsed_ms().saturating_sub(counters.last_request_ms.load(Ordering::Relaxed));
            let stopped = stopping || u128::from(idle) >= SILENT_AFTER.as_millis();
            let before = sent_before.get(&name).copied().unwrap_or(0);
            let sent = counters.sent.load(Ordering::Relaxed);
            records.push(pulse(
                &name,
                &counters,
                per_second(sent.saturating_sub(before), interval),
                stopped,
                now,
            ));
            if stopped {
                producers.forget(&name);
                sent_before.remove(&name);
            } else {
                sent_before.insert(name, sent);
            }
        }
        if !records.is_empty()
            && let Err(error) = bus.send(&topic, records).await
        {
            tracing::warn!(%error, "the heartbeats of HTTP producers could not be published");
        }
        if stopping {
            return;
        }
    }
}

fn per_second(count: u64, interval: Duration) -> f64 {
    let seconds = interval.as_secs_f64();
    // Counts of one interval are far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    (rate * 10.0).round() / 10.0
}

fn pulse(
    name: &str,
    counters: &ProducerCounters,
    rate: f64,
    stopped: bool,
    now: Timestamp,
) -> ProducerRecord {
    let data = json!({
        "kind": counters.kind,
        "records_sent": counters.sent.load(Ordering::Relaxed),
        "records_per_s": if stopped { 0.0 } else { rate },
        "rejected": counters.rejected.load(Ordering::Relaxed),
        "status": if stopped { "stopped" } else { "active" },
    });
    let event = Event::new(Uuid::now_v7(), now, EventType::PRODUCER_HEARTBEAT, name, &data);
    ProducerRecord::new(Bytes::copy_from_slice(name.as_bytes()), event.to_json(), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> ProducerName {
        ProducerName { name: Some(name.into()), kind: "http" }
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let producers = Producers::default();
        for i in 0..MAX_PRODUCERS + 50 {
            producers.count(&named(&format!("p{i}")), 1, 0);
        }
        assert_eq!(producers.all().len(), MAX_PRODUCERS + 1);
        let other = producers.counters(&named("one-more"));
        assert_eq!(other.sent.load(Ordering::Relaxed), 50);
    }

    #[test]
    fn odd_names_and_kinds_are_refused() {
        for (header, value) in [
            (PRODUCER_HEADER, ""),
            (PRODUCER_HEADER, "with space"),
            (PRODUCER_HEADER, "ø"),
            (PRODUCER_HEADER, &*"x".repeat(65)),
            (KIND_HEADER, "toaster"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header, axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let problem = ProducerName::from_headers(&headers).unwrap_err();
            assert_eq!(problem.kind().status(), 400, "{header}: {value}");
        }
        assert_eq!(
            ProducerName::from_headers(&HeaderMap::new()).unwrap(),
            ProducerName { name: None, kind: "http" }
        );
    }
}

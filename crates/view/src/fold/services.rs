//! View `services`: what events tell of services and of resilience policies.
//!
//! Everything is kept so that the order in which partitions are read doesn't matter. What a service's own events say one after the
//! other (its facts, the sums of its metrics) is kept per partition and put together when it is looked at; in nearly all logs there is
//! one partition, the one that the service's name leads to. Checks and policies say of themselves when they changed, and the newest by
//! time, partition and offset counts.
//!
//! A policy is known by its caller, kind and name: the policies in front of one call share a name as a rule.
//!
//! # Bounds
//! Points of metrics are thinned to one in [`BUCKET`] for each metric and set of tags, with the extremes of what lay in between, and
//! span at most [`MAX_BUCKETS`] of them; a service has at most [`MAX_SERIES_PER_SERVICE`] of these, those that came first. A policy keeps its newest [`MAX_CHANGES`] changes. All of it goes with the retention of the
//! history, and so do services that nobody registered and nobody speaks of.

use std::collections::BTreeSet;
use std::time::Duration;

use farol_event::service::{Maintenance, Registration, ServiceDescription, names};
use farol_event::{ServiceFact, Timestamp};
use rusqlite::Transaction;

use crate::decode::{Decoded, EventRecord, Starts};
use crate::fold::Tally;
use crate::name::TopicContent;
use crate::service_state::DEGRADED_ERROR_RATE_PERCENT;

mod facts;
mod metrics;
mod policies;
mod rhythm;
mod row;

use facts::{Fact, Told};

/// How far after its arrival an event's time is believed; beyond it counts as told at its arrival.
const MAX_CLOCK_LEAD: Duration = Duration::from_secs(60);
/// How long after its stop a service may still be heard of: what was on its way, and the last answers of one that finishes what it
/// has begun. Later signs of life are those of one that is there again.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Points of a metric are thinned to one in so long.
pub(crate) const BUCKET: Duration = Duration::from_secs(10);
/// How many buckets the points of one metric and set of tags span at most: six hours.
pub(crate) const MAX_BUCKETS: i64 = 2160;
/// How many metrics with their tags a service may have within the retention of the history; of further ones nothing is kept, which is
/// counted as skipped.
pub(crate) const MAX_SERIES_PER_SERVICE: i64 = 1000;
/// The kind of policies that are circuit breakers.
pub(crate) const BREAKER: &str = "circuit_breaker";
/// The states of a breaker in which it rejects calls, all or most of them, for SQL.
pub(crate) const REJECTING: &str = "('open', 'half_open', 'forced_open')";
/// How many changes of one policy are kept.
pub(crate) const MAX_CHANGES: i64 = 1000;

/// From where the checks of service ?1 are read: all but those that were told of before a registration that doesn't name them.
pub(crate) const DEFINED_CHECKS: &str = "FROM service_checks AS checked WHERE service = ?1 AND NOT EXISTS (
    SELECT 1 FROM (SELECT value, at FROM service_fact WHERE service = ?1 AND name = 'checks'
                   ORDER BY at DESC, partition DESC LIMIT 1) AS defined
    WHERE checked.since <= defined.at AND checked.name NOT IN (SELECT value FROM json_each(defined.value))) ORDER BY name";

// In view `policies`, what a caller tells of its policies counts for five minutes after it was last heard of, itself or by them, and ends
// with its stop, after which it may still be heard of for [`STOP_GRACE`].
pub(crate) const CREATE: &str = "
CREATE TABLE service_fact (
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    partition INTEGER NOT NULL,
    value TEXT NOT NULL,
    reason TEXT,
    since INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (service, name, partition)
) WITHOUT ROWID;
CREATE TABLE services (
    service TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    reason TEXT,
    cause TEXT,
    silent_at INTEGER,
    silent_after INTEGER,
    kind TEXT,
    version TEXT,
    address TEXT,
    description TEXT,
    registered INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    started_at INTEGER,
    last_seen INTEGER NOT NULL,
    last_check_at INTEGER,
    response_time_ms REAL,
    error_rate_percent REAL,
    requests_per_second REAL,
    cpu_percent REAL,
    memory_percent REAL,
    memory_bytes REAL,
    uptime_seconds REAL,
    checks INTEGER NOT NULL,
    checks_down INTEGER NOT NULL,
    simulation TEXT
) WITHOUT ROWID;
CREATE TABLE service_rhythm (
    service TEXT NOT NULL,
    partition INTEGER NOT NULL,
    began_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    longest INTEGER NOT NULL,
    PRIMARY KEY (service, partition)
) WITHOUT ROWID;
CREATE TABLE service_metric_part (
    service TEXT NOT NULL,
    metric TEXT NOT NULL,
    partition INTEGER NOT NULL,
    unit TEXT,
    count INTEGER NOT NULL,
    total REAL NOT NULL,
    minimum REAL NOT NULL,
    maximum REAL NOT NULL,
    last REAL NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (service, metric, partition)
) WITHOUT ROWID;
CREATE INDEX service_metric_part_by_metric ON service_metric_part (metric, service, partition);
CREATE VIEW service_metrics AS
SELECT service, metric, newest.unit AS unit, sum(part.count) AS count, sum(part.total) AS total,
       min(part.minimum) AS min, max(part.maximum) AS max, sum(part.total) / sum(part.count) AS mean,
       newest.last AS last, newest.last_at AS last_at
FROM service_metric_part AS part JOIN (
    SELECT service, metric, unit, last, last_at,
           row_number() OVER (PARTITION BY service, metric ORDER BY last_at DESC, partition DESC) AS place
    FROM service_metric_part) AS newest USING (service, metric)
WHERE newest.place = 1 GROUP BY service, metric;
CREATE TABLE service_metric_points (
    service TEXT NOT NULL,
    metric TEXT NOT NULL,
    tags TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    at INTEGER NOT NULL,
    value REAL NOT NULL,
    minimum REAL NOT NULL,
    maximum REAL NOT NULL,
    count INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (service, metric, tags, bucket)
) WITHOUT ROWID;
CREATE TABLE service_metric_series (
    service TEXT NOT NULL,
    metric TEXT NOT NULL,
    tags TEXT NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (service, metric, tags)
) WITHOUT ROWID;
CREATE INDEX service_metric_series_by_time ON service_metric_series (last_at);
CREATE INDEX service_metric_points_by_time ON service_metric_points (at);
CREATE TABLE service_checks (
    service TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT,
    critical INTEGER NOT NULL,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    reason TEXT,
    response_time_ms REAL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (service, name)
) WITHOUT ROWID;
CREATE TABLE policy_state (
    caller TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    moved_service TEXT,
    moved_state TEXT,
    moved_cause TEXT,
    moved_counters TEXT,
    moved_at INTEGER,
    moved_partition INTEGER,
    moved_offset INTEGER,
    measured_service TEXT,
    measured_state TEXT,
    measured_counters TEXT,
    settings TEXT,
    measured_at INTEGER,
    measured_partition INTEGER,
    measured_offset INTEGER,
    PRIMARY KEY (caller, kind, name)
) WITHOUT ROWID;
CREATE INDEX policy_state_by_moved ON policy_state (moved_service) WHERE moved_service IS NOT NULL;
CREATE INDEX policy_state_by_measured ON policy_state (measured_service) WHERE measured_service IS NOT NULL;
CREATE TABLE policy_callers (
    caller TEXT PRIMARY KEY,
    heard_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE VIEW policies AS
SELECT caller, kind, name,
       iif(moved_at >= coalesce(measured_at, moved_at), moved_service, measured_service) AS service,
       iif(moved_at >= coalesce(measured_at, moved_at), moved_state, measured_state) AS state,
       iif(moved_at >= coalesce(measured_at, moved_at) OR moved_state = measured_state, moved_at, measured_at) AS since,
       iif(moved_at >= coalesce(measured_at, moved_at) OR moved_state = measured_state, moved_cause, NULL) AS cause,
       coalesce(measured_counters, moved_counters, '{}') AS counters, coalesce(settings, '{}') AS settings, measured_at,
       (SELECT iif(stopped_at + 10000000 >= told_at, stopped_at, max(told_at, coalesce(seen_at, told_at)) + 300000000)
        FROM (SELECT
            coalesce((SELECT heard_at FROM policy_callers AS heard WHERE heard.caller = policy_state.caller), 0) AS told_at,
            (SELECT max(at) FROM service_fact WHERE service = policy_state.caller AND name = 'seen') AS seen_at,
            (SELECT iif(value = 'stopped', since, NULL) FROM service_fact WHERE service = policy_state.caller AND name = 'life'
             ORDER BY at DESC, partition DESC LIMIT 1) AS stopped_at)) AS expires_at
FROM policy_state;
CREATE TABLE policy_changes (
    caller TEXT NOT NULL,
    name TEXT NOT NULL,
    service TEXT,
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    cause TEXT,
    counters TEXT NOT NULL,
    at INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    PRIMARY KEY (partition, offset)
) WITHOUT ROWID;
CREATE INDEX policy_changes_by_policy ON policy_changes (caller, name, at, partition, offset);
CREATE INDEX policy_changes_by_time ON policy_changes (at, partition, offset);
";

pub(crate) const DROP: &str = "
DROP VIEW IF EXISTS service_metrics;
DROP VIEW IF EXISTS policies;
DROP TABLE IF EXISTS service_fact;
DROP TABLE IF EXISTS services;
DROP TABLE IF EXISTS service_metric_part;
DROP TABLE IF EXISTS service_metric_points;
DROP TABLE IF EXISTS service_metric_series;
DROP TABLE IF EXISTS service_checks;
DROP TABLE IF EXISTS policy_state;
DROP TABLE IF EXISTS policy_callers;
DROP TABLE IF EXISTS service_rhythm;
DROP TABLE IF EXISTS policy_changes;
";

/// What goes with the history's retention: ?1 is the instant, ?2 how many rows at most.
pub(crate) const PRUNE: [(&str, &str); 9] = [
    (
        "policy_changes",
        "DELETE FROM policy_changes WHERE (partition, offset) IN
             (SELECT partition, offset FROM policy_changes WHERE at < ?1 ORDER BY at LIMIT ?2)",
    ),
    (
        "policies",
        "DELETE FROM policy_state WHERE (caller, kind, name) IN (SELECT caller, kind, name FROM policy_state
             WHERE max(coalesce(moved_at, measured_at), coalesce(measured_at, moved_at)) < ?1 LIMIT ?2)",
    ),
    (
        "policy_callers",
        "DELETE FROM policy_callers WHERE caller IN (SELECT caller FROM policy_callers WHERE heard_at < ?1 LIMIT ?2)",
    ),
    (
        "service_metric_series",
        "DELETE FROM service_metric_series WHERE (service, metric, tags) IN
             (SELECT service, metric, tags FROM service_metric_series WHERE last_at < ?1 LIMIT ?2)",
    ),
    // What belongs to a service goes before the service, so that a slice that ends in between leaves nothing behind.
    (
        "service_metrics",
        "DELETE FROM service_metric_part WHERE service IN
             (SELECT service FROM services WHERE last_seen < ?1 AND NOT registered LIMIT ?2)",
    ),
    (
        "service_checks",
        "DELETE FROM service_checks WHERE service IN
             (SELECT service FROM services WHERE last_seen < ?1 AND NOT registered LIMIT ?2)",
    ),
    (
        "service_rhythm",
        "DELETE FROM service_rhythm WHERE service IN
             (SELECT service FROM services WHERE last_seen < ?1 AND NOT registered LIMIT ?2)",
    ),
    (
        "service_fact",
        "DELETE FROM service_fact WHERE service IN
             (SELECT service FROM services WHERE last_seen < ?1 AND NOT registered LIMIT ?2)",
    ),
    (
        "services",
        "DELETE FROM services WHERE service IN
             (SELECT service FROM services WHERE last_seen < ?1 AND NOT registered LIMIT ?2)",
    ),
];

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let mut touched = BTreeSet::new();
    for record in decoded.events_from(starts).filter(|r| r.content == TopicContent::SystemEvents) {
        match ServiceFact::of(&record.event) {
            None => tally.applied += 1,
            Some(Err(_)) => tally.skip("an event about a service whose data is not as documented"),
            Some(Ok(fact)) => match one(transaction, record, fact, &mut touched)? {
                Kept::Yes => tally.applied += 1,
                Kept::TooManySeries => tally.skip("a metric of a service that has too many metrics and tags"),
            },
        }
    }
    for service in touched {
        row::derive(transaction, &service)?;
    }
    Ok(())
}

/// Whether all that a fact says is kept.
enum Kept {
    Yes,
    TooManySeries,
}

/// Folds one fact. `touched` are the services whose row may be another afterwards.
fn one(
    transaction: &Transaction<'_>,
    record: &EventRecord,
    fact: ServiceFact,
    touched: &mut BTreeSet<String>,
) -> rusqlite::Result<Kept> {
    let mut kept = Kept::Yes;
    let mut told = Told::of(record);
    match fact {
        ServiceFact::BreakerMoved(moved) => {
            return policies::moved(transaction, &told, &moved, touched).map(|()| Kept::Yes);
        }
        ServiceFact::PolicyMeasured(measured) => {
            return policies::measured(transaction, &told, &measured, touched).map(|()| Kept::Yes);
        }
        // A command says nothing of the service; that it is followed will be told.
        ServiceFact::SimulationChanged(_) => return Ok(Kept::Yes),
        ServiceFact::Registered(registration) => {
            rhythm::forget(transaction, &told)?;
            told.set(transaction, Fact::Registered, "yes", None)?;
            registered(transaction, &told, registration)?;
        }
        ServiceFact::Removed => {
            rhythm::forget(transaction, &told)?;
            told.removed(transaction)?;
            registered(
                transaction,
                &told,
                Registration { checks: Some(Vec::new()), ..Registration::default() },
            )?;
        }
        ServiceFact::Started(description) => {
            told.seen(transaction)?;
            rhythm::forget(transaction, &told)?;
            told.set(transaction, Fact::Life, "starting", None)?;
            told.set(transaction, Fact::Started, "", None)?;
            describe(transaction, &told, description)?;
        }
        ServiceFact::Stopped(reason) => {
            told.seen(transaction)?;
            rhythm::forget(transaction, &told)?;
            told.set(transaction, Fact::Life, "stopped", reason.reason.as_deref())?;
        }
        ServiceFact::Heartbeat => {
            told.set(transaction, Fact::Checked, "", None)?;
            told.alive(transaction)?;
        }
        ServiceFact::Metric(metric) => {
            if metric.name == names::ERROR_RATE_PERCENT {
                let high = metric.value > DEGRADED_ERROR_RATE_PERCENT;
                told.set(transaction, Fact::ErrorRate, if high { "high" } else { "low" }, None)?;
            }
            if metric.tags.contains_key("check") {
                told.set(transaction, Fact::Checked, "", None)?;
            }
            if !metrics::collected(transaction, &told, &metric)? {
                kept = Kept::TooManySeries;
            }
            told.alive(transaction)?;
        }
        ServiceFact::Unavailable(reason) => {
            told.seen(transaction)?;
            told.set(transaction, Fact::Outage, "down", reason.reason.as_deref())?;
        }
        ServiceFact::Recovered(reason) if told.is_removed(transaction)? => {
            // The end of the watch ends an outage that was told; that is no sign of life.
            told.set(transaction, Fact::Outage, "up", reason.reason.as_deref())?;
        }
        ServiceFact::Recovered(reason) => {
            told.set(transaction, Fact::Outage, "up", reason.reason.as_deref())?;
            told.set(transaction, Fact::Life, "alive", None)?;
            told.seen(transaction)?;
        }
        ServiceFact::MaintenanceStarted(Maintenance { reason, .. }) => {
            told.set(transaction, Fact::Maintenance, "on", reason.as_deref())?;
        }
        ServiceFact::MaintenanceEnded(reason) => {
            told.set(transaction, Fact::Maintenance, "off", reason.reason.as_deref())?;
        }
        ServiceFact::CheckChanged(changed) => {
            told.set(transaction, Fact::Checked, "", None)?;
            row::check(transaction, &told, &changed)?;
            if changed.to == farol_event::service::CheckState::Up {
                told.alive(transaction)?;
            }
        }
        ServiceFact::SimulationApplied(applied) => {
            told.set(transaction, Fact::Simulation, &super::json_text(&applied), None)?;
        }
    }
    told.known(transaction)?;
    touched.insert(told.service.to_owned());
    Ok(kept)
}

/// Takes in what a registration says. It replaces what an earlier one said, and not what the service says of itself.
fn registered(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    Registration { description, checks }: Registration,
) -> rusqlite::Result<()> {
    let ServiceDescription { address, kind, version, description } = description;
    for (fact, text) in [(Fact::GivenAddress, address), (Fact::GivenKind, kind)] {
        told.set(transaction, fact, text.as_deref().unwrap_or_default(), None)?;
    }
    if let Some(checks) = checks {
        told.set(transaction, Fact::Checks, &super::json_text(&checks), None)?;
    }
    describe(transaction, told, ServiceDescription { version, description, ..ServiceDescription::default() })
}

fn describe(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    description: ServiceDescription,
) -> rusqlite::Result<()> {
    for (fact, text) in [
        (Fact::Version, description.version),
        (Fact::Address, description.address),
        (Fact::Kind, description.kind),
        (Fact::Description, description.description),
    ] {
        if let Some(text) = text {
            told.set(transaction, fact, &text, None)?;
        }
    }
    Ok(())
}

/// An event's time, or its arrival if it lies too far after it: one event of a sender whose clock runs ahead must not outlast all of
/// its later ones.
fn believed(record: &EventRecord) -> Timestamp {
    let ahead = record.event.time > record.arrival.saturating_add(MAX_CLOCK_LEAD);
    if ahead { record.arrival } else { record.event.time }
}

//! The row of a service in table `services`, derived from everything else that is kept of it.

use std::collections::HashMap;

use farol_event::Timestamp;
use farol_event::service::{CheckChanged, CheckState, names};
use rusqlite::{Transaction, params};

use super::facts::{self, Fact, Kept, Told, micros};
use super::{BREAKER, DEFINED_CHECKS, REJECTING, rhythm};
use crate::fold::json_text;
use crate::service_state::{CheckFact, Life, Since, StateFacts};

/// Takes in the finding of a check.
pub(super) fn check(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    changed: &CheckChanged,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO service_checks
                 (service, name, kind, critical, state, since, reason, response_time_ms, partition, offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (service, name) DO UPDATE SET kind = excluded.kind, critical = excluded.critical,
                 state = excluded.state, since = excluded.since, reason = excluded.reason,
                 response_time_ms = excluded.response_time_ms, partition = excluded.partition,
                 offset = excluded.offset
             WHERE (excluded.since, excluded.partition, excluded.offset) > (since, partition, offset)",
        )?
        .execute(params![
            told.service,
            changed.check,
            changed.kind.map(|kind| kind.as_str()),
            changed.critical,
            changed.to.as_str(),
            told.at.as_micros(),
            changed.reason,
            changed.response_time_ms.filter(|ms| ms.is_finite()),
            told.partition,
            told.offset,
        ])?;
    Ok(())
}

/// Writes the row anew. A service that only others speak of (a breaker in front of it, say) has none.
pub(super) fn derive(transaction: &Transaction<'_>, service: &str) -> rusqlite::Result<()> {
    let facts = facts::of_service(transaction, service)?;
    let Some(known) = facts.get(&Fact::Known) else { return Ok(()) };
    let checks = checks(transaction, service)?;
    let checks_down = checks.iter().filter(|check| check.state.is == CheckState::Down).count();
    // One that is checked and found up is not silent: its checks would tell.
    let watched = checks.iter().any(|check| check.critical && check.state.is == CheckState::Up);
    let silent = if watched { None } else { rhythm::silent_from(transaction, service)? };
    let (check_count, number) = (checks.len(), |count: usize| i64::try_from(count).unwrap_or(i64::MAX));
    let told = state_facts(&facts, known, checks, breakers_closed(transaction, service)?);
    let standing = told.standing();
    let last = last_values(transaction, service)?;
    let value = |name| last.get(name).map(|(value, _)| *value);
    // How fast it answered before its outage says nothing about how it is.
    let down_since = told.down().map(|down| down.since);
    let answers =
        last.get(names::RESPONSE_TIME_MS).filter(|(_, at)| down_since.is_none_or(|since| since <= *at));
    let text = |fact| facts.get(&fact).map(|kept| kept.value.as_str());
    let given = |fact| text(fact).filter(|text| !text.is_empty());
    let told_at = |fact| facts.get(&fact).map(|kept| kept.at);
    let registered = text(Fact::Registered) == Some("yes");
    let removed_at = facts.get(&Fact::Registered).filter(|kept| kept.value == "no").map(|kept| kept.at);
    let last_seen = told_at(Fact::Seen).unwrap_or(known.since);
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO services (service, state, since, reason, cause, silent_at, silent_after, kind, version, address, description, registered,
                 removed, started_at, last_seen, last_check_at, response_time_ms, error_rate_percent,
                 requests_per_second, cpu_percent, memory_percent, memory_bytes, uptime_seconds, checks, checks_down,
                 simulation)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
                 ?23, ?24, ?25, ?26)",
        )?
        .execute(params![
            service,
            standing.state.as_str(),
            standing.since.as_micros(),
            standing.reason,
            standing.cause.as_ref().map(json_text),
            silent.as_ref().map(|silent| silent.at.as_micros()),
            silent.as_ref().map(|silent| i64::try_from(silent.after.as_micros()).unwrap_or(i64::MAX)),
            text(Fact::Kind).or(given(Fact::GivenKind)),
            text(Fact::Version),
            text(Fact::Address).or(given(Fact::GivenAddress)),
            text(Fact::Description),
            registered,
            removed_at.is_some_and(|removed| last_seen <= removed),
            told_at(Fact::Started),
            last_seen,
            told_at(Fact::Checked),
            answers.map(|(value, _)| *value),
            value(names::ERROR_RATE_PERCENT),
            value(names::REQUESTS_PER_SECOND),
            value(names::CPU_PERCENT),
            value(names::MEMORY_PERCENT),
            value(names::MEMORY_BYTES),
            value(names::UPTIME_SECONDS),
            number(check_count),
            number(checks_down),
            text(Fact::Simulation),
        ])?;
    Ok(())
}

fn state_facts(
    facts: &HashMap<Fact, Kept>,
    known: &Kept,
    checks: Vec<CheckFact>,
    breakers_closed: Vec<Timestamp>,
) -> StateFacts {
    let holds = |fact, word: &str| facts.get(&fact).map(|kept| since(kept.value == word, kept));
    StateFacts {
        known_since: micros(known.since),
        life: facts.get(&Fact::Life).map(|kept| {
            let life = match kept.value.as_str() {
                "starting" => Life::Starting,
                "stopped" => Life::Stopped,
                _ => Life::Alive,
            };
            since(life, kept)
        }),
        unavailable: holds(Fact::Outage, "down"),
        maintenance: holds(Fact::Maintenance, "on"),
        error_rate_high: holds(Fact::ErrorRate, "high"),
        checks,
        breakers_closed,
    }
}

fn since<T>(is: T, kept: &Kept) -> Since<T> {
    Since { is, since: micros(kept.since), reason: kept.reason.clone() }
}

fn checks(transaction: &Transaction<'_>, service: &str) -> rusqlite::Result<Vec<CheckFact>> {
    transaction
        .prepare_cached(&format!("SELECT name, critical, state, since, reason {DEFINED_CHECKS}"))?
        .query_map([service], |row| {
            let state = CheckState::of_word(row.get_ref(2)?.as_str()?).unwrap_or(CheckState::Unknown);
            let state = Since { is: state, since: micros(row.get(3)?), reason: row.get(4)? };
            Ok(CheckFact { name: row.get(0)?, critical: row.get(1)?, state })
        })?
        .collect()
}

/// Since when each breaker in front of the service lets calls through.
fn breakers_closed(transaction: &Transaction<'_>, service: &str) -> rusqlite::Result<Vec<Timestamp>> {
    // Through the indices first: the view alone would be searched whole.
    transaction
        .prepare_cached(&format!(
            "SELECT since FROM policies
             WHERE (caller, kind, name) IN (SELECT caller, kind, name FROM policy_state WHERE moved_service = ?1
                                            UNION SELECT caller, kind, name FROM policy_state WHERE measured_service = ?1)
                 AND service = ?1 AND kind = ?2 AND state NOT IN {REJECTING}"
        ))?
        .query_map([service, BREAKER], |row| Ok(micros(row.get(0)?)))?
        .collect()
}

/// The newest value of each metric, and when it was told.
fn last_values(
    transaction: &Transaction<'_>,
    service: &str,
) -> rusqlite::Result<HashMap<String, (f64, Timestamp)>> {
    let mut statement = transaction.prepare_cached(
        "SELECT metric, last, last_at FROM service_metric_part WHERE service = ?1 ORDER BY last_at, partition",
    )?;
    let rows = statement.query_map([service], |row| Ok((row.get(0)?, (row.get(1)?, micros(row.get(2)?)))))?;
    rows.collect()
}

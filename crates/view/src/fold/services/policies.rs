//! Resilience policies: how each stands, and how breakers moved.

use std::collections::BTreeSet;

use farol_event::service::{BreakerMoved, PolicyMeasured};
use rusqlite::{OptionalExtension, Transaction, params};

use super::facts::Told;
use super::{BREAKER, MAX_CHANGES};
use crate::fold::json_text;

/// Takes in the move of a breaker.
pub(super) fn moved(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    moved: &BreakerMoved,
    touched: &mut BTreeSet<String>,
) -> rusqlite::Result<()> {
    let service = called(told, &moved.caller, moved.service.as_deref());
    let counters = json_text(&moved.counters);
    heard(transaction, told, &moved.caller)?;
    touch(transaction, &moved.caller, BREAKER, &moved.name, service, touched)?;
    transaction
        .prepare_cached(
            "INSERT INTO policy_state (caller, kind, name, moved_service, moved_state, moved_cause, moved_counters,
                 moved_at, moved_partition, moved_offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (caller, kind, name) DO UPDATE SET moved_service = excluded.moved_service,
                 moved_state = excluded.moved_state, moved_cause = excluded.moved_cause,
                 moved_counters = excluded.moved_counters, moved_at = excluded.moved_at,
                 moved_partition = excluded.moved_partition, moved_offset = excluded.moved_offset
             WHERE moved_at IS NULL
                 OR (excluded.moved_at, excluded.moved_partition, excluded.moved_offset)
                     > (moved_at, moved_partition, moved_offset)",
        )?
        .execute(params![
            moved.caller,
            BREAKER,
            moved.name,
            service,
            moved.to.as_str(),
            moved.cause,
            counters,
            told.at.as_micros(),
            told.partition,
            told.offset,
        ])?;
    transaction
        .prepare_cached(
            "INSERT INTO policy_changes
                 (caller, name, service, from_state, to_state, cause, counters, at, partition, offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            moved.caller,
            moved.name,
            service,
            moved.from.as_str(),
            moved.to.as_str(),
            moved.cause,
            counters,
            told.at.as_micros(),
            told.partition,
            told.offset,
        ])?;
    transaction
        .prepare_cached(
            "DELETE FROM policy_changes WHERE (partition, offset) IN (SELECT partition, offset FROM policy_changes
                 WHERE caller = ?1 AND name = ?2 ORDER BY at DESC, partition DESC, offset DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute((&moved.caller, &moved.name, MAX_CHANGES))?;
    Ok(())
}

/// Takes in how a policy stands.
pub(super) fn measured(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    measured: &PolicyMeasured,
    touched: &mut BTreeSet<String>,
) -> rusqlite::Result<()> {
    let service = called(told, &measured.caller, measured.service.as_deref());
    heard(transaction, told, &measured.caller)?;
    touch(transaction, &measured.caller, &measured.kind, &measured.name, service, touched)?;
    transaction
        .prepare_cached(
            "INSERT INTO policy_state (caller, kind, name, measured_service, measured_state, measured_counters,
                 settings, measured_at, measured_partition, measured_offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (caller, kind, name) DO UPDATE SET measured_service = excluded.measured_service,
                 measured_state = excluded.measured_state,
                 measured_counters = excluded.measured_counters, settings = excluded.settings,
                 measured_at = excluded.measured_at, measured_partition = excluded.measured_partition,
                 measured_offset = excluded.measured_offset
             WHERE measured_at IS NULL
                 OR (excluded.measured_at, excluded.measured_partition, excluded.measured_offset)
                     > (measured_at, measured_partition, measured_offset)",
        )?
        .execute(params![
            measured.caller,
            measured.kind,
            measured.name,
            service,
            measured.state,
            json_text(&measured.counters),
            json_text(&measured.settings),
            told.at.as_micros(),
            told.partition,
            told.offset,
        ])?;
    Ok(())
}

/// The caller told something of its policies.
fn heard(transaction: &Transaction<'_>, told: &Told<'_>, caller: &str) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO policy_callers (caller, heard_at) VALUES (?1, ?2)
             ON CONFLICT (caller) DO UPDATE SET heard_at = max(heard_at, excluded.heard_at)",
        )?
        .execute((caller, told.arrival.as_micros()))?;
    Ok(())
}

/// The service in front of which a policy stands: the one that it names, or else the event's source, unless that is the caller.
fn called<'a>(told: &Told<'a>, caller: &str, named: Option<&'a str>) -> Option<&'a str> {
    named.or_else(|| Some(told.service).filter(|source| *source != caller))
}

/// The service in front of which a policy stands now, and those in front of which it stood: it may leave one for another.
fn touch(
    transaction: &Transaction<'_>,
    caller: &str,
    kind: &str,
    name: &str,
    service: Option<&str>,
    touched: &mut BTreeSet<String>,
) -> rusqlite::Result<()> {
    let before: Option<(Option<String>, Option<String>)> = transaction
        .prepare_cached(
            "SELECT moved_service, measured_service FROM policy_state WHERE caller = ?1 AND kind = ?2 AND name = ?3",
        )?
        .query_row((caller, kind, name), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (moved, measured) = before.unwrap_or_default();
    touched.extend([moved, measured, service.map(str::to_owned)].into_iter().flatten());
    Ok(())
}

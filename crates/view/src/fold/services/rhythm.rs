//! How regularly a service is heard of, by the clock of the log.
//!
//! Signs of life that follow one another within [`REGULAR_GAP`] are a stretch. One that lasts for at least [`REGULAR_FOR`], and for four
//! times the longest pause in it, is a rhythm: its end is a silence, after [`SILENT_AFTER`] or three such pauses, whichever is longer.
//! Whoever is heard of more rarely has none, and neither has one that has just been started, stopped, registered or removed.

use std::time::Duration;

use farol_event::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::facts::{Told, micros};

/// The longest pause within a rhythm.
const REGULAR_GAP: Duration = Duration::from_secs(300);
/// How long a stretch lasts at least to be a rhythm.
const REGULAR_FOR: Duration = Duration::from_secs(60);
/// The shortest pause that is a silence; the same as that of sensors by default.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// From when on a service counts as silent if nothing more is heard of it.
pub(super) struct SilentFrom {
    pub(super) at: Timestamp,
    /// How long that is after its last sign of life.
    pub(super) after: Duration,
}

/// Takes in a sign of life. One that arrived before the last one changes nothing.
pub(super) fn heard(transaction: &Transaction<'_>, told: &Told<'_>) -> rusqlite::Result<()> {
    let gap = i64::try_from(REGULAR_GAP.as_micros()).unwrap_or(i64::MAX);
    transaction
        .prepare_cached(
            "INSERT INTO service_rhythm (service, partition, began_at, last_at, longest) VALUES (?1, ?2, ?3, ?3, 0)
             ON CONFLICT (service, partition) DO UPDATE SET
                 began_at = iif(excluded.last_at - last_at > ?4, excluded.last_at, began_at),
                 longest = iif(excluded.last_at - last_at > ?4, 0, max(longest, excluded.last_at - last_at)),
                 last_at = max(last_at, excluded.last_at)",
        )?
        .execute((told.service, told.partition, told.arrival.as_micros(), gap))?;
    Ok(())
}

/// What was regular so far says nothing about what comes.
pub(super) fn forget(transaction: &Transaction<'_>, told: &Told<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("DELETE FROM service_rhythm WHERE service = ?1 AND partition = ?2")?
        .execute((told.service, told.partition))?;
    Ok(())
}

/// From when on the service is silent, if it has a rhythm. Of several partitions the one that was heard of last counts.
pub(super) fn silent_from(
    transaction: &Transaction<'_>,
    service: &str,
) -> rusqlite::Result<Option<SilentFrom>> {
    let kept: Option<(i64, i64, i64)> = transaction
        .prepare_cached(
            "SELECT began_at, last_at, longest FROM service_rhythm WHERE service = ?1
             ORDER BY last_at DESC, partition DESC LIMIT 1",
        )?
        .query_row([service], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(kept.and_then(|(began, last, longest)| {
        let lasted = micros(last).since(micros(began));
        let longest = Duration::from_micros(u64::try_from(longest).unwrap_or(0));
        let after = SILENT_AFTER.max(longest * 3);
        let regular = lasted >= REGULAR_FOR.max(longest * 4);
        regular.then(|| SilentFrom { at: micros(last).saturating_add(after), after })
    }))
}

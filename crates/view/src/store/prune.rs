//! Deleting what is old, in slices that leave the writer free for other commands in between.

use farol_event::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use crate::error::ViewError;

/// How many rows one slice deletes at most: a few milliseconds.
const SLICE_ROWS: i64 = 5000;

/// What is old. `None` keeps everything of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Readings measured before this instant are deleted. What `sensors` says of them (how many, the first) stays.
    pub readings_before: Option<Timestamp>,
    /// Events, dead letters, rebalances, and consumers and producers that last reported before this instant are deleted.
    /// Alerts are kept.
    pub history_before: Option<Timestamp>,
}

/// How many rows were deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Readings.
    pub readings: u64,
    /// Events.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Rebalances.
    pub rebalances: u64,
    /// Consumers and producers that are long gone.
    pub members: u64,
}

impl Pruned {
    /// All together.
    pub fn total(&self) -> u64 {
        self.readings + self.events + self.dead_letters + self.rebalances + self.members
    }

    pub(crate) fn add(&mut self, slice: &Pruned) {
        self.readings += slice.readings;
        self.events += slice.events;
        self.dead_letters += slice.dead_letters;
        self.rebalances += slice.rebalances;
        self.members += slice.members;
    }
}

/// Deletes one slice of each kind.
pub(crate) fn slice(transaction: &Transaction<'_>, retention: &Retention) -> Result<Pruned, ViewError> {
    let mut pruned = Pruned::default();
    if let Some(before) = retention.readings_before {
        pruned.readings = readings(transaction, before.as_micros())
            .map_err(|source| ViewError::Prune { what: "sensor_readings", source })?;
    }
    if let Some(before) = retention.history_before {
        let before = before.as_micros();
        let delete = |what: &'static str, sql: &str| {
            let rows = transaction
                .prepare_cached(sql)
                .and_then(|mut statement| statement.execute((before, SLICE_ROWS)))
                .map_err(|source| ViewError::Prune { what, source })?;
            Ok::<u64, ViewError>(u64::try_from(rows).unwrap_or(u64::MAX))
        };
        pruned.events = delete(
            "events",
            "DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE time < ?1 ORDER BY time LIMIT ?2)",
        )?;
        pruned.dead_letters = delete(
            "dead_letters",
            "DELETE FROM dead_letters WHERE rowid IN (SELECT rowid FROM dead_letters WHERE at < ?1 ORDER BY at LIMIT ?2)",
        )?;
        pruned.rebalances = delete(
            "rebalancing_events",
            "DELETE FROM rebalancing_events WHERE rowid IN
                 (SELECT rowid FROM rebalancing_events WHERE completed_at < ?1 ORDER BY completed_at LIMIT ?2)",
        )?;
        pruned.members = delete(
            "consumer_health",
            "DELETE FROM consumer_health WHERE rowid IN (SELECT rowid FROM consumer_health
                 WHERE max(coalesce(last_heartbeat, status_at), status_at) < ?1 LIMIT ?2)",
        )? + delete(
            "producer_health",
            "DELETE FROM producer_health WHERE rowid IN (SELECT rowid FROM producer_health WHERE last_heartbeat < ?1 LIMIT ?2)",
        )?;
    }
    Ok(pruned)
}

/// Deletes from one slot, the one with the oldest reading first.
fn readings(transaction: &Transaction<'_>, before: i64) -> rusqlite::Result<u64> {
    loop {
        let oldest: Option<(i64, i64)> = transaction
            .prepare_cached(
                "SELECT slot, last_time FROM reading_slot WHERE first_time < ?1 ORDER BY first_time LIMIT 1",
            )?
            .query_row([before], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((slot, last_time)) = oldest else { return Ok(0) };
        let deleted = readings_of_slot(transaction, slot, last_time < before, before)?;
        // None: the slice before took the last old row of this slot. Its bounds are right now; look at the next one.
        if deleted > 0 {
            return Ok(deleted);
        }
    }
}

/// A slot that is old as a whole goes from its first row on; of any other the old rows have to be looked for.
fn readings_of_slot(
    transaction: &Transaction<'_>,
    slot: i64,
    wholly_old: bool,
    before: i64,
) -> rusqlite::Result<u64> {
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM reading WHERE (slot, sensor, time, partition, offset) IN
                 (SELECT slot, sensor, time, partition, offset FROM reading
                  WHERE slot = ?1 AND (?2 OR time < ?3) LIMIT ?4)",
        )?
        .execute((slot, wholly_old, before, SLICE_ROWS))?;
    let deleted = u64::try_from(deleted).unwrap_or(u64::MAX);
    if i64::try_from(deleted).is_ok_and(|deleted| deleted < SLICE_ROWS) {
        // Nothing old is left in it: say where it begins now, or that it is gone.
        transaction
            .prepare_cached(
                "UPDATE reading_slot SET first_time = (SELECT min(time) FROM reading WHERE slot = ?1)
                 WHERE slot = ?1 AND EXISTS (SELECT 1 FROM reading WHERE slot = ?1)",
            )?
            .execute([slot])?;
        transaction
            .prepare_cached(
                "DELETE FROM reading_slot
                 WHERE slot = ?1 AND NOT EXISTS (SELECT 1 FROM reading WHERE slot = ?1)",
            )?
            .execute([slot])?;
    }
    Ok(deleted)
}

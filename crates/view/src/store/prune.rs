//! Deleting what is old, in slices that leave the writer free for other commands in between.

use farol_event::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use crate::block::{Block, StoredReading};
use crate::error::ViewError;
use crate::fold::readings::{self, Form};

/// How many rows one slice deletes at most: a few milliseconds.
const SLICE_ROWS: i64 = 5000;

/// What is old. `None` keeps everything of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Readings measured before this instant are deleted. What `sensors` says of them (how many, the first) stays.
    pub readings_before: Option<Timestamp>,
    /// Events, dead letters, rebalances, points of services' metrics, changes of policies, and consumers, producers, policies and
    /// services (but registered ones) that last reported before this instant are deleted.
    /// Alerts are kept, and so are the events about them: those of a replayed series are as old as it.
    pub history_before: Option<Timestamp>,
    /// Events that tell of a collected metric or a measured policy from before this instant are deleted from the events.
    pub metric_events_before: Option<Timestamp>,
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
    /// Points of services' metrics.
    pub points: u64,
    /// Services and policies that are long gone, and changes of policies.
    pub services: u64,
}

impl Pruned {
    /// All together.
    pub fn total(&self) -> u64 {
        self.readings
            + self.events
            + self.dead_letters
            + self.rebalances
            + self.members
            + self.points
            + self.services
    }

    pub(crate) fn add(&mut self, slice: &Pruned) {
        self.readings += slice.readings;
        self.events += slice.events;
        self.dead_letters += slice.dead_letters;
        self.rebalances += slice.rebalances;
        self.members += slice.members;
        self.points += slice.points;
        self.services += slice.services;
    }
}

/// Deletes one slice of each kind.
pub(crate) fn slice(transaction: &Transaction<'_>, retention: &Retention) -> Result<Pruned, ViewError> {
    let mut pruned = Pruned::default();
    if let Some(before) = retention.readings_before {
        pruned.readings = readings(transaction, before.as_micros())?;
    }
    if let Some(before) = retention.metric_events_before {
        let sql = "DELETE FROM events WHERE rowid IN (SELECT rowid FROM events
                       WHERE type IN ('metrica_coletada', 'politica_medida') AND time < ?1 LIMIT ?2)";
        let rows = transaction
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute((before.as_micros(), SLICE_ROWS)))
            .map_err(|source| ViewError::Prune { what: "events", source })?;
        pruned.events += u64::try_from(rows).unwrap_or(u64::MAX);
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
        pruned.events += delete(
            "events",
            "DELETE FROM events WHERE rowid IN
                 (SELECT rowid FROM events WHERE time < ?1 AND type NOT LIKE 'alerta%' ORDER BY time LIMIT ?2)",
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
        pruned.points = delete(
            "service_metric_points",
            "DELETE FROM service_metric_points WHERE (service, metric, tags, bucket) IN
                 (SELECT service, metric, tags, bucket FROM service_metric_points WHERE at < ?1 LIMIT ?2)",
        )?;
        for (what, sql) in crate::fold::services::PRUNE {
            pruned.services += delete(what, sql)?;
        }
    }
    Ok(pruned)
}

/// Deletes from one slot, the one with the oldest reading first.
fn readings(transaction: &Transaction<'_>, before: i64) -> Result<u64, ViewError> {
    let failed = |source| ViewError::Prune { what: "sensor_readings", source };
    loop {
        let Some((slot, form)) = oldest_slot(transaction, before).map_err(failed)? else { return Ok(0) };
        let deleted = match form {
            Form::Rows => rows_of_slot(transaction, slot, before).map_err(failed)?,
            Form::Blocks => blocks_of_slot(transaction, slot, before)?,
        };
        if deleted < SLICE_ROWS {
            // Nothing old is left in it.
            tighten(transaction, slot, form).map_err(failed)?;
        }
        // None: the slice before took the last old row of this slot, whose span is right now. Look at the next one.
        if deleted > 0 {
            return Ok(u64::try_from(deleted).unwrap_or(0));
        }
    }
}

fn oldest_slot(transaction: &Transaction<'_>, before: i64) -> rusqlite::Result<Option<(i64, Form)>> {
    transaction
        .prepare_cached(
            "SELECT slot, form FROM reading_slot WHERE first_time < ?1 ORDER BY first_time LIMIT 1",
        )?
        .query_row([before], |row| Ok((row.get(0)?, Form::of_word(row.get_ref(1)?.as_str()?))))
        .optional()
}

fn rows_of_slot(transaction: &Transaction<'_>, slot: i64, before: i64) -> rusqlite::Result<i64> {
    let deleted = transaction
        .prepare_cached(
            "DELETE FROM reading WHERE (slot, sensor, time, partition, offset) IN
                 (SELECT slot, sensor, time, partition, offset FROM reading
                  WHERE slot = ?1 AND time < ?2 LIMIT ?3)",
        )?
        .execute((slot, before, SLICE_ROWS))?;
    Ok(i64::try_from(deleted).unwrap_or(i64::MAX))
}

/// Blocks that are old as a whole go; of others what is not old is packed anew.
fn blocks_of_slot(transaction: &Transaction<'_>, slot: i64, before: i64) -> Result<i64, ViewError> {
    let failed = |source| ViewError::Prune { what: "sensor_readings", source };
    let mut deleted = 0;
    for (id, first_time, last_time, rows) in old_blocks(transaction, slot, before).map_err(failed)? {
        deleted += rows;
        if last_time >= before {
            let kept = not_older(transaction, id, first_time, before)?;
            let block = Block::encode(&kept);
            deleted -= block.rows;
            readings::insert_block(transaction, slot, &block).map_err(failed)?;
        }
        transaction
            .prepare_cached("DELETE FROM reading_block WHERE id = ?1")
            .and_then(|mut delete| delete.execute([id]))
            .map_err(failed)?;
        if deleted >= SLICE_ROWS {
            break;
        }
    }
    Ok(deleted)
}

/// Id, span and size of blocks that hold something old, as many as one slice may need.
fn old_blocks(
    transaction: &Transaction<'_>,
    slot: i64,
    before: i64,
) -> rusqlite::Result<Vec<(i64, i64, i64, i64)>> {
    let mut statement = transaction.prepare_cached(
        "SELECT id, first_time, last_time, rows FROM reading_block
         WHERE slot = ?1 AND last_sensor >= ?2 AND first_time < ?3 LIMIT ?4",
    )?;
    let found = statement.query_map((slot, i64::MIN, before, SLICE_ROWS), |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    })?;
    found.collect()
}

fn not_older(
    transaction: &Transaction<'_>,
    id: i64,
    first_time: i64,
    before: i64,
) -> Result<Vec<StoredReading>, ViewError> {
    let body: String = transaction
        .prepare_cached("SELECT body FROM reading_block WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id], |row| row.get(0)))
        .map_err(|source| ViewError::Prune { what: "sensor_readings", source })?;
    let mut kept = Vec::new();
    Block::decode(&body, first_time, None, |reading| {
        if reading.time >= before {
            kept.push(reading);
        }
    })
    .map_err(|problem| ViewError::Corrupt { table: "reading_block", problem: problem.to_string() })?;
    Ok(kept)
}

/// Says where a slot begins now, or that it is gone.
fn tighten(transaction: &Transaction<'_>, slot: i64, form: Form) -> rusqlite::Result<()> {
    let first_time = match form {
        Form::Rows => "SELECT min(time) FROM reading WHERE slot = ?1",
        Form::Blocks => "SELECT min(first_time) FROM reading_block WHERE slot = ?1",
    };
    let first_time: Option<i64> =
        transaction.prepare_cached(first_time)?.query_row([slot], |row| row.get(0))?;
    match first_time {
        Some(first_time) => transaction
            .prepare_cached("UPDATE reading_slot SET first_time = ?2 WHERE slot = ?1")?
            .execute((slot, first_time))?,
        None => transaction.prepare_cached("DELETE FROM reading_slot WHERE slot = ?1")?.execute([slot])?,
    };
    Ok(())
}

//! View `events`: the events of topics `system-events` and `alerts`, to be found by time, source, type and correlation id.
//!
//! Heartbeats are left out: they would be nearly all of the rows, and view `pipeline` folds them into one row per consumer
//! or producer. Two events with the same id are two rows: what the log has twice is shown twice.

use farol_event::EventType;
use rusqlite::{Transaction, params};

use crate::decode::{Decoded, Starts};
use crate::fold::Tally;

pub(crate) const CREATE: &str = "
CREATE TABLE events (
    time INTEGER NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    correlation_id TEXT,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX events_by_time ON events (time, topic, partition, offset);
CREATE INDEX events_by_source ON events (source, time, topic, partition, offset);
CREATE INDEX events_by_type ON events (type, time, topic, partition, offset);
CREATE INDEX events_by_position ON events (topic, partition, offset);
CREATE INDEX events_by_correlation ON events (correlation_id, time, topic, partition, offset)
    WHERE correlation_id IS NOT NULL;
";

pub(crate) const DROP: &str = "DROP TABLE IF EXISTS events;";

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO events (time, type, source, event_id, correlation_id, topic, partition, offset, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for record in decoded.events_from(starts) {
        tally.applied += 1;
        let event = &record.event;
        if event.event_type == EventType::CONSUMER_HEARTBEAT
            || event.event_type == EventType::PRODUCER_HEARTBEAT
        {
            continue;
        }
        insert.execute(params![
            event.time.as_micros(),
            event.event_type.as_str(),
            event.source,
            event.id,
            event.correlationid.map(|id| id.to_string()),
            &*record.topic,
            record.partition,
            record.offset,
            super::json_text(event),
        ])?;
    }
    Ok(())
}

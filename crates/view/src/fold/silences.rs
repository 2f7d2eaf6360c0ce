//! View `silences`: what somebody silenced, until when, and who ended it before its time.
//!
//! What follows from what is decided by [`farol_alert::silence::folded`]; here its outcome is kept. All events about a silence share a key,
//! and so a partition: their order is the log's.

use farol_alert::SilenceFact;
use farol_alert::silence::{self, Silence, SilenceId};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::decode::{Decoded, Starts};
use crate::fold::Tally;
use crate::query::silences::{SILENCE_COLUMNS, silence_of_row};

pub(crate) const CREATE: &str = "
CREATE TABLE silences (
    silence_id TEXT PRIMARY KEY,
    matchers TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    comment TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    expired_by TEXT
);
CREATE INDEX silences_by_end ON silences (ends_at, silence_id);
";

pub(crate) const DROP: &str = "DROP TABLE IF EXISTS silences;";

pub(crate) fn apply(
    transaction: &Transaction<'_>,
    decoded: &Decoded,
    starts: &Starts,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    for record in decoded.events_from(starts) {
        if SilenceFact::is_told_by(record.event.event_type.as_str()) {
            match SilenceFact::of_event(&record.event) {
                Ok(Some(fact)) => keep(transaction, &fact)?,
                Ok(None) => {}
                Err(_) => {
                    tally.skip("not a fact about a silence");
                    continue;
                }
            }
        }
        tally.applied += 1;
    }
    Ok(())
}

fn keep(transaction: &Transaction<'_>, fact: &SilenceFact) -> rusqlite::Result<()> {
    let current = find(transaction, fact.id())?;
    let Some(next) = silence::folded(current.as_ref(), fact) else { return Ok(()) };
    transaction
        .prepare_cached(
            "INSERT INTO silences
                 (silence_id, matchers, starts_at, ends_at, created_by, comment, updated_at, expired_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (silence_id) DO UPDATE SET matchers = excluded.matchers, starts_at = excluded.starts_at,
                 ends_at = excluded.ends_at, created_by = excluded.created_by, comment = excluded.comment,
                 updated_at = excluded.updated_at, expired_by = excluded.expired_by",
        )?
        .execute(params![
            next.id.to_string(),
            next.matchers.to_string(),
            next.starts_at.as_micros(),
            next.ends_at.as_micros(),
            next.created_by,
            next.comment,
            next.updated_at.as_micros(),
            next.expired_by,
        ])?;
    Ok(())
}

fn find(transaction: &Transaction<'_>, id: SilenceId) -> rusqlite::Result<Option<Silence>> {
    transaction
        .prepare_cached(&format!("SELECT {SILENCE_COLUMNS} FROM silences WHERE silence_id = ?1"))?
        .query_row([id.to_string()], silence_of_row)
        .optional()
}

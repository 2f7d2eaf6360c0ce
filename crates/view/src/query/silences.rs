//! Silences: those that wait or are in force, and those that are over.

use farol_alert::silence::{MAX_SILENCES, Silence, SilenceId, SilenceState};
use farol_event::{Alert, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::query::alerts::{ALERT_COLUMNS, alert_of_row};
use crate::query::condition::Conditions;
use crate::query::{Queries, cursor, instant, page_size, sql_limit, unreadable};

/// The default number of silences on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of silences on a page.
pub const MAX_LIMIT: usize = 1000;
/// How many firing alerts are looked at together.
pub const MAX_FIRING: usize = 10_000;

/// The columns that [`silence_of_row`] reads.
pub(crate) const SILENCE_COLUMNS: &str =
    "silence_id, matchers, starts_at, ends_at, created_by, comment, updated_at, expired_by";

/// Which silences are listed.
#[derive(Debug, Clone)]
pub struct SilenceFilter {
    /// Now: what is over and what isn't.
    pub now: Timestamp,
    /// In one of these states; empty: any.
    pub states: Vec<SilenceState>,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// A silence as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SilenceRow {
    /// The silence.
    #[serde(flatten)]
    pub silence: Silence,
    /// Where it stands.
    pub state: SilenceState,
}

impl SilenceRow {
    /// A silence as it stands at `now`.
    pub fn new(silence: Silence, now: Timestamp) -> Self {
        let state = silence.state(now);
        Self { silence, state }
    }
}

/// A page of silences, the one that ends last first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SilencePage {
    /// The silences.
    pub silences: Vec<SilenceRow>,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// What the cursors of the list of silences are called.
const CURSOR: &str = "silences";

impl Queries<'_> {
    /// The silences that fit the filter.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn silences(&self, filter: &SilenceFilter) -> Result<SilencePage, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let mut conditions = filter.conditions();
        if let Some(text) = &filter.cursor {
            conditions.and("(ends_at, silence_id) < (?, ?)", cursor::decode::<2>(CURSOR, text)?);
        }
        let sql = format!(
            "SELECT {SILENCE_COLUMNS} FROM silences {} ORDER BY ends_at DESC, silence_id DESC LIMIT ?",
            conditions.sql()
        );
        let values = conditions.values_and([sql_limit(limit + 1)]);
        let mut silences = self.rows(&sql, values, silence_of_row).map_err(self.failed("silences"))?;
        let more = silences.len() > limit;
        silences.truncate(limit);
        let next_cursor = silences.last().filter(|_| more).map(|last| {
            cursor::encode(
                CURSOR,
                &[Value::Integer(last.ends_at.as_micros()), Value::Text(last.id.to_string())],
            )
        });
        let silences = silences.into_iter().map(|silence| SilenceRow::new(silence, filter.now)).collect();
        Ok(SilencePage { silences, next_cursor })
    }

    /// The silence of that id.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn silence(&self, id: SilenceId) -> Result<Option<Silence>, ViewError> {
        let sql = format!("SELECT {SILENCE_COLUMNS} FROM silences WHERE silence_id = ?");
        let found = self.rows(&sql, vec![Value::Text(id.to_string())], silence_of_row);
        Ok(found.map_err(self.failed("silences"))?.pop())
    }

    /// Every silence that ends after `after`, the soonest first; [`MAX_SILENCES`] at most.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn silences_ending_after(&self, after: Timestamp) -> Result<Vec<Silence>, ViewError> {
        let sql = format!(
            "SELECT {SILENCE_COLUMNS} FROM silences WHERE ends_at > ? ORDER BY ends_at, silence_id LIMIT ?"
        );
        let values = vec![Value::Integer(after.as_micros()), sql_limit(MAX_SILENCES)];
        self.rows(&sql, values, silence_of_row).map_err(self.failed("silences"))
    }

    /// Every firing alert, by id; [`MAX_FIRING`] at most.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn firing_alerts(&self) -> Result<Vec<Alert>, ViewError> {
        let sql =
            format!("SELECT {ALERT_COLUMNS} FROM alerts WHERE status = 'firing' ORDER BY alert_id LIMIT ?");
        self.rows(&sql, vec![sql_limit(MAX_FIRING)], alert_of_row).map_err(self.failed("alerts"))
    }
}

impl SilenceFilter {
    fn conditions(&self) -> Conditions {
        let mut conditions = Conditions::default();
        if self.states.is_empty() {
            return conditions;
        }
        let now = || Value::Integer(self.now.as_micros());
        let (mut clauses, mut values) = (Vec::new(), Vec::new());
        for state in &self.states {
            match state {
                SilenceState::Expired => {
                    clauses.push("ends_at <= ?");
                    values.push(now());
                }
                SilenceState::Active => {
                    clauses.push("(starts_at <= ? AND ends_at > ?)");
                    values.extend([now(), now()]);
                }
                SilenceState::Pending => {
                    clauses.push("(starts_at > ? AND ends_at > ?)");
                    values.extend([now(), now()]);
                }
            }
        }
        conditions.and(format!("({})", clauses.join(" OR ")), values);
        conditions
    }
}

/// Reads the columns of [`SILENCE_COLUMNS`].
pub(crate) fn silence_of_row(row: &Row<'_>) -> rusqlite::Result<Silence> {
    let text = |column: usize| row.get::<_, String>(column);
    Ok(Silence {
        id: text(0)?.parse().map_err(|error| unreadable(0, error))?,
        matchers: text(1)?.parse().map_err(|error| unreadable(1, error))?,
        starts_at: instant(row, 2)?,
        ends_at: instant(row, 3)?,
        created_by: text(4)?,
        comment: text(5)?,
        updated_at: instant(row, 6)?,
        expired_by: row.get(7)?,
    })
}

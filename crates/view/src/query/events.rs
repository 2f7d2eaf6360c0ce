//! Events of topics `system-events` and `alerts` by time, source, type and correlation id.

use farol_event::{Event, EventType, Position, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::Serialize;
use uuid::Uuid;

use crate::error::ViewError;
use crate::query::condition::Conditions;
use crate::query::{Queries, cursor, page_size, sql_limit, unreadable};

/// The default number of events on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of events on a page.
pub const MAX_LIMIT: usize = 1000;

/// Which events are listed.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// From exactly this source.
    pub source: Option<String>,
    /// Of exactly this type.
    pub event_type: Option<String>,
    /// At or after this instant.
    pub from: Option<Timestamp>,
    /// At or before this instant.
    pub to: Option<Timestamp>,
    /// Tied together by this id.
    pub correlation_id: Option<Uuid>,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// A page of events, newest first.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

impl Queries<'_> {
    /// The events that fit the filter, newest first. Heartbeats (`consumidor_pulsou`, `produtor_pulsou`) are not among them:
    /// they are folded into the health of consumers and producers.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn events(&self, filter: &EventFilter) -> Result<EventPage, ViewError> {
        self.events_where(filter, filter.conditions())
    }

    /// The newest `limit` events that fit the filter and are no collected metrics, which would be nearly all of a service's.
    pub(crate) fn events_but_metrics(
        &self,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<Vec<Event>, ViewError> {
        let mut conditions = filter.conditions();
        let metrics = [EventType::METRIC_COLLECTED, EventType::POLICY_MEASURED];
        let metrics = metrics.map(|event_type| Value::Text(event_type.as_str().to_owned()));
        conditions.and("type NOT IN (?, ?)", metrics);
        let filter = EventFilter { limit: Some(limit), ..filter.clone() };
        Ok(self.events_where(&filter, conditions)?.events)
    }

    /// The event at one place of the log, if the view still has it.
    pub(crate) fn event_at(&self, position: &Position) -> Result<Option<Event>, ViewError> {
        let place = vec![
            Value::Text(position.topic.to_string()),
            Value::Integer(position.partition.into()),
            Value::Integer(position.offset),
        ];
        let sql = "SELECT body FROM events WHERE topic = ? AND partition = ? AND offset = ?";
        self.rows(sql, place, event_of_row).map(|mut found| found.pop()).map_err(self.failed("events"))
    }

    fn events_where(&self, filter: &EventFilter, mut conditions: Conditions) -> Result<EventPage, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        if let Some(text) = &filter.cursor {
            conditions
                .and("(time, topic, partition, offset) < (?, ?, ?, ?)", cursor::decode::<4>(CURSOR, text)?);
        }
        let sql = format!(
            "SELECT body, time, topic, partition, offset FROM events {}
             ORDER BY time DESC, topic DESC, partition DESC, offset DESC LIMIT ?",
            conditions.sql()
        );
        let mut rows = self
            .rows(&sql, conditions.values_and([sql_limit(limit + 1)]), |row| {
                let event = event_of_row(row)?;
                let key = [
                    Value::Integer(row.get(1)?),
                    Value::Text(row.get(2)?),
                    Value::Integer(row.get(3)?),
                    Value::Integer(row.get(4)?),
                ];
                Ok((event, key))
            })
            .map_err(self.failed("events"))?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|(_, key)| cursor::encode(CURSOR, key));
        Ok(EventPage { events: rows.into_iter().map(|(event, _)| event).collect(), next_cursor })
    }
}

/// The event in the first column.
fn event_of_row(row: &Row<'_>) -> rusqlite::Result<Event> {
    let body = row.get_ref(0)?.as_str()?;
    Event::parse_kept(body.as_bytes()).map_err(|error| unreadable(0, error))
}

/// What the cursors of the list of events are called.
const CURSOR: &str = "events";

impl EventFilter {
    fn conditions(&self) -> Conditions {
        let micros = |at: Timestamp| Value::Integer(at.as_micros());
        let mut conditions = Conditions::default();
        conditions.and_if("source = ?", self.source.clone());
        conditions.and_if("type = ?", self.event_type.clone());
        conditions.and_if("time >= ?", self.from.map(micros));
        conditions.and_if("time <= ?", self.to.map(micros));
        conditions.and_if("correlation_id = ?", self.correlation_id.map(|id| id.to_string()));
        conditions
    }
}

//! Events of topics `system-events` and `alerts` by time, source, type and correlation id.

use farol_event::{Event, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use crate::error::ViewError;
use crate::query::Queries;

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
        todo!()
    }
}

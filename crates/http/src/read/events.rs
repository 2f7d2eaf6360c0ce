//! `GET /api/events`.

use axum::extract::State;
use axum::response::Response;
use farol_event::Timestamp;
use farol_view::query::events::{EventFilter, EventPage};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::app::App;
use crate::extract::Parameters;
use crate::openapi::GetProblems;
use crate::problem::Problem;
use crate::read;

/// Which events are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// From exactly this source.
    source: Option<String>,
    /// Of exactly this type.
    #[serde(rename = "type")]
    #[param(example = "servico_iniciado")]
    event_type: Option<String>,
    /// At or after this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// At or before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Tied together by this id.
    correlation_id: Option<Uuid>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// List events, newest first.
///
/// Heartbeats of consumers and producers are not among them; see the health of consumers and producers.
#[utoipa::path(
    get,
    path = "/api/events",
    tag = "events",
    params(EventsQuery),
    responses((status = 200, description = "A page of events", body = EventPage), GetProblems)
)]
pub async fn list_events(
    State(app): State<App>,
    Parameters(query): Parameters<EventsQuery>,
) -> Result<Response, Problem> {
    let filter = EventFilter {
        source: query.source,
        event_type: query.event_type,
        from: query.from,
        to: query.to,
        correlation_id: query.correlation_id,
        limit: query.limit,
        cursor: read::cursor(query.cursor),
    };
    read::ask(&app, move |queries| queries.events(&filter)).await
}

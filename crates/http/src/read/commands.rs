//! Commands and what became of them: `POST /api/alerts/{id}/acknowledge`, `GET /status/{correlation_id}`.
//!
//! A command is an event like any other: it is appended to the log, the view of alerts applies it, and the answer waits
//! (for a bounded time) until the view has passed it. The correlation id of the answer stands in the event too, so that
//! anybody can later ask what became of the command, on this server or after a restart.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farol_alert::AcknowledgeRefused;
use farol_bus::ProducerRecord;
use farol_event::{Alert, AlertId, AlertTransition, Event, EventType, Timestamp};
use farol_registry::Catalogue;
use farol_registry::record::KEPT;
use farol_view::query::events::EventFilter;
use farol_view::{Queries, ViewError, ViewName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::extract::{Json, Path};
use crate::openapi::{AcknowledgeProblems, ItemProblems};
use crate::problem::Problem;
use crate::read;
use crate::read::alerts::no_such_alert;

/// How many events of one command are looked at, the newest.
const EVENTS_LOOKED_AT: usize = 100;

/// Who acknowledges.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcknowledgeRequest {
    /// Who, as they name themselves.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$",
        example = "ana"
    )]
    by: String,
    /// What they say.
    #[schema(
        max_length = 4096,
        pattern = "^[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f]*$",
        example = "fan replaced"
    )]
    #[serde(default)]
    comment: Option<String>,
}

/// An acknowledged alert.
#[derive(Debug, Serialize, ToSchema)]
pub struct Acknowledged {
    /// The alert as it stands.
    pub alert: Alert,
    /// Ties together what belongs to this command; see `GET /status/{correlation_id}`.
    pub correlation_id: Uuid,
}

/// A command under way.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandAccepted {
    /// Ask `GET /status/{correlation_id}` what became of it.
    pub correlation_id: Uuid,
}

/// Acknowledge an alert.
///
/// Answers 200 when the alert shows it, or 202 when the acknowledgement is durable but not shown yet.
#[utoipa::path(
    post,
    path = "/api/alerts/{id}/acknowledge",
    tag = "alerts",
    params(("id" = Uuid, Path, description = "The alert's id")),
    request_body = AcknowledgeRequest,
    responses(
        (status = 200, description = "Acknowledged", body = Acknowledged),
        (status = 202, description = "Durable, not shown yet", body = CommandAccepted),
        AcknowledgeProblems,
    )
)]
pub async fn acknowledge_alert(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    Json(request): Json<AcknowledgeRequest>,
) -> Result<Response, Problem> {
    let alert = alert(&app, id).await?;
    let now = app.now();
    let transition = farol_alert::acknowledge(&alert, &request.by, request.comment.as_deref(), now)?;
    let correlation_id = Uuid::now_v7();
    let applied = append(&app, &transition, correlation_id, now).await?;
    if !applied {
        return Ok((StatusCode::ACCEPTED, JsonAnswer(CommandAccepted { correlation_id })).into_response());
    }
    let alert = self::alert(&app, id).await?;
    // Two who acknowledge at the same time both find the alert free; the log decides who was first.
    match &alert.acknowledgement {
        Some(first) if Some(first) != transition.acknowledgement.as_ref() => {
            Err(AcknowledgeRefused::Already { id: alert.id, first: first.clone() }.into())
        }
        _ => Ok(JsonAnswer(Acknowledged { alert, correlation_id }).into_response()),
    }
}

async fn alert(app: &App, id: Uuid) -> Result<Alert, Problem> {
    app.store().query(move |queries| queries.alert(AlertId(id))).await?.ok_or_else(|| no_such_alert(id))
}

/// Appends the transition; whether the views show it already.
async fn append(
    app: &App,
    transition: &AlertTransition,
    correlation_id: Uuid,
    now: Timestamp,
) -> Result<bool, Problem> {
    let event = farol_alert::to_event(transition, Some(correlation_id));
    let key = Bytes::copy_from_slice(transition.alert.series.as_bytes());
    let record = ProducerRecord::new(key, event.to_json(), now);
    app.append_for_view(&app.topics().alerts, record, ViewName::Alerts).await
}

impl From<AcknowledgeRefused> for Problem {
    fn from(refused: AcknowledgeRefused) -> Self {
        match refused {
            AcknowledgeRefused::By | AcknowledgeRefused::Comment => Problem::bad_request(refused.to_string()),
            AcknowledgeRefused::Already { .. } | AcknowledgeRefused::Ended { .. } => {
                Problem::conflict(refused.to_string())
            }
        }
    }
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommandState {
    /// It has been taken and not finished.
    Pending,
    /// It is done.
    Completed,
    /// It failed.
    Failed,
}

/// What became of a command.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandStatus {
    /// The command's correlation id.
    pub correlation_id: Uuid,
    /// Where it stands.
    pub status: CommandState,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Map<String, Value>>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Ask what became of a command.
///
/// A command is known by its events: an acknowledgement by `alerta_reconhecido`, a transaction by `transacao_iniciada`,
/// `transacao_completada` and `transacao_falhada`, one about a watched service by what was told of it (`servico_registrado`,
/// `servico_removido`, `servico_pulsou`, `servico_em_manutencao`, `servico_em_operacao`), and a change of a simulated service, which is
/// completed when its simulator says so, by `simulacao_alterada` and `simulacao_aplicada`. One that has been appended a moment ago may
/// not be known yet.
#[utoipa::path(
    get,
    path = "/status/{correlation_id}",
    tag = "status",
    params(("correlation_id" = Uuid, Path, description = "The command's correlation id")),
    responses((status = 200, description = "What became of it", body = CommandStatus), ItemProblems)
)]
pub async fn command_status(
    State(app): State<App>,
    Path(correlation_id): Path<Uuid>,
) -> Result<Response, Problem> {
    let catalogue = app.control().catalogue();
    let found = read::ask_for(&app, move |queries| {
        let filter = EventFilter {
            correlation_id: Some(correlation_id),
            limit: Some(EVENTS_LOOKED_AT),
            ..EventFilter::default()
        };
        let events = queries.events(&filter)?.events;
        if events.is_empty() {
            return Ok(None);
        }
        status_of(queries, &catalogue, correlation_id, &events).map(Some)
    });
    found.await?.ok_or_else(|| {
        Problem::not_found(format!("no command with correlation id {correlation_id} is known"))
    })
}

/// Reads a command's state off its events.
fn status_of(
    queries: &Queries<'_>,
    catalogue: &Catalogue,
    correlation_id: Uuid,
    events: &[Event],
) -> Result<CommandStatus, ViewError> {
    let status = |status, result, error| CommandStatus { correlation_id, status, result, error };
    let of_type = |event_type: EventType| events.iter().find(|event| event.event_type == event_type);
    if let Some(event) = of_type(EventType::ALERT_ACKNOWLEDGED)
        && let Ok(given) = farol_alert::from_event(event)
    {
        let stands = queries.alert(given.alert.id)?;
        let first = stands.as_ref().and_then(|alert| alert.acknowledgement.as_ref());
        return Ok(match (first, &stands) {
            (None, _) | (_, None) => status(CommandState::Pending, None, None),
            (Some(first), Some(alert)) if Some(first) == given.acknowledgement.as_ref() => {
                let mut result = Map::new();
                result.insert("alert".to_owned(), serde_json::to_value(alert).unwrap_or_default());
                status(CommandState::Completed, Some(result), None)
            }
            (Some(first), Some(_)) => {
                let error = format!("acknowledged by {} before", first.by);
                status(CommandState::Failed, None, Some(error))
            }
        });
    }
    if let Some(event) = of_type(EventType::TRANSACTION_COMPLETED) {
        return Ok(status(CommandState::Completed, Some(event.data.clone()), None));
    }
    if let Some(event) = of_type(EventType::TRANSACTION_FAILED) {
        let error = event.data.get("error").and_then(Value::as_str).unwrap_or("the transaction failed");
        return Ok(status(CommandState::Failed, Some(event.data.clone()), Some(error.to_owned())));
    }
    Ok(match about_service(catalogue, events) {
        Some((state, told)) => {
            let told = serde_json::to_value(told).unwrap_or_default();
            status(state, Some(Map::from_iter([("event".to_owned(), told)])), None)
        }
        None => status(CommandState::Pending, None, None),
    })
}

/// Where a command about a watched service stands, and what was told of it last.
fn about_service<'a>(catalogue: &Catalogue, events: &'a [Event]) -> Option<(CommandState, &'a Event)> {
    let of = |types: &[EventType]| events.iter().find(|event| types.contains(&event.event_type));
    if let Some(told) = of(&SERVICE_COMMANDS) {
        // Told when it is durable; in force when the watch has come to its record.
        let in_force = told
            .extensions
            .get(KEPT)
            .and_then(Value::as_i64)
            .is_none_or(|offset| catalogue.has_applied(offset));
        return Some((if in_force { CommandState::Completed } else { CommandState::Pending }, told));
    }
    let applied = of(&[EventType::SIMULATION_APPLIED]).map(|told| (CommandState::Completed, told));
    applied.or_else(|| of(&[EventType::SIMULATION_CHANGED]).map(|told| (CommandState::Pending, told)))
}

/// What is told of a watched service because of a command.
const SERVICE_COMMANDS: [EventType; 5] = [
    EventType::SERVICE_REGISTERED,
    EventType::SERVICE_REMOVED,
    EventType::SERVICE_HEARTBEAT,
    EventType::MAINTENANCE_STARTED,
    EventType::MAINTENANCE_ENDED,
];

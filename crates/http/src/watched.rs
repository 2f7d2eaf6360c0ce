//! Which services are watched, heartbeats, maintenance, and commands to simulated services.
//!
//! Each command is a fact: it is appended to topic `services` (what has to survive a restart) and told as an event on
//! `system-events`, and answered when both are durable: 200 when it is in force, 202 when it is not yet. Between the two appends a
//! crash may lose the event, never the fact; sending the command again tells it.
//!
//! Whoever may register checks chooses addresses that Farol calls from where it runs. So by default such checks go to loopback
//! only ([`farol_registry::Reach`]), whatever a name or a redirect says, and nothing of what was answered is shown but the status;
//! the operator can open that (`checks.api_targets`), and defines further services in the settings file.

#![expect(
    unused_qualifications,
    reason = "the macro of utoipa writes a path out for each `params(WatchedPath)`"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farol_alert::acknowledge::MAX_BY_BYTES;
use farol_bus::ProducerRecord;
use farol_event::service::{Maintenance as MaintenanceTold, Reason, SimulationChanged};
use farol_event::{DurationText, Event, EventType, Timestamp};
use farol_registry::record::{Content, KEPT, TOPIC};
use farol_registry::{Maintenance, Origin, Record, Refusal, ServiceDefinition, ServiceId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::extract::{Json, Path};
use crate::openapi::{AcknowledgeProblems, CommandProblems};
use crate::problem::Problem;
use crate::read::commands::CommandAccepted;

/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// A service as it is watched now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Watched {
    /// Its name.
    pub id: String,
    /// Who said so.
    pub origin: Origin,
    /// Its labels and checks, with everything that was left out filled in.
    #[serde(flatten)]
    pub definition: ServiceDefinition,
    /// Ties together what belongs to this command; see `GET /status/{correlation_id}`.
    pub correlation_id: Uuid,
}

/// Which service, for the API's description; it is parsed as a [`ServiceId`].
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its schema is used; whoever writes another name is told what a name is")]
struct WatchedPath {
    /// The service's name.
    #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    id: String,
}

/// Planned work.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// Who, as they name themselves.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f][^\\x00-\\x1f\\x7f-\\x9f]*$",
        example = "ana"
    )]
    by: String,
    /// Why.
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$", example = "new disk")]
    #[serde(default)]
    reason: Option<String>,
    /// After which time it ends by itself; when somebody says so, without it.
    #[schema(value_type = Option<String>, pattern = "^[1-9][0-9]{0,2}[smh]$", example = "30m")]
    #[serde(default, rename = "for")]
    lasts: Option<DurationText>,
}

/// Have a service watched.
///
/// What is absent from a check has its default. A service that is watched already is watched like this from now on; checks that stay
/// as they are keep their state. Answers 200 when it is watched, or 202 when that is durable and not in force yet.
#[utoipa::path(
    put,
    path = "/api/services/{id}",
    tag = "services",
    params(WatchedPath),
    request_body = ServiceDefinition,
    responses(
        (status = 200, description = "It is watched", body = Watched),
        (status = 202, description = "Durable, not in force yet", body = CommandAccepted),
        AcknowledgeProblems,
    )
)]
pub async fn put_service(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(definition): Json<ServiceDefinition>,
) -> Result<Response, Problem> {
    let id = service_id(&id)?;
    let catalogue = app.control().catalogue();
    catalogue.may_define(&id, &definition)?;
    let definition = Arc::new(definition);
    let content = Content::Definition(Some((Origin::Api, Arc::clone(&definition))));
    let told = (EventType::SERVICE_REGISTERED, definition.registration());
    let (correlation_id, in_force) = command(&app, &id, vec![content], told).await?;
    if !in_force {
        return answer((correlation_id, false));
    }
    let definition = Arc::unwrap_or_clone(definition);
    let watched = Watched { id: id.to_string(), origin: Origin::Api, definition, correlation_id };
    Ok(JsonAnswer(watched).into_response())
}

/// End the watch over a service.
///
/// An outage that was told ends with it. What was recorded about the service stays. Services of the settings file stay watched.
#[utoipa::path(
    delete,
    path = "/api/services/{id}",
    tag = "services",
    params(WatchedPath),
    responses(
        (status = 200, description = "It is not watched any more", body = CommandAccepted),
        (status = 202, description = "Durable, not in force yet", body = CommandAccepted),
        CommandProblems,
    )
)]
pub async fn delete_service(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = service_id(&id)?;
    app.control().catalogue().may_remove(&id)?;
    let contents = vec![Content::Maintenance(None), Content::Heartbeat(None), Content::Definition(None)];
    answer(command(&app, &id, contents, (EventType::SERVICE_REMOVED, Reason::default())).await?)
}

/// Say that a service lives.
///
/// For services with a check that has a `ttl`: the next heartbeat must come within it.
#[utoipa::path(
    post,
    path = "/api/services/{id}/heartbeat",
    tag = "services",
    params(WatchedPath),
    responses(
        (status = 200, description = "Heard", body = CommandAccepted),
        (status = 202, description = "Durable, not heard yet", body = CommandAccepted),
        CommandProblems,
    )
)]
pub async fn service_heartbeat(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = service_id(&id)?;
    app.control().catalogue().may_beat(&id)?;
    let content = Content::Heartbeat(Some(app.now()));
    answer(command(&app, &id, vec![content], (EventType::SERVICE_HEARTBEAT, Reason::default())).await?)
}

/// Begin maintenance of a service, watched or not.
///
/// Its checks go on; an outage that begins is told only if it outlasts the maintenance. It ends when its time is up, if it has one, also
/// across restarts.
#[utoipa::path(
    post,
    path = "/api/services/{id}/maintenance",
    tag = "services",
    params(WatchedPath),
    request_body = MaintenanceRequest,
    responses(
        (status = 200, description = "It is in maintenance", body = CommandAccepted),
        (status = 202, description = "Durable, not in force yet", body = CommandAccepted),
        AcknowledgeProblems,
    )
)]
pub async fn begin_maintenance(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(request): Json<MaintenanceRequest>,
) -> Result<Response, Problem> {
    let id = service_id(&id)?;
    let MaintenanceRequest { by, reason, lasts } = request;
    let plain = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
    if by.trim().is_empty() || !plain(&by, MAX_BY_BYTES) {
        return Err(Problem::bad_request(format!(
            "`by` must say who, in at most {MAX_BY_BYTES} bytes without control characters"
        )));
    }
    if reason.as_deref().is_some_and(|reason| !plain(reason, MAX_REASON_BYTES)) {
        return Err(Problem::bad_request(format!(
            "`reason` must have at most {MAX_REASON_BYTES} bytes and no control characters"
        )));
    }
    if lasts.is_some_and(|lasts| lasts.get() < Duration::from_secs(1)) {
        return Err(Problem::bad_request("`for` must be at least 1s"));
    }
    let catalogue = app.control().catalogue();
    if let Err(unknown) = catalogue.known(&id) {
        let name = id.to_string();
        if !app.store().query(move |queries| queries.service_is_known(&name)).await? {
            return Err(unknown.into());
        }
    }
    catalogue.may_maintain(&id)?;
    let until = lasts.map(|lasts| app.now().saturating_add(lasts.get()));
    let told = MaintenanceTold { reason: reason.clone(), by: Some(by.clone()), until };
    let content = Content::Maintenance(Some(Maintenance { by, reason, until }));
    answer(command(&app, &id, vec![content], (EventType::MAINTENANCE_STARTED, told)).await?)
}

/// End maintenance of a service, watched or not.
///
/// An outage that goes on is told now.
#[utoipa::path(
    delete,
    path = "/api/services/{id}/maintenance",
    tag = "services",
    params(WatchedPath),
    responses(
        (status = 200, description = "Its maintenance is over", body = CommandAccepted),
        (status = 202, description = "Durable, not in force yet", body = CommandAccepted),
        CommandProblems,
    )
)]
pub async fn end_maintenance(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = service_id(&id)?;
    let name = id.to_string();
    // The view may know of one that the watch doesn't: it was told by an event, and there were too many.
    let is_maintained = app.control().catalogue().maintenance(&id).is_some()
        || app.store().query(move |queries| queries.service_is_in_maintenance(&name)).await?;
    if !is_maintained {
        return Err(Problem::conflict(format!("`{id}` is not in maintenance")));
    }
    let told = (EventType::MAINTENANCE_ENDED, Reason::default());
    answer(command(&app, &id, vec![Content::Maintenance(None)], told).await?)
}

/// Have a simulated service behave otherwise.
///
/// What is absent stays as it is. The simulator hears of it on the live stream and says with a `simulacao_aplicada` event of the same
/// correlation id what is in force.
#[utoipa::path(
    patch,
    path = "/api/services/{id}/simulation",
    tag = "services",
    params(WatchedPath),
    request_body = SimulationChanged,
    responses(
        (status = 202, description = "Durable; the simulator is told", body = CommandAccepted),
        AcknowledgeProblems,
    )
)]
pub async fn change_simulation(
    State(app): State<App>,
    Path(id): Path<String>,
    Json(change): Json<SimulationChanged>,
) -> Result<Response, Problem> {
    let id = service_id(&id)?;
    change.validate().map_err(|problem| Problem::bad_request(format!("in the body, whose {problem}")))?;
    if change == SimulationChanged::default() {
        return Err(Problem::bad_request("the body changes nothing"));
    }
    let entry = app.control().catalogue().known(&id)?;
    if !entry.definition.labels.contains_key(SIMULATED) {
        return Err(Problem::conflict(format!("`{id}` is not simulated: it has no label `{SIMULATED}`")));
    }
    let (correlation_id, _) = command(&app, &id, Vec::new(), (EventType::SIMULATION_CHANGED, change)).await?;
    answer((correlation_id, false))
}

/// The label of services that are simulated.
const SIMULATED: &str = "simulated";

fn service_id(text: &str) -> Result<ServiceId, Problem> {
    text.parse().map_err(|error| Problem::bad_request(format!("in the path: {error}")))
}

fn answer((correlation_id, in_force): (Uuid, bool)) -> Result<Response, Problem> {
    let status = if in_force { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, JsonAnswer(CommandAccepted { correlation_id })).into_response())
}

/// Appends the facts, waits a bounded time until they are in force, and tells of them; whether they are in force. All of it happens
/// even if whoever asked has gone.
async fn command(
    app: &App,
    id: &ServiceId,
    contents: Vec<Content>,
    (event_type, data): (EventType, impl Serialize),
) -> Result<(Uuid, bool), Problem> {
    let correlation_id = Uuid::now_v7();
    let mut event = Event::new(Uuid::now_v7(), app.now(), event_type, id.as_str(), &data);
    event.correlationid = Some(correlation_id);
    let carried_out = tokio::spawn(carry_out(app.clone(), id.clone(), contents, event));
    let in_force =
        carried_out.await.map_err(|error| Problem::internal("carrying the command out", &error))??;
    Ok((correlation_id, in_force))
}

async fn carry_out(
    app: App,
    id: ServiceId,
    contents: Vec<Content>,
    mut event: Event,
) -> Result<bool, Problem> {
    let now = app.now();
    let id = &id;
    let records: Vec<_> = contents.into_iter().map(|content| record(id, content, now)).collect();
    let mut last = None;
    if !records.is_empty() {
        last = app.producer().send(TOPIC, records).await?.last().map(|stored| stored.offset);
    }
    event.extensions.extend(last.map(|offset| (KEPT.to_owned(), offset.into())));
    let in_force = match last {
        Some(offset) => {
            app.control().catalogue().wait_applied(offset, app.limits().acknowledge_timeout).await
        }
        None => true,
    };
    // Told last and with this time, so that what checks found before it is older: a service that was removed is not heard of again.
    event.time = app.now();
    let key = Bytes::copy_from_slice(id.as_str().as_bytes());
    let told = ProducerRecord::new(key, event.to_json(), event.time);
    app.producer().send(&app.topics().system_events, vec![told]).await?;
    Ok(in_force)
}

fn record(id: &ServiceId, content: Content, now: Timestamp) -> ProducerRecord {
    let record = Record { service: id.clone(), content };
    let mut out = ProducerRecord::new(record.key().into_bytes(), Bytes::new(), now);
    out.value = record.value(now).map(Bytes::from);
    out
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::NotAllowed | Refusal::TooFar { .. } => Problem::bad_request(detail),
            Refusal::InSettings(_)
            | Refusal::Full
            | Refusal::TooMuchMaintenance
            | Refusal::NoHeartbeat(_) => Problem::conflict(detail),
            Refusal::Unknown(_) => Problem::not_found(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use farol_registry::id::{MAX_SERVICE_ID_BYTES, NAME_PATTERN};
    use utoipa::openapi::path::ParameterIn;

    use super::*;

    #[test]
    fn the_description_says_of_names_what_the_registry_takes() {
        let described = WatchedPath::into_params(|| Some(ParameterIn::Path));
        let described = serde_json::to_value(described).unwrap();
        assert_eq!(described[0]["schema"]["pattern"], NAME_PATTERN);
        assert_eq!(described[0]["schema"]["maxLength"], MAX_SERVICE_ID_BYTES);
    }
}

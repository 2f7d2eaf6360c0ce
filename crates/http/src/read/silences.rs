//! Silences: `GET` and `POST /api/silences`, `GET` and `DELETE /api/silences/{id}`.
//!
//! Like any command, a silence is an event that is appended to the log; the answer waits (for a bounded time) until the view has it.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use farol_alert::SilenceFact;
use farol_alert::silence::{
    self, MAX_SILENCES, NewSilence, Silence, SilenceId, SilenceRefused, SilenceState,
};
use farol_bus::ProducerRecord;
use farol_event::{DurationText, Timestamp};
use farol_matcher::Matchers;
use farol_view::ViewName;
use farol_view::query::silences::{SilenceFilter, SilencePage, SilenceRow};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::extract::{Json, Parameters, Path};
use crate::openapi::{CommandProblems, GetProblems, ItemProblems, PostProblems};
use crate::problem::Problem;
use crate::read;

/// Which silences are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SilencesQuery {
    /// In one of these states, separated by commas.
    #[param(pattern = "^(pending|active|expired)(,(pending|active|expired))*$", example = "active,pending")]
    state: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// List silences, the one that ends last first.
#[utoipa::path(
    get,
    path = "/api/silences",
    tag = "alerts",
    params(SilencesQuery),
    responses((status = 200, description = "A page of silences", body = SilencePage), GetProblems)
)]
pub async fn list_silences(
    State(app): State<App>,
    Parameters(query): Parameters<SilencesQuery>,
) -> Result<Response, Problem> {
    let state = |text: &str| {
        [SilenceState::Pending, SilenceState::Active, SilenceState::Expired]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                Problem::bad_request(
                    "`state` must be a list, separated by commas, of pending, active, expired",
                )
            })
    };
    let states = query.state.as_deref().map_or_else(
        || Ok(Vec::new()),
        |list| list.split(',').map(|part| state(part.trim())).collect::<Result<Vec<_>, _>>(),
    )?;
    let filter =
        SilenceFilter { now: app.now(), states, limit: query.limit, cursor: read::cursor(query.cursor) };
    read::ask(&app, move |queries| queries.silences(&filter)).await
}

/// Show one silence.
#[utoipa::path(
    get,
    path = "/api/silences/{id}",
    tag = "alerts",
    params(("id" = Uuid, Path, description = "The silence's id")),
    responses((status = 200, description = "The silence", body = SilenceRow), ItemProblems)
)]
pub async fn get_silence(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let silence = find(&app, SilenceId(id)).await?;
    Ok(JsonAnswer(SilenceRow::new(silence, app.now())).into_response())
}

/// What is to be silenced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    /// Which alerts, by their labels: those of the series, and `alertname` (the rule), `severity`, `series`.
    #[schema(min_length = 1, max_length = 4096, example = "{severity=\"warning\", machine_id=~\"m-.*\"}")]
    matchers: String,
    /// From when on; now if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// Until when; this or `duration`.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    /// For how long from its start.
    #[schema(value_type = Option<String>, example = "2h")]
    duration: Option<DurationText>,
    /// Who silences, as they name themselves.
    #[schema(min_length = 1, max_length = 128, example = "ana")]
    created_by: String,
    /// Why.
    #[schema(min_length = 1, max_length = 4096, example = "the belt is being changed")]
    comment: String,
}

/// Silence alerts.
///
/// Answers 201 when the silence is shown, or 202 when it is durable but not shown yet. It is in force until its end; should the view
/// `silences` be built again after its event has left `system-events` (setting `topics.system-events.retention`), it is in force
/// still, but listed no more and can't be ended: make long silences shorter than that retention, and renew them.
#[utoipa::path(
    post,
    path = "/api/silences",
    tag = "alerts",
    request_body = SilenceRequest,
    responses(
        (status = 201, description = "In force, or waiting for its start", body = SilenceRow),
        (status = 202, description = "Durable, not shown yet", body = SilenceRow),
        PostProblems,
    )
)]
pub async fn create_silence(
    State(app): State<App>,
    Json(request): Json<SilenceRequest>,
) -> Result<Response, Problem> {
    let now = app.now();
    let starts_at = request.starts_at.unwrap_or(now).max(now);
    let ends_at = match (request.ends_at, request.duration) {
        (Some(ends_at), None) => ends_at,
        (None, Some(duration)) => starts_at.saturating_add(duration.get()),
        _ => return Err(Problem::bad_request("one of `ends_at` and `duration` must say how long")),
    };
    let matchers: Matchers =
        request.matchers.parse().map_err(|error| Problem::bad_request(format!("`matchers`: {error}")))?;
    let asked = NewSilence {
        matchers,
        starts_at,
        ends_at,
        created_by: &request.created_by,
        comment: &request.comment,
    };
    let (silence, shown) = create(&app, asked, None).await?;
    let status = if shown { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    Ok((status, JsonAnswer(SilenceRow::new(silence, app.now()))).into_response())
}

/// Who ends a silence.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExpireQuery {
    /// Who, as they name themselves.
    by: Option<String>,
}

/// End a silence before its time.
#[utoipa::path(
    delete,
    path = "/api/silences/{id}",
    tag = "alerts",
    params(("id" = Uuid, Path, description = "The silence's id"), ExpireQuery),
    responses(
        (status = 200, description = "It is over", body = SilenceRow),
        (status = 202, description = "Durable, not shown yet", body = SilenceRow),
        CommandProblems,
    )
)]
pub async fn expire_silence(
    State(app): State<App>,
    Path(id): Path<Uuid>,
    Parameters(query): Parameters<ExpireQuery>,
) -> Result<Response, Problem> {
    let (silence, shown) = expire(&app, SilenceId(id), query.by.as_deref()).await?;
    let status = if shown { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, JsonAnswer(SilenceRow::new(silence, app.now()))).into_response())
}

/// The silence of that id.
pub(crate) async fn find(app: &App, id: SilenceId) -> Result<Silence, Problem> {
    let found = app.store().query(move |queries| queries.silence(id)).await?;
    found.ok_or_else(|| Problem::not_found(format!("there is no silence {id}")))
}

/// Makes a silence, or changes `of`; whether the view shows it already.
pub(crate) async fn create(
    app: &App,
    asked: NewSilence<'_>,
    of: Option<SilenceId>,
) -> Result<(Silence, bool), Problem> {
    let now = app.now();
    if of.is_none() {
        let known = app.store().query(move |queries| queries.silences_ending_after(now)).await?;
        if known.len() >= MAX_SILENCES {
            return Err(SilenceRefused::TooMany.into());
        }
    }
    let silence = silence::create(asked, of.unwrap_or_else(|| SilenceId(Uuid::now_v7())), now)?;
    let shown = append(app, &SilenceFact::Created(silence.clone()), now).await?;
    Ok((silence, shown))
}

/// Ends a silence; as it stands then, and whether the view shows it already.
pub(crate) async fn expire(app: &App, id: SilenceId, by: Option<&str>) -> Result<(Silence, bool), Problem> {
    let (silence, now) = (find(app, id).await?, app.now());
    let fact = silence::expire(&silence, by, now)?;
    let shown = append(app, &fact, now).await?;
    Ok((silence::folded(Some(&silence), &fact).unwrap_or(silence), shown))
}

/// Appends a fact; whether the view shows it already.
async fn append(app: &App, fact: &SilenceFact, now: Timestamp) -> Result<bool, Problem> {
    let event = fact.to_event(Uuid::now_v7(), now);
    let record = ProducerRecord::new(event.source.clone().into_bytes(), event.to_json(), now);
    app.append_for_view(&app.topics().system_events, record, ViewName::Silences).await
}

impl From<SilenceRefused> for Problem {
    fn from(refused: SilenceRefused) -> Self {
        match refused {
            SilenceRefused::Over { .. } => Problem::conflict(refused.to_string()),
            SilenceRefused::TooMany => Problem::busy(refused.to_string()),
            _ => Problem::bad_request(refused.to_string()),
        }
    }
}

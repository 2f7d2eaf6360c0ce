//! `GET` and `POST /api/v2/silences`, `GET` and `DELETE /api/v2/silence/{id}`.

use axum::Json as JsonAnswer;
use axum::extract::FromRequest;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use farol_alert::silence::{NewSilence, Silence, SilenceId, SilenceState};
use farol_event::Timestamp;
use farol_matcher::{Matcher, Matchers, Operator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Refused, filters};
use crate::app::App;
use crate::extract::{Json, Path};
use crate::problem::Problem;
use crate::read::silences as own;

/// For how long a silence that is over is listed, as in Alertmanager (`data.retention`).
const LISTED_AFTER_END: std::time::Duration = std::time::Duration::from_secs(120 * 3600);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MatcherModel {
    name: String,
    value: String,
    is_regex: bool,
    #[serde(default = "yes")]
    is_equal: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize)]
struct Status {
    state: &'static str,
}

/// `gettableSilence`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GettableSilence {
    id: SilenceId,
    status: Status,
    updated_at: Timestamp,
    comment: String,
    created_by: String,
    ends_at: Timestamp,
    matchers: Vec<MatcherModel>,
    starts_at: Timestamp,
}

impl GettableSilence {
    fn new(silence: Silence, now: Timestamp) -> Self {
        let model = |matcher: &Matcher| MatcherModel {
            name: matcher.name().to_owned(),
            value: matcher.value().to_owned(),
            is_regex: matcher.operator().is_regex(),
            is_equal: !matcher.operator().is_negated(),
        };
        Self {
            id: silence.id,
            status: Status { state: silence.state(now).as_str() },
            updated_at: silence.updated_at,
            comment: silence.comment,
            created_by: silence.created_by,
            ends_at: silence.ends_at,
            matchers: silence.matchers.iter().map(model).collect(),
            starts_at: silence.starts_at,
        }
    }
}

/// `postableSilence`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostableSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Vec<MatcherModel>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    created_by: String,
    comment: String,
}

/// Alertmanager's order: what is in force first, then what waits, then what is over; what ends next before what ends later.
pub(crate) async fn list(
    State(app): State<App>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<JsonAnswer<Vec<GettableSilence>>, Refused> {
    let Query(pairs) = query.map_err(|error| Refused::bad_request(error.body_text()))?;
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name != "filter") {
        return Err(Refused::bad_request(format!("there is no parameter `{name}`")));
    }
    let texts: Vec<String> = pairs.into_iter().map(|(_, value)| value).collect();
    let filter = filters(&texts)?;
    let now = app.now();
    let since = now.saturating_sub(LISTED_AFTER_END);
    let silences = app
        .store()
        .query(move |queries| queries.silences_ending_after(since))
        .await
        .map_err(Problem::from)?;
    let mut silences: Vec<Silence> =
        silences.into_iter().filter(|silence| mentions(silence, &filter)).collect();
    silences.sort_by_key(|silence| {
        let order = match silence.state(now) {
            SilenceState::Active => 0,
            SilenceState::Pending => 1,
            SilenceState::Expired => 2,
        };
        (order, silence.ends_at)
    });
    Ok(JsonAnswer(silences.into_iter().map(|silence| GettableSilence::new(silence, now)).collect()))
}

/// Whether the values that a silence is about fit the filter, as Alertmanager sees it: by its own matchers, without regard to how they
/// compare.
fn mentions(silence: &Silence, filter: &Matchers) -> bool {
    filter.hold(|name| {
        let own = silence.matchers.iter().find(|matcher| matcher.name() == name);
        own.map_or("", Matcher::value)
    })
}

/// The id in a path, or why it is none.
type Id = Result<Path<uuid::Uuid>, Problem>;

pub(crate) async fn one(State(app): State<App>, id: Id) -> Result<JsonAnswer<GettableSilence>, Refused> {
    let Path(id) = id?;
    let silence = own::find(&app, SilenceId(id)).await?;
    Ok(JsonAnswer(GettableSilence::new(silence, app.now())))
}

pub(crate) async fn expire(State(app): State<App>, id: Id) -> Result<StatusCode, Refused> {
    let Path(id) = id?;
    own::expire(&app, SilenceId(id), None).await.map_err(|problem| Refused::to_expire(&problem))?;
    Ok(StatusCode::OK)
}

/// Makes a silence, or changes one: if no more than end and comment differ it keeps its id, otherwise it ends and another begins.
pub(crate) async fn save(State(app): State<App>, request: Request) -> Result<JsonAnswer<Value>, Refused> {
    let Json(asked) = Json::<PostableSilence>::from_request(request, &app).await?;
    let invalid = |text: String| Refused::bad_request(format!("silence invalid: {text}"));
    let matcher = |model: &MatcherModel| {
        Matcher::new(&model.name, Operator::new(!model.is_equal, model.is_regex), &model.value)
    };
    let matchers: Vec<Matcher> = asked
        .matchers
        .iter()
        .map(matcher)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(error.to_string()))?;
    let matchers = Matchers::new(matchers).map_err(|error| invalid(error.to_string()))?;
    let (mut kept, mut starts_at) = (None, asked.starts_at);
    let mut replaced = None;
    if let Some(id) = asked.id.as_deref().filter(|id| !id.is_empty()) {
        let id: SilenceId = id.parse().map_err(|_| Refused::bad_request("the id is not a UUID"))?;
        let before = own::find(&app, id).await?;
        let state = before.state(app.now());
        if state == SilenceState::Active && before.matchers == matchers {
            (kept, starts_at) = (Some(id), before.starts_at);
        } else if state != SilenceState::Expired {
            replaced = Some(id);
        }
    }
    let asked = NewSilence {
        matchers,
        starts_at,
        ends_at: asked.ends_at,
        created_by: &asked.created_by,
        comment: &asked.comment,
    };
    let (silence, _) = own::create(&app, asked, kept).await?;
    // Afterwards, so that nothing is told in between.
    if let Some(id) = replaced {
        own::expire(&app, id, None).await?;
    }
    Ok(JsonAnswer(json!({ "silenceID": silence.id })))
}

//! `GET /api/alerts`, `GET /api/alerts/{id}`, `GET /api/recent-alerts`.

use std::str::FromStr;

use axum::extract::State;
use axum::response::Response;
use farol_alert::SilenceId;
use farol_event::{Alert, AlertId, AlertStatus, Severity, Timestamp};
use farol_view::query::alerts::{AlertDetail, AlertFilter};
use farol_view::query::rebalances::Rebalance;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::extract::{Parameters, Path};
use crate::openapi::{GetProblems, ItemProblems};
use crate::problem::Problem;
use crate::read;
use crate::read::suppression::{ListedAlert, Suppressions};

/// How many alerts and rebalances `GET /api/recent-alerts` has.
pub const RECENT: usize = 20;

/// Which alerts are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlertsQuery {
    /// With one of these statuses, separated by commas.
    #[param(
        pattern = "^(pending|firing|resolved|dismissed)(,(pending|firing|resolved|dismissed))*$",
        example = "firing,pending"
    )]
    status: Option<String>,
    /// With one of these severities, separated by commas.
    #[param(
        pattern = "^(info|warning|error|critical)(,(info|warning|error|critical))*$",
        example = "error,critical"
    )]
    severity: Option<String>,
    /// About this series (the sensor's id).
    source: Option<String>,
    /// About this service.
    service: Option<String>,
    /// Of this rule.
    rule: Option<String>,
    /// Acknowledged, or not.
    acknowledged: Option<bool>,
    /// Begun at or after this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Begun at or before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// As they stood at this instant; the other filters apply to that.
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// A page of alerts, newest beginning first.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertList {
    /// The alerts, each with what holds it back at present. As they stood at an instant (`at`), nothing holds them back.
    pub alerts: Vec<ListedAlert>,
    /// How many fit the filter, on all pages.
    pub total: u64,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// List alerts, newest beginning first.
#[utoipa::path(
    get,
    path = "/api/alerts",
    tag = "alerts",
    params(AlertsQuery),
    responses((status = 200, description = "A page of alerts", body = AlertList), GetProblems)
)]
pub async fn list_alerts(
    State(app): State<App>,
    Parameters(query): Parameters<AlertsQuery>,
) -> Result<Response, Problem> {
    let statuses = list_of(query.status.as_deref(), |text| {
        AlertStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            Problem::bad_request(
                "`status` must be a list, separated by commas, of pending, firing, resolved, dismissed",
            )
        })
    })?;
    let severities = list_of(query.severity.as_deref(), |text| {
        Severity::from_str(text).map_err(|e| Problem::bad_request(format!("`severity`: {e}")))
    })?;
    let filter = AlertFilter {
        statuses,
        severities,
        source: query.source,
        service: query.service,
        rule: query.rule,
        acknowledged: query.acknowledged,
        from: query.from,
        to: query.to,
        at: query.at,
        limit: query.limit,
        cursor: read::cursor(query.cursor),
    };
    let notifying = app.control().notifying();
    let now = app.now();
    read::ask(&app, move |queries| {
        let page = queries.alerts(&filter)?;
        let suppressions = match filter.at {
            None => Suppressions::now(queries, &notifying, now)?,
            Some(_) => Suppressions::none(&notifying, now),
        };
        let alerts = suppressions.of_all(page.alerts);
        Ok(AlertList { alerts, total: page.total, next_cursor: page.next_cursor })
    })
    .await
}

fn list_of<T>(text: Option<&str>, parse: impl Fn(&str) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
    text.map_or_else(|| Ok(Vec::new()), |list| list.split(',').map(|part| parse(part.trim())).collect())
}

/// One alert with its whole story, and what holds it back at present.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertStory {
    /// Its story.
    #[serde(flatten)]
    pub detail: AlertDetail,
    /// Silences that hold for it.
    #[schema(value_type = Vec<Uuid>)]
    pub silenced_by: Vec<SilenceId>,
    /// Firing alerts that say it all.
    #[schema(value_type = Vec<Uuid>)]
    pub inhibited_by: Vec<AlertId>,
}

/// Show one alert with its whole story.
#[utoipa::path(
    get,
    path = "/api/alerts/{id}",
    tag = "alerts",
    params(("id" = Uuid, Path, description = "The alert's id")),
    responses((status = 200, description = "The alert", body = AlertStory), ItemProblems)
)]
pub async fn get_alert(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let (notifying, now) = (app.control().notifying(), app.now());
    let found = read::ask_for(&app, move |queries| {
        let Some(detail) = queries.alert_detail(AlertId(id))? else { return Ok(None) };
        let suppressions = Suppressions::now(queries, &notifying, now)?;
        let listed = suppressions.of_all(vec![detail.alert.clone()]).pop();
        let (silenced_by, inhibited_by) =
            listed.map(|listed| (listed.silenced_by, listed.inhibited_by)).unwrap_or_default();
        Ok(Some(AlertStory { detail, silenced_by, inhibited_by }))
    })
    .await?;
    found.ok_or_else(|| no_such_alert(id))
}

pub(crate) fn no_such_alert(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no alert {id}"))
}

/// What happened lately.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecentAlerts {
    /// The alerts that began last.
    #[schema(max_items = 20)]
    pub alerts: Vec<Alert>,
    /// The newest rebalances of consumer groups.
    #[schema(max_items = 20)]
    pub rebalances: Vec<Rebalance>,
}

/// List what happened lately: alerts and rebalances.
#[utoipa::path(
    get,
    path = "/api/recent-alerts",
    tag = "alerts",
    responses((status = 200, description = "The newest twenty of each", body = RecentAlerts), GetProblems)
)]
pub async fn recent_alerts(State(app): State<App>) -> Result<Response, Problem> {
    read::ask(&app, |queries| {
        let filter = AlertFilter { limit: Some(RECENT), ..AlertFilter::default() };
        Ok(RecentAlerts {
            alerts: queries.alerts(&filter)?.alerts,
            rebalances: queries.newest_rebalances(RECENT)?,
        })
    })
    .await
}

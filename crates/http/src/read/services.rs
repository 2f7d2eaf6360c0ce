//! `GET /api/services`, `GET /api/services/{id}`, `GET /api/services/{id}/metrics`, `GET /api/metrics/{name}`.
//!
//! The live stream tells of services under `event`; `docs/events.md` lists the types.

use axum::extract::State;
use axum::response::Response;
use farol_event::Timestamp;
use farol_registry::Catalogue;
use farol_view::query::metrics::{MetricOverview, MetricPoints, PointFilter};
use farol_view::query::services::{Service, ServiceDetail, ServiceFilter, ServicePage, ServiceState};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::extract::{Parameters, Path};
use crate::openapi::{GetProblems, ItemProblems};
use crate::problem::Problem;
use crate::read;
use crate::read::sensors::shortened;

/// Which services are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServicesQuery {
    /// In one of these states, separated by commas.
    #[param(
        pattern = "^(starting|up|degraded|down|unknown|maintenance)(,(starting|up|degraded|down|unknown|maintenance))*$",
        example = "degraded,down"
    )]
    state: Option<String>,
    /// Name, kind, address or description contains this text, in any letter case.
    search: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// List services, by name.
#[utoipa::path(
    get,
    path = "/api/services",
    tag = "services",
    params(ServicesQuery),
    responses((status = 200, description = "A page of services", body = ServicePage), GetProblems)
)]
pub async fn list_services(
    State(app): State<App>,
    Parameters(query): Parameters<ServicesQuery>,
) -> Result<Response, Problem> {
    let state = |text: &str| {
        ServiceState::ALL.into_iter().find(|state| state.as_str() == text.trim()).ok_or_else(|| {
            Problem::bad_request(
                "`state` must be a list, separated by commas, of starting, up, degraded, down, unknown, maintenance",
            )
        })
    };
    let states = query.state.as_deref().map(|list| list.split(',').map(state).collect()).transpose()?;
    let filter = ServiceFilter {
        states: states.unwrap_or_default(),
        text: query.search,
        limit: query.limit,
        cursor: read::cursor(query.cursor),
    };
    let (now, catalogue) = (app.now(), app.control().catalogue());
    read::ask(&app, move |queries| {
        let mut page = queries.services(&filter, now)?;
        page.services.iter_mut().for_each(|service| show_last_check(&catalogue, service));
        Ok(page)
    })
    .await
}

/// Show one service with its checks, metrics, policies, newest events and alerts.
#[utoipa::path(
    get,
    path = "/api/services/{id}",
    tag = "services",
    params(("id" = String, Path, description = "The service's name", example = "payments")),
    responses((status = 200, description = "The service", body = ServiceDetail), ItemProblems)
)]
pub async fn get_service(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let not_found = no_such_service(&id);
    let (now, catalogue) = (app.now(), app.control().catalogue());
    let found = read::ask_for(&app, move |queries| {
        let mut detail = queries.service_detail(&id, now)?;
        if let Some(detail) = &mut detail {
            show_last_check(&catalogue, &mut detail.service);
        }
        Ok(detail)
    });
    found.await?.ok_or(not_found)
}

/// The log has the checks that found something new and the answers that could be timed; of the others, as in an outage, the watch itself
/// knows when they were.
fn show_last_check(catalogue: &Catalogue, service: &mut Service) {
    let live = service.service.parse().ok().and_then(|id| catalogue.checked_at(&id));
    service.last_check_at = service.last_check_at.max(live);
}

/// That nothing is known of a service.
pub(crate) fn no_such_service(id: &str) -> Problem {
    Problem::not_found(format!("nothing was told of a service `{}`", shortened(id)))
}

/// Which points are wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MetricPointsQuery {
    /// Of these metrics, separated by commas, at most 32; without it, of all.
    #[param(example = "cpu_percent,response_time_ms")]
    names: Option<String>,
    /// Collected at or after this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Collected at or before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

/// Show points of a service's metrics, for charts.
///
/// Points are thinned to one in ten seconds for each metric and set of tags, with the smallest and largest value of what lay in
/// between, and reach six hours back.
#[utoipa::path(
    get,
    path = "/api/services/{id}/metrics",
    tag = "services",
    params(("id" = String, Path, description = "The service's name", example = "payments"), MetricPointsQuery),
    responses((status = 200, description = "The points", body = MetricPoints), ItemProblems)
)]
pub async fn service_metrics(
    State(app): State<App>,
    Path(id): Path<String>,
    Parameters(query): Parameters<MetricPointsQuery>,
) -> Result<Response, Problem> {
    let names = query.names.unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let not_found = no_such_service(&id);
    let filter = PointFilter { service: id, names, from: query.from, to: query.to };
    let found = read::ask_for(&app, move |queries| {
        let points = queries.metric_points(&filter)?;
        let known = !points.series.is_empty() || queries.service_is_known(&filter.service)?;
        Ok(known.then_some(points))
    });
    found.await?.ok_or(not_found)
}

/// Show what was collected of one metric, over all services and for each.
#[utoipa::path(
    get,
    path = "/api/metrics/{name}",
    tag = "services",
    params(("name" = String, Path, description = "The metric's name", example = "cpu_percent")),
    responses((status = 200, description = "The metric", body = MetricOverview), ItemProblems)
)]
pub async fn get_metric(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let not_found = Problem::not_found(format!("no value of metric `{}` was collected", shortened(&name)));
    read::ask_for(&app, move |queries| queries.metric(&name)).await?.ok_or(not_found)
}

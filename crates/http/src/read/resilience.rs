//! `GET /api/resilience` and `GET /api/resilience/changes`: circuit breakers, retries, bulkheads and the like, of every program that
//! tells of its own (`politica_medida`, `disjuntor_…`), Farol's among them (caller `farol`).

use axum::extract::State;
use axum::response::Response;
use farol_view::query::policies::{PolicyChangePage, PolicyFilter, PolicyPage};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::extract::Parameters;
use crate::openapi::GetProblems;
use crate::problem::Problem;
use crate::read;

/// Which policies, or changes of policies, are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PoliciesQuery {
    /// In front of this service.
    service: Option<String>,
    /// Of this caller.
    #[param(example = "farol")]
    caller: Option<String>,
    /// Of this name.
    name: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

impl PoliciesQuery {
    fn filter(self) -> PolicyFilter {
        PolicyFilter {
            service: self.service,
            caller: self.caller,
            name: self.name,
            limit: self.limit,
            cursor: read::cursor(self.cursor),
        }
    }
}

/// List resilience policies as they stand, by caller, name and kind.
#[utoipa::path(
    get,
    path = "/api/resilience",
    tag = "services",
    params(PoliciesQuery),
    responses((status = 200, description = "A page of policies", body = PolicyPage), GetProblems)
)]
pub async fn list_policies(
    State(app): State<App>,
    Parameters(query): Parameters<PoliciesQuery>,
) -> Result<Response, Problem> {
    let (filter, now) = (query.filter(), app.now());
    read::ask(&app, move |queries| queries.policies(&filter, now)).await
}

/// List how circuit breakers moved, newest first.
#[utoipa::path(
    get,
    path = "/api/resilience/changes",
    tag = "services",
    params(PoliciesQuery),
    responses((status = 200, description = "A page of changes", body = PolicyChangePage), GetProblems)
)]
pub async fn list_policy_changes(
    State(app): State<App>,
    Parameters(query): Parameters<PoliciesQuery>,
) -> Result<Response, Problem> {
    let filter = query.filter();
    read::ask(&app, move |queries| queries.policy_changes(&filter)).await
}

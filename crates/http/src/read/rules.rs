//! `GET /api/rules`.

use axum::Json;
use axum::extract::State;
use farol_detect::RuleDefinition;
use farol_event::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::openapi::GetProblems;

/// The rules in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct RulesAnswer {
    /// The rules, in the order of their files.
    pub rules: Vec<RuleDefinition>,
    /// When they were taken into force.
    #[schema(value_type = String, format = DateTime)]
    pub loaded_at: Timestamp,
    /// The files that they come from; empty if only the built-in rules apply.
    pub files: Vec<String>,
    /// Why the newest attempt to load rules was refused, if it was.
    pub problem: Option<String>,
}

/// List the rules in force.
#[utoipa::path(
    get,
    path = "/api/rules",
    tag = "alerts",
    responses((status = 200, description = "The rules", body = RulesAnswer), GetProblems)
)]
pub async fn list_rules(State(app): State<App>) -> Json<RulesAnswer> {
    let report = app.control().rules();
    Json(RulesAnswer {
        rules: report.rules.rules().iter().map(|rule| rule.definition().clone()).collect(),
        loaded_at: report.loaded_at,
        files: report.files,
        problem: report.problem,
    })
}

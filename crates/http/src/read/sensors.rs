//! `GET /api/sensors` and `GET /api/sensors/{id}`.

use axum::extract::State;
use axum::response::Response;
use farol_detect::rule::ClearThreshold;
use farol_detect::{RuleSet, SeriesLabels};
use farol_event::{Alert, Severity};
use farol_view::query::alerts::AlertFilter;
use farol_view::query::sensors::{Sensor, SensorFilter, SensorPage, SensorSort, SensorState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::extract::{Parameters, Path};
use crate::openapi::{GetProblems, ItemProblems};
use crate::problem::Problem;
use crate::read;

/// How many of its alerts a sensor is shown with, the newest.
pub const ALERTS_SHOWN: usize = 50;

/// Which sensors are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SensorsQuery {
    /// Id, type or a part of the location contains this text, in any letter case.
    search: Option<String>,
    /// Of exactly this type.
    #[serde(rename = "type")]
    sensor_type: Option<String>,
    /// In this state.
    #[param(inline)]
    state: Option<SensorState>,
    /// In which order; `-` in front turns it around.
    #[param(pattern = "^-?(id|type|value|state|last_seen)$", example = "-last_seen")]
    sort: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<usize>,
    /// Go on after the page that gave this as `next_cursor`; the first page if empty.
    cursor: Option<String>,
}

/// List sensors.
#[utoipa::path(
    get,
    path = "/api/sensors",
    tag = "sensors",
    params(SensorsQuery),
    responses((status = 200, description = "A page of sensors", body = SensorPage), GetProblems)
)]
pub async fn list_sensors(
    State(app): State<App>,
    Parameters(query): Parameters<SensorsQuery>,
) -> Result<Response, Problem> {
    let sort = query.sort.as_deref().map(str::parse::<SensorSort>).transpose()?.unwrap_or_default();
    let filter = SensorFilter {
        search: query.search,
        sensor_type: query.sensor_type,
        state: query.state,
        sort,
        limit: query.limit,
        cursor: read::cursor(query.cursor),
    };
    let now = app.now();
    read::ask(&app, move |queries| queries.sensors(&filter, now)).await
}

/// One sensor with the rules about it and its alerts.
#[derive(Debug, Serialize, ToSchema)]
pub struct SensorDetail {
    /// The sensor.
    #[serde(flatten)]
    pub sensor: Sensor,
    /// What the rules in force compare its values with.
    pub thresholds: Vec<Threshold>,
    /// Its newest alerts, newest beginning first.
    pub alerts: Vec<Alert>,
}

/// What one rule compares a sensor's values with.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Threshold {
    /// The rule.
    pub rule: String,
    /// How bad its alerts are.
    pub severity: Severity,
    /// Breached above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// Breached below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// Breached outside these two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<[f64; 2]>,
    /// The second threshold, which ends an alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear: Option<ClearThreshold>,
}

/// Show one sensor.
#[utoipa::path(
    get,
    path = "/api/sensors/{id}",
    tag = "sensors",
    params(("id" = String, Path, description = "The sensor's id", example = "temp-sensor-001")),
    responses((status = 200, description = "The sensor", body = SensorDetail), ItemProblems)
)]
pub async fn get_sensor(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let now = app.now();
    let rules = app.control().rules().rules;
    let not_found = Problem::not_found(format!("no reading of sensor `{}` has been seen", shortened(&id)));
    let found = read::ask_for(&app, move |queries| {
        let Some(sensor) = queries.sensor(&id, now)? else { return Ok(None) };
        let filter = AlertFilter { source: Some(id), limit: Some(ALERTS_SHOWN), ..AlertFilter::default() };
        let alerts = queries.alerts(&filter)?.alerts;
        let thresholds = thresholds_of(&sensor, &rules);
        Ok(Some(SensorDetail { sensor, thresholds, alerts }))
    });
    found.await?.ok_or(not_found)
}

fn thresholds_of(sensor: &Sensor, rules: &RuleSet) -> Vec<Threshold> {
    let text = |part: &'_ Option<String>| part.clone().unwrap_or_default();
    let (factory_section, machine_id, zone) = (
        text(&sensor.location.factory_section),
        text(&sensor.location.machine_id),
        text(&sensor.location.zone),
    );
    let labels = SeriesLabels {
        service: None,
        sensor_id: &sensor.sensor_id,
        sensor_type: &sensor.sensor_type,
        unit: sensor.unit.as_deref().unwrap_or_default(),
        factory_section: &factory_section,
        machine_id: &machine_id,
        zone: &zone,
    };
    let compared = rules.selecting(&labels).map(|rule| rule.definition());
    compared
        .filter(|rule| rule.above.is_some() || rule.below.is_some() || rule.outside.is_some())
        .map(|rule| Threshold {
            rule: rule.name.clone(),
            severity: rule.severity,
            above: rule.above,
            below: rule.below,
            outside: rule.outside,
            clear: rule.clear,
        })
        .collect()
}

/// The start of a text from a client, for an answer.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

//! Every path, in one place.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::alertmanager;
use crate::app::App;
use crate::dashboard;
use crate::docs;
use crate::gate;
use crate::ingest::{events as new_events, readings as new_readings};
use crate::openapi;
use crate::read::{
    alerts, commands, events, groups, pipeline, probes, readings, resilience, rules, sensors, services,
    silences, status,
};
use crate::stream::session;
use crate::watched;

/// Answers below this are not worth compressing.
const COMPRESS_FROM_BYTES: u64 = 4096;

/// The paths of the API with their descriptions.
pub(crate) fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(readings::list_readings, new_readings::post_readings))
        .routes(routes!(sensors::list_sensors))
        .routes(routes!(sensors::get_sensor))
        .routes(routes!(services::list_services))
        .routes(routes!(services::get_service, watched::put_service, watched::delete_service))
        .routes(routes!(services::service_metrics))
        .routes(routes!(services::get_metric))
        .routes(routes!(resilience::list_policies))
        .routes(routes!(resilience::list_policy_changes))
        .routes(routes!(alerts::list_alerts))
        .routes(routes!(alerts::get_alert))
        .routes(routes!(commands::acknowledge_alert))
        .routes(routes!(alerts::recent_alerts))
        .routes(routes!(silences::list_silences, silences::create_silence))
        .routes(routes!(silences::get_silence, silences::expire_silence))
        .routes(routes!(rules::list_rules))
        .routes(routes!(events::list_events, new_events::post_events))
        .routes(routes!(session::stream))
        .routes(routes!(pipeline::consumer_health))
        .routes(routes!(pipeline::producer_health))
        .routes(routes!(groups::partition_assignment))
        .routes(routes!(groups::list_groups))
        .routes(routes!(groups::get_group))
        .routes(routes!(groups::list_rebalances))
        .routes(routes!(pipeline::dead_letters))
        .routes(routes!(pipeline::list_workers))
        .routes(routes!(pipeline::stop_worker))
        .routes(routes!(pipeline::start_worker))
        .routes(routes!(watched::service_heartbeat))
        .routes(routes!(watched::begin_maintenance, watched::end_maintenance))
        .routes(routes!(watched::change_simulation))
        .routes(routes!(commands::command_status))
        .routes(routes!(status::system_status))
        .routes(routes!(status::real_time_metrics))
        .routes(routes!(status::metrics))
        .routes(routes!(probes::health))
        .routes(routes!(probes::liveness))
        .routes(routes!(probes::readiness))
}

/// Everything that the server answers.
pub(crate) fn router(app: App) -> Router {
    let (api, description) = described().split_for_parts();
    // Compression is for what is large and read by people over a network; the dashboard's files are compressed already.
    let compression = CompressionLayer::new()
        .compress_when(DefaultPredicate::new().and(SizeAbove::new(COMPRESS_FROM_BYTES)));
    api.layer(compression)
        .merge(docs::router(description))
        .merge(alertmanager::router())
        .route("/", get(dashboard::index))
        .fallback(dashboard::file_or_nothing)
        .method_not_allowed_fallback(gate::no_such_method)
        .layer(CatchPanicLayer::custom(gate::panicked))
        .layer(from_fn_with_state(app.clone(), gate::gate))
        .with_state(app)
}

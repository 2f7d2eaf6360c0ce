//! `GET /api/readings`: as rows, or as columns for a chart.

use axum::extract::State;
use axum::response::Response;
use farol_event::Timestamp;
use farol_view::query::readings::{ReadingColumns, ReadingFilter, ReadingRows};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::extract::Parameters;
use crate::openapi::GetProblems;
use crate::problem::Problem;
use crate::read;

/// Which readings are given, and how.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadingsQuery {
    /// Of this sensor. Required for columns.
    sensor_id: Option<String>,
    /// At or after this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// At or before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// The newest so many.
    #[param(minimum = 1, maximum = 100_000, default = 1000)]
    limit: Option<usize>,
    /// Columns only: at most so many points of the whole range (then `limit` doesn't count), the smallest and largest
    /// value of each stretch of time among them.
    #[param(minimum = 2, maximum = 20_000)]
    max_points: Option<usize>,
    /// `rows` (everything that was sent) or `columns` (times and values).
    #[param(inline)]
    #[serde(default)]
    format: ReadingsFormat,
}

/// The form of an answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadingsFormat {
    /// Everything that was sent.
    #[default]
    Rows,
    /// Times and values.
    Columns,
}

/// Either form of readings.
#[derive(ToSchema)]
#[schema(as = Readings)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum ReadingsSchema {
    /// Everything that was sent.
    Rows(ReadingRows),
    /// Times and values.
    Columns(ReadingColumns),
}

/// List readings.
///
/// The newest `limit` readings of the range, oldest first.
#[utoipa::path(
    get,
    path = "/api/readings",
    tag = "readings",
    params(ReadingsQuery),
    responses((status = 200, description = "Readings, oldest first", body = ReadingsSchema), GetProblems)
)]
pub async fn list_readings(
    State(app): State<App>,
    Parameters(query): Parameters<ReadingsQuery>,
) -> Result<Response, Problem> {
    let filter = ReadingFilter {
        sensor_id: query.sensor_id,
        from: query.from,
        to: query.to,
        limit: query.limit,
        max_points: query.max_points,
    };
    match query.format {
        ReadingsFormat::Columns => {
            if filter.sensor_id.is_none() {
                return Err(Problem::bad_request("`format=columns` needs `sensor_id`"));
            }
            read::ask(&app, move |queries| queries.reading_columns(&filter)).await
        }
        ReadingsFormat::Rows if filter.max_points.is_some() => {
            Err(Problem::bad_request("`max_points` needs `format=columns`"))
        }
        ReadingsFormat::Rows => read::ask(&app, move |queries| queries.reading_rows(&filter)).await,
    }
}

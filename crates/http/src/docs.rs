//! `/openapi.json`, and Swagger UI at `/docs/`, all from the binary.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::app::App;
use crate::guard::DOCS_POLICY;
use crate::openapi;
use crate::problem::Problem;

#[derive(Clone)]
struct Docs {
    description: Bytes,
    config: Arc<Config<'static>>,
}

/// The description of the API and a page to try it.
pub(crate) fn router(description: OpenApi) -> Router<App> {
    // The UI's validator would send the description to a server of its makers.
    let config = Config::from("/openapi.json").validator_url("none").try_it_out_enabled(true);
    let docs = Docs { description: openapi::to_json(description).into(), config: Arc::new(config) };
    Router::new()
        .route("/openapi.json", get(description_json))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(page))
        .route("/docs/{*file}", get(file))
        .with_state(docs)
}

async fn description_json(State(docs): State<Docs>) -> Response {
    ([(CONTENT_TYPE, "application/json")], docs.description).into_response()
}

async fn page(State(docs): State<Docs>) -> Result<Response, Problem> {
    answer(&docs, "index.html")
}

async fn file(State(docs): State<Docs>, Path(path): Path<String>) -> Result<Response, Problem> {
    answer(&docs, &path)
}

fn answer(docs: &Docs, path: &str) -> Result<Response, Problem> {
    let file = utoipa_swagger_ui::serve(path, Arc::clone(&docs.config))
        .map_err(|error| Problem::internal("reading a file of Swagger UI", &error))?
        .ok_or_else(|| Problem::not_found("there is no such file in Swagger UI"))?;
    let content_type = HeaderValue::from_str(&file.content_type)
        .map_err(|error| Problem::internal("naming a file's type", &error))?;
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, DOCS_POLICY);
    if file.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

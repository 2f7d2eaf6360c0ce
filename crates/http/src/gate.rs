//! What every request passes before its handler, and every answer on its way out: entry, bounds, headers, counting.

use std::any::Any;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::guard::COMMON_HEADERS;
use crate::problem::{Kind, Problem};

/// The label of requests that fit no route.
const NO_ROUTE: &str = "other";

/// The gate.
pub(crate) async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match pass(&app, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    dress(&mut response);
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    app.metrics().request(&method, route, response.status(), began.elapsed());
    response
}

async fn pass(app: &App, request: Request, next: Next) -> Result<Response, Problem> {
    app.guard().admit(request.method(), request.uri(), request.headers())?;
    // Held while the handler works, not while the answer's body (of a stream: for hours) is sent.
    let _permit = app.requests().try_acquire().map_err(|_| {
        Problem::busy(format!(
            "{} requests are being worked on already; send it again",
            app.limits().concurrent_requests
        ))
    })?;
    // A body has one such time to come (`ingest::body`), the work on it another.
    let limit = app.limits().request_timeout.saturating_mul(2);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => Ok(response),
        Err(_) => Err(Problem::unavailable(format!("no answer within {} s", limit.as_secs()))),
    }
}

/// Headers that no answer goes without.
fn dress(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in COMMON_HEADERS {
        headers.insert(name, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// 404 for paths that don't exist.
pub(crate) async fn no_such_path() -> Problem {
    Problem::not_found("there is nothing at this path; /docs shows what there is")
}

/// 405. The router adds `Allow`.
pub(crate) async fn no_such_method() -> Problem {
    Problem::new(
        Kind::MethodNotAllowed,
        "this path does not take that method; the `Allow` header names those it takes",
    )
}

/// 500 for a handler that panicked. The panic hook has written the panic to the log.
pub(crate) fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal("handling the request", &"a handler panicked").into_response()
}

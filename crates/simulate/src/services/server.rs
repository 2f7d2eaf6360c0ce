//! The HTTP server of one simulated service.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::behaviour::{Question, SimulatedService};

/// The most open connections; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 256;
/// How long the head of a request may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until `stop`, then drops what is open.
pub(super) async fn serve(
    listener: TcpListener,
    name: Arc<str>,
    core: Arc<Mutex<SimulatedService>>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(service = %name, %error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (core, name, stop) = (Arc::clone(&core), Arc::clone(&name), stop.clone());
            connections.spawn(async move {
                let _permit = permit;
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&name), Arc::clone(&core)));
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
                tokio::select! {
                    // How a client ends its connection is its own business.
                    _ = server.serve_connection(TokioIo::new(stream), service) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop.cancelled() => {}
    }
    connections.close();
    connections.wait().await;
}

async fn answer(
    request: Request<Incoming>,
    name: Arc<str>,
    core: Arc<Mutex<SimulatedService>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let question = match request.uri().path() {
        "/health" => Question::Health,
        "/work" => Question::Work,
        _ => {
            return Ok(whole(
                StatusCode::NOT_FOUND,
                &json!({ "service": *name, "paths": ["/health", "/work"] }),
            ));
        }
    };
    let response = core.lock().respond(question, crate::now());
    tokio::time::sleep(response.latency).await;
    let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let ms = u64::try_from(response.latency.as_millis()).unwrap_or(u64::MAX);
    let mut answer = whole(status, &json!({ "service": *name, "status": response.status, "latency_ms": ms }));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(answer)
}

fn whole(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

//! What the load generator itself costs: against a server that reads bodies, counts lines and answers, nothing more.
//!
//! `cargo bench -p farol-simulate` prints readings per second and processor time per reading, server included (it runs in
//! the same process), so a real server's cost is what is measured against it beyond these figures.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use farol_event::Timestamp;
use farol_simulate::load::lines::LineBuilder;
use farol_simulate::load::{self, LoadOptions, Rate, StopAfter};
use farol_simulate::{ServerUrl, SilentProgress};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn main() {
    lines();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = serve().await;
        let second = |seconds| StopAfter::Duration(Duration::from_secs(seconds));
        let options = || LoadOptions { stop: second(5), ..LoadOptions::new(server.clone()) };
        run("batches of 1000", options()).await;
        run("single readings", LoadOptions { batch: 1, connections: 32, ..options() }).await;
        let paced = LoadOptions { batch: 1, connections: 32, rate: Rate::PerSecond(20_000.0), ..options() };
        run("single readings at 20,000/s", paced).await;
    });
}

fn lines() {
    let mut lines = LineBuilder::new("load", 1000, 0, 1, 0.01);
    let (begun, mut bytes) = (Instant::now(), 0);
    for _ in 0..5000 {
        bytes += lines.batch(1000, Timestamp::from_system_time(SystemTime::now()), None).len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("lines: {:.1} million/s on one thread, {} bytes each\n", 5.0 / seconds, bytes / 5_000_000);
}

async fn run(name: &str, options: LoadOptions) {
    let summary = load::run(options, Arc::new(SilentProgress), CancellationToken::new()).await.unwrap();
    println!("{name}\n{summary}");
}

async fn serve() -> ServerUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let service = hyper::service::service_fn(answer);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    format!("http://{address}").parse().unwrap()
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.method() != hyper::Method::POST {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let mut accepted = 0_usize;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            accepted += data.iter().filter(|byte| **byte == b'\n').count();
        }
    }
    let mut response = Response::new(Full::from(format!("{{\"accepted\":{accepted},\"rejected\":[]}}")));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

//! A real HTTP server on loopback that takes readings as a Farol does, checks every one with the same parser, and can be
//! told to misbehave: answer that it is busy, lose an answer, stall, die and come back on the same port.

#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use farol_event::{Reading, SensorTypeDefaults, Timestamp};
use farol_simulate::{Progress, ServerUrl};
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;

/// What a request for readings runs into.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// 503, nothing stored.
    Busy,
    /// Says that the log takes no records.
    FullDisk,
    /// Stored, but the connection is cut before the answer.
    LoseAnswer,
    /// Cut before anything is stored.
    Cut,
    /// Stored and answered, then the connection is closed.
    CloseAfter,
    /// Stored and answered after this long.
    Stall(Duration),
}

/// A reading that the server stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub sensor_id: String,
    pub sensor_type: String,
    pub unit: Option<String>,
    pub timestamp: Timestamp,
    pub value: f64,
    pub seq: Option<u64>,
    pub producer: Option<String>,
}

pub struct State {
    pub stored: Vec<Stored>,
    pub requests: u64,
    pub faults: VecDeque<Fault>,
    /// Sensors whose alert fires.
    firing: BTreeSet<String>,
    accepted_total: u64,
    transitions: broadcast::Sender<String>,
}

pub struct TestServer {
    pub state: Arc<Mutex<State>>,
    address: SocketAddr,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl TestServer {
    pub async fn start() -> Self {
        let (transitions, _) = broadcast::channel(10_000);
        let state = State {
            stored: Vec::new(),
            requests: 0,
            faults: VecDeque::new(),
            firing: BTreeSet::new(),
            accepted_total: 0,
            transitions,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { state: Arc::new(Mutex::new(state)), address, running: None };
        server.revive().await;
        server
    }

    pub fn url(&self) -> ServerUrl {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn fail_with(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    pub fn stored(&self) -> Vec<Stored> {
        self.state().stored.clone()
    }

    /// Cuts every connection and stops listening. What was stored stays.
    pub async fn die(&mut self) {
        if let Some((running, listening)) = self.running.take() {
            running.cancel();
            listening.await.unwrap();
        }
    }

    /// Listens again, on the same port. The count of accepted readings begins anew, as in a new process.
    pub async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        self.state().accepted_total = 0;
        let running = CancellationToken::new();
        let listening = tokio::spawn(listen(listener, Arc::clone(&self.state), running.clone()));
        self.running = Some((running, listening));
    }
}

async fn listen(listener: TcpListener, state: Arc<Mutex<State>>, running: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = running.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap().0,
        };
        let (state, running) = (Arc::clone(&state), running.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(Arc::clone(&state), request));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = running.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

/// An error cuts the connection.
async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/api/readings") => take_readings(state, request).await,
        (&Method::GET, "/metrics") => {
            let accepted_total = state.lock().unwrap().accepted_total;
            let text =
                format!("# TYPE x counter\nfarol_http_readings_accepted_total {accepted_total}\n# EOF\n");
            Ok(Response::new(Full::new(Bytes::from(text)).boxed_unsync()))
        }
        (&Method::GET, "/api/system-status") => {
            let records = state.lock().unwrap().stored.len();
            let topics =
                json!([{ "name": "alerts", "records": 0 }, { "name": "sensor-data", "records": records }]);
            Ok(json_answer(StatusCode::OK, &json!({ "log": { "topics": topics } })))
        }
        (&Method::GET, "/api/stream") => Ok(stream(&state)),
        _ => Ok(json_answer(StatusCode::NOT_FOUND, &json!({ "title": "Not found" }))),
    }
}

async fn take_readings(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let producer = header("farol-producer");
    let ndjson = header("content-type").as_deref() == Some("application/x-ndjson");
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests += 1;
        state.faults.pop_front()
    };
    match fault {
        Some(Fault::FullDisk) => {
            let problem = json!({ "type": "urn:farol:problem:log-refuses", "detail": "No space left" });
            return Ok(json_answer(StatusCode::SERVICE_UNAVAILABLE, &problem));
        }
        Some(Fault::Busy) => {
            return Ok(json_answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "title": "Busy" })));
        }
        Some(Fault::Cut) => return Err(std::io::Error::other("cut")),
        _ => {}
    }
    let (accepted, rejected) = store(&mut state.lock().unwrap(), &body, ndjson, producer.as_deref());
    let status = if accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    let mut answer = json_answer(status, &json!({ "accepted": accepted, "rejected": rejected }));
    match fault {
        Some(Fault::LoseAnswer) => return Err(std::io::Error::other("lost")),
        Some(Fault::CloseAfter) => {
            answer.headers_mut().insert("connection", "close".parse().unwrap());
        }
        Some(Fault::Stall(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    Ok(answer)
}

fn store(state: &mut State, body: &[u8], ndjson: bool, producer: Option<&str>) -> (usize, Vec<Value>) {
    let now = Timestamp::from_system_time(SystemTime::now());
    let (mut accepted, mut rejected) = (0, Vec::new());
    let lines: Vec<&[u8]> = if ndjson {
        body.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect()
    } else {
        vec![body]
    };
    for (index, line) in lines.into_iter().enumerate() {
        match Reading::parse(line, now) {
            Ok(reading) => {
                accepted += 1;
                decide(state, &reading);
                state.stored.push(Stored {
                    sensor_id: reading.sensor_id.to_string(),
                    sensor_type: reading.sensor_type.to_string(),
                    unit: reading.unit.as_ref().map(ToString::to_string),
                    timestamp: reading.timestamp,
                    value: reading.value,
                    seq: reading
                        .unknown
                        .iter()
                        .find(|(name, _)| name == "seq")
                        .map(|(_, s)| s.get().parse().unwrap()),
                    producer: producer.map(str::to_owned),
                });
            }
            Err(error) => rejected.push(json!({ "index": index, "error": error.to_string() })),
        }
    }
    state.accepted_total += accepted as u64;
    (accepted, rejected)
}

/// One alert per sensor: fires above critical, resolves below warning.
fn decide(state: &mut State, reading: &Reading<'_>) {
    let Some(usual) = SensorTypeDefaults::of(&reading.sensor_type) else { return };
    let id = reading.sensor_id.to_string();
    let kind = if reading.value > usual.critical && state.firing.insert(id.clone()) {
        "fired"
    } else if reading.value < usual.warning && state.firing.remove(&id) {
        "resolved"
    } else {
        return;
    };
    let transition = json!({ "kind": kind, "at": reading.timestamp, "alert": { "series": id, "rule": "r" } });
    let _ = state.transitions.send(transition.to_string());
}

fn stream(state: &Mutex<State>) -> Response<Body> {
    let transitions = BroadcastStream::new(state.lock().unwrap().transitions.subscribe());
    let hello = futures_util::stream::iter(["event: hello\ndata: {}\n\n: beat\n\n".to_owned()]);
    let events = transitions.filter_map(|transition| {
        std::future::ready(transition.ok().map(|json| format!("event: alert\nid: 1\ndata: {json}\n\n")))
    });
    let frames = hello.chain(events).map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    response
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Notes(pub Mutex<Vec<String>>);

impl Progress for Notes {
    fn update(&self, _: &farol_simulate::progress::ProgressState) {}

    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }

    fn finish(&self) {}
}

impl Notes {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Waits until `condition` holds.
pub async fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "it did not come true within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How often each (sensor, timestamp) is stored.
pub fn multiplicity(stored: &[Stored]) -> BTreeMap<(String, Timestamp), usize> {
    let mut counts = BTreeMap::new();
    for reading in stored {
        *counts.entry((reading.sensor_id.clone(), reading.timestamp)).or_default() += 1;
    }
    counts
}

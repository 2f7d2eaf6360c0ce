//! A whole Farol in a temporary folder: embedded bus, views, detect workers, HTTP server. Nothing is replaced.

#![allow(dead_code, reason = "shared by the tests and the example, each of which uses a part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use farol_bus::Bus;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use farol_event::Timestamp;
use farol_http::control::{
    Control, LogReport, RulesReport, ViewReport, WorkerRefusal, WorkerState, WorkerStatus,
};
use farol_http::{HttpDeps, HttpHandle, HttpSettings, serve};
use farol_pipeline::{
    NotifierSettings, Pipeline, PipelineDeps, PipelineSettings, RuleSources, RulesHandle, ServiceWatch,
    ServiceWatchDeps, TopicNames, TopicOverride, ViewRetention, WorkerError, WorkerSettings, default_topics,
    ensure_topics,
};
use farol_registry::{Catalogue, NetworkProber, Reach};
use farol_resilience::Registry;
use farol_view::{Store, StoreOptions};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The running system as the binary puts it together.
struct Parts {
    rules: Arc<RulesHandle>,
    pipeline: Arc<Pipeline>,
    catalogue: Arc<Catalogue>,
    _watch: ServiceWatch,
}

#[async_trait]
impl Control for Parts {
    fn rules(&self) -> RulesReport {
        let current = self.rules.current();
        RulesReport {
            rules: Arc::clone(&current.rules),
            loaded_at: current.loaded_at,
            files: Vec::new(),
            problem: self.rules.problem(),
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let state = |state| match state {
            farol_pipeline::WorkerState::Running => WorkerState::Running,
            farol_pipeline::WorkerState::Stopping => WorkerState::Stopping,
            farol_pipeline::WorkerState::Stopped => WorkerState::Stopped,
        };
        let list = self.pipeline.workers().list();
        list.into_iter().map(|w| WorkerStatus { consumer_id: w.consumer_id, state: state(w.state) }).collect()
    }

    async fn stop_worker(&self, id: &str) -> Result<(), WorkerRefusal> {
        self.pipeline.workers().stop(id).map_err(refusal)
    }

    async fn start_worker(&self, id: &str) -> Result<(), WorkerRefusal> {
        self.pipeline.workers().start(id).map_err(refusal)
    }

    fn log(&self) -> LogReport {
        LogReport::default()
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    fn views(&self) -> Vec<ViewReport> {
        let progress = self.pipeline.views().snapshot();
        let report = |(name, progress): (&str, farol_pipeline::ViewProgress)| ViewReport {
            name: name.to_owned(),
            lag_records: u64::try_from(progress.lag_records).unwrap_or(0),
            ok: progress.problem.is_none(),
            error: progress.problem,
        };
        progress.into_iter().map(|(name, progress)| report((name, progress))).collect()
    }
}

fn refusal(error: WorkerError) -> WorkerRefusal {
    match error {
        WorkerError::Unknown(name) => WorkerRefusal::Unknown(name),
        wrong @ WorkerError::WrongState { .. } => WorkerRefusal::WrongState(wrong.to_string()),
        other => WorkerRefusal::Failed(other.to_string()),
    }
}

/// A whole Farol.
pub struct Farol {
    pub addr: SocketAddr,
    pub bus: Arc<EmbeddedBus>,
    pub store: Store,
    http: Option<HttpHandle>,
    pipeline: Arc<Pipeline>,
    parts: Arc<Parts>,
    shutdown: CancellationToken,
    client: Client<HttpConnector, Full<Bytes>>,
    _dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.body))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// Asserts that this is a problem of that status, and gives its detail.
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{:?}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], status);
        assert!(json["type"].as_str().unwrap().starts_with("urn:farol:problem:"), "{json}");
        json["detail"].as_str().unwrap().to_owned()
    }
}

impl Farol {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with so many partitions of one topic.
    pub async fn start_over(topic: &str, partitions: i32) -> Self {
        let over = TopicOverride { partitions: Some(partitions), config: BTreeMap::new() };
        Self::start_as(|_| {}, BTreeMap::from([(topic.to_owned(), over)])).await
    }

    /// Starts with changed settings.
    pub async fn start_with(change: impl FnOnce(&mut HttpSettings)) -> Self {
        Self::start_as(change, BTreeMap::new()).await
    }

    async fn start_as(
        change: impl FnOnce(&mut HttpSettings),
        topics: BTreeMap<String, TopicOverride>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bus, _) = EmbeddedBus::open(EmbeddedOptions::new(dir.path().join("log"))).unwrap();
        let dyn_bus: Arc<dyn Bus> = bus.clone();
        ensure_topics(bus.as_ref(), default_topics(&TopicNames::default(), &topics)).await.unwrap();
        let store = Store::open(dir.path().join("views.db"), StoreOptions::default()).unwrap();
        let now = Timestamp::from_system_time(std::time::SystemTime::now());
        let rules =
            Arc::new(RulesHandle::load(RuleSources { defaults: true, files: Vec::new() }, now).unwrap());
        let settings = PipelineSettings {
            workers: vec!["worker-1".into(), "worker-2".into()],
            worker: WorkerSettings::default(),
            notifier: NotifierSettings::default(),
            retention: ViewRetention::default(),
        };
        let deps = PipelineDeps {
            bus: Arc::clone(&dyn_bus),
            store: store.clone(),
            rules: Arc::clone(&rules),
            outgoing: Registry::new(),
        };
        let pipeline = Arc::new(Pipeline::start(settings, deps).await.unwrap());
        let catalogue = Arc::new(Catalogue::new(Some(Reach::Loopback)));
        let watch = ServiceWatchDeps {
            bus: Arc::clone(&dyn_bus),
            events: pipeline.events().clone(),
            policies: farol_pipeline::outgoing::registry(),
            prober: Arc::new(NetworkProber::default()),
            catalogue: Arc::clone(&catalogue),
            configured: Vec::new(),
        };
        let _watch = ServiceWatch::start(watch).await.unwrap();
        let parts = Arc::new(Parts { rules, pipeline: Arc::clone(&pipeline), catalogue, _watch });
        let mut settings = HttpSettings::new("127.0.0.1:0".parse().unwrap());
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let deps =
            HttpDeps { bus: dyn_bus, store: store.clone(), control: parts.clone(), metrics: Vec::new() };
        let http = serve(settings, deps, shutdown.clone()).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            addr: http.local_addr(),
            bus,
            store,
            http: Some(http),
            pipeline,
            parts,
            shutdown,
            client,
            _dir: dir,
        }
    }

    /// A second server over the same bus, store and workers.
    pub async fn serve_again(&self, settings: HttpSettings, shutdown: CancellationToken) -> HttpHandle {
        let deps = HttpDeps {
            bus: self.bus.clone(),
            store: self.store.clone(),
            control: self.parts.clone(),
            metrics: Vec::new(),
        };
        serve(settings, deps, shutdown).await.unwrap()
    }

    /// What the server asks of the rest.
    pub fn control(&self) -> Arc<dyn Control> {
        self.parts.clone()
    }

    /// Stops the HTTP server and waits until it has ended.
    pub async fn stop_http(&mut self) {
        self.shutdown.cancel();
        self.http.take().unwrap().join().await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    pub async fn post(&self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        self.request(Method::POST, path, &[("content-type", content_type)], body).await
    }

    pub async fn post_json(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.post(path, "application/json", body).await
    }

    /// Sends one reading that must be accepted.
    pub async fn reading(&self, sensor_id: &str, value: f64) {
        let body = format!(
            r#"{{"sensor_id":"{sensor_id}","sensor_type":"temperature","unit":"°C","value":{value}}}"#
        );
        let answer = self.post_json("/api/readings", body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Sends one reading with its own time, which must be accepted.
    pub async fn reading_at(&self, sensor_id: &str, value: f64, timestamp: &str) {
        let body = format!(
            r#"{{"sensor_id":"{sensor_id}","sensor_type":"temperature","value":{value},"timestamp":"{timestamp}"}}"#
        );
        let answer = self.post_json("/api/readings", body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Opens a connection and sends the head of a request whose body of 27 bytes is still to come. Returns when the
    /// server works on it; works only if the server takes one request at a time.
    pub async fn request_under_way(&self) -> TcpStream {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        let head = "POST /api/readings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.get("/api/workers").await.status != 503 {
            assert!(Instant::now() < deadline, "the request never got under way");
        }
        socket
    }

    /// Asks again and again until the answer fits.
    pub async fn get_until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.get(path).await;
            if answer.status == 200 {
                let json = answer.json();
                if fits(&json) {
                    return json;
                }
                assert!(Instant::now() < deadline, "{path} never fitted: {json}");
            } else {
                assert!(Instant::now() < deadline, "{path} never fitted: {answer:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Opens the stream.
    pub async fn stream(&self, query: &str, headers: &[(&str, &str)]) -> EventSource {
        let mut request = Request::builder().uri(self.url(&format!("/api/stream{query}")));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        EventSource { body: response.into_body(), unread: Vec::new(), searched: 0 }
    }
}

impl Drop for Farol {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for worker in self.pipeline.workers().list() {
            // One that is stopped already has nothing more to be told.
            let _ = self.pipeline.workers().stop(&worker.consumer_id);
        }
    }
}

/// A client of the stream.
pub struct EventSource {
    body: hyper::body::Incoming,
    unread: Vec<u8>,
    /// How much of it is known to have no end of an event.
    searched: usize,
}

/// One server-sent event.
#[derive(Debug, Clone)]
pub struct ServerEvent {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

impl EventSource {
    /// The next event; `None` when the stream has ended. Comments and `retry` are passed over.
    pub async fn try_next(&mut self) -> Option<ServerEvent> {
        loop {
            let from = self.searched.saturating_sub(1);
            if let Some(end) = self.unread[from..].windows(2).position(|w| w == b"\n\n").map(|end| from + end)
            {
                let rest = self.unread.split_off(end + 2);
                let block = String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap();
                self.searched = 0;
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                if let Some(name) = field("event: ") {
                    let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
                    return Some(ServerEvent { name, id: field("id: "), data });
                }
                continue;
            }
            self.searched = self.unread.len();
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.unread.extend_from_slice(&data);
            }
        }
    }

    /// The next id that comes without an event.
    pub async fn next_id_alone(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|w| w == b"\n\n") {
                let rest = self.unread.split_off(end + 2);
                let block = String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap();
                let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                if let (Some(id), false) = (id, block.contains("event: ")) {
                    return id.to_owned();
                }
                continue;
            }
            let frame = self.body.frame().await.unwrap().unwrap();
            self.unread.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// The next event, which must come within ten seconds.
    pub async fn next(&mut self) -> ServerEvent {
        tokio::time::timeout(Duration::from_secs(10), self.try_next())
            .await
            .expect("an event in time")
            .expect("an event")
    }

    /// The next event of that name; others are passed over.
    pub async fn next_named(&mut self, name: &str) -> ServerEvent {
        loop {
            let event = self.next().await;
            if event.name == name {
                return event;
            }
        }
    }
}

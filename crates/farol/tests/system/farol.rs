//! A running Farol under test, and a client for it.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take that a person would wait for. Generous, because test machines are busy.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something, and fails the test with `what` when it doesn't within `limit`.
pub async fn eventually<T>(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The command with a clean environment, in an empty folder, so that neither settings nor variables of the machine count.
pub fn farol(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farol"));
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    // Many run at once, and one machine has one port 9092.
    command.env("FAROL_KAFKA_LISTEN", "127.0.0.1:0");
    // What a test counts shall not depend on how long it takes.
    command.env("FAROL_HOST_ENABLED", "false");
    command
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.output().expect("farol can be run")
}

/// What a finished command wrote, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("farol writes UTF-8")
}

/// Lines that a process writes, as they come.
pub struct Lines {
    written: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    pub fn follow(stream: impl Read + Send + 'static) -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&written);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self { written, reader: Some(reader) }
    }

    pub fn text(&self) -> String {
        self.written.lock().unwrap().join("\n")
    }

    /// Waits for the last line. The process must have ended.
    pub fn finish(&mut self) {
        self.reader.take().map(JoinHandle::join);
    }
}

/// A running `farol run`. Killed when dropped.
pub struct Farol {
    child: Child,
    out: Lines,
    errors: Lines,
    pub address: String,
    /// Where Kafka clients connect.
    pub kafka: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Farol {
    /// Starts on `folder/data` and a free port, and waits until it says that it is ready.
    pub async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = farol(folder);
        command.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(folder.join("data")).args(arguments);
        Self::spawn(&mut command).await
    }

    /// Starts a prepared command and waits until it says that it is ready.
    pub async fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("farol can be run");
        let out = Lines::follow(child.stdout.take().unwrap());
        let errors = Lines::follow(child.stderr.take().unwrap());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut farol = Self { child, out, errors, address: String::new(), kafka: String::new(), client };
        eventually(SOON, "farol is ready", async || {
            let ended = farol.child.try_wait().unwrap();
            assert!(ended.is_none(), "farol ended: {ended:?}\n{}\n{}", farol.out.text(), farol.errors.text());
            farol.out.text().contains("Ready in").then_some(())
        })
        .await;
        let text = farol.out.text();
        let said = |name| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            line.expect("an address is printed").trim().to_owned()
        };
        farol.address = said("dashboard");
        farol.kafka = said("kafka");
        farol
    }

    /// Everything that it has printed.
    pub fn printed(&self) -> String {
        self.out.text()
    }

    /// Everything that it has logged.
    pub fn logged(&self) -> String {
        self.errors.text()
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is there");
    }

    /// Stops it as `systemctl stop` would, and waits for the end.
    pub async fn stop(mut self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.ended().await;
        self.out.finish();
        (status, self.out.text())
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually(SOON, "farol ends", async || child.try_wait().unwrap()).await
    }

    /// Kills it as a power cut to the process would: no handler runs.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("it was a child");
    }

    /// A request to the API, which must be answered with JSON or nothing.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let (status, bytes) = self.send(method, path, content_type, body.into()).await;
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        };
        Answer { status, body }
    }

    async fn send(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> (StatusCode, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address))
            .header("content-type", content_type)
            .body(Full::new(body))
            .unwrap();
        let response = self.client.request(request).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    /// A `GET` of a text, which must succeed.
    pub async fn text(&self, path: &str) -> String {
        let (status, bytes) = self.send(Method::GET, path, "text/plain", Bytes::new()).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        text(&bytes)
    }

    /// A `GET` that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path, "application/json", "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        answer.body
    }

    /// The state of a breaker of Farol's own calls, as the API tells it.
    pub async fn own_breaker(&self, name: &str) -> Option<String> {
        let shown = self.get("/api/resilience?caller=farol").await;
        let policies = shown["policies"].as_array().unwrap_or_else(|| panic!("{shown}"));
        let is_it = |policy: &&Value| policy["name"] == name && policy["kind"] == "circuit_breaker";
        policies.iter().find(is_it)?["state"].as_str().map(str::to_owned)
    }

    /// A `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, "application/json", body.to_string()).await
    }

    /// Sends one reading of a temperature sensor, which must be taken.
    pub async fn temperature(&self, sensor: &str, value: f64) {
        let reading = json!({ "sensor_id": sensor, "sensor_type": "temperature", "value": value });
        let answer = self.post("/api/readings", &reading).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
    }

    /// Waits until every view has read everything.
    pub async fn views_caught_up(&self) {
        eventually(SOON * 2, "the views have read everything", async || {
            let status = self.get("/api/system-status").await;
            let views = status["views"].as_array().unwrap();
            let behind = views.iter().any(|view| view["lag_records"] != 0 || view["ok"] != true);
            (!views.is_empty() && !behind).then_some(())
        })
        .await;
    }

    /// Waits until the workers have taken everything in, and the views what came of it.
    pub async fn caught_up(&self) {
        eventually(SOON * 2, "the workers have read everything", async || {
            let groups = self.get("/api/partition-assignment").await;
            let partitions: Vec<&Value> = groups["groups"]
                .as_array()?
                .iter()
                .filter_map(|group| group["partitions"].as_array())
                .flatten()
                .collect();
            let current = partitions.iter().filter(|partition| partition["topic"] == "sensor-data");
            let lags: Vec<i64> = current.filter_map(|partition| partition["lag_records"].as_i64()).collect();
            (!lags.is_empty() && lags.iter().all(|lag| *lag == 0)).then_some(())
        })
        .await;
        self.views_caught_up().await;
    }

    /// All alerts that fit a query string, through all pages.
    pub async fn alerts(&self, query: &str) -> Vec<Value> {
        self.pages(&format!("/api/alerts?limit=1000&{query}"), "alerts").await
    }

    /// All items of a list, through all pages.
    pub async fn pages(&self, path: &str, noun: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}{cursor}")).await;
            items.extend(page[noun].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

impl Drop for Farol {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("farol printed:\n{}\nand logged:\n{}", self.out.text(), self.errors.text());
        }
    }
}

/// A temporary folder for one test.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes a file into a folder.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the file can be written");
    path
}

/// Rules that say one thing: a temperature above 40 is critical, at once, and over as soon as it isn't.
pub const PLAIN_RULE: &str = "[[rule]]\nname = \"hot\"\nselect = '{sensor_type=\"temperature\"}'\nabove = 40\nseverity = \"critical\"\n";

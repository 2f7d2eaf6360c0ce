//! `scripts/plant`: Farol, workers and sensors as processes, a worker that is killed, and nothing left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::farol::{SOON, eventually, folder, text};

/// A killed worker is noticed when it has missed its heartbeats, and then the group has to be shared out.
const EXPULSION: Duration = Duration::from_secs(60);
/// The session timeout of workers.
const SESSION: Duration = Duration::from_secs(10);

/// A plant in a folder and on ports of its own. What the test leaves running is stopped when it is dropped.
struct Plant {
    folder: TempDir,
    http: u16,
    kafka: u16,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Plant {
    fn new() -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { folder: folder(), http: free_port(), kafka: free_port(), client }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/plant");
        let mut command = Command::new(script);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").expect("there is a PATH"))
            .env("FAROL", env!("CARGO_BIN_EXE_farol"))
            .env("PLANT", self.folder.path())
            .env("MONITORING_PORT", self.http.to_string())
            .env("KAFKA_PORT", self.kafka.to_string())
            .env("SENSORS", "1")
            .env("SAMPLING_INTERVAL", "0.2")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the script can be run")
    }

    /// Runs a command of the script that must succeed.
    fn must(&self, command: &str) -> String {
        let output = self.run(&[command]);
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command}: {out}\n{errors}\n{}", self.logs());
        out
    }

    /// What the processes have logged, for a test that fails.
    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.folder.path().join("log")).into_iter().flatten().flatten();
        files
            .map(|file| {
                format!(
                    "{:?}:\n{}",
                    file.file_name(),
                    std::fs::read_to_string(file.path()).unwrap_or_default()
                )
            })
            .collect()
    }

    /// The pid of every process that was started and not stopped by the script.
    fn pids(&self) -> BTreeMap<String, u32> {
        let files = std::fs::read_dir(self.folder.path().join("run")).into_iter().flatten().flatten();
        files
            .filter_map(|file| {
                let path: PathBuf = file.path();
                let name = path.file_name()?.to_str()?.strip_suffix(".pid")?.to_owned();
                let pid = std::fs::read_to_string(&path).ok()?.split(' ').next()?.parse().ok()?;
                Some((name, pid))
            })
            .collect()
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let uri: Uri = format!("http://127.0.0.1:{}{path}", self.http).parse().unwrap();
        let response = self.client.get(uri).await.ok()?;
        let body = response.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    }

    /// Who owns which partition of the readings.
    async fn owners(&self) -> BTreeMap<i64, String> {
        let group = self.get("/api/groups/sensor-processors").await.unwrap_or_default();
        let partitions = group["partitions"].as_array().cloned().unwrap_or_default();
        partitions
            .iter()
            .filter_map(|each| Some((each["partition"].as_i64()?, each["owner"].as_str()?.to_owned())))
            .collect()
    }

    /// Waits until exactly these workers own the three partitions.
    async fn owned_by(&self, workers: &[&str]) -> BTreeMap<i64, String> {
        eventually(EXPULSION, &format!("{workers:?} own the partitions"), async || {
            let owners = self.owners().await;
            let names: BTreeSet<&str> = owners.values().map(String::as_str).collect();
            (owners.len() == 3 && names == workers.iter().copied().collect()).then_some(owners)
        })
        .await
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
        // It may be stopped already.
        let _ = self.run(&["stop"]);
    }
}

/// A port that nobody has at present.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("there is a free port")
        .port()
}

/// Whether a process runs; one that has ended and waits for its parent's look doesn't.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_s_partitions_move_with_cause_and_pause_and_stop_leaves_nothing_behind() {
    let plant = Plant::new();
    plant.must("with-monitoring");
    let before = plant.owned_by(&["consumer-1", "consumer-2", "consumer-3"]).await;
    let started = plant.pids();
    assert_eq!(started.len(), 1 + 3 + 5, "{started:?}");
    assert!(plant.must("status").contains("running"));

    // A second start starts nothing twice.
    let again = plant.must("with-monitoring");
    assert!(again.contains("consumer-1 runs already"), "{again}");
    assert_eq!(plant.pids(), started);

    eventually(SOON, "readings arrive through the Kafka port", async || {
        let sensors = plant.get("/api/sensors").await?;
        (sensors["total"] == 5).then_some(())
    })
    .await;
    let killed = plant.command(&["kill-consumer"]).env("CONSUMER", "consumer-2").output().unwrap();
    assert!(killed.status.success(), "{}", text(&killed.stderr));
    assert!(!runs(started["consumer-2"]));
    plant.owned_by(&["consumer-1", "consumer-3"]).await;
    let moved = eventually(SOON, "the move is in the history", async || {
        let page = plant.get("/api/rebalances?group=sensor-processors").await?;
        let expelled = |rebalance: &&Value| {
            let changes = rebalance["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
            changes.iter().any(|c| c["consumer_id"] == "consumer-2" && c["reason"] == "missed_heartbeats")
        };
        page["rebalances"].as_array()?.iter().find(expelled).cloned()
    })
    .await;
    let (partition, _) = before.iter().find(|(_, owner)| *owner == "consumer-2").unwrap();
    let paused = moved["paused_ms"][format!("sensor-data/{partition}")].as_u64().unwrap_or_default();
    // It stood still from when its owner was last heard of.
    assert!((SESSION..EXPULSION).contains(&Duration::from_millis(paused)), "{moved}");
    assert_eq!(moved["before"]["consumer-2"], json!([format!("sensor-data/{partition}")]), "{moved}");
    assert!(moved["cost"]["longest_pause_ms"].as_u64() >= Some(paused), "{moved}");
    eventually(SOON, "what had waited is read", async || {
        let group = plant.get("/api/groups/sensor-processors").await?;
        group["partitions"].as_array()?.iter().all(|p| p["lag_ms"].as_u64() < Some(5000)).then_some(())
    })
    .await;

    let back = plant.must("start-consumers");
    assert!(back.contains("consumer-2 started"), "{back}");
    plant.owned_by(&["consumer-1", "consumer-2", "consumer-3"]).await;

    let all: BTreeMap<String, u32> = started.into_iter().chain(plant.pids()).collect();
    let stopped = plant.must("stop");
    assert!(!stopped.contains("killed"), "{stopped}");
    let left: Vec<_> = all.iter().filter(|(_, pid)| runs(**pid)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(plant.pids().is_empty());

    // The history is still there when Farol is.
    plant.must("start");
    let page = plant.get("/api/rebalances?group=sensor-processors").await.unwrap();
    assert!(page["rebalances"].as_array().unwrap().contains(&moved), "{page}");
    plant.must("clean");
    assert!(!plant.folder.path().join("data").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plant_that_cannot_start_says_why_and_leaves_nothing_running() {
    let plant = Plant::new();
    let taken = TcpListener::bind(("127.0.0.1", plant.http)).unwrap();
    for command in ["with-monitoring", "up"] {
        let output = plant.run(&[command]);
        let errors = text(&output.stderr);
        assert!(!output.status.success() && errors.contains("in use"), "{command}: {errors}");
        assert!(plant.pids().is_empty(), "{:?}", plant.pids());
    }
    drop(taken);
    let output = plant.run(&["start-consumers"]);
    assert!(text(&output.stderr).contains("make start"), "{output:?}");

    // A pid that now belongs to somebody else is not taken for ours.
    let run = plant.folder.path().join("run");
    std::fs::write(run.join("consumer-1.pid"), format!("{} 1\n", std::process::id())).unwrap();
    plant.must("stop");
    assert!(plant.pids().is_empty());
}

#[test]
fn make_takes_the_folder_that_the_script_takes() {
    let plant = Plant::new();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let make = || {
        let mut command = Command::new("make");
        command.args(["--no-print-directory", "status"]).current_dir(&repository).stdin(Stdio::null());
        // Those of a make that runs this test.
        command.env_remove("MAKEFLAGS").env_remove("PLANT");
        command
    };
    let (mut by_environment, mut by_argument) = (make(), make());
    by_environment.env("PLANT", plant.folder.path());
    by_argument.arg(format!("PLANT={}", plant.folder.path().display()));
    for mut command in [by_environment, by_argument] {
        let output = command.output().expect("make can be run");
        let said = text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(said.contains(&format!("data and logs: {}", plant.folder.path().display())), "{said}");
    }
}

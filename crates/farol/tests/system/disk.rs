//! A full disk and a folder that can't be written, on small file systems that the test mounts. That needs root; where it
//! can't be had, the tests fail on CI and say elsewhere that they checked nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::farol::{Farol, SOON, eventually, farol, folder, output, text, write};

/// A mounted tmpfs, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where this user may not mount.
    fn new(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self(at.to_owned())),
            other => {
                assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a tmpfs: {other:?}");
                println!("NOT CHECKED: no tmpfs can be mounted here ({other:?}); run this test as root");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_with_a_way_out() {
    let folder = folder();
    let Some(mount) = Mount::new(&folder.path().join("read-only"), "ro,size=1m") else { return };
    for path in [mount.0.clone(), mount.0.join("below")] {
        let run = output(farol(folder.path()).args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(path));
        assert_eq!(run.status.code(), Some(1));
        let error = text(&run.stderr);
        assert!(error.contains("must be writable") && error.contains("--data"), "{error}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_readings_with_a_reason_keeps_what_was_acknowledged_and_recovers_with_space() {
    let folder = folder();
    let Some(mount) = Mount::new(&folder.path().join("small"), "size=48m") else { return };
    let data = mount.0.join("data");
    let run = || {
        let mut command = farol(folder.path());
        command.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
        command
    };
    let server = Farol::spawn(&mut run()).await;
    server.temperature("t-1", 20.0).await;
    server.views_caught_up().await;

    // The disk fills up from outside.
    let ballast = mount.0.join("ballast");
    fill(&ballast);
    let refused = eventually(SOON, "a reading is refused", async || {
        let reading =
            json!({ "sensor_id": "t-2", "value": 1, "metadata": { "padding": "x".repeat(60_000) } });
        let answer = server.post("/api/readings", &reading).await;
        (answer.status != StatusCode::ACCEPTED).then_some(answer)
    })
    .await;
    assert!(refused.status.is_server_error(), "{refused:?}");
    assert!(refused.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{refused:?}");

    // It still answers, and says what is wrong.
    let readings = server.get("/api/readings?sensor_id=t-1").await;
    assert_eq!(readings["readings"].as_array().unwrap().len(), 1);
    let status = server.get("/api/system-status").await;
    assert_eq!(status["status"], "degraded", "{status}");
    let accepted = server.get("/api/system-status").await["log"]["topics"]
        .as_array()
        .unwrap()
        .iter()
        .find(|topic| topic["name"] == "sensor-data")
        .and_then(|topic| topic["records"].as_u64())
        .unwrap();
    assert_eq!(status["conditions"][0]["code"], "log_waits_for_space", "{status}");

    // With space again the same process goes on, all the way to the views.
    std::fs::remove_file(&ballast).unwrap();
    let reading = |value: f64| json!({ "sensor_id": "t-1", "sensor_type": "temperature", "value": value, "unit": "°C" });
    let taken = async |server: &Farol, value: f64| {
        eventually(SOON, "the reading is taken", async || {
            (server.post("/api/readings", &reading(value)).await.status == StatusCode::ACCEPTED).then_some(())
        })
        .await;
    };
    // The views may be some milliseconds behind without knowing it.
    let shown = async |server: &Farol, count: usize| {
        eventually(SOON, "the readings are shown", async || {
            let readings = server.get("/api/readings?sensor_id=t-1").await;
            (readings["readings"].as_array().unwrap().len() >= count).then_some(())
        })
        .await;
        server.views_caught_up().await;
        let readings = server.get("/api/readings?sensor_id=t-1").await;
        assert_eq!(readings["readings"].as_array().unwrap().len(), count);
    };
    taken(&server, 95.0).await;
    shown(&server, 2).await;
    eventually(SOON, "the alert of the new reading", async || {
        let alerts = server.get("/api/alerts").await;
        (!alerts["alerts"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    eventually(SOON, "all is well", async || {
        (server.get("/api/system-status").await["status"] == "ok").then_some(())
    })
    .await;

    // It is full once more, and the process is killed.
    fill(&ballast);
    eventually(SOON, "a reading is refused", async || {
        let padded = json!({ "sensor_id": "t-2", "value": 1, "metadata": { "padding": "x".repeat(60_000) } });
        (server.post("/api/readings", &padded).await.status != StatusCode::ACCEPTED).then_some(())
    })
    .await;
    drop(server);

    // On the disk that is still full it starts, shows what is there, and refuses readings with the reason.
    let server = Farol::spawn(&mut run()).await;
    let readings = server.get("/api/readings?sensor_id=t-1").await;
    assert_eq!(readings["readings"].as_array().unwrap().len(), 2);
    let refused = server.post("/api/readings", &reading(21.0)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("No space left") && detail.contains("free space"), "{detail}");
    let status = server.get("/api/system-status").await;
    assert_eq!(status["status"], "degraded", "{status}");
    assert!(status["problems"].to_string().contains("disk is full"), "{status}");
    assert_eq!(status["conditions"][0]["code"], "log_waits_for_space", "{status}");

    // With space again, the same process takes readings, and everything that was acknowledged is there.
    std::fs::remove_file(&ballast).unwrap();
    taken(&server, 21.0).await;
    shown(&server, 3).await;
    let records = server.get("/api/system-status").await["log"]["topics"].clone();
    let records =
        records.as_array().unwrap().iter().find(|topic| topic["name"] == "sensor-data").unwrap()["records"]
            .as_u64();
    assert!(records >= Some(accepted + 1), "{records:?} of {accepted} and one more");
}

#[tokio::test]
async fn what_fails_again_and_again_on_a_full_disk_is_logged_when_it_begins_and_when_it_is_over() {
    let folder = folder();
    let Some(mount) = Mount::new(&folder.path().join("small"), "size=48m") else { return };
    let mut command = farol(folder.path());
    command.args(["run", "--demo", "--listen", "127.0.0.1:0", "--data"]).arg(mount.0.join("data"));
    let server = Farol::spawn(&mut command).await;
    server.views_caught_up().await;
    let ballast = mount.0.join("ballast");
    fill(&ballast);
    let begins = ["worker failed", "rebalances are not recorded", "system events are not recorded"];
    let logged = async |these: &[&str]| {
        eventually(SOON * 2, "it is logged", async || {
            let log = server.logged();
            these.iter().all(|what| log.contains(what)).then_some(())
        })
        .await;
    };
    logged(&begins).await;
    // Each of them fails some times more.
    tokio::time::sleep(Duration::from_secs(4)).await;
    std::fs::remove_file(&ballast).unwrap();
    logged(&["worker works again", "rebalances are recorded again", "system events are recorded again"])
        .await;

    let log = server.logged();
    let full = log.matches("the disk is full").count();
    for what in &begins[1..] {
        // Whoever waits for longer than a minute is reminded, with what was left untold.
        let told = log.lines().filter(|line| line.contains(what) && line.contains("untold=0")).count();
        assert!((1..=full).contains(&told), "{what}: {told} times on {full} full disks:\n{log}");
    }
    let failed =
        log.lines().filter(|line| line.contains("worker failed") && line.contains("untold=0")).count();
    let members = 3 * 2;
    assert!((1..=full * members).contains(&failed), "{failed} times on {full} full disks:\n{log}");
}

#[tokio::test]
async fn a_disk_that_was_filled_after_an_orderly_stop_keeps_nobody_from_reading() {
    let folder = folder();
    let Some(mount) = Mount::new(&folder.path().join("small"), "size=48m") else { return };
    let run = || {
        let mut command = farol(folder.path());
        command.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(mount.0.join("data"));
        command
    };
    let server = Farol::spawn(&mut run()).await;
    server.temperature("t-1", 20.0).await;
    server.views_caught_up().await;
    server.stop().await;

    // The views' helper files went with the stop, and there is no room to make them again.
    let ballast = mount.0.join("ballast");
    fill(&ballast);
    let server = Farol::spawn(&mut run()).await;
    assert!(server.printed().contains("the disk is full"), "{}", server.printed());
    let readings = server.get("/api/readings?sensor_id=t-1").await;
    assert_eq!(readings["readings"].as_array().unwrap().len(), 1);
    std::fs::remove_file(&ballast).unwrap();
    let reading = json!({ "sensor_id": "t-1", "sensor_type": "temperature", "value": 21, "unit": "°C" });
    eventually(SOON, "the reading is taken", async || {
        (server.post("/api/readings", &reading).await.status == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    server.views_caught_up().await;
    let readings = server.get("/api/readings?sensor_id=t-1").await;
    assert_eq!(readings["readings"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_for_a_full_disk_are_told_apart_from_those_that_are_acknowledged() {
    let folder = folder();
    let Some(mount) = Mount::new(&folder.path().join("small"), "size=48m") else { return };
    let run = || {
        let mut command = farol(folder.path());
        command.args(["run", "--listen", "127.0.0.1:0", "--data"]).arg(mount.0.join("data"));
        command
    };
    let lines: String = (0..300).map(|_| format!("{}\n", "x".repeat(60_000))).collect();
    let lines = write(folder.path(), "lines.txt", &lines);
    let produce = |server: &Farol, more: &[&str]| {
        let mut command = farol(folder.path());
        output(command.args(["produce", "notes", "--brokers", &server.kafka]).args(more).arg(&lines))
    };
    let server = Farol::spawn(&mut run()).await;
    let create = ["topics", "create", "notes", "--brokers", &server.kafka];
    assert!(output(farol(folder.path()).args(create)).status.success());
    let few = write(folder.path(), "few.txt", "1\n2\n");
    let sent = output(farol(folder.path()).args(["produce", "notes", "--brokers", &server.kafka]).arg(&few));
    assert_eq!(text(&sent.stdout), "2 records acknowledged\n");

    // The disk fills up while lines go out, and later before the first one: then the broker has no id for the producer either.
    fill_but(&mount.0.join("ballast"), 6 << 20);
    let refused = produce(&server, &["--json"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let told: Value = serde_json::from_slice(&refused.stdout).unwrap();
    let (acknowledged, not) =
        (told["acknowledged"].as_u64().unwrap(), told["not_acknowledged"].as_u64().unwrap());
    assert!(acknowledged > 0 && not > 0 && acknowledged + not <= 300, "{told}");
    let failures = told["failures"].as_array().unwrap();
    let reason = "notes refuses appends: the broker can't write to its disk, which may be full";
    assert_eq!(
        (failures.len(), &failures[0]["reason"]),
        (1, &reason.into()),
        "one reason for all: {failures:?}"
    );
    assert_eq!(failures[0]["lines"].as_array().unwrap().len() as u64, not);
    let counts = format!("farol: {acknowledged} line");
    assert!(said.starts_with(&counts) && said.contains("make room on the broker's disk"), "{said}");
    assert!(!said.contains("PID") && !said.contains("WARN"), "{said}");
    let stored = server.get("/api/system-status").await["log"]["topics"].clone();
    let notes = stored.as_array().unwrap().iter().find(|topic| topic["name"] == "notes").unwrap();
    assert_eq!(
        notes["records"],
        2 + acknowledged,
        "what is acknowledged is stored, and nothing else: {notes}"
    );
    drop(server);

    // The start may have made room for some lines. Its own events run into what is left of the disk.
    let server = Farol::spawn(&mut run()).await;
    fill(&mount.0.join("more-ballast"));
    eventually(SOON, "the log refuses appends", async || {
        let status = server.get("/api/system-status").await;
        (status["conditions"][0]["code"] == "log_waits_for_space").then_some(())
    })
    .await;
    let refused = produce(&server, &[]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert_eq!(text(&refused.stdout), "0 records acknowledged\n");
    let expected = format!(
        "farol: 0 lines are acknowledged, 1 is not:\n  line 1: {reason}\n  nothing from line 2 on was sent\n"
    );
    assert!(said.starts_with(&expected) && said.lines().count() == 4, "{said}");
}

/// Writes until so many bytes are left.
fn fill_but(path: &Path, left: u64) {
    fill(path);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - left).unwrap();
}

/// Writes until nothing more goes in.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![0; size];
        while file.write(&block).is_ok_and(|written| written == size) {}
    }
}

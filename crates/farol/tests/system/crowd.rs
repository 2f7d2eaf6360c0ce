//! Ten thousand Kafka connections that do nothing, and one that works.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::farol::{Farol, SOON, eventually, farol, folder};

const CONNECTIONS: u32 = 10_000;
/// Open files that a process needs beside its connections.
const OTHER_FILES: u32 = 500;
/// What Farol may use with all of them open: 19 MB when idle, and some 20 KB for each.
const MAX_RESIDENT_KIB: u64 = 300 * 1024;

/// As many connections as this machine lets a process have. The limit is inherited by Farol.
fn allowed_connections() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.and_then(|hard| u32::try_from(hard).ok()).unwrap_or(u32::MAX);
    let wanted = (CONNECTIONS + OTHER_FILES).min(hard);
    if limit.current.is_some_and(|soft| soft < wanted.into()) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted.into()), maximum: limit.maximum })
            .expect("the soft limit can be raised up to the hard one");
    }
    CONNECTIONS.min(wanted - OTHER_FILES)
}

/// Asks what is served (ApiVersions version 0), and gives the length of the answer.
async fn ask(stream: &mut TcpStream) -> i32 {
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    stream.write_all(&request).await.unwrap();
    let length = tokio::time::timeout(SOON, stream.read_i32()).await.expect("an answer in time").unwrap();
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..6], [0, 0, 0, 1, 0, 0], "correlation id and no error");
    length
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn ten_thousand_idle_connections_hold_up_nobody_and_little_memory_and_silent_ones_make_room() {
    let connections = allowed_connections();
    let folder = folder();
    let mut command = farol(folder.path());
    command.args(["run", "--listen", "127.0.0.1:0"]);
    command.env("FAROL_KAFKA_CONNECTIONS", (connections + 1).to_string());
    let farol = Farol::spawn(&mut command).await;
    let mut good = TcpStream::connect(&farol.kafka).await.unwrap();
    let length = ask(&mut good).await;
    let mut idle = Vec::new();
    for number in 0..connections {
        let mut stream = TcpStream::connect(&farol.kafka).await.unwrap();
        assert_eq!(ask(&mut stream).await, length);
        idle.push(stream);
        if number % 500 == 0 {
            let began = Instant::now();
            assert_eq!(ask(&mut good).await, length);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?} beside {number}", began.elapsed());
        }
    }
    metric(&farol, "all are open", "farol_kafka_connections", connections + 1).await;
    let resident = resident_kib(farol.pid());
    println!("{connections} connections, {resident} KiB");
    assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB with {connections} connections");
    // One more is refused, and the rest is none the worse.
    let mut refused = TcpStream::connect(&farol.kafka).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, refused.read(&mut [0; 16])).await.unwrap().unwrap_or(0), 0);
    assert_eq!(ask(idle.last_mut().unwrap()).await, length);
    assert_eq!(ask(&mut good).await, length);

    // One address holds every place, with connections that have said nothing.
    drop(idle);
    metric(&farol, "all but one are gone", "farol_kafka_connections", 1).await;
    let mut silent = Vec::new();
    for _ in 0..connections {
        silent.push(TcpStream::connect(&farol.kafka).await.unwrap());
    }
    metric(&farol, "all are open again", "farol_kafka_connections", connections + 1).await;
    let mut newcomer = TcpStream::connect(&farol.kafka).await.unwrap();
    assert_eq!(ask(&mut newcomer).await, length);
    assert_eq!(ask(&mut good).await, length);
    let made_room = "farol_kafka_ended_connections_total{reason=\"made room\"}";
    metric(&farol, "the oldest made room", made_room, 1).await;
    let first = silent.first_mut().unwrap();
    assert_eq!(tokio::time::timeout(SOON, first.read(&mut [0; 16])).await.unwrap().unwrap_or(0), 0);

    let began = Instant::now();
    let (status, printed) = farol.stop().await;
    assert!(status.success(), "{printed}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// Waits until a metric has a value.
async fn metric(farol: &Farol, what: &str, name: &str, value: u32) {
    eventually(SOON, what, async || {
        let metrics = farol.text("/metrics").await;
        let shown = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        (shown == Some(f64::from(value))).then_some(())
    })
    .await;
}

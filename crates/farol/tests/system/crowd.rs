//! Ten thousand Kafka connections that say nothing, and one that works.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::farol::{Farol, SOON, eventually, farol, folder};

const CONNECTIONS: u64 = 10_000;
/// Open files that a process needs beside its connections.
const OTHER_FILES: u64 = 500;
/// What Farol may use with all of them open: 19 MB when idle, and some 20 KB for each.
const MAX_RESIDENT_KIB: u64 = 300 * 1024;

/// As many connections as this machine lets a process have. The limit is inherited by Farol.
fn allowed_connections() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(CONNECTIONS + OTHER_FILES);
    let wanted = (CONNECTIONS + OTHER_FILES).min(hard);
    if limit.current.is_some_and(|soft| soft < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
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
async fn ten_thousand_silent_connections_hold_up_nobody_and_little_memory() {
    let connections = allowed_connections();
    let folder = folder();
    let mut command = farol(folder.path());
    command.args(["run", "--listen", "127.0.0.1:0"]);
    command.env("FAROL_KAFKA_CONNECTIONS", (connections + 1).to_string());
    let farol = Farol::spawn(&mut command).await;
    let mut good = TcpStream::connect(&farol.kafka).await.unwrap();
    let length = ask(&mut good).await;
    let mut silent = Vec::new();
    for number in 0..connections {
        silent.push(TcpStream::connect(&farol.kafka).await.unwrap());
        if number % 500 == 0 {
            let began = Instant::now();
            assert_eq!(ask(&mut good).await, length);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?} beside {number}", began.elapsed());
        }
    }
    let wanted = format!("farol_kafka_connections {}", connections + 1);
    eventually(SOON, "all are open", async || {
        farol.text("/metrics").await.lines().any(|line| line.starts_with(&wanted)).then_some(())
    })
    .await;
    let resident = resident_kib(farol.pid());
    println!("{connections} connections, {resident} KiB");
    assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB with {connections} connections");
    // One more is refused, and the rest is none the worse.
    let mut refused = TcpStream::connect(&farol.kafka).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, refused.read(&mut [0; 16])).await.unwrap().unwrap_or(0), 0);
    assert_eq!(ask(silent.last_mut().unwrap()).await, length);
    assert_eq!(ask(&mut good).await, length);
    let began = Instant::now();
    let (status, printed) = farol.stop().await;
    assert!(status.success(), "{printed}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

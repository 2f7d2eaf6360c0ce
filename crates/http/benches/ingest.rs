//! How fast readings come in over HTTP, how soon an alert goes out on the stream, and what streams cost, with everything running: embedded
//! bus with fsync, two detect workers, all views, and the load generator on the same machine.
//!
//! `cargo bench -p farol-http --bench ingest [-- batches|singles|alerts|streams]`; seconds per measurement in
//! `FAROL_BENCH_SECONDS` (default 10).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]

#[path = "../tests/it/support.rs"]
mod support;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use support::Farol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

const BATCH_LINES: usize = 1000;
const BATCH_CONNECTIONS: usize = 8;
const SINGLE_CONNECTIONS: usize = 128;
/// Readings a second beside which the way of alerts is measured.
const BACKGROUND_PER_SECOND: usize = 20_000;

fn main() {
    let which = std::env::args().nth(1).filter(|arg| !arg.starts_with("--"));
    let wanted = |name: &str| which.as_deref().is_none_or(|given| given == name);
    let seconds = std::env::var("FAROL_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let time = Duration::from_secs(seconds);
    if wanted("batches") {
        throughput("batches of 1000 lines", BATCH_CONNECTIONS, BATCH_LINES, time);
    }
    if wanted("singles") {
        throughput("single readings", SINGLE_CONNECTIONS, 1, time);
    }
    if wanted("alerts") {
        alerts(time);
    }
    if wanted("streams") {
        for clients in [0, 1, 50, 200] {
            streams(clients, time);
        }
    }
}

/// A server with its own threads, as in the real program; the load has one of its own.
fn with_server<T>(measure: impl AsyncFnOnce(SocketAddr) -> T) -> T {
    let server = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut farol = server.block_on(Farol::start());
    let load = Builder::new_current_thread().enable_all().build().unwrap();
    let result = load.block_on(measure(farol.addr));
    server.block_on(farol.stop_http());
    drop(farol);
    server.shutdown_timeout(Duration::from_secs(10));
    result
}

fn throughput(name: &str, connections: usize, lines: usize, time: Duration) {
    let (sent, latencies, elapsed, cores) = with_server(async |addr| {
        let processor_before = processor_time();
        let sent = Arc::new(AtomicU64::new(0));
        let begin = Instant::now();
        let end = begin + time;
        let clients: Vec<_> = (0..connections)
            .map(|client| {
                let sent = Arc::clone(&sent);
                tokio::spawn(async move {
                    let bodies: Vec<Vec<u8>> = (0..4).map(|n| request(lines, client * 4 + n)).collect();
                    let mut connection = TcpStream::connect(addr).await.unwrap();
                    connection.set_nodelay(true).unwrap();
                    let mut latencies = histogram();
                    let mut turn = 0;
                    while Instant::now() < end {
                        let began = Instant::now();
                        exchange(&mut connection, &bodies[turn % bodies.len()]).await;
                        latencies.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap());
                        sent.fetch_add(lines as u64, Ordering::Relaxed);
                        turn += 1;
                    }
                    latencies
                })
            })
            .collect();
        let mut all = histogram();
        for client in clients {
            all.add(client.await.unwrap()).unwrap();
        }
        let elapsed = begin.elapsed();
        (
            sent.load(Ordering::Relaxed),
            all,
            elapsed,
            (processor_time() - processor_before) / elapsed.as_secs_f64(),
        )
    });
    let per_second = sent as f64 / elapsed.as_secs_f64();
    println!(
        "{name}: {per_second:.0} readings/s over {connections} connections; answers {}",
        times(&latencies)
    );
    println!("  {cores:.2} cores for server and load together; at most {} MiB of memory", peak_memory_mib());
}

fn alerts(time: Duration) {
    let latencies = with_server(async |addr| {
        let end = Instant::now() + time;
        let background = tokio::spawn(background(addr, end));
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET /api/stream?streams=alert HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut unread = Vec::new();
        read_until(&mut stream, &mut unread, b"event: hello").await;
        let mut connection = TcpStream::connect(addr).await.unwrap();
        connection.set_nodelay(true).unwrap();
        let mut latencies = histogram();
        let mut probe = 0;
        while Instant::now() < end {
            let line = format!(r#"{{"sensor_id":"probe-{probe}-x","sensor_type":"temperature","value":99}}"#);
            let began = Instant::now();
            let (series, body) =
                (format!(r#""series":"probe-{probe}-x""#), post("application/json", line.as_bytes()));
            tokio::join!(
                exchange(&mut connection, &body),
                read_until(&mut stream, &mut unread, series.as_bytes())
            );
            latencies.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap());
            probe += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sent = background.await.unwrap();
        println!("beside {:.0} readings/s:", f64::from(sent) / time.as_secs_f64());
        latencies
    });
    println!("reading sent → alert on the stream: {} of {}", times(&latencies), latencies.len());
}

/// Sends [`BACKGROUND_PER_SECOND`] readings a second; how many it sent.
async fn background(addr: SocketAddr, end: Instant) -> u32 {
    let mut connection = TcpStream::connect(addr).await.unwrap();
    let bodies: Vec<Vec<u8>> = (0..5).map(|seed| request(BACKGROUND_PER_SECOND / 100, seed)).collect();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut sent = 0;
    for body in bodies.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        ticks.tick().await;
        exchange(&mut connection, body).await;
        sent += u32::try_from(BACKGROUND_PER_SECOND / 100).unwrap();
    }
    sent
}

/// What it costs when so many clients follow everything beside the background.
fn streams(clients: usize, time: Duration) {
    let (cores, received, sent) = with_server(async |addr| {
        let end = Instant::now() + time;
        let received = Arc::new(AtomicU64::new(0));
        for _ in 0..clients {
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.write_all(b"GET /api/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
                let mut taken = vec![0; 256 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut taken).await {
                    received.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
        }
        let before = processor_time();
        let sent = background(addr, end).await;
        ((processor_time() - before) / time.as_secs_f64(), received.load(Ordering::Relaxed), sent)
    });
    let per_client = received as f64 / clients.max(1) as f64 / time.as_secs_f64() / 1000.0;
    println!(
        "{clients} streams beside {:.0} readings/s: {cores:.2} cores for server and clients together, {per_client:.0} kB/s \
         a client; at most {} MiB of memory",
        f64::from(sent) / time.as_secs_f64(),
        peak_memory_mib()
    );
}

/// Of microseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap()
}

/// Processor time of this process (server and load) so far, in seconds.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |index: usize| fields.split_whitespace().nth(index).unwrap().parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// The most memory that this process has had, in MiB.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn times(latencies: &Histogram<u64>) -> String {
    let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    format!("p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms", ms(0.5), ms(0.99), ms(0.999), ms(1.0))
}

/// A request with that many readings of sensors that nothing is wrong with.
fn request(lines: usize, seed: usize) -> Vec<u8> {
    let mut body = String::new();
    for line in 0..lines {
        let sensor = (seed * 7919 + line) % 1000;
        let value = 20.0 + (line % 100) as f64 / 10.0;
        writeln!(
            body,
            r#"{{"timestamp":"2025-09-16T21:41:41.011144Z","sensor_id":"temp-sensor-{sensor:04}","sensor_type":"temperature","location":{{"factory_section":"production","machine_id":"machine-{:03}","zone":"zone-a"}},"value":{value},"unit":"°C","quality":1.0}}"#,
            sensor % 40
        )
        .unwrap();
    }
    post(if lines == 1 { "application/json" } else { "application/x-ndjson" }, body.as_bytes())
}

fn post(content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /api/readings HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Sends a request and reads its answer, which must be 202.
async fn exchange(connection: &mut TcpStream, request: &[u8]) {
    connection.write_all(request).await.unwrap();
    let mut answer = [0; 4096];
    let mut length = 0;
    loop {
        let read = connection.read(&mut answer[length..]).await.unwrap();
        assert!(read > 0, "the server closed the connection");
        length += read;
        let text = std::str::from_utf8(&answer[..length]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 202"), "{text}");
        let announced = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == announced.parse::<usize>().unwrap() {
            return;
        }
    }
}

/// Reads the stream until `wanted` has come.
async fn read_until(stream: &mut TcpStream, unread: &mut Vec<u8>, wanted: &[u8]) {
    loop {
        if let Some(at) = unread.windows(wanted.len()).position(|window| window == wanted) {
            unread.drain(..at + wanted.len());
            return;
        }
        // What is kept must still hold a beginning of what is wanted.
        let known = unread.len().saturating_sub(wanted.len());
        unread.drain(..known);
        let mut more = vec![0; 16 * 1024];
        let read = stream.read(&mut more).await.unwrap();
        assert!(read > 0, "the stream ended");
        unread.extend_from_slice(&more[..read]);
    }
}

//! Who comes in, and how many.

use std::time::Duration;

use axum::http::Method;
use farol_http::{AccessToken, HttpSettings, ServeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::support::Farol;

/// The body of [`Farol::request_under_way`].
const BODY: &[u8] = br#"{"sensor_id":"a","value":1}"#;

/// Sends raw bytes and reads until the server closes.
async fn raw(farol: &Farol, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(farol.addr).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close.
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer))
        .await
        .expect("an end in time");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let farol = Farol::start().await;
    farol.request(Method::GET, "/api/sensors", &[("host", "evil.example")], "").await.problem(403);
    let origin = [("origin", "http://evil.example"), ("content-type", "application/json")];
    farol.request(Method::POST, "/api/readings", &origin, "{}").await.problem(403);
    let own = format!("http://{}", farol.addr);
    let own = [("origin", own.as_str()), ("content-type", "application/json")];
    let accepted = farol.request(Method::POST, "/api/readings", &own, r#"{"sensor_id":"a","value":1}"#).await;
    assert_eq!(accepted.status, 202);
    let read = farol.request(Method::GET, "/api/sensors", &[("origin", "http://evil.example")], "").await;
    assert_eq!(read.header("access-control-allow-origin"), "", "no other site reads the answer");
}

#[tokio::test]
async fn a_token_lets_in_and_its_absence_does_not() {
    let farol =
        Farol::start_with(|settings| settings.token = Some(AccessToken::new("0123456789abcdef"))).await;
    let refused = farol.get("/api/sensors").await;
    refused.problem(401);
    assert!(refused.headers.get_all("www-authenticate").iter().count() == 2);
    farol.get("/").await.problem(401);
    farol.request(Method::GET, "/api/sensors", &[("authorization", "Bearer wrong")], "").await.problem(401);
    let right = [("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(farol.request(Method::GET, "/api/sensors", &right, "").await.status, 200);
    assert_eq!(farol.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let farol = Farol::start().await;
    let deps = farol_http::HttpDeps {
        bus: farol.bus.clone(),
        store: farol.store.clone(),
        control: farol.control(),
        metrics: Vec::new(),
    };
    let error =
        farol_http::serve(HttpSettings::new(farol.addr), deps, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, ServeError::AddressInUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&farol.addr.to_string()) && text.contains("MONITORING_PORT"), "{text}");
}

#[tokio::test]
async fn two_servers_live_in_one_process() {
    let farol = Farol::start().await;
    let shutdown = CancellationToken::new();
    let second = farol.serve_again(HttpSettings::new("127.0.0.1:0".parse().unwrap()), shutdown.clone()).await;
    assert_ne!(second.local_addr(), farol.addr);
    farol.reading("a", 1.0).await;
    let metrics = farol.get("/metrics").await;
    assert!(metrics.text().contains("farol_http_readings_accepted_total 1\n"));
    shutdown.cancel();
    second.join().await;
    assert_eq!(farol.get("/health").await.status, 200, "the first goes on");
}

#[tokio::test]
async fn broken_requests_end_with_an_error_and_harm_nobody() {
    let farol = Farol::start().await;
    let headers = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    assert!(raw(&farol, headers.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many: String = (0..300).map(|i| format!("x{i}: y\r\n")).collect();
    let many = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    assert!(raw(&farol, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&farol, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.starts_with("HTTP/1.1 400"));
    assert!(raw(&farol, b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let two_hosts = b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\nconnection: close\r\n\r\n";
    assert!(raw(&farol, two_hosts).await.starts_with("HTTP/1.1 400"));
    let long =
        format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "a".repeat(15_000));
    assert!(raw(&farol, long.as_bytes()).await.starts_with("HTTP/1.1 404"));
    assert_eq!(farol.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_connection_that_sends_its_headers_too_slowly_is_closed() {
    let farol =
        Farol::start_with(|settings| settings.limits.header_timeout = Duration::from_millis(200)).await;
    let answer = raw(&farol, b"GET /health HTTP/1.1\r\nhost: loc").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let farol = Farol::start_with(|settings| settings.limits.connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(farol.addr).await.unwrap();
        socket.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        held.push(socket);
    }
    let refused = raw(&farol, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("urn:farol:problem:busy"), "{refused}");
    drop(held);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !raw(&farol, b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .starts_with("HTTP/1.1 200")
    {
        assert!(std::time::Instant::now() < deadline, "the places of closed connections are free again");
    }
}

#[tokio::test]
async fn one_request_too_many_is_told_to_come_again() {
    let farol = Farol::start_with(|settings| settings.limits.concurrent_requests = 1).await;
    let mut socket = farol.request_under_way().await;
    let answer = farol.get("/api/workers").await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    socket.write_all(BODY).await.unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 202");
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_ends_streams() {
    let mut farol = Farol::start_with(|settings| {
        settings.limits.concurrent_requests = 1;
        settings.limits.drain_timeout = Duration::from_secs(30);
    })
    .await;
    let mut stream = farol.stream("", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    let mut socket = farol.request_under_way().await;
    let addr = farol.addr;
    let under_way = tokio::spawn(async move {
        // When the listener is closed, the shutdown has begun.
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        socket.write_all(BODY).await.unwrap();
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        status
    });
    farol.stop_http().await;
    assert_eq!(&under_way.await.unwrap(), b"HTTP/1.1 202");
    while stream.try_next().await.is_some() {}
}

#[tokio::test]
async fn shutdown_cuts_off_what_does_not_end() {
    let mut farol = Farol::start_with(|settings| {
        settings.limits.concurrent_requests = 1;
        settings.limits.drain_timeout = Duration::from_millis(200);
    })
    .await;
    let _socket = farol.request_under_way().await;
    tokio::time::timeout(Duration::from_secs(10), farol.stop_http()).await.expect("an end in time");
}

//! Questions over real sockets.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::Duration;

use farol_registry::definition::ServiceDefinition;
use farol_registry::{Failure, NetworkProber, ProbeAnswer, Prober, Reach};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that reads a request's head and answers each path with the bytes that `answer` gives, then closes.
async fn server(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            // A head ends with an empty line; whoever speaks no HTTP is answered at once.
            while !head.windows(4).any(|window| window == b"\r\n\r\n")
                && head.first().is_none_or(|byte| *byte == b'G')
            {
                let mut piece = [0; 512];
                match socket.read(&mut piece).await {
                    Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let _ = socket.write_all(&answer(&path)).await;
            let _ = socket.shutdown().await;
        }
    });
    address
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn ask(check: &str, reach: Reach) -> ProbeAnswer {
    let service: ServiceDefinition = serde_json::from_str(&format!(r#"{{"checks":[{check}]}}"#)).unwrap();
    let asking = NetworkProber::default();
    let asking = asking.probe(&service.checks[0].target, reach);
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("an answer in time")
}

async fn outcome(check: &str) -> Result<(), Failure> {
    ask(check, Reach::Loopback).await.outcome
}

#[tokio::test]
async fn status_and_body_decide() {
    let at = server(|path| match path {
        "/ok" => ok("all is well"),
        "/created" => b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
    })
    .await;
    assert_eq!(outcome(&format!(r#"{{"http":"http://{at}/ok"}}"#)).await, Ok(()));
    assert_eq!(outcome(&format!(r#"{{"http":"http://{at}/ok","body_contains":"is well"}}"#)).await, Ok(()));
    assert_eq!(outcome(&format!(r#"{{"http":"http://{at}/created","status":"201"}}"#)).await, Ok(()));
    let other = outcome(&format!(r#"{{"http":"http://{at}/ok","body_contains":"on fire"}}"#)).await;
    assert_eq!(other, Err(Failure::Body("on fire".into())));
    let down = ask(&format!(r#"{{"http":"http://{at}/x"}}"#), Reach::Loopback).await;
    assert_eq!(down.outcome.unwrap_err().to_string(), "status 503, expected 200-299");
    assert!(down.response_time.is_some(), "a wrong answer took its time too");
}

#[tokio::test]
async fn a_body_without_end_is_read_no_further_than_the_bound() {
    let at = server(|path| {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.extend(std::iter::repeat_n(b'x', 64 * 1024));
        if path == "/early" {
            answer.splice(100..104, *b"here");
        }
        answer.extend_from_slice(b"here");
        answer
    })
    .await;
    assert_eq!(outcome(&format!(r#"{{"http":"http://{at}/early","body_contains":"here"}}"#)).await, Ok(()));
    let late = outcome(&format!(r#"{{"http":"http://{at}/late","body_contains":"here"}}"#)).await;
    assert_eq!(late, Err(Failure::Body("here".into())), "it stands behind the first 64 KiB");
}

#[tokio::test]
async fn redirects_are_followed_as_often_as_allowed_and_never_out_of_reach() {
    let at = server(|path| {
        let to = |place: &str| {
            format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n").into_bytes()
        };
        match path {
            "/a" => to("/b?x=1"),
            "/b?x=1" => to("/end"),
            "/far" => to("http://192.0.2.1/"),
            "/file" => to("file:///etc/passwd"),
            "/round" => to("/round"),
            _ => ok(""),
        }
    })
    .await;
    let follow = |path: &str, times: u8| {
        let check = format!(r#"{{"http":"http://{at}{path}","follow_redirects":{times}}}"#);
        async move { outcome(&check).await }
    };
    assert_eq!(follow("/a", 2).await, Ok(()));
    assert!(matches!(follow("/a", 1).await, Err(Failure::Status { status: 302, .. })));
    assert!(matches!(follow("/a", 0).await, Err(Failure::Status { status: 302, .. })));
    assert!(matches!(follow("/round", 5).await, Err(Failure::Status { status: 302, .. })));
    assert_eq!(follow("/far", 5).await, Err(Failure::OutOfReach("192.0.2.1:80".into())));
    assert!(matches!(follow("/file", 5).await, Err(Failure::Redirect(_))));
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_failure_and_not_a_panic() {
    let at = server(|path| match path {
        "/silent" => Vec::new(),
        "/half" => b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(),
        "/long" => {
            let mut head = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
            head.extend(std::iter::repeat_n(b'x', 200 * 1024));
            head
        }
        _ => b"\x00\xff\xfeSSH-2.0-nothing\r\n".to_vec(),
    })
    .await;
    for path in ["/silent", "/half", "/long", "/garbage"] {
        let outcome = outcome(&format!(r#"{{"http":"http://{at}{path}"}}"#)).await;
        assert!(matches!(outcome, Err(Failure::Broken(_))), "{path}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_port_answers_or_does_not() {
    let at = server(|_| Vec::new()).await;
    let open = ask(&format!(r#"{{"tcp":"{at}"}}"#), Reach::Loopback).await;
    assert_eq!(open.outcome, Ok(()));
    assert!(open.response_time.is_some());
    assert_eq!(outcome(&format!(r#"{{"tcp":"localhost:{}"}}"#, at.port())).await, Ok(()));
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let closed = ask(&format!(r#"{{"tcp":"{free}"}}"#), Reach::Loopback).await;
    assert!(matches!(closed.outcome, Err(Failure::Connect { .. })), "{closed:?}");
    assert_eq!(closed.response_time, None);
}

#[tokio::test]
async fn what_is_out_of_reach_is_not_connected_to() {
    // Documentation addresses (RFC 5737): a connection to them would wait until the test's own limit.
    for check in [r#"{"tcp":"192.0.2.1:80"}"#, r#"{"http":"http://192.0.2.1/"}"#, r#"{"tcp":"0.0.0.0:1"}"#] {
        let asked = tokio::time::timeout(Duration::from_secs(5), outcome(check)).await.unwrap();
        assert!(matches!(asked, Err(Failure::OutOfReach(_))), "{check}: {asked:?}");
    }
}

#[tokio::test]
async fn https_to_something_without_tls_fails_with_the_reason() {
    let at = server(|_| ok("plain")).await;
    let outcome = outcome(&format!(r#"{{"http":"https://{at}/"}}"#)).await;
    assert!(matches!(outcome, Err(Failure::Tls { .. })), "{outcome:?}");
}

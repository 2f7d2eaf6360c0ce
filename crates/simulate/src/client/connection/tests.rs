use proptest::prelude::*;
use tokio::net::TcpListener;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// A server that takes one request after the other and answers with these bytes, then closes. Gives what it was sent.
async fn server(answers: Vec<Vec<u8>>) -> (ServerUrl, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut taken = String::new();
        for answer in answers {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.unwrap();
            taken.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            for piece in answer.chunks(7) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        taken
    });
    (url, serving)
}

async fn exchange(connection: &mut Connection, server: &ServerUrl) -> Result<Answer, ClientError> {
    let template = RequestTemplate::post(server, "/api/readings", "application/json", "test").unwrap();
    connection.exchange(&template, Bytes::from_static(b"{}"), LIMIT).await
}

#[tokio::test]
async fn answers_of_every_framing_follow_one_another_on_one_connection() {
    let (url, serving) = server(vec![
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nfirst".to_vec(),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nsec\r\n3\r\nond\r\n0\r\na: b\r\n\r\n".to_vec(),
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\n\r\nuntil the end".to_vec(),
    ])
    .await;
    let mut connection = Connection::open(&url).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(exchange(&mut connection, &url).await.unwrap());
    }
    let bodies: Vec<_> = answers.iter().map(|a| (a.status.as_u16(), a.body.as_ref())).collect();
    assert_eq!(bodies, [(202, &b"first"[..]), (200, b"second"), (204, b""), (503, b"until the end")]);
    assert_eq!(answers[3].retry_after, Some(Duration::from_secs(2)));
    assert!(matches!(exchange(&mut connection, &url).await, Err(ClientError::ClosedWhileIdle)));
    let taken = serving.await.unwrap();
    assert!(taken.starts_with("POST /api/readings HTTP/1.1\r\nhost: 127.0.0.1:"), "{taken}");
    assert!(taken.contains("\r\nfarol-producer: test\r\ncontent-length: 2\r\n\r\n{}POST"), "{taken}");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_has_sent_nothing() {
    let (url, serving) = server(vec![b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()]).await;
    let mut connection = Connection::open(&url).await.unwrap();
    exchange(&mut connection, &url).await.unwrap();
    serving.await.unwrap();
    // The end of the connection is on its way to us.
    connection.stream.readable().await.unwrap();
    assert!(matches!(exchange(&mut connection, &url).await, Err(ClientError::ClosedWhileIdle)));
}

#[tokio::test]
async fn an_answer_that_breaks_off_may_mean_that_the_request_was_processed() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 202",
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nfi",
        b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst",
        b"SSH-2.0-OpenSSH\r\n",
    ] {
        let (url, _serving) = server(vec![answer.to_vec()]).await;
        let mut connection = Connection::open(&url).await.unwrap();
        let error = exchange(&mut connection, &url).await.unwrap_err();
        assert!(matches!(error, ClientError::Broken(_)) && error.may_have_arrived(), "{error}");
    }
}

#[tokio::test]
async fn answers_beyond_the_bounds_are_given_up() {
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX_ANSWER_BYTES + 1);
    let chunk =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", MAX_ANSWER_BYTES + 1);
    for answer in [announced, chunk] {
        let (url, _serving) = server(vec![answer.into_bytes()]).await;
        let mut connection = Connection::open(&url).await.unwrap();
        assert!(matches!(exchange(&mut connection, &url).await, Err(ClientError::AnswerTooLong)));
    }
}

proptest! {
    #[test]
    fn arbitrary_heads_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        header in "[a-zA-Z-]{1,20}: ?[ -~]{0,20}",
        status in 0u16..1000,
    ) {
        let _ = AnswerHead::parse(&bytes);
        let _ = AnswerHead::parse(format!("HTTP/1.1 {status} x\r\n{header}\r\n\r\n").as_bytes());
    }
}

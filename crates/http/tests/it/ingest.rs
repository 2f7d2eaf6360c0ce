//! Readings and events in: every form, and everything that can be wrong with them.

use axum::http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Farol;

const GOOD: &str = r#"{"sensor_id":"a","value":1}"#;

#[tokio::test]
async fn one_reading_an_array_and_lines_are_accepted() {
    let farol = Farol::start().await;
    for (content_type, body, accepted) in [
        ("application/json", GOOD.to_owned(), 1),
        ("application/json; charset=utf-8", format!("[{GOOD},\n {GOOD}]"), 2),
        ("application/x-ndjson", format!("{GOOD}\r\n\n{GOOD}\n{GOOD}"), 3),
    ] {
        let answer = farol.post("/api/readings", content_type, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json(), json!({"accepted": accepted, "rejected": [], "rejected_total": 0}));
    }
    let rows = farol
        .get_until("/api/readings?sensor_id=a", |json| json["readings"].as_array().unwrap().len() == 6)
        .await;
    assert_eq!(rows["truncated"], false);
}

#[tokio::test]
async fn what_the_sender_wrote_comes_back_with_unknown_fields() {
    let farol = Farol::start().await;
    let body = r#"{"sensor_id":"ü-1","value":-0.5,"timestamp":"2025-01-02T03:04:05Z","batch":{"n":[1,2]},"metadata":{"x":null}}"#;
    assert_eq!(farol.post_json("/api/readings", body).await.status, 202);
    let rows = farol
        .get_until("/api/readings?sensor_id=%C3%BC-1", |json| json["readings"].as_array().unwrap().len() == 1)
        .await;
    let row = &rows["readings"][0];
    assert_eq!(row["timestamp"], "2025-01-02T03:04:05.000000Z");
    assert_eq!(row["batch"], json!({"n": [1, 2]}));
    assert_eq!(row["metadata"], json!({"x": null}));
    assert_eq!(row["position"]["topic"], "sensor-data");
}

#[tokio::test]
async fn a_bad_reading_among_good_ones_is_named_and_harms_no_other() {
    let farol = Farol::start().await;
    let body = format!("{GOOD}\n{{\"sensor_id\":\"b\"}}\n{GOOD}\nnot json\n{GOOD}");
    let answer = farol.post("/api/readings", "application/x-ndjson", body).await;
    assert_eq!(answer.status, 202);
    let json = answer.json();
    assert_eq!(json["accepted"], 3);
    assert_eq!(json["rejected_total"], 2);
    assert_eq!(json["rejected"][0]["index"], 1);
    assert!(json["rejected"][0]["error"].as_str().unwrap().contains("value"), "{json}");
    assert_eq!(json["rejected"][1]["index"], 3);
    let metrics = farol.get("/metrics").await;
    assert!(metrics.text().contains("farol_http_readings_accepted_total 3\n"), "{}", metrics.text());
    assert!(metrics.text().contains("farol_http_readings_rejected_total{reason=\"malformed\"} 2\n"));
}

#[tokio::test]
async fn every_kind_of_bad_reading_is_refused_with_its_reason() {
    let farol = Farol::start().await;
    let long = "x".repeat(300);
    let huge = format!(r#"{{"sensor_id":"a","value":1,"x":"{}"}}"#, "y".repeat(70_000));
    for (body, reason) in [
        (r#"{"sensor_id":"a","value":}"#.to_owned(), "expected value"),
        (r#"{"sensor_id":"a","value":NaN}"#.to_owned(), "expected value"),
        (r#"{"sensor_id":"a","value":Infinity}"#.to_owned(), "expected value"),
        (r#"{"sensor_id":"a","value":1e999}"#.to_owned(), "out of range"),
        (r#"{"sensor_id":"a","value":"1"}"#.to_owned(), "`value`"),
        (r#"{"sensor_id":7,"value":1}"#.to_owned(), "`sensor_id`"),
        (r#"{"value":1}"#.to_owned(), "missing field `sensor_id`"),
        (r#"{"sensor_id":"a"}"#.to_owned(), "missing field `value`"),
        (r#"{"sensor_id":"","value":1}"#.to_owned(), "empty"),
        (format!(r#"{{"sensor_id":"{long}","value":1}}"#), "256 bytes"),
        (r#"{"sensor_id":"a\u0000b","value":1}"#.to_owned(), "control characters"),
        (r#"{"sensor_id":"a","sensor_id":"b","value":1}"#.to_owned(), "duplicate field"),
        (r#"{"sensor_id":"a","value":1,"quality":1.5}"#.to_owned(), "between 0 and 1"),
        (r#"{"sensor_id":"a","value":1,"timestamp":"yesterday"}"#.to_owned(), "RFC 3339"),
        (r#"{"sensor_id":"a","value":1,"timestamp":"9999-01-01T00:00:00Z"}"#.to_owned(), "future"),
        (r#"{"sensor_id":"a","value":1,"timestamp":"1815-01-01T00:00:00Z"}"#.to_owned(), "1970"),
        (r#"{"sensor_id":"a","value":1,"metadata":[]}"#.to_owned(), "`metadata`"),
        (huge, "at most 65536"),
        ("[1, 2".to_owned(), "array"),
        ("\"text\"".to_owned(), "JSON object"),
        (String::new(), "empty"),
        ("  \n ".to_owned(), "empty"),
        ("[]".to_owned(), "empty"),
        (format!("{GOOD}\n{GOOD}"), "application/x-ndjson"),
    ] {
        let shown = body.chars().take(80).collect::<String>();
        let detail = farol.post_json("/api/readings", body).await.problem(400);
        assert!(detail.contains(reason), "{shown}: {detail}");
    }
    let answer = farol.post_json("/api/readings", r#"[{"value":1},{"value":2}]"#).await;
    answer.problem(400);
    assert_eq!(answer.json()["accepted"], 0);
    assert_eq!(answer.json()["rejected"].as_array().unwrap().len(), 2);
    assert_eq!(
        farol.get("/api/readings").await.json()["readings"],
        json!([]),
        "nothing of all this was stored"
    );
}

#[tokio::test]
async fn binary_rubbish_and_broken_utf8_are_refused() {
    let farol = Farol::start().await;
    let rubbish: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for content_type in ["application/json", "application/x-ndjson"] {
        farol.post("/api/readings", content_type, rubbish.clone()).await.problem(400);
        farol.post("/api/events", "application/json", rubbish.clone()).await.problem(400);
    }
    farol.post_json("/api/readings", &b"{\"sensor_id\":\"\xff\xfe\",\"value\":1}"[..]).await.problem(400);
    farol
        .post_json("/api/readings", &b"{\"sensor_id\":\"a\",\"value\":1,\"x\":\"\xff\"}"[..])
        .await
        .problem(400);
    let many = "rubbish\n".repeat(1000);
    let answer = farol.post("/api/readings", "application/x-ndjson", many).await;
    answer.problem(400);
    assert_eq!(answer.json()["rejected"].as_array().unwrap().len(), 100);
    assert_eq!(answer.json()["rejected_total"], 1000);
}

#[tokio::test]
async fn other_content_types_and_encodings_are_refused_with_what_would_do() {
    let farol = Farol::start().await;
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/json; charset=latin1",
    ] {
        farol.post("/api/readings", content_type, GOOD).await.problem(415);
    }
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    farol.request(Method::POST, "/api/readings", &headers, GOOD).await.problem(415);
    let without = farol.request(Method::POST, "/api/readings", &[], GOOD).await;
    assert_eq!(without.status, 202, "no content type counts as JSON");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_however_it_comes() {
    let farol = Farol::start_with(|settings| settings.limits.body_bytes = 100_000).await;
    let large = format!("[{}{GOOD}]", format!("{GOOD},").repeat(5000));
    let detail = farol.post_json("/api/readings", large.clone()).await.problem(413);
    assert!(detail.contains("100000"), "{detail}");
    // In chunks the size is not announced.
    let mut socket = TcpStream::connect(farol.addr).await.unwrap();
    let head = "POST /api/readings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", large.len(), large);
    // The server may answer and close before it has taken everything.
    let _ = socket.write_all(chunk.as_bytes()).await;
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 413");
    assert_eq!(farol.post_json("/api/readings", GOOD).await.status, 202, "the server goes on");
}

#[tokio::test]
async fn bodies_beyond_the_memory_set_aside_are_told_to_come_again() {
    let farol = Farol::start_with(|settings| settings.limits.bodies_in_flight_bytes = 1000).await;
    let answer = farol.post_json("/api/readings", " ".repeat(2000)).await;
    answer.problem(503);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(farol.post_json("/api/readings", GOOD).await.status, 202);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let farol =
        Farol::start_with(|settings| settings.limits.request_timeout = std::time::Duration::from_millis(200))
            .await;
    let mut socket = TcpStream::connect(farol.addr).await.unwrap();
    let head = "POST /api/readings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(std::str::from_utf8(&answer).unwrap(), "HTTP/1.1 408");
}

#[tokio::test]
async fn producers_are_known_by_their_header() {
    let farol = Farol::start().await;
    let headers = [
        ("content-type", "application/json"),
        ("farol-producer", "line-3"),
        ("farol-producer-kind", "replay"),
    ];
    assert_eq!(farol.request(Method::POST, "/api/readings", &headers, GOOD).await.status, 202);
    let health = farol
        .get_until("/api/producer-health", |json| {
            json["producers"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["producer_id"] == "line-3" && p["records_sent"] == 1)
        })
        .await;
    let line = health["producers"].as_array().unwrap().iter().find(|p| p["producer_id"] == "line-3").unwrap();
    assert_eq!(line["kind"], "replay");
    assert_eq!(line["status"], "active");
    let odd = [("content-type", "application/json"), ("farol-producer", "no spaces please")];
    let detail = farol.request(Method::POST, "/api/readings", &odd, GOOD).await.problem(400);
    assert!(detail.contains("Farol-Producer"), "{detail}");
}

#[tokio::test]
async fn events_come_structured_batched_and_binary() {
    let farol = Farol::start().await;
    let event = json!({"specversion": "1.0", "id": "e1", "type": "transacao_iniciada", "source": "loja",
        "correlationid": "01890000-0000-7000-8000-000000000001", "data": {"valor": 1}});
    let structured = farol.post("/api/events", "application/cloudevents+json", event.to_string()).await;
    assert_eq!(structured.status, 202, "{structured:?}");
    assert_eq!(structured.json()["ids"], json!(["e1"]));
    let batch = json!([{"specversion": "1.0", "id": "e2", "type": "t", "source": "loja"}, {"id": "no"}]);
    let batched = farol.post("/api/events", "application/cloudevents-batch+json", batch.to_string()).await;
    assert_eq!(batched.status, 202);
    assert_eq!(batched.json()["accepted"], 1);
    assert_eq!(batched.json()["rejected"][0]["index"], 1);
    let empty = farol.post("/api/events", "application/cloudevents-batch+json", "[]").await;
    assert_eq!(empty.status, 202);
    assert_eq!(empty.json(), json!({"accepted": 0, "ids": [], "rejected": [], "rejected_total": 0}));
    let headers = [
        ("content-type", "application/vnd.loja+json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "e3"),
        ("ce-type", "bomba_medida"),
        ("ce-source", "\"caf%C3%A9\""),
        ("ce-subject", "o%20que"),
    ];
    let binary = farol.request(Method::POST, "/api/events", &headers, r#"{"x":1}"#).await;
    assert_eq!(binary.status, 202, "{binary:?}");
    let found = farol
        .get_until("/api/events?source=caf%C3%A9", |json| json["events"].as_array().unwrap().len() == 1)
        .await;
    assert_eq!(found["events"][0]["data"], json!({"x": 1}));
    assert_eq!(found["events"][0]["datacontenttype"], "application/vnd.loja+json");
    assert_eq!(found["events"][0]["subject"], "o que");
    let found = farol
        .get_until("/api/events?source=loja", |json| json["events"].as_array().unwrap().len() == 2)
        .await;
    assert!(found["events"].as_array().unwrap().iter().any(|e| e["id"] == "e1"));
}

#[tokio::test]
async fn bad_events_are_refused_with_their_reason() {
    let farol = Farol::start().await;
    for (content_type, body, reason) in [
        ("application/cloudevents+json", "{}", "specversion"),
        ("application/cloudevents+json", "", "empty"),
        ("application/cloudevents+json", "nonsense", "JSON"),
        ("application/cloudevents-batch+json", "{}", "array"),
        ("application/cloudevents-batch+json", "[", "array"),
        ("application/cloudevents-batch+json", "[5]", "JSON object"),
        ("application/cloudevents+json", "[]", "JSON object"),
        ("application/json", "[]", "empty"),
        ("application/json", r#"{"specversion":"0.3","id":"1","type":"t","source":"s"}"#, "1.0"),
        ("application/json", r#"{"specversion":"1.0","id":"1","type":"t","source":"s","time":"x"}"#, "time"),
        ("application/json", r#"{"specversion":"1.0","id":"1","type":"t","source":"s","data":5}"#, "data"),
        (
            "application/json",
            r#"{"specversion":"1.0","id":"1","type":"consumidor_entrou","source":"s"}"#,
            "Farol itself",
        ),
        (
            "application/json",
            r#"{"specversion":"1.0","id":"1","type":"t","source":"s","time":"2099-01-01T00:00:00Z"}"#,
            "too far in the future; events to 24 hours after arrival",
        ),
        (
            "application/json",
            r#"{"specversion":"1.0","id":"1","type":"servico_pulsou","source":".."}"#,
            "source is `..`",
        ),
        (
            "application/json",
            r#"{"specversion":"1.0","id":"1","type":"servico_em_manutencao","source":"s","kept":true}"#,
            "attribute `kept`: only Farol itself",
        ),
    ] {
        let detail = farol.post("/api/events", content_type, body).await.problem(400);
        assert!(detail.contains(reason), "{body}: {detail}");
    }
    let metrics = farol.get("/metrics").await;
    let late = "farol_http_events_rejected_total{reason=\"timestamp\"} 2\n";
    assert!(metrics.text().contains(late), "one is no time, one of the future: {}", metrics.text());
    farol.post("/api/events", "text/xml", "<a/>").await.problem(415);
    for (header, body, reason) in [
        (("ce-time", "yesterday"), "{}", "time"),
        (("ce-datacontenttype", "application/json"), "{}", "Content-Type"),
        (("ce-x", "1"), "[1]", "data"),
        (("ce-x", "1"), "{", "JSON"),
    ] {
        let headers =
            [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t"), ("ce-source", "s"), header];
        let detail = farol.request(Method::POST, "/api/events", &headers, body).await.problem(400);
        assert!(detail.contains(reason), "{header:?}: {detail}");
    }
    let forgotten = [("ce-id", "1"), ("ce-type", "t"), ("ce-source", "s")];
    let detail = farol.request(Method::POST, "/api/events", &forgotten, "{}").await.problem(400);
    assert!(detail.contains("specversion"), "{detail}");
    let twice = [("ce-specversion", "1.0"), ("ce-id", "%zz"), ("ce-type", "t"), ("ce-source", "s")];
    let detail = farol.request(Method::POST, "/api/events", &twice, "").await.problem(400);
    assert!(detail.contains("percent"), "{detail}");
}

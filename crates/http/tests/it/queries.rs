//! Every path that is asked, right and wrong.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::Farol;

#[tokio::test]
async fn sensors_are_listed_searched_and_shown() {
    let farol = Farol::start().await;
    for (id, value) in [("temp-1", 20.0), ("temp-2", 55.5), ("other", 1.0)] {
        farol.reading(id, value).await;
    }
    let page =
        farol.get_until("/api/sensors?search=TEMP-&sort=-value&limit=1", |json| json["total"] == 2).await;
    assert_eq!(page["sensors"][0]["sensor_id"], "temp-2");
    let cursor = page["next_cursor"].as_str().unwrap();
    let next =
        farol.get(&format!("/api/sensors?search=TEMP-&sort=-value&limit=1&cursor={cursor}")).await.json();
    assert_eq!(next["sensors"][0]["sensor_id"], "temp-1");
    assert_eq!(next["next_cursor"], Value::Null);
    let one = farol
        .get_until("/api/sensors/temp-2", |json| {
            !json["alerts"].as_array().unwrap().is_empty() && json["state"] == "critical"
        })
        .await;
    assert_eq!(one["last_value"], 55.5);
    let thresholds = one["thresholds"].as_array().unwrap();
    assert!(thresholds.iter().any(|t| t["severity"] == "critical" && t["above"] == 40.0), "{thresholds:?}");
    assert!(one["alerts"].as_array().unwrap().iter().all(|a| a["series"] == "temp-2"));
}

#[tokio::test]
async fn readings_come_as_rows_and_as_columns() {
    let farol = Farol::start().await;
    let lines: String = (0..500)
        .map(|i| {
            format!(
                "{{\"sensor_id\":\"a\",\"value\":{i},\"timestamp\":\"2025-01-01T00:{:02}:{:02}Z\"}}\n",
                i / 60,
                i % 60
            )
        })
        .collect();
    assert_eq!(farol.post("/api/readings", "application/x-ndjson", lines).await.json()["accepted"], 500);
    let columns = farol
        .get_until("/api/readings?sensor_id=a&format=columns&max_points=50", |json| json["total"] == 500)
        .await;
    assert_eq!(columns["decimated"], true);
    let values = columns["values"].as_array().unwrap();
    assert!(values.len() <= 50);
    assert!(values.contains(&0.0.into()) && values.contains(&499.0.into()), "extremes survive");
    let rows = farol
        .get("/api/readings?sensor_id=a&from=2025-01-01T00:01:00Z&to=2025-01-01T00:01:59Z&limit=10")
        .await
        .json();
    assert_eq!(rows["truncated"], true);
    assert_eq!(rows["readings"][9]["value"], 119.0);
}

#[tokio::test]
async fn alerts_are_listed_and_shown_with_their_evidence() {
    let farol = Farol::start().await;
    farol.reading("hot", 99.0).await;
    let page = farol
        .get_until("/api/alerts?status=firing,pending&severity=critical&source=hot", |json| {
            json["total"] == 1
        })
        .await;
    let id = page["alerts"][0]["id"].as_str().unwrap();
    let detail = farol
        .get_until(&format!("/api/alerts/{id}"), |json| {
            !json["evidence_readings"].as_array().unwrap().is_empty()
        })
        .await;
    assert_eq!(detail["alert"]["status"], "firing");
    assert_eq!(detail["transitions"][0]["kind"], "fired");
    assert_eq!(detail["evidence_readings"][0]["reading"]["value"], 99.0);
    let before = farol.get("/api/alerts?at=2020-01-01T00:00:00Z").await.json();
    assert_eq!(before["total"], 0, "nothing had happened then");
    let recent = farol.get("/api/recent-alerts").await.json();
    assert!(!recent["alerts"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn the_state_of_the_whole_is_shown() {
    let farol = Farol::start().await;
    farol.reading("a", 20.0).await;
    let status = farol.get_until("/api/system-status", |json| json["sensors"]["total"] == 1).await;
    assert_eq!(status["status"], "ok", "{status}");
    assert_eq!(status["sensors"]["by_state"]["normal"], 1);
    let rates = farol.get_until("/api/real-time-metrics", |json| json["accepted_total"] == 1).await;
    assert!(!rates["history"].as_array().unwrap().is_empty());
    let rules = farol.get("/api/rules").await.json();
    assert!(rules["rules"].as_array().unwrap().iter().any(|r| r["above"] == 40.0), "{rules}");
    for path in ["/health", "/liveness"] {
        assert_eq!(farol.get(path).await.json()["status"], "ok");
    }
    let ready = farol.get_until("/readiness", |json| json["ready"] == true).await;
    assert!(ready["checks"].as_array().unwrap().iter().any(|c| c["name"] == "log"));
    farol
        .get_until("/api/consumer-health", |json| {
            let consumers = json["consumers"].as_array().unwrap();
            consumers.iter().filter(|c| c["group"] == "sensor-processors").count() == 2
        })
        .await;
    let assignment = farol
        .get_until("/api/partition-assignment", |json| {
            json["groups"].as_array().unwrap().iter().any(|g| {
                let owned = |p: &Value| p["topic"] == "sensor-data" && p["owner"].is_string();
                g["partitions"].as_array().unwrap().iter().filter(|p| owned(p)).count() == 3
            })
        })
        .await;
    assert!(assignment["rebalances"].is_array());
    let groups = farol.get("/api/groups").await.json();
    let ours =
        groups["groups"].as_array().unwrap().iter().find(|g| g["group"] == "sensor-processors").unwrap();
    assert_eq!((&ours["members"], &ours["partitions"]), (&json!(2), &json!(3)), "{ours}");
    let group = farol.get("/api/groups/sensor-processors").await.json();
    assert_eq!(group["members"].as_array().unwrap().len(), 2);
    let of_member = |id: &Value| group["members"].as_array().unwrap().iter().any(|m| m["member_id"] == *id);
    assert!(
        group["partitions"].as_array().unwrap().iter().all(|p| of_member(&p["owner_member_id"])),
        "{group}"
    );
    farol.get("/api/groups/nobody").await.problem(404);
    assert_eq!(farol.get("/api/dead-letters").await.json()["total"], 0);
    assert_eq!(farol.get("/api/events").await.status, 200);
}

#[tokio::test]
async fn any_groups_lag_is_told_in_records_and_in_seconds_and_its_rebalances_with_causes() {
    use std::time::Duration;

    use farol_bus::{Bus as _, ConsumerSettings, Polled, ProducerRecord, TopicPartition, TopicSpec};
    let farol = Farol::start().await;
    let spec = TopicSpec { name: "orders".into(), partitions: 1, config: Default::default() };
    farol.bus.create_topic(spec).await.unwrap();
    let now = farol_event::Timestamp::from_system_time(std::time::SystemTime::now());
    let ago = |s: u64| now.saturating_sub(Duration::from_secs(s));
    let producer = farol.bus.producer("shop").await.unwrap();
    let records = [7200, 600, 60].map(|s| ProducerRecord::new("k", "order", ago(s)));
    producer.send("orders", records.into()).await.unwrap();
    let mut consumer = farol.bus.consumer(ConsumerSettings::member("biller", "billing")).await.unwrap();
    consumer.subscribe(&["orders"]).await.unwrap();
    while !matches!(consumer.poll(Duration::from_secs(5)).await.unwrap(), Polled::Assigned(_)) {}
    let lag = async |records: i64| {
        let json = farol
            .get_until("/api/groups/billing", |json| json["partitions"][0]["lag_records"] == records)
            .await;
        json["partitions"][0]["lag_ms"].as_u64().unwrap() / 1000
    };

    // Nothing is committed: the first record stored is the oldest unread one, and it is two hours old.
    assert!((7200..7260).contains(&lag(3).await));
    let partition = TopicPartition::new("orders", 0);
    consumer.commit([(partition.clone(), 1)].into()).await.unwrap();
    assert!((600..660).contains(&lag(2).await));
    consumer.commit([(partition, 3)].into()).await.unwrap();
    assert_eq!(lag(0).await, 0);

    // It never reports, and is known by its group all the same.
    farol
        .get_until("/api/consumer-health", |json| {
            json["consumers"].as_array().unwrap().iter().any(|c| {
                c["consumer_id"] == "biller"
                    && c["status"] == "active"
                    && c["partitions"] == json!(["orders/0"])
            })
        })
        .await;

    consumer.close().await.unwrap();
    let page = farol
        .get_until("/api/rebalances?group=billing", |json| json["rebalances"].as_array().unwrap().len() == 2)
        .await;
    let [left, joined] = page["rebalances"].as_array().unwrap().as_slice() else { panic!("{page}") };
    assert_eq!(
        (&joined["changes"][0]["change"], &joined["changes"][0]["consumer_id"]),
        (&json!("joined"), &json!("biller"))
    );
    assert_eq!(joined["after"], json!({"biller": ["orders/0"]}));
    assert_eq!(
        (&left["changes"][0]["change"], &left["changes"][0]["reason"]),
        (&json!("left"), &json!("left"))
    );
    assert_eq!(left["cost"]["partitions_moved"], 1, "{left}");
    let went =
        farol.get_until("/api/events?type=consumidor_saiu", |json| json["events"][0].is_object()).await;
    let data = &went["events"][0]["data"];
    assert_eq!((&data["group"], &data["partitions"]), (&json!("billing"), &json!(["orders/0"])), "{data}");
    assert!(data["cost"]["took_ms"].is_u64(), "{data}");
}

#[tokio::test]
async fn a_record_that_cannot_be_processed_shows_among_the_dead_letters() {
    use farol_bus::{Bus, ProducerRecord};
    let farol = Farol::start().await;
    let producer = farol.bus.producer("rubbish").await.unwrap();
    let record = ProducerRecord::new("k", "no reading", farol_event::Timestamp::EPOCH);
    producer.send("sensor-data", vec![record]).await.unwrap();
    let page = farol.get_until("/api/dead-letters", |json| json["total"] == 1).await;
    assert_eq!(page["dead_letters"][0]["value"], "no reading");
    assert_eq!(page["dead_letters"][0]["source"]["topic"], "sensor-data");
}

#[tokio::test]
async fn workers_are_stopped_and_started() {
    let farol = Farol::start().await;
    assert_eq!(farol.get("/api/workers").await.json()["workers"].as_array().unwrap().len(), 2);
    assert_eq!(farol.post_json("/api/workers/worker-1/stop", "").await.status, 202);
    farol.get_until("/api/workers", |json| json["workers"][0]["state"] == "stopped").await;
    farol.post_json("/api/workers/worker-1/stop", "").await.problem(409);
    farol
        .get_until("/api/partition-assignment", |json| {
            json["groups"].as_array().unwrap().iter().any(|g| {
                g["members"].as_array().unwrap().len() == 1
                    && g["members"][0]["consumer_id"] == "worker-2"
                    && g["members"][0]["partitions"].as_array().unwrap().len() == 3
            })
        })
        .await;
    assert_eq!(farol.post_json("/api/workers/worker-1/start", "").await.status, 202);
    farol.get_until("/api/workers", |json| json["workers"][0]["state"] == "running").await;
    farol.post_json("/api/workers/nobody/stop", "").await.problem(404);
}

#[tokio::test]
async fn bad_questions_are_refused_with_the_parameters_name() {
    let farol = Farol::start().await;
    for (path, name) in [
        ("/api/sensors?limit=0", "limit"),
        ("/api/sensors?limit=1001", "limit"),
        ("/api/sensors?limit=-1", "limit"),
        ("/api/sensors?limit=99999999999999999999", "limit"),
        ("/api/sensors?limit=ten", "limit"),
        ("/api/sensors?limit=1&limit=2", "limit"),
        ("/api/sensors?sort=colour", "sort"),
        ("/api/sensors?state=happy", "state"),
        ("/api/sensors?cursor=nonsense", "cursor"),
        ("/api/sensors?cursor=%00%ff", "cursor"),
        ("/api/sensors?colour=red", "colour"),
        ("/api/readings?limit=100001", "limit"),
        ("/api/readings?from=yesterday", "from"),
        ("/api/readings?format=xml", "format"),
        ("/api/readings?format=columns", "sensor_id"),
        ("/api/readings?max_points=5", "max_points"),
        ("/api/readings?sensor_id=a&format=columns&max_points=1", "max_points"),
        ("/api/alerts?status=firing,happy", "status"),
        ("/api/alerts?severity=fatal", "severity"),
        ("/api/alerts?acknowledged=maybe", "acknowledged"),
        ("/api/alerts?at=2025-01-01", "at"),
        ("/api/alerts/not-a-uuid", "path"),
        ("/api/events?correlation_id=1", "correlation_id"),
        ("/api/dead-letters?limit=1001", "limit"),
        ("/api/rebalances?limit=0", "limit"),
        ("/api/rebalances?cursor=nonsense", "cursor"),
        ("/api/rebalances?from=yesterday", "from"),
        ("/api/stream?streams=weather", "streams"),
        ("/api/stream?events=event&severity=info", "severity"),
        ("/api/stream?severity=awful", "severity"),
        ("/api/stream?typ=x", "typ"),
        ("/api/stream?last_event_id=1", "last_event_id"),
        ("/api/stream?sensor_id=", "sensor_id"),
        ("/status/nonsense", "path"),
    ] {
        let detail = farol.get(path).await.problem(400);
        assert!(detail.contains(name), "{path}: {detail}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_404_and_a_wrong_method_a_405() {
    let farol = Farol::start().await;
    for path in [
        "/api/sensors/unknown",
        "/api/sensors/%00",
        "/api/sensors/%F0%9F%92%A1",
        "/api/alerts/01890000-0000-7000-8000-000000000001",
        "/status/01890000-0000-7000-8000-000000000001",
        "/api",
        "/nothing/here",
        "/docs/nothing",
        "/../etc/passwd",
        "/js/../../Cargo.toml",
    ] {
        farol.get(path).await.problem(404);
    }
    farol.get("/api/sensors/%FF").await.problem(400);
    for (method, path) in [
        (Method::DELETE, "/api/sensors"),
        (Method::PUT, "/api/readings"),
        (Method::POST, "/health"),
        (Method::OPTIONS, "/api/alerts"),
        (Method::TRACE, "/metrics"),
        (Method::POST, "/"),
        (Method::POST, "/index.html"),
        (Method::from_bytes(b"BREW").unwrap(), "/api/events"),
    ] {
        let answer = farol.request(method.clone(), path, &[], "").await;
        answer.problem(405);
        assert!(answer.header("allow").contains("GET"), "{method} {path}: {}", answer.header("allow"));
    }
}

#[tokio::test]
async fn the_dashboard_and_the_docs_come_from_the_binary() {
    let farol = Farol::start().await;
    let page = farol.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let tag = page.header("etag").to_owned();
    let again = farol.request(Method::GET, "/", &[("if-none-match", &tag)], "").await;
    assert_eq!(again.status, 304);
    assert!(again.body.is_empty());
    let packed = farol.request(Method::GET, "/index.html", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    let head = farol.request(Method::HEAD, "/", &[], "").await;
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    let docs = farol.get("/docs/").await;
    assert!(docs.text().contains("swagger-ui"), "{}", docs.text());
    assert!(farol.get("/docs/swagger-initializer.js").await.text().contains("/openapi.json"));
    assert_eq!(farol.get("/docs").await.status, 308);
    let description = farol.get("/openapi.json").await.json();
    assert!(description["paths"]["/api/readings"]["post"].is_object());
}

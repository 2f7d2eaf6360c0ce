//! Services that are watched, over the API.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::{Answer, Farol};

async fn put(farol: &Farol, id: &str, body: &Value) -> Answer {
    let path = format!("/api/services/{id}");
    farol.request(Method::PUT, &path, &[("content-type", "application/json")], body.to_string()).await
}

async fn delete(farol: &Farol, path: &str) -> Answer {
    farol.request(Method::DELETE, path, &[], "").await
}

/// The events of a service of these types, oldest first.
async fn events(farol: &Farol, id: &str, types: &[&str]) -> Vec<Value> {
    let answer = farol.get(&format!("/api/events?source={id}&limit=500")).await.json();
    let mut events: Vec<Value> = answer["events"].as_array().unwrap().clone();
    events.retain(|event| types.contains(&event["type"].as_str().unwrap()));
    events.reverse();
    events
}

async fn events_until(farol: &Farol, id: &str, types: &[&str], count: usize) -> Vec<Value> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found = events(farol, id, types).await;
        if found.len() >= count {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "only {found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_registered_service_is_checked_and_its_outage_is_told_once() {
    let farol = Farol::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let serve = async {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        };
        tokio::select! { () = serve => {}, _ = stopped => {} }
    });
    let check = json!({"http": format!("http://{at}/health"), "interval": "100ms", "down_after": 2});
    let answer = put(&farol, "shop", &json!({"labels": {"kind": "api"}, "checks": [check]})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let watched = answer.json();
    assert_eq!((&watched["id"], &watched["origin"]), (&json!("shop"), &json!("api")));
    assert_eq!(watched["checks"][0]["timeout"], "100ms", "what was left out is filled in");

    let registered = events_until(&farol, "shop", &["servico_registrado"], 1).await;
    assert_eq!(registered[0]["correlationid"], watched["correlation_id"]);
    let changed = events_until(&farol, "shop", &["verificacao_alterada"], 1).await;
    assert_eq!(changed[0]["data"]["to"], "up");
    assert_eq!(changed[0]["data"]["kind"], "http");
    let measured = events_until(&farol, "shop", &["metrica_coletada"], 2).await;
    assert_eq!(measured[0]["data"]["nome"], "response_time_ms");
    assert_eq!(measured[0]["data"]["tags"], json!({"check": "http"}));

    stop.send(()).unwrap();
    serving.await.unwrap();
    let told = events_until(&farol, "shop", &["sistema_indisponivel"], 1).await;
    assert!(told[0]["data"]["reason"].as_str().unwrap().starts_with("http: can't connect"), "{told:?}");

    let removed = delete(&farol, "/api/services/shop").await;
    assert_eq!(removed.status, 200, "{removed:?}");
    let told = events_until(&farol, "shop", &["sistema_indisponivel", "sistema_recuperado"], 2).await;
    let types: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["sistema_indisponivel", "sistema_recuperado"], "one of each, in order");
    delete(&farol, "/api/services/shop").await.problem(404);
}

#[tokio::test]
async fn what_became_of_a_command_about_a_service_can_be_asked() {
    let farol = Farol::start().await;
    let completed = async |command: &Answer, event_type: &str| {
        assert_eq!(command.status, 200, "{command:?}");
        let id = command.json()["correlation_id"].as_str().unwrap().to_owned();
        let status = farol.get_until(&format!("/status/{id}"), |json| json["status"] == "completed").await;
        let told = &status["result"]["event"];
        assert_eq!((&told["type"], &told["source"]), (&json!(event_type), &json!("job")), "{status}");
        assert_eq!(told["correlationid"].as_str(), Some(id.as_str()));
    };
    let simulated = json!({"labels": {"simulated": "true"}, "checks": [{"ttl": "1m"}]});
    completed(&put(&farol, "job", &simulated).await, "servico_registrado").await;
    completed(&farol.post_json("/api/services/job/heartbeat", "").await, "servico_pulsou").await;
    let work = farol.post_json("/api/services/job/maintenance", r#"{"by":"ana"}"#).await;
    completed(&work, "servico_em_manutencao").await;
    completed(&delete(&farol, "/api/services/job/maintenance").await, "servico_em_operacao").await;

    // A change of a simulated service is done when its simulator says so.
    let json_body = [("content-type", "application/json")];
    let change =
        farol.request(Method::PATCH, "/api/services/job/simulation", &json_body, r#"{"down":true}"#).await;
    assert_eq!(change.status, 202, "{change:?}");
    let id = change.json()["correlation_id"].as_str().unwrap().to_owned();
    let status = farol.get_until(&format!("/status/{id}"), |json| json["status"].is_string()).await;
    assert_eq!(
        (&status["status"], &status["result"]["event"]["data"]),
        (&json!("pending"), &json!({"down": true}))
    );
    let applied = json!({"specversion": "1.0", "id": "1", "type": "simulacao_aplicada", "source": "job", "correlationid": id,
        "data": {"failure_rate": 0, "latency_ms": 1, "down": true}});
    assert_eq!(farol.post_json("/api/events", applied.to_string()).await.status, 202);
    let status = farol.get_until(&format!("/status/{id}"), |json| json["status"] == "completed").await;
    assert_eq!(status["result"]["event"]["type"], "simulacao_aplicada");
    completed(&delete(&farol, "/api/services/job").await, "servico_removido").await;
}

#[tokio::test]
async fn metrics_say_how_watched_services_stand_and_nothing_of_others() {
    let farol = Farol::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = json!({"tcp": listener.local_addr().unwrap().to_string(), "interval": "100ms"});
    let closed = json!({"name": "closed", "tcp": "127.0.0.1:9", "interval": "100ms", "critical": false});
    assert_eq!(put(&farol, "shop", &json!({"checks": [check, closed]})).await.status, 200);
    let told = ["shop", "stranger"].map(|source| {
        json!({"specversion": "1.0", "id": source, "type": "metrica_coletada", "source": source,
            "data": {"nome": "error_rate_percent", "valor": 2.5}})
    });
    assert_eq!(farol.post_json("/api/events", json!(told).to_string()).await.status, 202);
    let value = |text: &str, line: &str| {
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map(|value| value.parse::<f64>().unwrap())
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let text = loop {
        let text = farol.get("/metrics").await.text().to_owned();
        let degraded = value(&text, r#"farol_service_state{service="shop",state="degraded"}"#) == Some(1.0);
        if degraded && value(&text, r#"farol_service_error_ratio{service="shop"}"#).is_some() {
            break text;
        }
        assert!(tokio::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let of = |line: &str| value(&text, line).unwrap_or_else(|| panic!("`{line}` is missing in\n{text}"));
    assert_eq!(of(r#"farol_service_state{service="shop",state="up"}"#), 0.0);
    assert_eq!(of(r#"farol_service_error_ratio{service="shop"}"#), 0.025);
    let response = of(r#"farol_service_response_time_seconds{service="shop"}"#);
    assert!(response > 0.0 && response < 5.0, "{response} s");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let checked = of(r#"farol_service_last_check_timestamp_seconds{service="shop"}"#);
    assert!((now - 60.0..=now + 1.0).contains(&checked), "{checked}, and it is {now}");
    let results = |check: &str, outcome: &str| {
        of(&format!(
            r#"farol_service_check_results_total{{service="shop",check="{check}",outcome="{outcome}"}}"#
        ))
    };
    assert!(results("tcp", "passed") >= 1.0 && results("closed", "failed") >= 3.0);
    assert_eq!((results("tcp", "failed"), results("closed", "passed")), (0.0, 0.0));
    assert!(!text.contains("stranger"), "nobody has it watched: {text}");
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
}

#[tokio::test]
async fn heartbeats_are_heard_and_missed() {
    let farol = Farol::start().await;
    assert_eq!(put(&farol, "job", &json!({"checks": [{"ttl": "600ms"}]})).await.status, 200);
    let beat = farol.post_json("/api/services/job/heartbeat", "").await;
    assert_eq!(beat.status, 200, "{beat:?}");
    events_until(&farol, "job", &["sistema_indisponivel"], 1).await;
    assert_eq!(farol.post_json("/api/services/job/heartbeat", "").await.status, 200);
    let told = events_until(&farol, "job", &["sistema_recuperado"], 1).await;
    assert_eq!(told.len(), 1);
    farol.post_json("/api/services/nobody/heartbeat", "").await.problem(404);
    put(&farol, "deaf", &json!({"checks": []})).await;
    farol.post_json("/api/services/deaf/heartbeat", "").await.problem(409);
}

#[tokio::test]
async fn heartbeats_and_maintenance_are_heard_as_events_too() {
    let farol = Farol::start().await;
    put(&farol, "job", &json!({"checks": [{"ttl": "600ms"}]})).await;
    let tell = async |event_type: &str| {
        let event = json!({"specversion": "1.0", "id": "1", "type": event_type, "source": "job", "data": {}});
        let answer = farol.post_json("/api/events", event.to_string()).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    };
    events_until(&farol, "job", &["sistema_indisponivel"], 1).await;
    tell("servico_pulsou").await;
    events_until(&farol, "job", &["sistema_recuperado"], 1).await;

    tell("servico_em_manutencao").await;
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    // There is something to end once the checks know of it.
    while delete(&farol, "/api/services/job/maintenance").await.status != 200 {
        assert!(tokio::time::Instant::now() < limit, "nobody knows of the maintenance");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    put(&farol, "quiet", &json!({"checks": [{"ttl": "1s"}]})).await;
    let begun = farol.post_json("/api/services/quiet/maintenance", r#"{"by":"ana"}"#).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    events_until(&farol, "quiet", &["verificacao_alterada"], 1).await;
    assert_eq!(events(&farol, "quiet", &["sistema_indisponivel"]).await, [] as [Value; 0]);
    let event = json!({"specversion": "1.0", "id": "2", "type": "servico_em_operacao", "source": "quiet"});
    assert_eq!(farol.post_json("/api/events", event.to_string()).await.status, 202);
    events_until(&farol, "quiet", &["sistema_indisponivel"], 1).await;

    // Begun and ended in one breath, so that the end is met before anybody knows of the beginning.
    put(&farol, "brief", &json!({"checks": [{"ttl": "1s"}]})).await;
    let told = ["servico_em_manutencao", "servico_em_operacao"].map(
        |event_type| json!({"specversion": "1.0", "id": event_type, "type": event_type, "source": "brief", "data": {}}),
    );
    assert_eq!(farol.post_json("/api/events", json!(told).to_string()).await.status, 202);
    events_until(&farol, "brief", &["sistema_indisponivel"], 1).await;
}

#[tokio::test]
async fn a_service_that_nobody_watches_is_in_maintenance_until_its_end() {
    let farol = Farol::start().await;
    let event = json!({"specversion": "1.0", "id": "1", "type": "metrica_coletada", "source": "vm",
        "data": {"nome": "cpu_percent", "valor": 1}});
    assert_eq!(farol.post_json("/api/events", event.to_string()).await.status, 202);
    let body = r#"{"by":"ana","reason":"disk","for":"2s"}"#;
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    // It is known once the view has its metric.
    while farol.post_json("/api/services/vm/maintenance", body).await.status != 200 {
        assert!(tokio::time::Instant::now() < limit, "nobody knows of the service");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = events_until(&farol, "vm", &["servico_em_manutencao", "servico_em_operacao"], 2).await;
    assert_eq!(told[0]["data"]["reason"], "disk");
    assert_eq!(
        (&told[1]["type"], &told[1]["data"]["reason"]),
        (&json!("servico_em_operacao"), &json!("its time was up"))
    );
    delete(&farol, "/api/services/vm/maintenance").await.problem(409);
    // Without an end it lasts until somebody ends it.
    assert_eq!(farol.post_json("/api/services/vm/maintenance", r#"{"by":"ana"}"#).await.status, 200);
    assert_eq!(delete(&farol, "/api/services/vm/maintenance").await.status, 200);
    farol.post_json("/api/services/nobody/maintenance", body).await.problem(404);
}

#[tokio::test]
async fn the_last_check_moves_on_during_an_outage() {
    let farol = Farol::start().await;
    // A port that nobody listens on.
    let at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let check = json!({"tcp": at.to_string(), "interval": "100ms", "down_after": 1});
    assert_eq!(put(&farol, "lc", &json!({"checks": [check]})).await.status, 200);
    events_until(&farol, "lc", &["sistema_indisponivel"], 1).await;
    let mut seen = std::collections::BTreeSet::new();
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while seen.len() < 4 {
        assert!(tokio::time::Instant::now() < limit, "it stands still: {seen:?}");
        let detail = farol.get("/api/services/lc").await.json();
        let list = farol.get("/api/services").await.json();
        let listed = list["services"].as_array().unwrap().iter().find(|service| service["service"] == "lc");
        for service in [Some(&detail["service"]), listed] {
            seen.extend(service.and_then(|service| service["last_check_at"].as_str()).map(str::to_owned));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told = events(&farol, "lc", &["verificacao_alterada", "metrica_coletada"]).await;
    assert_eq!(told.len(), 1, "each failing check is not an event: {told:?}");
}

#[tokio::test]
async fn maintenance_keeps_an_outage_quiet_until_it_ends() {
    let farol = Farol::start().await;
    put(&farol, "job", &json!({"checks": [{"ttl": "1s"}]})).await;
    let begun = farol.post_json("/api/services/job/maintenance", r#"{"by":"ana","reason":"disk"}"#).await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let changed = events_until(&farol, "job", &["verificacao_alterada"], 1).await;
    assert_eq!(changed[0]["data"]["to"], "down", "the check goes on");
    assert_eq!(events(&farol, "job", &["sistema_indisponivel"]).await, [] as [Value; 0]);
    assert_eq!(delete(&farol, "/api/services/job/maintenance").await.status, 200);
    events_until(&farol, "job", &["sistema_indisponivel"], 1).await;
    let told = events_until(&farol, "job", &["servico_em_manutencao", "servico_em_operacao"], 2).await;
    assert_eq!(told[0]["data"], json!({"reason": "disk", "by": "ana"}));
    assert_eq!(told.len(), 2);
    delete(&farol, "/api/services/job/maintenance").await.problem(409);
}

#[tokio::test]
async fn what_makes_no_sense_or_goes_too_far_is_refused_with_the_reason() {
    let farol = Farol::start().await;
    let far = json!({"checks": [{"http": "http://169.254.169.254/latest/meta-data"}]});
    assert!(put(&farol, "shop", &far).await.problem(400).contains("not on this machine's loopback"));
    let bad = json!({"checks": [{"http": "http://127.0.0.1:1/", "interval": "1ms"}]});
    assert!(put(&farol, "shop", &bad).await.problem(400).contains("check 1: interval"));
    assert!(put(&farol, "a%20b", &json!({"checks": []})).await.problem(400).contains("not a name"));
    assert!(put(&farol, "shop", &json!({"checks": [], "colour": 1})).await.problem(400).contains("colour"));
    farol.post_json("/api/services/shop/maintenance", r#"{"by":"ana"}"#).await.problem(404);
    put(&farol, "shop", &json!({"checks": []})).await;
    farol.post_json("/api/services/shop/maintenance", r#"{"by":" "}"#).await.problem(400);
}

#[tokio::test]
async fn only_simulated_services_are_simulated_otherwise() {
    let farol = Farol::start().await;
    put(&farol, "real", &json!({"checks": []})).await;
    put(&farol, "play", &json!({"labels": {"simulated": "true"}})).await;
    let patch = |id: &'static str, body: &'static str| {
        let farol = &farol;
        async move {
            let path = format!("/api/services/{id}/simulation");
            farol.request(Method::PATCH, &path, &[("content-type", "application/json")], body).await
        }
    };
    patch("real", r#"{"down":true}"#).await.problem(409);
    patch("play", r#"{"failure_rate":2}"#).await.problem(400);
    patch("play", "{}").await.problem(400);
    patch("nobody", r#"{"down":true}"#).await.problem(404);
    let answer = patch("play", r#"{"failure_rate":0.5,"latency_ms":200}"#).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let told = events_until(&farol, "play", &["simulacao_alterada"], 1).await;
    assert_eq!(told[0]["correlationid"], answer.json()["correlation_id"]);
    assert_eq!(told[0]["data"], json!({"failure_rate": 0.5, "latency_ms": 200}));
}

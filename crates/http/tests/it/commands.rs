//! Acknowledging alerts, and what became of commands.

use serde_json::{Value, json};

use crate::support::Farol;

async fn firing_alert(farol: &Farol, sensor: &str) -> String {
    farol.reading(sensor, 99.0).await;
    let page = farol
        .get_until(&format!("/api/alerts?status=firing&severity=critical&source={sensor}"), |json| {
            json["total"] == 1
        })
        .await;
    page["alerts"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_alert_is_acknowledged_once() {
    let farol = Farol::start().await;
    let id = firing_alert(&farol, "hot").await;
    let path = format!("/api/alerts/{id}/acknowledge");
    let answer = farol.post_json(&path, r#"{"by":"ana","comment":"on it"}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!(json["alert"]["acknowledgement"]["by"], "ana");
    assert_eq!(json["alert"]["status"], "firing");
    let correlation_id = json["correlation_id"].as_str().unwrap();
    let status =
        farol.get_until(&format!("/status/{correlation_id}"), |json| json["status"] == "completed").await;
    assert_eq!(status["result"]["alert"]["id"], Value::from(id.as_str()));
    let detail = farol.post_json(&path, r#"{"by":"bia"}"#).await.problem(409);
    assert!(detail.contains("ana"), "{detail}");
    let listed = farol.get("/api/alerts?acknowledged=true").await.json();
    assert_eq!(listed["alerts"][0]["id"], Value::from(id.as_str()));
    let shown = farol.get(&format!("/api/alerts/{id}")).await.json();
    assert_eq!(shown["transitions"].as_array().unwrap().last().unwrap()["kind"], "acknowledged");
}

#[tokio::test]
async fn of_two_who_acknowledge_at_the_same_time_one_is_first() {
    let farol = Farol::start().await;
    let id = firing_alert(&farol, "hot").await;
    let path = format!("/api/alerts/{id}/acknowledge");
    let (ana, bia) =
        tokio::join!(farol.post_json(&path, r#"{"by":"ana"}"#), farol.post_json(&path, r#"{"by":"bia"}"#));
    let mut statuses = [ana.status.as_u16(), bia.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{ana:?} {bia:?}");
}

#[tokio::test]
async fn bad_acknowledgements_are_refused() {
    let farol = Farol::start().await;
    let unknown = "/api/alerts/01890000-0000-7000-8000-000000000001/acknowledge";
    farol.post_json(unknown, r#"{"by":"ana"}"#).await.problem(404);
    let id = firing_alert(&farol, "hot").await;
    let path = format!("/api/alerts/{id}/acknowledge");
    for body in [
        "",
        "{}",
        "[]",
        r#"["ana", "as an array"]"#,
        r#"{"by":""}"#,
        r#"{"by":7}"#,
        r#"{"by":"a","comment":7}"#,
        r#"{"by":"a","when":"now"}"#,
    ] {
        farol.post_json(&path, body).await.problem(400);
    }
    farol.post(&path, "text/plain", r#"{"by":"ana"}"#).await.problem(415);
    farol.post_json(&path, " ".repeat(70_000)).await.problem(413);
    farol.post_json("/api/alerts/nonsense/acknowledge", r#"{"by":"ana"}"#).await.problem(400);
    let cold = "{\"sensor_id\":\"hot\",\"sensor_type\":\"temperature\",\"value\":10,\"timestamp\":\"{}\"}";
    let now = farol_event::Timestamp::from_system_time(std::time::SystemTime::now());
    for seconds in [1, 30] {
        let later = now.saturating_add(std::time::Duration::from_secs(seconds));
        let body = cold.replace("{}", &later.to_string());
        assert_eq!(farol.post_json("/api/readings", body).await.status, 202);
    }
    farol.get_until(&format!("/api/alerts/{id}"), |json| json["alert"]["status"] == "resolved").await;
    farol.post_json(&path, r#"{"by":"ana"}"#).await.problem(409);
}

#[tokio::test]
async fn a_transactions_events_tell_what_became_of_it() {
    let farol = Farol::start().await;
    let id = "01890000-0000-7000-8000-00000000000";
    let post = async |n: u8, event_type: &str, data: Value| {
        let event = json!({"specversion": "1.0", "id": format!("{n}{event_type}"), "type": event_type,
            "source": "loja", "correlationid": format!("{id}{n}"), "data": data});
        assert_eq!(farol.post_json("/api/events", event.to_string()).await.status, 202);
    };
    post(1, "transacao_iniciada", json!({})).await;
    farol.get_until(&format!("/status/{id}1"), |json| json["status"] == "pending").await;
    post(1, "transacao_completada", json!({"pedido": 7})).await;
    let done = farol.get_until(&format!("/status/{id}1"), |json| json["status"] == "completed").await;
    assert_eq!(done["result"]["pedido"], 7);
    post(2, "transacao_falhada", json!({"error": "no stock"})).await;
    let failed = farol.get_until(&format!("/status/{id}2"), |json| json["status"] == "failed").await;
    assert_eq!(failed["error"], "no stock");
}

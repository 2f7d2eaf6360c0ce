//! Alerts of a service that is worked on, stops or is removed, by the real binary.

use hyper::Method;
use serde_json::{Value, json};

use crate::farol::{Farol, SOON, eventually, folder};

async fn tell(farol: &Farol, service: &str, event_type: &str, data: Value) {
    let event = json!({
        "specversion": "1.0", "id": uuid::Uuid::now_v7().to_string(), "type": event_type, "source": service, "data": data,
    });
    let told =
        farol.request(Method::POST, "/api/events", "application/cloudevents+json", event.to_string()).await;
    assert_eq!(told.status, 202, "{}", told.body);
}

/// The service's alerts of a status, once there are as many.
async fn alerts(farol: &Farol, service: &str, status: &str, count: usize) -> Vec<Value> {
    eventually(SOON, &format!("{count} {status} alerts of {service}"), async || {
        let found = farol.get(&format!("/api/alerts?service={service}&status={status}")).await;
        let found = found["alerts"].as_array().unwrap().clone();
        (found.len() == count).then_some(found)
    })
    .await
}

fn busy() -> Value {
    json!({ "nome": "cpu_percent", "valor": 99, "unidade": "%" })
}

#[tokio::test]
async fn alerts_end_with_the_service_that_stops_or_is_removed() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    for service in ["stops", "removed"] {
        tell(&farol, service, "metrica_coletada", busy()).await;
        tell(&farol, service, "sistema_indisponivel", json!({})).await;
        alerts(&farol, service, "firing", 2).await;
    }

    tell(&farol, "stops", "servico_parado", json!({ "motivo": "deploy" })).await;
    let ended = alerts(&farol, "stops", "resolved", 1).await;
    assert_eq!(ended[0]["rule"], "service-cpu");
    let still = alerts(&farol, "stops", "firing", 1).await;
    assert_eq!(still[0]["rule"], "service-unavailable", "only who told of the outage can end it");
    let story = farol.get(&format!("/api/alerts/{}", ended[0]["id"].as_str().unwrap())).await;
    assert!(story.to_string().contains("The service stopped."), "{story}");

    let put =
        farol.request(Method::PUT, "/api/services/removed", "application/json", r#"{"checks":[]}"#).await;
    assert_eq!(put.status, 200, "{}", put.body);
    let removed =
        farol.request(Method::DELETE, "/api/services/removed", "application/json", String::new()).await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    alerts(&farol, "removed", "resolved", 2).await;
    alerts(&farol, "removed", "firing", 0).await;

    // What is heard of it later is new, also after a restart.
    farol.kill();
    let farol = Farol::start(folder.path(), &[]).await;
    tell(&farol, "removed", "metrica_coletada", busy()).await;
    alerts(&farol, "removed", "firing", 1).await;
    alerts(&farol, "stops", "firing", 1).await;
}

#[tokio::test]
async fn nobody_is_told_of_a_service_that_is_worked_on() {
    let folder = folder();
    let farol = Farol::start(folder.path(), &[]).await;
    let put = farol.request(Method::PUT, "/api/services/shop", "application/json", r#"{"checks":[]}"#).await;
    assert_eq!(put.status, 200, "{}", put.body);
    let work = json!({ "by": "ana", "reason": "new disk", "for": "30m" });
    let begun = farol.post("/api/services/shop/maintenance", &work).await;
    assert_eq!(begun.status, 200, "{}", begun.body);
    tell(&farol, "shop", "metrica_coletada", busy()).await;
    tell(&farol, "other", "metrica_coletada", busy()).await;
    let silenced = eventually(SOON, "the alert is silenced", async || {
        let found = alerts(&farol, "shop", "firing", 1).await;
        found[0]["silenced_by"][0].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(alerts(&farol, "other", "firing", 1).await[0]["silenced_by"], json!([]));
    let silences = farol.get("/api/silences?state=active").await;
    let silence = &silences["silences"][0];
    assert_eq!(silence["id"], silenced.as_str(), "{silences}");
    assert_eq!(
        (&silence["created_by"], &silence["comment"]),
        (&json!("ana"), &json!("maintenance: new disk"))
    );

    let over = farol
        .request(Method::DELETE, "/api/services/shop/maintenance", "application/json", String::new())
        .await;
    assert_eq!(over.status, 200, "{}", over.body);
    eventually(SOON, "the alert is told again", async || {
        let found = alerts(&farol, "shop", "firing", 1).await;
        (found[0]["silenced_by"] == json!([])).then_some(())
    })
    .await;
}

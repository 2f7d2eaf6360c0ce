//! Services over the API: what is told of them as events, and what is shown of them.

use serde_json::{Value, json};

use crate::support::Farol;

fn event(event_type: &str, source: &str, data: &Value) -> Value {
    json!({"specversion": "1.0", "id": format!("{event_type}-{source}"), "type": event_type, "source": source, "data": data})
}

async fn tell(farol: &Farol, events: &[Value]) {
    let answer = farol.post_json("/api/events", json!(events).to_string()).await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn a_service_is_shown_with_its_metrics_policies_events_and_alerts() {
    let farol = Farol::start().await;
    let breaker = json!({"caller": "web", "name": "db", "service": "shop/eu", "from": "closed", "to": "open",
        "cause": "5 failures"});
    tell(
        &farol,
        &[
            event("servico_iniciado", "shop/eu", &json!({"version": "1.4", "kind": "api"})),
            event(
                "metrica_coletada",
                "shop/eu",
                &json!({"nome": "cpu_percent", "valor": 97.5, "unidade": "%"}),
            ),
            event("metrica_coletada", "other", &json!({"nome": "cpu_percent", "valor": 2.5, "unidade": "%"})),
            event("disjuntor_aberto", "shop/eu", &breaker),
        ],
    )
    .await;
    let detail = farol
        .get_until("/api/services/shop%2Feu", |json| {
            json["alerts"][0].is_object() && json["policies"][0].is_object()
        })
        .await;
    let service = &detail["service"];
    assert_eq!((&service["state"], &service["version"]), (&json!("degraded"), &json!("1.4")), "{detail}");
    assert_eq!((&service["cpu_percent"], &service["breakers_open"]), (&json!(97.5), &json!(1)));
    assert_eq!(detail["metrics"][0]["count"], 1);
    assert_eq!(
        (&detail["alerts"][0]["rule"], &detail["alerts"][0]["severity"]),
        (&json!("service-cpu"), &json!("critical"))
    );
    assert_eq!(detail["events"].as_array().unwrap().len(), 2, "metrics are not among them: {detail}");
    let id = detail["alerts"][0]["id"].as_str().unwrap();
    let alert = farol.get(&format!("/api/alerts/{id}")).await.json();
    assert_eq!(alert["evidence_readings"], json!([]));
    let evidence = &alert["evidence_events"][0];
    assert_eq!(evidence["position"], alert["transitions"][0]["evidence"]["positions"][0]);
    assert_eq!(
        (&evidence["event"]["source"], &evidence["event"]["data"]["valor"]),
        (&json!("shop/eu"), &json!(97.5))
    );
    let of_service = farol.get("/api/alerts?service=shop%2Feu").await.json();
    assert_eq!(of_service["total"], 1);

    let list = farol.get("/api/services?state=degraded,down&search=SHOP").await.json();
    assert_eq!((&list["total"], &list["services"][0]["service"]), (&json!(1), &json!("shop/eu")));
    assert_eq!(list["by_state"]["up"], 1, "the other one");
    let points = farol.get("/api/services/shop%2Feu/metrics?names=cpu_percent").await.json();
    assert_eq!((&points["series"][0]["values"], &points["resolution_seconds"]), (&json!([97.5]), &json!(10)));
    assert_eq!(farol.get("/api/services/other/metrics?names=none").await.json()["series"], json!([]));
    let metric = farol.get("/api/metrics/cpu_percent").await.json();
    assert_eq!(
        (&metric["count"], &metric["total"], &metric["mean"]),
        (&json!(2), &json!(100.0), &json!(50.0))
    );
    assert_eq!(metric["services"][0]["service"], "other");
    let policies = farol.get("/api/resilience?service=shop%2Feu").await.json();
    assert_eq!((&policies["policies"][0]["state"], &policies["total"]), (&json!("open"), &json!(1)));
    let changes = farol.get("/api/resilience/changes?caller=web").await.json();
    assert_eq!(
        (&changes["changes"][0]["from"], &changes["changes"][0]["cause"]),
        (&json!("closed"), &json!("5 failures"))
    );
}

#[tokio::test]
async fn services_that_nobody_told_of_and_bad_filters_are_refused() {
    let farol = Farol::start().await;
    for path in ["/api/services/nobody", "/api/services/nobody/metrics", "/api/metrics/nothing"] {
        farol.get(path).await.problem(404);
    }
    for path in [
        "/api/services/shop/metrics?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "/api/services?state=happy",
        "/api/services?limit=0",
        "/api/services?cursor=zz",
        "/api/services?colour=red",
        "/api/resilience?limit=1001",
        "/api/resilience/changes?cursor=00",
    ] {
        farol.get(path).await.problem(400);
    }
    assert_eq!(farol.get("/api/resilience").await.json()["policies"], json!([]));
}

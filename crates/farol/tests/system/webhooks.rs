//! What Farol tells of the policies that guard its own calls to webhooks.

use tokio::net::TcpListener;

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, folder, write};

/// The state of the breaker in front of the only webhook, as the API tells it.
async fn breaker(farol: &Farol) -> Option<String> {
    let shown = farol.get("/api/resilience?caller=farol").await;
    let policies = shown["policies"].as_array().unwrap_or_else(|| panic!("{shown}"));
    let policy = policies.iter().find(|policy| policy["name"] == "notify-webhook")?;
    policy["state"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn breaker_of_a_dead_webhook_is_shown_open_by_the_api_and_on_metrics() {
    let folder = folder();
    write(folder.path(), "rules.toml", PLAIN_RULE);
    // Nobody listens there once the listener is dropped.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = format!(
        "rules.files = [\"rules.toml\"]\nrules.defaults = false\nnotify.webhook.url = \"http://{nobody}/\"\n"
    );
    write(folder.path(), "farol.toml", &settings);
    let farol = Farol::start(folder.path(), &[]).await;
    eventually(SOON, "the breaker is shown, closed", async || {
        (breaker(&farol).await? == "closed").then_some(())
    })
    .await;
    for sensor in 1..=6 {
        farol.temperature(&format!("t-{sensor}"), 50.0).await;
    }
    eventually(SOON * 2, "the breaker opens", async || (breaker(&farol).await? == "open").then_some(()))
        .await;
    let metrics = farol.text("/metrics").await;
    let open = "policy=\"notify-webhook\",state=\"open\"} 1.0";
    assert!(
        metrics.lines().any(|line| line.starts_with("farol_outgoing_state{") && line.ends_with(open)),
        "{metrics}"
    );
    let moves = farol.pages("/api/events?type=disjuntor_aberto", "events").await;
    assert!(moves.iter().any(|event| event["data"]["name"] == "notify-webhook"), "{moves:?}");
}

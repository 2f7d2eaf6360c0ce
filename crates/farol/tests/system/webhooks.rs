//! Farol's own calls to webhooks: what it tells of their policies, and that a dead one delays nobody.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, folder, write};
use crate::mail_server::MailServer;

/// The state of the breaker in front of the only webhook, as the API tells it.
async fn breaker(farol: &Farol) -> Option<String> {
    farol.own_breaker("notify-webhook").await
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

/// How a webhook is dead.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dead {
    /// Takes connections and never answers.
    Silent,
    /// Refuses connections.
    Refusing,
    /// Answers one byte at a time, and never to the end: the status comes, the body has no end.
    DrippingBody,
    /// The same, but not even the status is ever whole.
    DrippingHead,
}

/// The address of a dead webhook, alive as long as the test. `reached` hears of each connection.
async fn dead_webhook(how: Dead, reached: mpsc::UnboundedSender<Dead>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    if how == Dead::Refusing {
        return url;
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The test has seen enough once nobody listens.
            let _ = reached.send(how);
            tokio::spawn(serve_dead(how, stream));
        }
    });
    url
}

async fn serve_dead(how: Dead, mut stream: TcpStream) {
    let head: &[u8] = match how {
        Dead::DrippingBody => b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        Dead::DrippingHead => b"HTTP/1.1 200 OK\r\nx-slow: ",
        Dead::Silent | Dead::Refusing => return std::future::pending().await,
    };
    let _ = stream.read(&mut [0; 16 * 1024]).await;
    if stream.write_all(head).await.is_err() {
        return;
    }
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A webhook that lives, and what it is posted.
async fn live_webhook() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (posted, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let posted = posted.clone();
            tokio::spawn(async move {
                let mut text = Vec::new();
                // One request a connection; its body is JSON and ends with a brace on its own.
                while !(text.ends_with(b"}") && serde_json_body(&text).is_some()) {
                    match stream.read_buf(&mut text).await {
                        Ok(1..) => {}
                        _ => return,
                    }
                }
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
                let _ = posted.send(serde_json_body(&text).unwrap().to_string());
            });
        }
    });
    (url, received)
}

/// The JSON body of a request, once it is whole.
fn serde_json_body(request: &[u8]) -> Option<serde_json::Value> {
    let text = std::str::from_utf8(request).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// The longest that an attempt at a dead webhook may take: whoever waited for one would be later than [`SOON`] allows.
const DEAD_FOR: Duration = Duration::from_secs(120);

#[tokio::test]
async fn dead_webhooks_delay_no_other_receiver_no_mail_no_alert_and_no_ingest() {
    let (folder, mail) = (folder(), MailServer::start(&[]).await);
    write(folder.path(), "rules.toml", PLAIN_RULE);
    let (reached, mut connections) = mpsc::unbounded_channel();
    let (direct, mut told_at_once) = live_webhook().await;
    let (routed, mut told_by_route) = live_webhook().await;
    let limit = format!("{}s", DEAD_FOR.as_secs());
    // Each kind of dead twice: told at once, because no route leads to it, and by a route.
    let kinds = [Dead::Silent, Dead::Refusing, Dead::DrippingBody, Dead::DrippingHead];
    let mut webhooks = String::new();
    let mut routed_to = String::new();
    for how in kinds {
        for way in ["direct", "routed"] {
            let url = dead_webhook(how, reached.clone()).await;
            let name = format!("{how:?}-{way}").to_lowercase();
            webhooks +=
                &format!("[[notify.webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\ntimeout = \"{limit}\"\n");
            if way == "routed" {
                routed_to += &format!("\"{name}\", ");
            }
        }
    }
    let text = format!(
        "rules.files = [\"rules.toml\"]\nrules.defaults = false\n\
         [notify]\ngroup_wait = \"200ms\"\ngroup_interval = \"1s\"\ngroup_by = [\"...\"]\n{webhooks}\
         [[notify.webhooks]]\nname = \"alive\"\nurl = \"{direct}\"\n\
         [[notify.webhooks]]\nname = \"alive-routed\"\nurl = \"{routed}\"\n\
         [[notify.email]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
         from = \"farol@example.org\"\nto = [\"ana@example.org\"]\n\
         [[notify.route]]\nreceivers = [{routed_to}\"alive-routed\", \"ops\"]\n",
        mail.port
    );
    write(folder.path(), "farol.toml", &text);
    let farol = Farol::start(folder.path(), &[]).await;

    // More alerts than one receiver may have notifications on their way, so that those to the dead ones queue up.
    const ALERTS: usize = 20;
    let began = Instant::now();
    for sensor in 1..=ALERTS {
        let sent = Instant::now();
        farol.temperature(&format!("t-{sensor:02}"), 50.0).await;
        assert!(sent.elapsed() < SOON, "ingest was held up for {:?}", sent.elapsed());
    }
    let told = |text: &str, sensor: usize| text.contains(&format!("t-{sensor:02}"));
    let all_of = |texts: &[String]| (1..=ALERTS).all(|sensor| texts.iter().any(|text| told(text, sensor)));
    for (way, received) in [("at once", &mut told_at_once), ("by route", &mut told_by_route)] {
        let mut posted = Vec::new();
        while !all_of(&posted) {
            let next = tokio::time::timeout(SOON, received.recv()).await;
            posted.push(next.unwrap_or_else(|_| panic!("told {way}: only {posted:?}")).unwrap());
        }
    }
    mail.has_taken("all are told by mail", |taken| {
        all_of(&taken.iter().map(|mail| mail.data.replace("=\r\n", "")).collect::<Vec<_>>())
    })
    .await;
    let alerts = farol.alerts("").await;
    assert_eq!(alerts.iter().filter(|alert| alert["status"] == "firing").count(), ALERTS, "{alerts:?}");
    // Nobody has waited for a dead one: not one attempt that hangs is over yet.
    assert!(began.elapsed() < DEAD_FOR, "{:?}", began.elapsed());
    let mut hanging = std::collections::BTreeMap::<String, usize>::new();
    while let Ok(how) = connections.try_recv() {
        *hanging.entry(format!("{how:?}")).or_default() += 1;
    }
    assert_eq!(hanging.len(), 3, "all that take connections were tried: {hanging:?}");
    // Each dead one has as many on their way as it may, and no more: the bound is its own.
    let shown = farol.get("/api/resilience?caller=farol&name=notify-silent-routed:bulkhead").await;
    let active = shown["policies"][0]["counters"]["active_calls"].as_f64();
    assert!(active.is_some_and(|active| active <= 8.0), "{shown}");
}

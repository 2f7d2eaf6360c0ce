//! Services that are watched and simulated, by the real binary.

use std::net::TcpListener;
use std::process::{Child, Stdio};

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::farol::{Farol, Lines, SOON, eventually, farol, folder, output, text, write};

/// The events of a service of one type, oldest first.
async fn events(farol: &Farol, service: &str, event_type: &str) -> Vec<Value> {
    let found = farol.get(&format!("/api/events?source={service}&type={event_type}&limit=500")).await;
    let mut found = found["events"].as_array().unwrap().clone();
    found.reverse();
    found
}

async fn until(farol: &Farol, service: &str, event_type: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(SOON, &format!("{service}: {event_type}"), async || {
        events(farol, service, event_type).await.into_iter().find(|event| wanted(event))
    })
    .await
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn simulated_services_announce_themselves_obey_and_say_goodbye() {
    let folder = folder();
    let watching = Farol::start(folder.path(), &[]).await;
    let mut command = farol(folder.path());
    command.args(["simulate", "services", "--count", "2", "--check-interval", "200ms", "--url"]);
    let mut simulator =
        Ended(command.arg(&watching.address).stdout(Stdio::piped()).spawn().expect("farol can be run"));
    let mut said = Lines::follow(simulator.0.stdout.take().unwrap());
    until(&watching, "payments", "servico_iniciado", |_| true).await;
    until(&watching, "inventory", "verificacao_alterada", |event| event["data"]["to"] == "up").await;
    for metric in ["cpu_percent", "requests_per_second", "error_rate_percent", "uptime_seconds"] {
        until(&watching, "payments", "metrica_coletada", |event| event["data"]["nome"] == metric).await;
    }

    let second = output(farol(folder.path()).args([
        "simulate",
        "services",
        "--name",
        "alone,payments",
        "--url",
        &watching.address,
    ]));
    assert!(!second.status.success());
    assert!(text(&second.stderr).contains("`payments` is simulated already"), "{}", text(&second.stderr));
    assert_eq!(events(&watching, "alone", "servico_registrado").await.len(), 0, "all or none");

    let set = output(farol(folder.path()).args([
        "service",
        "set",
        "payments",
        "--down",
        "--latency",
        "5ms",
        "--for",
        "4s",
        "--url",
        &watching.address,
    ]));
    assert!(set.status.success(), "{}", text(&set.stderr));
    let told = until(&watching, "payments", "simulacao_alterada", |_| true).await;
    let applied =
        until(&watching, "payments", "simulacao_aplicada", |event| event["data"]["down"] == true).await;
    assert_eq!(applied["correlationid"], told["correlationid"]);
    assert_eq!(applied["data"]["latency_ms"], 5);
    until(&watching, "payments", "sistema_indisponivel", |_| true).await;
    until(&watching, "payments", "sistema_recuperado", |_| true).await;
    let alone = until(&watching, "payments", "simulacao_aplicada", |event| {
        event["data"]["down"] == false
            && event["data"]["latency_ms"] == 100
            && event["time"].as_str() > applied["time"].as_str()
    })
    .await;
    assert_eq!(alone["correlationid"], Value::Null, "its time was up by itself");
    assert_eq!(events(&watching, "payments", "sistema_indisponivel").await.len(), 1);
    assert_eq!(events(&watching, "inventory", "sistema_indisponivel").await.len(), 0);

    let refused =
        output(farol(folder.path()).args(["service", "set", "nobody", "--up", "--url", &watching.address]));
    assert!(text(&refused.stderr).contains("no watched service `nobody`"), "{}", text(&refused.stderr));

    kill_process(Pid::from_child(&simulator.0), Signal::TERM).unwrap();
    let ended = eventually(SOON, "the simulator ends", async || simulator.0.try_wait().unwrap()).await;
    said.finish();
    assert!(ended.success(), "{}", said.text());
    until(&watching, "payments", "servico_parado", |_| true).await;
    until(&watching, "inventory", "servico_removido", |_| true).await;
    eventually(SOON, "simulated services that have gone are not shown", async || {
        let listed = watching.get("/api/services").await;
        let gone = |name: &str| listed["services"].as_array().unwrap().iter().all(|s| s["service"] != name);
        (gone("payments") && gone("inventory")).then_some(())
    })
    .await;
    assert_eq!(
        events(&watching, "inventory", "sistema_indisponivel").await.len(),
        0,
        "it stopped by intention"
    );
}

#[tokio::test]
async fn registrations_and_outages_survive_a_restart_and_nothing_is_told_twice() {
    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let check = json!({"tcp": free.to_string(), "interval": "100ms", "down_after": 2, "up_after": 2});
    write(
        folder.path(),
        "farol.toml",
        &format!("[[services]]\nname = \"filed\"\nchecks = [{{ tcp = \"{free}\", interval = \"100ms\" }}]\n"),
    );
    let first = Farol::start(folder.path(), &[]).await;
    eventually(SOON, "Farol itself is up", async || {
        let listed = first.get("/api/services?state=up&search=farol").await;
        (listed["services"][0]["service"] == "farol").then_some(())
    })
    .await;
    let put = json!({"checks": [check]}).to_string();
    let answer = first.request(Method::PUT, "/api/services/shop", "application/json", put.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let refused = first.request(Method::PUT, "/api/services/filed", "application/json", put).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    until(&first, "shop", "sistema_indisponivel", |_| true).await;
    until(&first, "filed", "sistema_indisponivel", |_| true).await;
    first.kill();

    let again = Farol::start(folder.path(), &[]).await;
    // The port answers at last: only who remembers the outage can tell its end.
    let listener = TcpListener::bind(free).unwrap();
    for service in ["shop", "filed"] {
        until(&again, service, "sistema_recuperado", |_| true).await;
        assert_eq!(events(&again, service, "sistema_indisponivel").await.len(), 1, "{service}: told once");
        assert_eq!(
            events(&again, service, "servico_registrado").await.len(),
            1,
            "{service}: registered once"
        );
    }
    let (status, _) = again.stop().await;
    assert!(status.success());

    // A service that leaves the file is not watched any more.
    write(folder.path(), "farol.toml", "");
    let third = Farol::start(folder.path(), &[]).await;
    until(&third, "filed", "servico_removido", |_| true).await;
    assert_eq!(events(&third, "shop", "servico_removido").await.len(), 0);
    drop(listener);
}

#[tokio::test]
async fn an_outage_goes_on_over_a_restart_whose_settings_ask_more_or_less_often() {
    let folder = folder();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = |interval: &str, ttl: &str| {
        let asked =
            format!("name = \"asked\"\nchecks = [{{ tcp = \"{free}\", interval = \"{interval}\" }}]\n");
        let silent = format!("name = \"silent\"\nchecks = [{{ ttl = \"{ttl}\" }}]\n");
        write(folder.path(), "farol.toml", &format!("[[services]]\n{asked}[[services]]\n{silent}"));
    };
    settings("100ms", "1s");
    let first = Farol::start(folder.path(), &[]).await;
    assert_eq!(first.post("/api/services/silent/heartbeat", &Value::Null).await.status, 200);
    until(&first, "asked", "sistema_indisponivel", |_| true).await;
    // It may have been out before it was heard; what counts is that it falls silent after that.
    let heard = until(&first, "silent", "verificacao_alterada", |event| event["data"]["to"] == "up").await;
    until(&first, "silent", "sistema_indisponivel", |event| event["time"].as_str() > heard["time"].as_str())
        .await;
    first.kill();

    settings("200ms", "900ms");
    let now = || farol_event::Timestamp::from_system_time(std::time::SystemTime::now()).to_string();
    let killed = now();
    let again = Farol::start(folder.path(), &[]).await;
    let ready = now();
    let listener = TcpListener::bind(free).unwrap();
    assert_eq!(again.post("/api/services/silent/heartbeat", &Value::Null).await.status, 200);
    for service in ["asked", "silent"] {
        let since = |event: &Value| event["time"].as_str() > Some(killed.as_str());
        let recovered = until(&again, service, "sistema_recuperado", since).await;
        assert!(
            recovered["time"].as_str() > Some(ready.as_str()),
            "{service} was said to be back: {recovered}"
        );
        let mut told = events(&again, service, "sistema_indisponivel").await;
        told.retain(|event| since(event) && event["time"].as_str() < recovered["time"].as_str());
        assert_eq!(told, [] as [Value; 0], "{service}: it was told before");
    }
    drop(listener);
}

#[tokio::test]
async fn the_demonstration_shows_all_five_and_leaves_nothing_behind() {
    let folder = folder();
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = farol(folder.path());
    command.args(["demo", "resilience", "--fast"]).env("TMPDIR", &temporary);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("farol can be run");
    let mut playing = Ended(child);
    let mut said = Lines::follow(playing.0.stdout.take().unwrap());
    let mut errors = Lines::follow(playing.0.stderr.take().unwrap());
    let ended = eventually(SOON * 4, "the demonstration ends", async || playing.0.try_wait().unwrap()).await;
    said.finish();
    errors.finish();
    let (said, errors) = (said.text(), errors.text());
    assert!(ended.success(), "{said}\n{errors}");
    for line in [
        "demo-payments: servico_iniciado",
        "demo-payments sent cpu_percent",
        "one alert fires, critical: demo-inventory: processor at",
        "the clients go, and it is resolved",
        "the peak is demo-inventory's largest value",
        "the breaker opened within the 5th failing call",
        "the breaker closed",
        "sistema_recuperado, once",
        "the alert is resolved, and there was no other",
        "come back together, instead of",
        "the slow service holds up nobody",
        "by type pedido_criado: 30, worth ",
        "by predicate valor >= 800: 6",
        "one handler failed 4 times, one panicked",
        "an order more did not reach it",
        "/metrics says farol_event_bus_delivered_records_total{bus=\"demo\",subscription=\"by type\"} 30",
        "What was seen",
    ] {
        assert!(said.contains(line), "`{line}` is missing in\n{said}");
    }
    // Of every metric of the three services: count, total, min, max, mean.
    for service in ["demo-payments", "demo-inventory", "demo-orders"] {
        for metric in ["cpu_percent", "response_time_ms"] {
            let numbers = said.lines().find_map(|line| row(line, &[service, metric]));
            let [count, total, min, max, mean] = numbers.expect("every metric is aggregated")[..] else {
                panic!("{service} {metric}: {said}")
            };
            assert!(count >= 1.0 && min <= mean && mean <= max && total >= max, "{service} {metric}: {said}");
        }
    }
    // What each handler was given, got wrong, and did not get: delivered, failed, panicked, dropped, waiting.
    for (handler, counts) in [
        ("by type", [30.0, 0.0, 0.0, 0.0, 0.0]),
        ("by predicate", [6.0, 0.0, 0.0, 0.0, 0.0]),
        ("one that fails", [31.0, 4.0, 0.0, 0.0, 0.0]),
        ("one that panics", [31.0, 0.0, 1.0, 0.0, 0.0]),
    ] {
        let words: Vec<&str> = handler.split(' ').collect();
        let row = said.lines().find_map(|line| row(line, &words));
        assert_eq!(row.as_deref(), Some(&counts[..]), "{handler}: {said}");
    }
    assert!(!said.contains('\u{1b}'), "colours only on a terminal");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "the temporary folder is gone");
}

/// The five numbers of a table's line that begins with these words, if it is one.
fn row(line: &str, begins: &[&str]) -> Option<Vec<f64>> {
    let mut words = line.split_whitespace();
    begins.iter().all(|word| words.next() == Some(word)).then_some(())?;
    let numbers: Vec<f64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    (numbers.len() == 5).then_some(numbers)
}

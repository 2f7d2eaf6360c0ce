//! The command line over the API: services, alerts, silences.

use std::process::Output;

use serde_json::{Value, json};

use crate::farol::{Farol, SOON, eventually, farol, folder, output, text};

struct Client {
    folder: tempfile::TempDir,
    server: Farol,
}

impl Client {
    async fn start() -> Self {
        let folder = folder();
        let server = Farol::start(folder.path(), &[]).await;
        Self { folder, server }
    }

    fn attempt(&self, arguments: &[&str]) -> Output {
        output(farol(self.folder.path()).args(arguments).args(["--url", &self.server.address]))
    }

    /// What a command printed, which must succeed.
    fn run(&self, arguments: &[&str]) -> String {
        let done = self.attempt(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", text(&done.stderr));
        text(&done.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let printed = self.run(arguments);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
    }

    /// Why a command failed.
    fn refused(&self, arguments: &[&str]) -> String {
        let done = self.attempt(arguments);
        assert!(!done.status.success(), "{arguments:?}: {}", text(&done.stdout));
        text(&done.stderr)
    }

    async fn tell(&self, event_type: &str, source: &str, data: Value) {
        let id = format!("{event_type}-{data}");
        let event =
            json!({"specversion": "1.0", "id": id, "type": event_type, "source": source, "data": data});
        assert_eq!(self.server.post("/api/events", &event).await.status, 202);
    }
}

/// The cells of the line that begins with `name`, by what the header says.
fn cells(table: &str, name: &str) -> Vec<(String, String)> {
    let split = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    let header = split(table.lines().next().unwrap());
    let line = table.lines().find(|line| line.starts_with(&format!("{name} ")));
    let row = split(line.unwrap_or_else(|| panic!("no {name} in\n{table}")));
    assert_eq!(header.len(), row.len(), "{table}");
    header.into_iter().zip(row).collect()
}

#[tokio::test]
async fn services_are_listed_and_shown_with_their_alerts_and_breakers() {
    // A name that stands in an address only if it is encoded.
    const NAME: &str = "shop/eu?#1 %2e";
    let client = Client::start().await;
    for (metric, value) in [
        ("cpu_percent", 97.5),
        ("response_time_ms", 12.34),
        ("error_rate_percent", 0.5),
        ("requests_per_second", 41.0),
        ("memory_bytes", 31_200_000.0),
        ("uptime_seconds", 3725.0),
    ] {
        client.tell("metrica_coletada", NAME, json!({"nome": metric, "valor": value})).await;
    }
    client.tell("servico_pulsou", NAME, json!({})).await;
    client.tell("servico_pulsou", "quiet", json!({})).await;
    let breaker = json!({"caller": "web", "name": "db", "service": NAME, "from": "closed", "to": "open", "cause": "5 failures"});
    client.tell("disjuntor_aberto", NAME, breaker).await;
    let line = eventually(SOON, "its alert is listed", async || {
        let listed = client.run(&["service", "list"]);
        let row = listed.lines().any(|line| line.starts_with(NAME)).then(|| cells(&listed, NAME))?;
        row.contains(&("ALERTS".to_owned(), "1".to_owned())).then_some(row)
    })
    .await;
    for (column, value) in [
        ("STATE", "degraded"),
        ("RESPONSE", "12.3 ms"),
        ("ERRORS", "0.5 %"),
        ("REQUESTS/S", "41.0"),
        ("CPU", "97.5 %"),
        ("MEMORY", "31.2 MB"),
        ("UPTIME", "1h2m5s"),
        ("OPEN BREAKERS", "1"),
    ] {
        assert!(line.contains(&(column.to_owned(), value.to_owned())), "{column} {value} in {line:?}");
    }
    assert!(line.iter().any(|(column, value)| column == "CHECKED" && value.ends_with("s ago")), "{line:?}");
    let degraded = client.json(&["service", "list", "--state", "degraded", "--json"]);
    assert_eq!((degraded.as_array().unwrap().len(), &degraded[0]["service"]), (1, &json!(NAME)));
    assert!(client.refused(&["service", "list", "--state", "well"]).contains("`state` must be"));

    let shown = client.run(&["service", "show", NAME]);
    for part in [
        "shop/eu?#1 %2e is degraded since 20",
        "  response time 12.3 ms",
        "  alerts        1",
        "service-cpu  critical  firing",
        "db       web     shop/eu?#1 %2e  open",
        "5 failures",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in\n{shown}");
    }
    let whole = client.json(&["service", "show", NAME, "--json"]);
    assert_eq!(
        (&whole["service"]["service"], &whole["policies"][0]["state"]),
        (&json!(NAME), &json!("open"))
    );
    let unknown = client.refused(&["service", "show", "nobody"]);
    assert!(unknown.contains("`nobody` can't be shown") && unknown.contains("nothing was told"), "{unknown}");
}

#[tokio::test]
async fn alerts_are_listed_silenced_and_heard_again() {
    let client = Client::start().await;
    client.server.temperature("temp-1", 99.0).await;
    client.tell("sistema_indisponivel", "shop", json!({"reason": "gone"})).await;
    let listed = eventually(SOON, "alerts of both fire", async || {
        let alerts = client.json(&["alerts", "--json"]);
        let about =
            |label: &str| alerts.as_array().unwrap().iter().any(|alert| alert["labels"][label].is_string());
        (about("service") && about("sensor_id")).then(|| client.run(&["alerts"]))
    })
    .await;
    assert!(listed.starts_with("BEGAN") && listed.contains("shop is unavailable"), "{listed}");
    let one = client.json(&["alerts", "--service", "shop", "--severity", "critical", "--json"]);
    assert_eq!(one[0]["rule"], "service-unavailable");
    assert!(client.refused(&["alerts", "--status", "loud"]).contains("`status` must be"));

    let why = "new disk, and \"more\"";
    let added = client.json(&[
        "silence",
        "add",
        "service=shop",
        "severity=~\"critical|error\"",
        "--by",
        "ana",
        "--comment",
        why,
        "--for",
        "2h",
        "--json",
    ]);
    let id = added["id"].as_str().unwrap();
    assert_eq!((&added["state"], &added["comment"]), (&json!("active"), &json!(why)));
    let silenced = client.run(&["alerts", "--service", "shop"]);
    assert!(silenced.contains("firing, silenced"), "{silenced}");
    assert!(!client.run(&["alerts", "--source", "temp-1"]).contains("silenced"));
    let silences = client.run(&["silence", "list"]);
    assert!(silences.lines().count() == 2 && silences.contains(id) && silences.contains("ana"), "{silences}");

    let expired = client.run(&["silence", "expire", id, "--by", "rui"]);
    assert!(expired.starts_with(&format!("{id} is expired")), "{expired}");
    assert_eq!(client.run(&["silence", "list"]).lines().count(), 1, "only the header");
    let all = client.json(&["silence", "list", "--all", "--json"]);
    assert_eq!((&all[0]["id"], &all[0]["expired_by"]), (&json!(id), &json!("rui")));
    assert!(!client.run(&["alerts", "--service", "shop"]).contains("silenced"));
    assert!(client.refused(&["silence", "expire", id]).contains("is over since"));
    let matchers = ["silence", "add", "a b", "--by", "ana", "--comment", "x", "--for", "1h"];
    assert!(client.refused(&matchers).contains("`matchers`"), "{}", client.refused(&matchers));
}

//! Alertmanager's own command line tool, `amtool`, speaks to Farol as it does to Alertmanager.

use std::process::Command;

use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, folder, text, write};
use crate::mail_server::tools;

/// Runs amtool; what it printed, or what it complained of.
fn amtool(farol: &Farol, arguments: &[&str]) -> Result<String, String> {
    let program = tools().join("bin/amtool");
    let output = Command::new(&program)
        .env_clear()
        .env("HOME", "/nonexistent")
        .arg(format!("--alertmanager.url={}", farol.address))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; run scripts/test-setup", program.display()));
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn alerts(farol: &Farol, arguments: &[&str]) -> Vec<Value> {
    let printed = amtool(farol, &[&["--output=json", "alert", "query"], arguments].concat()).unwrap();
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

fn silences(farol: &Farol, arguments: &[&str]) -> Vec<Value> {
    let printed = amtool(farol, &[&["--output=json", "silence", "query"], arguments].concat()).unwrap();
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[tokio::test]
async fn amtool_lists_alerts_and_manages_silences() {
    let folder = folder();
    let warm = "[[rule]]\nname = \"warm\"\nselect = '{sensor_type=\"temperature\"}'\nabove = 30\nseverity = \"warning\"\n";
    write(folder.path(), "rules.toml", &format!("{PLAIN_RULE}{warm}"));
    let settings = "rules.files = [\"rules.toml\"]\nrules.defaults = false\n\
        [[notify.webhooks]]\nname = \"pager\"\nurl = \"http://127.0.0.1:9/\"\n\
        [[notify.route]]\nmatch = \"severity=critical\"\nreceivers = [\"pager\"]\n\
        [[notify.inhibit]]\nsource = \"severity=critical\"\ntarget = \"severity=warning\"\nequal = [\"series\"]\n";
    write(folder.path(), "farol.toml", settings);
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 50.0).await;
    farol.temperature("t-2", 35.0).await;
    eventually(SOON, "three alerts fire", async || {
        (farol.alerts("status=firing").await.len() == 3).then_some(())
    })
    .await;

    // What fires: t-1 is hot and warm, and its warmth is inhibited; t-2 is warm.
    let table = amtool(&farol, &["alert", "query"]).unwrap();
    assert!(table.starts_with("Alertname") && table.contains("hot") && table.contains("active"), "{table}");
    assert_eq!(alerts(&farol, &[]).len(), 2);
    let critical = alerts(&farol, &["severity=critical"]);
    assert_eq!(critical.len(), 1);
    let hot = &critical[0];
    assert_eq!(hot["labels"]["alertname"], "hot");
    assert_eq!(hot["labels"]["sensor_id"], "t-1");
    assert_eq!(hot["receivers"][0]["name"], "pager");
    assert!(hot["annotations"]["summary"].as_str().unwrap().contains("t-1"), "{hot}");
    let inhibited = alerts(&farol, &["--inhibited", "sensor_id=t-1", "alertname=~wa.*"]);
    assert_eq!(inhibited[0]["status"]["state"], "suppressed");
    assert_eq!(inhibited[0]["status"]["inhibitedBy"][0], hot["fingerprint"]);
    assert_eq!(alerts(&farol, &["--receiver=pager"]).len(), 1);
    let refused = farol.request(Method::GET, "/api/v2/alerts?filter=severity=~(", "", "").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.body.as_str().unwrap().starts_with("bad matcher format"), "{}", refused.body);

    // A silence, made by amtool, is in force for Farol.
    let silence = ["silence", "add", "alertname=hot", "sensor_id=~t-.*", "--author=ana", "--duration=2h"];
    let id = amtool(&farol, &[&silence[..], &["--comment=belt is being changed"]].concat()).unwrap();
    let id = id.trim();
    let own = farol.get(&format!("/api/silences/{id}")).await;
    assert_eq!((own["state"].as_str(), own["created_by"].as_str()), (Some("active"), Some("ana")));
    assert_eq!(own["matchers"], "{alertname=\"hot\", sensor_id=~\"t-.*\"}");
    assert!(alerts(&farol, &["severity=critical"]).is_empty(), "silenced alerts are not asked for");
    let held = alerts(&farol, &["--silenced", "severity=critical"]);
    assert_eq!(held[0]["status"]["silencedBy"][0], *id);
    let listed = farol.alerts("status=firing&severity=critical").await;
    assert_eq!(listed[0]["silenced_by"][0], *id);
    let warm = farol.alerts("status=firing&severity=warning&source=t-1").await;
    assert_eq!(warm[0]["inhibited_by"][0], listed[0]["id"]);

    // Both list it, and it can be found by what it is about.
    let queried = silences(&farol, &[]);
    assert_eq!((queried.len(), queried[0]["id"].as_str()), (1, Some(id)));
    assert_eq!(queried[0]["comment"], "belt is being changed");
    assert_eq!(silences(&farol, &["alertname=hot"]).len(), 1);
    assert!(silences(&farol, &["alertname=cold"]).is_empty());
    let shown = amtool(&farol, &["silence", "query"]).unwrap();
    assert!(shown.contains(id) && shown.contains("ana"), "{shown}");

    // A longer end keeps it, other matchers would make another.
    let updated = amtool(&farol, &["silence", "update", "--duration=5h", id]).unwrap();
    assert!(updated.contains(id), "{updated}");

    // Expired by amtool, it is over for Farol.
    amtool(&farol, &["silence", "expire", id]).unwrap();
    assert_eq!(farol.get(&format!("/api/silences/{id}")).await["state"], "expired");
    assert!(silences(&farol, &[]).is_empty());
    assert_eq!(silences(&farol, &["--expired"]).len(), 1);
    assert_eq!(alerts(&farol, &["severity=critical"]).len(), 1);
    // Whatever is refused, amtool shows why.
    let unknown = "0190b3d4-0000-7000-8000-000000000001";
    for (arguments, reason) in [
        (&["silence", "expire", id][..], format!("silence {id} is over since")),
        (&["silence", "expire", unknown], format!("there is no silence {unknown}")),
        (&["alert", "add", "alertname=hot"], "alerts can't be posted to Farol".to_owned()),
    ] {
        let shown = amtool(&farol, arguments).unwrap_err();
        assert!(shown.contains(&reason), "{arguments:?}: {shown}");
    }
    for (method, path, status) in [
        (Method::GET, "/api/v2/silence/abc", StatusCode::BAD_REQUEST),
        (Method::GET, &*format!("/api/v2/silence/{unknown}"), StatusCode::NOT_FOUND),
        (Method::DELETE, "/api/v2/alerts", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/api/v2/status", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/api/v2/no/such", StatusCode::NOT_FOUND),
    ] {
        let refused = farol.request(method, path, "", "").await;
        assert_eq!(refused.status, status, "{path}");
        assert!(refused.body.is_string(), "{path}: {}", refused.body);
    }
    assert!(amtool(&farol, &["silence", "add", "a=~.*", "--author=ana", "--comment=all"]).is_err());

    // What it asks of the server itself.
    let config = amtool(&farol, &["config", "show"]).unwrap();
    assert!(config.contains("Farol"), "{config}");
    let facts = farol.pages("/api/events?type=silencio_criado", "events").await;
    assert_eq!(facts.len(), 2, "made and changed, as facts in the log");
}

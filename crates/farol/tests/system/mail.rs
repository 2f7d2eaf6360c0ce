//! Notifications by e-mail, to a real mail server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::certificate::Certificate;
use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, folder, write};
use crate::mail_server::MailServer;

/// Settings with one e-mail receiver that is told soon.
fn settings(folder: &Path, port: u16, notify: &str, more: &str) {
    write(folder, "rules.toml", PLAIN_RULE);
    let text = format!(
        "rules.files = [\"rules.toml\"]\nrules.defaults = false\n\
         [notify]\ngroup_wait = \"500ms\"\ngroup_interval = \"1s\"\n{notify}\n\
         [[notify.email]]\nname = \"ops\"\nhost = \"127.0.0.1\"\nport = {port}\n\
         from = \"Farol <farol@example.org>\"\n{more}\n"
    );
    write(folder, "farol.toml", &text);
}

const TO_ANA: &str = "to = [\"ana@example.org\"]\n";

/// The deliveries of a sensor's newest alert.
async fn deliveries(farol: &Farol, sensor: &str) -> Vec<serde_json::Value> {
    let alerts = farol.alerts(&format!("source={sensor}")).await;
    let Some(id) = alerts.first().and_then(|alert| alert["id"].as_str()) else { return Vec::new() };
    let detail = farol.get(&format!("/api/alerts/{id}")).await;
    detail["deliveries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn alerts_and_their_ends_arrive_by_mail_from_a_server_that_asks_for_a_password() {
    let (folder, server) = (folder(), MailServer::start(&["--auth", "farol:sesame-sesame"]).await);
    let account = "user = \"farol\"\npassword = \"sesame-sesame\"\ntls = \"none\"\n";
    let dashboard = "dashboard = \"https://farol.example.org\"";
    settings(folder.path(), server.port, dashboard, &format!("{TO_ANA}{account}"));
    let farol = Farol::start(folder.path(), &[]).await;
    for sensor in ["t-1", "t-2"] {
        farol.temperature(sensor, 50.0).await;
    }
    let told = |sensor: &'static str, word: &'static str| {
        move |taken: &[crate::mail_server::Taken]| {
            taken.iter().any(|mail| mail.data.contains(sensor) && mail.data.contains(word))
        }
    };
    let taken = server
        .has_taken("both are told", |taken| told("t-1", "firing")(taken) && told("t-2", "firing")(taken))
        .await;
    let mail = &taken[0];
    assert_eq!((mail.to.as_str(), mail.user.as_deref()), ("ana@example.org", Some("farol")));
    assert!(mail.header("Subject").unwrap().starts_with("[CRITICAL] firing: "), "{}", mail.data);
    assert_eq!(mail.header("From").as_deref(), Some("Farol <farol@example.org>"));
    assert_eq!(mail.header("To").as_deref(), Some("ana@example.org"));
    assert!(mail.header("Message-ID").unwrap().ends_with("@example.org>"));
    for part in ["multipart/alternative", "text/plain", "text/html", "https://farol.example.org/#/alerts/"] {
        assert!(mail.data.replace("=\r\n", "").contains(part), "{part}\n{}", mail.data);
    }
    farol.temperature("t-1", 20.0).await;
    server.has_taken("the end is told", told("t-1", "resolved")).await;
    let printed = farol.printed();
    let (status, _) = farol.stop().await;
    assert!(status.success() && !printed.contains("sesame"));
}

#[tokio::test]
async fn mail_that_finds_no_server_arrives_when_there_is_one() {
    let folder = folder();
    let gone = MailServer::start(&[]).await;
    let port = gone.port;
    drop(gone);
    settings(folder.path(), port, "", &format!("{TO_ANA}tls = \"none\"\n"));
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 50.0).await;
    eventually(SOON, "an attempt failed", async || {
        let deliveries = deliveries(&farol, "t-1").await;
        deliveries.iter().any(|delivery| delivery["outcome"] == "failed").then_some(())
    })
    .await;
    let server = MailServer::start(&["--port", &port.to_string()]).await;
    server.has_taken("it arrives", |taken| taken.len() == 1).await;
    let last = eventually(SOON, "the delivery is recorded", async || {
        deliveries(&farol, "t-1").await.into_iter().find(|delivery| delivery["outcome"] == "delivered")
    })
    .await;
    assert!(last["attempt"].as_u64().unwrap() > 1, "{last}");
    assert_eq!((last["channel"].as_str(), last["target"].as_str()), (Some("ops"), Some("ana@example.org")));
}

#[tokio::test]
async fn refused_recipient_is_given_up_and_recorded_and_the_others_get_the_message() {
    let (folder, server) = (folder(), MailServer::start(&["--refuse", "gone@example.org"]).await);
    let to = "to = [\"gone@example.org\", \"ana@example.org\"]\ntls = \"none\"\n";
    settings(folder.path(), server.port, "", to);
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 50.0).await;
    let taken = server.has_taken("ana has it", |taken| !taken.is_empty()).await;
    assert!(taken.iter().all(|mail| mail.to == "ana@example.org"));
    let recorded = eventually(SOON, "both are recorded", async || {
        let deliveries = deliveries(&farol, "t-1").await;
        (deliveries.len() >= 2).then_some(deliveries)
    })
    .await;
    let refused = recorded.iter().find(|delivery| delivery["target"] == "gone@example.org").unwrap();
    assert_eq!((refused["outcome"].as_str(), refused["status"].as_u64()), (Some("gave_up"), Some(550)));
    assert!(refused["error"].as_str().unwrap().contains("no such user here"), "{refused}");
    let policies = recorded.iter().filter(|delivery| delivery["target"] == "ana@example.org");
    assert!(policies.clone().count() == 1, "{recorded:?}");
}

#[tokio::test]
async fn mailbox_that_takes_nothing_for_now_keeps_the_other_recipients_of_its_receiver_told() {
    let (folder, server) = (folder(), MailServer::start(&["--defer", "bob@example.org"]).await);
    let to = "to = [\"bob@example.org\", \"ana@example.org\", \"ana@example.org\"]\ntls = \"none\"\n";
    settings(folder.path(), server.port, "", to);
    let farol = Farol::start(folder.path(), &[]).await;
    let told = |sensor: &'static str, word: &'static str| {
        move |taken: &[crate::mail_server::Taken]| {
            taken.iter().any(|mail| mail.data.contains(sensor) && mail.data.contains(word))
        }
    };
    farol.temperature("t-1", 50.0).await;
    server.has_taken("the first alert is told", told("t-1", "firing")).await;
    eventually(SOON, "bob's mailbox was tried", async || {
        let deliveries = deliveries(&farol, "t-1").await;
        let deferred = |delivery: &&serde_json::Value| delivery["target"] == "bob@example.org";
        let tried = deliveries.iter().find(deferred)?;
        assert_eq!((tried["outcome"].as_str(), tried["status"].as_u64()), (Some("failed"), Some(451)));
        Some(())
    })
    .await;
    farol.temperature("t-2", 50.0).await;
    server.has_taken("another alert of the group is told", told("t-2", "firing")).await;
    farol.temperature("t-1", 20.0).await;
    let taken = server.has_taken("the end is told", told("t-1", "resolved")).await;
    assert!(taken.iter().all(|mail| mail.to == "ana@example.org"));
    let ids: BTreeSet<_> = taken.iter().map(|mail| mail.header("Message-ID")).collect();
    assert_eq!(ids.len(), taken.len(), "nobody is told twice, however often they are named");
    eventually(SOON * 2, "only bob's breaker opens", async || {
        (farol.own_breaker("notify-ops/bob@example.org").await? == "open").then_some(())
    })
    .await;
    assert_eq!(farol.own_breaker("notify-ops/ana@example.org").await.as_deref(), Some("closed"));
}

#[tokio::test]
async fn mail_goes_over_starttls_to_a_server_whose_certificate_is_trusted() {
    let folder = folder();
    let made = Certificate::make(folder.path(), "mail");
    let server =
        MailServer::start(&["--tls", made.certificate(), made.key(), "--auth", "farol:sesame-sesame"]).await;
    let account =
        format!("{TO_ANA}user = \"farol\"\npassword = \"sesame-sesame\"\nca = \"{}\"\n", made.certificate());
    settings(folder.path(), server.port, "", &account);
    let farol = Farol::start(folder.path(), &[]).await;
    farol.temperature("t-1", 50.0).await;
    let taken = server.has_taken("it arrives", |taken| !taken.is_empty()).await;
    assert!(taken[0].tls && taken[0].user.as_deref() == Some("farol"));
    drop(farol);
}

#[tokio::test]
async fn kill_9_loses_no_notification_and_repeats_only_what_was_on_its_way() {
    const SENSORS: usize = 40;
    let (folder, server) = (folder(), MailServer::start(&[]).await);
    settings(folder.path(), server.port, "group_by = [\"...\"]", &format!("{TO_ANA}tls = \"none\"\n"));
    let farol = Farol::start(folder.path(), &[]).await;
    for number in 0..SENSORS {
        farol.temperature(&format!("t-{number:02}"), 50.0).await;
    }
    server.has_taken("some are told", |taken| taken.len() >= 3).await;
    farol.kill();
    let before = server.taken().len();
    let farol = Farol::start(folder.path(), &[]).await;
    let sensor = |mail: &crate::mail_server::Taken| {
        let subject = mail.header("Subject").unwrap();
        let at = subject.find("t-").unwrap();
        subject[at..at + 4].to_owned()
    };
    let taken = server
        .has_taken("everybody is told of everything", |taken| {
            taken.iter().map(sensor).collect::<BTreeSet<_>>().len() == SENSORS
        })
        .await;
    println!("{before} of {SENSORS} were told when it was killed; {} mails in all", taken.len());
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for mail in &taken {
        ids.entry(sensor(mail)).or_default().insert(mail.header("Message-ID").unwrap());
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "a repeat is known by its id: {ids:?}");
    // What is on its way at a time, once, and what had ended since the last commit.
    assert!(taken.len() - SENSORS <= 16, "{} mails for {SENSORS} alerts", taken.len());
    drop(farol);
}

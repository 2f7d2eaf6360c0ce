//! Farol's own Kafka clients at a port that asks who they are, over TLS.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::certificate::Certificate;
use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, farol, folder, output, text, write};
use crate::running::Running;

const PASSWORD: &str = "open-sesame-please";

/// What is different in a test.
#[derive(Clone, Copy)]
struct Client<'a> {
    brokers: &'a str,
    protocol: &'a str,
    mechanism: &'a str,
    password: &'a Path,
    ca: Option<&'a str>,
}

impl<'a> Client<'a> {
    fn flags(&self) -> Vec<&'a str> {
        let mut flags = vec!["--brokers", self.brokers, "--security-protocol", self.protocol];
        if self.protocol.starts_with("SASL") {
            let password = self.password.to_str().unwrap();
            flags.extend([
                "--sasl-mechanism",
                self.mechanism,
                "--username",
                "plant",
                "--password-file",
                password,
            ]);
        }
        flags.extend(self.ca.iter().flat_map(|ca| ["--ssl-ca-location", ca]));
        flags
    }

    fn attempt(&self, folder: &Path, arguments: &[&str]) -> Output {
        output(farol(folder).args(arguments).args(self.flags()))
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> String {
        let done = self.attempt(folder, arguments);
        assert!(done.status.success(), "{} {arguments:?}: {}", self.mechanism, text(&done.stderr));
        text(&done.stdout)
    }
}

/// Settings of a server with one user, and by TLS with a certificate.
fn settings(folder: &Path, certificate: Option<&Certificate>, more: &str) {
    let tls = certificate.map_or_else(String::new, |certificate| {
        format!("tls_certificate = \"{}\"\ntls_key = \"{}\"\n", certificate.certificate(), certificate.key())
    });
    write(folder, "farol.toml", &format!("{more}\n[kafka]\nusers = [\"plant:{PASSWORD}\"]\n{tls}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_comes_in_over_tls_by_every_mechanism() {
    let (here, there) = (folder(), folder());
    let certificate = Certificate::make(here.path(), "server");
    settings(here.path(), Some(&certificate), "rules.defaults = false\npipeline.workers = 0");
    let rules = write(here.path(), "rules.toml", PLAIN_RULE);
    let server = Farol::start(here.path(), &["--rules", rules.to_str().unwrap()]).await;
    let password = write(there.path(), "password", &format!("{PASSWORD}\n"));
    let client = Client {
        brokers: &server.kafka,
        protocol: "SASL_SSL",
        mechanism: "",
        password: &password,
        ca: Some(certificate.certificate()),
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let client = Client { mechanism, ..client };
        let topic = format!("notes-{mechanism}");
        client.run(there.path(), &["topics", "create", &topic]);
        let lines = write(there.path(), "lines.txt", "one\ntwo\n");
        let sent = client.run(there.path(), &["produce", &topic, lines.to_str().unwrap()]);
        assert_eq!(sent, "2 records acknowledged\n");
        let read = client.run(there.path(), &["consume", &topic, "--from-beginning", "--group", mechanism]);
        assert!(read.contains("one") && read.contains("two"), "{read}");
        let groups = client.run(there.path(), &["groups"]);
        assert!(groups.contains(mechanism), "{groups}");
    }

    let client = Client { mechanism: "SCRAM-SHA-256", ..client };
    let create = ["topics", "create", "x", "--topic-config", "retention.ms=soon"];
    for (arguments, reason) in [
        (&create[..], "topic `x`: `retention.ms` is `soon`; a whole number"),
        (&["topics", "create", "x", "--partitions", "100000"], "are not between 1 and"),
        (&["topics", "delete", "alerts", "--yes"], "Farol's own topics are a matter of its settings"),
    ] {
        let refused = client.attempt(there.path(), arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        assert!(text(&refused.stderr).contains(reason), "{}", text(&refused.stderr));
    }
    let simulated = client.run(there.path(), &["simulate", "--sensors", "3", "--duration", "2s"]);
    assert!(simulated.contains(" 0 rejected"), "{simulated}");
    let mut arguments = vec!["worker", "--consumer-id", "far"];
    arguments.extend(client.flags());
    let worker = Running::start(there.path(), &arguments);
    worker.says("rules: 1, as `farol run` publishes them").await;
    server.temperature("t-1", 50.0).await;
    eventually(SOON, "the worker's alert", async || {
        (server.alerts("rule=hot&source=t-1").await.len() == 1).then_some(())
    })
    .await;
    let (status, printed) = worker.interrupt().await;
    assert!(status.success(), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_variables_do_what_the_flags_do() {
    let (here, there) = (folder(), folder());
    let certificate = Certificate::make(here.path(), "server");
    settings(here.path(), Some(&certificate), "");
    let server = Farol::start(here.path(), &[]).await;
    let text_of_settings = format!(
        "[kafka]\nbrokers = [\"{}\"]\nsecurity_protocol = \"sasl_ssl\"\nsasl_mechanism = \"SCRAM-SHA-512\"\nusername = \"plant\"\n\
         ssl_ca_location = \"{}\"\n",
        server.kafka,
        certificate.certificate()
    );
    write(there.path(), "farol.toml", &text_of_settings);
    let listed = output(farol(there.path()).arg("topics").env("FAROL_KAFKA_PASSWORD", PASSWORD));
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    assert!(text(&listed.stdout).contains("sensor-data"));
    let shown = output(farol(there.path()).arg("settings").env("FAROL_KAFKA_PASSWORD", PASSWORD));
    assert!(!text(&shown.stdout).contains(PASSWORD), "{}", text(&shown.stdout));

    // On the server's own machine its settings are enough, with who vouches for its certificate and who one is.
    let own = output(
        farol(here.path())
            .args(["topics", "--username", "plant", "--ssl-ca-location", certificate.certificate()])
            .env("FAROL_KAFKA_PASSWORD", PASSWORD)
            .env("FAROL_KAFKA_LISTEN", &server.kafka),
    );
    assert!(own.status.success(), "{}", text(&own.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_come_in_is_told_why_and_what_to_do() {
    let (secure, elsewhere, open, there) = (folder(), folder(), folder(), folder());
    let certificate = Certificate::make(secure.path(), "server");
    let other = Certificate::make(there.path(), "other");
    settings(secure.path(), Some(&certificate), "");
    let server = Farol::start(secure.path(), &[]).await;
    // The same certificate at an address that isn't in it.
    settings(elsewhere.path(), Some(&certificate), "");
    let misnamed = Farol::start(elsewhere.path(), &["--kafka-listen", "127.0.0.2:0"]).await;
    settings(open.path(), None, "");
    let plain = Farol::start(open.path(), &[]).await;

    let right = write(there.path(), "right", PASSWORD);
    let wrong = write(there.path(), "wrong", "open-barley-please");
    let client = Client {
        brokers: &server.kafka,
        protocol: "SASL_SSL",
        mechanism: "SCRAM-SHA-256",
        password: &right,
        ca: Some(certificate.certificate()),
    };
    let refused = [
        (
            Client { password: &wrong, mechanism: "PLAIN", ..client },
            "the broker takes no such user and password",
            "kafka.password_file",
        ),
        (
            Client { password: &wrong, ..client },
            "the broker takes no such user and password",
            "kafka.password_file",
        ),
        (
            Client { ca: Some(other.certificate()), ..client },
            "the broker's certificate is not trusted",
            "kafka.ssl_ca_location",
        ),
        (
            Client { brokers: &misnamed.kafka, ..client },
            "the broker's certificate is for another host name",
            "by a name that is in its certificate",
        ),
        (Client { protocol: "SASL_PLAINTEXT", ca: None, ..client }, "it seems to speak TLS", "SASL_SSL"),
        (Client { brokers: &plain.kafka, ..client }, "it seems to speak plain text", "SASL_PLAINTEXT"),
        (
            Client { brokers: &plain.kafka, protocol: "PLAINTEXT", ca: None, ..client },
            "clients that don't say who they are",
            "kafka.username",
        ),
    ];
    for (client, reason, advice) in refused {
        let done = client.attempt(there.path(), &["topics"]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{reason}: {said}");
        assert!(
            said.contains(client.brokers) && said.contains(reason) && said.contains(advice),
            "{reason}: {said}"
        );
        assert!(!said.contains("open-"), "no password is told: {said}");
    }

    // A worker doesn't knock for ever where it has been told no; nor does a simulator.
    let stranger = Client { password: &wrong, ..client };
    for command in ["worker", "simulate"] {
        let done = stranger.attempt(there.path(), &[command]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("no such user and password") && said.contains("kafka.password_file"), "{said}");
    }
}

#[test]
fn a_password_is_taken_from_no_argument() {
    let folder = folder();
    let mut command = farol(folder.path());
    let refused = output(command.args(["topics", "--password", PASSWORD]).stderr(Stdio::piped()));
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let help = text(&output(farol(folder.path()).args(["topics", "--help"])).stdout);
    assert!(help.contains("--password-file") && help.contains("FAROL_KAFKA_PASSWORD"), "{help}");
    let missing =
        output(farol(folder.path()).args(["topics", "--username", "plant", "--password-file", "nowhere"]));
    assert!(
        text(&missing.stderr).contains("can't read the password in nowhere"),
        "{}",
        text(&missing.stderr)
    );
}

use proptest::prelude::*;

use super::kafka_client::SecurityProtocol;
use super::*;

/// Loads from a file's text, variables and flags; returns what was resolved, or the problems one a line.
fn load(file: &str, variables: &[(&str, &str)], flags: Vec<Flag>) -> Result<(Settings, Given), String> {
    load_as(Role::Server, file, variables, flags)
}

fn load_as(
    role: Role,
    file: &str,
    variables: &[(&str, &str)],
    flags: Vec<Flag>,
) -> Result<(Settings, Given), String> {
    let dir = tempfile::tempdir().expect("a temp folder");
    let path = dir.path().join("farol.toml");
    std::fs::write(&path, file).expect("written");
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::load(Sources { file: Some(path.clone()), environment, flags, role })
        .map_err(|problems| problems.to_string().replace(path.to_str().expect("UTF-8"), "farol.toml"))
}

#[test]
fn every_default_can_be_read() {
    let (settings, given) = load("", &[], vec![]).expect("no problems");
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:5000");
    assert_eq!(settings.pipeline.workers.get(), 3);
    assert_eq!(settings.topics.len(), 9);
    assert!(settings.webhook.is_none());
    assert!(given.is_empty());
}

#[test]
fn every_setting_of_the_schema_is_read_by_somebody() {
    // A value of a wrong kind for every key: each key that is read complains about it.
    let keys = schema::keys();
    let available: Vec<&Key> = keys.iter().filter(|key| key.unavailable.is_none()).collect();
    let file: String = available.iter().map(|key| format!("{} = 1979-05-27\n", key.name)).collect();
    let problems = load(&file, &[], vec![]).expect_err("all are wrong");
    for (index, key) in available.iter().enumerate() {
        let expected = format!("farol.toml:{}: {}: ", index + 1, key.name);
        assert!(problems.contains(&expected), "{} is not read\n{problems}", key.name);
    }
}

#[test]
fn services_are_read_from_the_file_and_their_mistakes_have_a_place() {
    let file = "[[services]]\nname = \"shop\"\nlabels = { team = \"web\" }\nchecks = [{ http = \"http://127.0.0.1:1/\", interval = \"2s\" }]\n\
                [[services]]\nname = \"db\"\nchecks = [{ tcp = \"db:5432\" }]\n[checks]\napi_targets = \"any\"\n";
    let (settings, _) = load(file, &[], vec![]).expect("no problems");
    let names: Vec<_> = settings.services.0.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["shop", "db"]);
    assert_eq!(settings.api_targets, ApiTargets::Any);
    let problems = load("[[services]]\nname = \"shop\"\nchecks = [{ http = \"here\" }]\n", &[], vec![]);
    let problems = problems.expect_err("no address");
    assert!(problems.contains("farol.toml:1: services:"), "{problems}");
    assert!(problems.contains("service `shop`: check 1: http: `here`"), "{problems}");
}

#[test]
fn environment_wins_over_file_and_flag_over_environment() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\n[pipeline]\nworkers = 5\n[data]\ndir = \"a\"";
    let variables = [("FAROL_HTTP_LISTEN", "127.0.0.1:2"), ("FAROL_PIPELINE_WORKERS", "7")];
    let flag = Flag { key: "http.listen", flag: "--listen", value: RawValue::Bare("127.0.0.1:3".into()) };
    let (settings, given) = load(file, &variables, vec![flag]).expect("no problems");
    assert_eq!(settings.http.listen.port, 3);
    assert_eq!(settings.pipeline.workers.get(), 7);
    assert_eq!(settings.data.dir, PathBuf::from("a"));
    let origin = |name: &str| given.get(name).map(|(_, origin)| origin.clone());
    assert_eq!(origin("http.listen"), Some(Origin::Flag("--listen")));
    assert_eq!(origin("pipeline.workers"), Some(Origin::Environment("FAROL_PIPELINE_WORKERS".into())));
    assert!(matches!(origin("data.dir"), Some(Origin::File { line: 6, .. })));
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let file =
        "[http]\nlistn = \"127.0.0.1:1\"\nlisten = \"here\"\n[pipline]\nworkers = 5\n[log]\nsync = 3\n";
    let variables =
        [("FAROL_PIPELINE_WORKER", "7"), ("FAROL_PIPELINE_WORKERS", "many"), ("KAFKA_BROKERS", "k:9092")];
    let problems = load(file, &variables, vec![]).expect_err("problems");
    for expected in [
        "the settings have 7 problems",
        "farol.toml:2: there is no setting `http.listn` (did you mean `http.listen`?)",
        "farol.toml:3: http.listen: `\"here\"` is not an address with a port",
        "farol.toml:4: there is no setting `pipline` (did you mean `pipeline`?)",
        "farol.toml:7: log.sync: `3` is not a sync policy",
        "environment FAROL_PIPELINE_WORKER: there is no setting of this name (did you mean `FAROL_PIPELINE_WORKERS`?)",
        "environment FAROL_PIPELINE_WORKERS: pipeline.workers: `many` is not a whole number from 0 to 64",
        "environment KAFKA_BROKERS: kafka.brokers: `farol run` keeps its own log",
    ] {
        assert!(problems.contains(expected), "missing: {expected}\nin: {problems}");
    }
}

#[test]
fn more_partitions_than_the_event_stream_can_tell_of_are_refused() {
    let file = "topics.alerts.partitions = 257\ntopics.sensor-data.partitions = 1024\n";
    let problems = load(file, &[], vec![]).expect_err("problems");
    assert!(problems.contains("the settings have 1 problem"), "{problems}");
    assert!(problems.contains("farol.toml:1: topics.alerts.partitions: more than 256"), "{problems}");
}

#[test]
fn kafka_clients_beyond_loopback_must_say_who_they_are_and_their_passwords_are_not_shown() {
    let open = [("FAROL_KAFKA_LISTEN", "0.0.0.0:9092")];
    let problems = load("", &open, vec![]).expect_err("a problem");
    assert!(problems.contains("kafka.listen") && problems.contains("kafka.users"), "{problems}");
    let users = [open[0], ("FAROL_KAFKA_USERS", "a:secret-of-a, b:secret-of-b")];
    load("", &users, vec![]).expect("users are enough");
    for (wrong, said) in [
        ("a:short", "kafka.users"),
        ("secretsecret", "kafka.users"),
        ("a: secret-of-a", "no blank at its ends"),
        ("a:secret-one,a:secret-two", "there are two users `a`"),
    ] {
        let problems = load("", &[("FAROL_KAFKA_USERS", wrong)], vec![]).expect_err(wrong);
        assert!(problems.contains(said) && !problems.contains("secret"), "{problems}");
    }
    let half = load("", &[("FAROL_KAFKA_TLS_KEY", "k.pem")], vec![]).expect_err("a problem");
    assert!(half.contains("it needs kafka.tls_certificate as well"), "{half}");
}

#[test]
fn how_kafka_clients_connect_must_fit_together_and_says_what_to_change() {
    let far = ("KAFKA_BROKERS", "plant-7:9092");
    let (user, password) = (("FAROL_KAFKA_USERNAME", "plant"), ("FAROL_KAFKA_PASSWORD", "hush-hush"));
    let protocol = |name| ("FAROL_KAFKA_SECURITY_PROTOCOL", name);
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[user], "kafka.username: it needs kafka.password or kafka.password_file"),
        (&[password], "kafka.password: it needs kafka.username"),
        (&[("FAROL_KAFKA_PASSWORD_FILE", "f")], "kafka.password_file: it needs kafka.username"),
        (&[far, user, password], "kafka.username: its password would go to another machine in plain text"),
        (&[far, protocol("SASL_SSL")], "kafka.security_protocol: with SASL it needs kafka.username"),
        (&[far, protocol("SSL"), user, password], "take SASL_SSL"),
        (&[protocol("tls")], "\"SASL_PLAINTEXT\" or \"SASL_SSL\""),
        (
            &[("FAROL_KAFKA_SSL_CA_LOCATION", "Cargo.toml")],
            "kafka.ssl_ca_location: it is for connections by TLS",
        ),
    ];
    for (variables, said) in cases {
        let problems = load_as(Role::Client, "", variables, vec![]).expect_err(said);
        assert!(problems.contains(said) && !problems.contains("hush"), "{said}: {problems}");
    }
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let accepted: [(Variables<'_>, bool, bool); 5] = [
        (&[], false, false),
        (&[user, password], false, true),
        (&[far, user, password, protocol("sasl_plaintext")], false, true),
        (&[far, user, password, protocol("SASL_SSL")], true, true),
        // The Farol of the same settings wants TLS.
        (&[user, password, ("FAROL_KAFKA_TLS_CERTIFICATE", "c"), ("FAROL_KAFKA_TLS_KEY", "k")], true, true),
    ];
    for (variables, tls, sasl) in accepted {
        let (settings, _) = load_as(Role::Client, "", variables, vec![]).expect("no problems");
        let own_tls = settings.kafka.tls_certificate.is_some();
        assert_eq!(settings.kafka.client.protocol(own_tls), SecurityProtocol { tls, sasl }, "{variables:?}");
    }
}

#[test]
fn syntax_errors_have_a_line_and_do_not_hide_the_rest() {
    let problems =
        load("[http]\nlisten = \n[pipeline]\nworkers = \"x\"\n", &[], vec![]).expect_err("problems");
    assert!(problems.contains("farol.toml:2: "), "{problems}");
    assert!(problems.contains("farol.toml:4: pipeline.workers"), "{problems}");
}

#[test]
fn founding_variables_keep_working() {
    let variables = [
        ("SENSOR_ID", "temp-sensor-001"),
        ("SENSOR_TYPE", "temperature"),
        ("SAMPLING_INTERVAL", "3.0"),
        ("FACTORY_SECTION", "production"),
        ("MACHINE_ID", "machine-001"),
        ("ZONE", "zone-a"),
        ("CONSUMER_ID", "consumer-001"),
        ("CONSUMER_GROUP", "processors"),
        ("SENSOR_TOPIC", "sensor-data"),
        ("ALERT_TOPIC", "alerts"),
        ("MONITORING_HOST", "127.0.0.2"),
        ("MONITORING_PORT", "6000"),
    ];
    let (settings, given) = load("", &variables, vec![]).expect("no problems");
    assert_eq!(settings.simulate.sensor_id.as_deref(), Some("temp-sensor-001"));
    assert_eq!(settings.simulate.sampling_interval, Some(Duration::from_secs(3)));
    assert_eq!(settings.simulate.zone.as_deref(), Some("zone-a"));
    assert_eq!(settings.pipeline.consumer_id, "consumer-001");
    assert_eq!(settings.pipeline.group, "processors");
    assert_eq!(settings.http.listen.to_string(), "127.0.0.2:6000");
    let listing = listing::listing(&given, listing::Explanations::With);
    assert!(listing.contains("# environment MONITORING_HOST and MONITORING_PORT"), "{listing}");
}

#[test]
fn half_an_address_from_the_environment_replaces_its_half() {
    let file = "http.listen = \"127.0.0.5:7000\"";
    let listen = |variables: &[(&str, &str)]| {
        load(file, variables, vec![]).map(|(settings, _)| settings.http.listen.to_string())
    };
    assert_eq!(listen(&[("MONITORING_PORT", "6000")]), Ok("127.0.0.5:6000".into()));
    assert_eq!(listen(&[("MONITORING_HOST", "::1")]), Ok("[::1]:7000".into()));
    assert!(
        listen(&[("MONITORING_PORT", "http")])
            .expect_err("not a port")
            .contains("environment MONITORING_PORT")
    );
    let own_first = [("MONITORING_PORT", "6000"), ("FAROL_HTTP_LISTEN", "127.0.0.1:9")];
    assert_eq!(listen(&own_first), Ok("127.0.0.1:9".into()));
}

#[test]
fn the_two_topics_of_the_founding_documents_can_have_other_names() {
    let (settings, _) = load("topics.alerts.name = \"alarms\"", &[("SENSOR_TOPIC", "readings")], vec![])
        .expect("no problems");
    let names: Vec<&str> = settings.topics.iter().map(|topic| topic.name.as_str()).collect();
    let others = [
        "system-events",
        "dead-letters",
        "detector-state",
        "service-detector-state",
        "notifier-state",
        "rules",
        "services",
    ];
    assert_eq!(names, [&["readings", "alarms"][..], &others].concat());
    let problems =
        load("", &[("SENSOR_TOPIC", "a b"), ("ALERT_TOPIC", "system-events")], vec![]).expect_err("refused");
    assert!(
        problems.contains("environment SENSOR_TOPIC: topics.sensor-data.name: `a b` is not a topic name"),
        "{problems}"
    );
    assert!(problems.contains("another topic is called `system-events` too"), "{problems}");
}

#[test]
fn listening_for_other_machines_needs_a_token() {
    let open = "http.listen = \"0.0.0.0:5000\"\n";
    let problems = load(open, &[], vec![]).expect_err("refused");
    assert!(problems.contains("no `http.token` is set"), "{problems}");
    assert!(load(open, &[("FAROL_HTTP_TOKEN", "0123456789abcdef")], vec![]).is_ok());
    let problems = load("http.token = \"short\"", &[], vec![]).expect_err("refused");
    assert!(problems.contains("at least 16"), "{problems}");
    assert!(!problems.contains("short"), "a secret is never printed\n{problems}");
}

#[test]
fn a_file_that_is_named_must_exist() {
    let sources = Sources { file: Some("/nowhere/farol.toml".into()), ..Sources::default() };
    let problems = Settings::load(sources).expect_err("refused").to_string();
    assert!(
        problems.contains("flag --config: can't read the settings file `/nowhere/farol.toml`"),
        "{problems}"
    );
}

#[test]
fn sizes_out_of_range_and_missing_rule_files_are_refused() {
    let file =
        "log.segment_size = \"1KiB\"\nrules.files = [\"/nowhere/rules.toml\"]\nhttp.request_timeout = \"0s\"";
    let problems = load(file, &[], vec![]).expect_err("refused");
    assert!(
        problems.contains("farol.toml:1: log.segment_size: `1KiB` is not from 1MiB to 1GiB"),
        "{problems}"
    );
    assert!(
        problems.contains("farol.toml:2: rules.files: there is no file `/nowhere/rules.toml`"),
        "{problems}"
    );
    assert!(
        problems.contains("farol.toml:3: http.request_timeout: it must be longer than nothing"),
        "{problems}"
    );
    let problems = load("pipeline.group = \"service-processors\"", &[], vec![]).expect_err("refused");
    assert!(problems.contains("it must be another group than `pipeline.group`"), "{problems}");
}

#[test]
fn topics_follow_the_log_unless_they_say_otherwise() {
    let file = "log.sync = \"50ms\"\ntopics.alerts.sync = \"always\"\ntopics.sensor-data.retention = \"7d\"";
    let (settings, _) = load(file, &[], vec![]).expect("no problems");
    let sync =
        |name| settings.topics.iter().find(|topic| topic.name == name).map(|topic| topic.sync.as_config());
    assert_eq!(sync("sensor-data").as_deref(), Some("50ms"));
    assert_eq!(sync("alerts").as_deref(), Some("always"));
    let problems =
        load("topics.detector-state.partitions = 3", &[], vec![]).expect_err("it follows sensor-data");
    assert!(problems.contains("there is no setting `topics.detector-state.partitions`"), "{problems}");
}

#[test]
fn the_listing_reads_back_as_a_settings_file_and_hides_secrets() {
    let file = "http.token = \"0123456789abcdef\"\nnotify.webhook.url = \"http://127.0.0.1:1/x\"\npipeline.workers = 9";
    let (_, given) = load(file, &[("FAROL_RULES_DEFAULTS", "false")], vec![]).expect("no problems");
    let listing = listing::listing(&given, listing::Explanations::With);
    assert!(!listing.contains("0123456789abcdef"), "{listing}");
    let (again, _) = load(&listing, &[], vec![]).expect("reads back");
    assert_eq!(again.pipeline.workers.get(), 9);
    assert!(!again.rules.defaults);
    assert_eq!(again.webhook.map(|webhook| webhook.url.0).as_deref(), Some("http://127.0.0.1:1/x"));
}

#[test]
fn the_example_file_is_what_the_program_prints_and_is_accepted() {
    let example = listing::example();
    assert_eq!(
        include_str!("../../../../farol.example.toml"),
        example,
        "run: farol settings --example > farol.example.toml"
    );
    // With everything uncommented, made-up values included, it is a file that Farol accepts.
    let uncommented: String = example
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let (_, given) = load(&uncommented, &[], vec![]).expect("the example is accepted");
    assert_eq!(given.len(), schema::keys().iter().filter(|key| key.unavailable.is_none()).count());
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused_without_a_panic(text in "\\PC{0,200}", lines in proptest::collection::vec("[a-z.=\\[\\]\" 0-9\n]{0,30}", 0..6)) {
        let _ = load(&text, &[], vec![]);
        let _ = load(&lines.join("\n"), &[], vec![]);
    }
}

#[test]
fn receivers_and_routes_are_tables_in_the_file() {
    let file = r#"
[notify]
group_by = ["..."]
group_wait = "10s"

[[notify.email]]
name = "ops"
host = "mail.example.org"
from = "Farol <farol@example.org>"
to = ["ana@example.org", "bo@example.org"]
user = "farol"
password = "hush-hush"

[[notify.webhooks]]
name = "pager"
url = "https://example.org/page"

[[notify.route]]
match = '{severity="critical"}'
receivers = ["pager", "ops"]
repeat_interval = "1h"
continue = true

[[notify.route]]
receivers = ["ops"]

[[notify.inhibit]]
source = 'alertname="power"'
target = '{severity=~"warning|error"}'
equal = ["machine_id"]
"#;
    let (settings, given) = load(file, &[], vec![]).expect("no problems");
    let notify = &settings.notify;
    let email = &notify.emails[0];
    assert_eq!(
        (email.port, email.tls, email.to.len(), email.attempts),
        (587, notify::Protection::StartTls, 2, 12)
    );
    assert!(notify.routes[0].goes_on && !notify.routes[1].goes_on && notify.routes[1].matchers.is_empty());
    assert_eq!(notify.routes[0].repeat_interval, Some(Duration::from_secs(3600)));
    assert_eq!(notify.inhibit.as_ref().map(Vec::len), Some(1));
    assert_eq!(notify.group_wait, Duration::from_secs(10));
    let shown = listing::listing(&given, listing::Explanations::Without);
    assert!(!shown.contains("hush") && !format!("{settings:?}").contains("hush"), "{shown}");
    assert!(shown.contains(r#"match = '{severity="critical"}', receivers"#), "{shown}");
}

#[test]
fn what_is_wrong_with_a_receiver_or_a_route_is_told_without_its_password() {
    let email = "name = \"ops\"\nhost = \"m\"\nfrom = \"a@b\"\nto = [\"c@d\"]\n";
    for (file, said) in [
        ("notify.email = 3".to_owned(), "notify.email: the value is not a list"),
        ("[[notify.email]]\nname = \"ops\"".to_owned(), "is not one with a `host`"),
        (format!("[[notify.email]]\n{email}pasword = \"hush\""), "one without `pasword`, which nobody knows"),
        (format!("[[notify.email]]\n{email}password = \"hush\""), "both `user` and `password`"),
        (format!("[[notify.email]]\n{email}user = \"u\"\npassword = \"hush\"\ntls = \"none\""), "over TLS"),
        (
            format!("[[notify.email]]\n{email}user = \"u\"\npassword = [\"hush\"]"),
            "one whose `password` is a text",
        ),
        (
            format!("[[notify.email]]\n{email}tls = \"ssl\""),
            "one whose `tls` is \"none\", \"starttls\" or \"tls\"",
        ),
        (format!("[[notify.email]]\n{email}timeout = \"0s\""), "longer than nothing"),
        (
            format!("[[notify.email]]\n{}", email.replace("a@b", "a")),
            "notify.email: `ops`: `a` is not an e-mail address",
        ),
        (
            format!("[[notify.email]]\n{}", email.replace("c@d", "Bo <bo@>")),
            "`Bo <bo@>` is not an e-mail address",
        ),
        (format!("[[notify.email]]\n{}", email.replace("\"c@d\"", "")), "`to` must name 1 to 50 addresses"),
        (format!("[[notify.email]]\n{email}ca = \"/no/such\""), "there is no file `/no/such`"),
        (
            format!("[[notify.email]]\n{email}[[notify.email]]\n{email}"),
            "another receiver is called `ops` too",
        ),
        ("[[notify.route]]\nreceivers = [\"ops\"]".to_owned(), "there is no receiver `ops`; there are: none"),
        (
            format!("[[notify.email]]\n{email}[[notify.route]]\nreceivers = [\"log\"]"),
            "there is no receiver `log`; there are: ops",
        ),
        (
            "[[notify.route]]\nmatch = \"{a=\"\nreceivers = []".to_owned(),
            "one whose `match` is matchers such as",
        ),
        ("[[notify.inhibit]]\nsource = \"a=b\"".to_owned(), "one with a `target`"),
    ] {
        let problems = load(&file, &[], vec![]).expect_err(&file);
        assert!(problems.contains(said) && !problems.contains("hush"), "{file}\n{problems}");
    }
    let problems = load("", &[("FAROL_NOTIFY_EMAIL", "ops@example.org")], vec![]).expect_err("a list");
    assert!(problems.contains("[[notify.email]] table"), "{problems}");
}

#[test]
fn wrong_addresses_are_told_all_at_once_with_the_other_problems() {
    let file = "pipeline.workers = -1\n[[notify.email]]\nname = \"ops\"\nhost = \"m\"\nfrom = \"a\"\nto = []";
    let problems = load(file, &[], vec![]).expect_err(file);
    for said in ["`a` is not an e-mail address", "`to` must name 1 to 50", "pipeline.workers"] {
        assert!(problems.contains(said), "{said}\n{problems}");
    }
}

#[test]
fn mail_in_clear_to_another_machine_is_warned_of_and_to_this_one_is_not() {
    let email = |name: &str, host: &str, tls: &str| {
        format!(
            "[[notify.email]]\nname = \"{name}\"\nhost = \"{host}\"\nfrom = \"a@b\"\nto = [\"c@d\"]\ntls = \"{tls}\"\n"
        )
    };
    let file = email("here", "127.0.0.1", "none")
        + &email("there", "mail.example.org", "none")
        + &email("safe", "mail.example.org", "starttls");
    let (settings, _) = load(&file, &[], vec![]).expect("no problems");
    let warnings = settings.notify.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("`there`") && warnings[0].contains("mail.example.org"), "{warnings:?}");
}

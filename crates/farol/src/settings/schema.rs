//! Every setting there is, once: its name, default, meaning, and the founding documents' variable for it.
//!
//! The file's known keys, the environment's known variables, `farol settings` and `farol.example.toml` all
//! come from this list.

use std::borrow::Cow;

/// One setting.
#[derive(Debug, Clone)]
pub struct Key {
    /// Section and key with dots: `http.listen`.
    pub name: Cow<'static, str>,
    /// Its default as TOML; empty when there is none.
    pub default: &'static str,
    /// A value to show where there is no default, as TOML.
    pub example: &'static str,
    /// What it is for, in a sentence.
    pub help: &'static str,
    /// The founding documents' variable for it, if any. `MONITORING_HOST` and `MONITORING_PORT` together are
    /// `http.listen` and stand apart, in [`super::layers`].
    pub founding: Option<&'static str>,
    /// Not to be shown.
    pub secret: bool,
    /// For an engine that this version doesn't have: known, and refused with this reason.
    pub unavailable: Option<&'static str>,
}

impl Key {
    const fn new(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            default,
            example: "",
            help,
            founding: None,
            secret: false,
            unavailable: None,
        }
    }

    const fn example(mut self, value: &'static str) -> Self {
        self.example = value;
        self
    }

    const fn founding(mut self, variable: &'static str) -> Self {
        self.founding = Some(variable);
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn unavailable(mut self, reason: &'static str) -> Self {
        self.unavailable = Some(reason);
        self
    }

    /// `FAROL_HTTP_LISTEN` for `http.listen`, `FAROL_TOPICS_SENSOR_DATA_SYNC` for `topics.sensor-data.sync`.
    pub fn variable(&self) -> String {
        let name: String = self
            .name
            .chars()
            .map(|c| if c == '.' || c == '-' { '_' } else { c.to_ascii_uppercase() })
            .collect();
        format!("FAROL_{name}")
    }
}

/// The topics that Farol makes, with partitions and retention where they differ from each other.
pub const TOPICS: [TopicDefaults; 9] = [
    TopicDefaults {
        name: "sensor-data",
        renamed_by: Some(("SENSOR_TOPIC", "\"readings\"")),
        partitions: "3",
        retention: "\"7d\"",
    },
    TopicDefaults {
        name: "alerts",
        renamed_by: Some(("ALERT_TOPIC", "\"alarms\"")),
        partitions: "2",
        retention: "\"365d\"",
    },
    TopicDefaults { name: "system-events", renamed_by: None, partitions: "3", retention: "\"30d\"" },
    TopicDefaults { name: "dead-letters", renamed_by: None, partitions: "1", retention: "\"30d\"" },
    TopicDefaults { name: "detector-state", renamed_by: None, partitions: "", retention: "" },
    TopicDefaults { name: "service-detector-state", renamed_by: None, partitions: "", retention: "" },
    TopicDefaults { name: "notifier-state", renamed_by: None, partitions: "", retention: "" },
    TopicDefaults { name: "rules", renamed_by: None, partitions: "", retention: "" },
    TopicDefaults { name: "services", renamed_by: None, partitions: "", retention: "" },
];

/// What a topic starts with.
pub struct TopicDefaults {
    /// Its name.
    pub name: &'static str,
    /// The founding documents' variable that gives it another name, and such a name, for the two topics that can have one.
    pub renamed_by: Option<(&'static str, &'static str)>,
    /// Number of partitions as TOML; empty when it follows another topic and can't be set.
    pub partitions: &'static str,
    /// Age at which records go, as TOML; empty when it is compacted and can't be set.
    pub retention: &'static str,
}

const NO_POSTGRES: &str =
    "this version stores its views in SQLite in the data folder and can't use PostgreSQL; remove it";

/// Every setting, in the order in which they are shown.
pub fn keys() -> Vec<Key> {
    let mut keys = vec![
        // Before every section, because that is where TOML has keys without one.
        Key::new(
            "services",
            "",
            "Services that are watched, each a [[services]] with name, labels and checks: http, tcp or ttl, with interval, timeout, \
             down_after, up_after, critical, status, body_contains, follow_redirects.",
        )
        .example("[{ name = \"shop\", checks = [{ http = \"http://127.0.0.1:8080/health\", interval = \"10s\" }] }]"),
        Key::new("data.dir", "\"./farol-data\"", "Folder of everything that is kept; one process at a time."),
        Key::new("http.listen", "\"127.0.0.1:5000\"", "Address and port of API and dashboard."),
        Key::new(
            "http.token",
            "",
            "Bearer token that every request must carry; required unless `http.listen` is loopback.",
        )
        .example("\"use-openssl-rand-hex-24\"")
        .secret(),
        Key::new("http.body_limit", "\"16MiB\"", "Largest request body."),
        Key::new("http.request_timeout", "\"30s\"", "A request that takes longer is answered with 503."),
        Key::new("http.concurrency", "512", "Requests served at the same time; more are answered with 503."),
        Key::new("http.connections", "1024", "Open connections; more are answered with 503."),
        Key::new("http.streams", "256", "Open event streams; more are answered with 503."),
        Key::new(
            "http.allowed_hosts",
            "[]",
            "Names that the Host header may carry beside localhost: of a reverse proxy or tunnel in front.",
        ),
        Key::new(
            "kafka.listen",
            "\"127.0.0.1:9092\"",
            "Address and port for Kafka clients; `off` for none. Beyond loopback it needs `kafka.users`.",
        ),
        Key::new(
            "kafka.advertise",
            "",
            "Where Kafka clients are told to connect, if that is another address than the one that they reach.",
        )
        .example("\"farol.example.org:9092\""),
        Key::new(
            "kafka.auto_create_topics",
            "false",
            "Whether a topic that a Kafka client asks for is made when it isn't there.",
        ),
        Key::new("kafka.default_partitions", "1", "Partitions of a topic that is made without saying how many."),
        Key::new(
            "kafka.users",
            "",
            "Kafka clients that may connect, each `name:password` or `name:` and a salted password as PostgreSQL writes it; all may without it.",
        )
        .example("[\"sensors:use-openssl-rand-hex-24\"]")
        .secret(),
        Key::new("kafka.tls_certificate", "", "PEM file with the certificate for Kafka clients, for connections by TLS only.")
            .example("\"/etc/farol/tls.crt\""),
        Key::new("kafka.tls_key", "", "PEM file with its private key.").example("\"/etc/farol/tls.key\""),
        Key::new(
            "kafka.connections",
            "4096",
            "Open connections of Kafka clients; then one that has said nothing yet makes room, or new ones are closed at once.",
        ),
        Key::new(
            "kafka.connections_per_address",
            "",
            "The same for one address other than loopback; half of kafka.connections without it.",
        )
        .example("100"),
        Key::new("kafka.request_limit", "\"100MiB\"", "Largest request of a Kafka client."),
        Key::new("kafka.group_members", "1000", "Members of one consumer group; more are refused."),
        Key::new("kafka.groups", "10000", "Consumer groups, with members or with committed offsets; more are refused."),
        Key::new(
            "kafka.producers",
            "10000",
            "Idempotent producers that one partition remembers; beyond it, the one that was silent longest is forgotten.",
        ),
        Key::new(
            "kafka.brokers",
            "",
            "Kafka brokers that `farol worker`, `topics`, `groups`, `consume`, `produce` and `simulate` connect to; without it, the Farol of these settings.",
        )
        .example("[\"127.0.0.1:9092\"]")
        .founding("KAFKA_BROKERS"),
        Key::new(
            "kafka.security_protocol",
            "",
            "How these commands connect: `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`; without it, by SASL if there is a username, and by TLS \
             if it is the Farol of these settings and that wants it.",
        )
        .example("\"SASL_SSL\""),
        Key::new(
            "kafka.sasl_mechanism",
            "\"PLAIN\"",
            "How they prove the password: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.",
        ),
        Key::new("kafka.username", "", "User that they say they are.").example("\"farol\""),
        Key::new("kafka.password", "", "Its password.").example("\"secret\"").secret(),
        Key::new("kafka.password_file", "", "File with its password on the first line, if kafka.password isn't set.")
            .example("\"/run/secrets/farol-kafka\""),
        Key::new(
            "kafka.ssl_ca_location",
            "",
            "PEM file of the certificates that may vouch for brokers; the system's without it.",
        )
        .example("\"/etc/farol/ca.crt\""),
        Key::new(
            "log.sync",
            "\"always\"",
            "When a record is acknowledged: `always` after an fdatasync, an interval such as `50ms`, or `never`. Topics can differ.",
        ),
        Key::new(
            "log.segment_size",
            "\"128MiB\"",
            "Size at which a partition's segment is closed and the next begun.",
        ),
    ];
    for topic in &TOPICS {
        topic_keys(topic, &mut keys);
    }
    keys.extend([
        Key::new("pipeline.workers", "3", "Workers in this process that run the rules, each a member of the consumer group; 0 if they are processes of their own."),
        Key::new("pipeline.group", "\"sensor-processors\"", "Name of the workers' consumer group.")
            .founding("CONSUMER_GROUP"),
        Key::new(
            "pipeline.services_group",
            "\"service-processors\"",
            "Name of the workers' consumer group for what services send; another one than that of the readings.",
        ),
        Key::new("pipeline.consumer_id", "\"worker\"", "What workers are called: this, a dash and a number.")
            .founding("CONSUMER_ID"),
        Key::new(
            "pipeline.session_timeout",
            "\"10s\"",
            "A worker that has not been heard of for this long loses its partitions to the others.",
        ),
        Key::new(
            "views.stale_after",
            "\"60s\"",
            "A sensor without a reading for this long is shown as stale.",
        ),
        Key::new(
            "views.keep_readings",
            "",
            "Age, by when they were measured, at which readings leave the views; they are kept without it.",
        )
        .example("\"365d\""),
        Key::new(
            "views.keep_history",
            "\"30d\"",
            "Age at which events, dead letters and rebalances leave the views; alerts are kept.",
        ),
        Key::new("host.enabled", "true", "Whether the machine on which Farol runs is watched as a service: processor, memory, disks, network."),
        Key::new("host.interval", "\"5s\"", "Time between measurements of the machine; disks and uptime are told once a minute."),
        Key::new("host.name", "", "What that service is called; the machine's own name without it.").example("\"plant-server\""),
        Key::new("rules.files", "[]", "Rule files. They are read again when they change."),
        Key::new("rules.defaults", "true", "Whether the built-in thresholds per sensor type are rules too."),
        Key::new("notify.dashboard", "", "Where people reach the dashboard, for links in notifications.")
            .example("\"https://farol.example.org\""),
        Key::new(
            "notify.group_by",
            "[\"alertname\"]",
            "Labels whose values make a group of alerts that are told together; `[\"...\"]` tells each alone, `[]` all in one.",
        ),
        Key::new("notify.group_wait", "\"30s\"", "How long a new group waits for more alerts before it is told."),
        Key::new(
            "notify.group_interval",
            "\"5m\"",
            "The least time between two notifications of a group that changes.",
        ),
        Key::new(
            "notify.repeat_interval",
            "\"4h\"",
            "After how long a group is told again that fires unchanged and that nobody has acknowledged.",
        ),
        Key::new(
            "notify.email",
            "[]",
            "E-mail receivers, each a [[notify.email]] table: name, host, from, to, and if need be port, tls (none, starttls, tls), ca, user, password, timeout, attempts, send_resolved.",
        )
        .secret(),
        Key::new(
            "notify.webhooks",
            "[]",
            "Further webhooks, each a [[notify.webhooks]] table: name, url, and if need be authorization, timeout, attempts, send_resolved.",
        )
        .secret(),
        Key::new(
            "notify.route",
            "[]",
            "Who is told of what, each a [[notify.route]] table: match, receivers, continue, group_by, group_wait, group_interval, repeat_interval. The first that matches is taken.",
        ),
        Key::new(
            "notify.inhibit",
            "",
            "Which alerts hold others back, each a [[notify.inhibit]] table: source, target, equal. Without it, a critical alert holds back milder ones of its series and family of rules.",
        )
        .example("[{ source = '{severity=\"critical\"}', target = '{severity=\"warning\"}', equal = [\"machine_id\"] }]"),
        Key::new("notify.webhook.url", "", "Where alert transitions are posted.")
            .example("\"https://example.org/alerts\""),
        Key::new(
            "notify.webhook.authorization",
            "",
            "Authorization header that is sent along, for example `Bearer …`.",
        )
        .example("\"Bearer secret\"")
        .secret(),
        Key::new("notify.webhook.timeout", "\"5s\"", "How long one attempt may take."),
        Key::new("notify.webhook.attempts", "12", "Attempts for one transition before it is given up."),
        Key::new(
            "checks.api_targets",
            "\"loopback\"",
            "Where checks may go that are registered through the API: `loopback`, `any`, or `none` for no such checks. Those of `services` go anywhere.",
        ),
        Key::new(
            "demo.sensors",
            "",
            "Number of simulated sensors of `farol run --demo`, instead of its small plant.",
        )
        .example("100"),
        Key::new("simulate.sensor_id", "", "Sensor that `farol simulate` plays.")
            .example("\"temp-sensor-001\"")
            .founding("SENSOR_ID"),
        Key::new("simulate.sensor_type", "\"temperature\"", "Its type.").founding("SENSOR_TYPE"),
        Key::new(
            "simulate.sampling_interval",
            "",
            "Time between its readings; the type's own by default. SAMPLING_INTERVAL is in seconds.",
        )
        .example("\"3s\""),
        Key::new("simulate.factory_section", "", "Its location.")
            .example("\"production\"")
            .founding("FACTORY_SECTION"),
        Key::new("simulate.machine_id", "", "Its location.")
            .example("\"machine-001\"")
            .founding("MACHINE_ID"),
        Key::new("simulate.zone", "", "Its location.").example("\"zone-a\"").founding("ZONE"),
        Key::new(
            "telemetry.log",
            "\"warn,farol_pipeline::notifier=info\"",
            "What is logged on the terminal: a level, or `target=level` with commas between.",
        ),
        Key::new("telemetry.format", "\"text\"", "How log lines look: `text` or `json`."),
        Key::new("database.url", "", "Not in this version.")
            .founding("DATABASE_URL")
            .unavailable(NO_POSTGRES)
            .secret(),
    ]);
    keys
}

fn topic_keys(topic: &TopicDefaults, keys: &mut Vec<Key>) {
    let mut add = |key: &str, make: Key| {
        keys.push(Key { name: Cow::Owned(format!("topics.{}.{key}", topic.name)), ..make })
    };
    if let Some((variable, example)) = topic.renamed_by {
        let help = "Another name for the topic; choose it before the first start.";
        add("name", Key::new("", "", help).example(example).founding(variable));
    }
    if !topic.partitions.is_empty() {
        add(
            "partitions",
            Key::new("", topic.partitions, "Number of partitions; fixed once the topic exists."),
        );
    }
    if !topic.retention.is_empty() {
        add("retention", Key::new("", topic.retention, "Age at which records are deleted."));
        let help = "Bytes per partition above which the oldest records are deleted.";
        add("retention_size", Key::new("", "", help).example("\"2GiB\""));
    }
    add("sync", Key::new("", "", "Sync policy of this topic, instead of `log.sync`.").example("\"always\""));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_variables_are_unique() {
        let keys = keys();
        let names: BTreeSet<_> = keys.iter().map(|key| key.name.clone()).collect();
        let variables: BTreeSet<_> = keys.iter().map(Key::variable).collect();
        assert_eq!((names.len(), variables.len()), (keys.len(), keys.len()));
    }

    #[test]
    fn variables_are_section_and_key() {
        let variables: Vec<String> = keys().iter().map(Key::variable).collect();
        for expected in [
            "FAROL_HTTP_LISTEN",
            "FAROL_TOPICS_SENSOR_DATA_SYNC",
            "FAROL_NOTIFY_WEBHOOK_URL",
            "FAROL_KAFKA_LISTEN",
        ] {
            assert!(variables.iter().any(|variable| variable == expected), "{expected}");
        }
    }
}

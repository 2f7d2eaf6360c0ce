//! Settings: one file, environment variables over it, command line flags over those.
//!
//! The way is raw → validated → resolved. [`layers`] collects raw values, each with the place that it came from;
//! [`Settings::load`] reads them into types, checks what must hold between them, and reports *all* problems at once.
//! The environment comes in as a map: nothing but `main` reads the process's own.
//!
//! Parts, in reading order: [`value`] (typed values), [`schema`] (every setting there is), [`layers`], [`problem`],
//! [`kafka_client`] (the part of section `kafka` that is for clients), [`services`] (watched services), [`notify`] (the lists of section `notify`), [`listing`] (`farol settings`).

pub mod kafka_client;
pub mod layers;
pub mod listing;
pub mod notify;
pub mod problem;
pub mod schema;
pub mod services;
pub mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farol_event::service::MAX_SERVICE_NAME_BYTES;
use farol_http::MAX_FACT_PARTITIONS;
use kafka_client::KafkaClientSettings;
use layers::{Flag, Raw, Sourced, lay_environment, lay_file, lay_flags};
use notify::NotifySettings;
use problem::{Origin, Problem, Problems};
use schema::Key;
use services::{ApiTargets, Services};
use value::{
    ByteSize, Count, KafkaUser, ListenAddress, ListenOrOff, LogFormat, RawValue, SettingValue, SyncPolicy,
    Url,
};

/// The settings file that is read when it is there and no other is named.
pub const DEFAULT_FILE: &str = "farol.toml";

/// Everything that can be set, resolved.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The watched services.
    pub services: Services,
    /// How far checks may reach that come through the API.
    pub api_targets: ApiTargets,
    /// Section `data`.
    pub data: DataSettings,
    /// Section `http`.
    pub http: HttpSettings,
    /// Section `kafka`.
    pub kafka: KafkaSettings,
    /// Section `log`.
    pub log: LogSettings,
    /// Section `topics`, in the order of [`schema::TOPICS`].
    pub topics: Vec<TopicSettings>,
    /// Section `pipeline`.
    pub pipeline: PipelineSettings,
    /// Section `views`.
    pub views: ViewSettings,
    /// Section `rules`.
    pub rules: RulesSettings,
    /// Section `notify`.
    pub notify: NotifySettings,
    /// Section `host`.
    pub host: HostSettings,
    /// Section `notify.webhook`, if a URL is set.
    pub webhook: Option<WebhookSettings>,
    /// Section `demo`.
    pub demo: DemoSettings,
    /// Section `simulate`.
    pub simulate: SimulateSettings,
    /// Section `telemetry`.
    pub telemetry: TelemetrySettings,
}

/// Section `data`.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// Where everything is kept.
    pub dir: PathBuf,
}

/// Section `http`.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where to listen.
    pub listen: ListenAddress,
    /// What requests must carry.
    pub token: Option<String>,
    /// Largest body.
    pub body_limit: ByteSize,
    /// Longest request.
    pub request_timeout: Duration,
    /// Requests at the same time.
    pub concurrency: Count<65536>,
    /// Open connections.
    pub connections: Count<65536>,
    /// Open event streams.
    pub streams: Count<65536>,
    /// Further names for the `Host` header.
    pub allowed_hosts: Vec<String>,
}

/// Section `kafka`.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Where to listen.
    pub listen: ListenOrOff,
    /// Where clients are told to connect.
    pub advertise: Option<ListenAddress>,
    /// Whether topics are made when they are asked for.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is made without saying how many.
    pub default_partitions: Count<1000>,
    /// Open connections.
    pub connections: Count<65536>,
    /// Open connections of one address other than loopback; half of all without it.
    pub connections_per_address: Option<Count<65536>>,
    /// Largest request.
    pub request_limit: ByteSize,
    /// Members of one consumer group.
    pub group_members: Count<10000>,
    /// Consumer groups.
    pub groups: Count<100000>,
    /// Idempotent producers that one partition remembers.
    pub producers: Count<100000>,
    /// Who may connect; everybody without it.
    pub users: Option<Vec<KafkaUser>>,
    /// The certificate's file, for TLS.
    pub tls_certificate: Option<PathBuf>,
    /// Its key's file.
    pub tls_key: Option<PathBuf>,
    /// Where commands that are clients connect, and how.
    pub client: KafkaClientSettings,
}

/// Section `log`.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// When an append is acknowledged.
    pub sync: SyncPolicy,
    /// Size of a full segment.
    pub segment_size: ByteSize,
}

/// One topic of section `topics`.
#[derive(Debug, Clone)]
pub struct TopicSettings {
    /// The name by which settings know it.
    pub key: &'static str,
    /// The name that it has.
    pub name: String,
    /// Number of partitions; `None` where it follows `sensor-data`.
    pub partitions: Option<Count<1024>>,
    /// Age at which records go; `None` for a compacted topic.
    pub retention: Option<Duration>,
    /// Bytes per partition above which records go.
    pub retention_size: Option<ByteSize>,
    /// When an append is acknowledged.
    pub sync: SyncPolicy,
}

/// Section `pipeline`.
#[derive(Debug, Clone)]
pub struct PipelineSettings {
    /// Number of workers in this process; none, when they are processes of their own.
    pub workers: Count<64, 0>,
    /// Their consumer group.
    pub group: String,
    /// Their consumer group for what services send.
    pub services_group: String,
    /// What they are called, before the number.
    pub consumer_id: String,
    /// After how long of silence a worker loses its partitions.
    pub session_timeout: Duration,
}

/// Section `views`.
#[derive(Debug, Clone)]
pub struct ViewSettings {
    /// After how long without a reading a sensor is stale.
    pub stale_after: Duration,
    /// Age at which readings leave the views.
    pub keep_readings: Option<Duration>,
    /// Age at which the rest but alerts leaves the views.
    pub keep_history: Duration,
}

/// Section `host`.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Whether the machine is watched.
    pub enabled: bool,
    /// Time between measurements.
    pub interval: Duration,
    /// The service's name; the machine's own without it.
    pub name: Option<String>,
}

/// Section `rules`.
#[derive(Debug, Clone)]
pub struct RulesSettings {
    /// Rule files.
    pub files: Vec<PathBuf>,
    /// Whether the built-in rules are in force too.
    pub defaults: bool,
}

/// Section `notify.webhook`.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Where to post.
    pub url: Url,
    /// The `Authorization` header, if any.
    pub authorization: Option<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts.
    pub attempts: Count<100>,
}

/// Section `demo`.
#[derive(Debug, Clone)]
pub struct DemoSettings {
    /// How many simulated sensors; the small plant of the demonstration without it.
    pub sensors: Option<Count<100_000>>,
}

/// Section `simulate`: the one sensor of `farol simulate`.
#[derive(Debug, Clone)]
pub struct SimulateSettings {
    /// Its id; `None` plays the demo's sensors.
    pub sensor_id: Option<String>,
    /// Its type.
    pub sensor_type: String,
    /// Time between readings.
    pub sampling_interval: Option<Duration>,
    /// Part of its location.
    pub factory_section: Option<String>,
    /// Part of its location.
    pub machine_id: Option<String>,
    /// Part of its location.
    pub zone: Option<String>,
}

/// Section `telemetry`.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// Filter directives.
    pub log: String,
    /// How lines look.
    pub format: LogFormat,
}

/// What settings are made of.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named on the command line; it must exist. Otherwise `FAROL_CONFIG`, otherwise [`DEFAULT_FILE`] if it is there.
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: BTreeMap<String, String>,
    /// Settings given on the command line.
    pub flags: Vec<Flag>,
    /// What they are for.
    pub role: Role,
}

/// What settings are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Farol itself, which keeps its own log.
    Server,
    /// Anything else.
    #[default]
    Client,
}

impl Settings {
    /// Reads all layers. On success also gives every value that somebody set, for [`listing`].
    pub fn load(sources: Sources) -> Result<(Self, Given), Problems> {
        let keys = schema::keys();
        let mut raw = Raw::new();
        let mut problems = Vec::new();
        match read_file(&sources) {
            Ok(Some((path, text))) => lay_file(&mut raw, &keys, &path, &text, &mut problems),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
        lay_environment(&mut raw, &keys, &sources.environment, &mut problems);
        lay_flags(&mut raw, sources.flags);
        let role = sources.role;
        refuse_unavailable(&keys, &raw, &mut problems);

        let mut resolver = Resolver { keys: &keys, raw: &raw, given: Given::new(), problems };
        let settings = resolver.settings();
        let Resolver { given, mut problems, .. } = resolver;
        settings.check_relations(role, &raw, &mut problems);
        if problems.is_empty() { Ok((settings, given)) } else { Err(Problems(problems)) }
    }

    /// The name of one of the topics of [`schema::TOPICS`].
    pub fn topic(&self, key: &str) -> &str {
        self.topics.iter().find(|topic| topic.key == key).map_or("", |topic| topic.name.as_str())
    }

    /// Brokers of somebody else are nothing to a Farol that is one.
    fn check_brokers(&self, role: Role, origin: &dyn Fn(&str) -> Origin, problems: &mut Vec<Problem>) {
        let kafka = &self.kafka;
        kafka.client.check(kafka.tls_certificate.is_some(), origin, problems);
        let own = match &kafka.listen {
            ListenOrOff::On(listen) => std::slice::from_ref(listen),
            ListenOrOff::Off => &[],
        };
        if role == Role::Server && kafka.client.brokers.as_deref().is_some_and(|brokers| brokers != own) {
            let message = "kafka.brokers: `farol run` keeps its own log and can't use other brokers; remove it, or the readings would go to \
                           another place than you think (it is for `farol worker` and the other clients; where `farol run` listens is kafka.listen)";
            problems.push(Problem::new(origin("kafka.brokers"), message.to_owned()));
        }
        for (one, other) in
            [("kafka.tls_certificate", "kafka.tls_key"), ("kafka.tls_key", "kafka.tls_certificate")]
        {
            let given = |name: &str| !matches!(origin(name), Origin::Default);
            if given(one) && !given(other) {
                problems.push(Problem::new(origin(one), format!("{one}: it needs {other} as well")));
            }
        }
    }

    /// Receivers have names of their own, and routes lead to some of them.
    fn check_receivers(&self, origin: &dyn Fn(&str) -> Origin, problems: &mut Vec<Problem>) {
        let notify = &self.notify;
        let mut names = vec!["log"];
        names.extend(self.webhook.as_ref().map(|_| "webhook"));
        let webhooks = notify.webhooks.iter().map(|webhook| ("notify.webhooks", webhook.name.as_str()));
        let emails = notify.emails.iter().map(|email| ("notify.email", email.name.as_str()));
        for (key, name) in webhooks.chain(emails) {
            if names.contains(&name) {
                let message = format!("{key}: another receiver is called `{name}` too");
                problems.push(Problem::new(origin(key), message));
            }
            names.push(name);
        }
        for name in notify.routes.iter().flat_map(|route| &route.receivers) {
            if name == "log" || !names.contains(&name.as_str()) {
                let shown: Vec<_> = names.iter().filter(|name| **name != "log").copied().collect();
                let known = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
                let message = format!("notify.route: there is no receiver `{name}`; there are: {known}");
                problems.push(Problem::new(origin("notify.route"), message));
            }
        }
        for email in &notify.emails {
            for problem in farol_pipeline::email::address_problems(&email.from, &email.to) {
                let message = format!("notify.email: `{}`: {problem}", email.name);
                problems.push(Problem::new(origin("notify.email"), message));
            }
            if let Some(file) = email.ca.as_ref().filter(|file| !file.is_file()) {
                let message =
                    format!("notify.email: `{}`: there is no file `{}`", email.name, file.display());
                problems.push(Problem::new(origin("notify.email"), message));
            }
        }
    }

    /// What must hold between settings.
    fn check_relations(&self, role: Role, raw: &Raw, problems: &mut Vec<Problem>) {
        let origin = |name: &str| raw.get(name).map_or(Origin::Default, |value| value.origin.clone());
        self.check_brokers(role, &origin, problems);
        if !self.http.listen.is_loopback() && self.http.token.is_none() {
            let message = format!(
                "http.listen: `{}` can be reached from other machines, and no `http.token` is set; set one (FAROL_HTTP_TOKEN), \
                 or listen on 127.0.0.1 behind a proxy that authenticates",
                self.http.listen
            );
            problems.push(Problem::new(origin("http.listen"), message));
        }
        if self.http.token.as_ref().is_some_and(|token| token.len() < MIN_TOKEN_BYTES || !token.is_ascii()) {
            let message = format!(
                "http.token: it must be at least {MIN_TOKEN_BYTES} ASCII characters, for example from `openssl rand -hex 24`"
            );
            problems.push(Problem::new(origin("http.token"), message));
        }
        let users = self.kafka.users.as_deref().unwrap_or_default();
        for (index, user) in users.iter().enumerate() {
            if users.iter().take(index).any(|other| other.name == user.name) {
                let message = format!("kafka.users: there are two users `{}`", user.name);
                problems.push(Problem::new(origin("kafka.users"), message));
            }
        }
        if !self.kafka.listen.is_loopback() && users.is_empty() {
            let message = format!(
                "kafka.listen: `{}` can be reached from other machines, and nobody is asked who he is; set `kafka.users` \
                 (and `kafka.tls_certificate`, `kafka.tls_key`), or listen on 127.0.0.1",
                self.kafka.listen
            );
            problems.push(Problem::new(origin("kafka.listen"), message));
        }
        for (name, size, least, most) in [
            ("kafka.request_limit", self.kafka.request_limit, ByteSize(1 << 20), ByteSize(1 << 30)),
            ("http.body_limit", self.http.body_limit, ByteSize(1 << 10), ByteSize(1 << 30)),
            ("log.segment_size", self.log.segment_size, ByteSize(1 << 20), ByteSize(1 << 30)),
        ] {
            if !(least..=most).contains(&size) {
                problems.push(Problem::new(
                    origin(name),
                    format!("{name}: `{size}` is not from {least} to {most}"),
                ));
            }
        }
        if self.pipeline.services_group == self.pipeline.group {
            let message = "pipeline.services_group: it must be another group than `pipeline.group`";
            problems.push(Problem::new(origin("pipeline.services_group"), message.to_owned()));
        }
        if !SESSION_TIMEOUTS.contains(&self.pipeline.session_timeout) {
            let message = "pipeline.session_timeout: it is not from 1s to 5m";
            problems.push(Problem::new(origin("pipeline.session_timeout"), message.to_owned()));
        }
        if !HOST_INTERVALS.contains(&self.host.interval) {
            let message = "host.interval: it is not from 1s to 1h";
            problems.push(Problem::new(origin("host.interval"), message.to_owned()));
        }
        let bad = |name: &String| {
            name.is_empty() || name.len() > MAX_SERVICE_NAME_BYTES || name.chars().any(char::is_control)
        };
        if self.host.name.as_ref().is_some_and(bad) {
            let message = format!(
                "host.name: it must have 1 to {MAX_SERVICE_NAME_BYTES} bytes and no control characters"
            );
            problems.push(Problem::new(origin("host.name"), message));
        }
        for (name, duration) in [
            ("http.request_timeout", Some(self.http.request_timeout)),
            ("views.stale_after", Some(self.views.stale_after)),
            ("views.keep_readings", self.views.keep_readings),
            ("views.keep_history", Some(self.views.keep_history)),
            ("notify.webhook.timeout", self.webhook.as_ref().map(|webhook| webhook.timeout)),
            ("notify.group_interval", Some(self.notify.group_interval)),
            ("notify.repeat_interval", Some(self.notify.repeat_interval)),
            ("simulate.sampling_interval", self.simulate.sampling_interval),
        ] {
            if duration.is_some_and(|duration| duration.is_zero()) {
                problems.push(Problem::new(origin(name), format!("{name}: it must be longer than nothing")));
            }
        }
        self.check_receivers(&origin, problems);
        for (index, topic) in self.topics.iter().enumerate() {
            let key = format!("topics.{}.name", topic.key);
            let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if topic.name.len() > MAX_TOPIC_NAME_BYTES || !topic.name.chars().all(usual) {
                let message = format!(
                    "{key}: `{}` is not a topic name: letters, digits, `.`, `_` and `-`, at most {MAX_TOPIC_NAME_BYTES}",
                    topic.name
                );
                problems.push(Problem::new(origin(&key), message));
            }
            let told_by_stream = matches!(topic.key, "alerts" | "system-events");
            if told_by_stream
                && topic.partitions.is_some_and(|count| count.get() as usize > MAX_FACT_PARTITIONS)
            {
                let key = format!("topics.{}.partitions", topic.key);
                let message = format!(
                    "{key}: more than {MAX_FACT_PARTITIONS}; each event on /api/stream names its place in every partition of \
                     this topic, so that a browser can go on where it was"
                );
                problems.push(Problem::new(origin(&key), message));
            }
            if self.topics.iter().take(index).any(|other| other.name == topic.name) {
                let message = format!("{key}: another topic is called `{}` too", topic.name);
                problems.push(Problem::new(origin(&key), message));
            }
        }
        for file in &self.rules.files {
            if !file.is_file() {
                let message = format!("rules.files: there is no file `{}`", file.display());
                problems.push(Problem::new(origin("rules.files"), message));
            }
        }
    }
}

/// Kafka's bound.
const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Times between measurements of the machine that make sense.
const HOST_INTERVALS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Shorter ones end with every hiccup, and with longer ones readings wait for nobody.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(300);

/// A shorter token can be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// The settings file and its text, if there is one.
fn read_file(sources: &Sources) -> Result<Option<(PathBuf, String)>, Problem> {
    let variable = sources.environment.get(layers::CONFIG_VARIABLE).filter(|path| !path.is_empty());
    let (path, origin) = match (&sources.file, variable) {
        (Some(path), _) => (path.clone(), Some(Origin::Flag("--config"))),
        (None, Some(path)) => {
            (PathBuf::from(path), Some(Origin::Environment(layers::CONFIG_VARIABLE.to_owned())))
        }
        (None, None) => (PathBuf::from(DEFAULT_FILE), None),
    };
    match (std::fs::read_to_string(&path), origin) {
        (Ok(text), _) => Ok(Some((path, text))),
        (Err(error), None) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        (Err(error), origin) => {
            let message = format!("can't read the settings file `{}`: {error}", path.display());
            Err(Problem::new(origin.unwrap_or(Origin::File { path, line: 1 }), message))
        }
    }
}

fn refuse_unavailable(keys: &[Key], raw: &Raw, problems: &mut Vec<Problem>) {
    for key in keys {
        if let (Some(reason), Some(value)) = (key.unavailable, raw.get(key.name.as_ref())) {
            problems.push(Problem::new(value.origin.clone(), format!("{}: {reason}", key.name)));
        }
    }
}

/// What somebody set: by name, the value as TOML (empty for a secret) and its place.
pub type Given = BTreeMap<String, (String, Origin)>;

/// Reads raw values into types, collecting problems and going on with the default.
struct Resolver<'a> {
    keys: &'a [Key],
    raw: &'a Raw,
    given: Given,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn settings(&mut self) -> Settings {
        let log_sync = self.value("log.sync");
        Settings {
            services: self.optional("services").unwrap_or_default(),
            api_targets: self.value("checks.api_targets"),
            data: DataSettings { dir: self.value("data.dir") },
            http: HttpSettings {
                listen: self.value("http.listen"),
                token: self.optional("http.token"),
                body_limit: self.value("http.body_limit"),
                request_timeout: self.value("http.request_timeout"),
                concurrency: self.value("http.concurrency"),
                connections: self.value("http.connections"),
                streams: self.value("http.streams"),
                allowed_hosts: self.value("http.allowed_hosts"),
            },
            kafka: KafkaSettings {
                listen: self.value("kafka.listen"),
                advertise: self.optional("kafka.advertise"),
                auto_create_topics: self.value("kafka.auto_create_topics"),
                default_partitions: self.value("kafka.default_partitions"),
                connections: self.value("kafka.connections"),
                connections_per_address: self.optional("kafka.connections_per_address"),
                request_limit: self.value("kafka.request_limit"),
                group_members: self.value("kafka.group_members"),
                groups: self.value("kafka.groups"),
                producers: self.value("kafka.producers"),
                users: self.optional("kafka.users"),
                tls_certificate: self.optional("kafka.tls_certificate"),
                tls_key: self.optional("kafka.tls_key"),
                client: KafkaClientSettings {
                    brokers: self.optional("kafka.brokers"),
                    security_protocol: self.optional("kafka.security_protocol"),
                    sasl_mechanism: self.value("kafka.sasl_mechanism"),
                    username: self.optional("kafka.username"),
                    password: self.optional("kafka.password"),
                    password_file: self.optional("kafka.password_file"),
                    ssl_ca_location: self.optional("kafka.ssl_ca_location"),
                },
            },
            log: LogSettings { sync: log_sync, segment_size: self.value("log.segment_size") },
            topics: schema::TOPICS.iter().map(|topic| self.topic(topic, log_sync)).collect(),
            pipeline: PipelineSettings {
                workers: self.value("pipeline.workers"),
                group: self.value("pipeline.group"),
                services_group: self.value("pipeline.services_group"),
                consumer_id: self.value("pipeline.consumer_id"),
                session_timeout: self.value("pipeline.session_timeout"),
            },
            views: ViewSettings {
                stale_after: self.value("views.stale_after"),
                keep_readings: self.optional("views.keep_readings"),
                keep_history: self.value("views.keep_history"),
            },
            host: HostSettings {
                enabled: self.value("host.enabled"),
                interval: self.value("host.interval"),
                name: self.optional("host.name"),
            },
            rules: RulesSettings { files: self.value("rules.files"), defaults: self.value("rules.defaults") },
            notify: self.notify(),
            webhook: self.webhook(),
            demo: DemoSettings { sensors: self.optional("demo.sensors") },
            simulate: SimulateSettings {
                sensor_id: self.optional("simulate.sensor_id"),
                sensor_type: self.value("simulate.sensor_type"),
                sampling_interval: self.optional("simulate.sampling_interval"),
                factory_section: self.optional("simulate.factory_section"),
                machine_id: self.optional("simulate.machine_id"),
                zone: self.optional("simulate.zone"),
            },
            telemetry: TelemetrySettings {
                log: self.value("telemetry.log"),
                format: self.value("telemetry.format"),
            },
        }
    }

    fn topic(&mut self, topic: &schema::TopicDefaults, log_sync: SyncPolicy) -> TopicSettings {
        let key = |key: &str| format!("topics.{}.{key}", topic.name);
        let retained = !topic.retention.is_empty();
        TopicSettings {
            key: topic.name,
            name: topic
                .renamed_by
                .and_then(|_| self.optional(&key("name")))
                .unwrap_or_else(|| topic.name.to_owned()),
            partitions: (!topic.partitions.is_empty()).then(|| self.value(&key("partitions"))),
            retention: retained.then(|| self.value(&key("retention"))),
            retention_size: if retained { self.optional(&key("retention_size")) } else { None },
            sync: self.optional(&key("sync")).unwrap_or(log_sync),
        }
    }

    fn notify(&mut self) -> NotifySettings {
        NotifySettings {
            dashboard: self.optional("notify.dashboard"),
            group_by: self.value("notify.group_by"),
            group_wait: self.value("notify.group_wait"),
            group_interval: self.value("notify.group_interval"),
            repeat_interval: self.value("notify.repeat_interval"),
            emails: self.value("notify.email"),
            webhooks: self.value("notify.webhooks"),
            routes: self.value("notify.route"),
            inhibit: self.optional("notify.inhibit"),
        }
    }

    /// Timeout and attempts are read even without a URL, so that their mistakes are reported.
    fn webhook(&mut self) -> Option<WebhookSettings> {
        let url = self.optional("notify.webhook.url");
        let authorization = self.optional("notify.webhook.authorization");
        let timeout = self.value("notify.webhook.timeout");
        let attempts = self.value("notify.webhook.attempts");
        url.map(|url| WebhookSettings { url, authorization, timeout, attempts })
    }

    /// A setting that has a default.
    fn value<T: SettingValue>(&mut self, name: &str) -> T {
        self.optional(name).unwrap_or_else(|| self.default(name))
    }

    /// A setting that may be absent. A value that can't be read is a problem, and then absent.
    fn optional<T: SettingValue>(&mut self, name: &str) -> Option<T> {
        debug_assert!(self.keys.iter().any(|key| key.name == name), "{name} is not in the schema");
        let Sourced { raw, origin } = self.raw.get(name)?;
        let secret = self.keys.iter().any(|key| key.name == name && key.secret);
        match T::from_raw(raw) {
            Ok(value) => {
                let shown = if secret { String::new() } else { value.to_toml() };
                self.given.insert(name.to_owned(), (shown, origin.clone()));
                Some(value)
            }
            Err(expected) => {
                let shown = if secret { "the value".to_owned() } else { format!("`{raw}`") };
                let message = format!("{name}: {shown} is not {expected}");
                self.problems.push(Problem::new(origin.clone(), message));
                None
            }
        }
    }

    fn default<T: SettingValue>(&self, name: &str) -> T {
        let key = self.keys.iter().find(|key| key.name == name);
        let raw = key.and_then(default_value).and_then(|raw| T::from_raw(&raw).ok());
        raw.expect(
            "the schema has a readable default for every setting that needs one; a test reads them all",
        )
    }
}

/// A key's default as a raw value.
fn default_value(key: &Key) -> Option<RawValue> {
    if key.default.is_empty() {
        return None;
    }
    let mut raw = Raw::new();
    let mut problems = Vec::new();
    let text = format!("{} = {}", key.name, key.default);
    lay_file(&mut raw, std::slice::from_ref(key), Path::new("default"), &text, &mut problems);
    raw.remove(key.name.as_ref()).map(|value| value.raw)
}

#[cfg(test)]
#[path = "settings/tests.rs"]
mod tests;

//! How librdkafka is set up, and where its log lines go.

use std::path::Path;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::access::Trouble;
use super::{KafkaOptions, PRODUCER_QUEUE_KIB};
use crate::engine::{BusError, ConsumerSettings, OffsetReset};

/// How often a consumer learns where its partitions end.
pub(super) const STATISTICS_INTERVAL: Duration = Duration::from_millis(250);
/// The largest record that is handed to librdkafka; the topic's own limit is mostly smaller.
pub(super) const MAX_RECORD_BYTES: usize = 64 * 1024 * 1024;

/// The facility of librdkafka's lines about an id that a producer asked for and didn't get; there is one with every try.
pub(super) const NO_PRODUCER_ID: &str = "GETPID";

/// Sends librdkafka's log lines to the log. Its errors come back from calls, too, so here they are details, but for why a connection
/// failed.
#[derive(Default)]
pub(super) struct Logging {
    pub(super) trouble: Trouble,
}

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.trouble.hint(message);
        }
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        self.trouble.note(&error, reason);
    }
}

impl ConsumerContext for Logging {}

/// A lost connection, and a producer's id that isn't given, are reported by whoever notices what it means, so librdkafka's own words on
/// them are details.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        _ if matches!(facility, "FAIL" | NO_PRODUCER_ID) => tracing::debug!(facility, "{message}"),
        _ if facility == "OFFSET" => {
            tracing::warn!(librdkafka = message, "an offset is not there, and was reset as the settings say");
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
    }
}

/// Runs a call that waits for the network on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, BusError> + Send + 'static,
) -> Result<T, BusError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(done) => done,
        // The runtime is shutting down, or the call panicked, which its own report tells.
        Err(error) => Err(BusError::Unavailable(format!("the call was interrupted: {error}"))),
    }
}

/// A client that only asks. It is told at length why connections fail.
pub(super) fn metadata_client(options: &KafkaOptions) -> Result<BaseConsumer<Logging>, BusError> {
    let mut config = base(options, &options.client_id);
    config.set("isolation.level", "read_committed").set_log_level(RDKafkaLogLevel::Info);
    create(&config, Logging::default())
}

/// A client that says nothing about who it is and takes a certificate for any host name, to see whether the name was at fault.
pub(super) fn any_name_client(options: &KafkaOptions) -> Result<BaseConsumer<Logging>, BusError> {
    let mut config = base(&KafkaOptions { credentials: None, ..options.clone() }, &options.client_id);
    create(config.set("ssl.endpoint.identification.algorithm", "none"), Logging::default())
}

/// A client that asks, and is told of what open transactions wrote, too.
pub(super) fn uncommitted_client(options: &KafkaOptions) -> Result<BaseConsumer<Logging>, BusError> {
    create(base(options, &options.client_id).set("isolation.level", "read_uncommitted"), Logging::default())
}

/// A client that creates, changes and deletes.
pub(super) fn admin_client(options: &KafkaOptions) -> Result<AdminClient<Logging>, BusError> {
    create(&base(options, &options.client_id), Logging::default())
}

/// A client that asks for the offsets of a group without joining it.
pub(super) fn offsets_client(options: &KafkaOptions, group: &str) -> Result<BaseConsumer<Logging>, BusError> {
    let mut config = base(options, &options.client_id);
    config.set("group.id", group).set("enable.auto.commit", "false");
    create(config.set("isolation.level", "read_committed"), Logging::default())
}

/// Settings of a consumer, and of a group's member.
pub(super) fn consumer_config(options: &KafkaOptions, settings: &ConsumerSettings) -> ClientConfig {
    let mut config = base(options, &settings.client_id);
    let session = millis(settings.session_timeout).max(1);
    // Prefetched: enough for the next polls while one is being worked on.
    let ahead = (settings.max_bytes / 1024).saturating_mul(4).clamp(1024, 2_097_151);
    let fetch = settings.max_bytes.clamp(16 * 1024, 1 << 30);
    let reset = match settings.offset_reset {
        OffsetReset::Earliest => "earliest",
        OffsetReset::Latest => "latest",
    };
    // librdkafka needs a group's name even of consumers that join none.
    let group = settings.group.as_deref().unwrap_or("farol-standalone");
    for (key, value) in [
        ("group.id", group.to_owned()),
        ("partition.assignment.strategy", "cooperative-sticky".to_owned()),
        ("session.timeout.ms", session.to_string()),
        ("heartbeat.interval.ms", (session / 10).clamp(50, 3000).to_string()),
        ("max.poll.interval.ms", millis(settings.max_poll_interval).max(session).to_string()),
        ("isolation.level", "read_committed".to_owned()),
        ("enable.auto.commit", "false".to_owned()),
        ("enable.auto.offset.store", "false".to_owned()),
        ("auto.offset.reset", reset.to_owned()),
        ("fetch.message.max.bytes", fetch.to_string()),
        ("queued.max.messages.kbytes", ahead.to_string()),
        // The usual second would be a second's silence whenever a reader has fetched ahead as much as it may.
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("fetch.error.backoff.ms", "100".to_owned()),
        ("statistics.interval.ms", millis(STATISTICS_INTERVAL).to_string()),
    ] {
        config.set(key, value);
    }
    config
}

/// Settings of a producer whose records stand alone.
pub(super) fn producer_config(options: &KafkaOptions, client_id: &str) -> ClientConfig {
    let mut config = base(options, client_id);
    for (key, value) in [
        ("enable.idempotence", "true".to_owned()),
        ("acks", "all".to_owned()),
        ("partitioner", "murmur2_random".to_owned()),
        ("linger.ms", "1".to_owned()),
        ("message.timeout.ms", millis(options.send_limit).to_string()),
        ("message.max.bytes", MAX_RECORD_BYTES.to_string()),
        ("queue.buffering.max.kbytes", PRODUCER_QUEUE_KIB.to_string()),
        ("queue.buffering.max.messages", "1000000".to_owned()),
    ] {
        config.set(key, value);
    }
    config
}

/// Settings of a producer of transactions.
pub(super) fn transactional_config(options: &KafkaOptions, transactional_id: &str) -> ClientConfig {
    let mut config = producer_config(options, transactional_id);
    let limit = millis(options.transaction_limit).to_string();
    config.set("transactional.id", transactional_id);
    config.set("transaction.timeout.ms", &limit).set("message.timeout.ms", &limit);
    // A request may not outlive the transaction that it is for.
    config.set("socket.timeout.ms", &limit);
    config
}

/// Makes a client.
pub(super) fn create<C, T: FromClientConfigAndContext<C>>(
    config: &ClientConfig,
    context: C,
) -> Result<T, BusError>
where
    C: ClientContext,
{
    config
        .create_with_context(context)
        .map_err(|error| BusError::InvalidState(format!("the Kafka client can't be made: {error}")))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).min(86_400_000)
}

fn base(options: &KafkaOptions, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers).set("client.id", client_id);
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "2000");
    config.set("socket.connection.setup.timeout.ms", "5000").set("socket.timeout.ms", "20000");
    config.set("socket.nagle.disable", "true");
    // A broker that comes back under another address is found within this time.
    config.set("topic.metadata.refresh.interval.ms", "30000");
    let protocol = match (&options.tls, &options.credentials) {
        (None, None) => "plaintext",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), None) => "ssl",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &options.tls {
        // OpenSSL is linked in and doesn't know by itself where this system keeps its certificates.
        let ca = tls.ca.as_deref().map_or_else(|| "probe".into(), Path::to_string_lossy);
        config.set("ssl.ca.location", ca);
    }
    if let Some(credentials) = &options.credentials {
        config.set("sasl.mechanism", credentials.mechanism.name());
        config.set("sasl.username", &credentials.username).set("sasl.password", &credentials.password);
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

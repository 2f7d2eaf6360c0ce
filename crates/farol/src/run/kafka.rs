//! The door for Kafka clients: settings become those of the broker's server, with errors that say what to do.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use farol_broker::kafka::{
    Advertised, Credentials, KafkaLimits, KafkaSettings as ServerSettings, KafkaStats, Tls, serve,
};
use farol_bus::embedded::EmbeddedBus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::stops::Stops;
use crate::settings::value::{Count, KafkaUser, ListenOrOff};
use crate::settings::{KafkaSettings, Settings};

/// A running server.
pub struct RunningKafka {
    /// Where it listens.
    pub address: SocketAddr,
    /// It in numbers.
    pub numbers: Arc<dyn Fn() -> KafkaStats + Send + Sync>,
}

/// Starts the server, if it is to be there.
pub async fn start(
    settings: &Settings,
    bus: &Arc<EmbeddedBus>,
    stops: &mut Stops,
) -> anyhow::Result<Option<RunningKafka>> {
    const ADVICE: &str =
        "choose another with --kafka-listen (setting kafka.listen, FAROL_KAFKA_LISTEN), or `off` for none";
    let ListenOrOff::On(listen) = &settings.kafka.listen else { return Ok(None) };
    let address = listen.resolve().with_context(|| format!("`{listen}` has no address"))?;
    let server_settings = server_settings(settings)?;
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use by another program, perhaps a Kafka broker\n  stop that one, or {ADVICE}"
        ),
        _ => anyhow::anyhow!("can't listen on {address}: {error}\n  {ADVICE}"),
    })?;
    let stop = CancellationToken::new();
    let handle = serve(bus.broker().clone(), server_settings, listener, stop.clone())
        .with_context(|| format!("can't serve Kafka clients on {address}"))?;
    let running = RunningKafka { address: handle.local_addr(), numbers: Arc::new(handle.numbers()) };
    stops.push("Kafka", async move {
        stop.cancel();
        match handle.join().await {
            0 => Vec::new(),
            cut_off => vec![format!("{cut_off} connections were cut off with requests under way")],
        }
    });
    Ok(Some(running))
}

fn server_settings(settings: &Settings) -> anyhow::Result<ServerSettings> {
    let kafka = &settings.kafka;
    let connections = kafka.connections.get();
    let per_address = kafka.connections_per_address.map_or(connections.div_ceil(2), Count::get);
    let limits = KafkaLimits {
        connections: usize::try_from(connections)?,
        connections_per_address: usize::try_from(per_address)?,
        request_bytes: usize::try_from(kafka.request_limit.0)?,
        ..KafkaLimits::default()
    };
    let advertise = kafka.advertise.as_ref().map(|address| Advertised {
        host: address.host.clone(),
        port: (address.port != 0).then_some(address.port),
    });
    Ok(ServerSettings {
        advertise,
        auto_create_topics: kafka.auto_create_topics,
        default_partitions: Some(i32::try_from(kafka.default_partitions.get())?),
        managed_topics: settings.topics.iter().map(|topic| topic.name.clone()).collect(),
        users: kafka.users.iter().flatten().map(credentials).collect::<Result<_, _>>()?,
        tls: tls(kafka)?,
        limits,
    })
}

fn credentials(user: &KafkaUser) -> anyhow::Result<(String, Credentials)> {
    let credentials = Credentials::parse(&user.password)
        .with_context(|| format!("the password of user `{}` in kafka.users can't be used", user.name))?;
    Ok((user.name.clone(), credentials))
}

fn tls(kafka: &KafkaSettings) -> anyhow::Result<Option<Tls>> {
    let (Some(certificate), Some(key)) = (&kafka.tls_certificate, &kafka.tls_key) else { return Ok(None) };
    let read = |path: &Path, name: &str| {
        std::fs::read(path).with_context(|| format!("can't read {} ({name})", path.display()))
    };
    let (certificate, key) = (read(certificate, "kafka.tls_certificate")?, read(key, "kafka.tls_key")?);
    let tls = Tls::from_pem(&certificate, &key);
    tls.map(Some).context("kafka.tls_certificate and kafka.tls_key can't be used")
}

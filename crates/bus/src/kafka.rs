//! The Kafka engine behind the bus traits: librdkafka (through `rdkafka`), against Farol's own Kafka port or an Apache Kafka.
//!
//! # What holds
//!
//! * Producers are idempotent and wait for `acks=all`; keys land where Kafka's clients, and Farol, put them (murmur2).
//! * Consumers read committed records only. Members use `cooperative-sticky`: what a member keeps in a rebalance it
//!   goes on reading. A revocation is given to the poller and answered to the group by the poll after it, so offsets
//!   can still be committed in between.
//! * librdkafka is polled when the consumer is polled, and not otherwise: somebody who stops polling is thrown out of the group.
//! * Calls of librdkafka that wait for the network run on the runtime's blocking threads.
//! * A poll that is dropped loses nothing: what it had begun is finished and given by the next one.
//! * Memory is bounded: [`PRODUCER_QUEUE_KIB`] for what waits to be sent, four times a poll's bytes for what was fetched ahead.
//!
//! # What Kafka doesn't tell
//!
//! Other clients' rebalances, a group's generation, and (to users of librdkafka) the member's own id. [`crate::GroupMetadata`] therefore
//! carries librdkafka's own proof of membership. Between its reading and its use the membership may be lost; librdkafka then holds
//! a proof of nobody, which a coordinator would take for an old client that is in no group. So the engine asks once more whether
//! the assignment is lost, right before it sends offsets, and refuses with [`BusError::Fenced`] if it is.
//!
//! # What is not there
//!
//! Client certificates, Kerberos and OAuth; of group protocols, only the classic one (not KIP-848).
//!
//! # Who is there
//!
//! Connections are by TLS if the options say whom to trust ([`Tls`]); the broker's certificate and its name are always checked. The
//! client says who it is by SASL, with PLAIN or SCRAM ([`Credentials`]). librdkafka does both, on OpenSSL (docs/decisions/0006).
//!
//! # Failures
//!
//! [`BusError::Unreachable`] or [`BusError::Unavailable`] while no broker answers; librdkafka connects again by itself.
//! [`BusError::NoAccess`] where one is there but its certificate or this client's password won't do. A consumer says so
//! once each time that it loses its last broker. Other calls wait for one that may come back, each for its own time, and name what
//! they were about: whether anybody answers at all is asked by [`Bus::check`]. A producer with a fatal error is replaced at the next send; a transactional one must be replaced
//! by its user. An offset that is gone is reset as the settings say, and logged. That a topic was deleted and made again is
//! noticed by an offset that isn't there; once it has more records than were read of the one before, reading goes on among them.
//!
//! Modules, in reading order: `client` (settings of librdkafka, what it logs), `access` (why a broker can't be used), `consumer`, `producer`, `transaction`,
//! `admin`, `creation` (of topics, with the broker's words where it refuses), `members` (what members own, as the group's leader encoded it), `error`.

mod access;
mod admin;
mod client;
mod consumer;
mod creation;
mod error;
mod members;
mod producer;
mod transaction;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farol_broker::RebalanceRecord;
use rdkafka::Offset;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use tokio::sync::broadcast;

use crate::engine::{
    Bus, BusError, Consumer, ConsumerSettings, GroupDescription, OffsetSpec, Producer, TopicDescription,
    TopicSpec, TransactionalProducer,
};
use crate::record::TopicPartition;
use client::{Logging, blocking};
use consumer::KafkaConsumer;
pub use consumer::MemberProof;
use error::bus_error;
use producer::{KafkaProducer, KnownTopics, Patience};
use transaction::KafkaTransactionalProducer;

/// How long one request to the cluster may take, reconnecting included.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a sent record may wait for its acknowledgement before the send is given up, unless [`KafkaOptions::send_limit`] says otherwise.
pub const SEND_LIMIT: Duration = Duration::from_secs(30);
/// A transaction that is open for longer is aborted by the coordinator, which bounds how long a dead producer's holds readers up; unless
/// [`KafkaOptions::transaction_limit`] says otherwise.
pub const TRANSACTION_LIMIT: Duration = Duration::from_secs(10);
/// What may wait to be sent, per producer.
pub const PRODUCER_QUEUE_KIB: usize = 32 * 1024;
/// How many own rebalances a slow receiver may be behind.
const REBALANCES_KEPT: usize = 64;

/// Which cluster, and who asks.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// `host:port` of one or more brokers, with commas between.
    pub brokers: String,
    /// The client id of everything that isn't a named producer or consumer.
    pub client_id: String,
    /// Whom to trust; connections are not by TLS without it.
    pub tls: Option<Tls>,
    /// Who this client is; it says nothing about itself without them.
    pub credentials: Option<Credentials>,
    /// How long a sent record may wait for its acknowledgement before the send is given up.
    pub send_limit: Duration,
    /// How long a transaction may be open.
    pub transaction_limit: Duration,
}

/// Whom to trust where connections are by TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file with the certificates that may vouch for a broker's; the system's without it.
    pub ca: Option<PathBuf>,
}

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// By sending its password, which whoever reads along then knows, unless it is over TLS.
    Plain,
    /// By proving that it knows the password, with SHA-256.
    ScramSha256,
    /// The same with SHA-512.
    ScramSha512,
}

/// User and password, and how they are proven.
#[derive(Clone)]
pub struct Credentials {
    /// The SASL mechanism.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The password.
    pub password: String,
}

/// The Kafka engine.
pub struct KafkaBus {
    options: KafkaOptions,
    /// Asks for metadata and offsets; in no group.
    client: Arc<BaseConsumer<Logging>>,
    admin: Arc<AdminClient<Logging>>,
    rebalances: broadcast::Sender<RebalanceRecord>,
}

impl KafkaOptions {
    /// A cluster without TLS and authentication.
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: client_id.into(),
            tls: None,
            credentials: None,
            send_limit: SEND_LIMIT,
            transaction_limit: TRANSACTION_LIMIT,
        }
    }
}

impl Mechanism {
    /// Its name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl KafkaBus {
    /// Makes the clients. Nothing is connected until something is asked; [`Bus::check`] asks.
    ///
    /// # Errors
    /// [`BusError::InvalidState`] if the options can't be used.
    pub fn new(options: KafkaOptions) -> Result<Arc<Self>, BusError> {
        let client = client::metadata_client(&options)?;
        let admin = Arc::new(client::admin_client(&options)?);
        let (rebalances, _) = broadcast::channel(REBALANCES_KEPT);
        Ok(Arc::new(Self { options, client: Arc::new(client), admin, rebalances }))
    }

    /// Whether a topic of this name is the brokers' own: it is not listed, and holds nothing for others.
    pub fn is_internal(topic: &str) -> bool {
        admin::is_internal(topic)
    }

    /// The cluster that is asked.
    pub fn brokers(&self) -> &str {
        &self.options.brokers
    }

    /// The ends of partitions, with what open transactions have written; [`Bus::offsets`] gives what is committed.
    ///
    /// # Errors
    /// [`BusError::UnknownTopicOrPartition`], or that the cluster can't be reached.
    pub async fn written_ends(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        let (options, partitions) = (self.options.clone(), partitions.to_vec());
        blocking(move || {
            let asking = client::uncommitted_client(&options)?;
            admin::offsets(&asking, &partitions, OffsetSpec::Latest)
        })
        .await
    }

    /// Whether the broker that is asked knows a topic. One that has just started, or has not yet heard of a new topic, may say no.
    ///
    /// # Errors
    /// When none answers within `limit`.
    pub async fn has_topic(&self, topic: &str, limit: Duration) -> Result<bool, BusError> {
        let (client, topic) = (Arc::clone(&self.client), topic.to_owned());
        blocking(move || admin::has_topic(&client, &topic, limit)).await
    }

    /// Commits offsets for a group that has no members.
    ///
    /// # Errors
    /// [`BusError::Fenced`] if it has some, or that the cluster can't be reached.
    pub async fn reset_group(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), BusError> {
        let (options, group, offsets) = (self.options.clone(), group.to_owned(), offsets.clone());
        blocking(move || {
            let asking = client::offsets_client(&options, &group)?;
            let offsets = offsets.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset)));
            let list = admin::list(offsets)?;
            let committed = asking.commit(&list, CommitMode::Sync);
            committed.map_err(|error| bus_error(&error, &format!("group {group}")))
        })
        .await
    }

    fn known_topics(&self) -> KnownTopics {
        KnownTopics::new(Arc::clone(&self.client), Arc::clone(&self.admin))
    }

    /// A producer for one piece of work, of no use after the first send that fails. What the broker refuses for the time being, because of
    /// a full disk mostly, it gives up soon and with the reason ([`BusError::Poisoned`]); those of [`Bus::producer`] try for as long as they
    /// may.
    ///
    /// # Errors
    /// [`BusError::InvalidState`] if the options can't be used.
    pub fn producer_for_once(&self, client_id: &str) -> Result<Arc<dyn Producer>, BusError> {
        let topics = self.known_topics();
        Ok(Arc::new(KafkaProducer::new(&self.options, client_id, Patience::Short, topics)?))
    }

    /// Deletes a topic with everything in it.
    ///
    /// # Errors
    /// [`BusError::UnknownTopicOrPartition`], or that the cluster refuses or can't be reached.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), BusError> {
        admin::delete_topic(&self.admin, topic).await
    }

    /// Deletes a group without members, and the offsets that it has committed.
    ///
    /// # Errors
    /// [`BusError::InvalidState`] if the group has members or there is none of that name, or that the cluster can't be reached.
    pub async fn delete_group(&self, group: &str) -> Result<(), BusError> {
        admin::delete_group(&self.admin, group).await
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn check(&self, limit: Duration) -> Result<(), BusError> {
        let (options, client) = (self.options.clone(), Arc::clone(&self.client));
        blocking(move || access::check(&options, &client, limit)).await
    }

    async fn create_topic(&self, spec: TopicSpec) -> Result<(), BusError> {
        admin::create_topic(&self.admin, &self.client, spec).await
    }

    async fn configure_topic(&self, topic: &str, config: BTreeMap<String, String>) -> Result<(), BusError> {
        admin::configure_topic(&self.admin, &self.client, topic, &config).await
    }

    async fn grow_topic(&self, topic: &str, partitions: i32) -> Result<(), BusError> {
        admin::grow_topic(&self.admin, &self.client, topic, partitions).await
    }

    async fn topics(&self) -> Result<Vec<TopicDescription>, BusError> {
        admin::topics(&self.admin, &self.client).await
    }

    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        let (client, partitions) = (Arc::clone(&self.client), partitions.to_vec());
        blocking(move || admin::offsets(client.as_ref(), &partitions, spec)).await
    }

    async fn producer(&self, client_id: &str) -> Result<Arc<dyn Producer>, BusError> {
        let topics = self.known_topics();
        Ok(Arc::new(KafkaProducer::new(&self.options, client_id, Patience::Whole, topics)?))
    }

    async fn transactional_producer(
        &self,
        transactional_id: &str,
    ) -> Result<Box<dyn TransactionalProducer>, BusError> {
        let (options, id, topics) = (self.options.clone(), transactional_id.to_owned(), self.known_topics());
        let producer = blocking(move || KafkaTransactionalProducer::open(&options, &id, topics)).await?;
        Ok(Box::new(producer))
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, BusError> {
        Ok(Box::new(KafkaConsumer::new(&self.options, settings, self.rebalances.clone())?))
    }

    async fn groups(&self) -> Result<Vec<GroupDescription>, BusError> {
        let client = Arc::clone(&self.client);
        blocking(move || {
            let list = client.client().fetch_group_list(None, CALL_LIMIT);
            list.map(|list| members::describe(&list)).map_err(|error| bus_error(&error, "the groups"))
        })
        .await
    }

    async fn committed(&self, group: &str) -> Result<BTreeMap<TopicPartition, i64>, BusError> {
        let (options, client, group) = (self.options.clone(), Arc::clone(&self.client), group.to_owned());
        blocking(move || {
            let asking = client::offsets_client(&options, &group)?;
            admin::committed(&client, &asking)
        })
        .await
    }

    fn rebalances(&self) -> broadcast::Receiver<RebalanceRecord> {
        self.rebalances.subscribe()
    }
}

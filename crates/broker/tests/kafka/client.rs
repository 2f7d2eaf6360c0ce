//! A server under test, and a client that says exactly what it is told.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use farol_broker::kafka::{KafkaHandle, KafkaLimits, KafkaSettings, serve};
use farol_broker::{Broker, BrokerOptions};
use farol_log::fs::fault::FaultFileSystem;
use farol_log::{BatchBuilder, Compression};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{FetchRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// How long anything may take. Generous, because test machines are busy.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, and fails the test with `what` when it doesn't.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A running server on a broker of its own.
pub struct Server {
    pub broker: Broker,
    pub address: SocketAddr,
    pub handle: KafkaHandle,
    pub stop: CancellationToken,
    _folder: TempDir,
}

impl Server {
    /// One with topic `t`, which has three partitions.
    pub async fn start() -> Self {
        Self::start_with(KafkaSettings::default()).await
    }

    pub async fn start_with(settings: KafkaSettings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start_on(BrokerOptions::new(folder.path()), settings, folder).await
    }

    /// On a disk that can be filled and emptied.
    pub async fn start_on_disk(file_system: &FaultFileSystem) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = BrokerOptions::new(folder.path());
        options.log.file_system = Arc::new(file_system.clone());
        Self::start_on(options, KafkaSettings::default(), folder).await
    }

    async fn start_on(options: BrokerOptions, settings: KafkaSettings, folder: TempDir) -> Self {
        let (broker, _) = Broker::open(options).unwrap();
        broker.create_topic("t", 3, BTreeMap::new()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let handle = serve(broker.clone(), settings, listener, stop.clone()).unwrap();
        Self { broker, address: handle.local_addr(), handle, stop, _folder: folder }
    }

    pub async fn start_limited(limits: KafkaLimits) -> Self {
        Self::start_with(KafkaSettings { limits, ..KafkaSettings::default() }).await
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    pub fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.broker.create_topic(name, partitions, config).unwrap();
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, next_correlation_id: 1 }
    }

    /// Sends a request and gives its correlation id.
    pub async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> i32 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = frame(version, correlation_id, request);
        self.stream.write_all(&frame).await.unwrap();
        correlation_id
    }

    /// The next frame, or `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let length = tokio::time::timeout(SOON, self.stream.read_i32()).await.expect("an answer in time");
        let mut frame = vec![0; usize::try_from(length.ok()?).unwrap()];
        tokio::time::timeout(SOON, self.stream.read_exact(&mut frame)).await.expect("in time").ok()?;
        Some(frame.into())
    }

    /// The answer to a request, which must fill its frame.
    pub async fn receive<R: Decodable + HeaderVersion>(&mut self, version: i16, correlation_id: i32) -> R {
        let mut frame = self.frame().await.expect("the connection is open");
        let header = ResponseHeader::decode(&mut frame, R::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation_id);
        let response = R::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{} bytes follow the answer of version {version}", frame.len());
        response
    }

    pub async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        let correlation_id = self.send(version, request).await;
        self.receive(version, correlation_id).await
    }

    /// Sends a batch to a partition of `t` and gives what came of it.
    pub async fn produce(&mut self, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
        let response = self.call(9, &produce_request(topic, partition, records)).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// Reads one partition of a topic from an offset on, without waiting.
    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let response: FetchResponse = self.call(12, &fetch_request(topic, partition, offset)).await;
        assert_eq!(response.error_code, 0);
        response.responses[0].partitions[0].clone()
    }

    /// Whether the server ends the connection, rather than saying anything.
    pub async fn is_closed(&mut self) -> bool {
        self.frame().await.is_none()
    }
}

/// A request as it goes over the wire.
pub fn frame<Q: Request>(version: i16, correlation_id: i32, request: &Q) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")));
    let mut content = BytesMut::new();
    header.encode(&mut content, Q::header_version(version)).unwrap();
    request.encode(&mut content, version).unwrap();
    let mut frame = BytesMut::from(&i32::try_from(content.len()).unwrap().to_be_bytes()[..]);
    frame.extend_from_slice(&content);
    frame.freeze()
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// One batch to one partition, to be acknowledged.
pub fn produce_request(topic: &str, partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![topic])
}

/// One partition, whatever it has, at once.
pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(1 << 24).with_min_bytes(0).with_topics(vec![topic])
}

/// A batch with these values; their keys are `k`.
pub fn batch(compression: Compression, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for value in values {
        builder.push(Some(b"k"), Some(value.as_bytes()), &[], 1_700_000_000_000).unwrap();
    }
    builder.build().unwrap().bytes().clone()
}

/// The values in what a fetch gave.
pub fn values(records: Option<&Bytes>) -> Vec<String> {
    let mut values = Vec::new();
    for batch in farol_log::Batches::new(records.cloned().unwrap_or_default()) {
        for record in batch.unwrap().records().unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

/// Fails if `future` takes longer than anything may.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("in time")
}

//! Why the brokers refuse a change, in their own words. librdkafka's binding for Rust gives the code of a refusal and keeps the sentence
//! to itself, so after a refusal the same is asked once more over a connection of its own.
//!
//! Only Kafka's protocol as far as that takes, in plain text: SASL PLAIN, `CreateTopics` (version 5, to be checked only), `DeleteTopics` (version 5).
//! Any broker does: those that aren't the controller pass the request on.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest,
    SaslHandshakeRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{KafkaOptions, Mechanism};
use crate::engine::TopicSpec;

/// How long one broker may take. The refusal is known; only its reason is waited for.
const LIMIT: Duration = Duration::from_secs(3);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// The first version of each whose answer has a sentence.
const CREATE_VERSION: i16 = 5;
const DELETE_VERSION: i16 = 5;
const SASL_VERSION: i16 = 1;
const CORRELATION_ID: i32 = 1;

/// Why this topic can't be made; `None` if nobody says.
pub(super) async fn of_creation(options: &KafkaOptions, spec: &TopicSpec) -> Option<String> {
    let config = |(key, value): (&String, &String)| {
        CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(&spec.name)))
        .with_num_partitions(spec.partitions)
        .with_replication_factor(-1)
        .with_configs(spec.config.iter().map(config).collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_validate_only(true)
        .with_timeout_ms(millis());
    let answer = ask(options, CREATE_VERSION, &request).await?;
    sentence(answer.topics.into_iter().next()?.error_message)
}

/// What deleting this topic once more gives: `None` if nobody says, otherwise the reason against it, or that it is gone now.
pub(super) async fn of_deletion(options: &KafkaOptions, topic: &str) -> Option<Result<(), String>> {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![TopicName(text(topic))])
        .with_timeout_ms(millis());
    let answer = ask(options, DELETE_VERSION, &request).await?.responses.into_iter().next()?;
    if answer.error_code == 0 { Some(Ok(())) } else { sentence(answer.error_message).map(Err) }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn millis() -> i32 {
    i32::try_from(LIMIT.as_millis()).unwrap_or(i32::MAX)
}

fn sentence(message: Option<StrBytes>) -> Option<String> {
    message.map(|message| message.to_string()).filter(|message| !message.is_empty())
}

/// The answer of the first broker that gives one. Nobody is asked where it would take TLS or SCRAM: the password goes nowhere in plain text
/// that librdkafka wouldn't have sent so.
async fn ask<Q: Request>(options: &KafkaOptions, version: i16, request: &Q) -> Option<Q::Response> {
    let mechanism = options.credentials.as_ref().map(|credentials| credentials.mechanism);
    if options.tls.is_some() || mechanism.is_some_and(|mechanism| mechanism != Mechanism::Plain) {
        return None;
    }
    for broker in options.brokers.split(',').map(str::trim) {
        match tokio::time::timeout(LIMIT, conversation(options, broker, version, request)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(broker, %error, "the reason of a refusal is not known"),
            Err(_) => tracing::debug!(broker, "the reason of a refusal was not given in time"),
        }
    }
    None
}

async fn conversation<Q: Request>(
    options: &KafkaOptions,
    broker: &str,
    version: i16,
    request: &Q,
) -> io::Result<Q::Response> {
    let mut connection = TcpStream::connect(broker).await?;
    if let Some(credentials) = &options.credentials {
        let plain = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        call(&mut connection, SASL_VERSION, &plain).await?;
        let token = format!("\0{}\0{}", credentials.username, credentials.password);
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
        if call(&mut connection, SASL_VERSION, &request).await?.error_code != 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    call(&mut connection, version, request).await
}

async fn call<Q: Request>(connection: &mut TcpStream, version: i16, request: &Q) -> io::Result<Q::Response> {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(CORRELATION_ID)
        .with_client_id(Some(StrBytes::from_static_str("farol")));
    let mut content = BytesMut::new();
    header.encode(&mut content, Q::header_version(version)).map_err(invalid)?;
    request.encode(&mut content, version).map_err(invalid)?;
    connection.write_i32(i32::try_from(content.len()).map_err(invalid)?).await?;
    connection.write_all(&content).await?;
    let length = usize::try_from(connection.read_i32().await?).map_err(invalid)?;
    if length > MAX_ANSWER_BYTES {
        return Err(invalid(format!("an answer of {length} bytes")));
    }
    let mut answer = vec![0; length];
    connection.read_exact(&mut answer).await?;
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, Q::Response::header_version(version)).map_err(invalid)?;
    Q::Response::decode(&mut answer, version).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

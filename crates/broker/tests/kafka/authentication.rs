//! Who may connect: SASL, and TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use farol_broker::kafka::{Credentials, KafkaLimits, KafkaSettings, Tls};
use farol_log::{Batch, BatchLimits, Compression};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchResponse, MetadataRequest, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use ring::{digest, hmac, pbkdf2};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::{Client, Server, batch, fetch_request, frame, soon, values};

const CERTIFICATE: &[u8] = include_bytes!("data/localhost.crt");
const KEY: &[u8] = include_bytes!("data/localhost.key");

fn with_users() -> KafkaSettings {
    let users = vec![("farol".to_owned(), Credentials::of_password("a long password"))];
    KafkaSettings { users, ..KafkaSettings::default() }
}

async fn choose(client: &mut Client, mechanism: &'static str) -> i16 {
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    client.call(1, &request).await.error_code
}

async fn say(client: &mut Client, version: i16, token: &[u8]) -> SaslAuthenticateResponse {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(token));
    client.call(version, &request).await
}

#[tokio::test]
async fn before_it_has_said_who_it_is_a_client_is_served_nothing_else() {
    let server = Server::start_with(with_users()).await;
    let mut client = server.client().await;
    let served = client.call(3, &api_versions()).await;
    assert_eq!(served.error_code, 0);
    let handshake = served.api_keys.iter().find(|api| api.api_key == 17).unwrap();
    // librdkafka up to 2.0 asks for no version without version 0.
    assert_eq!((handshake.min_version, handshake.max_version), (0, 1));
    client.send(9, &MetadataRequest::default()).await;
    assert!(client.is_closed().await);

    let mut client = server.client().await;
    let large = vec![0u8; 100_000];
    client.stream.write_all(&100_000i32.to_be_bytes()).await.unwrap();
    // The server may have ended the connection before all of it is sent.
    let _ = client.stream.write_all(&large).await;
    assert!(client.is_closed().await, "a large request of nobody");
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

#[tokio::test]
async fn plain_lets_the_right_password_in_in_every_version() {
    let server = Server::start_with(with_users()).await;
    for version in 0..=2 {
        let mut client = server.client().await;
        assert_eq!(choose(&mut client, "PLAIN").await, 0);
        assert_eq!(say(&mut client, version, b"\0farol\0a long password").await.error_code, 0);
        assert!(!client.call(9, &MetadataRequest::default().with_topics(None)).await.topics.is_empty());
        let again = say(&mut client, version, b"\0farol\0a long password").await;
        assert_eq!(again.error_code, ResponseError::IllegalSaslState.code());
    }
}

#[tokio::test]
async fn whoever_is_refused_learns_no_more_and_loses_the_connection() {
    let server = Server::start_with(with_users()).await;
    let mut messages = Vec::new();
    for token in [&b"\0farol\0wrong"[..], b"\0nobody\0a long password", b"rubbish", &[b'x'; 10_000]] {
        let mut client = server.client().await;
        assert_eq!(choose(&mut client, "PLAIN").await, 0);
        let began = Instant::now();
        let refused = say(&mut client, 2, token).await;
        assert!(began.elapsed() >= Duration::from_millis(100));
        assert_eq!(refused.error_code, ResponseError::SaslAuthenticationFailed.code());
        messages.push(refused.error_message);
        assert!(client.is_closed().await);
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "all read the same");
    assert_eq!(server.handle.numbers()().authentications_refused, 4);
}

#[tokio::test]
async fn mechanisms_that_are_not_served_are_refused_with_those_that_are() {
    let server = Server::start_with(with_users()).await;
    let mut client = server.client().await;
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("GSSAPI"));
    let response = client.call(1, &request).await;
    assert_eq!(response.error_code, ResponseError::UnsupportedSaslMechanism.code());
    let names: Vec<&str> = response.mechanisms.iter().map(|name| &**name).collect();
    assert_eq!(names, ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]);
    let early = say(&mut client, 2, b"\0farol\0a long password").await;
    assert_eq!(early.error_code, ResponseError::IllegalSaslState.code());
    assert_eq!(choose(&mut client, "SCRAM-SHA-512").await, 0, "another try is allowed");
}

/// How tokens go over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// In SaslAuthenticate, after a SaslHandshake of version 1.
    Requests,
    /// As frames of their own, after one of version 0.
    Bare,
}

impl Tokens {
    async fn choose(self, client: &mut Client, mechanism: &'static str) {
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let version = if self == Self::Bare { 0 } else { 1 };
        assert_eq!(client.call(version, &request).await.error_code, 0);
    }

    /// The server's token; `None` if it says that the client is nobody, or ends the connection where it can't say so.
    async fn say(self, client: &mut Client, token: &[u8]) -> Option<Bytes> {
        if self == Self::Bare {
            client.stream.write_all(&i32::try_from(token.len()).unwrap().to_be_bytes()).await.unwrap();
            client.stream.write_all(token).await.unwrap();
            return client.frame().await;
        }
        let answer = say(client, 2, token).await;
        if answer.error_code != 0 {
            assert_eq!(answer.error_code, ResponseError::SaslAuthenticationFailed.code());
            return None;
        }
        Some(answer.auth_bytes)
    }
}

/// Says who it is as RFC 5802 wants it. False if the server says that it is not.
async fn scram(
    client: &mut Client,
    tokens: Tokens,
    mechanism: &'static str,
    user: &str,
    password: &str,
) -> bool {
    let (derive, sign, hash) = if mechanism == "SCRAM-SHA-256" {
        (pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, &digest::SHA256)
    } else {
        (pbkdf2::PBKDF2_HMAC_SHA512, hmac::HMAC_SHA512, &digest::SHA512)
    };
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(sign, key), text);
    tokens.choose(client, mechanism).await;
    let bare = format!("n={user},r=clientnonce");
    let first = tokens.say(client, format!("n,,{bare}").as_bytes()).await.expect("a challenge for everybody");
    let first = String::from_utf8(first.to_vec()).unwrap();
    let field = |name: &str| first.split(',').find_map(|field| field.strip_prefix(name)).unwrap();
    let mut salted = vec![0; hash.output_len()];
    let salt = BASE64.decode(field("s=")).unwrap();
    pbkdf2::derive(derive, field("i=").parse().unwrap(), &salt, password.as_bytes(), &mut salted);
    let client_key = sign(&salted, b"Client Key");
    let stored_key = digest::digest(hash, client_key.as_ref());
    let without_proof = format!("c=biws,r={}", field("r="));
    let signed = format!("{bare},{first},{without_proof}");
    let signature = sign(stored_key.as_ref(), signed.as_bytes());
    let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    let last = format!("{without_proof},p={}", BASE64.encode(proof));
    let Some(answer) = tokens.say(client, last.as_bytes()).await else { return false };
    let expected = BASE64.encode(sign(sign(&salted, b"Server Key").as_ref(), signed.as_bytes()));
    assert_eq!(answer, format!("v={expected}"), "the server proves itself, too");
    true
}

#[tokio::test]
async fn scram_proves_both_to_each_other() {
    let server = Server::start_with(with_users()).await;
    for tokens in [Tokens::Requests, Tokens::Bare] {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let mut client = server.client().await;
            assert!(scram(&mut client, tokens, mechanism, "farol", "a long password").await);
            assert!(!client.call(9, &MetadataRequest::default().with_topics(None)).await.topics.is_empty());
            for (user, password) in [("farol", "wrong"), ("nobody", "a long password")] {
                let mut client = server.client().await;
                assert!(!scram(&mut client, tokens, mechanism, user, password).await, "{user}");
                assert!(client.is_closed().await);
            }
        }
    }
    assert_eq!(server.handle.numbers()().authentications_refused, 8);
}

#[tokio::test]
async fn clients_from_before_sasl_authenticate_send_their_tokens_bare() {
    let server = Server::start_with(with_users()).await;
    let mut client = server.client().await;
    Tokens::Bare.choose(&mut client, "PLAIN").await;
    let empty = Tokens::Bare.say(&mut client, b"\0farol\0a long password").await;
    assert_eq!(empty, Some(Bytes::new()));
    assert!(!client.call(9, &MetadataRequest::default().with_topics(None)).await.topics.is_empty());

    // What follows the handshake is a token, whatever it looks like.
    let request = frame(9, 7, &MetadataRequest::default());
    for token in [&b"\0farol\0wrong password"[..], &request[4..], &[b'x'; 10_000]] {
        let mut client = server.client().await;
        Tokens::Bare.choose(&mut client, "PLAIN").await;
        let began = Instant::now();
        assert_eq!(Tokens::Bare.say(&mut client, token).await, None);
        assert!(began.elapsed() >= Duration::from_millis(100), "a refusal takes its time");
    }
    assert_eq!(server.handle.numbers()().authentications_refused, 3);
}

/// A server behind TLS, and a client that has asked it for its versions.
async fn by_tls(settings: KafkaSettings) -> (Server, TlsStream<TcpStream>) {
    let tls = Some(Tls::from_pem(CERTIFICATE, KEY).unwrap());
    let limits = KafkaLimits { transfer: Duration::from_secs(1), ..KafkaLimits::default() };
    let server = Server::start_with(KafkaSettings { tls, limits, ..settings }).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(&frame(0, 1, &ApiVersionsRequest::default())).await.unwrap();
    let length = soon(stream.read_i32()).await.unwrap();
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    let mut answer = Bytes::from(answer);
    assert_eq!(ResponseHeader::decode(&mut answer, 0).unwrap().correlation_id, 1);
    assert_eq!(ApiVersionsResponse::decode(&mut answer, 0).unwrap().error_code, 0);
    (server, stream)
}

#[tokio::test]
async fn connections_are_by_tls_only_when_there_is_a_certificate() {
    let (server, _stream) = by_tls(with_users()).await;
    let mut plain = server.client().await;
    plain.send(0, &ApiVersionsRequest::default()).await;
    // What comes back, if anything, is TLS's own alert.
    let mut rest = Vec::new();
    let _ = soon(plain.stream.read_to_end(&mut rest)).await;
    assert!(rest.len() < 16, "{rest:?}");
}

#[tokio::test]
async fn much_that_is_waiting_comes_whole_through_tls() {
    let (server, mut stream) = by_tls(KafkaSettings::default()).await;
    let partition = server.broker.topic("t").unwrap().partition(0).unwrap().clone();
    let expected: Vec<String> = (0..300).map(|n| format!("{n}{}", "x".repeat(1_000))).collect();
    for value in &expected {
        let batch = Batch::validate(batch(Compression::None, &[value]), &BatchLimits::default()).unwrap();
        server.broker.append(vec![(partition.clone(), batch)]).await.unwrap();
    }
    stream.write_all(&frame(12, 2, &fetch_request("t", 0, 0))).await.unwrap();
    let length = soon(stream.read_i32()).await.unwrap();
    let mut answer = vec![0; usize::try_from(length).unwrap()];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    let mut answer = Bytes::from(answer);
    assert_eq!(ResponseHeader::decode(&mut answer, 1).unwrap().correlation_id, 2);
    let response = FetchResponse::decode(&mut answer, 12).unwrap();
    assert_eq!(values(response.responses[0].partitions[0].records.as_ref()), expected);
}

#[test]
fn certificates_and_keys_that_are_none_are_refused() {
    assert!(Tls::from_pem(b"", KEY).is_err());
    assert!(Tls::from_pem(CERTIFICATE, b"").is_err());
    assert!(Tls::from_pem(KEY, CERTIFICATE).is_err());
}

#[tokio::test]
async fn whoever_does_not_say_who_it_is_makes_room_for_who_does() {
    let limits = KafkaLimits { connections: 2, ..KafkaLimits::default() };
    let server = Server::start_with(KafkaSettings { limits, ..with_users() }).await;
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut client = server.client().await;
        client.call(3, &api_versions()).await;
        strangers.push(client);
    }
    let mut known = server.client().await;
    assert_eq!(choose(&mut known, "PLAIN").await, 0);
    assert_eq!(say(&mut known, 1, b"\0farol\0a long password").await.error_code, 0);
    let mut last = server.client().await;
    last.call(3, &api_versions()).await;
    for stranger in &mut strangers {
        assert!(stranger.is_closed().await);
    }
    known.call(9, &MetadataRequest::default()).await;
    assert_eq!(server.handle.numbers()().made_room, 2);
}

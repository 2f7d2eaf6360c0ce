//! Who a client is: SASL with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, over Kafka's SaslHandshake and SaslAuthenticate; or, for
//! clients from before SaslAuthenticate (KIP-152), over a SaslHandshake of version 0 and tokens that are frames of their own, without a
//! request around them (KIP-43). Such a client learns that it is refused by the end of the connection.
//!
//! With users set, a connection is served nothing but these two and ApiVersions until its client has said who it is; it has
//! little time and little room for that. Passwords are not kept: what is kept of a user is what SCRAM needs, salted and
//! hashed ([`Credentials`]), and PLAIN is checked against the same. PLAIN sends the password, so it is offered only over TLS
//! and on loopback. Whoever is refused is told no reason but that, after [`FAILURE_DELAY`], and the connection ends; an unknown
//! user is led through the same steps as a known one.
//!
//! Not served: delegation tokens, OAUTHBEARER, GSSAPI.

pub mod credentials;
mod scram;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Semaphore;

use self::credentials::{Credentials, Hash, random};
use self::scram::{Exchange, Step};
use super::api::{Answer, Call, Frame, Pending, Piece, Reply, end_frame};

/// How long a refusal takes.
pub const FAILURE_DELAY: Duration = Duration::from_millis(100);
/// Passwords of PLAIN that are checked at one time: each takes milliseconds of a processor.
const CHECKS_AT_A_TIME: usize = 4;
/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 4096;

/// Everybody who may connect.
pub(super) struct Users {
    by_name: HashMap<String, Credentials>,
    /// Makes salts for users that don't exist.
    decoy_key: [u8; 32],
    checks: Semaphore,
}

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram(Hash),
}

/// How far a connection's client is with saying who it is.
#[derive(Default)]
pub(super) enum Authentication {
    /// It has not begun.
    #[default]
    None,
    /// It has said how.
    Chosen(Chosen),
    /// It has said who it is, or needs not.
    Done,
}

/// A mechanism under way.
pub(super) struct Chosen {
    mechanism: Mechanism,
    tokens: Tokens,
    exchange: Option<Exchange>,
}

/// How the tokens of a mechanism come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tokens {
    /// In SaslAuthenticate.
    Requests,
    /// As frames of their own.
    Bare,
}

impl Authentication {
    /// Whether the next frame is a token rather than a request.
    pub(super) fn awaits_bare_token(&self) -> bool {
        matches!(self, Self::Chosen(chosen) if chosen.tokens == Tokens::Bare)
    }
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Plain, Self::Scram(Hash::Sha256), Self::Scram(Hash::Sha512)];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

impl Users {
    pub(super) fn new(users: Vec<(String, Credentials)>) -> Self {
        Self {
            by_name: users.into_iter().collect(),
            decoy_key: random(),
            checks: Semaphore::new(CHECKS_AT_A_TIME),
        }
    }

    /// Whether everybody may connect.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Notes how the client wants to say who it is.
pub(super) async fn sasl_handshake(
    call: Call,
    request: SaslHandshakeRequest,
) -> Answer<SaslHandshakeResponse> {
    let offered = offered(&call);
    let names = offered.iter().map(|mechanism| StrBytes::from_static_str(mechanism.name())).collect();
    let response = SaslHandshakeResponse::default().with_mechanisms(names);
    let mut authentication = call.connection.authentication.lock();
    if !matches!(*authentication, Authentication::None | Authentication::Chosen(_)) {
        return response.with_error_code(ResponseError::IllegalSaslState.code()).into();
    }
    let Some(mechanism) = offered.into_iter().find(|mechanism| *request.mechanism == *mechanism.name())
    else {
        return response.with_error_code(ResponseError::UnsupportedSaslMechanism.code()).into();
    };
    let tokens = if call.version == 0 { Tokens::Bare } else { Tokens::Requests };
    *authentication = Authentication::Chosen(Chosen { mechanism, tokens, exchange: None });
    response.into()
}

fn offered(call: &Call) -> Vec<Mechanism> {
    let hidden = call.server.settings.tls.is_some() || call.connection.peer.ip().to_canonical().is_loopback();
    Mechanism::ALL.into_iter().filter(|mechanism| hidden || *mechanism != Mechanism::Plain).collect()
}

/// Takes the next token of the client.
pub(super) async fn sasl_authenticate(
    call: Call,
    request: SaslAuthenticateRequest,
) -> Answer<SaslAuthenticateResponse> {
    let state = std::mem::take(&mut *call.connection.authentication.lock());
    let chosen = match state {
        Authentication::Chosen(chosen) => chosen,
        other => {
            *call.connection.authentication.lock() = other;
            return SaslAuthenticateResponse::default()
                .with_error_code(ResponseError::IllegalSaslState.code())
                .with_error_message(Some(StrBytes::from_static_str(
                    "a mechanism must be chosen before, once",
                )))
                .into();
        }
    };
    match step(&call, chosen, request.auth_bytes).await {
        Some((state, token)) => {
            *call.connection.authentication.lock() = state;
            SaslAuthenticateResponse::default().with_auth_bytes(token).into()
        }
        None => refuse(&call).await,
    }
}

/// Takes the next token of a client whose tokens come bare, and answers with one.
pub(super) async fn bare_token(call: Call, token: Bytes) -> Pending {
    let state = std::mem::take(&mut *call.connection.authentication.lock());
    let stepped = match state {
        Authentication::Chosen(chosen) => step(&call, chosen, token).await,
        Authentication::None | Authentication::Done => None,
    };
    let Some((state, token)) = stepped else {
        note_refusal(&call).await;
        return Pending::Ready(Reply::Close("its client could not prove who it is"));
    };
    *call.connection.authentication.lock() = state;
    let mut bytes = BytesMut::zeroed(4);
    bytes.extend_from_slice(&token);
    Pending::Ready(match end_frame(bytes, 0) {
        Ok(bytes) => Reply::Send(Frame { pieces: vec![Piece::Bytes(bytes)], permit: None }),
        Err(_) => Reply::Close("a token is too large"),
    })
}

/// The answer to a token, and how far the client is then; `None` for a token that proves nothing.
async fn step(call: &Call, chosen: Chosen, token: Bytes) -> Option<(Authentication, Bytes)> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let users = &call.server.users;
    match (chosen.mechanism, chosen.exchange) {
        (Mechanism::Plain, _) => {
            let (name, password) = plain_token(&token)?;
            let credentials = users.by_name.get(&name).cloned();
            // Never closed.
            let _turn = users.checks.acquire().await.ok()?;
            let checked = tokio::task::spawn_blocking(move || {
                // As much work for an unknown user.
                let (known, credentials) = match credentials {
                    Some(credentials) => (true, credentials),
                    None => (false, Credentials::decoy()),
                };
                credentials.is_password(&password) && known
            });
            let right = checked.await.unwrap_or(false);
            right.then(|| {
                tracing::debug!(peer = %call.connection.peer, user = name, "Kafka client is known");
                (Authentication::Done, Bytes::new())
            })
        }
        (Mechanism::Scram(hash), None) => {
            let lookup =
                |name: &str| users.by_name.get(name).and_then(|credentials| credentials.keys(hash)).cloned();
            let (exchange, answer) =
                Exchange::begin(hash, &token, lookup, &users.decoy_key, &random::<24>())?;
            let chosen = Chosen { exchange: Some(exchange), ..chosen };
            Some((Authentication::Chosen(chosen), answer.into()))
        }
        (Mechanism::Scram(_), Some(exchange)) => match exchange.finish(&token) {
            Step::Proven { user, answer } => {
                tracing::debug!(peer = %call.connection.peer, user, "Kafka client is known");
                Some((Authentication::Done, answer.into()))
            }
            Step::Refused => None,
        },
    }
}

/// Counts a client that proved nothing, and keeps it waiting.
async fn note_refusal(call: &Call) {
    call.server.counters.refuse_authentication();
    tracing::warn!(peer = %call.connection.peer, "a Kafka client could not prove who it is");
    tokio::time::sleep(FAILURE_DELAY).await;
}

/// Says no, and ends the connection.
async fn refuse(call: &Call) -> Answer<SaslAuthenticateResponse> {
    note_refusal(call).await;
    Answer::Last(
        SaslAuthenticateResponse::default()
            .with_error_code(ResponseError::SaslAuthenticationFailed.code())
            .with_error_message(Some(StrBytes::from_static_str("user or password is wrong"))),
    )
}

/// User and password: `[for whom] NUL user NUL password` (RFC 4616).
fn plain_token(token: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(token).ok()?;
    let mut parts = text.split('\0');
    let (for_whom, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || user.is_empty() || !(for_whom.is_empty() || for_whom == user) {
        return None;
    }
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tokens_are_three_parts() {
        let good = Some(("user".to_owned(), "pass".to_owned()));
        assert_eq!(plain_token(b"\0user\0pass"), good);
        assert_eq!(plain_token(b"user\0user\0pass"), good);
        for bad in
            [&b""[..], b"\0user", b"other\0user\0pass", b"\0\0pass", b"\0user\0pass\0", b"\0\xff\0pass"]
        {
            assert_eq!(plain_token(bad), None, "{bad:?}");
        }
    }
}

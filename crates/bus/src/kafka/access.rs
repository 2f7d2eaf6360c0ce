//! Why a broker that is there can't be used: TLS or authentication. librdkafka tells it in events, while calls only run out of time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::KafkaOptions;
use super::client::{self, Logging};
use super::error::code_error;
use crate::engine::{BusError, Obstacle};

/// How long the first try waits for an answer; the next has all the time that is left. Between them is looked whether there is an obstacle.
const FIRST_TRY: Duration = Duration::from_millis(250);
/// How long a try that failed at once is followed by none.
const PAUSE: Duration = Duration::from_millis(50);
/// How many events are taken between two tries.
const EVENTS_A_TRY: usize = 64;
/// How long a connection for any host name may take, where one for the right name was refused.
const ANY_NAME_LIMIT: Duration = Duration::from_secs(2);

/// A connection that ends within this time of its first answer was ended because of what it asked.
const SOON_MS: u64 = 2000;

/// The newest reason why a client's connections fail, where it is an obstacle.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<(Obstacle, String)>>);

impl Trouble {
    /// Takes an error event of librdkafka.
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // It only sums up what was told before.
            Some(Code::AllBrokersDown) | None => {}
            Some(code) => self.set(obstacle(code, reason), reason),
        }
    }

    /// Takes what librdkafka logs about a connection that ended.
    pub(super) fn hint(&self, message: &str) {
        if let Some(obstacle) = by_state(message) {
            self.set(Some(obstacle), message);
        }
    }

    /// What it comes to, as an error.
    pub(super) fn error(&self) -> Option<BusError> {
        let trouble = self.0.lock().clone();
        trouble.map(|(obstacle, detail)| BusError::NoAccess { obstacle, detail })
    }

    fn is_over(&self) {
        *self.0.lock() = None;
    }

    fn set(&self, obstacle: Option<Obstacle>, reason: &str) {
        *self.0.lock() = obstacle.map(|obstacle| (obstacle, detail(reason)));
    }
}

/// Whether a broker answers.
pub(super) fn check(
    options: &KafkaOptions,
    client: &BaseConsumer<Logging>,
    limit: Duration,
) -> Result<(), BusError> {
    let checked = answers(client, limit);
    let Err(BusError::NoAccess { obstacle: Obstacle::Certificate, detail }) = checked else { return checked };
    // librdkafka has the same words for a certificate that nobody vouches for and for one with another name.
    let other = answers(&client::any_name_client(options)?, ANY_NAME_LIMIT);
    let obstacle = match other {
        Err(BusError::NoAccess { obstacle: Obstacle::Certificate, .. }) => Obstacle::Certificate,
        _ => Obstacle::HostName,
    };
    Err(BusError::NoAccess { obstacle, detail })
}

fn answers(client: &BaseConsumer<Logging>, limit: Duration) -> Result<(), BusError> {
    let deadline = Instant::now() + limit;
    let mut patience = FIRST_TRY;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let code = match client.client().fetch_metadata(Some(""), patience.min(left)) {
            Ok(_) => {
                client.context().trouble.is_over();
                return Ok(());
            }
            Err(error) => error.rdkafka_error_code(),
        };
        match code {
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut) | None => {}
            Some(code) => match code_error(code, "the brokers") {
                error @ BusError::InvalidState(_) => return Err(error),
                // A topic without a name is refused, by a broker that is there.
                _ => return Ok(()),
            },
        }
        // Nothing comes of these polls but calls of the context. A try may have failed at once, so the first one waits.
        let _ = client.poll(PAUSE.min(left));
        for _ in 0..EVENTS_A_TRY {
            let _ = client.poll(Duration::ZERO);
        }
        let is_last = Instant::now() >= deadline;
        match client.context().trouble.error() {
            Some(BusError::NoAccess { obstacle, .. }) if !obstacle.is_certain() && !is_last => {}
            Some(error) => return Err(error),
            None if is_last => return Err(BusError::Unreachable),
            None => {}
        }
        patience = limit;
    }
}

/// What an error event says, if it is an obstacle.
fn obstacle(code: Code, reason: &str) -> Option<Obstacle> {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed if reason.contains("mechanism handshake") => {
            Some(Obstacle::Mechanism)
        }
        Code::Authentication | Code::SaslAuthenticationFailed => Some(Obstacle::Credentials),
        _ => by_state(reason),
    }
}

/// What a connection that failed in a certain state comes to. librdkafka would guess, too, but doesn't get that far for a broker that
/// ends a connection in plain text (2.12); and it tells a failed handshake twice, with two codes.
fn by_state(message: &str) -> Option<Obstacle> {
    let is_in = |state: &str| message.contains(&format!("in state {state}"));
    // What TLS answers to plain text is no answer of Kafka's, or none at all.
    let ended = ["Disconnected", "Receive failed", "Send failed"].iter().any(|words| message.contains(words));
    let by_tls = message.contains("ssl://");
    if is_in("SSL_HANDSHAKE") {
        let not_tls = ended || message.contains("wrong version number") || message.contains("packet length");
        let untrusted = message.contains("certificate verify failed");
        if untrusted { Some(Obstacle::Certificate) } else { not_tls.then_some(Obstacle::NotTls) }
    } else if ended && !by_tls && is_in("APIVERSION_QUERY") {
        Some(Obstacle::Tls)
    } else if ended && !message.contains("sasl_") && is_in("UP") && milliseconds(message) < SOON_MS {
        Some(Obstacle::NoUser)
    } else {
        None
    }
}

/// How long a connection was in the state in which it ended.
fn milliseconds(message: &str) -> u64 {
    let after = message.rsplit_once(" (after ").map_or("", |(_, after)| after);
    after.split_once("ms").and_then(|(number, _)| number.parse().ok()).unwrap_or(u64::MAX)
}

/// The reason without its thread before and the count of milliseconds behind it, which is another one every time.
fn detail(reason: &str) -> String {
    let reason = reason.split_once("]: ").map_or(reason, |(_, reason)| reason);
    let reason = reason.split(" (after ").next().unwrap_or(reason);
    // The advice is librdkafka's, for its own settings.
    reason.split(": broker certificate could not be verified").next().unwrap_or(reason).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_librdkafka_says_becomes_an_obstacle() {
        for (code, reason, expected) in [
            (
                Code::Authentication,
                "sasl_ssl://h:1/bootstrap: SASL authentication error: user or password is wrong (after 101ms in state AUTH_REQ)",
                Some(Obstacle::Credentials),
            ),
            (
                Code::Authentication,
                "sasl_plaintext://h:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: \
                 broker's supported mechanisms: SCRAM-SHA-256,SCRAM-SHA-512 (after 0ms in state AUTH_HANDSHAKE)",
                Some(Obstacle::Mechanism),
            ),
            (
                Code::SSL,
                "ssl://h:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate \
                 could not be verified, verify that ssl.ca.location is correctly configured (after 1ms in state SSL_HANDSHAKE)",
                Some(Obstacle::Certificate),
            ),
            (
                Code::BrokerTransportFailure,
                "ssl://h:1/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 1ms in state SSL_HANDSHAKE)",
                Some(Obstacle::Certificate),
            ),
            (
                Code::BrokerTransportFailure,
                "ssl://h:1/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in state SSL_HANDSHAKE)",
                Some(Obstacle::NotTls),
            ),
            (
                Code::BrokerTransportFailure,
                "h:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused",
                None,
            ),
        ] {
            assert_eq!(obstacle(code, reason), expected, "{reason}");
        }
    }

    #[test]
    fn a_later_failure_of_another_kind_is_no_obstacle_any_more_and_a_summary_changes_nothing() {
        let trouble = Trouble::default();
        trouble.hint("h:1/bootstrap: Disconnected (after 2ms in state APIVERSION_QUERY)");
        trouble.note(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let Some(BusError::NoAccess { obstacle: Obstacle::Tls, detail }) = trouble.error() else {
            panic!("{:?}", trouble.error())
        };
        assert!(!detail.contains("2ms"), "{detail}");
        trouble.note(&KafkaError::Global(Code::BrokerTransportFailure), "h:1/bootstrap: Connection refused");
        assert!(trouble.error().is_none());
    }
}

//! The part of section `kafka` that is for the commands which are Kafka clients: which brokers, how connections are protected, and who
//! the client says it is. The values are spelled as Kafka spells them.

use std::borrow::Cow;
use std::path::PathBuf;

use super::problem::{Origin, Problem};
use super::value::{ListenAddress, RawValue, SettingValue};

/// Which brokers, and how.
#[derive(Clone)]
pub struct KafkaClientSettings {
    /// The brokers; `None` means the Farol of these settings.
    pub brokers: Option<Vec<ListenAddress>>,
    /// How connections are protected, if it is said.
    pub security_protocol: Option<SecurityProtocol>,
    /// How the password is proven.
    pub sasl_mechanism: SaslMechanism,
    /// Who the client says it is.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// A file with the password, if there is no `password`.
    pub password_file: Option<PathBuf>,
    /// PEM file of the certificates to trust; the system's without it.
    pub ssl_ca_location: Option<PathBuf>,
}

/// Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecurityProtocol {
    /// Whether connections are by TLS.
    pub tls: bool,
    /// Whether the client says who it is.
    pub sasl: bool,
}

/// Kafka's `sasl.mechanism`, as far as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password itself.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl std::fmt::Debug for KafkaClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaClientSettings").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl KafkaClientSettings {
    /// How connections are protected. If nothing says so: as the Farol of the same settings does it (`own_tls`), where no other brokers
    /// are named, and with a user if there is one.
    pub fn protocol(&self, own_tls: bool) -> SecurityProtocol {
        let tls = self.brokers.is_none() && own_tls;
        self.security_protocol.unwrap_or(SecurityProtocol { tls, sasl: self.username.is_some() })
    }

    /// What must hold between these settings. `own_tls` says whether the Farol of these settings wants TLS.
    pub(super) fn check(&self, own_tls: bool, origin: &dyn Fn(&str) -> Origin, problems: &mut Vec<Problem>) {
        let mut problem = |key: &str, message: &str| {
            problems.push(Problem::new(origin(key), format!("{key}: {message}")));
        };
        if self.brokers.as_ref().is_some_and(Vec::is_empty) {
            problem("kafka.brokers", "it names no broker");
        }
        match (&self.password, &self.password_file) {
            (Some(_), _) if self.username.is_none() => {
                problem("kafka.password", "it needs kafka.username as well");
            }
            (None, Some(_)) if self.username.is_none() => {
                problem("kafka.password_file", "it needs kafka.username as well");
            }
            (None, None) if self.username.is_some() => {
                problem("kafka.username", "it needs kafka.password or kafka.password_file as well");
            }
            _ => {}
        }
        let protocol = self.protocol(own_tls);
        match self.security_protocol {
            Some(SecurityProtocol { sasl: true, .. }) if self.username.is_none() => {
                problem(
                    "kafka.security_protocol",
                    "with SASL it needs kafka.username and kafka.password_file",
                );
            }
            Some(SecurityProtocol { sasl: false, .. }) if self.username.is_some() => {
                problem(
                    "kafka.security_protocol",
                    "without SASL nobody is told kafka.username; take SASL_SSL",
                );
            }
            None if protocol.sasl && !protocol.tls && !self.is_on_this_machine() => problem(
                "kafka.username",
                "its password would go to another machine in plain text; set kafka.security_protocol to SASL_SSL \
                 (or to SASL_PLAINTEXT, in a network that you trust)",
            ),
            _ => {}
        }
        if self.ssl_ca_location.is_some() && !protocol.tls {
            problem(
                "kafka.ssl_ca_location",
                "it is for connections by TLS; set kafka.security_protocol to SASL_SSL or SSL",
            );
        }
    }

    fn is_on_this_machine(&self) -> bool {
        self.brokers.iter().flatten().all(ListenAddress::is_loopback)
    }
}

impl SecurityProtocol {
    const ALL: [(&str, Self); 4] = [
        ("PLAINTEXT", Self { tls: false, sasl: false }),
        ("SSL", Self { tls: true, sasl: false }),
        ("SASL_PLAINTEXT", Self { tls: false, sasl: true }),
        ("SASL_SSL", Self { tls: true, sasl: true }),
    ];
}

impl SaslMechanism {
    const ALL: [(&str, Self); 3] =
        [("PLAIN", Self::Plain), ("SCRAM-SHA-256", Self::ScramSha256), ("SCRAM-SHA-512", Self::ScramSha512)];
}

impl SettingValue for SecurityProtocol {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        by_name(&Self::ALL, raw)
            .ok_or_else(|| "\"PLAINTEXT\", \"SSL\", \"SASL_PLAINTEXT\" or \"SASL_SSL\"".into())
    }

    fn to_toml(&self) -> String {
        name_of(&Self::ALL, *self).to_toml()
    }
}

impl SettingValue for SaslMechanism {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        by_name(&Self::ALL, raw).ok_or_else(|| "\"PLAIN\", \"SCRAM-SHA-256\" or \"SCRAM-SHA-512\"".into())
    }

    fn to_toml(&self) -> String {
        name_of(&Self::ALL, *self).to_toml()
    }
}

/// Names in capitals or not: Kafka's clients differ.
fn by_name<T: Copy>(names: &[(&str, T)], raw: &RawValue) -> Option<T> {
    let (RawValue::Bare(text) | RawValue::Text(text)) = raw else { return None };
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

fn name_of<T: PartialEq + Copy>(names: &[(&str, T)], value: T) -> String {
    names.iter().find(|(_, named)| *named == value).map_or_else(String::new, |(name, _)| (*name).to_owned())
}

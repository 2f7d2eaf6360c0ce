//! What a service and its checks are, as settings files and the API write them. What could be read is right: bounds and
//! relations are checked while reading.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use farol_event::DurationText;
use farol_event::service::{CheckKind, Registration, ServiceDescription};
use serde::{Deserialize, Serialize};

use crate::id::{CheckName, ServiceId};
use crate::machine::Thresholds;
use crate::target::{HostPort, HttpTarget, HttpUrl, MAX_REDIRECTS, StatusRange, Target};

/// The most checks of one service.
pub const MAX_CHECKS: usize = 8;
/// The most labels of one service.
pub const MAX_LABELS: usize = 16;
/// The longest name or value of a label, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;
/// The longest text that a body can be asked to contain, in bytes.
pub const MAX_BODY_TEXT_BYTES: usize = 256;
/// The shortest time between two questions, or for a heartbeat to come.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The shortest time that an answer may be given.
pub const MIN_TIMEOUT: Duration = Duration::from_millis(10);
/// The longest.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest threshold.
pub const MAX_THRESHOLD: u32 = 100;

/// How much of an address is shown.
const MAX_ADDRESS_CHARS: usize = 512;
/// Unless a check says otherwise.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Unless a check says otherwise; no longer than its interval. Longer than what the built-in rule finds slow (5 s), so that a slow
/// answer is a warning and not an outage.
const DEFAULT_TIMEOUT: Duration = DEFAULT_INTERVAL;
const DEFAULT_DOWN_AFTER: u32 = 3;
const DEFAULT_UP_AFTER: u32 = 2;
/// A heartbeat that is missing is missing: whoever wants patience writes a longer time to live.
const DEFAULT_HEARTBEAT_THRESHOLD: u32 = 1;

/// Why a definition can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DefinitionError(String);

/// A service that is watched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(try_from = "ServiceText")]
pub struct ServiceDefinition {
    /// What it is told apart by in rules and on pages. At most 16, each name and value of at most 128 bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How it is checked. At most 8.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<CheckText>, max_items = 8))]
    pub checks: Vec<CheckDefinition>,
}

impl ServiceDefinition {
    /// What it says of the service to others: where it is reached, what kind it is if a label says so, and its checks.
    pub fn registration(&self) -> Registration {
        let address = self.checks.iter().find_map(|check| match &check.target {
            Target::Http(http) => Some(http.url.to_string()),
            Target::Tcp(at) => Some(at.to_string()),
            Target::Heartbeat => None,
        });
        let address = address.map(|address| address.chars().take(MAX_ADDRESS_CHARS).collect());
        let kind = self.labels.get("kind").cloned();
        let description = ServiceDescription { address, kind, ..ServiceDescription::default() };
        let checks = self.checks.iter().map(|check| check.name.to_string()).collect();
        Registration { description, checks: Some(checks) }
    }
}

/// A service as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceText {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    checks: Vec<CheckText>,
}

/// One of a file's `[[services]]`: a service with its name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NamedServiceText")]
pub struct NamedService {
    /// Its name.
    pub name: ServiceId,
    /// The rest.
    pub definition: ServiceDefinition,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedServiceText {
    name: ServiceId,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    checks: Vec<CheckText>,
}

/// A check, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "CheckText")]
pub struct CheckDefinition {
    /// Its name, unique within the service.
    pub name: CheckName,
    /// What it asks.
    pub target: Target,
    /// How often; of a heartbeat, its time to live.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// When its state changes.
    pub thresholds: Thresholds,
    /// Whether the service is out when this check is down.
    pub critical: bool,
}

impl CheckDefinition {
    /// What it does, as events call it.
    pub fn kind(&self) -> CheckKind {
        match self.target {
            Target::Http(_) => CheckKind::Http,
            Target::Tcp(_) => CheckKind::Tcp,
            Target::Heartbeat => CheckKind::Ttl,
        }
    }
}

/// A check as it is written: exactly one of `http`, `tcp` and `ttl`, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = Check))]
#[serde(deny_unknown_fields)]
pub struct CheckText {
    /// Its name; `http`, `tcp` or `ttl` with a number if there are several, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    name: Option<CheckName>,
    /// The address that is asked with GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 2048, example = "http://127.0.0.1:8080/health"))]
    http: Option<String>,
    /// The host and port that are connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 260, example = "127.0.0.1:5432"))]
    tcp: Option<String>,
    /// How long a heartbeat lasts; the service must send the next one within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "30s"))]
    ttl: Option<DurationText>,
    /// Time between two questions, from 100ms to 1d; 10s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10s"))]
    interval: Option<DurationText>,
    /// How long an answer may take, from 10ms to 60s and no longer than the interval; 10s by default, or the interval if that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "5s"))]
    timeout: Option<DurationText>,
    /// Failures in a row after which it is down; 3 by default, 1 for a heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    down_after: Option<u32>,
    /// Successes in a row after which it is up again; 2 by default, 1 for a heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    up_after: Option<u32>,
    /// Whether the service is out when this check is down, which is so by default; the failure of one that isn't critical only
    /// degrades it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    critical: Option<bool>,
    /// Of `http`: the statuses that are right, such as `200` or `200-399`; `200-299` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 7, pattern = "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"))]
    status: Option<String>,
    /// Of `http`: a text that the body must contain, within its first 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    body_contains: Option<String>,
    /// Of `http`: how many redirects are followed; none by default, so that a redirect's own status is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 5))]
    follow_redirects: Option<u8>,
}

impl TryFrom<ServiceText> for ServiceDefinition {
    type Error = DefinitionError;

    fn try_from(text: ServiceText) -> Result<Self, DefinitionError> {
        if text.labels.len() > MAX_LABELS {
            return Err(DefinitionError(format!("labels: there are more than {MAX_LABELS}")));
        }
        for (name, value) in &text.labels {
            let fits = |text: &str| text.len() <= MAX_LABEL_BYTES && !text.chars().any(char::is_control);
            if name.is_empty() || !fits(name) || !fits(value) {
                let shown: String = name.chars().take(40).collect();
                return Err(DefinitionError(format!(
                    "labels: `{}` must have a name, and name and value at most {MAX_LABEL_BYTES} bytes without control characters",
                    shown.escape_default()
                )));
            }
        }
        if text.checks.len() > MAX_CHECKS {
            return Err(DefinitionError(format!("checks: there are more than {MAX_CHECKS}")));
        }
        let mut checks: Vec<CheckDefinition> = Vec::with_capacity(text.checks.len());
        for (index, check) in text.checks.into_iter().enumerate() {
            let in_place = |problem: String| DefinitionError(format!("check {}: {problem}", index + 1));
            let check = check.read(&checks).map_err(in_place)?;
            checks.push(check);
        }
        Ok(Self { labels: text.labels, checks })
    }
}

impl TryFrom<NamedServiceText> for NamedService {
    type Error = DefinitionError;

    fn try_from(text: NamedServiceText) -> Result<Self, DefinitionError> {
        let NamedServiceText { name, labels, checks } = text;
        let definition = ServiceText { labels, checks }
            .try_into()
            .map_err(|DefinitionError(problem)| DefinitionError(format!("service `{name}`: {problem}")))?;
        Ok(Self { name, definition })
    }
}

impl CheckText {
    /// Checks it, as the one that follows `others`.
    fn read(self, others: &[CheckDefinition]) -> Result<CheckDefinition, String> {
        let kinds = [self.http.is_some(), self.tcp.is_some(), self.ttl.is_some()];
        if kinds.iter().filter(|given| **given).count() != 1 {
            return Err("it must have exactly one of `http`, `tcp` and `ttl`".into());
        }
        let thresholds = self.thresholds()?;
        let name = match self.name.clone() {
            Some(name) if others.iter().any(|other| other.name == name) => {
                return Err(format!("there is another check called `{name}`"));
            }
            Some(name) => name,
            None => free_name(self.kind(), others),
        };
        if self.http.is_none() {
            for (key, given) in [
                ("status", self.status.is_some()),
                ("body_contains", self.body_contains.is_some()),
                ("follow_redirects", self.follow_redirects.is_some()),
            ] {
                if given {
                    return Err(format!("`{key}` is only for `http`"));
                }
            }
        }
        let (target, interval, timeout) = if let Some(ttl) = self.ttl {
            if self.interval.is_some() || self.timeout.is_some() {
                return Err("`interval` and `timeout` are not for `ttl`".into());
            }
            (Target::Heartbeat, bounded("ttl", ttl.get(), MIN_INTERVAL, MAX_INTERVAL)?, ttl.get())
        } else {
            let (interval, timeout) = self.times()?;
            (self.target()?, interval, timeout)
        };
        let critical = self.critical.unwrap_or(true);
        Ok(CheckDefinition { name, target, interval, timeout, thresholds, critical })
    }

    fn kind(&self) -> &'static str {
        if self.http.is_some() {
            "http"
        } else if self.tcp.is_some() {
            "tcp"
        } else {
            "ttl"
        }
    }

    fn target(&self) -> Result<Target, String> {
        if let Some(tcp) = &self.tcp {
            return HostPort::parse(tcp).map(Target::Tcp).map_err(|problem| format!("tcp: {problem}"));
        }
        let url = HttpUrl::parse(self.http.as_deref().unwrap_or_default())
            .map_err(|problem| format!("http: {problem}"))?;
        let status = match &self.status {
            Some(text) => StatusRange::parse(text).map_err(|problem| format!("status: {problem}"))?,
            None => StatusRange::default(),
        };
        if self.body_contains.as_ref().is_some_and(|text| text.is_empty() || text.len() > MAX_BODY_TEXT_BYTES)
        {
            return Err(format!("body_contains: it must have from 1 to {MAX_BODY_TEXT_BYTES} bytes"));
        }
        let follow_redirects = self.follow_redirects.unwrap_or(0);
        if follow_redirects > MAX_REDIRECTS {
            return Err(format!("follow_redirects: it must be at most {MAX_REDIRECTS}"));
        }
        Ok(Target::Http(HttpTarget {
            url,
            status,
            body_contains: self.body_contains.clone(),
            follow_redirects,
        }))
    }

    fn times(&self) -> Result<(Duration, Duration), String> {
        let interval = self.interval.map_or(DEFAULT_INTERVAL, DurationText::get);
        let interval = bounded("interval", interval, MIN_INTERVAL, MAX_INTERVAL)?;
        let timeout = self.timeout.map_or(DEFAULT_TIMEOUT.min(interval), DurationText::get);
        let timeout = bounded("timeout", timeout, MIN_TIMEOUT, MAX_TIMEOUT)?;
        if timeout > interval {
            return Err("timeout: it must be no longer than the interval".into());
        }
        Ok((interval, timeout))
    }

    fn thresholds(&self) -> Result<Thresholds, String> {
        let heartbeat = self.ttl.is_some();
        let number = |name: &str, given: Option<u32>, usual: u32| {
            let number = given.unwrap_or(if heartbeat { DEFAULT_HEARTBEAT_THRESHOLD } else { usual });
            NonZeroU32::new(number)
                .filter(|number| number.get() <= MAX_THRESHOLD)
                .ok_or_else(|| format!("{name}: it must be from 1 to {MAX_THRESHOLD}"))
        };
        Ok(Thresholds {
            down_after: number("down_after", self.down_after, DEFAULT_DOWN_AFTER)?,
            up_after: number("up_after", self.up_after, DEFAULT_UP_AFTER)?,
        })
    }
}

fn bounded(name: &str, given: Duration, least: Duration, most: Duration) -> Result<Duration, String> {
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    let (least, most) = (DurationText::new(least), DurationText::new(most));
    Err(format!("{name}: it must be from {least} to {most}"))
}

/// The kind, with the first number that makes it free.
fn free_name(kind: &str, others: &[CheckDefinition]) -> CheckName {
    let mut name = kind.to_owned();
    let mut number = 1_usize;
    while others.iter().any(|other| other.name.as_str() == name) {
        number += 1;
        name = format!("{kind}-{number}");
    }
    name.parse().expect("a kind and a number are letters, a dash and digits")
}

impl From<CheckDefinition> for CheckText {
    fn from(check: CheckDefinition) -> Self {
        let text = CheckText {
            name: Some(check.name),
            down_after: Some(check.thresholds.down_after.get()),
            up_after: Some(check.thresholds.up_after.get()),
            critical: (!check.critical).then_some(false),
            ..CheckText::default()
        };
        let (interval, timeout) = (DurationText::new(check.interval), DurationText::new(check.timeout));
        match check.target {
            Target::Heartbeat => CheckText { ttl: Some(interval), ..text },
            Target::Tcp(at) => CheckText {
                tcp: Some(at.to_string()),
                interval: Some(interval),
                timeout: Some(timeout),
                ..text
            },
            Target::Http(http) => CheckText {
                http: Some(http.url.to_string()),
                interval: Some(interval),
                timeout: Some(timeout),
                status: Some(http.status.to_string()),
                body_contains: http.body_contains,
                follow_redirects: (http.follow_redirects > 0).then_some(http.follow_redirects),
                ..text
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<ServiceDefinition, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let service = read(
            r#"{"labels":{"team":"shop"},"checks":[{"http":"http://127.0.0.1:1/h"},{"tcp":"db:5432","interval":"2s"},{"ttl":"30s"},{"ttl":"1m"}]}"#,
        )
        .unwrap();
        let names: Vec<_> = service.checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["http", "tcp", "ttl", "ttl-2"]);
        let [http, tcp, ttl, _] = service.checks.as_slice() else { panic!() };
        assert_eq!((http.interval, http.timeout), (DEFAULT_INTERVAL, DEFAULT_TIMEOUT));
        assert_eq!((tcp.interval, tcp.timeout), (Duration::from_secs(2), Duration::from_secs(2)));
        assert_eq!((http.thresholds.down_after.get(), http.thresholds.up_after.get()), (3, 2));
        assert_eq!((ttl.thresholds.down_after.get(), ttl.interval), (1, Duration::from_secs(30)));
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        for (checks, expected) in [
            (r#"{}"#, "check 1: it must have exactly one of"),
            (r#"{"http":"http://a/","tcp":"a:1"}"#, "exactly one of"),
            (r#"{"http":"nowhere"}"#, "check 1: http: `nowhere` is not an address"),
            (r#"{"tcp":"a"}"#, "check 1: tcp:"),
            (r#"{"tcp":"a:1","status":"200"}"#, "`status` is only for `http`"),
            (r#"{"ttl":"30s","interval":"1s"}"#, "not for `ttl`"),
            (r#"{"ttl":"1ms"}"#, "ttl: it must be from 100ms to 1d"),
            (r#"{"tcp":"a:1","interval":"1s","timeout":"2s"}"#, "no longer than the interval"),
            (r#"{"tcp":"a:1","interval":"1x"}"#, "not a duration"),
            (r#"{"tcp":"a:1","down_after":0}"#, "down_after: it must be from 1 to 100"),
            (r#"{"tcp":"a:1","name":"a b"}"#, "not a name of a check"),
            (
                r#"{"tcp":"a:1","name":"x"},{"tcp":"a:1","name":"x"}"#,
                "check 2: there is another check called `x`",
            ),
            (r#"{"http":"http://a/","status":"2xx"}"#, "status: `2xx`"),
            (r#"{"http":"http://a/","body_contains":""}"#, "body_contains"),
            (r#"{"http":"http://a/","follow_redirects":6}"#, "follow_redirects"),
            (r#"{"tcp":"a:1","colour":"red"}"#, "unknown field `colour`"),
        ] {
            let error = read(&format!(r#"{{"checks":[{checks}]}}"#)).unwrap_err();
            assert!(error.contains(expected), "{checks}: {error}");
        }
        let many = [r#"{"ttl":"1s"}"#; MAX_CHECKS + 1].join(",");
        assert!(read(&format!(r#"{{"checks":[{many}]}}"#)).unwrap_err().contains("more than 8"));
        assert!(read(r#"{"labels":{"":"x"}}"#).unwrap_err().contains("labels"));
    }

    #[test]
    fn a_named_service_names_itself_in_its_problems() {
        let error = serde_json::from_str::<NamedService>(r#"{"name":"shop","checks":[{}]}"#).unwrap_err();
        assert!(error.to_string().starts_with("service `shop`: check 1:"), "{error}");
        let service: NamedService = serde_json::from_str(r#"{"name":"shop"}"#).unwrap();
        assert_eq!((service.name.as_str(), service.definition), ("shop", ServiceDefinition::default()));
    }

    fn checks() -> impl Strategy<Value = String> {
        let kind = prop_oneof![
            Just(r#""http":"http://a:1/x?y","status":"200-399","body_contains":"ok","follow_redirects":2"#),
            Just(r#""tcp":"[::1]:5432","timeout":"100ms""#),
            Just(r#""ttl":"1m30s""#),
        ];
        (kind, 1u32..100, 1u32..100).prop_map(|(kind, down, up)| {
            format!(r#"{{{kind},"down_after":{down},"up_after":{up},"critical":{}}}"#, down % 2 == 0)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(checks in proptest::collection::vec(checks(), 0..MAX_CHECKS)) {
            let service = read(&format!(r#"{{"checks":[{}]}}"#, checks.join(","))).unwrap();
            let written = serde_json::to_string(&service).unwrap();
            prop_assert_eq!(read(&written).unwrap(), service);
        }
    }
}

//! The event envelope: CloudEvents 1.0, structured JSON, and the types of event that Farol itself knows.
//!
//! Source: CloudEvents 1.0.2 core specification and JSON event format. Of its optional attributes Farol knows `time`,
//! `datacontenttype`, `dataschema` and `subject`; its own extensions are `dataversion`, `correlationid` and
//! `traceparent`. Extension attributes that Farol doesn't know are kept as they came.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::timestamp::{Timestamp, TimestampError, shorten};

/// The longest accepted event, in bytes of JSON.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The longest accepted `id`, `source` or `type`, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 1024;
/// How many extension attributes an event may carry.
pub const MAX_EXTENSIONS: usize = 32;

/// The type of an event, as written on the wire. The founding documents' types and Farol's own have names here;
/// any other text is a user-defined type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct EventType(std::borrow::Cow<'static, str>);

macro_rules! event_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl EventType {
            $($(#[$doc])* pub const $name: EventType = EventType(std::borrow::Cow::Borrowed($text));)*

            /// Every type that Farol itself knows.
            pub const KNOWN: &'static [EventType] = &[$(EventType::$name),*];
        }
    };
}

event_types! {
    /// A service started.
    SERVICE_STARTED = "servico_iniciado";
    /// A service stopped.
    SERVICE_STOPPED = "servico_parado";
    /// A metric was collected.
    METRIC_COLLECTED = "metrica_coletada";
    /// An alert fired.
    ALERT_FIRED = "alerta_gerado";
    /// A system became unavailable.
    SYSTEM_UNAVAILABLE = "sistema_indisponivel";
    /// A system recovered.
    SYSTEM_RECOVERED = "sistema_recuperado";
    /// A transaction began.
    TRANSACTION_STARTED = "transacao_iniciada";
    /// A transaction completed.
    TRANSACTION_COMPLETED = "transacao_completada";
    /// A transaction failed.
    TRANSACTION_FAILED = "transacao_falhada";
    /// An alert's condition holds, not yet for long enough.
    ALERT_PENDING = "alerta_pendente";
    /// A pending alert ended without firing.
    ALERT_DISMISSED = "alerta_descartado";
    /// An alert resolved.
    ALERT_RESOLVED = "alerta_resolvido";
    /// Somebody acknowledged an alert.
    ALERT_ACKNOWLEDGED = "alerta_reconhecido";
    /// A notification was delivered or given up.
    NOTIFICATION_ATTEMPTED = "notificacao_enviada";
    /// The rules in force changed.
    RULES_CHANGED = "regra_alterada";
    /// A member joined a consumer group.
    CONSUMER_JOINED = "consumidor_entrou";
    /// A member left a consumer group, or was expelled.
    CONSUMER_LEFT = "consumidor_saiu";
    /// A consumer says that it lives, and how far it has come.
    CONSUMER_HEARTBEAT = "consumidor_pulsou";
    /// A producer says that it lives, and what it has sent.
    PRODUCER_HEARTBEAT = "produtor_pulsou";
    /// A consumer group's partitions were assigned anew.
    PARTITIONS_REASSIGNED = "particoes_reatribuidas";
    /// A service was registered, or its registration changed.
    SERVICE_REGISTERED = "servico_registrado";
    /// A service's registration was taken back.
    SERVICE_REMOVED = "servico_removido";
    /// A service says that it lives.
    SERVICE_HEARTBEAT = "servico_pulsou";
    /// A service is being worked on: what it does until the end of that is no outage.
    MAINTENANCE_STARTED = "servico_em_manutencao";
    /// A service's maintenance is over.
    MAINTENANCE_ENDED = "servico_em_operacao";
    /// An active check of a service changed its state.
    CHECK_CHANGED = "verificacao_alterada";
    /// A circuit breaker opened: it rejects calls.
    BREAKER_OPENED = "disjuntor_aberto";
    /// A circuit breaker lets probes through.
    BREAKER_HALF_OPENED = "disjuntor_meio_aberto";
    /// A circuit breaker closed: calls pass.
    BREAKER_CLOSED = "disjuntor_fechado";
    /// How a resilience policy (breaker, retry, bulkhead, …) stands.
    POLICY_MEASURED = "politica_medida";
    /// A simulated service is to behave otherwise.
    SIMULATION_CHANGED = "simulacao_alterada";
    /// How a simulated service behaves now.
    SIMULATION_APPLIED = "simulacao_aplicada";
    /// Somebody silenced alerts.
    SILENCE_CREATED = "silencio_criado";
    /// A silence was ended before its time.
    SILENCE_EXPIRED = "silencio_expirado";
}

impl EventType {
    /// A user-defined (or known) type.
    pub fn new(text: impl Into<String>) -> Self {
        Self(std::borrow::Cow::Owned(text.into()))
    }

    /// The text of the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One event. `data` is a JSON object by Farol's convention (an empty one if the sender gave none).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Always `1.0`.
    pub specversion: SpecVersion,
    /// Unique per source; a UUID v7 when Farol makes it.
    pub id: String,
    /// When it happened.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub time: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The service, sensor or component that it is about.
    pub source: String,
    /// Version of the shape of `data`, from 1.
    pub dataversion: u32,
    /// Ties together what belongs to one command or request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlationid: Option<Uuid>,
    /// W3C trace context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// CloudEvents' `subject`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// CloudEvents' `datacontenttype`; JSON if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    /// CloudEvents' `dataschema`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataschema: Option<String>,
    /// Extension attributes that Farol doesn't know, as they came.
    #[serde(flatten)]
    #[cfg_attr(feature = "openapi", schema(additional_properties, value_type = Object))]
    pub extensions: BTreeMap<String, Value>,
    /// The facts.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: serde_json::Map<String, Value>,
}

/// Type and source of an event in structured JSON, read without the rest: for whoever decides by them whether the rest is
/// worth reading. That the rest is an event is not said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EventHead<'a> {
    /// The text of the type.
    #[serde(borrow, rename = "type")]
    pub event_type: std::borrow::Cow<'a, str>,
    /// The source.
    #[serde(borrow)]
    pub source: std::borrow::Cow<'a, str>,
}

impl<'a> EventHead<'a> {
    /// Reads the head. `None` if there is none: then the bytes are no event either.
    pub fn parse(json: &'a [u8]) -> Option<Self> {
        if json.len() > MAX_EVENT_BYTES {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

/// The only version of CloudEvents there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SpecVersion {
    /// CloudEvents 1.0.
    #[default]
    #[serde(rename = "1.0")]
    V1,
}

/// Why bytes are no event.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EventError {
    /// Longer than [`MAX_EVENT_BYTES`].
    #[error("the event has {bytes} bytes; at most {MAX_EVENT_BYTES} are accepted")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not a JSON object.
    #[error("not a JSON object: {0}")]
    Malformed(String),
    /// A required attribute is missing.
    #[error("missing attribute `{0}`")]
    Missing(&'static str),
    /// An attribute has the wrong type or content.
    #[error("attribute `{attribute}` {problem}")]
    Attribute {
        /// Which one.
        attribute: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `time` is no timestamp.
    #[error("attribute `time`: {0}")]
    Time(#[from] TimestampError),
    /// `time` is more than [`MAX_AHEAD`](crate::timestamp::MAX_AHEAD) after arrival.
    #[error("attribute `time`: {0} is too far in the future; events to 24 hours after arrival are accepted")]
    TimeAhead(Timestamp),
}

impl Event {
    /// A new event of Farol's own making, `data` from anything that serialises to a JSON object.
    ///
    /// # Panics
    /// If `data` does not serialise to an object: that is a mistake in the calling code, never in input.
    pub fn new(
        id: Uuid,
        time: Timestamp,
        event_type: EventType,
        source: impl Into<String>,
        data: &impl Serialize,
    ) -> Self {
        let Ok(Value::Object(data)) = serde_json::to_value(data) else {
            panic!("the data of a `{event_type}` event must serialise to a JSON object");
        };
        Self {
            specversion: SpecVersion::V1,
            id: id.to_string(),
            time,
            event_type,
            source: source.into(),
            dataversion: 1,
            correlationid: None,
            traceparent: None,
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
            data,
        }
    }

    /// The structured JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event has only string keys and finite numbers, so it serialises")
    }

    /// Parses and checks one event in structured JSON. `arrival` stands in for a missing `time`, and bounds a given one.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`EventError`].
    pub fn parse(json: &[u8], arrival: Timestamp) -> Result<Self, EventError> {
        Self::from_attributes(attributes(json)?, arrival)
    }

    /// Parses an event that was checked when it arrived and is kept somewhere; it has its `time`.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`EventError`].
    pub fn parse_kept(json: &[u8]) -> Result<Self, EventError> {
        Self::of_any_time(attributes(json)?, Timestamp::EPOCH)
    }

    /// Checks the attributes of one event, as they stand in structured JSON. `arrival` stands in for a missing `time`, and bounds
    /// a given one.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`EventError`].
    pub fn from_attributes(
        attributes: serde_json::Map<String, Value>,
        arrival: Timestamp,
    ) -> Result<Self, EventError> {
        let event = Self::of_any_time(attributes, arrival)?;
        if event.time.is_too_far_after(arrival) { Err(EventError::TimeAhead(event.time)) } else { Ok(event) }
    }

    fn of_any_time(
        mut attributes: serde_json::Map<String, Value>,
        arrival: Timestamp,
    ) -> Result<Self, EventError> {
        match required(&mut attributes, "specversion")?.as_str() {
            "1.0" => {}
            other => {
                return Err(invalid("specversion", format!("must be \"1.0\", not \"{}\"", shorten(other))));
            }
        }
        let id = required(&mut attributes, "id")?;
        let event_type = EventType::new(required(&mut attributes, "type")?);
        let source = required(&mut attributes, "source")?;
        let time = match optional(&mut attributes, "time")? {
            Some(text) => text.parse()?,
            None => arrival,
        };
        let correlationid = optional(&mut attributes, "correlationid")?
            .map(|text| text.parse().map_err(|e| invalid("correlationid", format!("is not a UUID: {e}"))))
            .transpose()?;
        let dataversion = match attributes.remove("dataversion") {
            None | Some(Value::Null) => 1,
            Some(given) => integer(&given)
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v >= 1)
                .ok_or_else(|| invalid("dataversion", "must be an integer of at least 1"))?,
        };
        if attributes.contains_key("data_base64") {
            return Err(invalid("data_base64", "is not accepted: `data` must be a JSON object"));
        }
        let data = match attributes.remove("data") {
            None | Some(Value::Null) => serde_json::Map::new(),
            Some(Value::Object(data)) => data,
            Some(_) => return Err(invalid("data", "must be a JSON object")),
        };
        let event = Self {
            specversion: SpecVersion::V1,
            id,
            time,
            event_type,
            source,
            dataversion,
            correlationid,
            traceparent: optional(&mut attributes, "traceparent")?,
            subject: optional(&mut attributes, "subject")?,
            datacontenttype: optional(&mut attributes, "datacontenttype")?,
            dataschema: optional(&mut attributes, "dataschema")?,
            extensions: extensions(attributes)?,
            data,
        };
        Ok(event)
    }
}

/// The attributes of an event in structured JSON.
fn attributes(json: &[u8]) -> Result<serde_json::Map<String, Value>, EventError> {
    if json.len() > MAX_EVENT_BYTES {
        return Err(EventError::TooLong { bytes: json.len() });
    }
    serde_json::from_slice(json).map_err(|e| EventError::Malformed(e.to_string()))
}

fn invalid(attribute: &str, problem: impl Into<String>) -> EventError {
    EventError::Attribute { attribute: shorten(attribute), problem: problem.into() }
}

/// The integer that a JSON number is. `2`, `2.0` and `2e0` are one number in JSON (and in JSON Schema).
fn integer(value: &Value) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_number()?;
    if let Some(whole) = number.as_i128() {
        return Some(whole);
    }
    let float = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() <= EXACT)?;
    // Up to 2^53 every integer has its own float, so its text without a fraction is the integer.
    format!("{float:.0}").parse().ok()
}

fn optional(
    attributes: &mut serde_json::Map<String, Value>,
    name: &'static str,
) -> Result<Option<String>, EventError> {
    match attributes.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err(invalid(name, "must not be empty")),
        Some(Value::String(text)) if text.len() > MAX_ATTRIBUTE_BYTES => {
            Err(invalid(name, format!("must have at most {MAX_ATTRIBUTE_BYTES} bytes")))
        }
        Some(Value::String(text)) if text.chars().any(char::is_control) => {
            Err(invalid(name, "must not contain control characters"))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(name, "must be a string")),
    }
}

fn required(
    attributes: &mut serde_json::Map<String, Value>,
    name: &'static str,
) -> Result<String, EventError> {
    optional(attributes, name)?.ok_or(EventError::Missing(name))
}

/// Extension names are lower-case letters and digits, their values booleans, integers or strings (CloudEvents 3.1, 3.2).
fn extensions(attributes: serde_json::Map<String, Value>) -> Result<BTreeMap<String, Value>, EventError> {
    if attributes.len() > MAX_EXTENSIONS {
        return Err(invalid("extensions", format!("are more than {MAX_EXTENSIONS}")));
    }
    for (name, value) in &attributes {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(invalid(
                name,
                "is unknown, and extension names have only lower-case letters and digits",
            ));
        }
        let fits = match value {
            Value::String(text) => text.len() <= MAX_ATTRIBUTE_BYTES,
            Value::Bool(_) => true,
            Value::Number(_) => integer(value).is_some(),
            _ => false,
        };
        if !fits {
            return Err(invalid(name, "must be a string of at most 1024 bytes, a boolean or an integer"));
        }
    }
    Ok(attributes.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attributes: &str) -> Result<Event, EventError> {
        let json = format!(r#"{{"specversion":"1.0","id":"1","type":"t","source":"s",{attributes}}}"#);
        Event::parse(json.as_bytes(), Timestamp::EPOCH)
    }

    #[test]
    fn the_head_of_an_event_is_read_alone() {
        let json = br#"{"source":"s\u0041","data":{"type":"no"},"type":"t","id":7}"#;
        let head = EventHead::parse(json).unwrap();
        assert_eq!((head.event_type.as_ref(), head.source.as_ref()), ("t", "sA"));
        for other in [&b"{\"type\":\"t\"}"[..], b"[]", b"", b"{\"type\":1,\"source\":\"s\"}"] {
            assert_eq!(EventHead::parse(other), None);
        }
    }

    #[test]
    fn a_time_may_lie_a_day_after_arrival_and_any_time_before_it() {
        for taken in ["1970-01-02T00:00:00Z", "1969-01-01T00:00:00Z", "0001-01-01T00:00:00Z"] {
            assert!(parse(&format!(r#""time":"{taken}""#)).is_ok(), "{taken}");
        }
        let late = r#""time":"1970-01-02T00:00:00.000001Z""#;
        let refused = parse(late).unwrap_err();
        assert!(matches!(refused, EventError::TimeAhead(_)), "{refused}");
        let kept = format!(r#"{{"specversion":"1.0","id":"1","type":"t","source":"s",{late}}}"#);
        assert!(Event::parse_kept(kept.as_bytes()).is_ok(), "it was judged when it arrived");
    }

    #[test]
    fn an_integer_is_one_however_it_is_written() {
        assert_eq!(parse(r#""dataversion":2.0"#).unwrap().dataversion, 2);
        assert_eq!(parse(r#""dataversion":2e0"#).unwrap().dataversion, 2);
        assert!(parse(r#""x":-18.0,"y":18446744073709551615"#).is_ok());
        for refused in
            [r#""dataversion":2.5"#, r#""dataversion":0.0"#, r#""dataversion":1e300"#, r#""x":0.5"#]
        {
            assert!(matches!(parse(refused), Err(EventError::Attribute { .. })), "{refused}");
        }
    }
}

//! What events on topic `system-events` tell of services. The event's `source` is the service; its `data` is one of
//! the structs here.
//!
//! [`ServiceFact::of`] is the one way to read such an event: it knows which types tell of services and checks the data.
//! Senders are programs in any language, so reading is tolerant where nothing can be misunderstood (the founding
//! document's Portuguese field names or English ones, unknown fields, a tag that is a number) and strict where it can
//! (a value that is no finite number, a field given under both names).
//!
//! Limits, each with an error that names it: [`MAX_SERVICE_NAME_BYTES`], [`MAX_NAME_BYTES`], [`MAX_TEXT_BYTES`],
//! [`MAX_TAGS`], [`MAX_CHECKS`], [`MAX_COUNTERS`], [`MAX_LATENCY_MS`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::envelope::{Event, EventType};
use crate::is_path_step;
use crate::timestamp::Timestamp;

mod check;
mod metric;
mod resilience;
mod simulation;

pub use check::{CheckChanged, CheckKind, CheckState};
pub use metric::{Metric, names};
pub use resilience::{BreakerMoved, BreakerState, PolicyMeasured};
pub use simulation::{MAX_LATENCY_MS, SimulationApplied, SimulationChanged};

/// The longest accepted name of a service, in bytes.
pub const MAX_SERVICE_NAME_BYTES: usize = 256;
/// The longest accepted name of a metric, tag, check, policy or caller, and the longest tag, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest accepted reason, address, description or version, in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// How many tags a metric or labels a service may carry.
pub const MAX_TAGS: usize = 32;
/// How many checks a registration may name.
pub const MAX_CHECKS: usize = 64;
/// How many counters, and how many settings, a policy may carry.
pub const MAX_COUNTERS: usize = 64;

/// One thing that an event tells of a service.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceFact {
    /// It was registered, or its registration changed.
    Registered(Registration),
    /// Its registration was taken back.
    Removed,
    /// It started.
    Started(ServiceDescription),
    /// It stopped, by intention.
    Stopped(Reason),
    /// It says that it lives.
    Heartbeat,
    /// One of its metrics was collected.
    Metric(Metric),
    /// It became unavailable.
    Unavailable(Reason),
    /// It recovered.
    Recovered(Reason),
    /// It is being worked on.
    MaintenanceStarted(Maintenance),
    /// The work on it is over.
    MaintenanceEnded(Reason),
    /// One of its checks changed its state.
    CheckChanged(CheckChanged),
    /// A circuit breaker in front of it moved.
    BreakerMoved(BreakerMoved),
    /// How a policy of its, or in front of it, stands.
    PolicyMeasured(PolicyMeasured),
    /// It is to be simulated otherwise.
    SimulationChanged(SimulationChanged),
    /// How it is simulated now.
    SimulationApplied(SimulationApplied),
}

/// An event claims to tell of a service and doesn't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a `{event_type}` event whose {problem}")]
pub struct ServiceFactError {
    /// What the event claims to be.
    pub event_type: EventType,
    /// What is wrong with it, to be read after "whose".
    pub problem: String,
}

/// What a service says of itself. Every part is optional.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceDescription {
    /// Its version.
    #[serde(default, alias = "versao", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where it is reached.
    #[serde(default, alias = "endereco", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What sort of service it is (`host`, `api`, …).
    #[serde(default, alias = "tipo", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it is for, for people.
    #[serde(default, alias = "descricao", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What a registration says of a service. It says all there is: what an earlier one said and this one doesn't is no longer so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registration {
    /// What it says to people.
    #[serde(flatten)]
    pub description: ServiceDescription,
    /// The names of its checks, if it says so: those that it doesn't name are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<String>>,
}

/// Why something happened, if its sender says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// The reason.
    #[serde(
        default,
        alias = "motivo",
        alias = "erro",
        alias = "error",
        skip_serializing_if = "Option::is_none"
    )]
    pub reason: Option<String>,
}

/// Work on a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Maintenance {
    /// Why.
    #[serde(default, alias = "motivo", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who does it.
    #[serde(default, alias = "por", skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Until when; until somebody says so, without it.
    #[serde(default, alias = "ate", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub until: Option<Timestamp>,
}

impl ServiceFact {
    /// The fact that an event tells, if it is of a type that tells of services.
    ///
    /// # Errors
    /// When the event claims to be such a fact and its source or data is not what the type asks for.
    pub fn of(event: &Event) -> Option<Result<Self, ServiceFactError>> {
        let read = reader(&event.event_type)?;
        let fact = service_name(&event.source).and_then(|()| read(&event.data));
        Some(fact.map_err(|problem| ServiceFactError { event_type: event.event_type.clone(), problem }))
    }

    /// Whether events of this type tell of services.
    pub fn is_told_by(event_type: &EventType) -> bool {
        reader(event_type).is_some()
    }
}

type Reader = fn(&Map<String, Value>) -> Result<ServiceFact, String>;

/// What reads the data of events of this type.
fn reader(event_type: &EventType) -> Option<Reader> {
    let read: Reader = match event_type {
        t if *t == EventType::METRIC_COLLECTED => |data| read::<Metric>(data).map(ServiceFact::Metric),
        t if *t == EventType::SERVICE_HEARTBEAT => |_| Ok(ServiceFact::Heartbeat),
        t if *t == EventType::POLICY_MEASURED => {
            |data| read::<PolicyMeasured>(data).map(ServiceFact::PolicyMeasured)
        }
        t if *t == EventType::SERVICE_REGISTERED => {
            |data| read::<Registration>(data).map(ServiceFact::Registered)
        }
        t if *t == EventType::SERVICE_REMOVED => |_| Ok(ServiceFact::Removed),
        t if *t == EventType::SERVICE_STARTED => {
            |data| read::<ServiceDescription>(data).map(ServiceFact::Started)
        }
        t if *t == EventType::SERVICE_STOPPED => |data| read::<Reason>(data).map(ServiceFact::Stopped),
        t if *t == EventType::SYSTEM_UNAVAILABLE => |data| read::<Reason>(data).map(ServiceFact::Unavailable),
        t if *t == EventType::SYSTEM_RECOVERED => |data| read::<Reason>(data).map(ServiceFact::Recovered),
        t if *t == EventType::MAINTENANCE_STARTED => {
            |data| read::<Maintenance>(data).map(ServiceFact::MaintenanceStarted)
        }
        t if *t == EventType::MAINTENANCE_ENDED => {
            |data| read::<Reason>(data).map(ServiceFact::MaintenanceEnded)
        }
        t if *t == EventType::CHECK_CHANGED => {
            |data| read::<CheckChanged>(data).map(ServiceFact::CheckChanged)
        }
        t if *t == EventType::BREAKER_OPENED => |data| moved(data, BreakerState::Open),
        t if *t == EventType::BREAKER_HALF_OPENED => |data| moved(data, BreakerState::HalfOpen),
        t if *t == EventType::BREAKER_CLOSED => |data| moved(data, BreakerState::Closed),
        t if *t == EventType::SIMULATION_CHANGED => {
            |data| read::<SimulationChanged>(data).map(ServiceFact::SimulationChanged)
        }
        t if *t == EventType::SIMULATION_APPLIED => {
            |data| read::<SimulationApplied>(data).map(ServiceFact::SimulationApplied)
        }
        _ => return None,
    };
    Some(read)
}

/// Data that can be checked after it was read.
trait Checked: for<'de> Deserialize<'de> {
    /// What is wrong with it, to be read after "whose".
    fn check(&self) -> Result<(), String>;
}

fn read<T: Checked>(data: &Map<String, Value>) -> Result<T, String> {
    let read = T::deserialize(data).map_err(|e| format!("data is not as documented: {e}"))?;
    read.check()?;
    Ok(read)
}

/// A breaker's move, whose data must not contradict the event's type.
fn moved(data: &Map<String, Value>, to: BreakerState) -> Result<ServiceFact, String> {
    let moved: BreakerMoved = read(data)?;
    if moved.to != to {
        return Err(format!("`to` is `{}`, not `{to}` as its type says", moved.to));
    }
    Ok(ServiceFact::BreakerMoved(moved))
}

fn service_name(source: &str) -> Result<(), String> {
    if source.len() > MAX_SERVICE_NAME_BYTES {
        return Err(format!("source has more than {MAX_SERVICE_NAME_BYTES} bytes"));
    }
    if source.trim().is_empty() {
        return Err("source is blank: nobody could tell which service that is".to_owned());
    }
    if is_path_step(source) {
        return Err(format!("source is `{source}`: no address can have that for a name"));
    }
    Ok(())
}

/// A name: not empty, bounded, no control characters.
fn name(field: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("`{field}` is empty"));
    }
    bounded(field, text, MAX_NAME_BYTES)
}

/// Optional text for people: bounded, no control characters but line breaks and tabs.
fn text(field: &str, text: Option<&str>) -> Result<(), String> {
    text.map_or(Ok(()), |text| bounded(field, text, MAX_TEXT_BYTES))
}

fn bounded(field: &str, text: &str, limit: usize) -> Result<(), String> {
    if text.len() > limit {
        return Err(format!("`{field}` has more than {limit} bytes"));
    }
    if text.chars().any(|c| c.is_control() && (limit == MAX_NAME_BYTES || !matches!(c, '\n' | '\r' | '\t'))) {
        return Err(format!("`{field}` has control characters"));
    }
    Ok(())
}

/// At most [`MAX_COUNTERS`] numbers, each under a name.
fn numbers(field: &str, numbers: &BTreeMap<String, f64>) -> Result<(), String> {
    if numbers.len() > MAX_COUNTERS {
        return Err(format!("`{field}` has more than {MAX_COUNTERS} entries"));
    }
    numbers.keys().try_for_each(|key| name(field, key))
}

impl Checked for ServiceDescription {
    fn check(&self) -> Result<(), String> {
        text("version", self.version.as_deref())?;
        text("address", self.address.as_deref())?;
        text("kind", self.kind.as_deref())?;
        text("description", self.description.as_deref())
    }
}

impl Checked for Registration {
    fn check(&self) -> Result<(), String> {
        let checks = self.checks.as_deref().unwrap_or_default();
        if checks.len() > MAX_CHECKS {
            return Err(format!("`checks` has more than {MAX_CHECKS} entries"));
        }
        checks.iter().try_for_each(|check| name("checks", check))?;
        self.description.check()
    }
}

impl Checked for Reason {
    fn check(&self) -> Result<(), String> {
        text("reason", self.reason.as_deref())
    }
}

impl Checked for Maintenance {
    fn check(&self) -> Result<(), String> {
        text("reason", self.reason.as_deref())?;
        text("by", self.by.as_deref())
    }
}

#[cfg(test)]
mod tests;

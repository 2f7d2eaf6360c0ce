//! Resilience policies (circuit breakers, retries, bulkheads, …), as events tell of them.
//!
//! A policy is told apart by who calls (`caller`) and its name. The event's source is the service that is called; where
//! a policy guards no service that has a name, it is the caller.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::service::{Checked, MAX_COUNTERS, name, numbers, text};

/// How a circuit breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// A bounded number of probes pass.
    HalfOpen,
    /// Calls are rejected.
    Open,
}

impl BreakerState {
    /// The word of the wire and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half_open",
            BreakerState::Open => "open",
        }
    }

    /// The type of the events that tell of a move to this state.
    pub fn event_type(self) -> crate::EventType {
        match self {
            BreakerState::Closed => crate::EventType::BREAKER_CLOSED,
            BreakerState::HalfOpen => crate::EventType::BREAKER_HALF_OPENED,
            BreakerState::Open => crate::EventType::BREAKER_OPENED,
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A circuit breaker moved: the data of `disjuntor_aberto`, `disjuntor_meio_aberto` and `disjuntor_fechado`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerMoved {
    /// Who makes the calls that it guards.
    pub caller: String,
    /// The breaker's name, unique within its caller.
    pub name: String,
    /// The service that is called, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What it was.
    pub from: BreakerState,
    /// What it is, as the event's type says.
    pub to: BreakerState,
    /// Why it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What it has counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, f64>,
}

/// How a policy stands: the data of `politica_medida`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyMeasured {
    /// Who makes the calls that it guards.
    pub caller: String,
    /// The policy's name, unique within its caller.
    pub name: String,
    /// What it is (`circuit_breaker`, `retry`, `bulkhead`, `rate_limiter`, `timeout`, …).
    pub kind: String,
    /// The service that is called, if it has a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its state, in the words of its kind (`closed`, `open`, `full`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What it has counted.
    #[serde(default)]
    pub counters: BTreeMap<String, f64>,
    /// How it is set.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub settings: Map<String, Value>,
}

impl Checked for BreakerMoved {
    fn check(&self) -> Result<(), String> {
        name("caller", &self.caller)?;
        name("name", &self.name)?;
        self.service.as_deref().map_or(Ok(()), |service| name("service", service))?;
        text("cause", self.cause.as_deref())?;
        numbers("counters", &self.counters)
    }
}

impl Checked for PolicyMeasured {
    fn check(&self) -> Result<(), String> {
        name("caller", &self.caller)?;
        name("name", &self.name)?;
        name("kind", &self.kind)?;
        self.service.as_deref().map_or(Ok(()), |service| name("service", service))?;
        self.state.as_deref().map_or(Ok(()), |state| name("state", state))?;
        if self.settings.len() > MAX_COUNTERS {
            return Err(format!("`settings` has more than {MAX_COUNTERS} entries"));
        }
        numbers("counters", &self.counters)
    }
}

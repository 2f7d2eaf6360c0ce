//! Simulated services: how they are to behave, and how they do.

use serde::{Deserialize, Serialize};

use crate::service::Checked;
use crate::timestamp::Timestamp;

/// The longest latency, and the longest variation of it, that a simulated service can be given: an hour.
pub const MAX_LATENCY_MS: u64 = 3_600_000;

/// A command to a simulated service: the data of `simulacao_alterada`. What is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SimulationChanged {
    /// Which share of requests fails, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_rate: Option<f64>,
    /// How long an answer takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// By how much that varies, up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_variation_ms: Option<u64>,
    /// Whether the service answers at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<bool>,
    /// Until when this holds; then everything is again as the simulation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub until: Option<Timestamp>,
}

/// How a simulated service behaves now: the data of `simulacao_aplicada`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SimulationApplied {
    /// Which share of requests fails, 0 to 1.
    pub failure_rate: f64,
    /// How long an answer takes.
    pub latency_ms: u64,
    /// By how much that varies, up and down.
    #[serde(default)]
    pub latency_variation_ms: u64,
    /// Whether it answers nothing at all.
    #[serde(default)]
    pub down: bool,
    /// Until when this holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub until: Option<Timestamp>,
}

impl SimulationChanged {
    /// What is wrong with it, if anything: what a door checks before it takes the command.
    ///
    /// # Errors
    /// A rate outside 0 to 1, or a latency beyond [`MAX_LATENCY_MS`]; to be read after "whose".
    pub fn validate(&self) -> Result<(), String> {
        self.failure_rate.map_or(Ok(()), rate)?;
        delay("latency_ms", self.latency_ms.unwrap_or(0))?;
        delay("latency_variation_ms", self.latency_variation_ms.unwrap_or(0))
    }
}

fn rate(rate: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&rate) { Ok(()) } else { Err("`failure_rate` is not between 0 and 1".into()) }
}

fn delay(field: &str, delay_ms: u64) -> Result<(), String> {
    if delay_ms <= MAX_LATENCY_MS { Ok(()) } else { Err(format!("`{field}` is more than {MAX_LATENCY_MS}")) }
}

impl Checked for SimulationChanged {
    fn check(&self) -> Result<(), String> {
        self.validate()
    }
}

impl Checked for SimulationApplied {
    fn check(&self) -> Result<(), String> {
        rate(self.failure_rate)?;
        delay("latency_ms", self.latency_ms)?;
        delay("latency_variation_ms", self.latency_variation_ms)
    }
}

//! Active checks of a service, as events tell of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::service::{Checked, name, text};

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It has not come to a finding yet.
    Unknown,
    /// The service answers as it should.
    Up,
    /// It doesn't.
    Down,
}

impl CheckState {
    /// Every state.
    pub const ALL: [CheckState; 3] = [CheckState::Unknown, CheckState::Up, CheckState::Down];

    /// The word of the wire and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckState::Unknown => "unknown",
            CheckState::Up => "up",
            CheckState::Down => "down",
        }
    }

    /// The state of a word of the wire.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for CheckState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Sends an HTTP request.
    Http,
    /// Opens a TCP connection.
    Tcp,
    /// Waits for heartbeats of the service.
    Ttl,
}

impl CheckKind {
    /// The word of the wire and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckKind::Http => "http",
            CheckKind::Tcp => "tcp",
            CheckKind::Ttl => "ttl",
        }
    }
}

/// An active check changed its state: the data of `verificacao_alterada`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckChanged {
    /// The check's name, unique within its service.
    pub check: String,
    /// What it was.
    pub from: CheckState,
    /// What it is.
    pub to: CheckState,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the check does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CheckKind>,
    /// Whether the service is down when this check is. The failure of one that isn't critical degrades it.
    #[serde(default = "critical")]
    pub critical: bool,
    /// How long the answer took that changed the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_time_ms: Option<f64>,
}

fn critical() -> bool {
    true
}

impl Checked for CheckChanged {
    fn check(&self) -> Result<(), String> {
        name("check", &self.check)?;
        text("reason", self.reason.as_deref())
    }
}

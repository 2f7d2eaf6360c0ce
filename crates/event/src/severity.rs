//! How bad an alert is, and what a sender thought of its own reading.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How bad an alert is. Ordered: [`Severity::Info`] < … < [`Severity::Critical`]. JSON carries the lower-case word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the record.
    Info = 1,
    /// Needs attention.
    Warning = 2,
    /// An error that needs correction.
    Error = 3,
    /// Act now.
    Critical = 4,
}

impl Severity {
    /// Every severity, mildest first.
    pub const ALL: [Severity; 4] = [Severity::Info, Severity::Warning, Severity::Error, Severity::Critical];

    /// The founding documents' number, 1 to 4, as stored in tables.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The severity with that number.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|s| i64::from(s.number()) == number)
    }

    /// The lower-case word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of `info`, `warning`, `error`, `critical`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a severity; use info, warning, error or critical")]
pub struct UnknownSeverity(pub String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    /// Accepts any letter case.
    fn from_str(text: &str) -> Result<Self, UnknownSeverity> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownSeverity(crate::timestamp::shorten(text)))
    }
}

/// What the sender of a reading thinks of it. Farol's own rules decide alerts; this is only kept and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    /// Within the expected range.
    Normal,
    /// Near or above the warning level.
    Warning,
    /// Near or above the critical level.
    Critical,
}

impl AlertLevel {
    /// Every level, mildest first.
    pub const ALL: [AlertLevel; 3] = [AlertLevel::Normal, AlertLevel::Warning, AlertLevel::Critical];

    /// The level of a word of the wire.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    /// The lower-case word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertLevel::Normal => "normal",
            AlertLevel::Warning => "warning",
            AlertLevel::Critical => "critical",
        }
    }
}

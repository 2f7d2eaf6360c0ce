//! Instants: RFC 3339 in UTC on the wire, integer microseconds since the Unix epoch in storage.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An instant in UTC with microsecond resolution.
///
/// Parsing accepts any RFC 3339 text with an offset; digits past the sixth are cut off. Printing always gives UTC with
/// six fractional digits (`2025-09-16T21:41:41.011144Z`), so that texts sort as instants do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// Why a text or number is no [`Timestamp`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The text is not RFC 3339.
    #[error("`{text}` is not an RFC 3339 timestamp such as 2025-09-16T21:41:41.011144Z: {reason}")]
    Malformed {
        /// The refused text, shortened.
        text: String,
        /// What the parser said.
        reason: String,
    },
    /// The instant is outside years 0000 to 9999.
    #[error("{micros} microseconds since the Unix epoch is outside the years 0000 to 9999")]
    OutOfRange {
        /// The refused number.
        micros: i64,
    },
}

/// 0000-01-01T00:00:00Z.
const MIN_MICROS: i64 = -62_167_219_200_000_000;
/// 9999-12-30T22:00:00Z: the last instant that the calendar library prints in every offset.
const MAX_MICROS: i64 = 253_402_207_200_000_000;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// From microseconds since the Unix epoch.
    ///
    /// # Errors
    /// [`TimestampError::OutOfRange`] outside the years 0000 to 9999.
    pub fn from_micros(micros: i64) -> Result<Self, TimestampError> {
        if (MIN_MICROS..=MAX_MICROS).contains(&micros) {
            Ok(Self(micros))
        } else {
            Err(TimestampError::OutOfRange { micros })
        }
    }

    /// From milliseconds since the Unix epoch, clamped to the years 0000 to 9999 (record timestamps are untrusted).
    pub fn from_millis_clamped(millis: i64) -> Self {
        Self(millis.saturating_mul(1000).clamp(MIN_MICROS, MAX_MICROS))
    }

    /// From the system's clock reading, clamped to the years 0000 to 9999.
    pub fn from_system_time(time: std::time::SystemTime) -> Self {
        let micros = match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(MAX_MICROS),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(MIN_MICROS, |m| -m),
        };
        Self(micros.clamp(MIN_MICROS, MAX_MICROS))
    }

    /// Microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant moved forward, stopping at the end of the range.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(by).min(MAX_MICROS))
    }

    /// This instant moved back, stopping at the start of the range.
    #[must_use]
    pub fn saturating_sub(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(by).max(MIN_MICROS))
    }

    /// How long after `earlier` this instant is; zero if it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_micros)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let malformed = |reason: String| TimestampError::Malformed { text: shorten(text), reason };
        // The calendar library also takes forms that RFC 3339 doesn't (a date alone, bracketed zones), so look first.
        let shape = text.as_bytes();
        if shape.len() > 64 || shape.get(10).is_none_or(|b| !matches!(b, b'T' | b't' | b' ')) {
            return Err(malformed("expected date, `T`, time and offset".into()));
        }
        if shape.contains(&b'[') {
            return Err(malformed("zone names in brackets are not accepted".into()));
        }
        let parsed: jiff::Timestamp = text.parse().map_err(|e: jiff::Error| malformed(e.to_string()))?;
        // Floor, not truncate towards zero, so that cutting digits never moves an instant forward.
        let micros = i64::try_from(parsed.as_nanosecond().div_euclid(1000))
            .map_err(|_| malformed("outside the supported range".into()))?;
        Self::from_micros(micros)
    }
}

/// The start of a text that may be long or hostile, for error messages.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 64;
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => write!(f, "{instant:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

//! Durations as rules and checks write them: whole numbers with units, largest unit first, such as `30s`, `1h30m` or `250ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest duration that can be written.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// A duration whose text form is `1h30m` rather than seconds and nanoseconds. Millisecond resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DurationText(Duration);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Empty, a missing or unknown unit, a fraction, a sign, units out of order.
    #[error(
        "`{0}` is not a duration: write whole numbers with units d, h, m, s or ms, largest first, such as 30s or 1h30m"
    )]
    Malformed(String),
    /// Longer than [`MAX_DURATION`].
    #[error("`{0}` is longer than 366 days")]
    TooLong(String),
}

/// Units from the largest to the smallest, with their milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl DurationText {
    /// The duration cut to whole milliseconds, and to [`MAX_DURATION`].
    pub fn new(duration: Duration) -> Self {
        let millis = u64::try_from(duration.min(MAX_DURATION).as_millis()).unwrap_or(u64::MAX);
        Self(Duration::from_millis(millis))
    }

    /// The duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for DurationText {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let shown = || text.chars().take(40).collect::<String>();
        let malformed = || DurationError::Malformed(shown());
        let mut rest = text;
        let mut total_ms: u64 = 0;
        let mut units = UNITS.iter();
        while !rest.is_empty() || total_ms == 0 && rest.len() == text.len() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            // The search goes on where the last unit was found, so that units can't repeat or grow.
            let (_, unit_ms) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
            if number.is_empty() {
                return Err(malformed());
            }
            let number: u64 = number.parse().map_err(|_| DurationError::TooLong(shown()))?;
            total_ms = number
                .checked_mul(*unit_ms)
                .and_then(|ms| total_ms.checked_add(ms))
                .ok_or_else(|| DurationError::TooLong(shown()))?;
            rest = after;
        }
        let duration = Duration::from_millis(total_ms);
        if duration > MAX_DURATION { Err(DurationError::TooLong(shown())) } else { Ok(Self(duration)) }
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in UNITS {
            let number = rest / u128::from(unit_ms);
            rest %= u128::from(unit_ms);
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_add_up_and_print_back() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d2h3m4s5ms", 93_784_005),
            ("0s", 0),
        ] {
            let parsed: DurationText = text.parse().unwrap();
            assert_eq!(parsed.get(), Duration::from_millis(ms), "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!("90s".parse::<DurationText>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "30", "s", "-5s", "1.5h", "5 m", "1m1h", "1s1s", "5M", "1w", "٣s", "5m "] {
            assert!(matches!(text.parse::<DurationText>(), Err(DurationError::Malformed(_))), "{text:?}");
        }
        for text in ["367d", "99999999999999999999s", "18446744073709551615d"] {
            assert!(matches!(text.parse::<DurationText>(), Err(DurationError::TooLong(_))), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_prints_and_parses_back(ms in 0u64..=366 * 86_400_000) {
            let duration = DurationText::new(Duration::from_millis(ms));
            prop_assert_eq!(duration.to_string().parse::<DurationText>().unwrap(), duration);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}|[0-9dhms]{0,40}") {
            let _ = text.parse::<DurationText>();
        }
    }
}

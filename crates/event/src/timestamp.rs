//! Instants: RFC 3339 in UTC on the wire, integer microseconds since the Unix epoch in storage.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How far after its arrival the time of a reading or an event may lie: clocks differ; beyond this it is a mistake, and would head
/// every list of the newest until then.
pub const MAX_AHEAD: Duration = Duration::from_secs(24 * 3600);

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

    /// Whether this is more than [`MAX_AHEAD`] after `arrival`.
    pub fn is_too_far_after(self, arrival: Timestamp) -> bool {
        self > arrival.saturating_add(MAX_AHEAD)
    }

    /// How long after `earlier` this instant is; zero if it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_micros)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        match plain_utc(text.as_bytes()) {
            Some(micros) => Self::from_micros(micros),
            None => Self::parse_any_form(text),
        }
    }
}

impl Timestamp {
    /// With the calendar library, which takes everything that is allowed and can say what isn't.
    fn parse_any_form(text: &str) -> Result<Self, TimestampError> {
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

/// The microseconds of a text such as `2025-09-16T21:41:41.011144Z`, which is what nearly every reading has; with none to nine
/// digits after the seconds, in UTC, from 1970 to 9998. `None` for any other text, right or wrong.
fn plain_utc(text: &[u8]) -> Option<i64> {
    let (moment, fraction) = text.split_at_checked("2025-09-16T21:41:41".len())?;
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] = moment
    else {
        return None;
    };
    let year = number(&[y1, y2, y3, y4])?;
    let (month, day) = (number(&[m1, m2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?);
    let micros = match fraction {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => {
            let mut digits = digits.iter().chain(b"000000").take(6);
            digits.try_fold(0, |sum, digit| Some(sum * 10 + number(&[*digit])?))?
        }
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    let in_range = (1970..=9998).contains(&year)
        && (1..=days_in_month).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    in_range.then(|| {
        let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        seconds * 1_000_000 + micros
    })
}

/// A number of decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(*digit - b'0')))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years are counted from March, so that the day that leap years
/// have more is a year's last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, months_since_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * months_since_march + 2) / 5;
    // 719,468 days lie between 1 March of year 0 and 1970-01-01.
    365 * year + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_plain_form_means_what_the_calendar_library_says(
            text in "(19[67][0-9]|20[0-9]{2}|2100|[0-9]{4})-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?Z",
        ) {
            if let Some(micros) = plain_utc(text.as_bytes()) {
                prop_assert_eq!(Timestamp::parse_any_form(&text), Timestamp::from_micros(micros));
            }
        }

        #[test]
        fn every_printed_instant_of_our_times_is_plain(micros in 0..253_370_764_800_000_000i64) {
            let text = Timestamp(micros).to_string();
            prop_assert_eq!(plain_utc(text.as_bytes()), Some(micros));
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in
            ["2025-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2025-04-31T00:00:00Z", "2025-01-01T24:00:00Z"]
        {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
        assert_eq!("2000-02-29T00:00:00Z".parse(), Ok(Timestamp(951_782_400_000_000)));
    }
}

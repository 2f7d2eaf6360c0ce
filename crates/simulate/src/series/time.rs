//! Times as they stand in files.

use farol_event::Timestamp;

/// A time and how it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedTime {
    /// The instant.
    pub timestamp: Timestamp,
    /// Whether the text named no offset, so that UTC was assumed.
    pub utc_assumed: bool,
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the time `{0}` is not understood (RFC 3339, YYYY-MM-DD HH:MM:SS[.ffffff], or seconds or milliseconds since 1970)"
)]
pub struct TimeError(pub String);

/// Numbers up to this are seconds since the epoch (until the year 5138), greater ones milliseconds.
const MAX_EPOCH_SECONDS: f64 = 1e11;
/// Greater numbers than this are no milliseconds either (the year 5138 again): probably nanoseconds, so refused, not guessed.
const MAX_EPOCH_MILLIS: f64 = 1e14;

/// Understands RFC 3339 (`2025-09-16T21:41:41.011144Z`), a date and time without an offset (`2013-12-02 21:15:00`, `T` or
/// blank between, up to nine decimals; taken as UTC), and seconds or milliseconds since the Unix epoch, told apart by
/// their size, decimals allowed.
///
/// # Errors
/// [`TimeError`] with the text, shortened.
pub fn parse_time(text: &str) -> Result<ParsedTime, TimeError> {
    let refuse = || TimeError(text.chars().take(64).collect());
    if text.len() > 64 || text.is_empty() {
        return Err(refuse());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(ParsedTime { timestamp, utc_assumed: false });
    }
    if let Ok(number) = text.parse::<f64>() {
        let timestamp = from_epoch(number).ok_or_else(refuse)?;
        return Ok(ParsedTime { timestamp, utc_assumed: false });
    }
    let timestamp = from_civil(text).ok_or_else(refuse)?;
    Ok(ParsedTime { timestamp, utc_assumed: true })
}

fn from_epoch(number: f64) -> Option<Timestamp> {
    let millis = match number.abs() {
        seconds if seconds <= MAX_EPOCH_SECONDS => number * 1000.0,
        millis if millis <= MAX_EPOCH_MILLIS => number,
        _ => return None,
    };
    let micros = (millis * 1000.0).round();
    // Below 1e17 every step is exact to a few microseconds and well inside i64; the text form avoids a lossy cast.
    Timestamp::from_micros(format!("{micros:.0}").parse().ok()?).ok()
}

/// `2013-12-02 21:15:00` and the like, without an offset.
fn from_civil(text: &str) -> Option<Timestamp> {
    // The calendar library also takes a date alone and bracketed zones; neither says when something was measured.
    let bytes = text.as_bytes();
    if !matches!(bytes.get(10), Some(b' ' | b'T' | b't')) || bytes.contains(&b'[') {
        return None;
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let instant = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Timestamp::from_micros(i64::try_from(instant.as_nanosecond().div_euclid(1000)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_is_understood() {
        let table = [
            ("2025-09-16T21:41:41.011144Z", "2025-09-16T21:41:41.011144Z", false),
            ("2025-09-16T18:41:41-03:00", "2025-09-16T21:41:41.000000Z", false),
            ("2025-09-16 21:41:41+00:00", "2025-09-16T21:41:41.000000Z", false),
            ("2013-12-02 21:15:00", "2013-12-02T21:15:00.000000Z", true),
            ("2013-12-02T21:15:00.5", "2013-12-02T21:15:00.500000Z", true),
            ("2013-12-02 21:15:00.123456", "2013-12-02T21:15:00.123456Z", true),
            ("2013-12-02 21:15", "2013-12-02T21:15:00.000000Z", true),
            ("1386018900", "2013-12-02T21:15:00.000000Z", false),
            ("1386018900.25", "2013-12-02T21:15:00.250000Z", false),
            ("1386018900123", "2013-12-02T21:15:00.123000Z", false),
            ("1.3860189e9", "2013-12-02T21:15:00.000000Z", false),
            ("0", "1970-01-01T00:00:00.000000Z", false),
        ];
        for (text, wanted, utc_assumed) in table {
            let parsed = parse_time(text).unwrap();
            assert_eq!(
                (parsed.timestamp.to_string().as_str(), parsed.utc_assumed),
                (wanted, utc_assumed),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "today",
            "2013-12-02",
            "02/12/2013 21:15",
            "2013-13-02 21:15:00",
            "2013-12-02 25:00:00",
            "nan",
            "inf",
            "1386018900123456789",
            "2013-12-02 21:15:00[Europe/Lisbon]",
            "21:15:00",
            "-",
            "1e300",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}

//! Reads the HTTP header `Retry-After` (RFC 9110, section 10.2.3): whole seconds, or a date.
//!
//! A date is read in the three forms that a recipient must know (section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`, and the
//! obsolete `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`. The name of the day is not checked. A date is by
//! the server's clock, so where the answer has a `Date` header it is measured from that, and clocks need not agree.

use std::time::{Duration, SystemTime};

/// The longest header that is read; a date needs 33 characters.
const MAX_LENGTH: usize = 64;

/// How long to wait by this header's value; zero if its date is past, `None` if it can't be read. `date` is the answer's
/// header `Date`, if it has one, and `now` what is measured from if that can't be read.
pub fn parse_retry_after(value: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if value.is_empty() || value.len() > MAX_LENGTH {
        return None;
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time, not garbage.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let server_now = date.filter(|date| date.len() <= MAX_LENGTH).and_then(|date| parse_date(date, now));
    Some(parse_date(value, now)?.duration_since(server_now.unwrap_or(now)).unwrap_or_default())
}

fn parse_date(value: &str, now: SystemTime) -> Option<SystemTime> {
    // Seven or eight parts, whichever form it is; one more shows that there is too much.
    let mut parts = [""; 9];
    let mut count = 0;
    for part in value.split([' ', ',', '-', ':']).filter(|part| !part.is_empty()) {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    let (year, month, day, time) = match (count, parts) {
        (8, [_, day, month, year, hour, minute, second, "GMT", _]) => {
            (year, month, day, [hour, minute, second])
        }
        (7, [_, month, day, hour, minute, second, year, ..]) => (year, month, day, [hour, minute, second]),
        _ => return None,
    };
    let days = days_since_1970(parse_year(year, now)?, parse_month(month)?, number(day, 31)?)?;
    let [hour, minute, second] = time;
    // 60: a leap second.
    let seconds = number(hour, 23)? * 3600 + number(minute, 59)? * 60 + number(second, 60)?;
    let since_1970 = days.checked_mul(86_400)?.checked_add(seconds)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since_1970))
}

fn number(text: &str, max: u64) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| digits && *value <= max)
}

/// A year of two digits that seems to be more than 50 years ahead is the last past one that ends so.
fn parse_year(text: &str, now: SystemTime) -> Option<u64> {
    let year = number(text, 9999)?;
    match text.len() {
        4 => Some(year),
        2 => {
            // Exact to a day or so, which is enough to tell centuries.
            let this_year = 1970 + now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() / 31_556_952;
            let in_this_century = this_year / 100 * 100 + year;
            Some(if in_this_century > this_year + 50 { in_this_century - 100 } else { in_this_century })
        }
        _ => None,
    }
}

fn parse_month(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    (1..).zip(MONTHS).find(|(_, name)| *name == text).map(|(month, _)| month)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; `None` for days that don't exist or lie before.
///
/// Counts from March, so that the leap day is the last of its year: Howard Hinnant, "chrono-compatible low-level date
/// algorithms" (2013).
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > length {
        return None;
    }
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    // Days from 0000-03-01 to 1970-01-01.
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// 1994-11-06 08:49:37, the example of the RFC.
    const EXAMPLE: u64 = 784_111_777;

    fn read(value: &str, now: SystemTime) -> Option<Duration> {
        parse_retry_after(value, None, now)
    }

    #[test]
    fn a_date_is_measured_from_the_servers_own_clock_if_the_answer_tells_it() {
        let (date, after) = (httpdate::fmt_http_date(at(EXAMPLE)), httpdate::fmt_http_date(at(EXAMPLE + 90)));
        for now in [at(EXAMPLE - 86_400), at(EXAMPLE + 86_400)] {
            assert_eq!(parse_retry_after(&after, Some(&date), now), Some(Duration::from_secs(90)));
            assert_eq!(parse_retry_after("120", Some(&date), now), Some(Duration::from_secs(120)));
            assert_eq!(parse_retry_after(&date, Some(&after), now), Some(Duration::ZERO));
        }
        let unreadable = parse_retry_after(&after, Some("yesterday"), at(EXAMPLE));
        assert_eq!(unreadable, Some(Duration::from_secs(90)), "the caller's clock");
    }

    #[test]
    fn seconds_are_read_as_they_stand() {
        assert_eq!(read("120", at(0)), Some(Duration::from_secs(120)));
        assert_eq!(read(" 0 ", at(0)), Some(Duration::ZERO));
        assert_eq!(read("99999999999999999999999", at(0)), Some(Duration::from_secs(u64::MAX)));
    }

    #[test]
    fn a_date_is_read_in_all_three_forms() {
        for date in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(read(date, at(EXAMPLE - 90)), Some(Duration::from_secs(90)), "{date}");
            assert_eq!(read(date, at(EXAMPLE + 90)), Some(Duration::ZERO), "{date}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_the_nearest_sensible_one() {
        // 2026-11-24: 94 is 1994, 30 is 2030.
        let now = at(1_795_478_400);
        assert_eq!(read("Sunday, 06-Nov-94 08:49:37 GMT", now), Some(Duration::ZERO));
        let ahead = read("Wednesday, 06-Nov-30 08:49:37 GMT", now).unwrap();
        assert_eq!(ahead.as_secs() / 86_400, 1443);
    }

    #[test]
    fn what_is_no_date_is_none() {
        for value in [
            "",
            "soon",
            "-5",
            "1.5",
            "Sun, 31 Feb 2027 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49:37 GMT GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "a b c d e f g h i j k",
        ] {
            assert_eq!(read(value, at(EXAMPLE)), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(
            value in ".{0,80}", date in ".{0,80}", now in 0..u64::from(u32::MAX),
        ) {
            parse_retry_after(&value, Some(&date), at(now));
        }

        #[test]
        fn what_another_implementation_writes_is_read_back(seconds in 0..253_402_300_799u64) {
            let written = httpdate::fmt_http_date(at(seconds));
            prop_assert_eq!(read(&written, at(0)), Some(Duration::from_secs(seconds)));
        }
    }
}

//! The plain form of a reading, which nearly all have, read in one pass.
//!
//! Every reading is parsed three times on its way, so this is where much of Farol's time goes: the general parser
//! needs several times as long. Plain is a JSON object whose texts have no escapes and whose documented fields come at most
//! once and have the type that they should. Whatever else a text may be, right or wrong, is left to the general parser: this one
//! never says what is wrong, and where it gives a reading, the general one would give the same (a property test compares them).

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Location, MAX_UNKNOWN_FIELDS, RawReading};
use crate::severity::AlertLevel;

/// The fields of a plain reading; `None` for any other text.
pub(super) fn parse(json: &str) -> Option<RawReading<'_>> {
    let mut scanner = Scanner { text: json, rest: json.as_bytes() };
    let mut raw = RawReading::default();
    scanner.object(|scanner, name| match name {
        "timestamp" => fill(&mut raw.timestamp, Cow::Borrowed(scanner.string()?)),
        "sensor_id" => fill(&mut raw.sensor_id, Cow::Borrowed(scanner.string()?)),
        "sensor_type" => fill(&mut raw.sensor_type, Cow::Borrowed(scanner.string()?)),
        "unit" => fill(&mut raw.unit, Cow::Borrowed(scanner.string()?)),
        "value" => fill(&mut raw.value, scanner.number()?),
        "quality" => fill(&mut raw.quality, scanner.number()?),
        "alert_level" => fill(&mut raw.alert_level, AlertLevel::of_word(scanner.string()?)?),
        "location" => fill(&mut raw.location, scanner.location()?),
        "metadata" => {
            let given = scanner.any()?;
            fill(&mut raw.metadata, given).filter(|()| given.get() != "null")
        }
        _ if raw.unknown.len() < MAX_UNKNOWN_FIELDS => {
            raw.unknown.push((Cow::Borrowed(name), scanner.any()?));
            Some(())
        }
        _ => None,
    })?;
    scanner.skip_blanks();
    scanner.rest.is_empty().then_some(raw)
}

/// Fills a field that did not come before.
fn fill<T>(slot: &mut Option<T>, given: T) -> Option<()> {
    if slot.is_some() {
        return None;
    }
    *slot = Some(given);
    Some(())
}

/// What is left of a text. Each method takes the next piece, or gives up.
struct Scanner<'a> {
    text: &'a str,
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Where the rest begins.
    fn place(&self) -> usize {
        self.text.len() - self.rest.len()
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Takes one byte after blanks.
    fn byte(&mut self) -> Option<u8> {
        self.skip_blanks();
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Takes an object; `member` takes the value of each name.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        if self.byte()? != b'{' {
            return None;
        }
        loop {
            // An empty object ends here, too, and has no sensor: that is for the general parser to say.
            let name = self.string()?;
            if self.byte()? != b':' {
                return None;
            }
            member(self, name)?;
            match self.byte()? {
                b',' => {}
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Takes a text without escapes.
    fn string(&mut self) -> Option<&'a str> {
        if self.byte()? != b'"' {
            return None;
        }
        let start = self.place();
        let length = end_of_string(self.rest)?;
        let (_, after) = self.rest.split_at_checked(length)?;
        let [b'"', after @ ..] = after else { return None };
        self.rest = after;
        self.text.get(start..start + length)
    }

    /// Takes a number that is finite.
    fn number(&mut self) -> Option<f64> {
        self.skip_blanks();
        let start = self.place();
        self.skip(b'-');
        // JSON allows no zeros in front: what follows a zero is then no digit, or nothing that an object goes on with.
        if !self.skip(b'0') {
            self.digits()?;
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _sign = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        let number: f64 = self.text.get(start..self.place())?.parse().ok()?;
        number.is_finite().then_some(number)
    }

    fn skip(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Takes digits, at least one.
    fn digits(&mut self) -> Option<()> {
        let length = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.rest = self.rest.get(length..)?;
        (length > 0).then_some(())
    }

    fn location(&mut self) -> Option<Location<'a>> {
        let mut location = Location::default();
        self.object(|scanner, name| {
            let part = match name {
                "factory_section" => &mut location.factory_section,
                "machine_id" => &mut location.machine_id,
                "zone" => &mut location.zone,
                _ => return None,
            };
            fill(part, Cow::Borrowed(scanner.string()?))
        })?;
        Some(location)
    }

    /// Takes a value of any kind as it is written.
    fn any(&mut self) -> Option<&'a RawValue> {
        self.skip_blanks();
        let mut values = serde_json::Deserializer::from_str(self.text.get(self.place()..)?).into_iter();
        let value = values.next()?.ok()?;
        self.rest = self.rest.get(values.byte_offset()..)?;
        Some(value)
    }
}

/// Where the first byte is that ends a plain string, rightly or not: a quote, a backslash, a control character. Looks at eight bytes at a
/// time; texts are short, so calling a general search costs more than it saves.
fn end_of_string(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH_BITS: u64 = ONES << 7;
    /// The high bit of each byte that is below `bound`, which is at most 128; nothing of the bytes above the first such one.
    fn below(eight: u64, bound: u64) -> u64 {
        eight.wrapping_sub(ONES * bound) & !eight & HIGH_BITS
    }
    let mut passed = 0;
    while let Some(eight) = bytes.get(passed..).and_then(<[u8]>::first_chunk) {
        let eight = u64::from_le_bytes(*eight);
        let found = below(eight, 0x20)
            | below(eight ^ (ONES * u64::from(b'"')), 1)
            | below(eight ^ (ONES * u64::from(b'\\')), 1);
        if found != 0 {
            return Some(passed + (found.trailing_zeros() / 8) as usize);
        }
        passed += 8;
    }
    let rest = bytes.get(passed..)?;
    rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).map(|place| passed + place)
}

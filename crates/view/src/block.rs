//! A block: up to [`BLOCK_ROWS`] readings in one row of `reading_block`, as JSON text.
//!
//! Written when readings come in bulk, because a row of its own costs SQLite some ten times as much per reading as its
//! share of a block. JSON, because people read the tables with `sqlite3`, which can take JSON apart
//! (`sensor_readings` does) and knows no other packed form; it takes no more room than rows do.
//!
//! # Format
//! `[[sensor, time, value, partition, offset, description, quality, level, extra], …]`, ordered by sensor, then time. `time` is in
//! microseconds after the block's `first_time`; `sensor` and `description` are the numbers of the dictionaries; `level` is 0
//! to 2; `extra` is the object of the sender's further fields. Nulls at the end of an element are left out. Values
//! are printed so that reading them gives back the same bits.

use crate::decode::ReadingRecord;

/// The most readings in a block. Larger blocks write a little faster; a reader of one sensor takes a whole block apart.
pub(crate) const BLOCK_ROWS: usize = 128;

/// A reading as the tables keep it, in rows or in blocks: texts as numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredReading {
    pub(crate) sensor: i64,
    pub(crate) time: i64,
    pub(crate) value: f64,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) description: i64,
    pub(crate) quality: Option<f64>,
    pub(crate) level: Option<i64>,
    pub(crate) extra: Option<Box<str>>,
}

/// A block's columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) first_sensor: i64,
    pub(crate) last_sensor: i64,
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
    pub(crate) rows: i64,
    pub(crate) body: String,
}

/// What is put into a block, without copying what the decoder holds already.
pub(crate) trait BlockRow {
    /// Sensor, time, partition, offset, description.
    fn numbers(&self) -> (i64, i64, i32, i64, i64);
    /// Value, quality.
    fn floats(&self) -> (f64, Option<f64>);
    /// Level.
    fn level(&self) -> Option<i64>;
    /// Extra.
    fn extra(&self) -> Option<&str>;
}

impl BlockRow for &ReadingRecord {
    fn numbers(&self) -> (i64, i64, i32, i64, i64) {
        (self.sensor.into(), self.time, self.partition, self.offset, self.description.into())
    }

    fn floats(&self) -> (f64, Option<f64>) {
        (self.value, self.quality)
    }

    fn level(&self) -> Option<i64> {
        self.level.map(crate::fold::level_number)
    }

    fn extra(&self) -> Option<&str> {
        self.extra.as_deref()
    }
}

impl BlockRow for StoredReading {
    fn numbers(&self) -> (i64, i64, i32, i64, i64) {
        (self.sensor, self.time, self.partition, self.offset, self.description)
    }

    fn floats(&self) -> (f64, Option<f64>) {
        (self.value, self.quality)
    }

    fn level(&self) -> Option<i64> {
        self.level
    }

    fn extra(&self) -> Option<&str> {
        self.extra.as_deref()
    }
}

impl Block {
    /// Packs readings that are ordered by sensor, then time. None: an empty block.
    pub(crate) fn encode(readings: &[impl BlockRow]) -> Self {
        let mut block = Self { first_sensor: i64::MAX, last_sensor: i64::MIN, ..Self::default() };
        block.first_time = readings.iter().map(|reading| reading.numbers().1).min().unwrap_or(0);
        block.last_time = block.first_time;
        let mut body = Vec::with_capacity(readings.len() * 56 + 2);
        body.push(b'[');
        for reading in readings {
            let (sensor, time, ..) = reading.numbers();
            block.first_sensor = block.first_sensor.min(sensor);
            block.last_sensor = block.last_sensor.max(sensor);
            block.last_time = block.last_time.max(time);
            if block.rows > 0 {
                body.push(b',');
            }
            element(&mut body, reading, block.first_time);
            block.rows += 1;
        }
        body.push(b']');
        block.body = String::from_utf8(body).expect("JSON of numbers and of texts that are UTF-8 is UTF-8");
        block
    }

    /// Unpacks a body, element by element: those of one sensor, or all.
    pub(crate) fn decode(
        body: &str,
        first_time: i64,
        sensor: Option<i64>,
        mut each: impl FnMut(StoredReading),
    ) -> Result<(), MalformedBlock> {
        Scanner { body, at: 0 }.elements(sensor, |scanner, sensor| {
            each(scanner.reading(sensor, first_time)?);
            Ok(())
        })
    }

    /// Unpacks time and value only, of one sensor.
    pub(crate) fn points(
        body: &str,
        first_time: i64,
        sensor: i64,
        mut each: impl FnMut(i64, f64),
    ) -> Result<(), MalformedBlock> {
        Scanner { body, at: 0 }.elements(Some(sensor), |scanner, _| {
            let (time, value) = scanner.point(first_time)?;
            each(time, value);
            scanner.skip()
        })
    }
}

/// The text is no block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a block of readings is malformed at byte {at}")]
pub(crate) struct MalformedBlock {
    at: usize,
}

fn element(body: &mut Vec<u8>, reading: &impl BlockRow, first_time: i64) {
    let (sensor, time, partition, offset, description) = reading.numbers();
    let (value, quality) = reading.floats();
    let (level, extra) = (reading.level(), reading.extra());
    body.push(b'[');
    number(body, sensor);
    body.push(b',');
    number(body, time - first_time);
    body.push(b',');
    float(body, value);
    body.push(b',');
    number(body, partition.into());
    body.push(b',');
    number(body, offset);
    body.push(b',');
    number(body, description);
    if quality.is_some() || level.is_some() || extra.is_some() {
        body.push(b',');
        or_null(body, quality, float);
    }
    if level.is_some() || extra.is_some() {
        body.push(b',');
        or_null(body, level, number);
    }
    if let Some(extra) = extra {
        body.push(b',');
        body.extend_from_slice(extra.as_bytes());
    }
    body.push(b']');
}

fn or_null<T>(body: &mut Vec<u8>, value: Option<T>, write: impl Fn(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(body, value),
        None => body.extend_from_slice(b"null"),
    }
}

fn number(body: &mut Vec<u8>, number: i64) {
    serde_json::to_writer(body, &number).expect("writing a number to memory can't fail");
}

fn float(body: &mut Vec<u8>, number: f64) {
    serde_json::to_writer(body, &number).expect("writing a number to memory can't fail");
}

/// Reads what `element` writes. By hand, because a general JSON parser costs three times as much and doesn't promise the
/// same bits.
struct Scanner<'a> {
    body: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Calls `take` for each element of the wanted sensor, after its first number and the comma behind it; `take` reads on
    /// to the element's end.
    fn elements(
        mut self,
        wanted: Option<i64>,
        mut take: impl FnMut(&mut Self, i64) -> Result<(), MalformedBlock>,
    ) -> Result<(), MalformedBlock> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.expect(b'[')?;
            let sensor = self.integer()?;
            self.expect(b',')?;
            match wanted {
                // They are in the order of sensors.
                Some(wanted) if sensor > wanted => return Ok(()),
                Some(wanted) if sensor < wanted => self.skip()?,
                _ => take(&mut self, sensor)?,
            }
            if !self.take(b',') {
                return self.expect(b']');
            }
        }
    }

    fn point(&mut self, first_time: i64) -> Result<(i64, f64), MalformedBlock> {
        let time = first_time.checked_add(self.integer()?).ok_or(self.malformed())?;
        self.expect(b',')?;
        Ok((time, self.field()?))
    }

    fn reading(&mut self, sensor: i64, first_time: i64) -> Result<StoredReading, MalformedBlock> {
        let (time, value) = self.point(first_time)?;
        self.expect(b',')?;
        let partition = i32::try_from(self.integer()?).map_err(|_| self.malformed())?;
        self.expect(b',')?;
        let offset = self.integer()?;
        self.expect(b',')?;
        let description = self.integer()?;
        let quality = if self.take(b',') { self.field_or_null()? } else { None };
        let level = if self.take(b',') { self.field_or_null()? } else { None };
        let extra = if self.take(b',') { Some(self.object()?.into()) } else { None };
        self.expect(b']')?;
        Ok(StoredReading { sensor, time, value, partition, offset, description, quality, level, extra })
    }

    /// Goes to the end of an element, from anywhere in it before `extra`.
    fn skip(&mut self) -> Result<(), MalformedBlock> {
        let length =
            self.rest().iter().position(|byte| matches!(byte, b']' | b'{')).ok_or(self.malformed())?;
        self.at += length;
        if self.rest().first() == Some(&b'{') {
            self.object()?;
        }
        self.expect(b']')
    }

    fn malformed(&self) -> MalformedBlock {
        MalformedBlock { at: self.at }
    }

    fn rest(&self) -> &'a [u8] {
        self.body.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.rest().first() == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), MalformedBlock> {
        if self.take(byte) { Ok(()) } else { Err(self.malformed()) }
    }

    /// A whole number of at most 19 digits.
    fn integer(&mut self) -> Result<i64, MalformedBlock> {
        let negative = self.take(b'-');
        let mut number = 0_i64;
        let mut digits = 0_usize;
        for byte in self.rest().iter().take_while(|byte| byte.is_ascii_digit()) {
            let digit = i64::from(byte - b'0');
            number = number.checked_mul(10).and_then(|n| n.checked_add(digit)).ok_or(self.malformed())?;
            digits += 1;
        }
        if digits == 0 {
            return Err(self.malformed());
        }
        self.at += digits;
        Ok(if negative { -number } else { number })
    }

    /// A number, up to the comma or bracket after it.
    fn field<T: std::str::FromStr>(&mut self) -> Result<T, MalformedBlock> {
        let length =
            self.rest().iter().position(|byte| matches!(byte, b',' | b']')).ok_or(self.malformed())?;
        let text = self.body.get(self.at..self.at + length).ok_or(self.malformed())?;
        let field = text.parse().map_err(|_| self.malformed())?;
        self.at += length;
        Ok(field)
    }

    fn field_or_null<T: std::str::FromStr>(&mut self) -> Result<Option<T>, MalformedBlock> {
        if self.rest().starts_with(b"null") {
            self.at += 4;
            return Ok(None);
        }
        self.field().map(Some)
    }

    /// An object, as it stands.
    fn object(&mut self) -> Result<&'a str, MalformedBlock> {
        let mut depth = 0_usize;
        let mut in_text = false;
        let mut escaped = false;
        for (index, byte) in self.rest().iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1).ok_or(self.malformed())?,
                _ => {}
            }
            if depth == 0 && !in_text {
                let text = self.body.get(self.at..=self.at + index).ok_or(self.malformed())?;
                self.at += index + 1;
                return Ok(text);
            }
        }
        Err(self.malformed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading() -> impl Strategy<Value = StoredReading> {
        let extra = proptest::option::of("[\\PC\"{}\\[\\]\\\\,]{0,12}".prop_map(|text| {
            serde_json::json!({"metadata": {&text: [text, 1.5]}, "unknown": {}}).to_string().into_boxed_str()
        }));
        (
            (
                0_i64..1000,
                0_i64..4_000_000_000_000_000,
                proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            ),
            (0_i32..i32::MAX, 0_i64..i64::MAX, 0_i64..1000),
            (proptest::option::of(0.0_f64..1.0), proptest::option::of(0_i64..3), extra),
        )
            .prop_map(
                |((sensor, time, value), (partition, offset, description), (quality, level, extra))| {
                    StoredReading {
                        sensor,
                        time,
                        value,
                        partition,
                        offset,
                        description,
                        quality,
                        level,
                        extra,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn a_block_gives_back_its_readings_bit_by_bit(
            mut readings in proptest::collection::vec(reading(), 0..20),
            wanted in 0_i64..10,
        ) {
            readings.sort_by_key(|reading| (reading.sensor, reading.time));
            let block = Block::encode(&readings);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&block.body).is_ok(), "{}", block.body);
            let mut back = Vec::new();
            Block::decode(&block.body, block.first_time, None, |reading| back.push(reading)).unwrap();
            let bits = |readings: &[StoredReading]| readings.iter().map(|r| r.value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&readings));
            prop_assert_eq!(&back, &readings);
            // And of one sensor.
            readings.retain(|reading| reading.sensor == wanted);
            back.clear();
            Block::decode(&block.body, block.first_time, Some(wanted), |reading| back.push(reading)).unwrap();
            prop_assert_eq!(&back, &readings);
            let mut points = Vec::new();
            Block::points(&block.body, block.first_time, wanted, |time, value| points.push((time, value))).unwrap();
            prop_assert_eq!(points, readings.iter().map(|r| (r.time, r.value)).collect::<Vec<_>>());
        }

        #[test]
        fn damaged_blocks_are_refused_without_a_panic(
            readings in proptest::collection::vec(reading(), 1..5),
            cut in any::<proptest::sample::Index>(),
            text in "\\PC{0,40}",
        ) {
            let body = Block::encode(&readings).body;
            let cut = (0..=cut.index(body.len())).rev().find(|at| body.is_char_boundary(*at)).unwrap();
            let decoded = Block::decode(&body[..cut], 0, None, drop);
            prop_assert!(decoded.is_err());
            // Whatever they say of a text that is nothing like a block.
            let _ = Block::decode(&text, i64::MAX, None, drop);
            let _ = Block::points(&text, i64::MAX, 7, |_, _| {});
        }
    }
}

//! The bodies of requests, assembled from prepared parts.
//!
//! A line is `{"timestamp":"…","sensor_id":"load-000001","sensor_type":"temperature","value":25.13,"unit":"°C","seq":7}`,
//! some 130 bytes. Everything but timestamp, value and `seq` is prepared once per sensor, the timestamp's text is cached
//! up to the second, numbers are written digit by digit without allocation.
//!
//! Within a run `seq` is unique, and so is (sensor, timestamp): timestamps are the wall clock's microseconds, moved forward
//! by one where two of one connection would coincide, and a sensor belongs to one connection.

use bytes::{BufMut, Bytes, BytesMut};
use farol_event::{SENSOR_TYPES, SensorTypeDefaults, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::line::{LINE_END, LINE_START, LineIdentity, LineTemplate};

/// How many readings in a row a sensor stays above its critical threshold when it is to alert.
pub const EXCURSION_READINGS: u64 = 10;
/// More than any line has beyond its sensor's prepared parts.
const LINE_EXTRA_BYTES: usize = 96;

/// Makes the bodies of one connection.
#[derive(Debug)]
pub struct LineBuilder {
    sensors: Vec<LoadSensor>,
    next_sensor: usize,
    /// `seq` of the next reading and how far the next but one is from it.
    seq: u64,
    seq_step: u64,
    /// A sensor's readings per excursion and the quiet readings before the next; `None` without alerts.
    alert_period: Option<u64>,
    clock: TimestampText,
    last_micros: i64,
    rng: SmallRng,
    buffer: BytesMut,
}

#[derive(Debug)]
struct LoadSensor {
    id: Box<str>,
    line: LineTemplate,
    /// Hundredths.
    usual: i64,
    swing: u32,
    critical: i64,
    readings: u64,
}

/// One reading of a body, for the file of acknowledged readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentReading {
    /// Its `seq`.
    pub seq: u64,
    /// Index of its sensor, for [`LineBuilder::sensor_id`].
    pub sensor: usize,
    /// Its timestamp, microseconds since the Unix epoch.
    pub micros: i64,
}

impl LineBuilder {
    /// Sensors `connection`, `connection + connections`, … of `sensors`, and every `connections`-th `seq`.
    pub fn new(
        prefix: &str,
        sensors: usize,
        connection: usize,
        connections: usize,
        alerts_fraction: f64,
    ) -> Self {
        // By the sensor's number, so that a sensor keeps its type however many connections there are.
        let sensors = SENSOR_TYPES
            .iter()
            .cycle()
            .zip(0..sensors)
            .skip(connection)
            .step_by(connections.max(1))
            .map(|(defaults, number)| LoadSensor::new(prefix, number, defaults))
            .collect();
        let alert_period = (alerts_fraction > 0.0).then(|| {
            let period = (EXCURSION_READINGS as f64 / alerts_fraction).round().min(1e15);
            // Positive and below 2^53, so the text is exact.
            format!("{period:.0}").parse().unwrap_or(u64::MAX).max(EXCURSION_READINGS)
        });
        Self {
            sensors,
            next_sensor: 0,
            seq: connection as u64,
            seq_step: connections.max(1) as u64,
            alert_period,
            clock: TimestampText::default(),
            last_micros: 0,
            rng: SmallRng::seed_from_u64(connection as u64),
            buffer: BytesMut::new(),
        }
    }

    /// `count` lines of readings measured from `now` on. Appends what they are to `sent`, if that is wanted.
    pub fn batch(&mut self, count: usize, now: Timestamp, mut sent: Option<&mut Vec<SentReading>>) -> Bytes {
        for _ in 0..count {
            let micros = now.as_micros().max(self.last_micros + 1);
            self.last_micros = micros;
            let reading = SentReading { seq: self.seq, sensor: self.next_sensor, micros };
            self.line(reading);
            if let Some(sent) = &mut sent {
                sent.push(reading);
            }
            self.seq += self.seq_step;
            self.next_sensor = (self.next_sensor + 1) % self.sensors.len().max(1);
        }
        self.buffer.split().freeze()
    }

    /// The id of a sensor that a [`SentReading`] names.
    pub fn sensor_id(&self, sensor: usize) -> &str {
        self.sensors.get(sensor).map_or("", |sensor| &sensor.id)
    }

    fn line(&mut self, reading: SentReading) {
        let Some(sensor) = self.sensors.get_mut(reading.sensor) else { return };
        let value = sensor.next_value(self.alert_period, &mut self.rng);
        let out = &mut self.buffer;
        out.reserve(sensor.line.before_value.len() + sensor.line.after_value.len() + LINE_EXTRA_BYTES);
        out.put_slice(LINE_START);
        self.clock.write(reading.micros, out);
        out.put_slice(&sensor.line.before_value);
        write_hundredths(value, out);
        out.put_slice(&sensor.line.after_value);
        out.put_slice(b",\"seq\":");
        write_number(reading.seq, out);
        out.put_slice(LINE_END);
    }
}

impl LoadSensor {
    fn new(prefix: &str, number: usize, defaults: &SensorTypeDefaults) -> Self {
        let id = format!("{prefix}-{:06}", number + 1).into_boxed_str();
        let identity = LineIdentity {
            sensor_id: &id,
            sensor_type: defaults.name,
            unit: Some(defaults.unit),
            ..LineIdentity::default()
        };
        let line = LineTemplate::new(identity);
        let hundredths = |value: f64| format!("{:.0}", value * 100.0).parse().unwrap_or(0);
        Self {
            id,
            line,
            usual: hundredths(defaults.base),
            swing: u32::try_from(hundredths((defaults.warning - defaults.base) * 0.4)).unwrap_or(1).max(1),
            critical: hundredths(defaults.critical + (defaults.critical - defaults.warning) * 0.2),
            // Sensors' excursions are spread over the period instead of coming all at once.
            readings: (number as u64).wrapping_mul(7919),
        }
    }

    /// The next value in hundredths: around the usual one, or at the end of each period above critical.
    fn next_value(&mut self, alert_period: Option<u64>, rng: &mut SmallRng) -> i64 {
        self.readings += 1;
        let noise = i64::from(rng.random::<u32>() % self.swing);
        match alert_period {
            Some(period) if self.readings % period >= period - EXCURSION_READINGS => self.critical + noise,
            _ => self.usual + noise,
        }
    }
}

/// RFC 3339 text of microseconds, with everything down to the second cached.
#[derive(Debug, Default)]
struct TimestampText {
    /// `2025-09-16T21:41:41.`
    up_to_second: Vec<u8>,
    /// The second that it stands for.
    second: Option<i64>,
}

impl TimestampText {
    fn write(&mut self, micros: i64, out: &mut BytesMut) {
        let second = micros.div_euclid(1_000_000);
        if self.second != Some(second) {
            let text = Timestamp::from_micros(micros).unwrap_or_default().to_string();
            self.up_to_second = text.into_bytes();
            self.up_to_second.truncate("2025-09-16T21:41:41.".len());
            self.second = Some(second);
        }
        out.put_slice(&self.up_to_second);
        let mut fraction = micros.rem_euclid(1_000_000);
        let mut digits = *b"000000Z";
        for digit in digits.iter_mut().take(6).rev() {
            *digit = ascii_digit(fraction);
            fraction /= 10;
        }
        out.put_slice(&digits);
    }
}

fn write_hundredths(value: i64, out: &mut BytesMut) {
    if value < 0 {
        out.put_u8(b'-');
    }
    let value = value.unsigned_abs();
    write_number(value / 100, out);
    let rest = i64::try_from(value % 100).unwrap_or(0);
    out.put_slice(&[b'.', ascii_digit(rest / 10), ascii_digit(rest)]);
}

fn write_number(mut number: u64, out: &mut BytesMut) {
    let mut digits = [0_u8; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = ascii_digit(i64::try_from(number % 10).unwrap_or(0));
        used += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(digits.get(20 - used..).unwrap_or_default());
}

/// The last decimal digit of a number that is not negative.
fn ascii_digit(number: i64) -> u8 {
    b'0' + u8::try_from(number.rem_euclid(10)).unwrap_or(0)
}

#[cfg(test)]
mod tests;

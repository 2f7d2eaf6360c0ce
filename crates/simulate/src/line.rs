//! One NDJSON line per reading, from parts that are prepared once per sensor.

use std::io::Write as _;

use farol_event::Timestamp;
use serde::Serialize;

/// What every reading of one sensor has in common, already as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineTemplate {
    /// From the quote after the timestamp up to the value.
    pub before_value: Vec<u8>,
    /// From the comma after the value up to before the closing brace.
    pub after_value: Vec<u8>,
}

/// A sensor's identity as replay and load write it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LineIdentity<'a> {
    pub sensor_id: &'a str,
    pub sensor_type: &'a str,
    pub factory_section: Option<&'a str>,
    pub machine_id: Option<&'a str>,
    pub zone: Option<&'a str>,
    pub unit: Option<&'a str>,
}

#[derive(Serialize)]
struct LocationJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    factory_section: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
}

/// What stands before the timestamp.
pub(crate) const LINE_START: &[u8] = b"{\"timestamp\":\"";
/// What ends a line.
pub(crate) const LINE_END: &[u8] = b"}\n";

impl LineTemplate {
    pub(crate) fn new(identity: LineIdentity<'_>) -> Self {
        let mut before_value = Vec::new();
        let mut after_value = Vec::new();
        field(&mut before_value, b"\",\"sensor_id\":", &identity.sensor_id);
        field(&mut before_value, b",\"sensor_type\":", &identity.sensor_type);
        let LineIdentity { factory_section, machine_id, zone, .. } = identity;
        if factory_section.is_some() || machine_id.is_some() || zone.is_some() {
            field(&mut before_value, b",\"location\":", &LocationJson { factory_section, machine_id, zone });
        }
        before_value.extend_from_slice(b",\"value\":");
        if let Some(unit) = identity.unit {
            field(&mut after_value, b",\"unit\":", &unit);
        }
        Self { before_value, after_value }
    }

    /// Appends a whole line.
    pub(crate) fn write(&self, timestamp: Timestamp, value: f64, out: &mut Vec<u8>) {
        out.extend_from_slice(LINE_START);
        write!(out, "{timestamp}").expect("a vector takes every write");
        out.extend_from_slice(&self.before_value);
        serde_json::to_writer(&mut *out, &value)
            .expect("a number serialises, and a vector takes every write");
        out.extend_from_slice(&self.after_value);
        out.extend_from_slice(LINE_END);
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &impl Serialize) {
    out.extend_from_slice(name);
    serde_json::to_writer(out, value).expect("texts serialise, and a vector takes every write");
}

#[cfg(test)]
mod tests {
    use farol_event::Reading;

    use super::*;

    #[test]
    fn a_line_parses_as_the_reading_it_was_made_from() {
        let identity = LineIdentity {
            sensor_id: "a \"quoted\" \\ id ☃",
            sensor_type: "temperature",
            machine_id: Some("m-1"),
            unit: Some("°C"),
            ..LineIdentity::default()
        };
        let at: Timestamp = "2013-12-02T21:15:00Z".parse().unwrap();
        let mut line = Vec::new();
        LineTemplate::new(identity).write(at, 73.967_322_07, &mut line);
        let reading = Reading::parse(line.trim_ascii_end(), at).unwrap();
        assert_eq!(reading.sensor_id, identity.sensor_id);
        assert_eq!(reading.location.machine_id.as_deref(), Some("m-1"));
        assert_eq!(
            (reading.timestamp, reading.value, reading.unit.as_deref()),
            (at, 73.967_322_07, Some("°C"))
        );
    }
}

//! What a simulated sensor is: its identity, its place, its thresholds and its rhythm.
//!
//! Specifications are made one by one ([`SensorSpec::of_type`]) or as a whole plant ([`demo_fleet`], [`numbered_fleet`]).

use std::sync::Arc;
use std::time::Duration;

use farol_event::reading::{MAX_LABEL_BYTES, MAX_SENSOR_ID_BYTES};
use farol_event::{SENSOR_TYPES, SensorTypeDefaults};

/// The shortest accepted sampling interval.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The longest accepted sampling interval.
pub const MAX_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// The most sensors that one process simulates.
pub const MAX_SENSORS: usize = 1_000_000;

/// One simulated sensor. Checked by [`SensorSpec::check`] before it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorSpec {
    /// Its id, the record's key.
    pub sensor_id: Arc<str>,
    /// What it measures.
    pub sensor_type: Arc<str>,
    /// Section of the plant.
    pub factory_section: Option<Arc<str>>,
    /// The machine that carries it.
    pub machine_id: Option<Arc<str>>,
    /// Zone within the section.
    pub zone: Option<Arc<str>>,
    /// The unit of its values.
    pub unit: Option<Arc<str>>,
    /// The value around which the daily pattern lies, in `unit`.
    pub base: f64,
    /// The level from which a value is a warning; above `base`.
    pub warning: f64,
    /// The level from which a value is critical; above `warning`.
    pub critical: f64,
    /// Time between two readings.
    pub interval: Duration,
    /// The producer that sends its readings: the unit of heartbeats and of the producers' health page.
    pub producer: Arc<str>,
    /// How many normal readings come before the first excursion; drawn at random if `None`.
    pub first_excursion_after: Option<u32>,
}

/// Why a sensor can't be simulated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SensorError {
    /// There is no such sensor type.
    #[error("sensor type `{given}` is unknown; the simulator knows {known}")]
    UnknownType {
        /// What was asked for.
        given: String,
        /// What there is.
        known: String,
    },
    /// A field of a specification is not acceptable.
    #[error("sensor `{sensor_id}`: `{field}` {problem}")]
    Field {
        /// Which sensor.
        sensor_id: String,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No sensors, or more than [`MAX_SENSORS`].
    #[error("{0} sensors were asked for; between 1 and {MAX_SENSORS} can be simulated")]
    Count(usize),
    /// Two sensors share an id.
    #[error("two simulated sensors are called `{0}`")]
    DuplicateId(String),
}

impl SensorSpec {
    /// A sensor with its type's defaults, without a place, sent by producer `simulator-TYPE`.
    ///
    /// # Errors
    /// [`SensorError::UnknownType`].
    pub fn of_type(sensor_id: impl Into<Arc<str>>, sensor_type: &str) -> Result<Self, SensorError> {
        match SensorTypeDefaults::of(sensor_type) {
            Some(defaults) => Ok(Self::with_defaults(sensor_id.into(), defaults)),
            None => Err(SensorError::UnknownType {
                given: sensor_type.chars().take(64).collect(),
                known: SENSOR_TYPES.iter().map(|t| t.name).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    fn with_defaults(sensor_id: Arc<str>, defaults: &SensorTypeDefaults) -> Self {
        Self {
            sensor_id,
            sensor_type: defaults.name.into(),
            factory_section: None,
            machine_id: None,
            zone: None,
            unit: Some(defaults.unit.into()),
            base: defaults.base,
            warning: defaults.warning,
            critical: defaults.critical,
            interval: defaults.interval,
            producer: format!("simulator-{}", defaults.name).into(),
            first_excursion_after: None,
        }
    }

    /// Whether it can be simulated and its readings would be accepted.
    ///
    /// # Errors
    /// The first field that is not acceptable.
    pub fn check(&self) -> Result<(), SensorError> {
        let refuse = |field, problem: String| {
            Err(SensorError::Field { sensor_id: self.sensor_id.chars().take(64).collect(), field, problem })
        };
        if self.sensor_id.is_empty() {
            return refuse("sensor_id", "must not be empty".into());
        }
        let texts = [
            ("sensor_id", Some(&self.sensor_id), MAX_SENSOR_ID_BYTES),
            ("producer", Some(&self.producer), MAX_SENSOR_ID_BYTES),
            ("sensor_type", Some(&self.sensor_type), MAX_LABEL_BYTES),
            ("factory_section", self.factory_section.as_ref(), MAX_LABEL_BYTES),
            ("machine_id", self.machine_id.as_ref(), MAX_LABEL_BYTES),
            ("zone", self.zone.as_ref(), MAX_LABEL_BYTES),
            ("unit", self.unit.as_ref(), MAX_LABEL_BYTES),
        ];
        for (field, text, limit) in texts {
            if text.is_some_and(|t| t.len() > limit || t.chars().any(char::is_control)) {
                return refuse(field, format!("must have at most {limit} bytes and no control characters"));
            }
        }
        let levels = [self.base, self.warning, self.critical];
        if levels.iter().any(|level| !level.is_finite() || level.abs() > 1e12) {
            return refuse("warning", "and `base` and `critical` must lie between -1e12 and 1e12".into());
        }
        if !(self.base < self.warning && self.warning < self.critical) {
            let [base, warning, critical] = levels;
            return refuse(
                "warning",
                format!("must lie between base and critical, not {base} < {warning} < {critical}"),
            );
        }
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&self.interval) {
            return refuse("interval", format!("must be between 10 ms and 24 h, not {:?}", self.interval));
        }
        Ok(())
    }
}

/// How many demo sensors measure one type, how their ids begin, and where they stand.
struct DemoGroup {
    sensor_type: &'static str,
    id_prefix: &'static str,
    /// Numbers of the machines, one sensor each.
    machines: &'static [u32],
    /// Normal readings before the first sensor's first excursion, so that a demonstration shows an alert within seconds.
    first_excursion_after: u32,
}

const DEMO: [DemoGroup; 5] = [
    DemoGroup {
        sensor_type: "temperature",
        id_prefix: "temp",
        machines: &[1, 2, 3, 4, 5, 6],
        first_excursion_after: 1,
    },
    DemoGroup {
        sensor_type: "vibration",
        id_prefix: "vib",
        machines: &[1, 2, 3, 4, 5, 6],
        first_excursion_after: 2,
    },
    DemoGroup {
        sensor_type: "energy",
        id_prefix: "energy",
        machines: &[1, 2, 4, 5],
        first_excursion_after: 3,
    },
    DemoGroup { sensor_type: "humidity", id_prefix: "hum", machines: &[3, 6, 7], first_excursion_after: 6 },
    DemoGroup {
        sensor_type: "pressure",
        id_prefix: "press",
        machines: &[2, 4, 6, 7],
        first_excursion_after: 4,
    },
];

/// The plant of `farol run --demo`: 23 sensors of five types on seven machines in two sections and three zones.
pub fn demo_fleet() -> Vec<SensorSpec> {
    let mut sensors = Vec::new();
    for group in &DEMO {
        for (number, machine) in (1_u32..).zip(group.machines) {
            let id = format!("{}-sensor-{number:03}", group.id_prefix);
            let Ok(mut spec) = SensorSpec::of_type(id, group.sensor_type) else { continue };
            spec.factory_section = Some(if *machine <= 5 { "production" } else { "assembly" }.into());
            spec.machine_id = Some(format!("machine-{machine:03}").into());
            spec.zone = Some(
                ["zone-a", "zone-b", "zone-c"].get(*machine as usize % 3).copied().unwrap_or("zone-a").into(),
            );
            spec.first_excursion_after = (number == 1).then_some(group.first_excursion_after);
            sensors.push(spec);
        }
    }
    sensors
}

/// `count` sensors, the types in turn, ten to a machine and a hundred machines to a zone.
///
/// # Errors
/// [`SensorError::Count`].
pub fn numbered_fleet(count: usize) -> Result<Vec<SensorSpec>, SensorError> {
    if !(1..=MAX_SENSORS).contains(&count) {
        return Err(SensorError::Count(count));
    }
    let types = SENSOR_TYPES.iter().cycle();
    Ok((0..count)
        .zip(types)
        .map(|(index, defaults)| {
            let mut spec = SensorSpec::with_defaults(format!("sim-{:06}", index + 1).into(), defaults);
            spec.factory_section = Some("production".into());
            spec.machine_id = Some(format!("machine-{:05}", index / 10 + 1).into());
            spec.zone = Some(format!("zone-{:03}", index / 1000 + 1).into());
            spec
        })
        .collect())
}

#[cfg(test)]
mod tests;

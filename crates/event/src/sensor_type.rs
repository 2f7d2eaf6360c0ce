//! The kinds of sensor that Farol knows, with what is usual for each.
//!
//! One table for everyone: the default rules take their thresholds from it, the simulators their base values and
//! sampling intervals. Any other `sensor_type` is as welcome; it just has no defaults.

use std::time::Duration;

/// What is usual for one type of sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SensorTypeDefaults {
    /// The `sensor_type` of its readings.
    pub name: &'static str,
    /// The value around which readings lie when all is well, in [`SensorTypeDefaults::unit`].
    pub base: f64,
    /// Above this the machine needs attention.
    pub warning: f64,
    /// Above this somebody has to act now.
    pub critical: f64,
    /// The unit of its readings.
    pub unit: &'static str,
    /// How often such a sensor measures.
    pub interval: Duration,
}

/// Every known type. Temperature, vibration and energy are the founding documents' figures; humidity is that of a
/// workshop's air, pressure that of a compressed-air line of nominally 6 bar.
pub const SENSOR_TYPES: [SensorTypeDefaults; 5] = [
    SensorTypeDefaults {
        name: "temperature",
        base: 25.0,
        warning: 35.0,
        critical: 40.0,
        unit: "°C",
        interval: Duration::from_secs(3),
    },
    SensorTypeDefaults {
        name: "vibration",
        base: 2.0,
        warning: 5.0,
        critical: 7.0,
        unit: "mm/s",
        interval: Duration::from_secs(4),
    },
    SensorTypeDefaults {
        name: "energy",
        base: 100.0,
        warning: 150.0,
        critical: 180.0,
        unit: "kW",
        interval: Duration::from_secs(10),
    },
    SensorTypeDefaults {
        name: "humidity",
        base: 45.0,
        warning: 65.0,
        critical: 75.0,
        unit: "%",
        interval: Duration::from_secs(5),
    },
    SensorTypeDefaults {
        name: "pressure",
        base: 6.0,
        warning: 7.5,
        critical: 8.5,
        unit: "bar",
        interval: Duration::from_secs(5),
    },
];

impl SensorTypeDefaults {
    /// The defaults of a `sensor_type`, if it is a known one.
    pub fn of(sensor_type: &str) -> Option<&'static Self> {
        SENSOR_TYPES.iter().find(|t| t.name == sensor_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_levels_in_order() {
        for t in SENSOR_TYPES {
            assert!(t.base < t.warning && t.warning < t.critical, "{}", t.name);
            assert!(!t.interval.is_zero() && !t.unit.is_empty(), "{}", t.name);
            assert_eq!(SensorTypeDefaults::of(t.name), Some(&t));
        }
        assert_eq!(SensorTypeDefaults::of("colour"), None);
    }
}

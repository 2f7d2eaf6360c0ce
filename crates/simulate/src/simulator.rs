//! One simulated sensor: a pure function of (specification, state, now) to the next reading's JSON.
//!
//! A sensor's life is a row of cycles: a stretch of normal readings, then an excursion. An excursion either hovers
//! around the warning level or climbs past it to the critical level and comes back down, so alerts fire, last and resolve
//! like real ones instead of flickering. Levels are drawn in units of the distance from base to warning:
//!
//! ```text
//! critical ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄╭─────╮┄┄  critical plateau, 3..=9 readings
//!  warning ┄┄┄┄┄┄┄┄╭─────────╮┄┄┄┄┄╯     ╰┄┄  one reading on the way up, one on the way down
//!     base ~~~~~~~~╯         ╰~~~~~            warning plateau 4..=12 readings; normal 23..=68 readings
//! ```
//!
//! The lengths are chosen so that over a long run 15 % of the readings are *near or above* the warning level (the critical
//! ones included) and 5 % near or above the critical level. *Near* a level is within [`NEAR_SHARE`] of the way to it from
//! the level below it. `alert_level` says the same: it is what the sensor thinks, Farol's rules decide alerts.

use std::sync::Arc;

use bytes::Bytes;
use farol_event::{AlertLevel, Timestamp};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use crate::sensor::SensorSpec;

/// How close to a level counts as near, as a share of the distance from the level below it.
pub const NEAR_SHARE: f64 = 0.1;

/// Readings of a normal stretch.
const NORMAL_READINGS: std::ops::RangeInclusive<u32> = 23..=68;
/// Readings of an excursion that hovers around the warning level: 8 in the mean.
const WARNING_READINGS: std::ops::RangeInclusive<u32> = 4..=12;
/// Readings of a critical plateau: 6 in the mean, and one on each side of it near the warning level.
const CRITICAL_READINGS: std::ops::RangeInclusive<u32> = 3..=9;
/// How many excursions are critical ones. A cycle has 45.5 + 8 readings in the mean, so 6 × 0.445 / 53.5 ≈ 5 %.
const CRITICAL_EXCURSIONS: f64 = 0.445;
/// Readings of which the sensor itself is not quite sure.
const DOUBTFUL_READINGS: f64 = 0.01;

/// How far the daily pattern swings to each side of the base value, in units of the distance from base to warning.
const DAILY_SWING: f64 = 0.25;
/// The noise of a normal reading, in the same unit, as a standard deviation.
const NOISE: f64 = 0.05;
/// How much of the last reading's slow drift is left in the next.
const DRIFT_KEPT: f64 = 0.9;
/// Normal readings stay below this, well clear of "near the warning level".
const NORMAL_CEILING: f64 = 0.8;
/// The day's pattern peaks in the afternoon, UTC.
const PEAK_SECOND_OF_DAY: f64 = 15.0 * 3600.0;
const DAY_MICROS: i64 = 24 * 3600 * 1_000_000;

/// A simulated sensor with everything it remembers.
#[derive(Debug, Clone)]
pub struct SensorSimulator {
    spec: Arc<SensorSpec>,
    rng: SmallRng,
    reading_count: u64,
    /// Slow wandering around the daily pattern, in units of the distance from base to warning.
    drift: f64,
    phase: Phase,
}

/// What the sensor is going through.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Phase {
    kind: PhaseKind,
    /// Readings that are still to come in it.
    left: u32,
    /// The level around which its readings lie, in units of the distance from base to warning (unused when normal).
    level: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PhaseKind {
    Normal,
    AroundWarning,
    Climbing,
    AroundCritical,
    Falling,
}

/// A reading as formats.md writes it, fields in that order.
#[derive(Serialize)]
struct ReadingJson<'a> {
    timestamp: Timestamp,
    sensor_id: &'a str,
    sensor_type: &'a str,
    #[serde(skip_serializing_if = "LocationJson::is_empty")]
    location: LocationJson<'a>,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    alert_level: AlertLevel,
    quality: f64,
    metadata: MetadataJson,
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

impl LocationJson<'_> {
    fn is_empty(&self) -> bool {
        self.factory_section.is_none() && self.machine_id.is_none() && self.zone.is_none()
    }
}

#[derive(Serialize)]
struct MetadataJson {
    reading_count: u64,
    warning_threshold: f64,
    critical_threshold: f64,
}

impl SensorSimulator {
    /// A sensor before its first reading. The same specification and seed give the same readings at the same instants.
    pub fn new(spec: Arc<SensorSpec>, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        // As if it had been running for a while: somewhere within a normal stretch.
        let left = spec.first_excursion_after.unwrap_or_else(|| rng.random_range(0..=*NORMAL_READINGS.end()));
        Self {
            spec,
            rng,
            reading_count: 0,
            drift: 0.0,
            phase: Phase { kind: PhaseKind::Normal, left, level: 0.0 },
        }
    }

    /// The specification.
    pub fn spec(&self) -> &SensorSpec {
        &self.spec
    }

    /// The next reading, taken at `now`, as JSON.
    pub fn next_reading(&mut self, now: Timestamp) -> Bytes {
        let value = self.next_value(now);
        self.reading_count += 1;
        let quality = if self.rng.random_bool(DOUBTFUL_READINGS) {
            two_decimals(self.rng.random_range(0.6..0.95))
        } else {
            1.0
        };
        let spec = &*self.spec;
        let reading = ReadingJson {
            timestamp: now,
            sensor_id: &spec.sensor_id,
            sensor_type: &spec.sensor_type,
            location: LocationJson {
                factory_section: spec.factory_section.as_deref(),
                machine_id: spec.machine_id.as_deref(),
                zone: spec.zone.as_deref(),
            },
            value,
            unit: spec.unit.as_deref(),
            alert_level: level_of(spec, value),
            quality,
            metadata: MetadataJson {
                reading_count: self.reading_count,
                warning_threshold: spec.warning,
                critical_threshold: spec.critical,
            },
        };
        let mut json = Vec::with_capacity(360);
        serde_json::to_writer(&mut json, &reading)
            .expect("a reading has only string keys, and a vector takes every write");
        json.into()
    }

    /// The next value, rounded to two decimals.
    fn next_value(&mut self, now: Timestamp) -> f64 {
        while self.phase.left == 0 {
            self.phase = self.next_phase();
        }
        self.phase.left -= 1;
        let gap = self.critical_gap();
        let share = match self.phase.kind {
            PhaseKind::Normal => {
                self.drift = self.drift * DRIFT_KEPT + self.noise() * NOISE * 0.4;
                let day = DAILY_SWING * daily_pattern(now);
                (day + self.drift + self.noise() * NOISE).clamp(-1.0, NORMAL_CEILING)
            }
            // Bounded noise, so that a plateau stays in its own band.
            _ => self.phase.level + (self.noise() * 0.02).clamp(-0.03, 0.03) * gap.min(1.0),
        };
        two_decimals(self.spec.base + share * (self.spec.warning - self.spec.base))
    }

    fn next_phase(&mut self) -> Phase {
        let gap = self.critical_gap();
        match self.phase.kind {
            PhaseKind::Normal if self.rng.random_bool(CRITICAL_EXCURSIONS) => Phase {
                kind: PhaseKind::Climbing,
                left: 1,
                level: 1.0 + gap * self.rng.random_range(0.3..0.7),
            },
            PhaseKind::Normal => {
                // From just below the level, where it crosses back and forth, to well above it.
                let level = self.rng.random_range(0.95..1.0 + gap * 0.75);
                Phase { kind: PhaseKind::AroundWarning, left: self.rng.random_range(WARNING_READINGS), level }
            }
            PhaseKind::Climbing => {
                let level = 1.0 + gap * self.rng.random_range(0.97..1.4);
                Phase {
                    kind: PhaseKind::AroundCritical,
                    left: self.rng.random_range(CRITICAL_READINGS),
                    level,
                }
            }
            PhaseKind::AroundCritical => Phase {
                kind: PhaseKind::Falling,
                left: 1,
                level: 1.0 + gap * self.rng.random_range(0.3..0.7),
            },
            PhaseKind::AroundWarning | PhaseKind::Falling => {
                Phase { kind: PhaseKind::Normal, left: self.rng.random_range(NORMAL_READINGS), level: 0.0 }
            }
        }
    }

    /// The distance from warning to critical, in units of the distance from base to warning.
    fn critical_gap(&self) -> f64 {
        (self.spec.critical - self.spec.warning) / (self.spec.warning - self.spec.base)
    }

    /// About normal with standard deviation 1, within ±3.5: twelve uniform draws would be exact enough, four are cheaper.
    fn noise(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.rng.random_range(-1.0..1.0)).sum();
        sum * 0.866
    }
}

/// What a sensor with these levels thinks of a value: near or above critical, near or above warning, or normal.
pub fn level_of(spec: &SensorSpec, value: f64) -> AlertLevel {
    if value >= spec.critical - NEAR_SHARE * (spec.critical - spec.warning) {
        AlertLevel::Critical
    } else if value >= spec.warning - NEAR_SHARE * (spec.warning - spec.base) {
        AlertLevel::Warning
    } else {
        AlertLevel::Normal
    }
}

/// -1 in the small hours to 1 in the afternoon.
fn daily_pattern(now: Timestamp) -> f64 {
    let second_of_day = now.as_micros().rem_euclid(DAY_MICROS) as f64 / 1e6;
    ((second_of_day - PEAK_SECOND_OF_DAY) / 86_400.0 * std::f64::consts::TAU).cos()
}

fn two_decimals(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests;

//! Many simulated sensors on one schedule: which readings are due, and what each producer has sent.
//!
//! Pure: the caller says how long the fleet has run (monotonic, so that a stepped wall clock makes no burst) and what time
//! it is (for the readings). The schedule is one heap, so a hundred thousand sensors cost one task and one timer.
//!
//! First readings are spread over the first second; afterwards each sensor has its own phase within its interval. A fleet
//! that is served late skips the readings that it missed and counts them: a simulator has no backlog.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farol_event::Timestamp;

use crate::sensor::{MAX_SENSORS, SensorError, SensorSpec};
use crate::simulator::SensorSimulator;

/// Every sensor of a process and when each is due.
#[derive(Debug)]
pub struct Fleet {
    sensors: Vec<Member>,
    producers: Vec<Arc<str>>,
    /// (when, index into `sensors`), soonest first. Always one entry per sensor.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
    skipped: u64,
}

#[derive(Debug)]
struct Member {
    simulator: SensorSimulator,
    /// Index into `producers`.
    producer: usize,
    /// When its second reading is due; its rhythm from then on.
    second_due: Duration,
    taken: bool,
}

/// A reading that is due.
#[derive(Debug, Clone)]
pub struct DueReading {
    /// Index into [`Fleet::producers`].
    pub producer: usize,
    /// The record's key.
    pub sensor_id: Bytes,
    /// The reading's JSON.
    pub json: Bytes,
}

impl Fleet {
    /// A fleet that has not run yet. `seed` decides every value.
    ///
    /// # Errors
    /// No sensors or too many, a specification that is not acceptable, or two with one id.
    pub fn new(specs: Vec<SensorSpec>, seed: u64) -> Result<Self, SensorError> {
        if !(1..=MAX_SENSORS).contains(&specs.len()) {
            return Err(SensorError::Count(specs.len()));
        }
        let mut ids = HashSet::with_capacity(specs.len());
        let mut fleet = Self {
            sensors: Vec::with_capacity(specs.len()),
            producers: Vec::new(),
            due: BinaryHeap::with_capacity(specs.len()),
            skipped: 0,
        };
        let mut producers = std::collections::HashMap::new();
        for (index, spec) in specs.into_iter().enumerate() {
            spec.check()?;
            if !ids.insert(Arc::clone(&spec.sensor_id)) {
                return Err(SensorError::DuplicateId(spec.sensor_id.to_string()));
            }
            let producer = *producers.entry(Arc::clone(&spec.producer)).or_insert_with(|| {
                fleet.producers.push(Arc::clone(&spec.producer));
                fleet.producers.len() - 1
            });
            let phase = spread(index);
            let first = spec.interval.min(Duration::from_secs(1)).mul_f64(phase);
            let second_due = spec.interval.mul_f64(1.0 + phase);
            let seed = seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let simulator = SensorSimulator::new(Arc::new(spec), seed);
            fleet.sensors.push(Member { simulator, producer, second_due, taken: false });
            fleet.due.push(Reverse((first, index)));
        }
        Ok(fleet)
    }

    /// The producers' ids, in order of first appearance.
    pub fn producers(&self) -> &[Arc<str>] {
        &self.producers
    }

    /// How many sensors there are.
    pub fn sensors(&self) -> usize {
        self.sensors.len()
    }

    /// How many readings were never taken because the fleet was served too late.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// When the next reading is due, counted from the start.
    pub fn next_due(&self) -> Duration {
        self.due.peek().map_or(Duration::MAX, |Reverse((due, _))| *due)
    }

    /// Takes up to `max` readings that are due after the fleet has run for `elapsed`, soonest first, measured at `now`.
    pub fn take_due(&mut self, elapsed: Duration, now: Timestamp, max: usize) -> Vec<DueReading> {
        let mut readings = Vec::new();
        while readings.len() < max
            && let Some(mut next) = self.due.peek_mut()
        {
            let Reverse((due, index)) = *next;
            if due > elapsed {
                break;
            }
            let Some(member) = self.sensors.get_mut(index) else { break };
            let interval = member.simulator.spec().interval;
            let mut next_due = if member.taken { due + interval } else { member.second_due };
            member.taken = true;
            if next_due <= elapsed {
                let missed = (elapsed - next_due).as_nanos() / interval.as_nanos() + 1;
                let missed = u32::try_from(missed).unwrap_or(u32::MAX);
                self.skipped += u64::from(missed);
                next_due += interval.saturating_mul(missed);
            }
            *next = Reverse((next_due, index));
            drop(next);
            let json = member.simulator.next_reading(now);
            let sensor_id = Bytes::copy_from_slice(member.simulator.spec().sensor_id.as_bytes());
            readings.push(DueReading { producer: member.producer, sensor_id, json });
        }
        readings
    }
}

/// Where in 0..1 the sensor of that index has its phase: multiples of the golden ratio, so that any number of sensors is
/// spread evenly.
fn spread(index: usize) -> f64 {
    (index as f64 * 0.618_033_988_749_894_9).fract()
}

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use farol_event::Reading;

use super::*;
use crate::sensor::{demo_fleet, numbered_fleet};

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Timestamp {
    "2025-09-16T12:00:00Z".parse().unwrap()
}

/// Runs a fleet in virtual time, always woken exactly when something is due.
fn run(fleet: &mut Fleet, until: Duration, mut take: impl FnMut(Duration, DueReading)) {
    while fleet.next_due() <= until {
        let elapsed = fleet.next_due();
        for reading in fleet.take_due(elapsed, start().saturating_add(elapsed), usize::MAX) {
            take(elapsed, reading);
        }
    }
}

#[test]
fn every_sensor_of_the_demonstration_speaks_within_the_first_second() {
    let mut fleet = Fleet::new(demo_fleet(), 1).unwrap();
    let sensors = fleet.sensors();
    let mut seen = HashSet::new();
    run(&mut fleet, SECOND, |_, reading| {
        seen.insert(reading.sensor_id);
    });
    assert_eq!(seen.len(), sensors);
}

#[test]
fn the_demonstration_crosses_thresholds_within_seconds_and_comes_back() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut fleet = Fleet::new(demo_fleet(), seed).unwrap();
    let warning: BTreeMap<Bytes, f64> =
        demo_fleet().iter().map(|s| (Bytes::copy_from_slice(s.sensor_id.as_bytes()), s.warning)).collect();
    let (mut crossed, mut returned) = (BTreeMap::new(), 0);
    run(&mut fleet, Duration::from_secs(600), |elapsed, due| {
        let value = Reading::parse(&due.json, start().saturating_add(elapsed)).unwrap().value;
        if value > warning[&due.sensor_id] {
            crossed.entry(due.sensor_id).or_insert(elapsed);
        } else if crossed.contains_key(&due.sensor_id) {
            returned += 1;
        }
    });
    let first = crossed.values().min().copied().unwrap();
    assert!(first < Duration::from_secs(45), "first crossing after {first:?}");
    assert!(
        crossed.len() >= 10 && returned > 100,
        "{} crossed, {returned} readings after that",
        crossed.len()
    );
}

#[test]
fn sensors_keep_their_rhythm_and_are_spread_over_it() {
    let specs = numbered_fleet(500).unwrap();
    let interval: BTreeMap<Bytes, Duration> =
        specs.iter().map(|s| (Bytes::copy_from_slice(s.sensor_id.as_bytes()), s.interval)).collect();
    let mut fleet = Fleet::new(specs, 1).unwrap();
    let mut times: BTreeMap<Bytes, Vec<Duration>> = BTreeMap::new();
    run(&mut fleet, Duration::from_secs(60), |elapsed, due| {
        times.entry(due.sensor_id).or_default().push(elapsed)
    });
    let mut per_second = [0_u32; 60];
    for (sensor, times) in &times {
        for pair in times[1..].windows(2) {
            assert_eq!(pair[1] - pair[0], interval[sensor]);
        }
        for time in times.iter().filter(|t| t.as_secs() < 60) {
            per_second[usize::try_from(time.as_secs()).unwrap()] += 1;
        }
    }
    let steady = &per_second[25..];
    let (least, most) = (steady.iter().min().unwrap(), steady.iter().max().unwrap());
    assert!(*most < least * 13 / 10, "readings per second between {least} and {most}");
}

#[test]
fn a_fleet_that_is_served_late_skips_and_counts_instead_of_bursting() {
    let mut spec = SensorSpec::of_type("a", "temperature").unwrap();
    spec.interval = SECOND;
    let mut fleet = Fleet::new(vec![spec], 1).unwrap();
    let at = |seconds: u64| Duration::from_secs(seconds);
    assert_eq!(fleet.take_due(at(0), start(), 10).len(), 1);
    // Readings of seconds 1 to 100 are due; one is taken.
    assert_eq!(fleet.take_due(at(100), start(), 10).len(), 1);
    assert_eq!(fleet.skipped(), 99);
    assert_eq!(fleet.take_due(at(100), start(), 10).len(), 0);
    assert_eq!(fleet.next_due(), at(101));
}

#[test]
fn a_batch_is_bounded_and_the_rest_stays_due() {
    let mut fleet = Fleet::new(numbered_fleet(10_000).unwrap(), 1).unwrap();
    let mut taken = 0;
    loop {
        let batch = fleet.take_due(SECOND, start(), 1000).len();
        assert!(batch <= 1000);
        if batch == 0 {
            break;
        }
        taken += batch;
    }
    assert_eq!(taken, 10_000);
}

#[test]
fn a_hundred_thousand_sensors_run_on_one_schedule() {
    let mut fleet = Fleet::new(numbered_fleet(100_000).unwrap(), 1).unwrap();
    let mut taken = 0_u64;
    for tick in 0..=20 {
        taken += fleet.take_due(Duration::from_millis(10) * tick, start(), usize::MAX).len() as u64;
    }
    // A fifth of the first second.
    assert!((19_000..=21_500).contains(&taken), "{taken}");
    assert_eq!(fleet.skipped(), 0);
}

#[test]
fn fleets_that_make_no_sense_are_refused() {
    let twice =
        vec![SensorSpec::of_type("a", "energy").unwrap(), SensorSpec::of_type("a", "humidity").unwrap()];
    assert_eq!(Fleet::new(twice, 1).unwrap_err(), SensorError::DuplicateId("a".into()));
    assert_eq!(Fleet::new(Vec::new(), 1).unwrap_err(), SensorError::Count(0));
}

use std::time::Duration;

use farol_event::{Reading, SENSOR_TYPES};
use proptest::prelude::*;

use super::*;

const READINGS: usize = 60_000;

fn start() -> Timestamp {
    "2025-09-16T21:41:41.011144Z".parse().unwrap()
}

/// (value, level) of a long run of one sensor.
fn run(spec: &SensorSpec, seed: u64, readings: usize) -> Vec<(f64, AlertLevel)> {
    let mut simulator = SensorSimulator::new(Arc::new(spec.clone()), seed);
    let mut now = start();
    (0..readings)
        .map(|_| {
            now = now.saturating_add(spec.interval);
            let value = simulator.next_value(now);
            (value, level_of(spec, value))
        })
        .collect()
}

#[test]
fn a_reading_is_written_as_the_format_has_it() {
    let mut spec = SensorSpec::of_type("temp-sensor-001", "temperature").unwrap();
    spec.factory_section = Some("production".into());
    spec.machine_id = Some("machine-001".into());
    spec.zone = Some("zone-a".into());
    let mut simulator = SensorSimulator::new(Arc::new(spec), 1);
    simulator.next_reading(start());
    let json = simulator.next_reading(start());
    let text = std::str::from_utf8(&json).unwrap();
    let (head, tail) = text.split_once(",\"value\":").unwrap();
    assert_eq!(
        head,
        "{\"timestamp\":\"2025-09-16T21:41:41.011144Z\",\"sensor_id\":\"temp-sensor-001\",\
         \"sensor_type\":\"temperature\",\"location\":{\"factory_section\":\"production\",\
         \"machine_id\":\"machine-001\",\"zone\":\"zone-a\"}"
    );
    assert!(tail.contains(",\"unit\":\"°C\",\"alert_level\":\""), "{tail}");
    assert!(
        tail.ends_with(
            ",\"metadata\":{\"reading_count\":2,\"warning_threshold\":35.0,\"critical_threshold\":40.0}}"
        ),
        "{tail}"
    );
    let reading = Reading::parse(&json, start()).unwrap();
    assert!(reading.quality.is_some() && reading.unknown.is_empty());
}

#[test]
fn about_fifteen_percent_are_near_warning_or_above_and_five_near_critical_or_above() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    for defaults in &SENSOR_TYPES {
        let spec = SensorSpec::of_type("s", defaults.name).unwrap();
        let levels = run(&spec, seed, READINGS);
        let share = |wanted: &dyn Fn(AlertLevel) -> bool| {
            levels.iter().filter(|(_, level)| wanted(*level)).count() as f64 / READINGS as f64
        };
        let warning = share(&|level| level >= AlertLevel::Warning);
        let critical = share(&|level| level == AlertLevel::Critical);
        // Some 1100 cycles: the standard deviation is near 0.25 % of all readings for each share.
        assert!((0.135..0.165).contains(&warning), "{}: {warning}", defaults.name);
        assert!((0.040..0.060).contains(&critical), "{}: {critical}", defaults.name);
    }
}

#[test]
fn excursions_last_and_return_to_normal() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let spec = SensorSpec::of_type("s", "temperature").unwrap();
    let levels: Vec<AlertLevel> = run(&spec, seed, READINGS).into_iter().map(|(_, level)| level).collect();
    let stretches = |wanted: &dyn Fn(AlertLevel) -> bool| -> Vec<usize> {
        levels.chunk_by(|a, b| wanted(*a) == wanted(*b)).filter(|c| wanted(c[0])).map(<[_]>::len).collect()
    };
    let critical = stretches(&|level| level == AlertLevel::Critical);
    assert!(critical.len() > 100 && critical.iter().all(|length| (3..=9).contains(length)), "{critical:?}");
    let normal = stretches(&|level| level == AlertLevel::Normal);
    // The first and the last stretch may be cut off.
    assert!(normal[1..normal.len() - 1].iter().all(|length| (23..=68).contains(length)), "{normal:?}");
    let crossing = run(&spec, seed, READINGS).iter().filter(|(value, _)| *value >= spec.critical).count();
    assert!(crossing > READINGS / 50, "critical excursions mostly cross the threshold itself: {crossing}");
}

#[test]
fn the_afternoon_is_higher_than_the_small_hours() {
    let mean_around = |hour: u64| {
        let spec = SensorSpec {
            interval: Duration::from_secs(1),
            ..SensorSpec::of_type("s", "temperature").unwrap()
        };
        let mut simulator = SensorSimulator::new(Arc::new(spec.clone()), 3);
        let from = "2025-09-16T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .saturating_add(Duration::from_secs(hour * 3600));
        let normal: Vec<f64> = (0..1000)
            .map(|second| simulator.next_value(from.saturating_add(Duration::from_secs(second))))
            .filter(|value| level_of(&spec, *value) == AlertLevel::Normal)
            .collect();
        normal.iter().sum::<f64>() / normal.len() as f64
    };
    assert!(mean_around(15) - mean_around(3) > 3.0);
}

#[test]
fn the_same_seed_gives_the_same_readings() {
    let spec = Arc::new(SensorSpec::of_type("s", "pressure").unwrap());
    let readings = |seed| {
        let mut simulator = SensorSimulator::new(Arc::clone(&spec), seed);
        (0..100).map(|_| simulator.next_reading(start())).collect::<Vec<_>>()
    };
    assert_eq!(readings(7), readings(7));
    assert_ne!(readings(7), readings(8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_reading_of_every_acceptable_sensor_parses(
        id in "[ -~é°☃]{1,40}",
        zone in proptest::option::of("[ -~é°☃]{0,20}"),
        base in -1e6..1e6_f64,
        to_warning in 0.01..1e6_f64,
        to_critical in 0.01..1e6_f64,
        seed: u64,
    ) {
        let mut spec = SensorSpec::of_type(id.as_str(), "temperature").unwrap();
        spec.zone = zone.map(Into::into);
        (spec.base, spec.warning, spec.critical) = (base, base + to_warning, base + to_warning + to_critical);
        prop_assert_eq!(spec.check(), Ok(()));
        let mut simulator = SensorSimulator::new(Arc::new(spec.clone()), seed);
        for _ in 0..150 {
            let json = simulator.next_reading(start());
            let reading = Reading::parse(&json, start()).unwrap();
            prop_assert_eq!(reading.sensor_id.as_ref(), id.as_str());
            prop_assert_eq!(reading.alert_level, Some(level_of(&spec, reading.value)));
        }
    }
}

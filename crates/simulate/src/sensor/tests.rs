use super::*;

#[test]
fn a_sensor_has_its_types_defaults_and_unknown_types_are_refused() {
    let spec = SensorSpec::of_type("temp-sensor-001", "temperature").unwrap();
    assert_eq!((spec.base, spec.warning, spec.critical), (25.0, 35.0, 40.0));
    assert_eq!((spec.unit.as_deref(), spec.interval), (Some("°C"), Duration::from_secs(3)));
    let error = SensorSpec::of_type("x", "colour").unwrap_err().to_string();
    assert!(error.contains("`colour`") && error.contains("humidity"), "{error}");
}

#[test]
fn specifications_whose_readings_would_be_refused_are_refused() {
    let good = SensorSpec::of_type("a", "energy").unwrap();
    assert_eq!(good.check(), Ok(()));
    let bad = [
        SensorSpec { sensor_id: "".into(), ..good.clone() },
        SensorSpec { sensor_id: "x".repeat(257).into(), ..good.clone() },
        SensorSpec { zone: Some("a\nb".into()), ..good.clone() },
        SensorSpec { warning: 90.0, ..good.clone() },
        SensorSpec { critical: f64::INFINITY, ..good.clone() },
        SensorSpec { base: f64::NAN, ..good.clone() },
        SensorSpec { interval: Duration::ZERO, ..good },
    ];
    for spec in bad {
        assert!(spec.check().is_err(), "{spec:?}");
    }
}

#[test]
fn the_demonstration_has_several_sensors_of_every_type_on_several_machines() {
    let fleet = demo_fleet();
    for defaults in &SENSOR_TYPES {
        let of_type = fleet.iter().filter(|s| &*s.sensor_type == defaults.name);
        assert!(of_type.count() >= 3, "{}", defaults.name);
    }
    let machines: std::collections::BTreeSet<_> = fleet.iter().filter_map(|s| s.machine_id.clone()).collect();
    let zones: std::collections::BTreeSet<_> = fleet.iter().filter_map(|s| s.zone.clone()).collect();
    assert!(machines.len() >= 5 && zones.len() >= 3, "{machines:?} {zones:?}");
    assert!(fleet.iter().all(|spec| spec.check().is_ok()));
}

#[test]
fn a_numbered_fleet_has_as_many_sensors_as_asked_for_and_no_more_than_allowed() {
    assert_eq!(numbered_fleet(1234).unwrap().len(), 1234);
    assert_eq!(numbered_fleet(0), Err(SensorError::Count(0)));
    assert_eq!(numbered_fleet(MAX_SENSORS + 1), Err(SensorError::Count(MAX_SENSORS + 1)));
}

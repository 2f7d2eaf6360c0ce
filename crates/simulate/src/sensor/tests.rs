use super::*;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn the_founding_documents_variables_describe_one_sensor() {
    let given = variables(&[
        ("SENSOR_ID", "temp-sensor-001"),
        ("SENSOR_TYPE", "temperature"),
        ("SAMPLING_INTERVAL", "1.5"),
        ("FACTORY_SECTION", "production"),
        ("MACHINE_ID", "machine-001"),
        ("ZONE", "zone-a"),
    ]);
    let spec = SensorSpec::from_variables(&given).unwrap().unwrap();
    assert_eq!((&*spec.sensor_id, &*spec.sensor_type), ("temp-sensor-001", "temperature"));
    assert_eq!(spec.interval, Duration::from_millis(1500));
    assert_eq!(spec.zone.as_deref(), Some("zone-a"));
    assert_eq!((spec.base, spec.warning, spec.critical), (25.0, 35.0, 40.0));
}

#[test]
fn without_id_and_type_there_is_no_sensor_and_empty_texts_count_as_absent() {
    assert_eq!(SensorSpec::from_variables(&variables(&[("ZONE", "zone-a")])), Ok(None));
    assert_eq!(SensorSpec::from_variables(&variables(&[("SENSOR_ID", "")])), Ok(None));
    let spec = SensorSpec::from_variables(&variables(&[("SENSOR_TYPE", "vibration")])).unwrap().unwrap();
    assert_eq!((&*spec.sensor_id, spec.interval), ("vibration-sensor-001", Duration::from_secs(4)));
}

#[test]
fn bad_variables_are_refused_by_name() {
    for interval in ["0", "-1", "NaN", "inf", "soon", "1e300", "0.001"] {
        let given = variables(&[("SENSOR_ID", "x"), ("SAMPLING_INTERVAL", interval)]);
        let error = SensorSpec::from_variables(&given).unwrap_err().to_string();
        assert!(error.starts_with("variable SAMPLING_INTERVAL"), "{error}");
    }
    let error = SensorSpec::from_variables(&variables(&[("SENSOR_TYPE", "colour")])).unwrap_err().to_string();
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

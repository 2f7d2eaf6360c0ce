use std::collections::HashSet;

use farol_event::Reading;
use proptest::prelude::*;

use super::*;

fn now() -> Timestamp {
    "2025-12-31T23:59:59.999500Z".parse().unwrap()
}

/// (sensor, timestamp, value, seq) of each line, every one parsed as the server does.
fn parsed(body: &[u8]) -> Vec<(String, i64, f64, u64)> {
    body.strip_suffix(b"\n")
        .unwrap()
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let reading =
                Reading::parse(line, now()).unwrap_or_else(|e| panic!("{}: {e}", line.escape_ascii()));
            let (name, seq) = &reading.unknown[0];
            assert_eq!(name, "seq");
            (
                reading.sensor_id.to_string(),
                reading.timestamp.as_micros(),
                reading.value,
                seq.get().parse().unwrap(),
            )
        })
        .collect()
}

#[test]
fn lines_parse_and_no_reading_is_like_another_across_connections() {
    let (mut ids, mut stamps) = (HashSet::new(), HashSet::new());
    for connection in 0..3 {
        let mut lines = LineBuilder::new("load", 10, connection, 3, 0.1);
        for _ in 0..4 {
            for (sensor, micros, _, seq) in parsed(&lines.batch(500, now(), None)) {
                assert!(ids.insert(seq) && stamps.insert((sensor, micros)), "seq {seq}");
            }
        }
    }
    assert_eq!(ids.len(), 6000);
    assert_eq!(ids.iter().max(), Some(&5999), "seq has no holes");
}

#[test]
fn what_is_noted_as_sent_is_what_the_body_says() {
    let mut lines = LineBuilder::new("x", 7, 0, 1, 0.0);
    let mut sent = Vec::new();
    let body = lines.batch(20, now(), Some(&mut sent));
    let noted: Vec<_> =
        sent.iter().map(|r| (lines.sensor_id(r.sensor).to_owned(), r.micros, r.seq)).collect();
    let written: Vec<_> =
        parsed(&body).into_iter().map(|(sensor, micros, _, seq)| (sensor, micros, seq)).collect();
    assert_eq!(noted, written);
}

#[test]
fn the_wanted_share_is_above_critical_in_excursions() {
    for fraction in [0.0, 0.02, 0.5, 1.0] {
        let mut lines = LineBuilder::new("load", 5, 0, 1, fraction);
        let readings = parsed(&lines.batch(25_000, now(), None));
        let critical = |sensor: &str| {
            let number: usize = sensor.rsplit_once('-').unwrap().1.parse().unwrap();
            SENSOR_TYPES[(number - 1) % SENSOR_TYPES.len()].critical
        };
        let above = readings.iter().filter(|(sensor, _, value, _)| *value > critical(sensor)).count();
        let share = above as f64 / readings.len() as f64;
        assert!((share - fraction).abs() < 0.01, "{fraction}: {share}");
        let own: Vec<bool> =
            readings.iter().filter(|r| r.0 == "load-000001").map(|r| r.2 > critical(&r.0)).collect();
        if fraction == 0.02 {
            let lengths: Vec<usize> = own.chunk_by(|a, b| a == b).filter(|c| c[0]).map(<[_]>::len).collect();
            assert!(
                lengths.len() > 5 && lengths[1..lengths.len() - 1].iter().all(|l| *l == 10),
                "{lengths:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn timestamps_and_numbers_are_written_like_the_slow_way(
        micros in 0_i64..253_402_207_200_000_000,
        number: u64,
        hundredths in -1_000_000_000_i64..1_000_000_000,
    ) {
        let mut out = BytesMut::new();
        let mut clock = TimestampText::default();
        clock.write(micros, &mut out);
        clock.write(micros, &mut out);
        let slow = Timestamp::from_micros(micros).unwrap().to_string();
        prop_assert_eq!(std::str::from_utf8(&out).unwrap(), format!("{slow}{slow}"));
        out.clear();
        write_number(number, &mut out);
        prop_assert_eq!(std::str::from_utf8(&out).unwrap(), number.to_string());
        out.clear();
        write_hundredths(hundredths, &mut out);
        let value: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
        prop_assert!((value * 100.0 - hundredths as f64).abs() < 1e-3);
    }
}

//! What parsing one reading costs: in its plain form, and in one that only the general parser reads.
//!
//! `cargo bench -p farol-event --bench reading`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use farol_event::{Reading, Timestamp};

const ROUNDS: u32 = 2_000_000;

fn main() {
    let plain = r#"{"timestamp":"2025-09-16T21:41:41.011144Z","sensor_id":"load-000001","sensor_type":"temperature","value":25.13,"unit":"°C","seq":1234567}"#;
    measure("plain", plain);
    measure("with an escape in its id", &plain.replace("load-", "load\\u002d"));
    let documented = r#"{"timestamp":"2025-09-16T21:41:41.011144Z","sensor_id":"temp-sensor-0001","sensor_type":"temperature","location":{"factory_section":"production","machine_id":"machine-001","zone":"zone-a"},"value":42.48,"unit":"°C","alert_level":"critical","quality":1.0,"metadata":{"calibration_date":"2025-01-01"}}"#;
    measure("with every documented field", documented);
    measure("with every documented field and an escape", &documented.replace("temp-", "temp\\u002d"));
}

fn measure(name: &str, json: &str) {
    let arrival: Timestamp = "2025-09-16T22:00:00Z".parse().unwrap();
    let began = Instant::now();
    for _ in 0..ROUNDS {
        black_box(Reading::parse(black_box(json.as_bytes()), arrival).unwrap());
    }
    println!(
        "{name}: {:.0} ns, {} bytes",
        began.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS),
        json.len()
    );
}

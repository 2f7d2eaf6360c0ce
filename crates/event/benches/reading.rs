//! What parsing one reading costs: in its plain form, and in one that only the general parser reads.
//!
//! `cargo bench -p farol-event --bench reading`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;

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
    let began = processor_ns();
    for _ in 0..ROUNDS {
        black_box(Reading::parse(black_box(json.as_bytes()), arrival).unwrap());
    }
    println!("{name}: {} ns, {} bytes", (processor_ns() - began) / u64::from(ROUNDS), json.len());
}

/// Time that this thread has been on a processor, so that what else the machine does counts less.
fn processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

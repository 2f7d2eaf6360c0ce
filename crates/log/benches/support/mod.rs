//! What the benches share: folders, percentiles, memory, and a table.
#![allow(dead_code, reason = "each bench uses a part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for a table")]

use std::time::Duration;

use farol_log::{Batch, BatchBuilder, Compression};

/// A folder on the disk that is to be measured: below `FAROL_BENCH_DIR`, or the current folder's `target`. The system's
/// folder for temporary files may be memory.
pub fn folder() -> tempfile::TempDir {
    let base = std::env::var_os("FAROL_BENCH_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    std::fs::create_dir_all(&base).unwrap();
    tempfile::tempdir_in(base).unwrap()
}

/// A batch of `count` events of `bytes` each, with keys as sensors have them.
pub fn events(count: usize, bytes: usize, compression: Compression) -> Batch {
    encode(&sources(count, bytes), compression)
}

/// Encodes one batch.
pub fn encode(sources: &[(String, Vec<u8>)], compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new(compression);
    for (timestamp_ms, (key, value)) in (1_758_058_901_011..).zip(sources) {
        builder.push(Some(key.as_bytes()), Some(value), &[], timestamp_ms).unwrap();
    }
    builder.build().unwrap()
}

/// Keys and values to encode.
pub fn sources(count: usize, bytes: usize) -> Vec<(String, Vec<u8>)> {
    let mut sources = Vec::with_capacity(count);
    let mut value = vec![b' '; bytes];
    for nth in 0..count {
        let text =
            format!("{{\"sensor_id\":\"temp-sensor-{:03}\",\"value\":{}.{}}}", nth % 100, nth % 50, nth);
        value[..text.len()].copy_from_slice(text.as_bytes());
        let key = format!("temp-sensor-{:03}", nth % 100);
        sources.push((key, value.clone()));
    }
    sources
}

/// Latencies in nanoseconds.
pub type Latencies = hdrhistogram::Histogram<u64>;

pub fn latencies() -> Latencies {
    Latencies::new(3).unwrap()
}

pub fn record(into: &mut Latencies, took: Duration) {
    into.record(took.as_nanos() as u64).unwrap();
}

/// p50, p99, p99.9 and the largest, in milliseconds.
pub fn percentiles(of: &Latencies) -> String {
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let at = |quantile| ms(of.value_at_quantile(quantile));
    format!("{:8.3} {:8.3} {:8.3} {:8.3}", at(0.5), at(0.99), at(0.999), ms(of.max()))
}

/// Resident memory now and at its highest, in MB.
pub fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kb = |field: &str| {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    (kb("VmRSS:") / 1024, kb("VmHWM:") / 1024)
}

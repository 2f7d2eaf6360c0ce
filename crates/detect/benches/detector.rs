//! How fast one thread judges readings, and how many bytes a series takes.
//!
//! Each reading goes to the next series in a scattered order, under the default rules (two of which select it), and causes no
//! transition: the usual case. A last run lets one reading in a hundred cause one
//! (every fiftieth series is too hot in one of eight of its readings, and then two alerts fire and resolve). Run with
//! `cargo bench -p farol-detect`. Times are those that the thread spent on a processor, less what making the readings takes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation
)]
#![allow(clippy::indexing_slicing)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use farol_detect::{PartitionState, defaults};
use farol_event::{Location, Reading, Timestamp};

/// Counts what is allocated, so that "no allocation" is a measured claim.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator unchanged; the counters don't touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        LIVE_BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + micros).unwrap()
}

fn reading<'a>(id: &'a str, machine: &'a str, now: Timestamp, value: f64) -> Reading<'a> {
    Reading {
        timestamp: now,
        sensor_id: Cow::Borrowed(id),
        sensor_type: Cow::Borrowed("temperature"),
        location: Location {
            factory_section: Some(Cow::Borrowed("production")),
            machine_id: Some(Cow::Borrowed(machine)),
            zone: Some(Cow::Borrowed("zone-a")),
        },
        value,
        unit: Some(Cow::Borrowed("°C")),
        alert_level: None,
        quality: Some(1.0),
        metadata: None,
        unknown: Vec::new(),
    }
}

fn measure(series: usize, every: Option<usize>) {
    let ids: Vec<String> = (0..series).map(|i| format!("temp-sensor-{i:06}")).collect();
    let machines: Vec<String> = (0..series / 10).map(|i| format!("machine-{i:05}")).collect();
    // Every series has a reading every three seconds.
    let step = 3_000_000 / i64::try_from(series).unwrap();
    let before = LIVE_BYTES.load(Relaxed);
    let mut state = PartitionState::new("sensor-data".into(), 0, Arc::new(defaults::rules()));
    let (mut offset, mut micros, mut told) = (0, 0, 0);
    let mut give = |state: &mut PartitionState, i: usize, value: f64| {
        offset += 1;
        micros += step;
        let now = at(micros);
        told +=
            state.apply_reading(&reading(&ids[i], &machines[i / 10], now, value), offset, now).unwrap().len();
    };
    for i in 0..series {
        give(&mut state, i, 25.0);
    }
    state.take_dirty(usize::MAX, usize::MAX);
    let bytes = (LIVE_BYTES.load(Relaxed) - before) as f64 / series as f64;
    // The queue of changed series grows to its full length once, as it does between two checkpoints.
    for i in 0..series {
        give(&mut state, i, 25.0);
    }
    let (calls, started, cpu) = (CALLS.load(Relaxed), Instant::now(), cpu_time());
    let mut readings = 0usize;
    while started.elapsed() < Duration::from_secs(2) {
        for _ in 0..10_000 {
            // A stride that is prime to the number of series: no two neighbours after each other.
            let i = readings.wrapping_mul(7919) % series;
            let hot =
                every.is_some_and(|every| (readings / series).is_multiple_of(8) && i.is_multiple_of(every));
            give(&mut state, i, if hot { 50.0 } else { 25.0 });
            readings += 1;
        }
    }
    let (took, allocations) = (cpu_time() - cpu, CALLS.load(Relaxed) - calls);
    let took = took.saturating_sub(making(&ids, &machines, readings));
    let saved = state.take_dirty(usize::MAX, usize::MAX);
    let saved_bytes: usize = saved.iter().map(|s| s.bytes.len()).sum();
    println!(
        "{series:>7} series: {:>6.2} M readings/s, {:>4.0} ns each, {:.4} allocations each, {told} transitions; \
         {bytes:.0} bytes a series in memory, {:.0} saved",
        readings as f64 / took.as_secs_f64() / 1e6,
        took.as_nanos() as f64 / readings as f64,
        allocations as f64 / readings as f64,
        saved_bytes as f64 / saved.len() as f64,
    );
}

/// How long it takes to make so many readings, without judging them: in the pipeline they come fresh from the parser.
fn making(ids: &[String], machines: &[String], readings: usize) -> Duration {
    let (cpu, mut bytes) = (cpu_time(), 0usize);
    for n in 0..readings {
        let i = n.wrapping_mul(7919) % ids.len();
        let made = std::hint::black_box(reading(&ids[i], &machines[i / 10], at(0), 25.0));
        let last = |text: &str| usize::from(*text.as_bytes().last().unwrap());
        bytes += last(&made.sensor_id) + last(made.location.machine_id.as_deref().unwrap());
    }
    std::hint::black_box(bytes);
    cpu_time() - cpu
}

/// What this thread has spent on a processor, so that a busy machine doesn't distort the figures; Linux only.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

fn main() {
    measure(1_000, None);
    measure(100_000, None);
    measure(1_000, Some(50));
    parsing();
}

/// For comparison: what parsing costs that precedes every judgement.
fn parsing() {
    let json = include_bytes!("../../event/tests/golden/reading.json");
    let arrival = at(365 * 86_400 * 5 * 1_000_000);
    let cpu = cpu_time();
    for _ in 0..200_000 {
        std::hint::black_box(Reading::parse(std::hint::black_box(json), arrival).unwrap());
    }
    println!("parsing the documented reading: {:.0} ns", (cpu_time() - cpu).as_nanos() as f64 / 200_000.0);
}

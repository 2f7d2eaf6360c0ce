//! What the machine itself adds: how late a thread wakes that only sleeps, and how long a word takes from thread to thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::PACE;

/// How often a record changes threads at least: sender, commit thread, reader, handler.
pub const HAND_OVERS: usize = 3;

/// When things are due: one every [`PACE`].
pub struct Beat {
    next: Instant,
}

/// A thread that sleeps by the clock and notes how late it wakes.
pub struct Sleeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Histogram<u64>>,
}

impl Beat {
    pub fn starting_at(first: Instant) -> Self {
        Self { next: first }
    }

    /// Sleeps until the next is due, unless it is overdue, and gives when that was.
    pub fn wait(&mut self) -> Instant {
        let due = self.next;
        self.next += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due
    }
}

impl Sleeper {
    /// Sleeps between the instants at which records are due, so as not to be in their way more than it must.
    pub fn start(first: Instant) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut late, mut beat) = (delays(), Beat::starting_at(first + PACE / 2));
            while !stopped.load(Ordering::Relaxed) {
                note(&mut late, beat.wait());
            }
            late
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long after it is due a word has gone through [`HAND_OVERS`] threads, each of which sleeps until it gets it.
pub fn relay(length: Duration) -> Histogram<u64> {
    let (first, mut incoming) = mpsc::channel::<Instant>();
    for _ in 1..HAND_OVERS {
        let (outgoing, next) = mpsc::channel();
        let from = std::mem::replace(&mut incoming, next);
        std::thread::spawn(move || from.into_iter().try_for_each(|due| outgoing.send(due)));
    }
    let last = std::thread::spawn(move || {
        let mut took = delays();
        incoming.into_iter().for_each(|due| note(&mut took, due));
        took
    });
    let started = Instant::now();
    let mut beat = Beat::starting_at(started);
    while started.elapsed() < length {
        first.send(beat.wait()).unwrap();
    }
    drop(first);
    last.join().unwrap()
}

/// Of nanoseconds.
pub fn delays() -> Histogram<u64> {
    // Small enough that a hundred of them don't push everything else out of the caches.
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).unwrap()
}

fn note(delays: &mut Histogram<u64>, due: Instant) {
    delays.saturating_record(u64::try_from(due.elapsed().as_nanos()).unwrap());
}

/// The middle and the tail, in microseconds.
pub fn in_words(delays: &Histogram<u64>) -> String {
    let at = |quantile| delays.value_at_quantile(quantile) as f64 / 1e3;
    format!("p50 {:>6.0} µs  p99 {:>6.0} µs  p99.9 {:>6.0} µs", at(0.5), at(0.99), at(0.999))
}

//! Counters that many threads raise without standing in one another's way.
//!
//! Each thread raises the counters of one shard; shards lie far enough apart that no two share a cache line. Reading
//! adds the shards up: a snapshot costs more so that a call costs less.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Shards of one tally: twice the machine's cores, at most these. One is 128 bytes.
const MAX_SHARDS: usize = 32;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) successful: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    pub(crate) ignored: u64,
    pub(crate) slow: u64,
    pub(crate) rejected: u64,
}

/// The counters of one shard. Two cache lines: processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shard {
    pub(crate) successful: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) ignored: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) rejected: AtomicU64,
    /// The breaker's name, for errors. One per shard, because its reference count is a counter as well.
    pub(crate) name: Arc<str>,
}

impl Shard {
    fn new(name: &str) -> Self {
        Self {
            successful: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            name: Arc::from(name),
        }
    }
}

/// Raises one of a shard's counters.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All shards. Their number is a power of two.
#[derive(Debug)]
pub(crate) struct Tally {
    shards: Box<[Shard]>,
}

impl Tally {
    pub(crate) fn new(name: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (cores * 2).next_power_of_two().min(MAX_SHARDS);
        Self { shards: (0..shards).map(|_| Shard::new(name)).collect() }
    }

    /// The shard of the calling thread.
    #[inline]
    pub(crate) fn shard(&self) -> &Shard {
        self.shards.get(thread_number() & (self.shards.len() - 1)).unwrap_or_else(|| self.first())
    }

    #[cold]
    fn first(&self) -> &Shard {
        self.shards.first().expect("a tally has two shards at least")
    }

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in &self.shards {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            totals.successful += read(&shard.successful);
            totals.failed += read(&shard.failed);
            totals.cancelled += read(&shard.cancelled);
            totals.ignored += read(&shard.ignored);
            totals.slow += read(&shard.slow);
            totals.rejected += read(&shard.rejected);
        }
        totals
    }
}

/// A number of the calling thread: 0 for the first that asks, then 1…
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed) % MAX_SHARDS);
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let tally = Tally::new("payments");
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..1000).for_each(|_| count(&tally.shard().successful)));
            }
        });
        assert_eq!(tally.totals(), Totals { successful: 16_000, ..Totals::default() });
    }

    #[test]
    fn shards_dont_share_cache_lines() {
        assert_eq!(size_of::<Shard>(), 128);
        assert_eq!(align_of::<Shard>(), 128);
    }
}

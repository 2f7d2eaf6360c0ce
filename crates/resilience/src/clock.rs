//! Where policies have the time from. A policy reads no other clock than the one it was built with.
//!
//! [`SystemClock`] is the default. [`TokioClock`] is the clock to give to policies under test in a paused tokio runtime
//! (`#[tokio::test(start_paused = true)]`): it reads the time that tokio's timers go by, so that sleeps and deadlines are
//! virtual together. [`ManualClock`] stands still until a test moves it; it is for tests of sync code and of cores.
//!
//! Async waiting is always `tokio::time`; only the blocking wait belongs to the clock, because a test owns that one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A time on a monotonic clock, in nanoseconds since an origin that only that clock knows.
///
/// Times of one clock compare; times of two clocks don't. Arithmetic saturates: 2^64 ns are 584 years.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The time that is `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time that is `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// A duration in whole nanoseconds, at most 2^64 - 1.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The time now. Never goes back.
    fn now(&self) -> MonotonicTime;

    /// The time now or a few milliseconds ago, never later than [`now`](Clock::now) would say.
    ///
    /// For decisions that can be late by that much and that are made often: an open breaker's rejections ask this one,
    /// which on Linux costs a fraction of `now`.
    fn coarse_now(&self) -> MonotonicTime {
        self.now()
    }

    /// The date and time now, for people. Policies decide nothing by it.
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Holds the calling thread up for this long.
    fn sleep_blocking(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock as policies hold it.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's monotonic clock. It goes on while the machine is busy and stands still while the machine sleeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The clock, ready to be handed to policies.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

#[cfg(target_os = "linux")]
impl Clock for SystemClock {
    fn now(&self) -> MonotonicTime {
        of_kernel(rustix::time::ClockId::Monotonic)
    }

    fn coarse_now(&self) -> MonotonicTime {
        of_kernel(rustix::time::ClockId::MonotonicCoarse)
    }
}

/// One of the kernel's clocks that start at boot.
#[cfg(target_os = "linux")]
fn of_kernel(clock: rustix::time::ClockId) -> MonotonicTime {
    let time = rustix::time::clock_gettime(clock);
    // Neither part is ever negative on these clocks.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    MonotonicTime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(not(target_os = "linux"))]
impl Clock for SystemClock {
    fn now(&self) -> MonotonicTime {
        // One origin for the process, so that all values of this clock compare.
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        MonotonicTime(nanos(ORIGIN.get_or_init(std::time::Instant::now).elapsed()))
    }
}

/// The clock of tokio's timers: the machine's, or the virtual one of a paused runtime.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    wall: SystemTime,
}

impl TokioClock {
    /// A clock that starts now. Make it inside the runtime whose time it shall follow.
    pub fn start() -> Self {
        Self { origin: tokio::time::Instant::now(), wall: SystemTime::now() }
    }

    /// The same, ready to be handed to policies.
    pub fn shared() -> SharedClock {
        Arc::new(Self::start())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> MonotonicTime {
        MonotonicTime(nanos(self.origin.elapsed()))
    }

    fn wall(&self) -> SystemTime {
        self.wall + self.origin.elapsed()
    }
}

/// A clock that moves when it is told to. Clones are the same clock.
#[derive(Clone, Default)]
pub struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock that stands at zero; its date is 1970-01-01.
    pub fn new() -> Self {
        Self::default()
    }

    /// This clock, ready to be handed to policies.
    pub fn shared(&self) -> SharedClock {
        Arc::new(self.clone())
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(nanos(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> MonotonicTime {
        MonotonicTime(self.nanos.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now().since(MonotonicTime::ZERO)
    }

    /// Moves the clock and returns at once.
    fn sleep_blocking(&self, duration: Duration) {
        self.advance(duration);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_system_clock_is_never_ahead_and_goes_forward() {
        let mut last = SystemClock.coarse_now();
        for _ in 0..10_000 {
            let coarse = SystemClock.coarse_now();
            assert!(coarse >= last);
            assert!(coarse <= SystemClock.now());
            last = coarse;
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told_and_a_blocking_sleep_moves_it() {
        let clock = ManualClock::new();
        let shared = clock.shared();
        assert_eq!(shared.now(), MonotonicTime::ZERO);
        clock.advance(Duration::from_secs(2));
        shared.sleep_blocking(Duration::from_secs(3));
        assert_eq!(clock.now().since(MonotonicTime::ZERO), Duration::from_secs(5));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_virtual_time() {
        let clock = TokioClock::start();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().since(MonotonicTime::ZERO), Duration::from_secs(3600));
    }

    #[test]
    fn times_saturate_at_both_ends() {
        let early = MonotonicTime::from_nanos(5);
        assert_eq!(MonotonicTime::ZERO.since(early), Duration::ZERO);
        assert_eq!(early.after(Duration::MAX).as_nanos(), u64::MAX);
    }
}

//! What a breaker logs. A program of its own with one test: the subscriber is the thread's, but `tracing` remembers for
//! the whole process that nobody wanted an event when another thread had it first.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farol_resilience::{CircuitBreaker, ManualClock};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn transitions_and_rejections_are_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let clock = ManualClock::new();
        let breaker = CircuitBreaker::builder("payments").clock(clock.shared()).build().unwrap();
        for _ in 0..5 {
            breaker.try_acquire().unwrap().failure();
        }
        assert!(breaker.try_acquire().is_err());
        clock.advance(Duration::from_secs(60));
        breaker.try_acquire().unwrap().success();
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let logged: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(
        logged,
        [
            "WARN circuit breaker opened breaker=payments from=closed to=open cause=5 consecutive failures",
            "DEBUG call rejected breaker=payments retry_after=Some(60s)",
            "INFO circuit breaker changed breaker=payments from=open to=half_open cause=the time to stay open is up",
            "INFO circuit breaker changed breaker=payments from=half_open to=closed cause=a probe succeeded",
        ]
    );
}

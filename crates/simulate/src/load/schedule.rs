//! When each request of a fixed-rate run is due. Pure.

use std::time::Duration;

/// The due instants of one connection's requests: its share of the whole, evenly interleaved with the others'.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    requests_per_second: f64,
    connection: usize,
    connections: usize,
    next: u64,
}

impl Schedule {
    /// Connection `connection` of `connections` that together send `requests_per_second`.
    pub fn new(requests_per_second: f64, connection: usize, connections: usize) -> Self {
        Self { requests_per_second, connection, connections, next: 0 }
    }

    /// When the next request is due, counted from the start of the run. Each call is one request; computed from its
    /// number, so that no error adds up.
    pub fn next_due(&mut self) -> Duration {
        let number = self.next as f64 * self.connections as f64 + self.connection as f64;
        self.next += 1;
        Duration::try_from_secs_f64(number / self.requests_per_second).unwrap_or(Duration::MAX)
    }
}

/// From when a request's latency counts.
///
/// A request whose connection was still busy at its due time counts from then: the wait is the server's doing. One whose
/// connection was idle counts from when it was really sent: that its timer rang late is the generator's doing, which the
/// summary shows apart.
pub fn latency_origin(due: Duration, free_since: Duration, sent: Duration) -> Duration {
    if free_since > due { due } else { sent }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn connections_interleave_evenly_at_the_whole_rate() {
        let mut due: Vec<Duration> = (0..4)
            .flat_map(|connection| {
                let mut schedule = Schedule::new(200.0, connection, 4);
                (0..50).map(move |_| schedule.next_due()).collect::<Vec<_>>()
            })
            .collect();
        due.sort();
        for (number, due) in due.iter().enumerate() {
            assert_eq!(*due, Duration::from_millis(5 * number as u64));
        }
    }

    #[test]
    fn a_stall_counts_and_a_late_timer_does_not() {
        let ms = Duration::from_millis;
        // The connection waited for an answer until 500; the request was due at 100.
        assert_eq!(latency_origin(ms(100), ms(500), ms(501)), ms(100));
        // The connection was free at 90; the timer rang at 101.
        assert_eq!(latency_origin(ms(100), ms(90), ms(101)), ms(101));
    }

    proptest! {
        /// A simulated server with one long stall, in virtual time: every request that the stall kept waiting shows it.
        #[test]
        fn a_stall_is_seen_by_every_request_that_it_delayed(stall_ms in 20_u64..2000, rate in 50_u64..500) {
            let (mut schedule, service) = (Schedule::new(rate as f64, 0, 1), Duration::from_micros(500));
            let stall = Duration::from_millis(stall_ms);
            let (mut clock, mut free_since) = (Duration::ZERO, Duration::ZERO);
            let mut delayed = 0_u64;
            for number in 0..2000 {
                let due = schedule.next_due();
                let sent = clock.max(due);
                clock = sent + if number == 10 { stall } else { service };
                let latency = clock - latency_origin(due, free_since, sent);
                free_since = clock;
                if latency > stall / 2 {
                    delayed += 1;
                }
            }
            // At least as many as were due in the first half of the stall.
            prop_assert!(delayed >= rate * stall_ms / 2000, "{} delayed", delayed);
        }

        #[test]
        fn due_times_never_panic_and_never_fall(rate in proptest::num::f64::POSITIVE, connection in 0_usize..100) {
            let mut schedule = Schedule::new(rate, connection, 100);
            let first = schedule.next_due();
            prop_assert!(schedule.next_due() >= first);
        }
    }
}

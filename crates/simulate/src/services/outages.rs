//! When a service is down by itself: a schedule out of a seed.

use std::time::Duration;

use farol_event::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Seconds between two outages.
const UP_SECONDS: std::ops::Range<f64> = 30.0..150.0;
/// Seconds of an outage: long enough for a check with usual thresholds to see it.
const DOWN_SECONDS: std::ops::Range<f64> = 15.0..45.0;

/// Outages one after the other, each with its beginning and its end. The same seed and start give the same ones.
#[derive(Debug, Clone)]
pub struct OutageSchedule {
    rng: SmallRng,
    from: Timestamp,
    to: Timestamp,
}

impl OutageSchedule {
    /// A schedule that begins at `now`, without an outage.
    pub fn new(seed: u64, now: Timestamp) -> Self {
        let mut schedule = Self { rng: SmallRng::seed_from_u64(seed), from: now, to: now };
        schedule.advance();
        schedule
    }

    /// The present outage, or the next one.
    pub fn outage(&self) -> (Timestamp, Timestamp) {
        (self.from, self.to)
    }

    /// Whether there is an outage at `now`. Time must not go back.
    pub fn is_out(&mut self, now: Timestamp) -> bool {
        while now >= self.to {
            self.advance();
        }
        now >= self.from
    }

    fn advance(&mut self) {
        let mut seconds = |range| Duration::from_secs_f64(self.rng.random_range(range));
        let (up, down) = (seconds(UP_SECONDS), seconds(DOWN_SECONDS));
        self.from = self.to.saturating_add(up);
        self.to = self.from.saturating_add(down);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_follow_one_another_and_are_the_same_for_the_same_seed() {
        let hour = |seed| {
            let mut schedule = OutageSchedule::new(seed, Timestamp::EPOCH);
            (0..3600).map(|s| schedule.is_out(Timestamp::from_millis_clamped(s * 1000))).collect::<Vec<_>>()
        };
        let first = hour(7);
        assert_eq!(first, hour(7));
        assert_ne!(first, hour(8));
        let begun = first.windows(2).filter(|pair| pair == &[false, true]).count();
        assert!((18..=80).contains(&begun), "{begun} outages in an hour");
    }
}

//! What goes wrong again and again is told when it begins, now and then while it lasts, and when it is over: that as a warning, too,
//! for whoever reads nothing below and was told that it began.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often trouble that lasts is told again at most.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// One thing that can go wrong again and again.
#[derive(Debug, Default)]
pub struct Trouble {
    lasting: Mutex<Option<Lasting>>,
}

#[derive(Debug)]
struct Lasting {
    told: Instant,
    untold: u64,
}

impl Trouble {
    /// Takes note that it went wrong. `Some` if that is to be told now: how often it went wrong untold since it was told last.
    pub fn again(&self, now: Instant) -> Option<u64> {
        let mut lasting = self.lasting.lock();
        match &mut *lasting {
            Some(Lasting { told, untold }) if now.saturating_duration_since(*told) < REMINDER_INTERVAL => {
                *untold += 1;
                None
            }
            other => {
                let untold = other.take().map_or(0, |lasting| lasting.untold);
                *other = Some(Lasting { told: now, untold: 0 });
                Some(untold)
            }
        }
    }

    /// Takes note that it went well. Whether that is to be told: it had gone wrong before.
    pub fn is_over(&self) -> bool {
        self.lasting.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_when_it_begins_once_a_minute_and_when_it_is_over() {
        let trouble = Trouble::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!trouble.is_over(), "nothing went wrong yet");
        assert_eq!(trouble.again(start), Some(0));
        let told: Vec<_> = (1..=130).filter_map(|second| trouble.again(after(second))).collect();
        assert_eq!(told, [59, 59]);
        assert!(trouble.is_over());
        assert!(!trouble.is_over(), "told once");
        assert_eq!(trouble.again(after(131)), Some(0), "it begins anew");
        assert_eq!(trouble.again(start), None, "clocks of several threads");
    }
}

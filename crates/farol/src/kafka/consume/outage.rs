//! What somebody who follows a topic is told while no broker answers: that it is so, once, and that it is over.
//!
//! The client connects again by itself and reads on where it was, so nothing has to be done but to wait.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use farol_bus::kafka::KafkaBus;
use farol_bus::{Bus as _, BusError, Polled};

/// How long a broker may take to show that it is back; it is asked again after each poll.
const BACK_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Outage<'a> {
    bus: &'a KafkaBus,
    away: bool,
}

impl<'a> Outage<'a> {
    pub(super) fn new(bus: &'a KafkaBus) -> Self {
        Self { bus, away: false }
    }

    /// Tells of an error that passes by itself; others are given back.
    pub(super) fn note(&mut self, error: BusError) -> Result<(), BusError> {
        if !passes(&error) {
            return Err(error);
        }
        if !std::mem::replace(&mut self.away, true) {
            tell(format_args!("{} is away ({error}); going on when it is back", self.bus.brokers()));
        }
        Ok(())
    }

    /// Tells that it is over if a poll, or the brokers themselves, show it.
    pub(super) async fn look(&mut self, polled: &Polled) {
        if !self.away {
            return;
        }
        let has_brought_nothing = matches!(polled, Polled::Records(records) if records.is_empty());
        if has_brought_nothing && self.bus.check(BACK_LIMIT).await.is_err() {
            return;
        }
        self.away = false;
        tell(format_args!("{} is back", self.bus.brokers()));
    }
}

/// What seems to stand in the way of a broker that is just starting or stopping may also pass.
fn passes(error: &BusError) -> bool {
    match error {
        BusError::NoAccess { obstacle, .. } => !obstacle.is_certain(),
        error => error.is_retriable(),
    }
}

fn tell(news: impl Display) {
    // Nobody may be looking.
    let _ = writeln!(io::stderr(), "{news}");
}

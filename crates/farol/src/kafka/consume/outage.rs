//! What somebody who follows a topic is told while no broker answers: that it is so, once, and that it is over. And that the topic is
//! deleted, which the client believes only after half a minute.
//!
//! The client connects again by itself and reads on where it was, so nothing has to be done but to wait. It doesn't tell of every
//! broker that it loses, so whoever hears nothing for a while asks.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use farol_bus::kafka::KafkaBus;
use farol_bus::{Bus as _, BusError, Polled};

use crate::kafka::ANSWER_LIMIT;

/// How long a broker may take to show that it is back; it is asked again after each poll.
const BACK_LIMIT: Duration = Duration::from_millis(500);
/// After how many polls in a row that brought nothing it is asked whether the brokers are there.
const QUIET_POLLS: u32 = 5;
/// In how many polls in a row the brokers must say that they don't know the topic: one that has just started may not know it yet.
const DENIALS: u32 = 2;

pub(super) struct Outage<'a> {
    bus: &'a KafkaBus,
    topic: &'a str,
    away: bool,
    quiet: u32,
    /// How often in a row the brokers have said that they don't know the topic.
    denials: u32,
}

impl<'a> Outage<'a> {
    pub(super) fn new(bus: &'a KafkaBus, topic: &'a str) -> Self {
        Self { bus, topic, away: false, quiet: 0, denials: 0 }
    }

    /// Tells of an error that passes by itself; others are given back.
    pub(super) fn note(&mut self, error: BusError) -> Result<(), BusError> {
        if !passes(&error) {
            return Err(error);
        }
        tracing::debug!(%error, "reading fails at present");
        if !std::mem::replace(&mut self.away, true) {
            let brokers = self.bus.brokers();
            match error {
                BusError::Unavailable(_) => tell(format_args!("{brokers}: {error}; trying again")),
                // A connection that a broker ends when it stops may look like one that it doesn't want.
                _ => tell(format_args!("{brokers} is away (no broker answers); going on when it is back")),
            }
        }
        Ok(())
    }

    /// Tells that it is over, or that it has begun, if a poll or the brokers themselves show it.
    ///
    /// # Errors
    /// What doesn't pass by itself; [`BusError::UnknownTopicOrPartition`] when the topic is deleted.
    pub(super) async fn look(&mut self, polled: &Polled) -> Result<(), BusError> {
        if !matches!(polled, Polled::Records(records) if records.is_empty()) {
            (self.quiet, self.denials) = (0, 0);
            self.is_over();
            return Ok(());
        }
        self.quiet = (self.quiet + 1) % QUIET_POLLS;
        if !self.away && self.quiet != 0 && self.denials == 0 {
            return Ok(());
        }
        let limit = if self.away { BACK_LIMIT } else { ANSWER_LIMIT };
        match self.bus.check(limit).await {
            Ok(()) if self.away => {
                // Let it come to itself before it is asked for the topic.
                (self.quiet, self.denials) = (0, 0);
                self.is_over();
                Ok(())
            }
            Ok(()) => self.look_for_topic().await,
            Err(error) => {
                self.denials = 0;
                self.note(error)
            }
        }
    }

    async fn look_for_topic(&mut self) -> Result<(), BusError> {
        match self.bus.has_topic(self.topic, ANSWER_LIMIT).await {
            Ok(true) => self.denials = 0,
            Ok(false) => self.denials += 1,
            Err(error) => {
                tracing::debug!(%error, "whether the topic is still there is not known");
                self.denials = 0;
            }
        }
        if self.denials < DENIALS {
            return Ok(());
        }
        Err(BusError::UnknownTopicOrPartition(format!("topic `{}`, or not any more", self.topic)))
    }

    fn is_over(&mut self) {
        if std::mem::take(&mut self.away) {
            tell(format_args!("{} is back", self.bus.brokers()));
        }
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

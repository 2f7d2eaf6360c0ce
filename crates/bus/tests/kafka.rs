//! The Kafka engine keeps every promise of the conformance suite, against an Apache Kafka whose address is in
//! `FAROL_TEST_KAFKA` (it should compact often: `log.cleaner.backoff.ms=200`). Without one there is nothing to be tested, and
//! that is said.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::{Engine, conformance_suite};
use farol_bus::kafka::{KafkaBus, KafkaOptions};
use farol_bus::{Bus, ConsumerSettings};

struct Apache {
    brokers: String,
    bus: Arc<KafkaBus>,
}

async fn apache() -> Option<Apache> {
    let brokers = std::env::var("FAROL_TEST_KAFKA").ok()?;
    let bus = open(&brokers);
    Some(Apache { brokers, bus })
}

fn open(brokers: &str) -> Arc<KafkaBus> {
    KafkaBus::new(KafkaOptions::new(brokers, "conformance")).unwrap()
}

impl Engine for Apache {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn restart(&mut self) {
        self.bus = open(&self.brokers);
    }

    /// Apache Kafka takes no shorter session, and its clients no interval between polls that is shorter than the session.
    fn impatient(&self, mut settings: ConsumerSettings) -> ConsumerSettings {
        settings.session_timeout = Duration::from_secs(6);
        settings.max_poll_interval = settings.session_timeout;
        settings
    }
}

conformance_suite!(apache);

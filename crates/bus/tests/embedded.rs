//! The embedded engine keeps every promise of the conformance suite, and some of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::{Engine, conformance_suite, conformance_tests};
use farol_bus::Bus;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};

struct Embedded {
    dir: tempfile::TempDir,
    bus: Arc<EmbeddedBus>,
}

async fn embedded() -> Option<Embedded> {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(&dir);
    Some(Embedded { dir, bus })
}

fn open(dir: &tempfile::TempDir) -> Arc<EmbeddedBus> {
    let mut options = EmbeddedOptions::new(dir.path());
    options.maintenance_interval = Duration::from_millis(50);
    EmbeddedBus::open(options).unwrap().0
}

impl Engine for Embedded {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn restart(&mut self) {
        self.bus.close().await.unwrap();
        self.bus = open(&self.dir);
    }
}

conformance_suite!(embedded);

conformance_tests!(embedded: rebalances_tell_what_set_them_off_and_what_they_cost);

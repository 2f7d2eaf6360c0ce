//! Simulators of sensors and services, replay of recorded series, and the load generator.
//!
//! Three ways to make readings, with nothing of the server in them: the simulators publish through a
//! [`farol_bus::Producer`] or over HTTP, replay and load speak HTTP to a running Farol like any other client.
//!
//! Modules, in reading order:
//!
//! * [`sensor`]: what a simulated sensor is; the demonstration plant;
//! * [`simulator`]: one sensor's next reading, pure;
//! * [`fleet`]: many sensors on one schedule, pure;
//! * [`simulators`]: the running fleet, its heartbeats, and the [`sink`] that it writes to;
//! * [`services`]: simulated services, that fail and recover as they are told;
//! * [`series`]: a CSV file as a series of samples, pure;
//! * [`mod@replay`]: a series sent to a server with its own timestamps;
//! * [`mod@load`]: as many readings as wanted, measured;
//! * [`client`], [`upload`], [`sse`], [`event_stream`], [`progress`]: what these share.
//!
//! Everything that runs takes its options, a [`progress::Progress`] where it has something to show, and a
//! [`tokio_util::sync::CancellationToken`]; it reads neither arguments nor environment and prints nothing by itself.

pub mod client;
pub mod event_stream;
pub mod fleet;
pub mod load;
pub mod progress;
pub mod replay;
pub mod sensor;
pub mod series;
pub mod services;
pub mod simulator;
pub mod simulators;
pub mod sink;
pub mod sse;
pub mod upload;

mod line;

pub use client::ServerUrl;
pub use event_stream::{EventStream, Followed, StreamRefused};
pub use load::{LoadError, LoadOptions, LoadSummary};
pub use progress::{PlainProgress, Progress, SilentProgress, TerminalProgress};
pub use replay::{ReplayError, ReplayOptions, ReplaySummary, Speed};
pub use sensor::{SensorError, SensorSpec, demo_fleet, numbered_fleet};
pub use services::{ServiceOptions, ServiceSimulators, ServicesError, service_names};
pub use simulators::{SensorSimulators, SimulationError, SimulationSummary};
pub use sink::{BusSink, HttpSink, Sink};

use farol_event::Timestamp;

/// The wall clock, read by the shells only.
fn now() -> Timestamp {
    Timestamp::from_system_time(std::time::SystemTime::now())
}

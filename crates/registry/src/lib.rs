//! The services that are watched, and the active checks that say whether they are there.
//!
//! A service is a name with labels and checks. A check asks at an interval (HTTP, TCP) or waits to be told (a heartbeat with a
//! time to live); thresholds keep a single lost packet from being an outage. What comes of it is told as [`Finding`]s: exactly
//! one *unavailable* and one *recovered* per outage, whatever the results' order.
//!
//! Modules, in reading order:
//!
//! * [`id`], [`definition`], [`target`]: what a service and a check are, as files and the API write them;
//! * [`machine`]: one check's state, pure;
//! * [`service`]: one service: its checks, its outage, its maintenance, pure;
//! * [`book`]: all of them, as a function of (state, command or result, now);
//! * [`catalogue`]: what the rest of the process can see and ask of the book;
//! * [`record`]: what the log keeps of the book;
//! * [`probe`]: one question over the network, bounded in time and bytes;
//! * [`watch`]: the shell that keeps the schedule and calls the book.
//!
//! Limits: [`MAX_SERVICES`] services, [`MAX_CHECKS`](definition::MAX_CHECKS) checks each, one question under way per check. Nothing here
//! knows the log: commands come in over a channel, findings go out over another.

pub mod book;
pub mod catalogue;
pub mod definition;
pub mod id;
pub mod machine;
pub mod probe;
pub mod record;
pub mod service;
pub mod target;
pub mod watch;

pub use book::{Book, Command, MAX_SERVICES};
pub use catalogue::{Catalogue, Refusal};
pub use definition::{CheckDefinition, DefinitionError, ServiceDefinition};
pub use id::{CheckName, ServiceId};
pub use machine::{CheckState, Machine, Results, Thresholds};
pub use probe::{Failure, NetworkProber, ProbeAnswer, Prober, Reach};
pub use record::Record;
pub use service::{Finding, FindingKind, Maintenance, Origin, Outage};
pub use target::Target;
pub use watch::{Watch, WatchDeps};

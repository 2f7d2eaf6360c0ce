//! What flows through Farol: the event envelope, readings, alerts, severities, ids, and their JSON.
//!
//! This crate holds data and its text forms and nothing else: no I/O, no clock, no async. Whoever needs "now"
//! passes it in as a [`Timestamp`].
//!
//! Modules, in reading order:
//!
//! * [`timestamp`]: instants, RFC 3339 on the wire and integer microseconds in storage;
//! * [`duration`]: `30s`, `1h30m`: durations as rules and checks write them;
//! * [`severity`]: how bad an alert is, and what a sender thought of its own reading;
//! * [`position`]: where a record stands in the log;
//! * [`reading`]: one measurement of one sensor;
//! * [`sensor_type`]: the known kinds of sensor and what is usual for each;
//! * [`envelope`]: the CloudEvents 1.0 envelope and Farol's event types;
//! * [`alert`]: an alert as it travels and as it is shown, with its evidence;
//! * [`service`]: what events tell of services: their life, metrics, checks, resilience policies and simulations.

pub mod alert;
pub mod duration;
pub mod envelope;
pub mod position;
pub mod reading;
pub mod sensor_type;
pub mod service;
pub mod severity;
pub mod timestamp;

pub use alert::{Acknowledgement, Alert, AlertId, AlertStatus, AlertTransition, Evidence, TransitionKind};
pub use duration::DurationText;
pub use envelope::{Event, EventError, EventHead, EventType};
pub use position::Position;
pub use reading::{Location, Reading, ReadingError};
pub use sensor_type::{SENSOR_TYPES, SensorTypeDefaults};
pub use service::{ServiceFact, ServiceFactError};
pub use severity::{AlertLevel, Severity};
pub use timestamp::{Timestamp, TimestampError};

/// Whether a text is a step of a path, `.` or `..`: whoever puts it into an address gets another address, however it is encoded
/// (WHATWG URL, section 4.1), so nothing that has a page can be called so.
pub(crate) fn is_path_step(text: &str) -> bool {
    matches!(text, "." | "..")
}

//! Policies that protect calls to services that fail: circuit breaker, retry, bulkhead, rate limit and their kin.
//!
//! For any Rust program: nothing here knows what is called or over which protocol. Every policy has a name, is cheap to
//! clone (clones share their state), and is used in one of three ways: around an async closure (`call`), around a sync
//! closure (`call_blocking`), or as a tower layer (`layer`, feature `tower`). All of them fail with one type,
//! [`Error`], so that policies inside one another don't nest their errors.
//!
//! Modules, in reading order:
//!
//! * [`clock`]: where policies have the time from, and clocks for tests;
//! * [`error`]: why a call failed or was refused;
//! * [`classify`]: which results count as failures;
//! * [`snapshot`]: a policy as it stands, for pages and metrics;
//! * [`changes`]: state changes: the last ones, and who is told of new ones;
//! * [`registry`]: the policies of a program, by name;
//! * `metrics`: a registry as Prometheus metrics (feature `prometheus`);
//! * [`breaker`]: stops calls to a service that fails.
//!
//! Deciding is apart from doing: each policy has a core that is a function of state, input and time, and a shell around
//! it that holds the state. Nothing is global and nothing runs in the background. What can grow has a bound.

pub mod breaker;
pub mod changes;
pub mod classify;
pub mod clock;
pub mod error;
#[cfg(feature = "prometheus")]
pub mod metrics;
pub mod registry;
pub mod snapshot;

pub use breaker::CircuitBreaker;
pub use changes::{Changes, StateChange};
pub use classify::{AnyError, Classify, Verdict};
pub use clock::{Clock, ManualClock, MonotonicTime, SharedClock, SystemClock, TokioClock};
pub use error::Error;
pub use registry::{Policy, Registry};
pub use snapshot::{PolicyKind, PolicySnapshot};

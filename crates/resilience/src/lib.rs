//! Policies that protect calls to services that fail: circuit breaker, retry, bulkhead, rate limit and their kin.
//!
//! For any Rust program: nothing here knows what is called or over which protocol. Every policy has a name, is cheap to
//! clone (clones share their state), and is used in one of three ways: around an async closure (`call`), around a sync
//! closure (`call_blocking`), or as a tower layer (`layer`, feature `tower`); attributes (`#[circuit_breaker]`, `#[retry]`,
//! `#[bulkhead]`, `#[timeout]`, feature `macros`) put a whole function under policies of its own. All of them fail with one type,
//! [`Error`], so that policies inside one another don't nest their errors.
//!
//! Modules, in reading order:
//!
//! * [`clock`]: where policies have the time from, and clocks for tests;
//! * [`error`]: why a call failed or was refused;
//! * [`classify`]: which results count as failures;
//! * [`snapshot`]: a policy as it stands, for pages and metrics;
//! * [`changes`]: state changes: the last ones, and who is told of new ones;
//! * [`random`]: where jitter has its randomness from;
//! * [`registry`]: the policies of a program, by name;
//! * [`breaker`]: stops calls to a service that fails;
//! * [`mod@retry`]: tries a failed operation again;
//! * [`rate_limiter`]: bounds calls per time;
//! * [`mod@bulkhead`]: bounds how many calls are under way;
//! * [`adaptive`]: bounds how many calls are under way, by how the service answers;
//! * [`mod@timeout`]: gives a call up that takes too long;
//! * [`fallback`]: answers in place of a call that failed;
//! * [`pipeline`]: policies inside one another, in a stated order;
//! * `layer`: policies and pipelines around tower services (feature `tower`);
//! * `metrics`: a registry as Prometheus metrics (feature `prometheus`).
//!
//! Deciding is apart from doing: each policy has a core that is a function of state, input and time, and a shell around
//! it that holds the state. Nothing is global and nothing runs in the background. What can grow has a bound.

pub mod adaptive;
pub mod breaker;
pub mod bulkhead;
pub mod changes;
pub mod classify;
pub mod clock;
pub mod error;
#[cfg(feature = "macros")]
#[doc(hidden)]
pub mod expansion;
pub mod fallback;
mod gate;
mod held;
#[cfg(feature = "tower")]
pub mod layer;
#[cfg(feature = "prometheus")]
pub mod metrics;
pub mod pipeline;
pub mod random;
pub mod rate_limiter;
pub mod registry;
pub mod retry;
pub mod snapshot;
pub mod timeout;
mod word;

pub use adaptive::AdaptiveLimiter;
pub use breaker::CircuitBreaker;
pub use bulkhead::Bulkhead;
pub use changes::{Changes, StateChange};
pub use classify::{AnyError, Classify, Verdict};
pub use clock::{Clock, ManualClock, MonotonicTime, SharedClock, SystemClock, TokioClock};
pub use error::Error;
pub use fallback::Fallback;
#[cfg(feature = "macros")]
pub use farol_resilience_macros::{bulkhead, circuit_breaker, retry, timeout};
pub use pipeline::Pipeline;
pub use random::{Random, SplitMix64};
pub use rate_limiter::RateLimiter;
pub use registry::{Policy, Registry};
pub use retry::{Retry, RetryBudget};
pub use snapshot::{PolicyKind, PolicySnapshot};
pub use timeout::Timeout;

/// The examples of the README are run as tests.
#[cfg(all(doctest, feature = "prometheus"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// So are those of the page about the order of policies.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../../../docs/resilience.md")]
struct OrderOfPolicies;

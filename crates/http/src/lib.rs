//! The HTTP face of Farol: JSON API, server-sent events, OpenAPI, Prometheus text, the dashboard's files.
//!
//! This crate takes readings and events to the log and answers what the views know. It evaluates no rule, writes no
//! view and reads no setting; it stands on a [`farol_bus::Bus`], a [`farol_view::Store`] and a [`Control`] that the
//! binary gives it. Two servers can live in one process.
//!
//! Modules, in reading order:
//!
//! * [`settings`]: where to listen, who may come in, every bound;
//! * [`server`]: the listener, its connections, the orderly end;
//! * `guard`: hosts, origins, credentials; `gate`, which applies them with the other bounds to every request;
//! * `api`: every path; [`problem`]: every error; `openapi`: the description of both;
//! * `ingest`: readings and events in;
//! * `watched`: which services are watched, and commands to simulated ones;
//! * `stream`: what happens, as it happens, to browsers;
//! * `read`: what can be asked; [`control`]: what is asked of the running system;
//! * [`metrics`], `rates`, `process`, `unread`: numbers;
//! * `dashboard`, `docs`: files from the binary.

mod alertmanager;
mod api;
mod app;
pub mod control;
mod dashboard;
mod docs;
mod extract;
mod gate;
mod guard;
mod ingest;
pub mod metrics;
mod openapi;
pub mod problem;
mod process;
mod rates;
mod read;
pub mod server;
pub mod settings;
mod stream;
mod unread;
mod watched;

pub use control::Control;
pub use metrics::{MetricsSource, Sample, SampleValue};
pub use server::{HttpDeps, HttpHandle, ServeError, serve};
pub use settings::{About, AccessToken, HttpSettings, Limits};
pub use stream::place::MAX_PARTITIONS as MAX_FACT_PARTITIONS;

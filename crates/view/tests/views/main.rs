//! The views on real SQLite files.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#![allow(missing_docs)]

mod alerts;
mod applying;
mod events_and_pipeline;
mod readings;
mod rebuilding;
mod sensors;
mod services;
mod support;

//! The Kafka protocol server over real sockets, on a real log in a temporary folder, spoken to with the codec's client side.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::missing_panics_doc, missing_docs)]

mod admin;
mod authentication;
mod client;
mod connections;
mod consume;
mod groups;
mod hostile;
mod produce;
mod transactions;
mod versions;

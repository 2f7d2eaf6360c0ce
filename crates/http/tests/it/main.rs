//! The HTTP face over real sockets, on a whole Farol in a temporary folder.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::missing_panics_doc, missing_docs)]

mod commands;
mod entry;
mod ingest;
mod queries;
mod services;
mod stream;
mod support;
mod watched;

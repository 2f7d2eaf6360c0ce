//! What comes in: readings and events, from a request's bytes to durable records.
//!
//! Limits: [`crate::settings::Limits::body_bytes`] a body, [`crate::settings::Limits::bodies_in_flight_bytes`] over all
//! requests, [`readings::MAX_READINGS`] and [`events::MAX_EVENTS`] a request, [`rejection::MAX_LISTED`] rejections
//! listed in one answer, [`producers::MAX_PRODUCERS`] names of producers.
//!
//! Flow: the body is collected into one [`bytes::Bytes`]; every reading is checked in place and becomes a record whose
//! value is a slice of it, untouched; all records of a request go to the bus in one call; the answer is written when
//! that call says that they are durable. What can't be accepted is listed by its index and counted by its reason, and
//! does no harm to the rest of its request.

pub mod body;
mod elements;
pub mod events;
pub mod media;
pub mod producers;
pub mod readings;
pub mod rejection;

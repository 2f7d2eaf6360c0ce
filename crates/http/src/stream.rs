//! `/api/stream`: what happens, as it happens, to any number of browsers (server-sent events).
//!
//! # Flow
//! Two tasks follow the log for all clients together. [`facts`] follows topics `alerts` and `system-events` from the
//! end: each record that somebody asked for becomes one frame at once. [`live`] follows `sensor-data` every
//! [`live::TICK`], but only while somebody listens to readings: the newest reading of each sensor goes into one frame,
//! and for sensors that somebody watches alone, every reading. Clients that asked for the same ([`wish`]) share a
//! [`ring`]; a frame is encoded once, whatever the number of clients and rings, and what nobody asked for not at all
//! ([`audience`]). Each client's task ([`session`]) has a place in its ring, copies nothing, and wakes for nothing else.
//!
//! # Limits
//! A ring holds at most [`ring::MAX_FRAMES`] frames and [`audience::WHOLE_BYTES`] ([`audience::FILTERED_BYTES`] behind a
//! filter); a client whose place has been overwritten gets `gap` with the number of frames it missed, per stream, and goes
//! on with the oldest that there is. So a slow browser costs a number, not memory. At most
//! [`crate::settings::Limits::streams`] clients; one that takes nothing at all is cut off by the connection's write limit.
//!
//! # Resuming
//! Every frame carries the positions up to which topics `alerts` and `system-events` have been told ([`place`]) as its
//! id. A client that comes back with it gets exactly the records between there and the place at which it joins again,
//! from the log ([`resume`]), then what the ring brings: none missing, none twice. If there are more than
//! [`resume::MAX_RECORDS`], it gets `gap` instead and fetches the lists anew. A filter that lets nothing through moves the
//! client's id all the same, with a heartbeat. Readings don't resume one by one; what counts is the newest of each
//! sensor, which comes as one frame.
//!
//! # Failures
//! A bus that fails is tried again from the same position after a pause; clients notice nothing but the pause.

pub mod audience;
pub mod facts;
pub mod frame;
pub mod hub;
pub mod live;
pub mod place;
pub mod resume;
pub mod ring;
pub mod session;
pub mod wish;

pub use hub::Hub;

//! Idempotent and transactional producers: what each partition remembers of whoever writes to it.
//!
//! A producer numbers its records by partition. The partition remembers each producer's epoch and newest batches, so that a
//! batch sent again is answered with the offset that it got the first time, a gap is refused, and a producer that was
//! replaced is fenced. Of transactions it remembers which are open (they hold back the *last stable offset*) and which were
//! aborted (their records are there and don't count). The rules are those of Kafka's `ProducerStateManager`.
//!
//! # Limits
//!
//! * [`MAX_PRODUCERS`] producers a partition; beyond it the one that was silent longest is forgotten and counted.
//!   A producer that was silent for [`ProducerLimits::expiration`] is forgotten too. Never one with an open transaction.
//! * [`MAX_REMEMBERED_BATCHES`] batches a producer, beside those on their way: a batch that is older can't be told from one out of order.
//! * 40 bytes for each aborted transaction whose records or marker the partition still holds.
//!
//! # Main flow
//!
//! A batch of a producer is appended to one partition by a request of its own. The thread that commits asks
//! [`state::ProducerState::admit`] just before it writes, so batches are judged in the order that they get in the log,
//! also those that go into one group commit. What is admitted counts at once, *on its way*; the callback completes it with
//! its offset. A batch sent again while the first is on its way waits for that one's end.
//!
//! If the append of an admitted batch fails, so do those of all batches that were admitted after it: the log takes a group back as a
//! whole on a full disk, and after any other failure the partition or the log takes no more appends until the folder is opened
//! again ([`farol_log::AppendError`]). They are taken out, whoever waits for one gets the failure, and the producer goes on where
//! the first of them was. On opening, the state is made from what the log really holds.
//!
//! # What readers may see
//!
//! The last stable offset is the first offset of the earliest open transaction, or the end. Records become readable a
//! moment before the callback, so an admitted batch that opens a transaction holds the offset at the end that the partition had
//! when it was admitted, which is at or before its place. A reader takes the end first and asks then ([`Tracker::stable_offset`]).
//!
//! # On disk
//!
//! The state stands in the partition's companion file `producers` ([`snapshot`]), written now and then and on closing, never
//! ahead of what is durable in the segments. Opening reads it and then the headers of the batches that came since. A
//! partition without the file has never had a producer: it is written, empty, before the first batch of one. So opening
//! doesn't depend on how much a partition holds.
//!
//! # Failures
//!
//! A damaged snapshot is reported and the state made from the headers of the whole partition. If that partition was
//! compacted, markers may be gone by then: what has no marker and isn't in a transaction that the coordinator knows
//! as open has been committed, because compaction takes aborted records before their markers.

mod aborted;
pub(crate) mod registry;
pub(crate) mod snapshot;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod tracker;

pub use aborted::AbortedTransaction;
pub use registry::ProducerStats;
pub use state::{
    Fate, MAX_PRODUCERS, MAX_REMEMBERED_BATCHES, ProducerDescription, ProducerError, ProducerLimits,
};

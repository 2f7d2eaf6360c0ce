//! The epochs of transactional producers of this process: a newer one fences the older ones of its id.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Groups, State};
use crate::error::BrokerError;

/// A transactional producer among those of the same id: the newest epoch is the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducerEpoch {
    pub(crate) transactional_id: String,
    pub(crate) epoch: u64,
}

/// The producer in force of one id.
pub(super) struct Producer {
    epoch: u64,
    pub(super) commits_in_flight: u32,
    pub(super) drained: Arc<Notify>,
}

impl Groups {
    /// A new epoch for a transactional id; older producers are fenced from here on. Returns when every commit that they
    /// got in before is decided, so that whoever reads the topics now reads all that they wrote.
    pub(crate) async fn new_producer(&self, transactional_id: &str) -> ProducerEpoch {
        let epoch = {
            let mut state = self.state.lock();
            state.last_epoch += 1;
            let epoch = state.last_epoch;
            state
                .producers
                .entry(transactional_id.to_owned())
                .and_modify(|producer| producer.epoch = epoch)
                .or_insert_with(|| Producer { epoch, commits_in_flight: 0, drained: Arc::default() });
            epoch
        };
        let producer = ProducerEpoch { transactional_id: transactional_id.to_owned(), epoch };
        loop {
            let drained = {
                let state = self.state.lock();
                match state.producers.get(transactional_id) {
                    Some(entry) if entry.commits_in_flight > 0 => Arc::clone(&entry.drained).notified_owned(),
                    _ => return producer,
                }
            };
            drained.await;
        }
    }

    pub(crate) fn check_producer(&self, producer: &ProducerEpoch) -> Result<(), BrokerError> {
        self.state.lock().check_producer(producer)
    }

    /// The producer is gone. Epochs never come again, so a forgotten id fences older producers all the same.
    pub(crate) fn forget_producer(&self, producer: &ProducerEpoch) {
        let mut state = self.state.lock();
        let unused = |entry: &Producer| entry.epoch == producer.epoch && entry.commits_in_flight == 0;
        if state.producers.get(&producer.transactional_id).is_some_and(unused) {
            state.producers.remove(&producer.transactional_id);
        }
    }
}

impl State {
    pub(super) fn check_producer(&self, producer: &ProducerEpoch) -> Result<(), BrokerError> {
        match self.producers.get(&producer.transactional_id) {
            Some(entry) if entry.epoch == producer.epoch => Ok(()),
            _ => Err(BrokerError::ProducerFenced { transactional_id: producer.transactional_id.clone() }),
        }
    }
}

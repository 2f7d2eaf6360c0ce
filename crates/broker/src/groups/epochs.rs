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
    commits_in_flight: u32,
    drained: Arc<Notify>,
    /// It is gone, and is forgotten when its last commit is decided.
    is_gone: bool,
}

impl Groups {
    /// A new epoch for a transactional id; older producers are fenced from here on.
    pub(crate) fn new_producer(&self, transactional_id: &str) -> ProducerEpoch {
        let mut state = self.state.lock();
        state.last_epoch += 1;
        let epoch = state.last_epoch;
        state
            .producers
            .entry(transactional_id.to_owned())
            .and_modify(|producer| (producer.epoch, producer.is_gone) = (epoch, false))
            .or_insert_with(|| Producer {
                epoch,
                commits_in_flight: 0,
                drained: Arc::default(),
                is_gone: false,
            });
        ProducerEpoch { transactional_id: transactional_id.to_owned(), epoch }
    }

    /// Returns when every commit that producers of an id got in is decided, so that whoever reads the topics then reads all that
    /// those wrote that are fenced.
    pub(crate) async fn commits_decided(&self, transactional_id: &str) {
        loop {
            let drained = {
                let state = self.state.lock();
                match state.producers.get(transactional_id) {
                    Some(entry) if entry.commits_in_flight > 0 => Arc::clone(&entry.drained).notified_owned(),
                    _ => return,
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
        let Some(entry) = state.producers.get_mut(&producer.transactional_id) else { return };
        if entry.epoch == producer.epoch {
            entry.is_gone = true;
            state.remove_if_gone(&producer.transactional_id);
        }
    }
}

impl State {
    /// A commit of the producer is on its way.
    pub(super) fn begin_producers_commit(&mut self, producer: &ProducerEpoch) {
        if let Some(entry) = self.producers.get_mut(&producer.transactional_id) {
            entry.commits_in_flight += 1;
        }
    }

    /// It is decided.
    pub(super) fn end_producers_commit(&mut self, producer: &ProducerEpoch) {
        let Some(entry) = self.producers.get_mut(&producer.transactional_id) else { return };
        entry.commits_in_flight = entry.commits_in_flight.saturating_sub(1);
        if entry.commits_in_flight == 0 {
            entry.drained.notify_waiters();
        }
        self.remove_if_gone(&producer.transactional_id);
    }

    fn remove_if_gone(&mut self, transactional_id: &str) {
        let is_over = |entry: &Producer| entry.is_gone && entry.commits_in_flight == 0;
        if self.producers.get(transactional_id).is_some_and(is_over) {
            self.producers.remove(transactional_id);
        }
    }

    pub(super) fn check_producer(&self, producer: &ProducerEpoch) -> Result<(), BrokerError> {
        match self.producers.get(&producer.transactional_id) {
            Some(entry) if entry.epoch == producer.epoch => Ok(()),
            _ => Err(BrokerError::ProducerFenced { transactional_id: producer.transactional_id.clone() }),
        }
    }
}

//! The task of one subscription: gives its handler one record after the other, from its queue or, when it is behind, from
//! the log.

use std::sync::Arc;
use std::time::Duration;

use super::handler::{Outcome, guarded, guarded_call};
use super::queue::Portion;
use super::reader::{PAUSE, all_partitions, assign};
use super::received::{Chunk, Received};
use super::registry::Registry;
use super::settings::EndReason;
use super::subscription::{Next, Positions, State};
use crate::engine::{Bus, BusError, Consumer, ConsumerSettings, Polled};
use crate::record::{ConsumedBatch, TopicPartition};

/// How long a poll waits while catching up. What is missing is there already; this is only reached at the end.
const POLL: Duration = Duration::from_millis(20);
/// How many bytes of records one poll brings at most.
const POLL_BYTES: usize = 1024 * 1024;
/// After so many records in a row, others on this thread get their turn.
const RECORDS_IN_A_ROW: u32 = 64;

pub(super) struct Runner<H> {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) registry: Arc<Registry>,
    pub(super) state: Arc<State>,
    pub(super) handler: H,
    pub(super) in_a_row: u32,
}

/// Says that a subscription has ended, however its task ends.
struct Finish {
    registry: Arc<Registry>,
    state: Arc<State>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.registry.remove(self.state.id);
        self.state.finished();
    }
}

impl<H, F> Runner<H>
where
    H: FnMut(Received) -> F + Send,
    F: Future + Send,
    F::Output: Outcome,
{
    /// Runs until the subscription has ended. With `start`, it reads from there until it has caught up.
    pub(super) async fn run(mut self, start: Option<Positions>) {
        let _finish = Finish { registry: Arc::clone(&self.registry), state: Arc::clone(&self.state) };
        if let Some(start) = start {
            self.catch_up(start).await;
        }
        loop {
            match self.state.next() {
                Next::Record(received) => self.deliver(received).await,
                Next::CatchUp(positions) => self.catch_up(positions).await,
                Next::Sleep => {
                    self.in_a_row = 0;
                    self.state.work().await;
                }
                Next::End => return,
            }
        }
    }

    async fn deliver(&mut self, received: Received) {
        self.in_a_row += 1;
        if self.in_a_row >= RECORDS_IN_A_ROW {
            self.in_a_row = 0;
            tokio::task::yield_now().await;
        }
        if let Some(predicate) = &self.state.settings.predicate {
            match guarded_call(|| predicate(&received)) {
                Ok(true) => {}
                Ok(false) => return,
                Err(panic) => return self.state.panicked(&panic.0, false),
            }
        }
        let handler = &mut self.handler;
        let call = || {
            let handling = handler(received);
            async move { handling.await.failure() }
        };
        match guarded(call).await {
            Ok(failure) => self.state.handled(failure.as_deref()),
            Err(panic) => self.state.panicked(&panic.0, true),
        }
    }

    /// Reads from the log until nothing is missing before what the common reader brings.
    async fn catch_up(&mut self, mut positions: Positions) {
        while !self.state.has_ended() {
            match self.read_log(&mut positions).await {
                Ok(()) => return,
                Err(BusError::Closed) => return self.state.end(EndReason::Closed),
                Err(error) => {
                    tracing::warn!(
                        subscription = self.state.settings.name,
                        %error,
                        "a subscription can't read the log at present; it goes on from where it was"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        // Perhaps it has been ended.
                        () = self.state.work() => {}
                    }
                }
            }
        }
    }

    /// Returns when the subscription is live, or has ended. `positions` says what has been handled, also after a failure.
    async fn read_log(&mut self, positions: &mut Positions) -> Result<(), BusError> {
        let settings = ConsumerSettings {
            max_bytes: POLL_BYTES,
            ..ConsumerSettings::standalone(&self.state.settings.name)
        };
        let mut consumer = self.bus.consumer(settings).await?;
        let mut ends = Positions::new();
        let mut is_assigned = false;
        loop {
            let all = all_partitions(self.bus.as_ref(), &self.topics).await?;
            if !is_assigned || all.iter().any(|partition| !positions.contains_key(partition)) {
                // A partition that was not known before is new: everything in it is.
                positions.retain(|partition, _| all.contains(partition));
                for partition in all {
                    positions.entry(partition).or_insert(0);
                }
                assign(consumer.as_mut(), positions).await?;
                is_assigned = true;
            }
            // Ended, or taken over by the common reader.
            if self.state.has_ended() || self.read_once(consumer.as_mut(), positions, &mut ends).await? {
                return Ok(());
            }
        }
    }

    /// Reads and handles what is there. Whether the common reader goes on from here.
    async fn read_once(
        &mut self,
        consumer: &mut dyn Consumer,
        positions: &mut Positions,
        ends: &mut Positions,
    ) -> Result<bool, BusError> {
        let Polled::Records(batches) = consumer.poll(POLL).await? else { return Ok(false) };
        // Before anything is handled: this instant, what was read reaches to the end of the log, or nearly.
        let reached = reached(consumer, positions);
        let is_live = self.registry.join(&self.state, &reached);
        for batch in batches {
            ends.insert(batch.partition.clone(), batch.end_offset);
            if !is_live {
                self.state.is_behind(behind(positions, ends), oldest_ms(&batch));
            }
            let (partition, next_offset) = (batch.partition.clone(), batch.next_offset);
            for chunk in Chunk::cut(batch) {
                let mut portion = self.state.portion(&chunk, 0);
                if !self.deliver_all(&mut portion).await {
                    return Ok(true);
                }
            }
            positions.insert(partition, next_offset);
        }
        // Also over what lies between records.
        positions.extend(reached);
        Ok(is_live)
    }

    /// `false` if nobody wants it any more.
    async fn deliver_all(&mut self, portion: &mut Portion) -> bool {
        while let Some(received) = portion.next() {
            if self.state.is_unsubscribed() {
                return false;
            }
            self.deliver(received).await;
        }
        true
    }
}

/// Where the consumer reads on.
fn reached(consumer: &mut dyn Consumer, positions: &Positions) -> Positions {
    let next = |partition: &TopicPartition| Some((partition.clone(), consumer.position(partition)?));
    positions.keys().filter_map(next).collect()
}

/// Records between what has been handled and the ends that are known.
fn behind(positions: &Positions, ends: &Positions) -> u64 {
    let left = |(partition, end): (&TopicPartition, &i64)| {
        let at = positions.get(partition).copied().unwrap_or(0);
        u64::try_from(end.saturating_sub(at)).unwrap_or(0)
    };
    ends.iter().map(left).sum()
}

fn oldest_ms(batch: &ConsumedBatch) -> i64 {
    batch.records.first().map_or(i64::MIN, |record| record.timestamp_ms)
}

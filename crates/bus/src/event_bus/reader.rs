//! The common reader: reads the topics once and hands what it reads to every subscription.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::Portion;
use super::received::Chunk;
use super::registry::Registry;
use super::settings::Overflow;
use super::subscription::{Offered, Positions, State};
use crate::engine::{Bus, BusError, Consumer, ConsumerSettings, Polled, StartAt};
use crate::record::TopicPartition;

/// How long a subscription that may catch up by itself is waited for: long enough for a handler that keeps pace on the whole,
/// short enough for the others.
const CATCH_UP_PATIENCE: Duration = Duration::from_millis(20);
/// How long one poll waits.
const POLL: Duration = Duration::from_secs(5);
/// How many bytes of records one poll brings at most.
const POLL_BYTES: usize = 256 * 1024;
/// How often it is looked for partitions that have been added to the topics.
const LOOK_FOR_PARTITIONS: Duration = Duration::from_secs(5);
/// How long after a failure the bus is asked again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) client_id: String,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) registry: Arc<Registry>,
    pub(super) shutdown: CancellationToken,
}

impl Reader {
    /// Reads until it is told to stop, or the bus is closed. Ends every subscription then.
    pub(super) async fn run(self) {
        let shutdown = self.shutdown.clone();
        let read = async {
            loop {
                match self.read().await {
                    Ok(never) => match never {},
                    Err(BusError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "an event bus can't read its topics at present; it goes on from where it was");
                        self.registry.set_problem(Some(error.to_string()));
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = shutdown.cancelled() => {}
        }
        self.registry.close();
    }

    async fn read(&self) -> Result<Infallible, BusError> {
        let settings =
            ConsumerSettings { max_bytes: POLL_BYTES, ..ConsumerSettings::standalone(&self.client_id) };
        let mut consumer = self.bus.consumer(settings).await?;
        let mut positions = self.registry.positions();
        assign(consumer.as_mut(), &positions).await?;
        let mut look_at = Instant::now() + LOOK_FOR_PARTITIONS;
        loop {
            if let Some(awake_at) = self.registry.sleep_if_alone().await {
                positions = awake_at;
                assign(consumer.as_mut(), &positions).await?;
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_FOR_PARTITIONS;
                let new = all_partitions(self.bus.as_ref(), &self.topics).await?;
                if let Some(more) = self.registry.extend(new.into_iter().map(|p| (p, 0)).collect()) {
                    positions = more;
                    assign(consumer.as_mut(), &positions).await?;
                }
            }
            let Polled::Records(batches) = consumer.poll(POLL).await? else { continue };
            self.registry.set_problem(None);
            for chunk in batches.into_iter().flat_map(Chunk::cut) {
                self.hand_out(&chunk, &positions).await;
                positions.insert(chunk.partition.clone(), chunk.next_offset);
                // A poll that finds records doesn't wait: without this, handlers on this thread would.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives everybody what there is room for, then waits for those that it has to wait for, for all of them at once.
    async fn hand_out(&self, chunk: &Arc<Chunk>, before: &Positions) {
        let list = self.registry.advance(chunk);
        let mut waiting = Vec::new();
        for state in list.iter() {
            if let Offered::Wait(rest) = state.offer(chunk) {
                waiting.push((state, rest));
            }
        }
        join_all(waiting.into_iter().map(|(state, rest)| wait_for_room(state, rest, before))).await;
    }
}

async fn wait_for_room(state: &State, mut rest: Portion, before: &Positions) {
    let limit = match state.settings.overflow {
        Overflow::Block { limit } => limit,
        _ => CATCH_UP_PATIENCE,
    };
    let fill = async {
        while !state.offer_rest(&mut rest) {
            state.room().await;
        }
    };
    if tokio::time::timeout(limit, fill).await.is_err() {
        state.give_up_waiting(&rest, before);
    }
}

/// Reads these partitions from these offsets on.
pub(super) async fn assign(consumer: &mut dyn Consumer, positions: &Positions) -> Result<(), BusError> {
    let start = |(partition, offset): (&TopicPartition, &i64)| (partition.clone(), StartAt::Offset(*offset));
    consumer.assign(positions.iter().map(start).collect()).await
}

/// Every partition of these topics. One that is not there has none.
pub(super) async fn all_partitions(
    bus: &dyn Bus,
    topics: &[Arc<str>],
) -> Result<Vec<TopicPartition>, BusError> {
    let described = bus.topics().await?;
    let ours = described.into_iter().filter(|topic| topics.contains(&topic.name));
    Ok(ours
        .flat_map(|topic| {
            (0..topic.partitions)
                .map(move |partition| TopicPartition::new(Arc::clone(&topic.name), partition))
        })
        .collect())
}

//! What waits for one handler: bounded by records and by bytes. Pure.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::received::{Chunk, Received};
use crate::record::TopicPartition;

/// What may wait for one handler. A record that is larger than `bytes` may wait alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// At most so many records.
    pub records: usize,
    /// At most so many bytes of keys and values. Memory is shared by all subscriptions; this is what one may hold on to.
    pub bytes: usize,
}

impl Default for QueueBounds {
    fn default() -> Self {
        Self { records: 4096, bytes: 16 * 1024 * 1024 }
    }
}

/// Records of one chunk, in order.
#[derive(Debug, Clone)]
pub(super) struct Portion {
    chunk: Arc<Chunk>,
    picked: Picked,
}

#[derive(Debug, Clone)]
enum Picked {
    Range(Range<usize>),
    /// Never empty at the front of a queue.
    List(VecDeque<usize>),
}

#[derive(Debug)]
pub(super) struct Queue {
    portions: VecDeque<Portion>,
    records: usize,
    bytes: usize,
    bounds: QueueBounds,
}

impl Portion {
    /// The records of a chunk from `start` on.
    pub(super) fn from(chunk: &Arc<Chunk>, start: usize) -> Self {
        Self { chunk: Arc::clone(chunk), picked: Picked::Range(start..chunk.len().max(start)) }
    }

    /// The records of a chunk from `start` on that `wanted` picks.
    pub(super) fn picked(chunk: &Arc<Chunk>, start: usize, wanted: impl Fn(usize) -> bool) -> Self {
        let list = (start..chunk.len()).filter(|index| wanted(*index)).collect();
        Self { chunk: Arc::clone(chunk), picked: Picked::List(list) }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.chunk.partition
    }

    pub(super) fn len(&self) -> usize {
        match &self.picked {
            Picked::Range(range) => range.len(),
            Picked::List(list) => list.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn first(&self) -> Option<usize> {
        match &self.picked {
            Picked::Range(range) => (!range.is_empty()).then_some(range.start),
            Picked::List(list) => list.front().copied(),
        }
    }

    /// The offset of the first record.
    pub(super) fn first_offset(&self) -> Option<i64> {
        self.chunk.offset(self.first()?)
    }

    fn bytes_of(&self, index: usize) -> usize {
        self.chunk.bytes_before(index + 1).saturating_sub(self.chunk.bytes_before(index))
    }

    fn bytes(&self) -> usize {
        match &self.picked {
            Picked::Range(range) => {
                self.chunk.bytes_before(range.end).saturating_sub(self.chunk.bytes_before(range.start))
            }
            Picked::List(list) => list.iter().map(|index| self.bytes_of(*index)).sum(),
        }
    }

    /// The first record.
    pub(super) fn next(&mut self) -> Option<Received> {
        let index = self.pop()?;
        self.chunk.received(index)
    }

    fn pop(&mut self) -> Option<usize> {
        match &mut self.picked {
            Picked::Range(range) => range.next(),
            Picked::List(list) => list.pop_front(),
        }
    }

    /// Takes the first `count` records out.
    fn split_front(&mut self, count: usize) -> Self {
        let picked = match &mut self.picked {
            Picked::Range(range) => {
                let middle = (range.start + count).min(range.end);
                let front = range.start..middle;
                range.start = middle;
                Picked::Range(front)
            }
            Picked::List(list) => Picked::List(list.drain(..count.min(list.len())).collect()),
        };
        Self { chunk: Arc::clone(&self.chunk), picked }
    }

    /// How many of the first records fit into so many records and bytes.
    fn fitting(&self, records: usize, bytes: usize) -> usize {
        if self.len() <= records && self.bytes() <= bytes {
            return self.len();
        }
        let mut left = bytes;
        let fits = |index: usize| {
            let fits = self.bytes_of(index) <= left;
            left = left.saturating_sub(self.bytes_of(index));
            fits
        };
        match &self.picked {
            Picked::Range(range) => range.clone().take(records).map(fits).take_while(|fits| *fits).count(),
            Picked::List(list) => {
                list.iter().copied().take(records).map(fits).take_while(|fits| *fits).count()
            }
        }
    }
}

impl Queue {
    pub(super) fn new(bounds: QueueBounds) -> Self {
        Self { portions: VecDeque::new(), records: 0, bytes: 0, bounds }
    }

    pub(super) fn len(&self) -> usize {
        self.records
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves the first records of `portion` in, as many as fit.
    pub(super) fn fill(&mut self, portion: &mut Portion) {
        let records = self.bounds.records.saturating_sub(self.records);
        let bytes = self.bounds.bytes.saturating_sub(self.bytes);
        let mut count = if self.bytes > self.bounds.bytes { 0 } else { portion.fitting(records, bytes) };
        // One record that is larger than the bound must not wait for ever.
        if count == 0 && self.records == 0 {
            count = 1;
        }
        if count == 0 || portion.is_empty() {
            return;
        }
        let front = portion.split_front(count);
        self.records += front.len();
        self.bytes += front.bytes();
        self.portions.push_back(front);
    }

    /// Moves all of `portion` in and drops the oldest for it. Gives how many were dropped.
    pub(super) fn fill_dropping_oldest(&mut self, portion: &mut Portion) -> usize {
        let mut dropped = 0;
        loop {
            self.fill(portion);
            if portion.is_empty() {
                return dropped;
            }
            // The queue has something, or it would have taken one more.
            if self.pop().is_some() {
                dropped += 1;
            }
        }
    }

    /// The oldest record.
    pub(super) fn pop(&mut self) -> Option<Received> {
        let portion = self.portions.front_mut()?;
        let index = portion.pop()?;
        let received = portion.chunk.received(index);
        self.records -= 1;
        self.bytes -= portion.bytes_of(index);
        if portion.is_empty() {
            self.portions.pop_front();
        }
        received
    }

    /// When the oldest record came to its topic, in milliseconds since the Unix epoch.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        let portion = self.portions.front()?;
        Some(portion.chunk.received(portion.first()?)?.timestamp_ms)
    }

    /// Throws everything away. Gives how many records that were.
    pub(super) fn clear(&mut self) -> usize {
        self.portions.clear();
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;
    use crate::record::{ConsumedBatch, ConsumedRecord};

    /// Records whose values have these lengths, from `offset` on.
    fn chunk(offset: i64, lengths: &[usize]) -> Arc<Chunk> {
        let records: Vec<_> = (offset..)
            .zip(lengths)
            .map(|(offset, length)| ConsumedRecord {
                offset,
                timestamp_ms: offset,
                key: None,
                value: Some(Bytes::from(vec![0; *length])),
                headers: Vec::new(),
            })
            .collect();
        let next_offset = offset + i64::try_from(lengths.len()).unwrap();
        Chunk::new(ConsumedBatch {
            partition: TopicPartition::new("t", 0),
            records,
            next_offset,
            end_offset: next_offset,
        })
    }

    fn offsets(queue: &mut Queue) -> Vec<i64> {
        std::iter::from_fn(|| queue.pop()).map(|received| received.offset).collect()
    }

    #[test]
    fn what_does_not_fit_stays_outside_in_order() {
        let mut queue = Queue::new(QueueBounds { records: 3, bytes: 100 });
        let mut portion = Portion::from(&chunk(10, &[1; 5]), 1);
        queue.fill(&mut portion);
        assert_eq!((queue.len(), portion.len(), portion.first_offset()), (3, 1, Some(14)));
        assert_eq!(queue.oldest_ms(), Some(11));
        assert_eq!(queue.pop().unwrap().offset, 11);
        queue.fill(&mut portion);
        assert!(portion.is_empty());
        assert_eq!(offsets(&mut queue), [12, 13, 14]);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_one_large_record_may_wait_alone() {
        let mut queue = Queue::new(QueueBounds { records: 10, bytes: 10 });
        let mut portion = Portion::from(&chunk(0, &[50, 4, 4, 4]), 0);
        queue.fill(&mut portion);
        assert_eq!((queue.len(), queue.bytes()), (1, 50));
        queue.fill(&mut portion);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop().unwrap().offset, 0);
        queue.fill(&mut portion);
        assert_eq!((queue.len(), queue.bytes(), portion.len()), (2, 8, 1));
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let mut queue = Queue::new(QueueBounds { records: 3, bytes: 100 });
        assert_eq!(queue.fill_dropping_oldest(&mut Portion::from(&chunk(0, &[1; 2]), 0)), 0);
        let picked = &mut Portion::picked(&chunk(2, &[1; 8]), 0, |index| index % 2 == 1);
        assert_eq!(queue.fill_dropping_oldest(picked), 3);
        assert_eq!(offsets(&mut queue), [5, 7, 9]);
    }

    /// Against a list of offsets, with the seed printed.
    #[test]
    fn a_queue_behaves_like_a_bounded_list() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..200 {
            let bounds =
                QueueBounds { records: random.random_range(1..9), bytes: random.random_range(1..60) };
            let mut queue = Queue::new(bounds);
            let mut model: VecDeque<(i64, usize)> = VecDeque::new();
            let mut offset = 0;
            for _ in 0..100 {
                if random.random_bool(0.5) {
                    assert_eq!(queue.pop().map(|r| r.offset), model.pop_front().map(|(offset, _)| offset));
                } else {
                    let lengths: Vec<usize> =
                        (0..random.random_range(1..6)).map(|_| random.random_range(0..40)).collect();
                    let chunk = chunk(offset, &lengths);
                    let step = random.random_range(1..3);
                    let mut portion = Portion::picked(&chunk, 0, |index| index % step == 0);
                    queue.fill(&mut portion);
                    let mut refused = false;
                    for (index, length) in lengths.iter().enumerate().filter(|(index, _)| index % step == 0) {
                        let bytes: usize = model.iter().map(|(_, length)| length).sum();
                        let fits = model.len() < bounds.records && bytes + length <= bounds.bytes;
                        // A queue that is empty takes one, and then no more in the same go.
                        let alone = model.is_empty() && !fits;
                        if refused || !(fits || alone) {
                            refused = true;
                            continue;
                        }
                        refused = alone;
                        model.push_back((offset + i64::try_from(index).unwrap(), *length));
                    }
                    offset += i64::try_from(lengths.len()).unwrap();
                }
                assert_eq!(queue.len(), model.len());
                assert_eq!(queue.bytes(), model.iter().map(|(_, length)| length).sum::<usize>());
            }
        }
    }
}

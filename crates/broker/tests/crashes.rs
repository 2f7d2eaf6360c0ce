//! Coordinator and log together, on a disk that loses what wasn't synced: whatever offsets and transactions were
//! acknowledged are there after a crash at any moment, exactly; what wasn't is there whole or not at all. Time is virtual.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farol_broker::{
    Broker, BrokerError, BrokerOptions, CommittedOffset, Isolation, OffsetCommit, ProducerIdentity, Status,
    TopicPartition,
};
use farol_log::fs::fault::FaultFileSystem;
use farol_log::{Background, Batch, BatchBuilder, BatchProducer, LogOptions, Marker, Verify};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DIR: &str = "/data";
const ID: &str = "tx";
/// The group whose offsets are committed with transactions.
const IN_TRANSACTIONS: &str = "in-transactions";
const TIMEOUT_MS: i32 = 60_000;
/// Of virtual time: nothing may hang.
const LIMIT: Duration = Duration::from_secs(3600);

/// What must be found.
#[derive(Default)]
struct Model {
    /// By group and partition: what was acknowledged last, and what was sent since and isn't known of.
    offsets: BTreeMap<(String, i32), Offsets>,
    /// By partition, in order: the values of committed transactions.
    committed: BTreeMap<i32, Vec<i64>>,
    /// A transaction whose commit was asked for and not answered.
    undecided: Option<(i32, i64)>,
    next_value: i64,
}

#[derive(Default)]
struct Offsets {
    acknowledged: Option<i64>,
    open: BTreeSet<i64>,
}

/// What the runs have seen, so that they can't prove nothing.
#[derive(Default, Debug)]
struct Seen {
    crashes: u32,
    undecided_there: u32,
    undecided_gone: u32,
    unacknowledged_offsets_there: u32,
    aborted: u32,
    timed_out: u32,
}

fn open(file_system: &FaultFileSystem) -> Broker {
    let mut log = LogOptions::new(Path::new(DIR));
    log.file_system = Arc::new(file_system.clone());
    log.background = Background::Inline;
    log.journal_first_bytes = 16 * 1024;
    log.journal_bytes = 64 * 1024;
    Broker::open(BrokerOptions { log, ..BrokerOptions::new(DIR) }).unwrap().0
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("t", number)
}

fn commit(group: &str, number: i32, offset: i64) -> OffsetCommit {
    let offsets = [(partition(number), CommittedOffset::new(offset))].into();
    OffsetCommit { group: group.to_owned(), committer: None, offsets }
}

fn batch(producer: ProducerIdentity, value: i64) -> Batch {
    let mut builder = BatchBuilder::default().written_by(BatchProducer {
        producer_id: producer.producer_id,
        producer_epoch: producer.epoch,
        base_sequence: 0,
        is_transactional: true,
    });
    builder.push(None, Some(value.to_string().as_bytes()), &[], 1).unwrap();
    builder.build().unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("nothing hangs")
}

/// The values that a reader of committed records sees.
fn visible(broker: &Broker, number: i32) -> Vec<i64> {
    let reader = broker.reader(&partition(number)).unwrap();
    let (mut values, mut next) = (Vec::new(), reader.start_offset());
    loop {
        let found = reader.read(next, 1 << 20, Verify::Checksums, Isolation::ReadCommitted).unwrap();
        for batch in found.batches() {
            let batch = batch.unwrap();
            if found.is_committed(batch.header()) {
                let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).unwrap();
                let records = batch.records().unwrap().map(|record| text(record.unwrap().value.unwrap()));
                values.extend(records.map(|value| value.parse::<i64>().unwrap()));
            }
        }
        if found.next_offset == next {
            return values;
        }
        next = found.next_offset;
    }
}

impl Model {
    fn value(&mut self) -> i64 {
        self.next_value += 1;
        self.next_value
    }

    async fn commit_offset(&mut self, broker: &Broker, group: &str, number: i32) -> Result<(), BrokerError> {
        let value = self.value();
        let offsets = self.offsets.entry((group.to_owned(), number)).or_default();
        offsets.open.insert(value);
        within(broker.commit_offsets(commit(group, number, value))).await?;
        *offsets = Offsets { acknowledged: Some(value), open: BTreeSet::new() };
        Ok(())
    }

    /// A transaction with a record and an offset, up to its end.
    async fn transaction(
        &mut self,
        broker: &Broker,
        rng: &mut StdRng,
        seen: &mut Seen,
    ) -> Result<(), BrokerError> {
        let (value, number) = (self.value(), rng.random_range(0..2));
        let producer = within(broker.init_producer(Some(ID), TIMEOUT_MS, None)).await?;
        within(broker.add_to_transaction(ID, producer, &[partition(number)].into())).await?;
        within(broker.produce(&partition(number), batch(producer, value))).await?;
        within(broker.add_offsets_to_transaction(ID, producer, IN_TRANSACTIONS)).await?;
        let held = commit(IN_TRANSACTIONS, 0, value);
        within(broker.commit_offsets_in_transaction(ID, producer, held)).await?;
        assert!(!visible(broker, number).contains(&value), "it is open");
        match rng.random_range(0..10) {
            0..6 => {
                self.undecided = Some((number, value));
                within(broker.end_transaction(ID, producer, Marker::Commit)).await?;
                self.undecided = None;
                self.has_committed(number, value);
            }
            6..8 => {
                within(broker.end_transaction(ID, producer, Marker::Abort)).await?;
                seen.aborted += 1;
            }
            // Left to its time, which is up.
            8 => {
                tokio::time::sleep(Duration::from_secs(180)).await;
                if broker.transaction(ID).is_some_and(|found| found.status == Status::CompleteAbort) {
                    seen.timed_out += 1;
                }
            }
            // Left to the next producer of its id.
            _ => {}
        }
        Ok(())
    }

    fn has_committed(&mut self, number: i32, value: i64) {
        self.committed.entry(number).or_default().push(value);
        let offsets = self.offsets.entry((IN_TRANSACTIONS.to_owned(), 0)).or_default();
        *offsets = Offsets { acknowledged: Some(value), open: BTreeSet::new() };
    }

    /// Compares what is there after a restart with what must be, and learns what became of the rest.
    fn check(&mut self, broker: &Broker, seed: u64, seen: &mut Seen) {
        if let Some((number, value)) = self.undecided.take() {
            if visible(broker, number).contains(&value) {
                seen.undecided_there += 1;
                self.has_committed(number, value);
            } else {
                seen.undecided_gone += 1;
            }
        }
        for number in 0..2 {
            let expected = self.committed.get(&number).cloned().unwrap_or_default();
            assert_eq!(visible(broker, number), expected, "seed {seed}, partition {number}");
        }
        for ((group, number), offsets) in &mut self.offsets {
            let found = broker.committed(group).get(&partition(*number)).copied();
            if found != offsets.acknowledged {
                assert!(
                    found.is_some_and(|found| offsets.open.contains(&found)),
                    "seed {seed}: group {group} has {found:?} in partition {number}, not {:?} or one of {:?}",
                    offsets.acknowledged,
                    offsets.open
                );
                seen.unacknowledged_offsets_there += 1;
            }
            *offsets = Offsets { acknowledged: found, open: BTreeSet::new() };
        }
    }
}

/// Works until the disk fails.
async fn work(model: &mut Model, broker: &Broker, rng: &mut StdRng, seen: &mut Seen) {
    for _ in 0..40 {
        let done = if rng.random_range(0..2) == 0 {
            let group = format!("group-{}", rng.random_range(0..3));
            model.commit_offset(broker, &group, rng.random_range(0..2)).await
        } else {
            model.transaction(broker, rng, seen).await
        };
        if done.is_err() {
            return;
        }
    }
}

async fn run(seed: u64, seen: &mut Seen) {
    let mut rng = StdRng::seed_from_u64(seed);
    let file_system = FaultFileSystem::new(seed);
    let mut model = Model::default();
    let broker = open(&file_system);
    broker.create_topic("t", 2, BTreeMap::new()).unwrap();
    drop(broker);
    for _ in 0..5 {
        file_system.restart();
        let broker = open(&file_system);
        // The next producer of the id ends what was left open; a crash may have come in the midst of that, too.
        within(broker.init_producer(Some(ID), TIMEOUT_MS, None)).await.unwrap();
        model.check(&broker, seed, seen);
        file_system.crash_after(rng.random_range(0..400));
        work(&mut model, &broker, &mut rng, seen).await;
        seen.crashes += u32::from(file_system.has_crashed());
        drop(broker);
    }
    file_system.restart();
    let broker = open(&file_system);
    within(broker.init_producer(Some(ID), TIMEOUT_MS, None)).await.unwrap();
    model.check(&broker, seed, seen);
}

#[tokio::test(start_paused = true)]
async fn offsets_and_transactions_survive_a_crash_at_any_moment_exactly() {
    let first: u64 = rand::rng().random_range(0..u64::MAX / 2);
    println!("seeds from {first}");
    let mut seen = Seen::default();
    for seed in first..first + 40 {
        run(seed, &mut seen).await;
    }
    println!("{seen:?}");
    assert!(seen.crashes > 60 && seen.aborted > 0 && seen.timed_out > 0, "{seen:?}");
    assert!(seen.undecided_there + seen.undecided_gone > 0, "{seen:?}");
}

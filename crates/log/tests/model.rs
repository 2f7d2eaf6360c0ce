//! The log against a model in memory, over a file system that crashes, tears and fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_log::fs::fault::{FaultCounts, FaultFileSystem, Operation};
use farol_log::{
    AppendError, AppendRequest, Background, Log, LogOptions, Partition, PartitionOptions, SyncPolicy,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::*;

const PARTITIONS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Requests that may share a group; each appends to these partitions.
    Append(Vec<Vec<usize>>),
    Rejected(usize),
    Checkpoint,
    DeleteRecords {
        partition: usize,
        percent: i64,
    },
    Retain(usize),
    Fail(Operation, &'static str),
    Capacity(u64),
    /// There is space again, and the log looks.
    Space,
    CrashAfter(u64),
    CrashNow,
    /// The process dies after so many operations; the machine stays up.
    DieAfter(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![
        4 => (0..PARTITIONS).prop_map(|partition| vec![partition]),
        2 => prop::collection::vec(0..PARTITIONS, 2..5),
    ];
    let failure = prop_oneof![
        Just((Operation::Write, ".log")),
        Just((Operation::Write, ".journal")),
        Just((Operation::Sync, ".journal")),
        Just((Operation::Sync, ".log")),
        Just((Operation::Sync, "checkpoint")),
        Just((Operation::Rename, "checkpoint")),
        Just((Operation::SyncDir, "p-1")),
        Just((Operation::Open, ".log")),
        Just((Operation::SetLen, ".log")),
        Just((Operation::Open, ".journal")),
    ];
    prop_oneof![
        12 => prop::collection::vec(request, 1..5).prop_map(Step::Append),
        1 => (0..PARTITIONS).prop_map(Step::Rejected),
        2 => Just(Step::Checkpoint),
        1 => (0..PARTITIONS, 0..100i64).prop_map(|(partition, percent)| Step::DeleteRecords { partition, percent }),
        1 => (0..PARTITIONS).prop_map(Step::Retain),
        2 => failure.prop_map(|(operation, path)| Step::Fail(operation, path)),
        3 => (10_000..30_000u64).prop_map(Step::Capacity),
        5 => Just(Step::Space),
        2 => (0..40u64).prop_map(Step::CrashAfter),
        1 => Just(Step::CrashNow),
        2 => (0..40u64).prop_map(Step::DieAfter),
        1 => Just(Step::Reopen),
    ]
}

/// A request whose outcome its poisoned log left open.
#[derive(Debug, Clone)]
struct InDoubt {
    number: u64,
    partitions: Vec<usize>,
}

#[derive(Debug, Default, Clone)]
struct PartitionModel {
    /// Records by offset.
    records: Vec<Acknowledged>,
    start: usize,
    /// Start offset that a successful deletion made durable.
    durable_start: usize,
}

#[derive(Debug, Clone)]
struct Acknowledged {
    value: String,
    /// Whether the journal holds it, and not only a reference to it.
    in_journal: bool,
    /// Whether a power cut must leave it.
    durable: bool,
}

impl PartitionModel {
    fn values(&self) -> Vec<(i64, String)> {
        let records = (0..).zip(&self.records).skip(self.start);
        records.map(|(offset, record)| (offset, record.value.clone())).collect()
    }

    fn make_durable(&mut self, which: impl Fn(&Acknowledged) -> bool) {
        self.records.iter_mut().filter(|record| which(record)).for_each(|record| record.durable = true);
    }
}

struct World {
    file_system: FaultFileSystem,
    log: Option<Log>,
    partitions: Vec<PartitionModel>,
    in_doubt: Vec<InDoubt>,
    only_process_dies: bool,
    next_request: u64,
    seen: Seen,
}

/// What a run met, to prove that it checked something.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    acknowledged: u64,
    recoveries: u64,
    replayed: u64,
    torn: u64,
    log_poisoned: u64,
    partition_poisoned: u64,
    refused_without_space: u64,
    refused_without_checkpoint: u64,
    resumed: u64,
    doubt_kept: u64,
    doubt_lost: u64,
    unsynced_lost: u64,
    found: u64,
}

fn options(file_system: &FaultFileSystem) -> LogOptions {
    LogOptions {
        background: Background::Inline,
        file_system: Arc::new(file_system.clone()),
        journal_first_bytes: 4_096,
        journal_bytes: 8_192,
        reserve_bytes: 512,
        ..LogOptions::new("/data")
    }
}

/// The last partition doesn't wait for syncs.
fn partition_options(partition: usize) -> PartitionOptions {
    let sync = if partition == PARTITIONS - 1 { SyncPolicy::Never } else { SyncPolicy::Always };
    PartitionOptions { sync, segment_bytes: 700, ..PartitionOptions::default() }
}

fn value(request: u64, nth: usize) -> String {
    format!("r{request}#{nth}{}", "x".repeat(usize::try_from(request * 31 % 90).unwrap()))
}

fn number_of(value: &str) -> u64 {
    value[1..value.find('#').unwrap()].parse().unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            file_system: FaultFileSystem::new(seed),
            log: None,
            partitions: vec![PartitionModel::default(); PARTITIONS],
            in_doubt: Vec::new(),
            only_process_dies: false,
            next_request: 0,
            seen: Seen::default(),
        };
        world.recover();
        world
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn partition(&self, partition: usize) -> Partition {
        self.log().partition(&id(&format!("p-{partition}"))).unwrap()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(requests) => self.append(requests),
            Step::Rejected(partition) => {
                let refused = AppendRequest::single(self.partition(*partition), batch(&["never"]))
                    .with_precondition(|| Err("no".into()));
                assert!(self.log().append(refused).wait().is_err());
            }
            Step::Checkpoint => {
                // Refused or failed ones show in what recovery finds.
                if self.log().checkpoint().is_ok() {
                    self.note_checkpoint();
                }
            }
            Step::DeleteRecords { partition, percent } => {
                let model = &mut self.partitions[*partition];
                let before = model.records.len() * usize::try_from(*percent).unwrap() / 100;
                let deleted = self.log.as_ref().unwrap().partition(&id(&format!("p-{partition}"))).unwrap();
                let done = deleted.delete_records_before(i64::try_from(before).unwrap());
                // Failing after the in-memory change leaves it open whether the old records come back.
                model.start = usize::try_from(deleted.start_offset()).unwrap();
                if let Ok(start) = done {
                    model.durable_start = usize::try_from(start).unwrap();
                    self.note_checkpoint();
                }
            }
            Step::Retain(partition) => {
                let retained = self.partition(*partition);
                let retention = farol_log::Retention { max_bytes: Some(1_500), max_age: None };
                retained.set_options(PartitionOptions { retention, ..partition_options(*partition) });
                let _ = retained.enforce_retention(0);
                self.partitions[*partition].start = usize::try_from(retained.start_offset()).unwrap();
            }
            Step::Fail(operation, path) => self.file_system.fail_next(*operation, path),
            Step::Capacity(bytes) => self.file_system.set_capacity(*bytes),
            Step::Space => {
                self.file_system.set_capacity(u64::MAX);
                let waits = |metrics: farol_log::LogMetrics| {
                    metrics.waiting_for_space.or(metrics.folder_not_writable)
                };
                let waited = waits(self.log().metrics()).is_some();
                let written = self.log().checkpoint();
                if waited && written.is_ok() && !self.file_system.has_crashed() {
                    assert_eq!(waits(self.log().metrics()), None);
                    self.seen.resumed += 1;
                }
            }
            Step::CrashAfter(operations) => {
                self.only_process_dies = false;
                self.file_system.crash_after(*operations);
            }
            Step::DieAfter(operations) => {
                self.only_process_dies = true;
                self.file_system.crash_after(*operations);
            }
            Step::CrashNow => {
                self.only_process_dies = false;
                self.file_system.crash_after(0);
                self.recover();
            }
            Step::Reopen => self.recover(),
        }
        self.check_running();
        if self.file_system.has_crashed() || self.log().metrics().poisoned.is_some() || self.any_poisoned() {
            self.check_refusals();
            self.recover();
        }
    }

    fn any_poisoned(&self) -> bool {
        self.log().partitions().iter().any(|partition| partition.metrics().poisoned.is_some())
    }

    fn append(&mut self, requests: &[Vec<usize>]) {
        let mut sent = Vec::new();
        let mut built = Vec::new();
        for partitions in requests {
            let number = self.next_request;
            self.next_request += 1;
            let batches = partitions.iter().enumerate().map(|(nth, partition)| {
                let values = [value(number, 2 * nth), value(number, 2 * nth + 1)];
                (self.partition(*partition), batch(&[&values[0], &values[1]]))
            });
            built.push(AppendRequest::new(batches.collect()));
            sent.push((number, partitions.clone()));
        }
        let results: Vec<_> =
            self.log().append_each(built).into_iter().map(|pending| pending.wait()).collect();
        for ((number, partitions), result) in sent.into_iter().zip(results) {
            match result {
                Ok(appended) => {
                    for ((nth, partition), base) in partitions.iter().enumerate().zip(&appended.base_offsets)
                    {
                        let records = &mut self.partitions[*partition].records;
                        assert_eq!(*base, i64::try_from(records.len()).unwrap(), "offsets rise without gaps");
                        let in_journal = partitions.iter().any(|partition| *partition != PARTITIONS - 1);
                        records.extend(
                            [value(number, 2 * nth), value(number, 2 * nth + 1)].map(|value| Acknowledged {
                                value,
                                in_journal,
                                durable: false,
                            }),
                        );
                    }
                    self.seen.acknowledged += 1;
                    let several = partitions.iter().any(|partition| *partition != partitions[0]);
                    if several || partitions.iter().any(|partition| *partition != PARTITIONS - 1) {
                        self.note_synced(&partitions);
                    }
                }
                Err(AppendError::LogPoisoned { .. }) => {
                    self.seen.log_poisoned += 1;
                    self.in_doubt.push(InDoubt { number, partitions });
                }
                Err(AppendError::PartitionPoisoned { .. }) => self.seen.partition_poisoned += 1,
                Err(AppendError::WaitingForSpace { .. }) => self.seen.refused_without_space += 1,
                Err(AppendError::FolderNotWritable { .. }) => self.seen.refused_without_checkpoint += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Everything in the journal so far lies before something that was synced, and so does everything else in its partitions.
    fn note_synced(&mut self, partitions: &[usize]) {
        for (nth, model) in self.partitions.iter_mut().enumerate() {
            model.make_durable(|record| record.in_journal || partitions.contains(&nth));
        }
    }

    /// The segments are synced.
    fn note_checkpoint(&mut self) {
        self.partitions.iter_mut().for_each(|model| model.make_durable(|_| true));
    }

    /// Running, a reader sees what was acknowledged and nothing else.
    fn check_running(&self) {
        if self.file_system.has_crashed() {
            return;
        }
        for (nth, model) in self.partitions.iter().enumerate() {
            let Some(found) = self.contents_unless_crashed(nth) else { return };
            assert_eq!(found, model.values(), "partition {nth} while running");
        }
    }

    /// Reading makes the indexes of old segments, and the moment of a crash may come with that.
    fn contents_unless_crashed(&self, nth: usize) -> Option<Vec<(i64, String)>> {
        let partition = self.partition(nth);
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| contents(&partition)));
        match read {
            Ok(found) => Some(found),
            Err(_) if self.file_system.has_crashed() => None,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// What is poisoned refuses.
    fn check_refusals(&mut self) {
        for nth in 0..PARTITIONS {
            let partition = self.partition(nth);
            let poisoned = partition.metrics().poisoned.is_some() || self.log().metrics().poisoned.is_some();
            if poisoned {
                let refused = self.log().append(AppendRequest::single(partition, batch(&["refused"]))).wait();
                let expected = matches!(
                    refused,
                    Err(AppendError::LogPoisoned { .. }
                        | AppendError::PartitionPoisoned { .. }
                        | AppendError::WaitingForSpace { .. }
                        | AppendError::FolderNotWritable { .. })
                );
                assert!(expected, "{refused:?}");
            }
        }
    }

    fn recover(&mut self) {
        let was_poisoned = self.log.as_ref().is_some_and(|log| log.metrics().poisoned.is_some());
        let closed = self.log.take().map(|log| log.close());
        let stopped = self.file_system.has_crashed();
        let mut power_cut = stopped && self.begin_again();
        if !stopped && matches!(closed, Some(Ok(()))) {
            self.note_checkpoint();
        }
        self.file_system.set_capacity(u64::MAX);
        // A planned failure or crash may hit the opening itself; the next one must find everything all the same.
        let (log, report) = loop {
            match Log::open(options(&self.file_system)) {
                // The moment may also come with what an opening can do without.
                opened if self.file_system.has_crashed() => {
                    drop(opened);
                    power_cut |= self.begin_again();
                }
                Ok(opened) => break opened,
                Err(error) => {
                    assert!(error.to_string().contains("made to fail"), "{error}");
                }
            }
        };
        self.file_system.cancel_failures();
        self.seen.recoveries += 1;
        self.seen.replayed += report.batches_replayed;
        self.seen.found += report.batches_found;
        self.seen.torn += u64::from(report.torn_bytes > 0);
        for nth in 0..PARTITIONS {
            if log.partition(&id(&format!("p-{nth}"))).is_none() {
                assert!(self.partitions[nth].records.is_empty(), "partition {nth} is gone");
            }
        }
        self.log = Some(log);
        self.make_partitions();
        self.check_recovered(power_cut || was_poisoned);
    }

    /// After the moment of a crash: as a power cut, or as a mere death of the process. Whether it was a power cut.
    fn begin_again(&self) -> bool {
        if self.only_process_dies {
            self.file_system.resume();
        } else {
            self.file_system.restart();
        }
        !self.only_process_dies
    }

    fn make_partitions(&mut self) {
        for nth in 0..PARTITIONS {
            let name = format!("p-{nth}");
            while self.log().partition(&id(&name)).is_none() {
                if self.log().create_partition(&id(&name), partition_options(nth)).is_err() {
                    if self.file_system.has_crashed() {
                        self.log = None;
                        self.begin_again();
                    }
                    self.file_system.cancel_failures();
                    self.log = None;
                    self.log = Some(open(options(&self.file_system)).0);
                }
            }
            self.partition(nth).set_options(partition_options(nth));
        }
    }

    /// Reopened: the acknowledged records, then requests that were in doubt, each wholly or not at all.
    fn check_recovered(&mut self, may_lose_unsynced: bool) {
        let mut kept_of: BTreeMap<u64, usize> = BTreeMap::new();
        for nth in 0..PARTITIONS {
            let partition = self.partition(nth);
            let found = contents(&partition);
            let start = usize::try_from(partition.start_offset()).unwrap();
            let model = &mut self.partitions[nth];
            // A deletion that no checkpoint holds yet may come undone, never go further.
            assert!(
                start <= model.start,
                "partition {nth} starts at {start}, deleted was up to {}",
                model.start
            );
            assert!(start >= model.durable_start, "partition {nth}: deleted records are back");
            model.start = start;
            let offsets = found.iter().map(|(offset, _)| usize::try_from(*offset).unwrap());
            assert!(offsets.eq(start..start + found.len()), "partition {nth} has a gap: {found:?}");
            let acknowledged = &model.records[start..];
            let common = acknowledged.iter().zip(&found).take_while(|(a, b)| a.value == b.1).count();
            if common < acknowledged.len() {
                assert_eq!(found.len(), common, "partition {nth} holds something else than was acknowledged");
                assert!(may_lose_unsynced, "partition {nth} lost records without a power cut");
                let lost = &acknowledged[common..];
                assert!(lost.iter().all(|record| !record.durable), "partition {nth} lost synced records");
                self.seen.unsynced_lost += 1;
            }
            for (_, value) in &found[common..] {
                *kept_of.entry(number_of(value)).or_default() += 1;
            }
            model.records.truncate(start + common);
            let kept = found.into_iter().skip(common).map(|(_, value)| value);
            model.records.extend(kept.map(|value| Acknowledged { value, in_journal: true, durable: false }));
            model.make_durable(|_| true);
        }
        for doubt in std::mem::take(&mut self.in_doubt) {
            let kept = kept_of.remove(&doubt.number).unwrap_or(0);
            let only_named = doubt.partitions.iter().all(|partition| *partition == PARTITIONS - 1);
            assert!(
                kept == 0 || kept == 2 * doubt.partitions.len() || only_named && may_lose_unsynced,
                "{doubt:?} was kept in part: {kept} records"
            );
            if kept == 0 { self.seen.doubt_lost += 1 } else { self.seen.doubt_kept += 1 }
        }
        assert!(kept_of.is_empty(), "records of refused requests: {kept_of:?}");
    }
}

#[test]
fn recovery_keeps_what_was_acknowledged_and_nothing_in_part_whatever_fails() {
    let mut total = Seen::default();
    let mut faults = FaultCounts::default();
    let config = Config { cases: 600, failure_persistence: None, ..Config::default() };
    let strategy = (any::<u64>(), prop::collection::vec(step(), 1..60));
    let totals = std::cell::RefCell::new((&mut total, &mut faults));
    TestRunner::new(config)
        .run(&strategy, |(seed, steps)| {
            println!("file system seed {seed}");
            let mut world = World::new(seed);
            for step in &steps {
                world.take(step);
            }
            world.recover();
            let (total, faults) = &mut *totals.borrow_mut();
            let (seen, counts) = (world.seen, world.file_system.counts());
            total.acknowledged += seen.acknowledged;
            total.recoveries += seen.recoveries;
            total.replayed += seen.replayed;
            total.torn += seen.torn;
            total.log_poisoned += seen.log_poisoned;
            total.partition_poisoned += seen.partition_poisoned;
            total.refused_without_space += seen.refused_without_space;
            total.refused_without_checkpoint += seen.refused_without_checkpoint;
            total.resumed += seen.resumed;
            total.doubt_kept += seen.doubt_kept;
            total.doubt_lost += seen.doubt_lost;
            total.unsynced_lost += seen.unsynced_lost;
            total.found += seen.found;
            faults.crashes += counts.crashes;
            faults.deaths += counts.deaths;
            faults.writes_torn += counts.writes_torn;
            faults.writes_lost += counts.writes_lost;
            faults.writes_kept += counts.writes_kept;
            faults.names_lost += counts.names_lost;
            faults.failures += counts.failures;
            faults.short_writes += counts.short_writes;
            faults.no_space += counts.no_space;
            Ok(())
        })
        .unwrap();
    println!("{total:?}\n{faults:?}");
    // A run that met no trouble proves nothing.
    assert!(total.acknowledged > 2_000 && total.recoveries > 500 && total.replayed > 1_000, "{total:?}");
    assert!(total.log_poisoned > 50 && total.partition_poisoned > 20, "{total:?}");
    assert!(total.refused_without_space > 50 && total.resumed > 5, "{total:?}");
    assert!(
        total.doubt_kept > 5 && total.doubt_lost > 5 && total.torn > 5 && total.unsynced_lost > 5,
        "{total:?}"
    );
    assert!(total.found > 100, "{total:?}");
    assert!(
        faults.crashes > 100 && faults.deaths > 50 && faults.writes_torn > 100 && faults.writes_lost > 100,
        "{faults:?}"
    );
    assert!(faults.names_lost > 20 && faults.failures > 100 && faults.short_writes > 500, "{faults:?}");
    assert!(faults.no_space > 5, "{faults:?}");
}

#[test]
fn names_that_a_dead_process_left_are_made_durable_before_they_are_used() {
    let mut died = 0;
    for operations in 0..60 {
        for seed in 0..12 {
            let file_system = FaultFileSystem::new(seed);
            // A first process dies somewhere while it makes the folder and a partition; the machine stays up.
            file_system.crash_after(operations);
            if let Ok((log, _)) = Log::open(options(&file_system)) {
                let _ = log.create_partition(&id("p"), PartitionOptions::default());
            }
            died += u64::from(file_system.has_crashed());
            file_system.resume();
            // A second one goes on with what it finds, acknowledges a record, and then the power is cut.
            let (log, _) = open(options(&file_system));
            let p = partition(&log, "p", PartitionOptions::default());
            append(&log, &p, batch(&["synced"]));
            file_system.crash_after(0);
            drop((p, log));
            file_system.restart();
            let (log, _) = open(options(&file_system));
            let kept = log.partition(&id("p")).map(|p| contents(&p));
            let expected = vec![(0, "synced".to_owned())];
            assert_eq!(kept, Some(expected), "died after {operations} operations, seed {seed}");
        }
    }
    assert!(died > 100, "{died}");
}

#[test]
fn a_poisoned_log_stays_readable() {
    let file_system = FaultFileSystem::new(1);
    let (log, _) = open(options(&file_system));
    let sensors = partition(&log, "p", PartitionOptions::default());
    append(&log, &sensors, batch(&["kept"]));
    file_system.fail_next(Operation::Sync, ".journal");
    let failed = log.append(AppendRequest::single(sensors.clone(), batch(&["lost"]))).wait().unwrap_err();
    assert!(failed.to_string().contains("syncing") && failed.to_string().contains(".journal"), "{failed}");
    let refused = log.append(AppendRequest::single(sensors.clone(), batch(&["later"]))).wait();
    assert!(matches!(refused, Err(AppendError::LogPoisoned { .. })));
    assert_eq!(contents(&sensors), [(0, "kept".to_owned())]);
    assert!(log.metrics().poisoned.is_some());
    assert!(log.close().is_err());
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_space_and_poisons_nothing() {
    let file_system = FaultFileSystem::new(2);
    let (log, _) = open(options(&file_system));
    let (p, other) =
        (partition(&log, "p", partition_options(0)), partition(&log, "other", partition_options(1)));
    append(&log, &p, batch(&["before"]));
    append(&log, &other, batch(&["before"]));
    let both = || AppendRequest::new(vec![(p.clone(), batch(&["x"])), (other.clone(), batch(&["x"]))]);
    for round in 0..3 {
        file_system.set_capacity(file_system.used_bytes() + round * 40);
        let refused = log.append(both()).wait().unwrap_err();
        assert!(matches!(refused, AppendError::WaitingForSpace { .. }), "{refused}");
        assert!(refused.to_string().contains("writing a segment"), "{refused}");
        let metrics = log.metrics();
        assert!(metrics.waiting_for_space.is_some() && metrics.poisoned.is_none(), "{metrics:?}");
        assert_eq!(metrics.full_disks, round + 1);

        // Room for a checkpoint alone is not enough for the next append.
        file_system.set_capacity(file_system.used_bytes() + 2_000);
        log.checkpoint().unwrap();
        assert!(log.metrics().waiting_for_space.is_some());

        file_system.set_capacity(u64::MAX);
        log.checkpoint().unwrap();
        log.append(both()).wait().unwrap();
        let expected = usize::try_from(round).unwrap() + 2;
        assert_eq!((contents(&p).len(), contents(&other).len()), (expected, expected));
    }
    drop((p, other, log));
    file_system.restart();
    let (log, _) = open(options(&file_system));
    for name in ["p", "other"] {
        assert_eq!(contents(&log.partition(&id(name)).unwrap()).len(), 4, "{name}");
    }
}

#[test]
fn a_disk_with_too_little_space_is_not_filled_to_find_out_and_taken_again_only_with_some_to_spare() {
    const KIB: u64 = 1024;
    let file_system = FaultFileSystem::new(4);
    let journal =
        LogOptions { journal_first_bytes: 4 * KIB, journal_bytes: 512 * KIB, ..options(&file_system) };
    let (log, _) = open(LogOptions { reserve_bytes: 64 * KIB, ..journal });
    let p = partition(&log, "p", PartitionOptions::default());
    let append_one =
        || log.append(AppendRequest::single(p.clone(), keyed(1, "key", Some(&"x".repeat(3_000))))).wait();
    // Each file of the journal is twice as large as the one before; there is room for most of the one of 512 KiB.
    let append_in_little_space = |_| {
        log.checkpoint().unwrap();
        file_system.set_capacity(file_system.used_bytes() + 450 * KIB);
        append_one().err()
    };
    let refused = (0..2_000).find_map(append_in_little_space).unwrap();
    assert!(refused.to_string().contains("making a file"), "{refused}");
    let written = file_system.counts().bytes_written;
    for _ in 0..20 {
        log.checkpoint().unwrap();
    }
    let tried = file_system.counts().bytes_written - written;
    assert!(tried < 8 * KIB, "{tried} bytes were written to look for space");
    assert!(log.metrics().waiting_for_space.is_some());

    // What is wanted, the reserve, and little more: not enough to go on.
    file_system.set_capacity(file_system.used_bytes() + (512 + 64 + 16) * KIB);
    log.checkpoint().unwrap();
    assert!(log.metrics().waiting_for_space.is_some());
    file_system.set_capacity(file_system.used_bytes() + (512 + 64 + 160) * KIB);
    log.checkpoint().unwrap();
    assert_eq!(log.metrics().waiting_for_space, None);
    append_one().unwrap();
    assert_eq!(log.metrics().full_disks, 1);
}

#[test]
fn without_space_for_the_next_journal_file_the_segments_are_taken_back() {
    let file_system = FaultFileSystem::new(3);
    let (log, _) = open(options(&file_system));
    let p = partition(&log, "p", partition_options(0));
    let mut appended = Vec::new();
    let mut waits = 0;
    for number in 0..400 {
        // Enough for segments and checkpoints, not for a further file of the journal.
        file_system.set_capacity(file_system.used_bytes() + 1_500);
        let value = value(number, 0);
        if let Err(refused) = log.append(AppendRequest::single(p.clone(), batch(&[&value]))).wait() {
            assert!(matches!(refused, AppendError::WaitingForSpace { .. }), "{refused}");
            assert!(refused.to_string().contains("journal"), "{refused}");
            waits += 1;
            file_system.set_capacity(u64::MAX);
            log.checkpoint().unwrap();
            append(&log, &p, batch(&[&value]));
        }
        appended.push(value);
    }
    assert!(waits > 1, "{waits}");
    let values = |p: &Partition| contents(p).into_iter().map(|(_, value)| value).collect::<Vec<_>>();
    assert_eq!(values(&p), appended);
    drop((p, log));
    file_system.restart();
    let (log, _) = open(options(&file_system));
    assert_eq!(values(&log.partition(&id("p")).unwrap()), appended);
}

//! What opening a folder does about torn tails, damage, and files that are gone.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use farol_log::fs::fault::{FaultFileSystem, Operation};
use farol_log::fs::{FileSystem, OpenMode};
use farol_log::{
    AppendError, AppendRequest, Background, Log, LogOptions, OpenError, PartitionError, PartitionOptions,
    ReadError, RecoveryReport, Retention, SyncPolicy, Verify,
};
use support::*;

/// Bytes of a frame's header, and of an entry's; see the journal's layout.
const FRAME_HEADER: usize = 48;

fn options(file_system: &FaultFileSystem) -> LogOptions {
    LogOptions {
        background: Background::Inline,
        file_system: Arc::new(file_system.clone()),
        journal_first_bytes: 64 * 1024,
        reserve_bytes: 0,
        ..LogOptions::new("/data")
    }
}

fn segments() -> PartitionOptions {
    PartitionOptions { segment_bytes: 400, ..PartitionOptions::default() }
}

/// A log with ten synced appends of one record to `p`, each in a frame of its own, killed without a checkpoint.
fn killed_with_ten_frames() -> FaultFileSystem {
    let file_system = FaultFileSystem::new(7);
    let (log, _) = open(options(&file_system));
    let p = partition(&log, "p", segments());
    for n in 0..10 {
        append(&log, &p, batch(&[&format!("value {n}")]));
    }
    power_cut(&file_system, log);
    file_system
}

fn power_cut(file_system: &FaultFileSystem, log: Log) {
    file_system.crash_after(0);
    drop(log);
    // The drop's own checkpoint has met the crash.
    assert!(file_system.has_crashed());
    file_system.restart();
}

fn journal_file(file_system: &FaultFileSystem) -> PathBuf {
    let dir = Path::new("/data/journal");
    dir.join(&file_system.read_dir(dir).unwrap()[0].name)
}

/// Where the nth frame begins.
fn frame_start(file_system: &FaultFileSystem, nth: usize) -> usize {
    let journal = file_system.content(&journal_file(file_system)).unwrap();
    (0..nth).fold(0, |at, _| {
        let body = u32::from_be_bytes(journal[at + 32..at + 36].try_into().unwrap());
        (at + FRAME_HEADER + usize::try_from(body).unwrap()).next_multiple_of(8)
    })
}

fn values(log: &Log) -> Vec<String> {
    contents(&log.partition(&id("p")).unwrap()).into_iter().map(|(_, value)| value).collect()
}

fn first_values(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("value {n}")).collect()
}

fn reopen(file_system: &FaultFileSystem) -> (Log, RecoveryReport) {
    open(options(file_system))
}

#[test]
fn recovery_replays_the_journal_and_says_so() {
    let file_system = killed_with_ten_frames();
    let (log, report) = reopen(&file_system);
    assert_eq!(values(&log), first_values(10));
    assert!(!report.clean_shutdown && !report.checkpoint_rebuilt);
    assert_eq!((report.frames_replayed, report.batches_replayed, report.records_replayed), (10, 10, 10));
    assert_eq!(report.torn_bytes, 0);
    assert_eq!((report.partitions.len(), report.partitions[0].end_offset), (1, 10));
    assert_eq!(append(&log, &log.partition(&id("p")).unwrap(), batch(&["value 10"])), 10);
    power_cut(&file_system, log);
    // Frames of the earlier opening are still in the file, and must not count again.
    let (log, report) = reopen(&file_system);
    assert_eq!(report.frames_replayed, 1);
    assert_eq!(values(&log), first_values(11));
}

/// A log whose process was killed after ten appends to `p` that nobody waited to be synced, the last of them together with one to `q`.
/// Most lie behind the checkpoint, in several segments.
fn killed_without_syncs() -> FaultFileSystem {
    let file_system = FaultFileSystem::new(7);
    let (log, _) = open(options(&file_system));
    let never = PartitionOptions { sync: SyncPolicy::Never, segment_bytes: 200, ..segments() };
    let (p, q) = (partition(&log, "p", never), partition(&log, "q", segments()));
    for n in 0..9 {
        append(&log, &p, batch(&[&format!("value {n}")]));
        if n == 1 {
            log.checkpoint().unwrap();
        }
    }
    let both = vec![(p.clone(), batch(&["value 9"])), (q.clone(), batch(&["q"]))];
    log.append(AppendRequest::new(both)).wait().unwrap();
    let journal =
        String::from_utf8_lossy(&file_system.content(&journal_file(&file_system)).unwrap()).into_owned();
    assert!(
        !journal.contains("value 8") && journal.contains("value 9"),
        "only what is synced is in the journal"
    );
    file_system.crash_after(0);
    drop((p, q, log));
    file_system.resume();
    file_system
}

#[test]
fn what_was_never_synced_outlives_a_kill_with_and_without_a_checkpoint() {
    for checkpoint in [true, false] {
        let file_system = killed_without_syncs();
        if !checkpoint {
            file_system.remove_file(Path::new("/data/checkpoint")).unwrap();
        }
        let (log, report) = reopen(&file_system);
        assert_eq!(values(&log), first_values(10), "checkpoint: {checkpoint}");
        let counted = (report.batches_found, report.batches_replayed, report.batches_lost);
        assert_eq!(
            counted,
            if checkpoint { (7, 2, 0) } else { (0, 0, 0) },
            "what was read anyway needs no more"
        );
        let p = log.partition(&id("p")).unwrap();
        assert!(p.metrics().segments > 2, "{:?}", p.metrics());
        assert_eq!(append(&log, &p, batch(&["value 10"])), 10);
        drop(p);
        // What was taken over is durable now.
        power_cut(&file_system, log);
        assert_eq!(values(&reopen(&file_system).0)[..10], first_values(10));
    }
}

#[test]
fn what_a_power_cut_took_of_the_never_synced_leaves_a_gap_before_what_the_journal_holds() {
    let first_segment = Path::new("/data/partitions/p/00000000000000000000.log");
    for lost in [2, 3, 4, 8] {
        let file_system = killed_without_syncs();
        let needle = format!("value {lost}");
        let segments = file_system.read_dir(first_segment.parent().unwrap()).unwrap();
        let (path, position) = segments
            .iter()
            .filter(|entry| entry.name.ends_with(".log"))
            .find_map(|entry| {
                let path = first_segment.with_file_name(&entry.name);
                let content = file_system.content(&path)?;
                let position = content.windows(needle.len()).position(|bytes| bytes == needle.as_bytes())?;
                Some((path, position))
            })
            .unwrap();
        file_system.flip_bit(&path, position);
        let (log, report) = reopen(&file_system);
        let p = log.partition(&id("p")).unwrap();
        let kept: Vec<i64> = (0..lost).chain([9]).collect();
        assert_eq!(contents(&p).into_iter().map(|(offset, _)| offset).collect::<Vec<_>>(), kept);
        assert_eq!(records_from(&p, lost).len(), 1, "a reader passes over the gap");
        assert_eq!(
            (report.batches_found, report.batches_lost),
            (lost.unsigned_abs() - 2, 9 - lost.unsigned_abs())
        );
        assert_eq!(contents(&log.partition(&id("q")).unwrap()).len(), 1);
        assert_eq!(append(&log, &p, batch(&["on"])), 10);
        drop(p);
        power_cut(&file_system, log);
        let (log, report) = reopen(&file_system);
        assert_eq!(contents(&log.partition(&id("p")).unwrap()).len(), kept.len() + 1);
        assert_eq!(report.batches_lost, 0);
    }
}

#[test]
fn recovery_drops_a_torn_tail_and_keeps_earlier_batches() {
    for into_frame in [0, 10, FRAME_HEADER + 3, FRAME_HEADER + 60] {
        let file_system = killed_with_ten_frames();
        let last = frame_start(&file_system, 9);
        file_system.flip_bit(&journal_file(&file_system), last + into_frame);
        let (log, report) = reopen(&file_system);
        assert_eq!(values(&log), first_values(9), "damaged {into_frame} bytes into the last frame");
        assert!(report.torn_bytes > 0, "{report:?}");
    }
}

#[test]
fn a_journal_file_that_ends_inside_the_padding_of_its_last_frame_still_gives_that_frame() {
    let file_system = killed_with_ten_frames();
    let (path, last) = (journal_file(&file_system), frame_start(&file_system, 9));
    let journal = file_system.content(&path).unwrap();
    let body = u32::from_be_bytes(journal[last + 32..last + 36].try_into().unwrap());
    let end = last + FRAME_HEADER + usize::try_from(body).unwrap();
    assert!(!end.is_multiple_of(8), "or there is no padding to lose");
    file_system.open(&path, OpenMode::Write).unwrap().set_len(end as u64).unwrap();
    let (log, _) = reopen(&file_system);
    assert_eq!(values(&log), first_values(10));
}

#[test]
fn damage_before_a_synced_frame_is_refused_and_named() {
    for (damaged, into_frame) in [(0, 0), (3, 20), (5, FRAME_HEADER + 30), (7, FRAME_HEADER + 60)] {
        let file_system = killed_with_ten_frames();
        let path = journal_file(&file_system);
        let position = frame_start(&file_system, damaged);
        file_system.flip_bit(&path, position + into_frame);
        let refused = Log::open(options(&file_system)).unwrap_err();
        let text = refused.to_string();
        match refused {
            OpenError::JournalDamaged { sequence, .. } => assert_eq!(sequence, damaged as u64 + 1, "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(text.contains("journal") && text.contains("backup"), "{text}");
        // Refusing changed nothing: with the bit back, everything is there.
        file_system.flip_bit(&path, position + into_frame);
        let (log, _) = reopen(&file_system);
        assert_eq!(values(&log), first_values(10));
    }
}

#[test]
fn a_missing_or_damaged_checkpoint_is_made_again_from_the_segments() {
    for damage in [true, false] {
        let file_system = FaultFileSystem::new(9);
        let (log, _) = open(options(&file_system));
        let (p, q) = (partition(&log, "p", segments()), partition(&log, "q", segments()));
        for n in 0..10 {
            append(&log, &p, batch(&[&format!("value {n}")]));
            append(&log, &q, batch(&["q"]));
            if n == 5 {
                log.checkpoint().unwrap();
            }
        }
        drop((p, q));
        power_cut(&file_system, log);
        let checkpoint = Path::new("/data/checkpoint");
        if damage {
            file_system.flip_bit(checkpoint, 30);
        } else {
            file_system.remove_file(checkpoint).unwrap();
        }
        let (log, report) = reopen(&file_system);
        assert!(report.checkpoint_rebuilt);
        assert_eq!(values(&log), first_values(10));
        let q = log.partition(&id("q")).unwrap();
        assert_eq!(q.end_offset(), 10);
        assert_eq!(append(&log, &q, batch(&["more"])), 10);
        // Numbers of partitions must go on too, or the journal would mix them up.
        let r = partition(&log, "r", segments());
        append(&log, &r, batch(&["r"]));
        drop((q, r));
        power_cut(&file_system, log);
        let (log, report) = reopen(&file_system);
        assert!(!report.checkpoint_rebuilt);
        assert_eq!(contents(&log.partition(&id("r")).unwrap()), [(0, "r".to_owned())]);
        assert_eq!(log.partition(&id("q")).unwrap().end_offset(), 11);
    }
}

#[test]
fn a_damaged_segment_without_checkpoint_is_refused_if_the_journal_cannot_heal_it() {
    let file_system = FaultFileSystem::new(11);
    let (log, _) = open(options(&file_system));
    let p = partition(&log, "p", segments());
    for n in 0..20 {
        append(&log, &p, batch(&[&format!("value {n}")]));
    }
    drop(p);
    log.close().unwrap();
    drop(log);
    // A new opening begins a new epoch, so the journal says nothing of the old records.
    let (log, _) = reopen(&file_system);
    append(&log, &log.partition(&id("p")).unwrap(), batch(&["value 20"]));
    log.close().unwrap();
    drop(log);
    file_system.remove_file(Path::new("/data/checkpoint")).unwrap();
    file_system.flip_bit(Path::new("/data/partitions/p/00000000000000000000.log"), 100);
    let refused = Log::open(options(&file_system)).unwrap_err();
    assert!(
        matches!(&refused, OpenError::SegmentDamaged { path, .. } if path.ends_with("00000000000000000000.log"))
    );
}

#[test]
fn a_segment_shorter_than_what_was_synced_is_refused() {
    let file_system = killed_with_ten_frames();
    drop(reopen(&file_system));
    let dir = Path::new("/data/partitions/p");
    let last =
        file_system.read_dir(dir).unwrap().into_iter().rfind(|entry| entry.name.ends_with(".log")).unwrap();
    file_system.open(&dir.join(&last.name), OpenMode::Write).unwrap().set_len(last.len - 1).unwrap();
    let refused = Log::open(options(&file_system)).unwrap_err();
    assert!(
        matches!(refused, OpenError::SegmentShort { expected, found, .. } if expected == found + 1),
        "{refused}"
    );
}

#[test]
fn a_missing_partition_or_journal_is_refused_and_named() {
    let file_system = killed_with_ten_frames();
    drop(reopen(&file_system));
    let (log, _) = reopen(&file_system);
    power_cut(&file_system, log);
    for entry in file_system.read_dir(Path::new("/data/journal")).unwrap() {
        file_system.remove_file(&Path::new("/data/journal").join(entry.name)).unwrap();
    }
    assert!(matches!(Log::open(options(&file_system)), Err(OpenError::JournalMissing { .. })));

    let file_system = killed_with_ten_frames();
    drop(reopen(&file_system));
    file_system.remove_dir_all(Path::new("/data/partitions/p")).unwrap();
    let refused = Log::open(options(&file_system)).unwrap_err();
    assert!(
        matches!(&refused, OpenError::PartitionMissing { partition, .. } if partition == "p"),
        "{refused}"
    );
}

#[test]
fn damage_in_a_segment_is_noticed_by_a_verifying_read() {
    let file_system = FaultFileSystem::new(3);
    let (log, _) = open(options(&file_system));
    let p = partition(&log, "p", PartitionOptions::default());
    append(&log, &p, batch(&["first"]));
    append(&log, &p, batch(&["second"]));
    file_system.flip_bit(Path::new("/data/partitions/p/00000000000000000000.log"), 65);
    let damaged = p.read(0, 1_000, Verify::Checksums);
    assert!(matches!(damaged, Err(ReadError::Damaged { position: 0, .. })), "{damaged:?}");
    assert!(p.read(0, 1_000, Verify::Headers).is_ok());
    assert!(p.read(1, 1_000, Verify::Checksums).is_ok());
}

#[test]
fn frames_of_deleted_partitions_are_passed_over() {
    let file_system = FaultFileSystem::new(5);
    let (log, _) = open(options(&file_system));
    let (p, gone) = (partition(&log, "p", segments()), partition(&log, "gone", segments()));
    append(&log, &gone, batch(&["x"]));
    append(&log, &p, batch(&["value 0"]));
    log.delete_partition(&id("gone")).unwrap();
    let again = partition(&log, "gone", segments());
    log.append(AppendRequest::new(vec![(again.clone(), batch(&["y"])), (p.clone(), batch(&["value 1"]))]))
        .wait()
        .unwrap();
    drop((p, gone, again));
    power_cut(&file_system, log);
    let (log, _) = reopen(&file_system);
    assert_eq!(values(&log), first_values(2));
    assert_eq!(contents(&log.partition(&id("gone")).unwrap()), [(0, "y".to_owned())]);
}

#[test]
fn a_partition_whose_deletion_may_be_on_disk_stays_deleted() {
    let (mut kept, mut gone) = (0, 0);
    for seed in 0..60 {
        let file_system = FaultFileSystem::new(seed);
        let (log, _) = open(options(&file_system));
        let p = partition(&log, "p", segments());
        append(&log, &p, batch(&["value 0"]));
        log.checkpoint().unwrap();
        // Before the new checkpoint has its name, and after, when a power cut may leave either.
        let may_be_on_disk = seed % 3 > 0;
        let operation = if may_be_on_disk { Operation::SyncDir } else { Operation::Rename };
        file_system.fail_next(operation, "/data");
        let failed = log.delete_partition(&id("p")).unwrap_err();
        assert!(matches!(failed, PartitionError::Io { .. }), "{failed}");
        assert_eq!((p.is_deleted(), log.partition(&id("p")).is_none()), (may_be_on_disk, may_be_on_disk));
        let appended = log.append(AppendRequest::single(p.clone(), batch(&["value 1"]))).wait();
        assert_eq!(appended.is_err(), may_be_on_disk, "{appended:?}");
        let made_again = seed % 3 == 2;
        if made_again {
            let too_early = log.create_partition(&id("p"), segments()).unwrap_err();
            assert!(matches!(too_early, PartitionError::Exists { .. }), "{too_early}");
            // Nothing that fails before the next checkpoint is there makes the deletion undone.
            file_system.fail_next(Operation::Rename, "/data");
            log.delete_partition(&id("p")).unwrap_err();
            assert!(p.is_deleted());
            log.delete_partition(&id("p")).unwrap();
            let missing = log.delete_partition(&id("p")).unwrap_err();
            assert!(matches!(missing, PartitionError::Missing { .. }), "{missing}");
            append(&log, &partition(&log, "p", segments()), batch(&["new"]));
        }
        drop(p);
        power_cut(&file_system, log);
        let (log, _) = reopen(&file_system);
        if made_again {
            assert_eq!(values(&log), ["new"]);
        } else if log.partition(&id("p")).is_some() {
            assert_eq!(values(&log), first_values(1 + usize::from(appended.is_ok())));
            kept += 1;
        } else {
            assert!(appended.is_err(), "seed {seed}: what was acknowledged is gone");
            gone += 1;
        }
    }
    assert!(kept > 20 && gone > 3, "{kept} kept, {gone} gone");
}

#[test]
fn a_folder_on_a_full_disk_can_be_read_and_takes_appends_once_there_is_space() {
    let file_system = FaultFileSystem::new(7);
    let (log, _) = open(options(&file_system));
    let p = partition(&log, "p", segments());
    for n in 0..10 {
        append(&log, &p, batch(&[&format!("value {n}")]));
    }
    file_system.crash_after(0);
    drop((p, log));
    file_system.resume();
    file_system.set_capacity(file_system.used_bytes());

    let (log, report) = reopen(&file_system);
    assert_eq!(report.records_replayed, 10);
    assert_eq!(values(&log), first_values(10));
    let p = log.partition(&id("p")).unwrap();
    let append_one = || log.append(AppendRequest::single(p.clone(), batch(&["value 10"]))).wait();
    let refused = append_one().unwrap_err();
    assert!(matches!(refused, AppendError::WaitingForSpace { .. }), "{refused}");
    assert!(refused.to_string().contains("checkpoint"), "{refused}");
    let refused = log.create_partition(&id("q"), segments()).unwrap_err();
    assert!(matches!(refused, PartitionError::WaitingForSpace { .. }), "{refused}");
    assert!(log.metrics().waiting_for_space.is_some() && log.metrics().poisoned.is_none());
    log.checkpoint().unwrap_err();

    file_system.set_capacity(u64::MAX);
    log.checkpoint().unwrap();
    assert_eq!(log.metrics().waiting_for_space, None);
    append_one().unwrap();
    drop(p);
    power_cut(&file_system, log);
    let (log, _) = reopen(&file_system);
    assert_eq!(values(&log), first_values(11), "nothing is lost that was acknowledged before or after");
}

#[test]
fn a_folder_that_was_opened_and_killed_again_and_again_on_a_full_disk_loses_nothing() {
    let file_system = killed_with_ten_frames();
    let (log, _) = reopen(&file_system);
    let p = partition(&log, "p", segments());
    for n in 10..20 {
        append(&log, &p, batch(&[&format!("value {n}")]));
    }
    file_system.crash_after(0);
    drop((p, log));
    file_system.resume();
    file_system.set_capacity(file_system.used_bytes());
    for _ in 0..3 {
        let (log, _) = reopen(&file_system);
        assert_eq!(values(&log), first_values(20));
        log.close().unwrap_err();
    }
    file_system.set_capacity(u64::MAX);
    let (log, report) = reopen(&file_system);
    assert_eq!((report.records_replayed, values(&log)), (10, first_values(20)));
}

#[test]
fn a_waiting_log_finds_space_by_itself() {
    let file_system = FaultFileSystem::new(7);
    let threads = || LogOptions { background: Background::Threads, ..options(&file_system) };
    let (log, _) = open(threads());
    let p = partition(&log, "p", segments());
    append(&log, &p, batch(&["value 0"]));
    file_system.crash_after(0);
    drop((p, log));
    file_system.resume();
    file_system.set_capacity(file_system.used_bytes());
    let (log, _) = open(threads());
    assert!(log.metrics().waiting_for_space.is_some());
    file_system.set_capacity(u64::MAX);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while log.metrics().waiting_for_space.is_some() {
        assert!(std::time::Instant::now() < limit, "it still waits");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    append(&log, &log.partition(&id("p")).unwrap(), batch(&["value 1"]));
    assert_eq!(values(&log), first_values(2));
}

#[test]
fn a_full_disk_can_be_emptied_by_deleting_also_after_an_opening() {
    let file_system = FaultFileSystem::new(7);
    let reserving = || LogOptions { reserve_bytes: 4_096, ..options(&file_system) };
    let (log, _) = open(reserving());
    let (p, other) = (partition(&log, "p", segments()), partition(&log, "other", segments()));
    for n in 0..200 {
        append(&log, &p, batch(&[&format!("value {n}")]));
        append(&log, &other, batch(&[&format!("value {n}")]));
    }
    log.checkpoint().unwrap();
    file_system.set_capacity(file_system.used_bytes());
    let append_one = |log: &Log| {
        let p = log.partition(&id("p")).unwrap();
        log.append(AppendRequest::single(p, batch(&["value 200"]))).wait()
    };
    let refused = append_one(&log).unwrap_err();
    assert!(matches!(refused, AppendError::WaitingForSpace { .. }), "{refused}");
    // What is in reserve is enough to write down what is deleted, not to go on.
    log.checkpoint().unwrap();
    assert!(log.metrics().waiting_for_space.is_some());
    p.delete_records_before(50).unwrap();
    assert_eq!(p.start_offset(), 50);
    drop((p, other));
    file_system.crash_after(0);
    drop(log);
    file_system.resume();
    file_system.set_capacity(file_system.used_bytes() + 2_000);

    let (log, _) = open(reserving());
    assert_eq!(log.partition(&id("p")).unwrap().start_offset(), 50);
    let refused = append_one(&log).unwrap_err();
    assert!(refused.to_string().contains("reserve"), "{refused}");
    log.delete_partition(&id("other")).unwrap();
    log.checkpoint().unwrap();
    assert_eq!(log.metrics().waiting_for_space, None);
    append_one(&log).unwrap();
    power_cut(&file_system, log);
    let (log, _) = open(reserving());
    assert!(log.partition(&id("other")).is_none());
    assert_eq!(log.partition(&id("p")).unwrap().end_offset(), 201);
}

#[test]
fn retention_makes_room_on_a_full_disk() {
    let file_system = FaultFileSystem::new(8);
    let (log, _) = open(options(&file_system));
    let p = partition(&log, "p", segments());
    let value = "v".repeat(5_000);
    for _ in 0..200 {
        append(&log, &p, batch_at(1_000, &[&value]));
    }
    log.checkpoint().unwrap();
    file_system.set_capacity(file_system.used_bytes());
    let one_more = || log.append(AppendRequest::single(p.clone(), batch_at(1_000, &[&value]))).wait();
    assert!(matches!(one_more(), Err(AppendError::WaitingForSpace { .. })));
    // The segment being written is old enough to be closed, which a full disk doesn't allow.
    let age = std::time::Duration::from_secs(1);
    let retention = Retention { max_age: Some(age), max_bytes: None };
    p.set_options(PartitionOptions { segment_age: Some(age), retention, ..segments() });
    let refused = p.enforce_retention(1_000_000).unwrap_err();
    assert!(matches!(refused, PartitionError::WaitingForSpace { .. }), "{refused}");
    assert!(p.start_offset() > 100, "only from {} on", p.start_offset());
    // What retention freed is enough to go on.
    log.checkpoint().unwrap();
    assert_eq!(log.metrics().waiting_for_space, None);
    one_more().unwrap();
}

#[test]
fn a_reserve_goes_once_none_is_wanted() {
    let file_system = FaultFileSystem::new(9);
    let reserve = || file_system.content(Path::new("/data/reserve")).map(|content| content.len());
    for wanted in [4_096, 8_192, 0, 0] {
        let (log, _) = open(LogOptions { reserve_bytes: wanted, ..options(&file_system) });
        assert_eq!(reserve().unwrap_or(0) as u64, wanted);
        log.close().unwrap();
    }
    assert_eq!(reserve(), None);
}

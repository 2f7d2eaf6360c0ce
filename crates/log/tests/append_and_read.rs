//! Appending and reading on a real file system.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use farol_log::{
    AppendError, AppendRequest, AppendResult, Log, LogOptions, OpenError, Partition, PartitionError,
    PartitionOptions, ReadError, Retention, SyncPolicy, Verify,
};
use support::*;

const FAR: Duration = Duration::from_secs(20);

fn small_segments() -> PartitionOptions {
    PartitionOptions { segment_bytes: 2_000, ..PartitionOptions::default() }
}

#[test]
fn what_was_appended_reads_back_and_survives_an_orderly_close() {
    let dir = tempfile::tempdir().unwrap();
    let expected: Vec<_> = (0..300).map(|n| (n, format!("value {n}"))).collect();
    {
        let (log, report) = open(LogOptions::new(dir.path()));
        assert!(report.clean_shutdown);
        let sensors = partition(&log, "sensor-data-0", small_segments());
        for (offset, value) in &expected {
            assert_eq!(append(&log, &sensors, batch(&[value])), *offset);
        }
        assert_eq!(contents(&sensors), expected);
        assert!(sensors.metrics().segments > 5, "{:?}", sensors.metrics());
        log.close().unwrap();
        let refused = log.append(AppendRequest::single(sensors, batch(&["late"]))).wait();
        assert!(matches!(refused, Err(AppendError::Closed)), "{refused:?}");
    }
    let (log, report) = open(LogOptions::new(dir.path()));
    assert!(
        report.clean_shutdown && report.batches_replayed == 0 && report.segment_bytes_cut == 0,
        "{report:?}"
    );
    let sensors = log.partition(&id("sensor-data-0")).unwrap();
    assert_eq!(contents(&sensors), expected);
    assert_eq!(append(&log, &sensors, batch(&["more"])), 300);
    assert_eq!(records_from(&sensors, 299).len(), 2);
}

#[test]
fn reads_from_every_offset_with_every_size_find_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", small_segments());
    let long = "x".repeat(700);
    let mut values = Vec::new();
    for n in 0..60 {
        let value = if n % 7 == 0 { format!("{n} {long}") } else { n.to_string() };
        append(&log, &sensors, batch(&[&value, "second"]));
        values.extend([value, "second".to_owned()]);
    }
    for from in 0..=120 {
        for max_bytes in [0, 100, 1_000, 100_000] {
            let fetched = sensors.read(from, max_bytes, Verify::Checksums).unwrap();
            let records: Vec<_> = fetched
                .batches()
                .flat_map(|batch| batch.unwrap().records().unwrap().map(Result::unwrap))
                .filter(|record| record.offset >= from)
                .collect();
            for (record, offset) in records.iter().zip(from..) {
                assert_eq!(record.offset, offset);
                assert_eq!(
                    record.value.as_ref().unwrap(),
                    values[usize::try_from(offset).unwrap()].as_bytes()
                );
            }
            assert_eq!(fetched.next_offset, from + i64::try_from(records.len()).unwrap());
            assert_eq!(records.is_empty(), from == 120);
        }
    }
    for outside in [-1, 121] {
        let refused = sensors.read(outside, 1_000, Verify::Headers);
        assert!(
            matches!(refused, Err(ReadError::OffsetOutOfRange { start: 0, end: 120, .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn batches_are_located_where_reading_finds_them() {
    let dir = tempfile::tempdir().unwrap();
    let options = PartitionOptions { segment_bytes: 60_000, ..PartitionOptions::default() };
    let fill = |log: &Log| {
        let sensors = partition(log, "p", options.clone());
        for n in 0..40usize {
            // Small ones, some in one page, and some that are larger than what lies between two entries of the index.
            append(log, &sensors, batch(&[&n.to_string(), &"x".repeat(n % 5 * 5_000)]));
        }
        sensors
    };
    let (log, _) = open(LogOptions::new(dir.path()));
    assert_locating_finds_what_reading_finds(&fill(&log));
    log.close().unwrap();
    drop(log);
    // Half of them by an index from a file.
    let (log, _) = open(LogOptions::new(dir.path()));
    assert_locating_finds_what_reading_finds(&fill(&log));
}

#[test]
fn stored_batches_outlive_their_segment_and_go_through_a_socket_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", small_segments());
    for n in 0..40 {
        append(&log, &sensors, batch(&[&n.to_string().repeat(100)]));
    }
    let expected = sensors.read(0, 1_900, Verify::Checksums).unwrap().batches;
    let mut stored = sensors.locate(0, 1_900, i64::MAX).unwrap().batches.unwrap();
    assert_eq!(stored.len(), expected.len());
    sensors.delete_records_before(40).unwrap();
    assert!(sensors.locate(0, 1, i64::MAX).is_err(), "their segment is gone");
    let (mut receiver, sender) = std::os::unix::net::UnixStream::pair().unwrap();
    while !stored.is_empty() {
        let sent = stored.send_to(sender.as_fd()).unwrap();
        // As if the socket had taken less.
        stored.advance(sent.min(700));
        let mut came = vec![0; sent];
        receiver.read_exact(&mut came).unwrap();
        let at = expected.len() - stored.len() - sent.min(700);
        assert_eq!(came, expected[at..at + sent]);
    }
}

#[test]
fn concurrent_appends_share_groups_and_keep_each_callers_order() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let partitions: Vec<_> =
        (0..3).map(|n| partition(&log, &format!("p-{n}"), PartitionOptions::default())).collect();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (log, partitions) = (&log, &partitions);
            scope.spawn(move || {
                for n in 0..40 {
                    append(log, &partitions[n % 3], batch(&[&format!("{writer}:{n}")]));
                }
            });
        }
    });
    let mut seen = 0;
    for partition in &partitions {
        let mut last = [None; 8];
        for (expected, (offset, value)) in contents(partition).into_iter().enumerate() {
            assert_eq!(offset, i64::try_from(expected).unwrap());
            let (writer, n) = value.split_once(':').unwrap();
            let (writer, n): (usize, u32) = (writer.parse().unwrap(), n.parse().unwrap());
            assert!(last[writer] < Some(n), "writer {writer} out of order");
            last[writer] = Some(n);
            seen += 1;
        }
    }
    assert_eq!(seen, 320);
    let metrics = log.metrics();
    assert_eq!((metrics.requests, metrics.records), (320, 320));
    assert!(metrics.groups < 320, "eight writers never shared a group commit: {metrics:?}");
}

#[test]
fn a_listener_and_a_waiter_learn_of_new_records() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", PartitionOptions::default());
    let told = Arc::new(AtomicI64::new(0));
    let subscription = sensors.on_advance({
        let told = Arc::clone(&told);
        move |end| told.store(end, Ordering::SeqCst)
    });
    assert!(!sensors.wait_for(0, Instant::now() + Duration::from_millis(10)));
    let waiter = std::thread::spawn({
        let sensors = sensors.clone();
        move || sensors.wait_for(1, Instant::now() + FAR)
    });
    append(&log, &sensors, batch(&["a", "b"]));
    assert!(waiter.join().unwrap());
    // The listener runs before the append is answered.
    assert_eq!(told.load(Ordering::SeqCst), 2);
    drop(subscription);
    append(&log, &sensors, batch(&["c"]));
    assert_eq!(told.load(Ordering::SeqCst), 2);
}

#[test]
fn a_refused_precondition_appends_nothing_and_hands_its_reason_back() {
    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("generation 3 is over")]
    struct Fenced;

    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let offsets = partition(&log, "offsets", PartitionOptions::default());
    let fenced =
        AppendRequest::single(offsets.clone(), batch(&["stale"])).with_precondition(|| Err(Fenced.into()));
    let fine = AppendRequest::single(offsets.clone(), batch(&["fresh"])).with_precondition(|| Ok(()));
    let panics =
        AppendRequest::single(offsets.clone(), batch(&["odd"])).with_precondition(|| panic!("on purpose"));
    let results: Vec<_> = log.append_each(vec![fenced, fine, panics]).into_iter().map(|p| p.wait()).collect();
    match &results[0] {
        Err(AppendError::Rejected(reason)) => assert_eq!(reason.downcast_ref(), Some(&Fenced)),
        other => panic!("{other:?}"),
    }
    assert_eq!(results[1].as_ref().unwrap().base_offsets, [0]);
    assert!(matches!(results[2], Err(AppendError::Rejected(_))));
    assert_eq!(contents(&offsets), [(0, "fresh".to_owned())]);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = LogOptions { max_request_bytes: 1_000, ..LogOptions::new(dir.path()) };
    let (log, _) = open(options);
    let (other, _) = open(LogOptions::new(other_dir.path()));
    let own = partition(&log, "p", PartitionOptions::default());
    let foreign = partition(&other, "p", PartitionOptions::default());
    let refused = |request| log.append(request).wait().unwrap_err();
    assert!(matches!(refused(AppendRequest::new(Vec::new())), AppendError::Empty));
    let large = AppendRequest::single(own, batch(&[&"x".repeat(2_000)]));
    assert!(matches!(refused(large), AppendError::TooLarge { limit: 1_000, .. }));
    let stray = AppendRequest::single(foreign, batch(&["x"]));
    assert!(matches!(refused(stray), AppendError::UnknownPartition { .. }));
}

#[test]
fn a_full_queue_gives_the_request_back_and_a_blocking_append_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions { queue_bytes: 300, ..LogOptions::new(dir.path()) });
    let sensors = partition(&log, "p", PartitionOptions::default());
    let (open_gate, gate) = mpsc::channel::<()>();
    let held = AppendRequest::single(sensors.clone(), batch(&["held"]))
        .with_precondition(move || gate.recv().map_err(Into::into));
    let first = log.append(held);
    let mut accepted = 0;
    let deadline = Instant::now() + FAR;
    let refused = loop {
        assert!(Instant::now() < deadline);
        let request = AppendRequest::single(sensors.clone(), batch(&["x"]));
        match log.try_append(request, Box::new(|_| {})) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert!(accepted >= 3, "{accepted}");
    open_gate.send(()).unwrap();
    first.wait().unwrap();
    log.append(refused.request).wait().unwrap();
    assert_eq!(sensors.end_offset(), accepted + 2);
}

/// Tries to append, and tells which thread the callback came on.
fn committed_by(log: &Log, partition: &Partition) -> mpsc::Receiver<std::thread::ThreadId> {
    let (tell, told) = mpsc::channel();
    let request = AppendRequest::single(partition.clone(), batch(&["x"]));
    let on_appended = Box::new(move |result: AppendResult| {
        // Who waits no longer doesn't want to know.
        drop(result.map(|_| tell.send(std::thread::current().id())));
    });
    log.try_append(request, on_appended).unwrap();
    told
}

#[test]
fn who_appends_without_a_sync_commits_it_himself_unless_somebody_else_is_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let with = |sync| PartitionOptions { sync, ..PartitionOptions::default() };
    let never = partition(&log, "never", with(SyncPolicy::Never));
    let own = std::thread::current().id();
    // The commit thread may be about to leave.
    let done_when_the_call_returns = || {
        let limit = Instant::now() + FAR;
        while committed_by(&log, &never).try_recv() != Ok(own) {
            assert!(Instant::now() < limit, "it is left to the commit thread");
        }
    };
    done_when_the_call_returns();
    for (name, sync) in [("always", SyncPolicy::Always), ("interval", SyncPolicy::Interval(FAR))] {
        let told = committed_by(&log, &partition(&log, name, with(sync)));
        assert_ne!(told.recv_timeout(FAR).unwrap(), own, "{name}: the disk is waited for elsewhere");
    }
    // A sync is due, which its deadline must not miss.
    assert_ne!(committed_by(&log, &never).recv_timeout(FAR).unwrap(), own);
    log.sync();
    done_when_the_call_returns();

    let (open_gate, gate) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let held = AppendRequest::single(never.clone(), batch(&["held"])).with_precondition(move || {
        begun.send(()).unwrap();
        gate.recv().map_err(Into::into)
    });
    let held = log.append(held);
    has_begun.recv_timeout(FAR).unwrap();
    let told = committed_by(&log, &never);
    assert!(told.try_recv().is_err(), "it neither waits nor overtakes");
    open_gate.send(()).unwrap();
    held.wait().unwrap();
    assert_ne!(told.recv_timeout(FAR).unwrap(), own);
}

#[test]
fn a_callback_may_drop_the_last_handle_and_what_still_waits_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions { group_bytes: 1, ..LogOptions::new(dir.path()) });
    let p = partition(&log, "p", PartitionOptions::default());
    let (open_gate, gate) = mpsc::channel::<()>();
    let (closed, is_closed) = mpsc::channel();
    let last_handle = Arc::new(std::sync::Mutex::new(None));
    let taken = Arc::clone(&last_handle);
    let held = AppendRequest::single(p.clone(), batch(&["first"]))
        .with_precondition(move || gate.recv().map_err(Into::into));
    let on_appended = Box::new(move |_| {
        drop(taken.lock().unwrap().take());
        closed.send(()).unwrap();
    });
    log.append_with(held, on_appended);
    let second = log.append(AppendRequest::single(p, batch(&["second"])));
    *last_handle.lock().unwrap() = Some(log);
    open_gate.send(()).unwrap();
    is_closed.recv_timeout(FAR).expect("it hangs");
    assert_eq!(second.wait().unwrap().base_offsets, [1]);
    let (log, report) = open(LogOptions::new(dir.path()));
    assert!(report.clean_shutdown);
    assert_eq!(contents(&log.partition(&id("p")).unwrap()).len(), 2);
}

#[test]
fn whoever_commits_everything_is_decided_and_told_in_one_order() {
    const THREADS: i64 = 4;
    const EACH: i64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let options = |nth| PartitionOptions {
        sync: if nth == 0 { SyncPolicy::Always } else { SyncPolicy::Never },
        ..PartitionOptions::default()
    };
    let partitions: Vec<_> = (0..3).map(|nth| partition(&log, &format!("p-{nth}"), options(nth))).collect();
    let (decided, told) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let ends = Arc::new([const { AtomicI64::new(0) }; 3]);
    let out_of_order = Arc::new(AtomicI64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, partitions, decided, told, ends) = (&log, &partitions, &decided, &told, &ends);
            let out_of_order = &out_of_order;
            scope.spawn(move || {
                for n in 0..EACH {
                    let nth = usize::try_from((n * 7 + thread) % 3).unwrap();
                    let place = Arc::new(AtomicI64::new(-1));
                    let (deciding, place_decided) = (Arc::clone(decided), Arc::clone(&place));
                    let (telling, ends) = (Arc::clone(told), Arc::clone(ends));
                    let out_of_order = Arc::clone(out_of_order);
                    let value = format!("{thread}:{n}");
                    let request = AppendRequest::single(partitions[nth].clone(), batch(&[&value]))
                        .with_precondition(move || {
                            place_decided.store(deciding.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                            Ok(())
                        });
                    let on_appended = Box::new(move |result: AppendResult| {
                        let in_turn = telling.fetch_add(1, Ordering::SeqCst) == place.load(Ordering::SeqCst);
                        let offset = result.unwrap().base_offsets[0];
                        let at_the_end = ends[nth].swap(offset + 1, Ordering::SeqCst) == offset;
                        out_of_order.fetch_add(i64::from(!(in_turn && at_the_end)), Ordering::SeqCst);
                    });
                    log.try_append(request, on_appended).unwrap();
                }
            });
        }
    });
    log.close().unwrap();
    assert_eq!(told.load(Ordering::SeqCst), THREADS * EACH);
    assert_eq!(out_of_order.load(Ordering::SeqCst), 0);
    for (partition, end) in partitions.iter().zip(ends.iter()) {
        let mut last = vec![-1; usize::try_from(THREADS).unwrap()];
        for (_, value) in contents(partition) {
            let (thread, n) = value.split_once(':').unwrap();
            let before = std::mem::replace(&mut last[thread.parse::<usize>().unwrap()], n.parse().unwrap());
            assert!(before < n.parse().unwrap(), "a thread's appends keep their order");
        }
        assert_eq!(partition.end_offset(), end.load(Ordering::SeqCst));
    }
}

#[test]
fn partitions_are_made_listed_and_deleted_for_good() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (log, _) = open(LogOptions::new(dir.path()));
        let gone = partition(&log, "gone", PartitionOptions::default());
        let kept = partition(&log, "kept", PartitionOptions::default());
        let twice = log.create_partition(&id("kept"), PartitionOptions::default());
        assert!(matches!(twice, Err(PartitionError::Exists { .. })));
        append(&log, &gone, batch(&["old"]));
        append(&log, &kept, batch(&["k"]));
        log.delete_partition(&id("gone")).unwrap();
        assert!(matches!(log.delete_partition(&id("gone")), Err(PartitionError::Missing { .. })));
        let refused = log.append(AppendRequest::single(gone, batch(&["x"]))).wait();
        assert!(matches!(refused, Err(AppendError::UnknownPartition { .. })));
        let again = partition(&log, "gone", PartitionOptions::default());
        assert_eq!(append(&log, &again, batch(&["new"])), 0);
        std::mem::forget(log.clone());
        log.close().unwrap();
    }
    let (log, _) = open(LogOptions::new(dir.path()));
    let names: Vec<_> = log.partitions().iter().map(|p| p.id().to_string()).collect();
    assert_eq!(names, ["gone", "kept"]);
    assert_eq!(contents(&log.partition(&id("gone")).unwrap()), [(0, "new".to_owned())]);
}

#[test]
fn a_folder_in_use_of_another_version_or_not_a_folder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let second = Log::open(LogOptions::new(dir.path()));
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    log.close().unwrap();
    drop(log);

    std::fs::write(dir.path().join("version"), "farol-log 99\n").unwrap();
    let newer = Log::open(LogOptions::new(dir.path())).unwrap_err();
    assert!(newer.to_string().contains("farol-log 99"), "{newer}");

    let file = dir.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let not_a_folder = Log::open(LogOptions::new(file.join("data"))).unwrap_err();
    assert!(matches!(not_a_folder, OpenError::Io { .. }) && not_a_folder.to_string().contains("a file"));
}

#[test]
fn weaker_sync_policies_acknowledge_without_a_sync_and_interval_syncs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions { checkpoint_interval: FAR, ..LogOptions::new(dir.path()) });
    let with = |sync| PartitionOptions { sync, ..PartitionOptions::default() };
    let never = partition(&log, "never", with(SyncPolicy::Never));
    for _ in 0..10 {
        append(&log, &never, batch(&["x"]));
    }
    assert_eq!(log.metrics().syncs.count(), 0);
    let sometimes = partition(&log, "sometimes", with(SyncPolicy::Interval(Duration::from_millis(5))));
    append(&log, &sometimes, batch(&["x"]));
    let deadline = Instant::now() + FAR;
    while log.metrics().syncs.count() == 0 {
        assert!(Instant::now() < deadline, "never synced");
        std::thread::sleep(Duration::from_millis(1));
    }
    // All or none across partitions must hold across a power cut, whatever the policies say.
    let before = log.metrics().syncs.count();
    let both = AppendRequest::new(vec![(never, batch(&["y"])), (sometimes, batch(&["y"]))]);
    log.append(both).wait().unwrap();
    assert!(log.metrics().syncs.count() > before);
}

#[test]
fn timestamps_are_found_across_segments_whatever_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", PartitionOptions { segment_bytes: 40_000, ..small_segments() });
    let filler = "x".repeat(500);
    let mut timestamps = Vec::new();
    for n in 0..400_i64 {
        // Mostly rising, with late ones between.
        let at = 1_000 + n * 10 - if n % 5 == 0 { 300 } else { 0 };
        append(&log, &sensors, batch_at(at, &[&filler, "b"]));
        timestamps.extend([at, at + 1]);
    }
    let check = |sensors: &Partition| {
        for wanted in (600..5_100).step_by(37) {
            let expected = timestamps.iter().position(|at| *at >= wanted);
            let found = sensors.offset_for_timestamp(wanted).unwrap();
            assert_eq!(found.map(|f| f.offset), expected.map(|at| i64::try_from(at).unwrap()), "{wanted}");
            assert_eq!(found.map(|f| f.timestamp_ms), expected.map(|at| timestamps[at]));
        }
    };
    check(&sensors);
    log.close().unwrap();
    drop(log);
    let (log, _) = open(LogOptions::new(dir.path()));
    check(&log.partition(&id("p")).unwrap());
    log.close().unwrap();
    drop(log);
    // Without index files the segments are read instead; damaged ones are noticed.
    for entry in std::fs::read_dir(dir.path().join("partitions/p")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".timeindex") {
            std::fs::remove_file(entry.path()).unwrap();
        } else if name.ends_with(".index") {
            std::fs::write(entry.path(), "rubbish").unwrap();
        }
    }
    let (log, _) = open(LogOptions::new(dir.path()));
    check(&log.partition(&id("p")).unwrap());
}

#[test]
fn retention_deletes_whole_old_segments_by_size_by_age_and_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = partition(&log, "p", small_segments());
    for n in 0..200 {
        append(&log, &sensors, batch_at(n * 1_000, &["0123456789"]));
    }
    log.checkpoint().unwrap();
    assert_eq!(sensors.enforce_retention(1_000_000).unwrap(), 0);
    assert_eq!(sensors.start_offset(), 0);

    let by_size = Retention { max_bytes: Some(8_000), max_age: None };
    sensors.set_options(PartitionOptions { retention: by_size, ..small_segments() });
    assert!(sensors.enforce_retention(0).unwrap() > 0);
    let after_size = sensors.start_offset();
    assert!(after_size > 0 && sensors.size_bytes() <= 8_000 && sensors.size_bytes() > 5_000);

    let by_age = Retention { max_age: Some(Duration::from_secs(60)), max_bytes: None };
    sensors.set_options(PartitionOptions { retention: by_age, ..small_segments() });
    assert!(sensors.enforce_retention(200_000).unwrap() > 0);
    let after_age = sensors.start_offset();
    assert!(after_age > after_size && after_age <= 140, "{after_age}");

    assert_eq!(sensors.delete_records_before(170).unwrap(), 170);
    assert!(matches!(
        sensors.read(169, 1, Verify::Headers),
        Err(ReadError::OffsetOutOfRange { start: 170, .. })
    ));
    let left = contents(&sensors);
    assert_eq!((left.first().unwrap().0, left.len()), (170, 30));
    assert_eq!(sensors.delete_records_before(i64::MAX).unwrap(), 200);
    assert_eq!(append(&log, &sensors, batch(&["after"])), 200);

    // An active segment that is old enough is closed, so that its records can go too.
    let aged =
        PartitionOptions { segment_age: Some(Duration::from_secs(1)), retention: by_age, ..small_segments() };
    sensors.set_options(aged);
    sensors.enforce_retention(i64::MAX / 2).unwrap();
    sensors.enforce_retention(i64::MAX / 2).unwrap();
    assert_eq!((sensors.start_offset(), sensors.end_offset()), (201, 201));
    log.close().unwrap();
    drop(log);
    let (log, _) = open(LogOptions::new(dir.path()));
    let sensors = log.partition(&id("p")).unwrap();
    assert_eq!((sensors.start_offset(), sensors.end_offset()), (201, 201));
}

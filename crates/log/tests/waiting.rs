//! A log that can't write for a while refuses appends with the reason and goes on by itself, with the threads of its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::ErrorKind;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use farol_log::fs::fault::{FaultFileSystem, Operation};
use farol_log::{
    AppendError, AppendRequest, AppendResult, Log, LogOptions, Partition, PartitionError, PartitionOptions,
};
use support::*;

const LIMIT: Duration = Duration::from_secs(20);

fn options(file_system: &FaultFileSystem) -> LogOptions {
    LogOptions {
        file_system: Arc::new(file_system.clone()),
        journal_first_bytes: 4_096,
        journal_bytes: 8_192,
        reserve_bytes: 512,
        ..LogOptions::new("/data")
    }
}

/// The result of an append; `None` if there is none in time.
fn try_append(log: &Log, partition: &Partition, value: &str) -> Option<AppendResult> {
    let (tell, told) = mpsc::channel();
    let request = AppendRequest::single(partition.clone(), batch(&[value]));
    // Who waits no longer doesn't want to know.
    let on_appended = Box::new(move |result| drop(tell.send(result)));
    log.append_with(request, on_appended);
    told.recv_timeout(LIMIT).ok()
}

#[test]
fn a_journal_that_no_checkpoint_frees_refuses_appends_until_the_folder_can_be_written() {
    // A folder without a right to write, and one without an inode for another file.
    for kind in [ErrorKind::PermissionDenied, ErrorKind::StorageFull] {
        let file_system = FaultFileSystem::new(1);
        let (log, _) = open(options(&file_system));
        let p = partition(&log, "p", PartitionOptions::default());
        let mut appended = Vec::new();
        for round in 0..2 {
            file_system.refuse(Operation::Open, "checkpoint", kind);
            let ended = loop {
                let value = format!("{round}.{}", appended.len());
                match try_append(&log, &p, &value) {
                    Some(Ok(_)) => appended.push(value),
                    other => break other,
                }
            };
            let again = ended.as_ref().and_then(|_| try_append(&log, &p, "refused"));
            let made = log.create_partition(&id("q"), PartitionOptions::default());
            // Also so that a log that hangs can be closed.
            file_system.cancel_failures();
            for refused in [ended, again] {
                let refused = refused.expect("it hangs").unwrap_err();
                let expected = match kind {
                    ErrorKind::StorageFull => matches!(refused, AppendError::WaitingForSpace { .. }),
                    _ => matches!(refused, AppendError::FolderNotWritable { .. }),
                };
                assert!(expected && refused.to_string().contains("checkpoint"), "{refused}");
            }
            let made = made.unwrap_err();
            let expected = match kind {
                ErrorKind::StorageFull => matches!(made, PartitionError::WaitingForSpace { .. }),
                _ => matches!(made, PartitionError::FolderNotWritable { .. }),
            };
            assert!(expected, "{made}");
            let limit = Instant::now() + LIMIT;
            while log.metrics().waiting_for_space.is_some() || log.metrics().folder_not_writable.is_some() {
                assert!(Instant::now() < limit, "it still waits");
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(log.metrics().poisoned, None);
        }
        assert!(appended.len() > 100, "{}", appended.len());
        log.close().unwrap();
        drop((p, log));
        let (log, _) = open(options(&file_system));
        let values: Vec<_> =
            contents(&log.partition(&id("p")).unwrap()).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, appended);
    }
}

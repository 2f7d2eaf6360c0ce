//! The log under load, really killed: a child process appends and reports, the parent kills it and looks.
//!
//! The child is this test binary itself, running the ignored test `child` with the data folder in an environment
//! variable. It prints a line for each acknowledgement after it arrived; the parent believes only those lines.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use farol_log::{AppendRequest, Log, LogOptions, Partition, PartitionOptions, SyncPolicy};
use rand::{Rng, RngExt, SeedableRng};
use support::*;

const ROUNDS: u64 = 50;
const PARTITIONS: usize = 4;
const WRITERS: usize = 4;
const FOLDER: &str = "FAROL_LOG_CRASH_FOLDER";

fn options(dir: &std::path::Path) -> LogOptions {
    LogOptions {
        journal_first_bytes: 64 * 1024,
        journal_bytes: 256 * 1024,
        // So that kills also hit checkpoints and journal files being used again.
        checkpoint_bytes: 64 * 1024,
        checkpoint_interval: Duration::from_millis(20),
        ..LogOptions::new(dir)
    }
}

fn partitions(log: &Log) -> Vec<Partition> {
    let small = |sync| PartitionOptions { sync, segment_bytes: 64 * 1024, ..PartitionOptions::default() };
    // Of the last one the journal only names what comes to it alone.
    let sync = |nth| if nth == PARTITIONS - 1 { SyncPolicy::Never } else { SyncPolicy::Always };
    (0..PARTITIONS).map(|nth| partition(log, &format!("p-{nth}"), small(sync(nth)))).collect()
}

/// Not a test of its own: what the parent runs and kills.
#[test]
#[ignore = "run by the parent test"]
fn child() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let (log, _) = open(options(dir.as_ref()));
    let partitions = partitions(&log);
    let run = format!("{:08x}", std::process::id());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (log, partitions, run) = (&log, &partitions, &run);
            scope.spawn(move || append_for_ever(log, partitions, &format!("{run}.{writer}"), writer));
        }
    });
}

/// Each writer appends to its own partition, and every third time to all of them at once.
fn append_for_ever(log: &Log, partitions: &[Partition], name: &str, writer: usize) {
    for n in 0.. {
        let values = [format!("{name}:{n}:a{}", "x".repeat(n % 200)), format!("{name}:{n}:b")];
        let everywhere = n % 3 == 0;
        let targets =
            if everywhere { partitions } else { &partitions[writer % PARTITIONS..=writer % PARTITIONS] };
        let batches = targets.iter().map(|p| (p.clone(), batch(&[&values[0], &values[1]]))).collect();
        let appended = log.append(AppendRequest::new(batches)).wait().unwrap();
        let offsets: Vec<_> = targets
            .iter()
            .zip(&appended.base_offsets)
            .map(|(partition, base)| format!("{}@{base}", partition.id()))
            .collect();
        let line = format!("ack {name}:{n} {}\n", offsets.join(" "));
        // Unbuffered and in one write, so that a line is whole or absent.
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// What acknowledged requests said: request → where its two records begin.
type Acknowledged = BTreeMap<String, Vec<(String, i64)>>;

fn spawn_child(dir: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Lets a child append for a while after its first acknowledgement, kills it, and returns what it reported.
fn kill_under_load(dir: &std::path::Path, load_for: Duration) -> Acknowledged {
    let mut child = spawn_child(dir);
    let output = child.stdout.take().unwrap();
    let (first, started) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut acknowledged = Acknowledged::new();
        for line in BufReader::new(output).lines() {
            let line = line.unwrap();
            // The harness prints the test's name in front of the first line.
            let Some(at) = line.find("ack ") else { continue };
            let mut words = line[at + 4..].split(' ');
            let request = words.next().unwrap().to_owned();
            let places = words.map(|word| {
                let (partition, base) = word.split_once('@').unwrap();
                (partition.to_owned(), base.parse().unwrap())
            });
            acknowledged.insert(request, places.collect());
            let _ = first.send(());
        }
        acknowledged
    });
    started.recv_timeout(Duration::from_secs(30)).expect("the child acknowledges something");
    std::thread::sleep(load_for);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "the child was killed, it did not end");
    reader.join().unwrap()
}

/// Every acknowledged record is there exactly once and where it was said to be; requests to several partitions are
/// whole or absent.
fn verify(log: &Log, acknowledged: &Acknowledged) -> usize {
    let mut copies: HashMap<String, Vec<(String, i64)>> = HashMap::new();
    for partition in partitions(log) {
        let mut last: HashMap<String, u64> = HashMap::new();
        for (nth, (offset, value)) in contents(&partition).into_iter().enumerate() {
            assert_eq!(offset, i64::try_from(nth).unwrap(), "offsets have no gap");
            let parts: Vec<_> = value.splitn(3, ':').collect();
            let (writer, n, which) = (parts[0], parts[1].parse::<u64>().unwrap(), &parts[2][..1]);
            let order = n * 2 + u64::from(which == "b");
            let before = last.insert(writer.to_owned(), order);
            assert!(before < Some(order), "{writer}:{n}{which} out of order or twice in {}", partition.id());
            copies.entry(format!("{writer}:{n}")).or_default().push((partition.id().to_string(), offset));
        }
    }
    for (request, places) in acknowledged {
        let found = copies.get(request).unwrap_or_else(|| panic!("acknowledged {request} is lost"));
        assert_eq!(found.len(), places.len() * 2, "{request}");
        for (partition, base) in places {
            assert!(
                found.contains(&(partition.clone(), *base)) && found.contains(&(partition.clone(), base + 1))
            );
        }
    }
    for (request, found) in &copies {
        let n: usize = request.rsplit(':').next().unwrap().parse().unwrap();
        let expected = if n.is_multiple_of(3) { PARTITIONS * 2 } else { 2 };
        assert_eq!(found.len(), expected, "{request} is there in part");
    }
    copies.len() - acknowledged.len()
}

#[test]
fn killed_under_load_every_acknowledged_record_is_there_once_and_in_order() {
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let started = Instant::now();
    let (mut requests, mut replayed, mut found, mut unacknowledged, mut unclean) = (0, 0, 0, 0, 0);
    let mut dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        if round % 10 == 0 {
            dir = tempfile::tempdir().unwrap();
            acknowledged.clear();
        }
        let new = kill_under_load(dir.path(), Duration::from_millis(random.random_range(1..80)));
        requests += new.len();
        acknowledged.extend(new);
        let (log, report) = open(options(dir.path()));
        replayed += report.batches_replayed;
        found += report.batches_found;
        assert_eq!(report.batches_lost, 0, "a kill loses nothing");
        unclean += u64::from(!report.clean_shutdown);
        unacknowledged += verify(&log, &acknowledged);
        log.close().unwrap();
    }
    println!(
        "{ROUNDS} kills in {:?}: {requests} requests acknowledged, {replayed} batches replayed, {found} found, {unacknowledged} kept \
         unacknowledged",
        started.elapsed()
    );
    assert_eq!(unclean, ROUNDS);
    assert!(requests > 1_000 && replayed > 500, "{requests} requests, {replayed} batches replayed");
    assert!(found > 500, "{found} batches found");
}

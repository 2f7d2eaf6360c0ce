//! Measures all subjects and prints one table, with the rows of the Python script among them.
//!
//! `farol-resilience-bench ALLOCATIONS PYTHON PYTHON_POLICIES`: `scripts/bench-resilience` makes these files.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use farol_resilience_bench::{Subject, detect, policies, subjects};

const BATCH: u32 = 1000;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURE: Duration = Duration::from_millis(800);
const THREADS: usize = 16;

/// Nanoseconds per call over batches of [`BATCH`].
struct Timing {
    p50: f64,
    p99: f64,
}

fn alone(subject: &dyn Subject) -> Timing {
    let until = Instant::now() + WARM_UP;
    while Instant::now() < until {
        subject.run(BATCH, false);
    }
    let mut batches = Vec::new();
    let until = Instant::now() + MEASURE;
    while Instant::now() < until {
        let begin = Instant::now();
        subject.run(BATCH, false);
        batches.push(begin.elapsed().as_nanos() as f64 / f64::from(BATCH));
    }
    batches.sort_by(f64::total_cmp);
    let at = |part: f64| batches[((batches.len() - 1) as f64 * part) as usize];
    Timing { p50: at(0.5), p99: at(0.99) }
}

/// Processor time per call, in nanoseconds, of [`THREADS`] threads on one subject.
fn together(subject: &dyn Subject) -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let start = Barrier::new(THREADS);
    let calls_and_ends: Vec<(u64, Instant, Instant)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    subject.run(BATCH, false);
                    start.wait();
                    let begin = Instant::now();
                    let mut calls = 0;
                    while begin.elapsed() < MEASURE {
                        subject.run(BATCH, false);
                        calls += u64::from(BATCH);
                    }
                    (calls, begin, Instant::now())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    let calls: u64 = calls_and_ends.iter().map(|(calls, _, _)| calls).sum();
    let begin = calls_and_ends.iter().map(|(_, begin, _)| *begin).min().expect("threads");
    let end = calls_and_ends.iter().map(|(_, _, end)| *end).max().expect("threads");
    (end - begin).as_nanos() as f64 * cores as f64 / calls as f64
}

/// `name,closed allocations,open allocations` by line.
fn read_rows(path: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| line.split(';').map(str::to_owned).collect()).collect()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let allocations = arguments.next().map(|path| read_rows(&path)).unwrap_or_default();
    let python = arguments.next().map(|path| read_rows(&path)).unwrap_or_default();
    let python_policies = arguments.next().map(|path| read_rows(&path)).unwrap_or_default();

    println!(
        "\n{:<46} {:>8} {:>8} {:>10} {:>8} {:>8} {:>12}",
        "circuit breaker, ns per call", "closed", "p99", "16 threads", "open", "p99", "allocations"
    );
    for named in subjects() {
        let closed = alone(&*named.subject);
        let shared = together(&*named.subject);
        named.subject.open();
        let open = alone(&*named.subject);
        let counted = allocations.iter().find(|row| row.first().is_some_and(|name| name == named.name));
        let counted = counted.map_or_else(|| "-".to_owned(), |row| row[1..].join(" / "));
        println!(
            "{:<46} {:>8.1} {:>8.1} {:>10.1} {:>8.1} {:>8.1} {:>12}",
            named.name, closed.p50, closed.p99, shared, open.p50, open.p99, counted
        );
    }
    for row in python {
        if let [name, closed, closed_p99, shared, open, open_p99] = row.as_slice() {
            println!(
                "{name:<46} {closed:>8} {closed_p99:>8} {shared:>10} {open:>8} {open_p99:>8} {:>12}",
                "-"
            );
        }
    }
    println!(
        "\nMedian and p99 of batches of {BATCH} calls, the call itself (first row) included. 16 threads: processor time per \
         call\non one breaker. Allocations per call: closed / open. Python: one interpreter lock, so its 16 threads take turns."
    );
    measure_detection();
    measure_policies(&allocations, &python_policies);
}

/// From the first failing call on, with no call that goes well in between.
fn measure_detection() {
    println!("\n{:<46} {:>14} {:>22}", "an outage begins", "failed calls", "us to first rejection");
    for named in subjects() {
        let row = match detect(&*named.subject) {
            Some(found) => {
                (found.failed.to_string(), format!("{:.1}", found.took.as_nanos() as f64 / 1000.0))
            }
            None => ("-".to_owned(), "-".to_owned()),
        };
        println!("{:<46} {:>14} {:>22}", named.name, row.0, row.1);
    }
    println!(
        "\nCalls that failed before the first was rejected, one after the other, and the time of all of them."
    );
}

fn measure_policies(allocations: &[Vec<String>], python: &[Vec<String>]) {
    for (title, subjects) in policies::subjects() {
        println!("\n{title:<50} {:>8} {:>8} {:>10} {:>12}", "ns a call", "p99", "16 threads", "allocations");
        for named in subjects {
            let timing = alone(&*named.subject);
            let shared = together(&*named.subject);
            let counted = allocations.iter().find(|row| row.first().is_some_and(|name| name == named.name));
            let counted = counted.and_then(|row| row.get(1)).map_or("-", String::as_str);
            println!(
                "{:<50} {:>8.1} {:>8.1} {:>10.1} {:>12}",
                named.name, timing.p50, timing.p99, shared, counted
            );
        }
        for row in python.iter().filter(|row| row.first().is_some_and(|name| title.starts_with(policy(name))))
        {
            if let [name, p50, p99, shared] = row.as_slice() {
                println!("{name:<50} {p50:>8} {p99:>8} {shared:>10} {:>12}", "-");
            }
        }
    }
    println!(
        "\nThe call succeeds each time, and nobody has to wait. Async: a batch of calls runs in one task."
    );
}

/// `retry` of `retry: Python 3.11 …`.
fn policy(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

//! Counts allocations per call and prints `name;closed;open` by line for breakers, `name;allocations` for other policies. Apart from the timings, because
//! counting costs time.

use allocation_counter::measure;
use farol_resilience_bench::{Subject, policies, subjects};

const CALLS: u32 = 10_000;

fn per_call(subject: &dyn Subject) -> String {
    subject.run(CALLS, false);
    // A batch may allocate for itself; of ten thousand calls, one allocation doesn't show.
    let counted = measure(|| subject.run(CALLS, false)).count_total;
    format!("{:.2}", counted as f64 / f64::from(CALLS)).trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn main() {
    for named in subjects() {
        let closed = per_call(&*named.subject);
        named.subject.open();
        println!("{};{closed};{}", named.name, per_call(&*named.subject));
    }
    for named in policies::subjects().into_iter().flat_map(|(_, subjects)| subjects) {
        println!("{};{}", named.name, per_call(&*named.subject));
    }
}

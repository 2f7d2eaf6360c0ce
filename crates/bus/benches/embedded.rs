//! Throughput and latency of the embedded engine.
fn main() {}

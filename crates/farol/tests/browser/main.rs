//! The real binary in a real browser. A test program of its own, because cargo runs those one after the other: what a
//! person sees within two seconds can't be judged beside tests that keep every core busy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod dashboard;
#[allow(dead_code, reason = "the system tests use the rest of it")]
#[path = "../system/farol.rs"]
mod farol;
mod rebalance;
mod services;
mod silences;
mod story;
mod webdriver;

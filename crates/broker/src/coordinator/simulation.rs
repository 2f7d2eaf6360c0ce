//! Groups under members that act at random, in virtual time.
//!
//! `requests` drives the coordinator with bare requests, as clients elsewhere send them; `clients` with the members of this
//! process and what their applications believe. Both print their seed, check after every step, and at the end let
//! everybody who lives come to rest.

mod clients;
mod requests;

/// The seed to begin with: given by the environment or fresh, and printed.
fn base_seed() -> u64 {
    let given = std::env::var("FAROL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let base = given.unwrap_or_else(rand::random);
    println!("FAROL_TEST_SEED={base}");
    base
}

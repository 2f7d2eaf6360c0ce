//! The group coordinator.

pub mod rebalance;

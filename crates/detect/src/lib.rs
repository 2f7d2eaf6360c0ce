//! Alert rules and their evaluation over sensor readings and services' metrics.
//!
//! Everything here is a function of (state, input, now): no I/O, no clock, no async. Reading rule files, consuming
//! topics and saving state is for others; a replay of the same readings under the same rules makes the same alerts.
//!
//! Modules, in reading order:
//!
//! * [`selector`]: which series a rule is about, in PromQL matcher syntax;
//! * [`condition`]: what a rule compares, and with what;
//! * [`summary`]: the sentence for people, with placeholders;
//! * [`rule`]: one rule, checked; [`rule_set`]: the rules in force; [`rule_file`]: from TOML text to a rule set;
//! * [`defaults`]: the rules that are in force until somebody writes their own;
//! * [`measurement`]: what rules judge: a sensor's reading, or what an event tells of a service;
//! * [`detector`]: the state of one partition's series, readings in, alert transitions out;
//! * [`saved`]: that state as bytes.

pub mod condition;
pub mod defaults;
pub mod detector;
mod explain;
pub mod measurement;
pub mod rule;
pub mod rule_file;
pub mod rule_set;
pub mod saved;
pub mod selector;
pub mod summary;

pub use condition::Condition;
pub use detector::{Counters, PartitionState, SeriesState};
pub use farol_event::duration::{self, DurationText};
pub use measurement::{Measurement, ServiceEnd, ServiceNews, ServiceSample};
pub use rule::{Rule, RuleDefinition, RuleFingerprint, RuleProblem, RuleProblems};
pub use rule_set::{RuleChanges, RuleSet};
pub use saved::RestoreError;
pub use selector::{LabelName, Selector, SeriesLabels, ServiceLabels};

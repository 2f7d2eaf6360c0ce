//! The life of an alert.
//!
//! Everything here is a function of (state, input, now): no I/O, no clock, no async. The detector (`farol-detect`) says what
//! happened to an alert; here is what may follow what, what people can do to an alert, and who is told.
//!
//! Modules, in reading order:
//!
//! * [`lifecycle`]: one transition after another: the alert as it stands, now or at any past instant;
//! * [`book`]: many alerts, folded from the topic, never two active ones for one rule and series;
//! * [`mod@acknowledge`]: somebody takes an alert on;
//! * [`record`]: transitions as events of the topic `alerts`, and back;
//! * [`notification`]: which transitions are told to whom, in what words, and what an attempt came to;
//! * [`label`]: the labels by which alerts are selected;
//! * [`silence`]: what nobody is told, until when, by whose will; [`inhibit`]: what graver alerts make needless;
//! * [`route`]: who is told of which alerts, in which groups, how often; [`group`]: one group on its way to one receiver;
//! * [`dispatch`]: all of that together: facts in, notifications that are due out;
//! * [`alertmanager`], [`mail`]: a notification in the words of Alertmanager's webhooks, and as an e-mail.

pub mod acknowledge;
pub mod alertmanager;
pub mod book;
pub mod dispatch;
#[cfg(test)]
mod fixture;
pub mod group;
pub mod inhibit;
pub mod label;
pub mod lifecycle;
pub mod mail;
pub mod notification;
pub mod record;
pub mod route;
pub mod silence;
mod words;

pub use acknowledge::{AcknowledgeRefused, acknowledge};
pub use book::{AlertBook, BookError};
pub use dispatch::{Dispatcher, ReceiverRules};
pub use group::{Notification, Suppression};
pub use inhibit::{InhibitRule, Inhibitors};
pub use lifecycle::{Folded, Illegal, as_of, fold};
pub use notification::{
    Attempt, DeliveryOutcome, DeliveryRecord, NotificationPayload, NotifyOn, ToldTransition, classify,
};
pub use record::{RecordError, from_event, to_event};
pub use route::{GroupBy, GroupTiming, Route, Routes};
pub use silence::{Silence, SilenceBook, SilenceFact, SilenceId};

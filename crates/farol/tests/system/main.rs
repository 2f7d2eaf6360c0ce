//! The whole of Farol, as people meet it: the real binary as a process of its own, on a free port and a temporary folder,
//! spoken to over HTTP and by signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

mod amtool;
mod certificate;
mod client_commands;
mod command_line;
mod crash;
mod crowd;
mod disk;
mod events;
mod farol;
mod host;
mod kafka_broker;
mod kafka_commands;
mod kafka_consume;
mod kafka_crash;
mod kafka_security;
mod kafka_transactions;
mod lifecycle;
mod mail;
mod mail_server;
mod pauses;
mod plant;
mod readings;
mod rules;
mod running;
mod service_alerts;
mod services;
mod terminal;
mod views;
mod webhooks;
mod worker_processes;
mod workers;

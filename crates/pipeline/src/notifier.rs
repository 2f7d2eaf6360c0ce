//! Alerts to people.
//!
//! Two ways lead to a receiver:
//!
//! * **by routes**: one processor (`dispatching`) follows alerts and silences, groups alerts by the routes of the settings and tells
//!   each group when that is due; its state commits with its offsets;
//! * **at once** (`direct`): a webhook that no route names, and the program's own log, hear of every transition as it happens, each in
//!   a consumer group of its own.
//!
//! Silences hold back both (the log excepted). E-mail that no route names is told of everything, in groups.
//!
//! Receivers share nothing, the recipients of one e-mail receiver neither: each has policies of its own (`attempts`) for how many
//! notifications are on their way, for how long an attempt takes, when it is made again and when not at all, so a dead one delays nobody
//! else. Every attempt is recorded as an event.

mod attempts;
mod direct;
mod dispatching;
mod owed;
mod progress;
mod receiver;
mod silences;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use farol_alert::dispatch::ReceiverRules;
use farol_alert::{GroupBy, GroupTiming, InhibitRule, Route, Routes};
use farol_bus::Bus;
use farol_log::Trouble;
use farol_matcher::Matchers;
use farol_resilience::Registry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::email::{Email, EmailSettings};
use crate::system_events::SystemEvents;
use crate::topics::TopicNames;
use crate::webhook::{Webhook, WebhookSettings};
use attempts::Line;
pub use attempts::retry_schedule;
use direct::{Channel, Direct};
use dispatching::Dispatching;
use receiver::{Means, Receiver, recipient_name};
pub(crate) use silences::SharedSilences;

/// Where alerts are sent.
#[derive(Debug, Clone)]
pub struct NotifierSettings {
    /// Whether each notification is also written to the program's own log.
    pub log: bool,
    /// Webhooks.
    pub webhooks: Vec<WebhookSettings>,
    /// E-mail receivers.
    pub emails: Vec<EmailSettings>,
    /// Who is told of what.
    pub routes: Routes,
    /// How e-mail is grouped that no route names.
    pub group_by: GroupBy,
    /// And when it is due.
    pub timing: GroupTiming,
    /// Which alerts hold others back.
    pub inhibit: Vec<InhibitRule>,
    /// Where people reach the dashboard, for links.
    pub dashboard: Option<String>,
}

impl Default for NotifierSettings {
    fn default() -> Self {
        Self {
            log: true,
            webhooks: Vec::new(),
            emails: Vec::new(),
            routes: Routes::default(),
            group_by: GroupBy::default(),
            timing: GroupTiming::default(),
            inhibit: InhibitRule::defaults(),
            dashboard: None,
        }
    }
}

impl NotifierSettings {
    /// The routes of the settings, and before them one of everything to the e-mail receivers that none of them names.
    pub fn routes_in_force(&self) -> Routes {
        let unrouted = self.emails.iter().map(|email| &email.name).filter(|name| !self.is_routed(name));
        let receivers: Vec<String> = unrouted.cloned().collect();
        let mut routes = self.routes.clone();
        if !receivers.is_empty() {
            let everything = Route {
                matchers: Matchers::default(),
                receivers,
                goes_on: true,
                group_by: self.group_by.clone(),
                timing: self.timing,
            };
            routes.0.insert(0, everything);
        }
        routes
    }

    /// The webhooks that no route names.
    pub fn told_at_once(&self) -> Vec<String> {
        let names = self.webhooks.iter().map(|webhook| &webhook.name);
        names.filter(|name| !self.is_routed(name)).cloned().collect()
    }

    fn is_routed(&self, name: &str) -> bool {
        self.routes.all_receivers().any(|receiver| receiver == name)
    }
}

/// Why a receiver's settings can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("receiver `{name}`: {problem}")]
pub struct ReceiverSettingsError {
    /// Which receiver.
    pub name: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl ReceiverSettingsError {
    pub(crate) fn new(name: &str, problem: impl Into<String>) -> Self {
        Self { name: name.to_owned(), problem: problem.into() }
    }
}

/// What the notifier runs on.
pub(crate) struct NotifierDeps<'a> {
    pub(crate) bus: &'a Arc<dyn Bus>,
    pub(crate) names: &'a TopicNames,
    pub(crate) events: &'a SystemEvents,
    /// Where the receivers' policies are registered.
    pub(crate) outgoing: &'a Registry,
}

/// Starts every channel.
pub(crate) fn start(
    settings: NotifierSettings,
    deps: &NotifierDeps<'_>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), ReceiverSettingsError> {
    check_names(&settings)?;
    let silences = SharedSilences::default();
    let (routes, at_once) = (settings.routes_in_force(), settings.told_at_once());
    let (mut channels, mut receivers) = (Vec::new(), BTreeMap::new());
    let mut recipients: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if settings.log {
        channels.push(Channel::Log);
    }
    for webhook in settings.webhooks {
        let line = Line::new(&webhook.name, &webhook.name, webhook.timeout, webhook.retry, deps)?;
        let (name, send_resolved) = (webhook.name.clone(), webhook.send_resolved);
        let webhook = Box::new(Webhook::new(webhook)?);
        if !at_once.contains(&name) {
            let dashboard = settings.dashboard.clone();
            receivers
                .insert(name, Receiver { line, send_resolved, dashboard, means: Means::Webhook(webhook) });
        } else {
            channels.push(Channel::Webhook { webhook, line });
        }
    }
    for settings_of in settings.emails {
        let email = Arc::new(Email::new(&settings_of)?);
        for recipient in email.recipients() {
            let name = recipient_name(&settings_of.name, recipient);
            let line = Line::new(&settings_of.name, &name, settings_of.timeout, settings_of.retry, deps)?;
            let means = Means::Email { email: Arc::clone(&email), recipient: recipient.clone() };
            let (dashboard, send_resolved) = (settings.dashboard.clone(), settings_of.send_resolved);
            recipients.entry(settings_of.name.clone()).or_default().push(name.clone());
            receivers.insert(name, Receiver { line, send_resolved, dashboard, means });
        }
    }
    for channel in channels {
        let direct = Direct {
            bus: Arc::clone(deps.bus),
            topic: deps.names.alerts.clone(),
            events: deps.events.clone(),
            silences: silences.clone(),
            channel,
        };
        tasks.spawn(Arc::new(direct).run(stop.child_token()));
    }
    let dispatching = Dispatching {
        bus: Arc::clone(deps.bus),
        alerts: deps.names.alerts.clone(),
        events: deps.events.clone(),
        silences,
        routes: to_each(routes, &recipients),
        inhibit: settings.inhibit,
        rules: receivers
            .iter()
            .map(|(name, receiver)| (name.clone(), ReceiverRules { send_resolved: receiver.send_resolved }))
            .collect(),
        receivers: receivers.into_iter().map(|(name, receiver)| (name, Arc::new(receiver))).collect(),
        held_up: Trouble::default(),
    };
    tasks.spawn(dispatching.run(stop.child_token()));
    Ok(())
}

/// Routes that lead to receivers with recipients lead to each of these.
fn to_each(mut routes: Routes, recipients: &BTreeMap<String, Vec<String>>) -> Routes {
    for route in &mut routes.0 {
        let each = |name: String| recipients.get(&name).cloned().unwrap_or_else(|| vec![name]);
        route.receivers = std::mem::take(&mut route.receivers).into_iter().flat_map(each).collect();
    }
    routes
}

/// Every receiver has a name of its own, and every route leads somewhere.
fn check_names(settings: &NotifierSettings) -> Result<(), ReceiverSettingsError> {
    let webhooks = settings.webhooks.iter().map(|webhook| webhook.name.as_str());
    let emails = settings.emails.iter().map(|email| email.name.as_str());
    let mut names = BTreeSet::from(["log"]);
    for name in webhooks.chain(emails) {
        if !names.insert(name) {
            return Err(ReceiverSettingsError::new(name, "the name is taken by another receiver"));
        }
    }
    match settings.routes.all_receivers().find(|name| *name == "log" || !names.contains(name)) {
        Some(name) => {
            Err(ReceiverSettingsError::new(name, "a route leads to it, and there is none of that name"))
        }
        None => Ok(()),
    }
}

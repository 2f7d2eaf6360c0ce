//! Section `notify` as the notifier wants it.

use anyhow::Context as _;
use farol_alert::{GroupBy, GroupTiming, InhibitRule, Route, Routes};
use farol_http::control::Notifying;
use farol_pipeline::{EmailSettings, NotifierSettings, SmtpTls, WebhookSettings, retry_schedule};

use crate::settings::Settings;
use crate::settings::notify::{EmailEntry, InhibitEntry, Protection, RouteEntry, WebhookEntry};

/// What a list of labels to group by says to make each alert a group of its own, as in Alertmanager.
const EVERY_ALERT: &str = "...";

/// The notifier's settings.
pub fn settings(settings: &Settings) -> anyhow::Result<NotifierSettings> {
    let notify = &settings.notify;
    let timing = GroupTiming {
        wait: notify.group_wait,
        interval: notify.group_interval,
        repeat: notify.repeat_interval,
    };
    let routes = notify.routes.iter().map(|entry| route(entry, &notify.group_by, timing));
    Ok(NotifierSettings {
        webhooks: first_webhook(settings).into_iter().chain(notify.webhooks.iter().map(webhook)).collect(),
        emails: notify.emails.iter().map(email).collect::<anyhow::Result<_>>()?,
        routes: Routes(routes.collect()),
        group_by: group_by(&notify.group_by),
        timing,
        inhibit: inhibit(settings),
        dashboard: notify.dashboard.as_ref().map(|url| url.0.clone()),
        ..NotifierSettings::default()
    })
}

/// What the API tells of it.
pub fn notifying(settings: &Settings) -> anyhow::Result<Notifying> {
    let notifier = self::settings(settings)?;
    let webhooks = notifier.webhooks.iter().map(|webhook| webhook.name.clone());
    let emails = notifier.emails.iter().map(|email| email.name.clone());
    Ok(Notifying {
        receivers: webhooks.chain(emails).collect(),
        at_once: notifier.told_at_once(),
        routes: notifier.routes_in_force(),
        inhibit: notifier.inhibit,
        dashboard: notifier.dashboard,
    })
}

/// Which alerts hold others back.
fn inhibit(settings: &Settings) -> Vec<InhibitRule> {
    let rule = |entry: &InhibitEntry| InhibitRule {
        source: entry.source.clone(),
        target: entry.target.clone(),
        equal: entry.equal.clone(),
    };
    match &settings.notify.inhibit {
        Some(entries) => entries.iter().map(rule).collect(),
        None => InhibitRule::defaults(),
    }
}

fn headers(authorization: Option<&String>) -> Vec<(String, String)> {
    authorization.map(|value| ("authorization".to_owned(), value.clone())).into_iter().collect()
}

/// The one of section `notify.webhook`.
fn first_webhook(settings: &Settings) -> Option<WebhookSettings> {
    settings.webhook.as_ref().map(|webhook| WebhookSettings {
        name: "webhook".to_owned(),
        url: webhook.url.0.clone(),
        headers: headers(webhook.authorization.as_ref()),
        timeout: webhook.timeout,
        retry: retry_schedule(webhook.attempts.get()),
        send_resolved: true,
    })
}

fn webhook(entry: &WebhookEntry) -> WebhookSettings {
    WebhookSettings {
        name: entry.name.clone(),
        url: entry.url.0.clone(),
        headers: headers(entry.authorization.as_ref()),
        timeout: entry.timeout,
        retry: retry_schedule(entry.attempts),
        send_resolved: entry.send_resolved,
    }
}

fn email(entry: &EmailEntry) -> anyhow::Result<EmailSettings> {
    let trusted = entry.ca.as_ref().map(|file| {
        std::fs::read(file).with_context(|| format!("can't read the certificates in `{}`", file.display()))
    });
    Ok(EmailSettings {
        name: entry.name.clone(),
        host: entry.host.clone(),
        port: entry.port,
        tls: match entry.tls {
            Protection::None => SmtpTls::None,
            Protection::StartTls => SmtpTls::StartTls,
            Protection::Tls => SmtpTls::Tls,
        },
        trusted: trusted.transpose()?,
        credentials: entry.user.clone().zip(entry.password.clone()),
        from: entry.from.clone(),
        to: entry.to.clone(),
        timeout: entry.timeout,
        retry: retry_schedule(entry.attempts),
        send_resolved: entry.send_resolved,
    })
}

fn route(entry: &RouteEntry, default_group_by: &[String], timing: GroupTiming) -> Route {
    Route {
        matchers: entry.matchers.clone(),
        receivers: entry.receivers.clone(),
        goes_on: entry.goes_on,
        group_by: group_by(entry.group_by.as_deref().unwrap_or(default_group_by)),
        timing: GroupTiming {
            wait: entry.group_wait.unwrap_or(timing.wait),
            interval: entry.group_interval.unwrap_or(timing.interval),
            repeat: entry.repeat_interval.unwrap_or(timing.repeat),
        },
    }
}

fn group_by(labels: &[String]) -> GroupBy {
    if labels == [EVERY_ALERT] { GroupBy::EveryAlert } else { GroupBy::Labels(labels.to_vec()) }
}

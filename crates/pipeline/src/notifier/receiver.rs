//! A receiver that routes lead to: one notification of a group on its way.
//!
//! Each recipient of an e-mail receiver is a receiver of its own ([`recipient_name`]), with groups, breaker and retries of its own: a
//! mailbox that takes nothing for an hour keeps nobody else waiting, and is told by itself when it takes mail again.

use std::sync::Arc;

use farol_alert::Notification;
use farol_alert::alertmanager::{GroupPayload, MAX_LISTED_ALERTS};
use farol_alert::group::Ended;
use farol_alert::mail::Mail;
use farol_alert::notification::ToldTransition;
use futures_util::FutureExt;
use lettre::Address;

use super::attempts::{Line, Telling};
use crate::email::Email;
use crate::webhook::Webhook;

/// By what means it is told.
pub(super) enum Means {
    Webhook(Box<Webhook>),
    Email { email: Arc<Email>, recipient: Address },
}

/// What one recipient of an e-mail receiver is called among those that routes lead to.
pub(super) fn recipient_name(receiver: &str, recipient: &Address) -> String {
    format!("{receiver}/{recipient}")
}

/// A receiver.
pub(super) struct Receiver {
    pub(super) line: Line,
    pub(super) send_resolved: bool,
    pub(super) dashboard: Option<String>,
    pub(super) means: Means,
}

impl Receiver {
    /// The receiver's name in the settings, and the target in words, without secrets.
    pub(super) fn channel_and_target(&self) -> (&str, String) {
        let target = match &self.means {
            Means::Webhook(webhook) => webhook.settings().url_for_people(),
            Means::Email { recipient, .. } => recipient.to_string(),
        };
        (self.line.name(), target)
    }

    /// Tells it, until delivered or given up.
    pub(super) async fn deliver(&self, notification: &Notification) -> Ended {
        let alerts = || notification.firing.iter().chain(&notification.resolved);
        let told: Vec<ToldTransition> = alerts().take(MAX_LISTED_ALERTS).map(ToldTransition::of).collect();
        // What is about one alert belongs to its series, as everything else about it.
        let source = match (alerts().next(), told.as_slice()) {
            (Some(alert), [_]) => alert.series.as_str(),
            _ => self.line.name(),
        };
        let (_, target) = self.channel_and_target();
        let telling = Telling { source, target: &target, told: &told };
        match &self.means {
            Means::Webhook(webhook) => self.post(webhook, notification, &telling).await,
            Means::Email { email, recipient } => self.mail(email, recipient, notification, &telling).await,
        }
    }

    async fn post(&self, webhook: &Webhook, notification: &Notification, telling: &Telling<'_>) -> Ended {
        let payload = GroupPayload::new(notification, self.dashboard.as_deref());
        let body = bytes::Bytes::from(payload.to_json());
        let key = notification.id.to_string();
        self.line.tell(telling, &|| webhook.post(body.clone(), &key).boxed()).await
    }

    async fn mail(
        &self,
        email: &Email,
        recipient: &Address,
        notification: &Notification,
        telling: &Telling<'_>,
    ) -> Ended {
        let mail = Mail::new(notification, self.dashboard.as_deref());
        let message = email.message(&mail, notification.id);
        self.line.tell(telling, &|| email.send(recipient, &message).boxed()).await
    }
}

//! A receiver that routes lead to: one notification of a group on its way.

use farol_alert::Notification;
use farol_alert::alertmanager::{GroupPayload, MAX_LISTED_ALERTS};
use farol_alert::group::Ended;
use farol_alert::mail::Mail;
use farol_alert::notification::ToldTransition;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::attempts::{Line, Telling};
use crate::email::Email;
use crate::webhook::Webhook;

/// How many notifications one receiver has on their way at a time.
pub(super) const IN_FLIGHT: usize = 8;

/// By what means it is told.
pub(super) enum Means {
    Webhook(Box<Webhook>),
    Email(Box<Email>),
}

/// A receiver.
pub(super) struct Receiver {
    pub(super) line: Line,
    pub(super) send_resolved: bool,
    pub(super) dashboard: Option<String>,
    pub(super) means: Means,
}

impl Receiver {
    /// Tells it, until delivered or given up.
    pub(super) async fn deliver(&self, notification: &Notification) -> Ended {
        let alerts = || notification.firing.iter().chain(&notification.resolved);
        let told: Vec<ToldTransition> = alerts().take(MAX_LISTED_ALERTS).map(ToldTransition::of).collect();
        // What is about one alert belongs to its series, as everything else about it.
        let source = match (alerts().next(), told.as_slice()) {
            (Some(alert), [_]) => alert.series.as_str(),
            _ => self.line.name(),
        };
        match &self.means {
            Means::Webhook(webhook) => self.post(webhook, notification, source, &told).await,
            Means::Email(email) => self.mail(email, notification, source, &told).await,
        }
    }

    async fn post(
        &self,
        webhook: &Webhook,
        notification: &Notification,
        source: &str,
        told: &[ToldTransition],
    ) -> Ended {
        let payload = GroupPayload::new(notification, self.dashboard.as_deref());
        let body = bytes::Bytes::from(payload.to_json());
        let key = notification.id.to_string();
        let target = webhook.settings().url_for_people();
        let telling = Telling { source, target: &target, told };
        self.line.tell(&telling, &|| webhook.post(body.clone(), &key).boxed()).await
    }

    /// One message, handed over for each recipient apart: that one is refused must not keep it from the others.
    async fn mail(
        &self,
        email: &Email,
        notification: &Notification,
        source: &str,
        told: &[ToldTransition],
    ) -> Ended {
        let mail = Mail::new(notification, self.dashboard.as_deref());
        let message = email.message(&mail, notification.id);
        let mut recipients: Vec<BoxFuture<'_, Ended>> = Vec::with_capacity(email.recipients().len());
        for recipient in email.recipients() {
            let message = &message;
            recipients.push(
                async move {
                    let target = recipient.to_string();
                    let telling = Telling { source, target: &target, told };
                    self.line.tell(&telling, &|| email.send(recipient, message).boxed()).await
                }
                .boxed(),
            );
        }
        let ended = join_all(recipients).await;
        // Whom it reached is told; nobody else would be told in another way by a repeat to all.
        if ended.contains(&Ended::Delivered) {
            Ended::Delivered
        } else if ended.contains(&Ended::GaveUp) {
            Ended::GaveUp
        } else {
            Ended::Refused
        }
    }
}

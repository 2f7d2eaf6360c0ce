//! E-mail over SMTP: one message, handed to a mail server for one recipient at a time.
//!
//! Whatever the server replies becomes an [`Attempt`], so that the same schedule of retries holds as for webhooks. The
//! `Message-ID` follows from the notification's id: whoever gets a message twice can tell. The password is never logged or shown.

use std::time::Duration;

use farol_alert::Attempt;
use farol_alert::mail::Mail;
use farol_resilience::retry::Schedule;
use lettre::address::Envelope;
use lettre::message::header::{self, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use uuid::Uuid;

use crate::notifier::ReceiverSettingsError;

/// How many recipients one receiver may have.
pub const MAX_RECIPIENTS: usize = 50;

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// By STARTTLS, which the server must offer.
    StartTls,
    /// From the first byte.
    Tls,
}

/// Mail to some people by way of one server.
#[derive(Clone)]
pub struct EmailSettings {
    /// Its name among receivers.
    pub name: String,
    /// The mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: SmtpTls,
    /// PEM certificates to trust beside the system's.
    pub trusted: Option<Vec<u8>>,
    /// User and password, if the server asks for them. Never logged.
    pub credentials: Option<(String, String)>,
    /// Who sends: `farol@example.org` or `Farol <farol@example.org>`.
    pub from: String,
    /// Who is told.
    pub to: Vec<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When to try again and when to give up.
    pub retry: Schedule,
    /// Whether it is told that alerts resolved.
    pub send_resolved: bool,
}

impl std::fmt::Debug for EmailSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmailSettings")
            .field("name", &self.name)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|error| format!("`{text}` is not an e-mail address: {error}"))
}

/// Everything that is wrong with who writes to whom.
pub fn address_problems(from: &str, to: &[String]) -> Vec<String> {
    let named = std::iter::once(from).chain(to.iter().map(String::as_str));
    let mut problems: Vec<String> = named.filter_map(|text| mailbox(text).err()).collect();
    if to.is_empty() || to.len() > MAX_RECIPIENTS {
        problems.push(format!("`to` must name 1 to {MAX_RECIPIENTS} addresses"));
    }
    problems
}

/// A connection to a mail server, with who writes to whom.
pub(crate) struct Email {
    from: Mailbox,
    to: Vec<Mailbox>,
    recipients: Vec<Address>,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

impl Email {
    /// Checks the settings; connects to nothing yet.
    pub(crate) fn new(settings: &EmailSettings) -> Result<Self, ReceiverSettingsError> {
        let refuse = |problem: String| ReceiverSettingsError::new(&settings.name, problem);
        if let Some(problem) = address_problems(&settings.from, &settings.to).into_iter().next() {
            return Err(refuse(problem));
        }
        let from = mailbox(&settings.from).map_err(refuse)?;
        let to =
            settings.to.iter().map(|text| mailbox(text)).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
        let parameters = || {
            let mut builder = TlsParameters::builder(settings.host.clone());
            if let Some(pem) = &settings.trusted {
                builder = builder.add_root_certificate(Certificate::from_pem(pem)?);
            }
            builder.build_rustls()
        };
        let failed =
            |error: lettre::transport::smtp::Error| refuse(format!("its TLS can't be set up: {error}"));
        let tls = match settings.tls {
            SmtpTls::None => Tls::None,
            SmtpTls::StartTls => Tls::Required(parameters().map_err(failed)?),
            SmtpTls::Tls => Tls::Wrapper(parameters().map_err(failed)?),
        };
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&settings.host)
            .port(settings.port)
            // For each reply; who sends bounds all together.
            .timeout(Some(settings.timeout))
            .tls(tls);
        if let Some((user, password)) = &settings.credentials {
            transport = transport.credentials(Credentials::new(user.clone(), password.clone()));
        }
        let mut recipients: Vec<Address> = Vec::with_capacity(to.len());
        for mailbox in &to {
            // Named twice, somebody gets one message all the same.
            if !recipients.contains(&mailbox.email) {
                recipients.push(mailbox.email.clone());
            }
        }
        Ok(Self { from, to, recipients, transport: transport.build() })
    }

    /// Who is told, each once.
    pub(crate) fn recipients(&self) -> &[Address] {
        &self.recipients
    }

    /// The message for one notification, as it goes over the wire; or why it can't be written.
    pub(crate) fn message(&self, mail: &Mail, id: Uuid) -> Result<Vec<u8>, String> {
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(mail.subject.clone())
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            // RFC 3834: nobody's absence note is to answer.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for mailbox in &self.to {
            builder = builder.to(mailbox.clone());
        }
        let body = MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone());
        let message = builder.header(header::MIME_VERSION_1_0).multipart(body);
        message.map(|message| message.formatted()).map_err(|error| error.to_string())
    }

    /// Hands the message over for one recipient.
    pub(crate) async fn send(&self, recipient: &Address, message: &Result<Vec<u8>, String>) -> Attempt {
        let message = match message {
            Ok(message) => message,
            Err(problem) => return Attempt::Impossible(problem.clone()),
        };
        let envelope = match Envelope::new(Some(self.from.email.clone()), vec![recipient.clone()]) {
            Ok(envelope) => envelope,
            Err(error) => return Attempt::Impossible(error.to_string()),
        };
        match self.transport.send_raw(&envelope, message).await {
            Ok(response) => Attempt::Replied { code: response.code().into(), text: String::new() },
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &lettre::transport::smtp::Error) -> Attempt {
    if error.is_timeout() {
        return Attempt::TimedOut;
    }
    let text = std::error::Error::source(error).map(ToString::to_string);
    match error.status() {
        Some(code) => Attempt::Replied { code: code.into(), text: text.unwrap_or_default() },
        None => Attempt::Unreachable(error.to_string()),
    }
}

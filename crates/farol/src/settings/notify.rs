//! Section `notify`: receivers, routes and inhibition. Its lists are tables in the file:
//!
//! ```toml
//! [[notify.email]]
//! name = "ops"
//! host = "mail.example.org"
//! from = "farol@example.org"
//! to = ["ops@example.org"]
//!
//! [[notify.route]]
//! match = '{severity="critical"}'
//! receivers = ["ops"]
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use farol_matcher::Matchers;

use super::value::{Count, RawValue, SettingValue, Url, show_duration};

/// Section `notify`.
#[derive(Debug, Clone)]
pub struct NotifySettings {
    /// Where people reach the dashboard.
    pub dashboard: Option<Url>,
    /// What makes a group; `["..."]` makes each alert one.
    pub group_by: Vec<String>,
    /// How long a new group waits for more.
    pub group_wait: Duration,
    /// The time between two notifications of a group that changes.
    pub group_interval: Duration,
    /// After how long an unchanged group is told again.
    pub repeat_interval: Duration,
    /// E-mail receivers.
    pub emails: Vec<EmailEntry>,
    /// Webhooks beside the one of `notify.webhook`.
    pub webhooks: Vec<WebhookEntry>,
    /// Who is told of what.
    pub routes: Vec<RouteEntry>,
    /// Which alerts hold others back; Farol's own rule without it.
    pub inhibit: Option<Vec<InhibitEntry>>,
}

impl NotifySettings {
    /// What is accepted, though it may not be what was meant.
    pub fn warnings(&self) -> Vec<String> {
        let in_clear =
            self.emails.iter().filter(|email| email.tls == Protection::None && !is_loopback(&email.host));
        let warning = |email: &EmailEntry| {
            format!(
                "notify.email: `{}`: what is sent to `{}` can be read on its way there; unless you trust that network, take tls = \"starttls\"",
                email.name, email.host
            )
        };
        in_clear.map(warning).collect()
    }
}

/// One of `notify.email`.
#[derive(Clone)]
pub struct EmailEntry {
    /// Its name.
    pub name: String,
    /// The mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Protection,
    /// PEM file of certificates to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// The user, if the server asks for one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// Who sends.
    pub from: String,
    /// Who is told.
    pub to: Vec<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts.
    pub attempts: u32,
    /// Whether ends are told.
    pub send_resolved: bool,
}

impl std::fmt::Debug for EmailEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmailEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    None,
    /// By STARTTLS.
    StartTls,
    /// From the first byte.
    Tls,
}

/// One of `notify.webhooks`.
#[derive(Clone)]
pub struct WebhookEntry {
    /// Its name.
    pub name: String,
    /// Where to post.
    pub url: Url,
    /// The `Authorization` header, if any.
    pub authorization: Option<String>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts.
    pub attempts: u32,
    /// Whether ends are told.
    pub send_resolved: bool,
}

impl std::fmt::Debug for WebhookEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookEntry").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One of `notify.route`.
#[derive(Debug, Clone)]
pub struct RouteEntry {
    /// Which alerts.
    pub matchers: Matchers,
    /// Who is told.
    pub receivers: Vec<String>,
    /// Whether later routes are looked at too.
    pub goes_on: bool,
    /// What makes a group, if not `notify.group_by`.
    pub group_by: Option<Vec<String>>,
    /// Instead of `notify.group_wait`.
    pub group_wait: Option<Duration>,
    /// Instead of `notify.group_interval`.
    pub group_interval: Option<Duration>,
    /// Instead of `notify.repeat_interval`.
    pub repeat_interval: Option<Duration>,
}

/// One of `notify.inhibit`.
#[derive(Debug, Clone)]
pub struct InhibitEntry {
    /// Which alerts hold others back.
    pub source: Matchers,
    /// Which are held back.
    pub target: Matchers,
    /// Labels that both share.
    pub equal: Vec<String>,
}

type Refusal = Cow<'static, str>;

/// One table of a list, its keys taken out one after the other; what is left is unknown.
struct Table(BTreeMap<String, RawValue>);

impl Table {
    fn of(raw: &RawValue, what: &'static str) -> Result<Self, Refusal> {
        match raw {
            RawValue::Table(entries) => {
                Ok(Self(entries.iter().map(|(key, value)| (key.clone(), raw_value(value))).collect()))
            }
            _ => Err(what.into()),
        }
    }

    fn optional<T: SettingValue>(&mut self, key: &str) -> Result<Option<T>, Refusal> {
        let Some(raw) = self.0.remove(key) else { return Ok(None) };
        // What was written is not repeated: it may be a password.
        T::from_raw(&raw).map(Some).map_err(|expected| format!("one whose `{key}` is {expected}").into())
    }

    fn required<T: SettingValue>(&mut self, key: &str) -> Result<T, Refusal> {
        self.optional(key)?.ok_or_else(|| format!("one with a `{key}`").into())
    }

    fn or<T: SettingValue>(&mut self, key: &str, default: T) -> Result<T, Refusal> {
        Ok(self.optional(key)?.unwrap_or(default))
    }

    fn attempts(&mut self) -> Result<u32, Refusal> {
        let attempts: Option<Count<100>> = self.optional("attempts")?;
        Ok(attempts.map_or(12, Count::get))
    }

    /// How long one attempt may take.
    fn timeout(&mut self, default: Duration) -> Result<Duration, Refusal> {
        let timeout = self.or("timeout", default)?;
        if timeout.is_zero() { Err("one whose `timeout` is longer than nothing".into()) } else { Ok(timeout) }
    }

    fn done(self) -> Result<(), Refusal> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(key) => {
                let key: String = key.chars().take(64).collect();
                Err(format!("one without `{key}`, which nobody knows").into())
            }
        }
    }
}

/// A value of a table as settings read it.
fn raw_value(value: &toml::Value) -> RawValue {
    match value {
        toml::Value::String(text) => RawValue::Text(text.clone()),
        toml::Value::Integer(number) => RawValue::Integer(*number),
        toml::Value::Float(number) => RawValue::Float(*number),
        toml::Value::Boolean(value) => RawValue::Bool(*value),
        toml::Value::Array(items) => RawValue::List(items.iter().map(raw_value).collect()),
        toml::Value::Datetime(_) => RawValue::Other("date"),
        toml::Value::Table(table) => RawValue::Table(table.clone()),
    }
}

impl SettingValue for EmailEntry {
    fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        let mut table = Table::of(raw, "a list of e-mail receivers, each a [[notify.email]] table")?;
        let tls = table.or("tls", Protection::StartTls)?;
        let usual_port = match tls {
            Protection::None => 25,
            Protection::StartTls => 587,
            Protection::Tls => 465,
        };
        let port: Option<Count<65535>> = table.optional("port")?;
        let email = Self {
            name: table.required("name")?,
            host: table.required("host")?,
            port: port.and_then(|port| u16::try_from(port.get()).ok()).unwrap_or(usual_port),
            tls,
            ca: table.optional("ca")?,
            user: table.optional("user")?,
            password: table.optional("password")?,
            from: table.required("from")?,
            to: table.required("to")?,
            timeout: table.timeout(Duration::from_secs(30))?,
            attempts: table.attempts()?,
            send_resolved: table.or("send_resolved", true)?,
        };
        table.done()?;
        match (&email.user, &email.password) {
            (Some(_), None) | (None, Some(_)) => {
                Err("one with both `user` and `password`, or neither".into())
            }
            (Some(_), Some(_)) if email.tls == Protection::None && !is_loopback(&email.host) => {
                Err("one that sends its password over TLS, or to this machine".into())
            }
            _ => Ok(email),
        }
    }

    fn to_toml(&self) -> String {
        format!("{{ name = {}, … }}", self.name.to_toml())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl SettingValue for Protection {
    fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) => match text.as_str() {
                "none" => Ok(Protection::None),
                "starttls" => Ok(Protection::StartTls),
                "tls" => Ok(Protection::Tls),
                _ => Err("\"none\", \"starttls\" or \"tls\"".into()),
            },
            _ => Err("\"none\", \"starttls\" or \"tls\"".into()),
        }
    }

    fn to_toml(&self) -> String {
        let text = match self {
            Protection::None => "none",
            Protection::StartTls => "starttls",
            Protection::Tls => "tls",
        };
        text.to_owned().to_toml()
    }
}

impl SettingValue for WebhookEntry {
    fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        let mut table = Table::of(raw, "a list of webhooks, each a [[notify.webhooks]] table")?;
        let webhook = Self {
            name: table.required("name")?,
            url: table.required("url")?,
            authorization: table.optional("authorization")?,
            timeout: table.timeout(Duration::from_secs(5))?,
            attempts: table.attempts()?,
            send_resolved: table.or("send_resolved", true)?,
        };
        table.done()?;
        Ok(webhook)
    }

    fn to_toml(&self) -> String {
        format!("{{ name = {}, … }}", self.name.to_toml())
    }
}

impl SettingValue for RouteEntry {
    fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        let mut table = Table::of(raw, "a list of routes, each a [[notify.route]] table")?;
        let route = Self {
            matchers: table.or("match", Matchers::default())?,
            receivers: table.required("receivers")?,
            goes_on: table.or("continue", false)?,
            group_by: table.optional("group_by")?,
            group_wait: table.optional("group_wait")?,
            group_interval: table.optional("group_interval")?,
            repeat_interval: table.optional("repeat_interval")?,
        };
        table.done()?;
        let zero = |duration: Option<Duration>| duration.is_some_and(|duration| duration.is_zero());
        if zero(route.group_interval) || zero(route.repeat_interval) {
            return Err("one whose `group_interval` and `repeat_interval` are longer than nothing".into());
        }
        Ok(route)
    }

    fn to_toml(&self) -> String {
        let mut parts = vec![
            format!("match = {}", self.matchers.to_toml()),
            format!("receivers = {}", self.receivers.to_toml()),
        ];
        if self.goes_on {
            parts.push("continue = true".to_owned());
        }
        parts.extend(self.group_by.as_ref().map(|labels| format!("group_by = {}", labels.to_toml())));
        for (name, duration) in [
            ("group_wait", self.group_wait),
            ("group_interval", self.group_interval),
            ("repeat_interval", self.repeat_interval),
        ] {
            parts.extend(duration.map(|duration| format!("{name} = \"{}\"", show_duration(duration))));
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

impl SettingValue for InhibitEntry {
    fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        let mut table = Table::of(raw, "a list of inhibitions, each a [[notify.inhibit]] table")?;
        let inhibit = Self {
            source: table.required("source")?,
            target: table.required("target")?,
            equal: table.or("equal", Vec::new())?,
        };
        table.done()?;
        Ok(inhibit)
    }

    fn to_toml(&self) -> String {
        let equal = self.equal.to_toml();
        format!(
            "{{ source = {}, target = {}, equal = {equal} }}",
            self.source.to_toml(),
            self.target.to_toml()
        )
    }
}

impl SettingValue for Matchers {
    fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) => text
                .parse()
                .map_err(|error| format!("matchers such as '{{severity=\"critical\"}}' ({error})").into()),
            _ => Err("matchers such as '{severity=\"critical\"}'".into()),
        }
    }

    fn to_toml(&self) -> String {
        self.to_string().to_toml()
    }
}

//! Typed values of settings: how each is written, read and shown.
//!
//! A value comes typed from the file (TOML has numbers, booleans and lists) or as bare text from the environment and
//! the command line. [`SettingValue`] reads both; its error says what was expected and shows an example.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// A value before anybody knows what it should be.
#[derive(Debug, Clone, PartialEq)]
pub enum RawValue {
    /// From the environment or the command line: text that may mean anything.
    Bare(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<RawValue>),
    /// A TOML table, in a place where settings have a table's worth of meaning of their own.
    Table(toml::Table),
    /// Anything else TOML has, by its name.
    Other(&'static str),
}

impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RawValue::Bare(text) => f.write_str(text),
            RawValue::Text(text) => write!(f, "{text:?}"),
            RawValue::Integer(number) => write!(f, "{number}"),
            RawValue::Float(number) => write!(f, "{number}"),
            RawValue::Bool(value) => write!(f, "{value}"),
            RawValue::List(_) => f.write_str("a list"),
            RawValue::Table(_) => f.write_str("a table"),
            RawValue::Other(kind) => write!(f, "a {kind}"),
        }
    }
}

/// A type that settings can have.
pub trait SettingValue: Sized {
    /// Reads it. The error completes "`…` is not …".
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>>;

    /// As it would be written in the file.
    fn to_toml(&self) -> String;
}

impl SettingValue for String {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) if !text.is_empty() => Ok(text.clone()),
            _ => Err("a text, for example \"worker\"".into()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(self)
    }
}

impl SettingValue for PathBuf {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            _ => Err("a path, for example \"./farol-data\"".into()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl SettingValue for bool {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        match raw {
            RawValue::Bool(value) => Ok(*value),
            RawValue::Bare(text) if text == "true" => Ok(true),
            RawValue::Bare(text) if text == "false" => Ok(false),
            _ => Err("`true` or `false`".into()),
        }
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MAX: u32, const MIN: u32 = 1>(u32);

impl<const MAX: u32, const MIN: u32> Count<MAX, MIN> {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<const MAX: u32, const MIN: u32> SettingValue for Count<MAX, MIN> {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        let number = match raw {
            RawValue::Integer(number) => u32::try_from(*number).ok(),
            RawValue::Bare(text) => text.parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Self)
            .ok_or_else(|| format!("a whole number from {MIN} to {MAX}").into())
    }

    fn to_toml(&self) -> String {
        self.0.to_string()
    }
}

/// A list; commas between its items in the environment.
impl<T: SettingValue> SettingValue for Vec<T> {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        match raw {
            RawValue::Bare(text) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| T::from_raw(&RawValue::Bare(part.to_owned())))
                .collect(),
            RawValue::List(items) => items.iter().map(T::from_raw).collect(),
            _ => Err("a list, for example [\"one\", \"two\"]".into()),
        }
    }

    fn to_toml(&self) -> String {
        let items: Vec<String> = self.iter().map(SettingValue::to_toml).collect();
        format!("[{}]", items.join(", "))
    }
}

/// The units of durations, largest first, with their milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl SettingValue for Duration {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str =
            "a duration with its unit, for example \"500ms\", \"30s\", \"5m\", \"12h\" or \"7d\"";
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) => parse_duration(text).ok_or(PROBLEM.into()),
            _ => Err(PROBLEM.into()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&show_duration(*self))
    }
}

/// A whole or decimal number followed by its unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let (_, unit_ms) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    if let Ok(whole) = number.parse::<u64>() {
        return Some(Duration::from_millis(whole.checked_mul(*unit_ms)?));
    }
    let seconds = number.parse::<f64>().ok()? * Duration::from_millis(*unit_ms).as_secs_f64();
    Duration::try_from_secs_f64(seconds).ok()
}

/// The shortest exact way to write it, to the millisecond.
pub fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let (unit, unit_ms) =
        DURATION_UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms)).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / unit_ms)
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The units of byte sizes, largest first; powers of 1024.
const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = BYTE_UNITS
            .iter()
            .find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl SettingValue for ByteSize {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str = "a size with its unit, for example \"64KiB\", \"16MiB\" or \"2GiB\"";
        let (RawValue::Bare(text) | RawValue::Text(text)) = raw else { return Err(PROBLEM.into()) };
        let (number, unit) = split_unit(text).ok_or(PROBLEM)?;
        let (_, bytes) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(PROBLEM)?;
        let number: u64 = number.parse().map_err(|_| PROBLEM)?;
        number.checked_mul(*bytes).map(ByteSize).ok_or(PROBLEM.into())
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// "30s" → ("30", "s"). The unit is required: a bare number is what people get wrong.
fn split_unit(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    (!number.is_empty()).then_some((number, unit.trim_start()))
}

/// When an append is acknowledged; Farol's `farol.sync` topic setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// After an fdatasync.
    Always,
    /// After the write, with an fdatasync at least this often.
    Interval(Duration),
    /// After the write; the operating system syncs when it likes.
    Never,
}

impl SyncPolicy {
    /// As `farol.sync` spells it.
    pub fn as_config(self) -> String {
        match self {
            SyncPolicy::Always => "always".to_owned(),
            SyncPolicy::Never => "never".to_owned(),
            SyncPolicy::Interval(interval) => show_duration(interval),
        }
    }
}

impl SettingValue for SyncPolicy {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str = "a sync policy: \"always\", \"never\", or how often, for example \"50ms\"";
        let (RawValue::Bare(text) | RawValue::Text(text)) = raw else { return Err(PROBLEM.into()) };
        match text.as_str() {
            "always" => Ok(SyncPolicy::Always),
            "never" => Ok(SyncPolicy::Never),
            other => match parse_duration(other) {
                Some(interval) if !interval.is_zero() => Ok(SyncPolicy::Interval(interval)),
                _ => Err(PROBLEM.into()),
            },
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.as_config())
    }
}

/// Where a server listens: a host (address or name) and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// An IP address (without brackets) or a name.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

impl ListenAddress {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The address to bind: the first that the host resolves to, IPv4 before IPv6.
    pub fn resolve(&self) -> std::io::Result<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.into_iter().next().ok_or_else(|| std::io::Error::other("the name has no address"))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl SettingValue for ListenAddress {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str = "an address with a port, for example \"127.0.0.1:5000\" or \"[::1]:5000\"";
        let (RawValue::Bare(text) | RawValue::Text(text)) = raw else { return Err(PROBLEM.into()) };
        let (host, port) = text.rsplit_once(':').ok_or(PROBLEM)?;
        let port = port.parse().map_err(|_| PROBLEM)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                inner.strip_suffix(']').filter(|ip| ip.parse::<IpAddr>().is_ok()).ok_or(PROBLEM)?
            }
            None => host,
        };
        let named = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if host.is_empty() || !(named || host.parse::<IpAddr>().is_ok()) {
            return Err(PROBLEM.into());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Where a server listens that need not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenOrOff {
    /// Nowhere.
    Off,
    /// There.
    On(ListenAddress),
}

impl ListenOrOff {
    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Off => true,
            Self::On(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for ListenOrOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(address) => address.fmt(f),
        }
    }
}

impl SettingValue for ListenOrOff {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str = "an address with a port, for example \"127.0.0.1:9092\", or \"off\"";
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) if text == "off" => Ok(Self::Off),
            _ => ListenAddress::from_raw(raw).map(Self::On).map_err(|_| PROBLEM.into()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A Kafka client that may connect. Its password is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaUser {
    /// Its name.
    pub name: String,
    /// Its password, or what was made of it.
    pub password: String,
}

impl fmt::Debug for KafkaUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaUser").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SettingValue for KafkaUser {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str = "a list of `name:password`, with a password of at least 8 printable ASCII characters and no blank at its ends";
        const MIN_PASSWORD_BYTES: usize = 8;
        let (RawValue::Bare(text) | RawValue::Text(text)) = raw else { return Err(PROBLEM.into()) };
        let (name, password) = text.split_once(':').ok_or(PROBLEM)?;
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        // Whoever writes `name: password` doesn't mean a password that begins with a blank, and where there is one it is easily lost.
        let fits = password.len() >= MIN_PASSWORD_BYTES && password.trim() == password;
        if name.is_empty() || !fits || !printable(name) || !printable(password) {
            return Err(PROBLEM.into());
        }
        Ok(Self { name: name.to_owned(), password: password.to_owned() })
    }

    fn to_toml(&self) -> String {
        quoted(&format!("{}:…", self.name))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SettingValue for LogFormat {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        match raw {
            RawValue::Bare(text) | RawValue::Text(text) if text == "text" => Ok(LogFormat::Text),
            RawValue::Bare(text) | RawValue::Text(text) if text == "json" => Ok(LogFormat::Json),
            _ => Err("\"text\" or \"json\"".into()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(self.as_str())
    }
}

/// An `http://` or `https://` address to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(pub String);

impl SettingValue for Url {
    fn from_raw(raw: &RawValue) -> Result<Self, Cow<'static, str>> {
        const PROBLEM: &str = "an address to call, for example \"https://example.org/alerts\"";
        let (RawValue::Bare(text) | RawValue::Text(text)) = raw else { return Err(PROBLEM.into()) };
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or(PROBLEM)?;
        let host_named = rest.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '[');
        if host_named && !text.contains(char::is_whitespace) {
            Ok(Self(text.clone()))
        } else {
            Err(PROBLEM.into())
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bare<T: SettingValue>(text: &str) -> Option<T> {
        T::from_raw(&RawValue::Bare(text.to_owned())).ok()
    }

    #[test]
    fn durations_need_a_unit_and_are_shown_in_the_largest_that_fits() {
        assert_eq!(bare("30s"), Some(Duration::from_secs(30)));
        assert_eq!(bare("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(bare("7 d"), Some(Duration::from_secs(7 * 86_400)));
        for wrong in ["30", "", "s", "-1s", "1e9s", "3 weeks", "99999999999999999999d", "1.2.3s"] {
            assert_eq!(bare::<Duration>(wrong), None, "{wrong}");
        }
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
        assert_eq!(show_duration(Duration::from_secs(3600)), "1h");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn byte_sizes_are_powers_of_1024_with_a_unit() {
        assert_eq!(bare("64MiB"), Some(ByteSize(64 << 20)));
        assert_eq!(bare("10 B"), Some(ByteSize(10)));
        for wrong in ["64", "64MB", "1.5MiB", "99999999999GiB", "MiB"] {
            assert_eq!(bare::<ByteSize>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn listen_addresses_know_whether_they_are_loopback() {
        for (text, loopback) in [
            ("127.0.0.1:5000", true),
            ("[::1]:80", true),
            ("localhost:0", true),
            ("0.0.0.0:5000", false),
            ("farol.example:80", false),
        ] {
            let address: ListenAddress = bare(text).expect(text);
            assert_eq!(address.is_loopback(), loopback, "{text}");
            assert_eq!(address.to_string(), text);
        }
        for wrong in ["5000", "127.0.0.1", ":5000", "127.0.0.1:70000", "[zz]:1", "a b:1", "::1:x"] {
            assert_eq!(bare::<ListenAddress>(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn typed_values_of_the_wrong_kind_are_refused() {
        assert!(Duration::from_raw(&RawValue::Integer(30)).is_err());
        assert!(ByteSize::from_raw(&RawValue::Integer(30)).is_err());
        assert!(Count::<8>::from_raw(&RawValue::Text("3".into())).is_err());
        assert!(Count::<8>::from_raw(&RawValue::Integer(0)).is_err());
        assert!(Count::<8>::from_raw(&RawValue::Integer(9)).is_err());
        assert!(Count::<8, 0>::from_raw(&RawValue::Integer(0)).is_ok_and(|count| count.get() == 0));
        assert!(bool::from_raw(&RawValue::Text("true".into())).is_err());
        assert!(Vec::<PathBuf>::from_raw(&RawValue::List(vec![RawValue::Integer(1)])).is_err());
        assert!(Url::from_raw(&RawValue::Text("ftp://x".into())).is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0u64..1 << 45, bytes: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(bare(&show_duration(duration)), Some(duration));
            prop_assert_eq!(bare(&ByteSize(bytes).to_string()), Some(ByteSize(bytes)));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            let raw = RawValue::Bare(text);
            let _ = Duration::from_raw(&raw);
            let _ = ByteSize::from_raw(&raw);
            let _ = ListenAddress::from_raw(&raw);
            let _ = SyncPolicy::from_raw(&raw);
            let _ = Url::from_raw(&raw);
        }
    }
}

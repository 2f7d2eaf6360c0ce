//! The raw layers: settings file, environment over it, command line flags over that.
//!
//! Nothing is interpreted here beyond "is there a setting of this name". The last layer that has a setting wins, and
//! every value remembers where it came from.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem, suggestion};
use super::schema::Key;
use super::value::{ListenAddress, RawValue, SettingValue};

/// A raw value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Sourced {
    /// The value.
    pub raw: RawValue,
    /// Its place.
    pub origin: Origin,
}

/// Raw values by setting.
pub type Raw = BTreeMap<String, Sourced>;

/// Lays a settings file over `raw`. Unknown keys and syntax errors become problems; the rest of the file still counts.
pub fn lay_file(raw: &mut Raw, keys: &[Key], path: &Path, text: &str, problems: &mut Vec<Problem>) {
    let mut file = File { raw, keys, path, text, problems };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let message = error.message().to_owned();
        file.problem(at, message);
    }
    file.table("", table.get_ref());
}

/// A settings file being walked.
struct File<'a> {
    raw: &'a mut Raw,
    keys: &'a [Key],
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl File<'_> {
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let section = format!("{name}.");
            match value.get_ref() {
                DeValue::Table(inner) if self.keys.iter().any(|known| known.name.starts_with(&section)) => {
                    self.table(&name, inner);
                }
                _ if self.keys.iter().any(|known| known.name == name) => {
                    let origin = self.origin(value.span().start);
                    self.raw.insert(name, Sourced { raw: raw_value(value), origin });
                }
                _ => {
                    let near = suggestion(&name, self.names_like(&name));
                    self.problem(key.span().start, format!("there is no setting `{name}`{near}"));
                }
            }
        }
    }

    /// Sections for the name of a section, settings for the name of a setting.
    fn names_like(&self, name: &str) -> Vec<&str> {
        let depth = name.matches('.').count();
        self.keys
            .iter()
            .filter_map(|key| {
                let end = key.name.match_indices('.').nth(depth).map_or(key.name.len(), |(at, _)| at);
                key.name.get(..end)
            })
            .collect()
    }

    fn problem(&mut self, at: usize, message: String) {
        let origin = self.origin(at);
        self.problems.push(Problem::new(origin, message));
    }

    fn origin(&self, at: usize) -> Origin {
        let before = self.text.as_bytes().iter().take(at);
        Origin::File { path: self.path.to_owned(), line: 1 + before.filter(|byte| **byte == b'\n').count() }
    }
}

fn raw_value(value: &Spanned<DeValue<'_>>) -> RawValue {
    match value.get_ref() {
        DeValue::String(text) => RawValue::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(RawValue::Other("number out of range"), RawValue::Integer),
        DeValue::Float(number) => number.as_str().parse().map_or(RawValue::Other("number"), RawValue::Float),
        DeValue::Boolean(value) => RawValue::Bool(*value),
        DeValue::Array(items) => RawValue::List(items.iter().map(raw_value).collect()),
        DeValue::Datetime(_) => RawValue::Other("date"),
        DeValue::Table(table) => plain_table(table).map_or(RawValue::Other("table"), RawValue::Table),
    }
}

/// A table without the places of its values; `None` if a number in it is out of range.
fn plain_table(table: &DeTable<'_>) -> Option<toml::Table> {
    table
        .iter()
        .map(|(key, value)| Some((key.get_ref().to_string(), plain_value(value.get_ref())?)))
        .collect()
}

fn plain_value(value: &DeValue<'_>) -> Option<toml::Value> {
    Some(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => {
            toml::Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        DeValue::Float(number) => toml::Value::Float(number.as_str().parse().ok()?),
        DeValue::Boolean(value) => toml::Value::Boolean(*value),
        DeValue::Datetime(datetime) => toml::Value::Datetime(*datetime),
        DeValue::Array(items) => {
            let items: Option<_> = items.iter().map(|item| plain_value(item.get_ref())).collect();
            toml::Value::Array(items?)
        }
        DeValue::Table(table) => toml::Value::Table(plain_table(table)?),
    })
}

/// Variables that begin with `FAROL_` and aren't settings: the settings file itself.
pub const CONFIG_VARIABLE: &str = "FAROL_CONFIG";

/// Lays environment variables over `raw`: the founding documents' first, Farol's own over them. A variable that is set to
/// nothing counts as not set. `FAROL_` variables that nobody knows are problems.
pub fn lay_environment(
    raw: &mut Raw,
    keys: &[Key],
    environment: &BTreeMap<String, String>,
    problems: &mut Vec<Problem>,
) {
    let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    for key in keys {
        if let Some((name, value)) = key.founding.and_then(|name| Some((name, get(name)?))) {
            raw.insert(key.name.to_string(), from_environment(name, value.clone()));
        }
    }
    if let Some(seconds) = get("SAMPLING_INTERVAL") {
        let value = from_environment("SAMPLING_INTERVAL", format!("{seconds}s"));
        raw.insert("simulate.sampling_interval".to_owned(), value);
    }
    if let Some(listen) = monitoring_address(raw, get("MONITORING_HOST"), get("MONITORING_PORT")) {
        raw.insert("http.listen".to_owned(), listen);
    }
    let variables: BTreeMap<String, &Key> = keys.iter().map(|key| (key.variable(), key)).collect();
    for (name, value) in
        environment.range("FAROL_".to_owned()..).take_while(|(name, _)| name.starts_with("FAROL_"))
    {
        if name == CONFIG_VARIABLE || value.is_empty() {
            continue;
        }
        if let Some(key) = variables.get(name) {
            raw.insert(key.name.to_string(), from_environment(name, value.clone()));
        } else {
            let near = suggestion(name, variables.keys().map(String::as_str));
            let message = format!("there is no setting of this name{near}");
            problems.push(Problem::new(Origin::Environment(name.clone()), message));
        }
    }
}

fn from_environment(variable: &str, value: String) -> Sourced {
    Sourced { raw: RawValue::Bare(value), origin: Origin::Environment(variable.to_owned()) }
}

/// `MONITORING_HOST` and `MONITORING_PORT` each replace their half of the address.
fn monitoring_address(raw: &Raw, host: Option<&String>, port: Option<&String>) -> Option<Sourced> {
    let variables: Vec<&str> =
        [host.map(|_| "MONITORING_HOST"), port.map(|_| "MONITORING_PORT")].into_iter().flatten().collect();
    if variables.is_empty() {
        return None;
    }
    let current = raw.get("http.listen").and_then(|listen| ListenAddress::from_raw(&listen.raw).ok());
    let current = current.unwrap_or(ListenAddress { host: "127.0.0.1".to_owned(), port: 5000 });
    let host = host.map_or(&current.host, |host| host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let port = port.map_or_else(|| current.port.to_string(), Clone::clone);
    Some(from_environment(&variables.join(" and "), format!("{host}:{port}")))
}

/// Lays command line flags over `raw`.
pub fn lay_flags(raw: &mut Raw, flags: Vec<Flag>) {
    for flag in flags {
        raw.insert(flag.key.to_owned(), Sourced { raw: flag.value, origin: Origin::Flag(flag.flag) });
    }
}

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The setting.
    pub key: &'static str,
    /// The flag, with its dashes.
    pub flag: &'static str,
    /// What was given.
    pub value: RawValue,
}

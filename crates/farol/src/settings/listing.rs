//! `farol settings`: every setting as it stands, and where it came from.

use super::{Given, schema};

/// Whether each setting is explained above its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explanations {
    /// They are left out.
    Without,
    /// Each setting has its sentence.
    With,
}

/// The settings as a file that could be read again, each with its place behind it. Secrets are not shown.
pub fn listing(given: &Given, explanations: Explanations) -> String {
    let mut lines = Vec::new();
    let mut section = "";
    let keys = schema::keys();
    for key in keys.iter().filter(|key| key.unavailable.is_none()) {
        let (key_section, short) = key.name.rsplit_once('.').unwrap_or(("", &key.name));
        if key_section != section {
            lines.push(format!("{}[{key_section}]", if section.is_empty() { "" } else { "\n" }));
            section = key_section;
        }
        if explanations == Explanations::With {
            lines.push(format!("# {}", key.help));
        }
        let (line, origin) = match given.get(key.name.as_ref()) {
            Some((_, origin)) if key.secret => (format!("# {short} = (not shown)"), origin.to_string()),
            Some((shown, origin)) => (format!("{short} = {shown}"), origin.to_string()),
            None if key.default.is_empty() => (format!("# {short} ="), "not set".to_owned()),
            None => (format!("{short} = {}", key.default), "default".to_owned()),
        };
        lines.push(format!("{line:<44} # {origin}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

const EXAMPLE_HEAD: &str = "\
# Settings of Farol: copy to farol.toml and uncomment what you change. Each line shows the default; a line without a
# default shows an example. Every setting is also an environment variable, FAROL_ + SECTION + _ + KEY: FAROL_HTTP_LISTEN,
# FAROL_TOPICS_SENSOR_DATA_SYNC. `farol settings` shows what is in force and where each value came from.
";

/// A settings file with every setting, explained and commented out: `farol.example.toml`.
pub fn example() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    let mut section = "";
    let keys = schema::keys();
    for key in keys.iter().filter(|key| key.unavailable.is_none()) {
        let (key_section, short) = key.name.rsplit_once('.').unwrap_or(("", &key.name));
        if key_section != section {
            text += &format!("\n[{key_section}]\n");
            section = key_section;
        }
        let value = if key.default.is_empty() { key.example } else { key.default };
        text += &format!("# {}\n# {short} = {value}\n", key.help);
    }
    text
}

//! `farol settings`: every setting as it stands, and where it came from.

use super::{Given, schema};

/// The settings as a file that could be read again, each with its place behind it. Secrets are masked.
pub fn listing(given: &Given) -> String {
    let mut lines = Vec::new();
    let mut section = "";
    let keys = schema::keys();
    for key in keys.iter().filter(|key| key.unavailable.is_none()) {
        let (key_section, short) = key.name.rsplit_once('.').unwrap_or(("", &key.name));
        if key_section != section {
            lines.push(format!("{}[{key_section}]", if section.is_empty() { "" } else { "\n" }));
            section = key_section;
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

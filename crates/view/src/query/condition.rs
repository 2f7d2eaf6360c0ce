//! The `WHERE` of a query whose filters are optional.

use rusqlite::types::Value;

/// Conditions that must all hold, each with its values in the order of its question marks. The texts are the program's own:
/// what a caller gives goes in as a value, never as text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    clauses: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition.
    pub(crate) fn and(&mut self, clause: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.clauses.push(clause.into());
        self.values.extend(values);
    }

    /// Adds `clause` with this value, if there is one.
    pub(crate) fn and_if<V: Into<Value>>(&mut self, clause: &str, value: Option<V>) {
        if let Some(value) = value {
            self.and(clause, [value.into()]);
        }
    }

    /// Adds that `expression` is one of these values; none: any.
    pub(crate) fn and_one_of(&mut self, expression: &str, values: Vec<Value>) {
        if !values.is_empty() {
            let marks = vec!["?"; values.len()].join(", ");
            self.and(format!("{expression} IN ({marks})"), values);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// `WHERE …`, or nothing.
    pub(crate) fn sql(&self) -> String {
        if self.clauses.is_empty() { String::new() } else { format!("WHERE {}", self.clauses.join(" AND ")) }
    }

    /// The values for the question marks of [`Conditions::sql`], then these.
    pub(crate) fn values_and(&self, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
        self.values.iter().cloned().chain(more).collect()
    }
}

/// A `LIKE` pattern that finds `text` anywhere, with `\` as the escape character.
pub(crate) fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

//! Label matchers: `{severity="critical", machine_id=~"m-.*"}`.
//!
//! As in PromQL: `=`, `!=`, `=~` and `!~`; regular expressions match the whole value; a label that is not there counts as empty;
//! strings are in double or single quotes with Go's escapes, or raw in backticks; a trailing comma is allowed. As in
//! Alertmanager, and only read, never written: the braces may be left out, a value may stand without quotes, and a name that is
//! no identifier stands in quotes.
//!
//! Limits: [`MAX_BYTES`], [`MAX_MATCHERS`], [`MAX_COMPILED_REGEX_BYTES`]. The regex engine runs in time linear in the value, so no
//! pattern can stall anybody.
//!
//! Modules: [`syntax`] (text to matchers as they were written, and back), [`pattern`] (regular expressions of whole values).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub mod pattern;
pub mod syntax;

pub use pattern::{MAX_COMPILED_REGEX_BYTES, Pattern, PatternError};
pub use syntax::{Dialect, SyntaxError};

/// The longest text of matchers, in bytes.
pub const MAX_BYTES: usize = 4096;
/// How many matchers may stand together.
pub const MAX_MATCHERS: usize = 16;

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

impl Operator {
    /// The operator with these two properties.
    pub fn new(negated: bool, regex: bool) -> Self {
        match (negated, regex) {
            (false, false) => Operator::Equal,
            (true, false) => Operator::NotEqual,
            (false, true) => Operator::Matches,
            (true, true) => Operator::MatchesNot,
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Matches => "=~",
            Operator::MatchesNot => "!~",
        }
    }

    /// Whether it holds where the comparison does not.
    pub fn is_negated(self) -> bool {
        matches!(self, Operator::NotEqual | Operator::MatchesNot)
    }

    /// Whether the value is a regular expression.
    pub fn is_regex(self) -> bool {
        matches!(self, Operator::Matches | Operator::MatchesNot)
    }
}

/// One label compared with one value.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: Box<str>,
    operator: Operator,
    value: Box<str>,
    /// The value compiled, if it is a regular expression.
    pattern: Option<Pattern>,
}

/// Why a text is no list of matchers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// Longer than [`MAX_BYTES`].
    #[error("the matchers have {0} bytes; at most {MAX_BYTES} are accepted")]
    TooLong(usize),
    /// More than [`MAX_MATCHERS`].
    #[error("there are more than {MAX_MATCHERS} matchers")]
    TooMany,
    /// A matcher without a label.
    #[error("a matcher needs the name of a label")]
    NoName,
    /// Not the syntax.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// A regular expression that doesn't compile, or is too large.
    #[error("label `{name}`: regular expression: {problem}")]
    Pattern {
        /// The label.
        name: String,
        /// What the engine said.
        problem: PatternError,
    },
}

impl Matcher {
    /// A matcher of these parts.
    ///
    /// # Errors
    /// When there is no name, the parts are too long, or the value is to be a regular expression and is none.
    pub fn new(name: &str, operator: Operator, value: &str) -> Result<Self, MatcherError> {
        let bytes = name.len() + value.len();
        if bytes > MAX_BYTES {
            return Err(MatcherError::TooLong(bytes));
        }
        if name.is_empty() {
            return Err(MatcherError::NoName);
        }
        let compiled = operator.is_regex().then(|| Pattern::new(value)).transpose();
        let pattern = compiled
            .map_err(|problem| MatcherError::Pattern { name: name.chars().take(64).collect(), problem })?;
        Ok(Self { name: name.into(), operator, value: value.into(), pattern })
    }

    /// The label.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it holds for a label of this value (empty if there is no such label).
    pub fn holds(&self, value: &str) -> bool {
        let same = match &self.pattern {
            Some(pattern) => pattern.matches(value),
            None => *self.value == *value,
        };
        same != self.operator.is_negated()
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.operator, &self.value) == (&other.name, other.operator, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if syntax::is_identifier(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", syntax::Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.operator.as_str(), syntax::Quoted(&self.value))
    }
}

/// Matchers that must all hold; none hold for everything. `Display` (and serde) give a canonical text that reads back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matchers(Vec<Matcher>);

impl Matchers {
    /// These matchers.
    ///
    /// # Errors
    /// [`MatcherError::TooMany`], or [`MatcherError::TooLong`] when their text would not read back.
    pub fn new(matchers: Vec<Matcher>) -> Result<Self, MatcherError> {
        if matchers.len() > MAX_MATCHERS {
            return Err(MatcherError::TooMany);
        }
        let all = Self(matchers);
        let bytes = all.to_string().len();
        if bytes > MAX_BYTES { Err(MatcherError::TooLong(bytes)) } else { Ok(all) }
    }

    /// Whether all hold; `value_of` gives the value of a label, empty if there is none.
    pub fn hold<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|matcher| matcher.holds(value_of(&matcher.name)))
    }

    /// Each matcher, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Matcher> {
        self.0.iter()
    }

    /// Whether there are none, so that everything is matched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Matchers {
    type Err = MatcherError;

    fn from_str(text: &str) -> Result<Self, MatcherError> {
        if text.len() > MAX_BYTES {
            return Err(MatcherError::TooLong(text.len()));
        }
        let written = syntax::matchers(text, Dialect::Alertmanager)?;
        let read = |one: syntax::Written<'_>| {
            Matcher::new(&one.label, Operator::new(one.negated, one.regex), &one.value)
        };
        Self::new(written.into_iter().map(read).collect::<Result<_, _>>()?)
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, matcher) in self.0.iter().enumerate() {
            write!(f, "{}{matcher}", if index == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

impl Serialize for Matchers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matchers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;

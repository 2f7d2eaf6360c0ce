//! Regular expressions that match whole values.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// The largest compiled regular expression, in bytes.
pub const MAX_COMPILED_REGEX_BYTES: usize = 256 * 1024;

/// A regular expression of a whole value.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

/// Why a text is no regular expression, in the engine's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub String);

impl Pattern {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_COMPILED_REGEX_BYTES).build();
        // The pattern has to stand on its own first: `a)|(b` would otherwise become valid by the anchors around it.
        let compiled = build(pattern).and_then(|_| build(&format!("^(?s:{pattern})$")));
        compiled.map(Self).map_err(|error| {
            PatternError(match error {
                regex::Error::Syntax(text) => text.lines().last().unwrap_or("syntax error").trim().to_owned(),
                regex::Error::CompiledTooBig(limit) => format!("needs more than {limit} bytes compiled"),
                other => other.to_string(),
            })
        })
    }

    /// Whether it matches the whole of `value`.
    pub fn matches(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

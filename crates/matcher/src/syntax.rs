//! The syntax: text to matchers as they were written. Label names and expressions are checked elsewhere.

use std::borrow::Cow;
use std::fmt;

use crate::MAX_MATCHERS;

/// How strictly a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// With braces, values in quotes, names that are identifiers.
    PromQl,
    /// The braces may be left out, values may stand without quotes, and names may stand in quotes or have dots and dashes.
    Alertmanager,
}

/// One matcher as it was written, with the places of its parts in bytes.
#[derive(Debug, PartialEq)]
pub struct Written<'a> {
    /// The label.
    pub label: Cow<'a, str>,
    /// Where it stands.
    pub label_at: usize,
    /// `!=` or `!~`.
    pub negated: bool,
    /// `=~` or `!~`.
    pub regex: bool,
    /// The value without its quotes.
    pub value: String,
    /// Where it stands.
    pub value_at: usize,
}

/// Why a text is no list of matchers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// More than [`MAX_MATCHERS`].
    #[error("there are more than {MAX_MATCHERS} matchers")]
    TooManyMatchers,
    /// Something else stood where the syntax asks for a certain thing.
    #[error("at byte {at}: expected {expected}")]
    Expected {
        /// Byte offset in the text.
        at: usize,
        /// What the syntax asks for.
        expected: &'static str,
    },
    /// A string with an escape that Go doesn't know.
    #[error(
        "at byte {at}: unknown escape in string (for a regular expression's backslash write two, or use backticks)"
    )]
    Escape {
        /// Byte offset in the text.
        at: usize,
    },
}

/// Parses `{label op "value", …}`.
///
/// # Errors
/// [`SyntaxError`] with the place.
pub fn matchers(text: &str, dialect: Dialect) -> Result<Vec<Written<'_>>, SyntaxError> {
    let mut cursor = Cursor { text, at: 0, dialect };
    let mut parsed = Vec::new();
    cursor.skip_space();
    let braces = cursor.take("{");
    if !braces && dialect == Dialect::PromQl {
        return Err(cursor.expected("`{`"));
    }
    loop {
        cursor.skip_space();
        if braces && cursor.take("}") {
            break;
        }
        if !braces && cursor.rest().is_empty() {
            break;
        }
        if parsed.len() == MAX_MATCHERS {
            return Err(SyntaxError::TooManyMatchers);
        }
        parsed.push(cursor.matcher()?);
        cursor.skip_space();
        if cursor.take(",") {
            continue;
        }
        if braces {
            cursor.expect("}", "`,` or `}`")?;
        }
        break;
    }
    cursor.skip_space();
    if cursor.rest().is_empty() {
        return Ok(parsed);
    }
    Err(cursor.expected(if braces { "nothing after `}`" } else { "`,` or the end" }))
}

/// Whether a name can stand without quotes in PromQL.
pub fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

struct Cursor<'a> {
    text: &'a str,
    /// Always on a character boundary.
    at: usize,
    dialect: Dialect,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn expected(&self, expected: &'static str) -> SyntaxError {
        SyntaxError::Expected { at: self.at, expected }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), SyntaxError> {
        if self.take(token) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn next_char(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn matcher(&mut self) -> Result<Written<'a>, SyntaxError> {
        let label_at = self.at;
        let label = self.name()?;
        self.skip_space();
        // `=~` before `=`, since the one begins with the other.
        let operators = [("=~", false, true), ("!~", true, true), ("!=", true, false), ("=", false, false)];
        let Some((_, negated, regex)) = operators.into_iter().find(|(token, ..)| self.take(token)) else {
            return Err(self.expected("`=`, `!=`, `=~` or `!~`"));
        };
        self.skip_space();
        let value_at = self.at;
        let value = self.value()?;
        Ok(Written { label, label_at, negated, regex, value, value_at })
    }

    fn name(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let rest = self.rest();
        let lenient = self.dialect == Dialect::Alertmanager;
        if lenient && rest.starts_with(is_quote) {
            return self.string().map(Cow::Owned);
        }
        let part = |c: char| {
            c.is_ascii_alphanumeric() || c == '_' || (lenient && matches!(c, '.' | '-' | ':' | '/'))
        };
        let end = rest.find(|c: char| !part(c)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or("");
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.expected("a label name or `}`"));
        }
        self.at += end;
        Ok(Cow::Borrowed(name))
    }

    fn value(&mut self) -> Result<String, SyntaxError> {
        if self.dialect == Dialect::PromQl || self.rest().starts_with(is_quote) {
            return self.string();
        }
        let rest = self.rest();
        let ends = |c: char| c.is_whitespace() || is_quote(c) || matches!(c, ',' | '{' | '}' | '\\');
        let end = rest.find(ends).unwrap_or(rest.len());
        self.at += end;
        Ok(rest.get(..end).unwrap_or("").to_owned())
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let Some(quote @ ('"' | '\'' | '`')) = self.rest().chars().next() else {
            return Err(self.expected("a string in quotes"));
        };
        self.at += 1;
        let mut value = String::new();
        loop {
            let at = self.at;
            match self.next_char() {
                None => return Err(self.expected("the string's closing quote")),
                Some(c) if c == quote => return Ok(value),
                Some('\n') if quote != '`' => {
                    return Err(self.expected("the string's closing quote in the same line"));
                }
                Some('\\') if quote != '`' => {
                    value.push(self.escape(quote).ok_or(SyntaxError::Escape { at })?);
                }
                Some(c) => value.push(c),
            }
        }
    }

    /// What follows a backslash: Go's escapes of interpreted strings. `\xHH` and octal stand for one byte in Go; here
    /// they are taken as the character of that number, below 128 only, where the two are the same.
    fn escape(&mut self, quote: char) -> Option<char> {
        match self.next_char()? {
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' => Some('\\'),
            c if c == quote => Some(c),
            'x' => self.number(2, 16).filter(char::is_ascii),
            'u' => self.number(4, 16),
            'U' => self.number(8, 16),
            '0'..='7' => {
                self.at -= 1;
                self.number(3, 8).filter(char::is_ascii)
            }
            _ => None,
        }
    }

    fn number(&mut self, digits: usize, radix: u32) -> Option<char> {
        let text = self.rest().get(..digits)?;
        if !text.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        self.at += digits;
        char::from_u32(u32::from_str_radix(text, radix).ok()?)
    }
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`')
}

/// A string in double quotes, escaped so that it parses back.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

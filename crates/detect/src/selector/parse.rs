//! The syntax of selectors: text to matchers as they were written. Label names and expressions are checked elsewhere.

use std::fmt;

use super::{MAX_MATCHERS, SelectorError};

/// One matcher as it was written, with the places of its parts in bytes.
#[derive(Debug, PartialEq)]
pub(super) struct ParsedMatcher<'a> {
    pub label: &'a str,
    pub label_at: usize,
    pub negated: bool,
    pub regex: bool,
    pub value: String,
    pub value_at: usize,
}

/// Parses `{label op "value", …}`.
pub(super) fn matchers(text: &str) -> Result<Vec<ParsedMatcher<'_>>, SelectorError> {
    let mut cursor = Cursor { text, at: 0 };
    let mut parsed = Vec::new();
    cursor.skip_space();
    cursor.expect("{", "`{`")?;
    loop {
        cursor.skip_space();
        if cursor.take("}") {
            break;
        }
        if parsed.len() == MAX_MATCHERS {
            return Err(SelectorError::TooManyMatchers);
        }
        parsed.push(cursor.matcher()?);
        cursor.skip_space();
        if !cursor.take(",") {
            cursor.expect("}", "`,` or `}`")?;
            break;
        }
    }
    cursor.skip_space();
    if cursor.rest().is_empty() { Ok(parsed) } else { Err(cursor.expected("nothing after `}`")) }
}

struct Cursor<'a> {
    text: &'a str,
    /// Always on a character boundary.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError::Expected { at: self.at, expected }
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

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(token) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn next_char(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn matcher(&mut self) -> Result<ParsedMatcher<'a>, SelectorError> {
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
        let value = self.string()?;
        Ok(ParsedMatcher { label, label_at, negated, regex, value, value_at })
    }

    fn name(&mut self) -> Result<&'a str, SelectorError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or("");
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.expected("a label name or `}`"));
        }
        self.at += end;
        Ok(name)
    }

    fn string(&mut self) -> Result<String, SelectorError> {
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
                    value.push(self.escape(quote).ok_or(SelectorError::Escape { at })?);
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

/// A string in double quotes, escaped so that it parses back.
pub(super) struct Quoted<'a>(pub &'a str);

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

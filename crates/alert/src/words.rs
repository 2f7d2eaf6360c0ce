//! What people may say of themselves and of what they do: names and comments, by the same rules wherever they stand.

/// The longest name of a person, in bytes.
pub const MAX_BY_BYTES: usize = 128;
/// The longest comment, in bytes.
pub const MAX_COMMENT_BYTES: usize = 4096;

/// The name without space around it: 1 to [`MAX_BY_BYTES`] bytes without control characters; none if it is no such name.
pub(crate) fn name(by: &str) -> Option<&str> {
    let by = by.trim();
    (!by.is_empty() && by.len() <= MAX_BY_BYTES && !by.chars().any(char::is_control)).then_some(by)
}

/// The comment without space around it: 1 to [`MAX_COMMENT_BYTES`] bytes, no control characters but line ends and tabs; none if
/// it is no such comment.
pub(crate) fn comment(text: &str) -> Option<&str> {
    let text = text.trim();
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    (!text.is_empty() && text.len() <= MAX_COMMENT_BYTES && !text.chars().any(strange)).then_some(text)
}

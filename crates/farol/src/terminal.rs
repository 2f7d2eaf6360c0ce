//! What people at the terminal are told, on standard output, and how errors are told.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes one line. Whoever reads may be gone (a closed pipe); the work goes on without them.
pub fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Writes rows under a header, in columns.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
    let rows: Vec<_> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    columns(&rows).into_iter().for_each(say);
}

/// Rows of cells in columns, as wide as they need to be, without spaces at the ends of lines.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Text of others, with everything that a terminal would obey, and what would make it look like another text, made visible.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_deceptive(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// JSON with the same characters written as JSON's escapes: they can only stand in strings, but for the line feeds between its lines.
pub fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_deceptive(c) && c != '\n' {
            let units = &mut [0; 2];
            shown.extend(c.encode_utf16(units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters, those that change the direction of text (Unicode's bidirectional algorithm, UAX 9), separators of lines, and
/// characters that can't be seen. The two joiners belong to scripts and emoji.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An error and what caused it, each said once: many errors name their cause in their own text.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let more = current.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = current.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "N"], ["ção", "12"], ["x", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), ["NAME  N", "ção   12", "x"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_made_visible() {
        assert_eq!(harmless("a\u{1b}[31mé\n"), "a\\u{1b}[31mé\\n");
        assert_eq!(harmless("pay\u{202e}001\u{2066}"), "pay\\u{202e}001\\u{2066}");
        assert_eq!(harmless("família 👩\u{200d}🔬"), "família 👩\u{200d}🔬", "what belongs to a text stays");
        let json = harmless_json("{\"a\":\"\u{202e}\u{9b}é\u{e0041}\"}");
        assert_eq!(json, r#"{"a":"\u202e\u009bé\udb40\udc41"}"#);
        let value: serde_json::Value = serde_json::from_str(&json).expect("still JSON");
        assert_eq!(value["a"], "\u{202e}\u{9b}é\u{e0041}");
    }

    #[test]
    fn a_cause_is_said_once_whether_or_not_the_error_names_it() {
        let system = || io::Error::other("No space left");
        let names_it = farol_simulate::ReplayError::Open { path: "a.csv".into(), source: system() };
        assert_eq!(with_causes(&names_it), "opening a.csv: No space left");
        let in_context = anyhow::Error::new(names_it).context("can't replay");
        assert_eq!(with_causes(in_context.as_ref()), "can't replay: opening a.csv: No space left");
        let plain = anyhow::Error::new(system()).context("can't start the runtime");
        assert_eq!(with_causes(plain.as_ref()), "can't start the runtime: No space left");
    }
}

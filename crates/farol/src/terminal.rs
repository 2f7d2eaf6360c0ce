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

/// Text of others, with everything that a terminal would obey made visible.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
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

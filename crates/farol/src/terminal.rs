//! What people at the terminal are told, on standard output.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Writes one line. Whoever reads may be gone (a closed pipe); the work goes on without them.
pub fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

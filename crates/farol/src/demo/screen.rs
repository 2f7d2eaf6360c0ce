//! What is shown on the terminal: numbered scenes, with colours only where there are eyes to see them.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use crate::terminal::say;

/// The widest bar of a histogram.
const BAR_WIDTH: usize = 40;

/// The terminal.
pub struct Screen {
    colours: bool,
}

impl Screen {
    /// Standard output.
    pub fn new() -> Self {
        Self { colours: io::stdout().is_terminal() }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The beginning.
    pub fn title(&mut self, dashboard: &str) {
        say(self.painted("1", "Resilience, in five demonstrations"));
        say(format_args!(
            "Watch it on the dashboard too: {dashboard} (services, events, alerts, resilience)"
        ));
    }

    /// A scene begins.
    pub fn scene(&mut self, number: usize, name: &str, watch: &str) {
        say("");
        say(self.painted("1;36", &format!("{number}. {name}")));
        say(self.painted("2", &format!("   on the dashboard: {watch}")));
    }

    /// What happens.
    pub fn step(&mut self, text: &str) {
        say(format_args!("   {text}"));
    }

    /// What came true.
    pub fn right(&mut self, text: &str) {
        say(format_args!("   {} {text}", self.painted("32", "ok")));
    }

    /// What didn't.
    pub fn wrong(&mut self, text: &str) {
        say(format_args!("   {} {text}", self.painted("31", "FAILED")));
    }

    /// How many of `instants` fall into each piece of time.
    pub fn histogram(&mut self, instants: &[Duration], piece: Duration) {
        for line in bars(instants, piece) {
            say(format_args!("     {line}"));
        }
    }

    /// The end.
    pub fn summary(&mut self, lines: &[String], took: Duration) {
        say("");
        say(self.painted("1", "What was seen"));
        for line in lines {
            say(format_args!("  {line}"));
        }
        say(format_args!("It took {:.0} s.", took.as_secs_f64()));
    }
}

/// A histogram's lines, from the first piece of time to the last that has anything.
fn bars(instants: &[Duration], piece: Duration) -> Vec<String> {
    let piece_ms = piece.as_millis().max(1);
    let index = |instant: &Duration| usize::try_from(instant.as_millis() / piece_ms).unwrap_or(usize::MAX);
    let (Some(first), Some(last)) = (instants.iter().map(index).min(), instants.iter().map(index).max())
    else {
        return Vec::new();
    };
    let pieces = first..=last.min(first.saturating_add(50));
    let counts: Vec<(usize, usize)> =
        pieces.map(|at| (at, instants.iter().filter(|instant| index(instant) == at).count())).collect();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    counts
        .iter()
        .map(|(at, count)| {
            let from = piece_ms.saturating_mul(*at as u128);
            let bar = "#".repeat((count * BAR_WIDTH).div_ceil(most));
            format!("{from:>5} ms  {count:>3} {bar}").trim_end().to_owned()
        })
        .collect()
}

/// A duration as people say it: in the unit that leaves one to three digits before the point.
pub fn short(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    match duration.as_nanos() {
        0..1_000 => format!("{nanos:.0} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} ms", nanos / 1e6),
        _ => format!("{:.1} s", nanos / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share_of_the_longest() {
        let ms = |ms| Duration::from_millis(ms);
        let lines = bars(&[ms(120), ms(130), ms(260), ms(121), ms(122)], ms(50));
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], format!("  100 ms    4 {}", "#".repeat(BAR_WIDTH)));
        assert_eq!(lines[1], "  150 ms    0");
        assert_eq!(lines[3], format!("  250 ms    1 {}", "#".repeat(BAR_WIDTH / 4)));
        assert!(bars(&[], ms(50)).is_empty());
    }

    #[test]
    fn durations_are_said_in_the_unit_that_fits() {
        for (nanos, text) in
            [(30, "30 ns"), (4200, "4.2 µs"), (12_000_000, "12 ms"), (1_500_000_000, "1.5 s")]
        {
            assert_eq!(short(Duration::from_nanos(nanos)), text);
        }
    }
}

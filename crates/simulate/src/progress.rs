//! How far a long-running command has come, shown on a terminal or written as plain lines.

use std::fmt;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is written.
pub const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often runners report.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(200);

/// Where a command stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProgressState {
    /// Readings acknowledged so far.
    pub done: u64,
    /// Share of the whole, 0..=1, if the whole is known.
    pub share: Option<f64>,
    /// Readings acknowledged per second since the start.
    pub per_second: f64,
    /// How long the rest will take at the pace so far.
    pub remaining: Option<Duration>,
    /// Anything else in a few words, often empty.
    pub detail: String,
}

impl ProgressState {
    /// From what is counted: the rate and the rest follow.
    pub fn measured(done: u64, share: Option<f64>, elapsed: Duration, detail: String) -> Self {
        let seconds = elapsed.as_secs_f64();
        let share = share.filter(|s| s.is_finite()).map(|s| s.clamp(0.0, 1.0));
        let remaining = share
            .filter(|s| *s > 0.0 && seconds >= 0.5)
            .and_then(|s| Duration::try_from_secs_f64(seconds * (1.0 - s) / s).ok());
        let per_second = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
        Self { done, share, per_second, remaining, detail }
    }
}

impl fmt::Display for ProgressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(share) = self.share {
            write!(f, "{:.1} %, ", share * 100.0)?;
        }
        write!(f, "{} readings, {}/s", grouped(self.done), rate(self.per_second))?;
        if let Some(remaining) = self.remaining {
            write!(f, ", {} left", spoken(remaining))?;
        }
        if !self.detail.is_empty() {
            write!(f, ", {}", self.detail)?;
        }
        Ok(())
    }
}

/// Something that shows progress. Calls come at most every [`UPDATE_INTERVAL`], from one task at a time.
pub trait Progress: Send + Sync {
    /// The newest state.
    fn update(&self, state: &ProgressState);
    /// A line that must not be lost: a bad row, a lost connection.
    fn note(&self, line: &str);
    /// The end; nothing comes after it.
    fn finish(&self);
}

/// A bar that is drawn over itself, for people at a terminal. Writes to standard error.
pub struct TerminalProgress {
    bar: ProgressBar,
}

/// Thousandths of the whole: the bar's resolution.
const BAR_STEPS: u64 = 1000;

impl TerminalProgress {
    /// A bar on standard error.
    pub fn new() -> Self {
        let bar = ProgressBar::new(BAR_STEPS);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar }
    }
}

impl Default for TerminalProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for TerminalProgress {
    fn update(&self, state: &ProgressState) {
        // A share of one second in milliseconds is the share in thousandths.
        let share = Duration::try_from_secs_f64(state.share.unwrap_or(0.0)).unwrap_or_default();
        self.bar.set_position(u64::try_from(share.as_millis()).unwrap_or(BAR_STEPS));
        self.bar.set_message(state.to_string());
    }

    fn note(&self, line: &str) {
        self.bar.println(line);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line every [`PLAIN_INTERVAL`], for logs and pipes.
pub struct PlainProgress<W> {
    inner: Mutex<PlainInner<W>>,
}

struct PlainInner<W> {
    out: W,
    last: Instant,
}

impl<W: Write + Send> PlainProgress<W> {
    /// Writes to `out`. What can't be written is lost: progress must not stop the work that it tells of.
    pub fn new(out: W) -> Self {
        Self { inner: Mutex::new(PlainInner { out, last: Instant::now() }) }
    }
}

impl<W: Write + Send> Progress for PlainProgress<W> {
    fn update(&self, state: &ProgressState) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if inner.last.elapsed() >= PLAIN_INTERVAL {
            inner.last = Instant::now();
            let _ = writeln!(inner.out, "{state}");
        }
    }

    fn note(&self, line: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(inner.out, "{line}");
    }

    fn finish(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = inner.out.flush();
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SilentProgress;

impl Progress for SilentProgress {
    fn update(&self, _: &ProgressState) {}
    fn note(&self, _: &str) {}
    fn finish(&self) {}
}

/// `22,695`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate with as many decimals as it can use.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        small if small < 100.0 => format!("{small:.1}"),
        large => grouped(format!("{large:.0}").parse().unwrap_or(u64::MAX)),
    }
}

/// `2 h 03 min`, `3 min 05 s`, `12 s`.
pub(crate) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        3600.. => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        60.. => format!("{} min {:02} s", seconds / 60, seconds % 60),
        10.. => format!("{seconds} s"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_like_a_sentence() {
        let state = ProgressState::measured(12_345, Some(0.25), Duration::from_secs(100), "1 bad row".into());
        assert_eq!(state.to_string(), "25.0 %, 12,345 readings, 123/s, 5 min 00 s left, 1 bad row");
        assert_eq!(
            ProgressState::measured(0, None, Duration::ZERO, String::new()).to_string(),
            "0 readings, 0.0/s"
        );
        assert_eq!(spoken(Duration::from_secs(7380)), "2 h 03 min");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(999), "999");
    }

    #[test]
    fn absurd_shares_give_no_absurd_remaining_time() {
        for share in [0.0, -1.0, 7.0, f64::NAN, f64::MIN_POSITIVE] {
            let state = ProgressState::measured(1, Some(share), Duration::from_secs(10), String::new());
            assert!(state.share.is_none_or(|s| (0.0..=1.0).contains(&s)), "{share}");
        }
    }

    #[test]
    fn plain_progress_writes_notes_at_once_and_states_seldom() {
        let mut out = Vec::new();
        let progress = PlainProgress::new(&mut out);
        progress.update(&ProgressState::default());
        progress.note("line 7: no number");
        progress.finish();
        assert_eq!(String::from_utf8(out).unwrap(), "line 7: no number\n");
    }
}

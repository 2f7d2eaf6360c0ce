//! `farol produce`: lines become records.
//!
//! Lines are read by a thread of their own, so that what is typed goes out at once and a file goes out in batches. Every line is
//! acknowledged by itself; the first ones that aren't end the command, each with its number and the reason.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use farol_bus::{Bus as _, Producer, ProducerRecord};
use farol_event::Timestamp;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{connect, topic};
use crate::cli;
use crate::client::until_interrupted;
use crate::settings::Settings;
use crate::terminal::say;

/// The longest line.
const MAX_LINE_BYTES: u64 = 8 * 1024 * 1024;
/// How many lines are on their way at most.
const LINES_AT_ONCE: usize = 1000;
/// How many bytes are on their way, about, at most: well within what the client keeps.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
/// How often the terminal is told how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// A line and its number, from 1.
struct Line {
    number: u64,
    text: Vec<u8>,
}

/// How keys come about.
enum Keys {
    None,
    Same(Bytes),
    Before(String),
}

/// Sends until the input ends or somebody says stop.
pub fn run(arguments: cli::Produce, settings: &Settings) -> anyhow::Result<ExitCode> {
    let keys = match (arguments.key, arguments.key_separator) {
        (Some(key), _) => Keys::Same(key.into()),
        (None, Some(separator)) => {
            anyhow::ensure!(!separator.is_empty(), "--key-separator is empty");
            Keys::Before(separator)
        }
        (None, None) => Keys::None,
    };
    let (name, json) = (arguments.topic, arguments.form.json);
    // Before the connection, so that a missing file is told at once.
    let input = open(arguments.file.as_ref())?;
    until_interrupted(|stop| async move {
        let bus = connect(settings, "farol-produce").await?;
        topic(&bus, &name).await?;
        let producer = bus.producer("farol-produce").await?;
        let lines = read(input);
        let mut progress = Progress::new();
        let sent = send(producer.as_ref(), &name, &keys, lines, &mut progress, &stop).await;
        progress.end();
        let count = progress.acknowledged;
        if json {
            say(json!({ "topic": name, "acknowledged": count }));
        } else {
            say(format_args!("{count} record{} acknowledged", if count == 1 { "" } else { "s" }));
        }
        sent.map(|()| ExitCode::SUCCESS)
    })
}

fn open(file: Option<&PathBuf>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    Ok(match file {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(BufReader::new(io::stdin())),
    })
}

/// Reads lines on a thread of its own, which ends with the process if nobody types any more.
fn read(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(LINES_AT_ONCE);
    std::thread::spawn(move || {
        for number in 1.. {
            let line = match line(input.as_mut(), number) {
                Ok(Some(line)) => Ok(line),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

fn line(input: &mut dyn BufRead, number: u64) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    if input.take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut text)? == 0 {
        return Ok(None);
    }
    if text.len() as u64 > MAX_LINE_BYTES {
        let message = format!("line {number} is longer than {MAX_LINE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    if text.ends_with(b"\n") {
        text.pop();
        if text.ends_with(b"\r") {
            text.pop();
        }
    }
    Ok(Some(Line { number, text }))
}

async fn send(
    producer: &dyn Producer,
    topic: &str,
    keys: &Keys,
    mut lines: mpsc::Receiver<io::Result<Line>>,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    // The first line goes alone: then the client knows the topic, and no line waits while a later one goes ahead.
    let mut at_once = 1;
    loop {
        let first = tokio::select! {
            line = lines.recv() => line,
            () = stop.cancelled() => None,
        };
        let Some(first) = first else { return Ok(()) };
        let mut bytes = 0;
        let (mut records, mut problem) = (Vec::new(), None);
        let mut next = Some(first);
        while let Some(line) = next {
            match line.map_err(anyhow::Error::from).and_then(|line| record(line, keys)) {
                Ok(Some((number, record))) => {
                    bytes += record.value.as_ref().map_or(0, Bytes::len);
                    records.push((number, record));
                }
                Ok(None) => {}
                Err(error) => {
                    problem = Some(error);
                    break;
                }
            }
            next =
                if records.len() < at_once && bytes < BYTES_AT_ONCE { lines.try_recv().ok() } else { None };
        }
        // Polled in order, so handed over in order; each is acknowledged by itself.
        let sends = records
            .into_iter()
            .map(|(number, record)| async move { (number, producer.send(topic, vec![record]).await) });
        let mut failed = Vec::new();
        for (number, sent) in join_all(sends).await {
            match sent {
                Ok(_) => progress.acknowledged += 1,
                Err(error) => failed.push(format!("line {number}: {error}")),
            }
        }
        at_once = LINES_AT_ONCE;
        progress.show();
        anyhow::ensure!(failed.is_empty(), "not acknowledged:\n  {}", shortened(&failed));
        if let Some(problem) = problem {
            return Err(problem);
        }
    }
}

/// A line as a record; an empty line is none.
fn record(line: Line, keys: &Keys) -> anyhow::Result<Option<(u64, ProducerRecord)>> {
    let Line { number, text } = line;
    if text.is_empty() {
        return Ok(None);
    }
    let now = Timestamp::from_system_time(SystemTime::now());
    let text = Bytes::from(text);
    let (key, value) = match keys {
        Keys::None => (None, text),
        Keys::Same(key) => (Some(key.clone()), text),
        Keys::Before(separator) => {
            let at = text.windows(separator.len()).position(|window| window == separator.as_bytes());
            let at = at.with_context(|| format!("line {number}: there is no `{separator}` after a key"))?;
            (Some(text.slice(..at)), text.slice(at + separator.len()..))
        }
    };
    Ok(Some((number, ProducerRecord { key, ..ProducerRecord::new(Bytes::new(), value, now) })))
}

/// The first of many; the rest is counted.
fn shortened(failed: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = failed.iter().take(SHOWN).cloned().collect();
    if failed.len() > SHOWN {
        shown.push(format!("and {} more", failed.len() - SHOWN));
    }
    shown.join("\n  ")
}

/// How far it is, for a terminal that isn't where the lines are typed.
struct Progress {
    acknowledged: u64,
    shown: bool,
    began: Instant,
    last: Instant,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        let shown = io::stderr().is_terminal() && !io::stdin().is_terminal();
        Self { acknowledged: 0, shown, began: now, last: now }
    }

    fn show(&mut self) {
        if self.shown && self.last.elapsed() >= PROGRESS_INTERVAL {
            self.last = Instant::now();
            let seconds = self.began.elapsed().as_secs_f64().max(0.001);
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = self.acknowledged as f64 / seconds;
            // Nobody may be looking.
            let _ = write!(io::stderr(), "\r{} acknowledged, {rate:.0} a second ", self.acknowledged);
        }
    }

    fn end(&self) {
        if self.shown && self.last > self.began {
            let _ = writeln!(io::stderr());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn lines(input: &'static [u8]) -> Vec<Vec<u8>> {
        let mut reader: Box<dyn BufRead + Send> = Box::new(input);
        std::iter::from_fn(|| line(reader.as_mut(), 1).unwrap()).map(|line| line.text).collect()
    }

    #[test]
    fn lines_end_with_a_line_feed_or_the_input() {
        assert_eq!(lines(b"a\r\n\nb"), [&b"a"[..], b"", b"b"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_key_stands_before_the_first_separator() {
        let keys = Keys::Before("::".to_owned());
        let line = |text: &[u8]| Line { number: 3, text: text.to_vec() };
        let (_, sent) = record(line(b"k::v::w"), &keys).unwrap().unwrap();
        assert_eq!((sent.key.unwrap(), sent.value.unwrap()), (Bytes::from("k"), Bytes::from("v::w")));
        let error = record(line(b"no key"), &keys).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(record(line(b""), &keys).unwrap().is_none());
    }
}

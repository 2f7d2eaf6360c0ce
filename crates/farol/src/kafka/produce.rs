//! `farol produce`: lines become records.
//!
//! Lines are read by a thread of their own, so that what is typed goes out at once and a file goes out in batches. Every line is
//! acknowledged by itself; the first ones that aren't end the command, each with its number, the reason, and what to do. An empty line is no
//! record, and is counted. Whoever interrupts it is told where it stopped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bytes::Bytes;
use farol_bus::{BusError, Producer, ProducerRecord, TopicDescription};
use farol_event::Timestamp;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{connect, topic};
use crate::cli;
use crate::client::{interrupted, until_interrupted};
use crate::settings::Settings;
use crate::terminal::say;

/// The longest line.
const MAX_LINE_BYTES: u64 = 8 * 1024 * 1024;
/// How many lines are on their way at most.
const LINES_AT_ONCE: usize = 1000;
/// How many bytes are on their way, about, at most: well within what the client keeps.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;
/// More than stands around a line in a batch, and around the lines of a batch.
const BYTES_AROUND_A_LINE: usize = 24;
const BYTES_AROUND_A_BATCH: usize = 64;
/// Reasons, and groups of lines for each, that are told; the rest is counted.
const REASONS_SHOWN: usize = 10;
const RUNS_SHOWN: usize = 8;
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
    let is_typed = arguments.file.is_none() && io::stdin().is_terminal();
    let input = open(arguments.file.as_ref())?;
    until_interrupted(|stop| async move {
        let connected = async {
            let bus = connect(settings, "farol-produce").await?;
            let topic = topic(&bus, &name).await?;
            anyhow::Ok((bus, topic))
        };
        let Some(connected) = stop.run_until_cancelled(connected).await else { return Ok(interrupted()) };
        let (bus, topic) = connected?;
        let producer = bus.producer_for_once("farol-produce")?;
        let mut input = Input { lines: read(input), keys, held: None, last: 0, empty: 0, ended: false };
        let mut progress = Progress::new();
        let sent = send(producer.as_ref(), &topic, &mut input, &mut progress, &stop).await;
        progress.end();
        let count = progress.acknowledged;
        let failures = sent.as_ref().map_or(&[][..], Vec::as_slice);
        // Whoever types sees where it stopped.
        let stopped = stop.is_cancelled() && !input.ended && !is_typed;
        let empty = input.empty;
        if json {
            say(json!({
                "topic": name, "acknowledged": count, "empty_lines": empty, "interrupted": stopped,
                "not_acknowledged": lines_of(failures), "failures": failures.iter().map(Failure::json).collect::<Vec<_>>(),
            }));
        } else {
            say(format_args!("{count} record{} acknowledged{}", plural(count), left_out(empty)));
        }
        let failures = sent?;
        if failures.is_empty() && stopped {
            // Nobody may be looking.
            let _ =
                writeln!(io::stderr(), "interrupted after line {}; nothing behind it was sent", input.last);
            return Ok(interrupted());
        }
        if failures.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        Err(anyhow::anyhow!(complaint(count, &failures, input.next_line())))
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

/// Lines on their way to becoming records.
struct Input {
    lines: mpsc::Receiver<io::Result<Line>>,
    keys: Keys,
    /// What didn't fit to those before it, and goes first next time.
    held: Option<(u64, ProducerRecord)>,
    /// The last line that was taken.
    last: u64,
    /// How many lines were empty.
    empty: u64,
    /// There are no more lines.
    ended: bool,
}

impl Input {
    /// Records that may go out together: one at least, unless the input has ended or somebody says stop. A line that can't become one comes
    /// as an error behind those before it.
    async fn take(
        &mut self,
        records_at_once: usize,
        bytes_at_once: usize,
        stop: &CancellationToken,
    ) -> (Vec<(u64, ProducerRecord)>, Option<anyhow::Error>) {
        let (mut records, mut bytes) = (Vec::new(), BYTES_AROUND_A_BATCH);
        if stop.is_cancelled() {
            return (records, None);
        }
        while records.len() < records_at_once {
            let next = match self.held.take() {
                Some(held) => held,
                None => {
                    let line = if records.is_empty() {
                        tokio::select! {
                            line = self.lines.recv() => {
                                self.ended = line.is_none();
                                line
                            }
                            () = stop.cancelled() => None,
                        }
                    } else {
                        self.lines.try_recv().ok()
                    };
                    let Some(line) = line else { break };
                    match line.map_err(anyhow::Error::from).and_then(|line| record(line, &self.keys)) {
                        Ok(Ok(next)) => next,
                        Ok(Err(number)) => {
                            (self.last, self.empty) = (number, self.empty + 1);
                            continue;
                        }
                        Err(problem) => return (records, Some(problem)),
                    }
                }
            };
            bytes += size(&next.1);
            if bytes > bytes_at_once && !records.is_empty() {
                self.held = Some(next);
                break;
            }
            self.last = next.0;
            records.push(next);
        }
        (records, None)
    }

    /// The first line that was not taken, if it was read already.
    fn next_line(&mut self) -> Option<u64> {
        let waiting = || Some(self.lines.try_recv().ok()?.ok()?.number);
        self.held.as_ref().map(|(number, _)| *number).or_else(waiting)
    }
}

/// Sends lines until there are no more, or some aren't acknowledged; those are given back.
async fn send(
    producer: &dyn Producer,
    topic: &TopicDescription,
    input: &mut Input,
    progress: &mut Progress,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Failure>> {
    let bytes_at_once = bytes_at_once(topic);
    // The first line goes alone: then the client knows the topic, and no line waits while a later one goes ahead.
    let mut records_at_once = 1;
    loop {
        let (records, problem) = input.take(records_at_once, bytes_at_once, stop).await;
        if records.is_empty() && problem.is_none() {
            return Ok(Vec::new());
        }
        // Polled in order, so handed over in order; each is acknowledged by itself.
        let sends = records
            .into_iter()
            .map(|(number, record)| async move { (number, producer.send(&topic.name, vec![record]).await) });
        let mut failures = Vec::new();
        for (number, sent) in join_all(sends).await {
            match sent {
                Ok(_) => progress.acknowledged += 1,
                Err(error) => Failure::add(&mut failures, number, &error),
            }
        }
        records_at_once = LINES_AT_ONCE;
        progress.show();
        if !failures.is_empty() {
            return Ok(failures);
        }
        if let Some(problem) = problem {
            return Err(problem);
        }
    }
}

/// A line as a record. An empty line is none, so only its number is given back.
fn record(line: Line, keys: &Keys) -> anyhow::Result<Result<(u64, ProducerRecord), u64>> {
    let Line { number, text } = line;
    if text.is_empty() {
        return Ok(Err(number));
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
    Ok(Ok((number, ProducerRecord { key, ..ProducerRecord::new(Bytes::new(), value, now) })))
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn left_out(empty: u64) -> String {
    if empty == 0 { String::new() } else { format!(", {empty} empty line{} left out", plural(empty)) }
}

/// Lines that are not acknowledged for one reason.
struct Failure {
    reason: String,
    advice: Option<&'static str>,
    lines: Vec<u64>,
}

impl Failure {
    /// Puts a line to the others of its reason.
    fn add(failures: &mut Vec<Self>, line: u64, error: &BusError) {
        let reason = match error {
            BusError::Unavailable(problem) => problem.clone(),
            error => error.to_string(),
        };
        match failures.iter_mut().find(|failure| failure.reason == reason) {
            Some(failure) => failure.lines.push(line),
            None => failures.push(Self { reason, advice: advice(error), lines: vec![line] }),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({ "reason": self.reason, "advice": self.advice, "lines": self.lines })
    }
}

/// What to do about an error of a send.
fn advice(error: &BusError) -> Option<&'static str> {
    match error {
        BusError::TooLarge { .. } => Some("send less in a line, or raise max.message.bytes of the topic"),
        BusError::Poisoned { .. } => Some(
            "make room on the broker's disk, or look what else is wrong with it, and send these lines again",
        ),
        BusError::UnknownTopicOrPartition(_) => {
            Some("the topic was deleted meanwhile; `farol topics create` makes it")
        }
        BusError::Unavailable(_) | BusError::Unreachable => Some(
            "they may be stored all the same; see that the broker answers (`farol topics`) before sending them again",
        ),
        _ => None,
    }
}

fn lines_of(failures: &[Failure]) -> usize {
    failures.iter().map(|failure| failure.lines.len()).sum()
}

/// What became of the lines, why, and what to do. `next` is the first line that was not sent, if one was read already.
fn complaint(acknowledged: u64, failures: &[Failure], next: Option<u64>) -> String {
    let are = |count: u64| if count == 1 { "1 line is".to_owned() } else { format!("{count} lines are") };
    let failed = lines_of(failures);
    let isnt = if failed == 1 { "1 is not".to_owned() } else { format!("{failed} are not") };
    let mut text = vec![format!("{} acknowledged, {isnt}:", are(acknowledged))];
    let (shown, rest) = failures.split_at(failures.len().min(REASONS_SHOWN));
    text.extend(shown.iter().map(|failure| format!("{}: {}", numbers(&failure.lines), failure.reason)));
    if !rest.is_empty() {
        text.push(format!("and {} more", lines_of(rest)));
    }
    text.extend(next.map(|next| format!("nothing from line {next} on was sent")));
    let mut advised: Vec<_> = failures.iter().filter_map(|failure| failure.advice).collect();
    advised.dedup();
    text.extend(advised.into_iter().map(str::to_owned));
    text.join("\n  ")
}

/// Numbers of lines, in order, as people write them.
fn numbers(lines: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for line in lines {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *line => *last = *line,
            _ => runs.push((*line, *line)),
        }
    }
    let written = |(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    let (shown, rest) = runs.split_at(runs.len().min(RUNS_SHOWN));
    let mut text = shown.iter().map(written).collect::<Vec<_>>().join(", ");
    if !rest.is_empty() {
        let more: u64 = rest.iter().map(|(first, last)| last - first + 1).sum();
        text = format!("{text} and {more} more");
    }
    format!("{} {text}", if lines.len() == 1 { "line" } else { "lines" })
}

/// How many bytes may be on their way so that no batch of them is too large for the topic: the client doesn't look at its limit.
fn bytes_at_once(topic: &TopicDescription) -> usize {
    let limit = topic.config.get("max.message.bytes").and_then(|limit| limit.parse().ok());
    limit.map_or(BYTES_AT_ONCE, |limit: usize| limit.min(BYTES_AT_ONCE))
}

/// How much a record takes of a batch, at most.
fn size(record: &ProducerRecord) -> usize {
    let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    bytes(&record.key) + bytes(&record.value) + BYTES_AROUND_A_LINE
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

    fn producer_record(value: &str) -> ProducerRecord {
        ProducerRecord { key: None, ..ProducerRecord::new(Bytes::new(), value.to_owned(), Timestamp::EPOCH) }
    }

    #[test]
    fn what_is_not_acknowledged_is_told_by_reason_with_its_lines_and_what_to_do() {
        let full = |topic: &str| BusError::Poisoned { partition: topic.into(), problem: "full".into() };
        let mut failures = Vec::new();
        for line in [4, 5, 6, 9] {
            Failure::add(&mut failures, line, &full("notes"));
        }
        let text = complaint(1, &failures, Some(10));
        let expected = [
            "1 line is acknowledged, 4 are not:",
            "lines 4 to 6, 9: notes refuses appends: full",
            "nothing from line 10 on was sent",
            "make room on the broker's disk",
        ];
        for (line, expected) in text.lines().zip(expected) {
            assert!(line.trim_start().starts_with(expected), "{text}");
        }
        assert_eq!(text.lines().count(), 4);

        let mut failures = Vec::new();
        for line in (2..60).step_by(2) {
            Failure::add(&mut failures, line, &full(&format!("t-{}", line % 4)));
        }
        let text = complaint(0, &failures, None);
        assert!(text.starts_with("0 lines are acknowledged, 29 are not:\n"), "{text}");
        assert!(text.contains("lines 4, 8, 12, 16, 20, 24, 28, 32 and 6 more: t-0"), "{text}");
        assert_eq!(text.matches("make room").count(), 1, "{text}");
        for line in 1..=20 {
            Failure::add(&mut failures, line, &full(&format!("other-{line}")));
        }
        assert!(complaint(0, &failures, None).contains("\n  and 12 more"), "12 reasons of one line each");
    }

    #[tokio::test]
    async fn no_more_lines_go_out_together_than_one_batch_holds() {
        let (sender, lines) = mpsc::channel(10);
        for (number, text) in
            (1..).zip(["12345678", "", "123456789", "1", "a line that fills a batch by itself", "2"])
        {
            sender.send(Ok(Line { number, text: text.into() })).await.unwrap();
        }
        drop(sender);
        let mut input = Input { lines, keys: Keys::None, held: None, last: 0, empty: 0, ended: false };
        let limit = BYTES_AROUND_A_BATCH + 2 * size(&producer_record("123456789"));
        let mut taken = Vec::new();
        loop {
            let next = input.held.as_ref().map(|(number, _)| *number);
            let (records, problem) = input.take(1000, limit, &CancellationToken::new()).await;
            assert!(problem.is_none());
            if records.is_empty() {
                break;
            }
            taken.push((next, records.iter().map(|(number, _)| *number).collect::<Vec<_>>()));
        }
        assert_eq!(taken, [(None, vec![1, 3]), (Some(4), vec![4]), (Some(5), vec![5]), (Some(6), vec![6])]);
    }

    #[test]
    fn a_key_stands_before_the_first_separator() {
        let keys = Keys::Before("::".to_owned());
        let line = |text: &[u8]| Line { number: 3, text: text.to_vec() };
        let (_, sent) = record(line(b"k::v::w"), &keys).unwrap().unwrap();
        assert_eq!((sent.key.unwrap(), sent.value.unwrap()), (Bytes::from("k"), Bytes::from("v::w")));
        let error = record(line(b"no key"), &keys).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(record(line(b""), &keys).unwrap().is_err());
    }
}

//! `farol events`: the newest events of a running Farol, and those that come.
//!
//! What there is comes from `GET /api/events`, what comes from `GET /api/stream`. To follow, the stream is opened first, so that
//! nothing falls between the two; what both bring is printed once. A lost connection is told on standard error and tried
//! again; the stream goes on from the last event.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use farol_event::{AlertTransition, Event};
use farol_simulate::client::{Connection, RequestTemplate, ServerUrl};
use farol_simulate::event_stream::percent_encoded;
use farol_simulate::sse::ServerSentEvent;
use farol_simulate::{EventStream, Followed};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::client::{server, until_interrupted};
use crate::settings::Settings;
use crate::terminal::harmless;

/// How many of the events that there are come first when it is followed.
const BEFORE_FOLLOWING: u16 = 10;
/// How many come without following.
const LISTED: u16 = 100;
/// How long the list may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The part of a page of events that is needed; the events as the server wrote them.
#[derive(Deserialize)]
struct Page {
    events: Vec<Box<RawValue>>,
}

/// Runs the command.
pub fn run(arguments: &cli::Events, settings: &Settings) -> anyhow::Result<ExitCode> {
    let server = server(arguments.target.url.as_deref(), settings)?;
    until_interrupted(|stop| async move {
        let done = if arguments.follow {
            follow(arguments, server, &stop).await
        } else {
            list(arguments, &server).await
        };
        match done {
            // Whoever read has had enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            done => done.map(|()| ExitCode::SUCCESS),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn list(arguments: &cli::Events, server: &ServerUrl) -> anyhow::Result<()> {
    for event in newest(arguments, server, arguments.limit.unwrap_or(LISTED)).await? {
        print(&event, arguments.json)?;
    }
    Ok(())
}

/// The newest events, the oldest of them first.
async fn newest(
    arguments: &cli::Events,
    server: &ServerUrl,
    limit: u16,
) -> anyhow::Result<Vec<Box<RawValue>>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut path = format!("/api/events?limit={limit}");
    for (name, value) in [("type", &arguments.event_type), ("source", &arguments.source)] {
        if let Some(value) = value {
            ensure!(
                arguments.follow || !value.contains(','),
                "several values of --{name} can only be followed; leave the others out, or add --follow"
            );
            path.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
    }
    let template = RequestTemplate::get(server, &path)?;
    let mut connection = Connection::open(server).await?;
    let answer = connection.exchange(&template, bytes::Bytes::new(), LIMIT).await?;
    ensure!(
        answer.status.is_success(),
        "the server answers {}: {}",
        answer.status.as_u16(),
        harmless(&String::from_utf8_lossy(&answer.body))
    );
    let page: Page = serde_json::from_slice(&answer.body).context("the list of events can't be read")?;
    Ok(page.events.into_iter().rev().collect())
}

async fn follow(arguments: &cli::Events, server: ServerUrl, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut parameters = vec![("events", "alert,event,pipeline")];
    let given = [("type", &arguments.event_type), ("source", &arguments.source)];
    parameters.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
    let mut stream = EventStream::new(server.clone(), parameters);
    // Of those that were listed, until the stream is beyond them.
    let mut printed = None;
    loop {
        let followed = tokio::select! {
            followed = stream.next() => followed?,
            () = stop.cancelled() => return Ok(()),
        };
        match followed {
            Followed::Lost(reason) if printed.is_none() => return Err(anyhow!(reason)),
            Followed::Lost(reason) => tell(&format!("{reason}; trying again")),
            Followed::Event(event) if event.event == "hello" => {
                if printed.is_none() {
                    printed = Some(print_newest(arguments, &server).await?);
                }
            }
            Followed::Event(event) if event.event == "gap" => {
                tell(&format!("some events are missing here: {}", harmless(&event.data)));
            }
            Followed::Event(event) => {
                let Some(event) = as_event(&event) else { continue };
                let id = event_id(&event);
                let is_new = printed.as_mut().is_none_or(|ids: &mut HashSet<_>| !ids.remove(&id));
                if is_new {
                    print(&event, arguments.json)?;
                }
            }
        }
    }
}

/// Prints what there is before it is followed. Gives the ids.
async fn print_newest(arguments: &cli::Events, server: &ServerUrl) -> anyhow::Result<HashSet<String>> {
    let is_list = |value: &Option<String>| value.as_ref().is_some_and(|value| value.contains(','));
    // The list of what there is takes one type and one source.
    if is_list(&arguments.event_type) || is_list(&arguments.source) {
        return Ok(HashSet::new());
    }
    let newest = newest(arguments, server, arguments.limit.unwrap_or(BEFORE_FOLLOWING)).await?;
    for event in &newest {
        print(event, arguments.json)?;
    }
    Ok(newest.iter().map(|event| event_id(event)).collect())
}

/// A message of the stream as the event that it tells of. `None` for one that can't be read.
fn as_event(message: &ServerSentEvent) -> Option<Box<RawValue>> {
    let json = if message.event == "alert" {
        let transition: AlertTransition = serde_json::from_str(&message.data).ok()?;
        String::from_utf8(farol_alert::to_event(&transition, None).to_json()).ok()?
    } else {
        message.data.clone()
    };
    RawValue::from_string(json).ok()
}

fn event_id(event: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_str(event.get()).map_or_else(|_| String::new(), |event: Id| event.id)
}

/// Prints one event.
fn print(event: &RawValue, as_json: bool) -> io::Result<()> {
    let line = if as_json { event.get().to_owned() } else { as_text(event) };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Time, type, source and data, in one line.
fn as_text(event: &RawValue) -> String {
    let read = Event::parse_kept(event.get().as_bytes());
    let Ok(event) = read else { return harmless(event.get()) };
    let data = serde_json::to_string(&event.data).unwrap_or_default();
    let summary = event.data.get("alert").and_then(|alert| alert.get("summary"));
    let told = summary.and_then(|summary| summary.as_str()).map_or(data, str::to_owned);
    let [event_type, source, told] = [event.event_type.as_str(), &event.source, &told].map(harmless);
    format!("{}  {event_type}  {source}  {told}", event.time)
}

fn tell(line: &str) {
    // Whoever reads may be gone; the work goes on without them.
    let _ = writeln!(io::stderr(), "farol: {line}");
}

//! `POST /api/events`: CloudEvents to topic `system-events`, in the structured, batched and binary modes of the HTTP
//! protocol binding (CloudEvents 1.0.2, HTTP protocol binding, section 3).
//!
//! The types by which Farol keeps account of itself ([`is_reserved`]) are refused: an event of such a type that Farol
//! did not write would falsify its record.

use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farol_bus::ProducerRecord;
use farol_event::{Event, EventError, EventType, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::ingest::elements;
use crate::ingest::media::{self, EventsForm};
use crate::ingest::readings::nothing_accepted;
use crate::ingest::rejection::{Reason, Rejection, Rejections};
use crate::openapi::{EventBody, NewEvent, PostProblems};
use crate::problem::Problem;

/// How many events one request may carry.
pub const MAX_EVENTS: usize = 10_000;

/// What became of the events of one request.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsAnswer {
    /// How many are stored durably.
    #[schema(minimum = 0, example = 1)]
    pub accepted: u64,
    /// The ids of the accepted ones, in order.
    pub ids: Vec<String>,
    /// The first hundred that were refused.
    #[schema(max_items = 100)]
    pub rejected: Vec<Rejection>,
    /// How many were refused.
    #[schema(minimum = 0, example = 0)]
    pub rejected_total: u64,
}

/// Send events.
///
/// CloudEvents 1.0: one event (`application/cloudevents+json` or plain JSON), an array of them
/// (`application/cloudevents-batch+json` or plain JSON), or one with its attributes in `ce-` headers and its data as
/// the JSON body. The answer comes when what was accepted is durable.
#[utoipa::path(
    post,
    path = "/api/events",
    tag = "events",
    request_body(
        description = "At most 16 MiB and 10 000 events",
        content(
            (NewEvent = "application/cloudevents+json"),
            (Vec<NewEvent> = "application/cloudevents-batch+json"),
            (EventBody = "application/json"),
        )
    ),
    responses(
        (status = 202, description = "At least one event was accepted and is durable", body = EventsAnswer),
        PostProblems,
    )
)]
pub async fn post_events(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let form = media::events_form(&headers)?;
    let (bytes, held) = app.collect(&headers, body, app.limits().body_bytes).await?;
    let arrival = Timestamp::from_system_time(SystemTime::now());
    let (events, rejections) = tokio::task::spawn_blocking(move || check(form, &headers, &bytes, arrival))
        .await
        .map_err(|e| Problem::internal("checking the events", &e))?
        .inspect_err(|_| app.metrics().events_rejected(Reason::Malformed, 1))?;
    for (reason, count) in rejections.by_reason() {
        app.metrics().events_rejected(reason, count);
    }
    if events.is_empty() {
        return Err(nothing_accepted(&rejections));
    }
    let ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
    let records = events.iter().map(|event| record(event, arrival)).collect();
    app.producer().send(&app.topics().system_events, records).await?;
    drop(held);
    let accepted = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    app.metrics().events_accepted(accepted);
    let rejected_total = rejections.total();
    let answer = EventsAnswer { accepted, ids, rejected: rejections.into_listed(), rejected_total };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

fn record(event: &Event, arrival: Timestamp) -> ProducerRecord {
    ProducerRecord::new(Bytes::copy_from_slice(event.source.as_bytes()), event.to_json(), arrival)
}

/// Whether only Farol itself may write events of this type.
pub fn is_reserved(event_type: &EventType) -> bool {
    [
        EventType::CONSUMER_JOINED,
        EventType::CONSUMER_LEFT,
        EventType::CONSUMER_HEARTBEAT,
        EventType::PRODUCER_HEARTBEAT,
        EventType::PARTITIONS_REASSIGNED,
        EventType::RULES_CHANGED,
        EventType::NOTIFICATION_ATTEMPTED,
        EventType::ALERT_ACKNOWLEDGED,
    ]
    .contains(event_type)
}

/// Checks every event of a request.
fn check(
    form: EventsForm,
    headers: &HeaderMap,
    body: &[u8],
    arrival: Timestamp,
) -> Result<(Vec<Event>, Rejections), Problem> {
    let mut events = Vec::new();
    let mut rejections = Rejections::default();
    let mut judge = |index: usize, parsed: Result<Event, EventError>| match parsed {
        Ok(event) if is_reserved(&event.event_type) => rejections.push(
            index,
            Reason::Reserved,
            &format!("attribute `type`: only Farol itself writes `{}`", event.event_type),
        ),
        Ok(event) => events.push(event),
        Err(error) => rejections.push(index, Reason::from(&error), &error),
    };
    let is_array = body.trim_ascii_start().starts_with(b"[");
    match form {
        EventsForm::Binary => judge(0, from_headers(headers, body, arrival)),
        EventsForm::Batch | EventsForm::Json if is_array => {
            let count =
                elements::for_each(body, MAX_EVENTS, |index, json| judge(index, Event::parse(json, arrival)))
                    .map_err(|e| {
                        Problem::bad_request(format!("the body is not a JSON array of events: {e}"))
                    })?;
            if count == 0 {
                return Err(Problem::bad_request("the array is empty"));
            }
        }
        EventsForm::Batch => return Err(Problem::bad_request("a batch of events must be a JSON array")),
        EventsForm::Structured | EventsForm::Json => {
            if body.trim_ascii().is_empty() {
                return Err(Problem::bad_request("the body is empty; send a CloudEvents event"));
            }
            judge(0, Event::parse(body, arrival));
        }
    }
    Ok((events, rejections))
}

/// Binary mode: every `ce-` header is an attribute, percent-encoded; the body is `data`.
fn from_headers(headers: &HeaderMap, body: &[u8], arrival: Timestamp) -> Result<Event, EventError> {
    let problem = |attribute: &str, problem: &str| EventError::Attribute {
        attribute: attribute.to_owned(),
        problem: problem.to_owned(),
    };
    let mut attributes = Map::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text =
            percent_decoded(value.as_bytes()).ok_or_else(|| problem(name, "is not percent-encoded UTF-8"))?;
        // The binding has only texts; the one attribute of ours that is a number must become one again.
        let value = match (name, text.parse::<u32>()) {
            ("dataversion", Ok(number)) => Value::from(number),
            _ => Value::from(text),
        };
        if attributes.insert(name.to_owned(), value).is_some() {
            return Err(problem(name, "is given more than once"));
        }
    }
    if attributes.contains_key("data") {
        return Err(problem("data", "belongs into the body"));
    }
    if !body.trim_ascii().is_empty() {
        let data: Value = serde_json::from_slice(body).map_err(|e| EventError::Malformed(e.to_string()))?;
        attributes.insert("data".to_owned(), data);
    }
    Event::from_attributes(attributes, arrival)
}

/// Decodes `%C3%A9` and its like. `None` if what comes out is not UTF-8 or a `%` is not followed by two hex digits.
fn percent_decoded(text: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let byte = digit(high)? * 16 + digit(low)?;
                decoded.push(u8::try_from(byte).ok()?);
                rest = after;
            }
            (b'%', _) => return None,
            (other, after) => {
                decoded.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str =
        r#"{"specversion":"1.0","id":"1","type":"metrica_coletada","source":"pump","data":{"x":1}}"#;

    fn arrival() -> Timestamp {
        Timestamp::from_millis_clamped(1_700_000_000_000)
    }

    #[test]
    fn a_binary_event_equals_its_structured_form() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-type", "metrica_coletada"),
            ("ce-source", "pump"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let (binary, _) = check(EventsForm::Binary, &headers, br#"{"x":1}"#, arrival()).unwrap();
        let (structured, _) =
            check(EventsForm::Structured, &HeaderMap::new(), EVENT.as_bytes(), arrival()).unwrap();
        assert_eq!(binary, structured);
    }

    #[test]
    fn headers_are_percent_decoded() {
        assert_eq!(percent_decoded(b"caf%C3%A9 %25").as_deref(), Some("café %"));
        for broken in [&b"%"[..], b"%4", b"%zz", b"%ff"] {
            assert_eq!(percent_decoded(broken), None);
        }
    }

    #[test]
    fn a_batch_keeps_its_good_events_and_names_the_bad_ones() {
        let body = format!("[{EVENT}, {{}}, {EVENT}]");
        let (events, rejections) =
            check(EventsForm::Batch, &HeaderMap::new(), body.as_bytes(), arrival()).unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(rejections.listed()[0].index, 1);
    }

    #[test]
    fn nobody_else_writes_farols_account_of_itself() {
        let forged = EVENT.replace("metrica_coletada", "particoes_reatribuidas");
        let (events, rejections) =
            check(EventsForm::Json, &HeaderMap::new(), forged.as_bytes(), arrival()).unwrap();
        assert!(events.is_empty());
        assert!(rejections.listed()[0].error.contains("particoes_reatribuidas"));
    }
}

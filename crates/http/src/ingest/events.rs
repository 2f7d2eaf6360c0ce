//! `POST /api/events`: CloudEvents to topic `system-events`, in the structured, batched and binary modes of the HTTP
//! protocol binding (CloudEvents 1.0.2, HTTP protocol binding, section 3).
//!
//! What the binding leaves open: `data` must be a JSON object, so a binary event's content type must be one of JSON
//! (`application/json`, or any with the suffix `+json`), and `data_base64` is refused. Plain `application/json` without `ce-`
//! headers is taken for a structured event, or an array of them.
//!
//! The types by which Farol keeps account of itself ([`is_reserved`]) are refused: an event of such a type that Farol
//! did not write would falsify its record. So is what tells of Farol's own policies. An event that claims to tell of a service and
//! can't be read is refused with the reason, because whoever reads it later has nobody to say it to.

use std::borrow::Cow;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farol_bus::ProducerRecord;
use farol_event::envelope::MAX_EVENT_BYTES;
use farol_event::{Event, EventError, EventType, ServiceFact, Timestamp};
use farol_registry::record::KEPT;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::ingest::elements;
use crate::ingest::media::{self, EventsForm};
use crate::ingest::readings::nothing_accepted;
use crate::ingest::rejection::{Accepted, Reason, Rejections};
use crate::openapi::{EventBody, NewEvent, PostProblems};
use crate::problem::Problem;

/// How many events one request may carry.
pub const MAX_EVENTS: usize = 10_000;

/// What became of the events of one request.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsAnswer {
    /// Accepted and refused.
    #[serde(flatten)]
    pub outcome: Accepted,
    /// The ids of the accepted ones, in order.
    pub ids: Vec<String>,
}

/// What of a request is to be stored.
#[derive(Debug, Default)]
struct Checked {
    ids: Vec<String>,
    records: Vec<ProducerRecord>,
    rejections: Rejections,
}

/// Send events.
///
/// CloudEvents 1.0: one event (`application/cloudevents+json` or plain JSON), an array of them
/// (`application/cloudevents-batch+json` or plain JSON), or one with its attributes in `ce-` headers and its data as
/// the JSON body, of any JSON media type. The answer comes when what was accepted is durable. A batch may be empty.
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
        (status = 202, description = "What was accepted is durable: at least one event, unless the batch was empty", body = EventsAnswer),
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
    let Checked { ids, records, rejections } =
        tokio::task::spawn_blocking(move || check(form, &headers, &bytes, arrival))
            .await
            .map_err(|e| Problem::internal("checking the events", &e))?
            .inspect_err(|_| app.metrics().events_rejected(Reason::Malformed, 1))?;
    for (reason, count) in rejections.by_reason() {
        app.metrics().events_rejected(reason, count);
    }
    if records.is_empty() && rejections.total() > 0 {
        return Err(nothing_accepted(&rejections));
    }
    if !records.is_empty() {
        app.producer().send(&app.topics().system_events, records).await?;
    }
    drop(held);
    let accepted = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    app.metrics().events_accepted(accepted);
    let answer = EventsAnswer { outcome: rejections.into_answer(accepted), ids };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
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
        EventType::SILENCE_CREATED,
        EventType::SILENCE_EXPIRED,
        EventType::SERVICE_REGISTERED,
        EventType::SERVICE_REMOVED,
        EventType::CHECK_CHANGED,
    ]
    .contains(event_type)
}

/// As whom Farol calls others.
const FAROL: &str = "farol";

/// What is wrong with an event that tells of a service, if it is one.
fn refused_of_service(event: &Event) -> Option<(Reason, String)> {
    if event.extensions.contains_key(KEPT) {
        let error = format!("attribute `{KEPT}`: only Farol itself says that it keeps what an event tells");
        return ServiceFact::is_told_by(&event.event_type).then_some((Reason::Reserved, error));
    }
    let fact = match ServiceFact::of(event)? {
        Ok(fact) => fact,
        Err(error) => return Some((Reason::InvalidField, error.to_string())),
    };
    let caller = match &fact {
        ServiceFact::BreakerMoved(moved) => &moved.caller,
        ServiceFact::PolicyMeasured(measured) => &measured.caller,
        _ => return None,
    };
    (caller == FAROL).then(|| {
        let error = format!("attribute `data`: only Farol itself tells of the policies of caller `{FAROL}`");
        (Reason::Reserved, error)
    })
}

/// Checks every event of a request.
fn check(form: EventsForm, headers: &HeaderMap, body: &[u8], arrival: Timestamp) -> Result<Checked, Problem> {
    let mut checked = Checked::default();
    let mut judge = |index: usize, parsed| checked.judge(index, parsed, arrival);
    let is_array = body.trim_ascii_start().starts_with(b"[");
    match form {
        EventsForm::Binary => judge(0, from_headers(headers, body, arrival)),
        EventsForm::Batch | EventsForm::Json if is_array => {
            let count =
                elements::for_each(body, MAX_EVENTS, |index, json| judge(index, Event::parse(json, arrival)))
                    .map_err(|e| {
                        Problem::bad_request(format!("the body is not a JSON array of events: {e}"))
                    })?;
            // An empty batch is a valid one (CloudEvents 1.0.2, JSON format, section 4).
            if count == 0 && form == EventsForm::Json {
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
    Ok(checked)
}

impl Checked {
    fn judge(&mut self, index: usize, parsed: Result<Event, EventError>, arrival: Timestamp) {
        let event = match parsed {
            Ok(event) if is_reserved(&event.event_type) => {
                let error = format!("attribute `type`: only Farol itself writes `{}`", event.event_type);
                return self.rejections.push(index, Reason::Reserved, &error);
            }
            Ok(event) => event,
            Err(error) => return self.rejections.push(index, Reason::from(&error), &error),
        };
        if let Some((reason, error)) = refused_of_service(&event) {
            return self.rejections.push(index, reason, &error);
        }
        // As it is stored: numbers may be written longer there, and readers take no more than this.
        let json = event.to_json();
        if json.len() > MAX_EVENT_BYTES {
            let error = EventError::TooLong { bytes: json.len() };
            return self.rejections.push(index, Reason::from(&error), &error);
        }
        let key = Bytes::copy_from_slice(event.source.as_bytes());
        self.records.push(ProducerRecord::new(key, json, arrival));
        self.ids.push(event.id);
    }
}

/// Binary mode: every `ce-` header is an attribute, the content type is `datacontenttype`, the body is `data`.
fn from_headers(headers: &HeaderMap, body: &[u8], arrival: Timestamp) -> Result<Event, EventError> {
    let problem = |attribute: &str, problem: &str| EventError::Attribute {
        attribute: attribute.to_owned(),
        problem: problem.to_owned(),
    };
    if body.len() > MAX_EVENT_BYTES {
        return Err(EventError::TooLong { bytes: body.len() });
    }
    let mut attributes = Map::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let text = decoded(value.as_bytes()).ok_or_else(|| problem(name, "is not percent-encoded UTF-8"))?;
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
    if attributes.contains_key("datacontenttype") {
        return Err(problem("datacontenttype", "is the header `Content-Type` in binary mode"));
    }
    // Plain JSON is what an event without the attribute has.
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(given) = content_type.filter(|given| !given.trim().eq_ignore_ascii_case("application/json")) {
        attributes.insert("datacontenttype".to_owned(), Value::from(given.trim()));
    }
    if !body.trim_ascii().is_empty() {
        let data: Value = serde_json::from_slice(body).map_err(|e| EventError::Malformed(e.to_string()))?;
        attributes.insert("data".to_owned(), data);
    }
    Event::from_attributes(attributes, arrival)
}

/// The text of a `ce-` header: out of a quoted string, if it is one, then percent-decoded once (section 3.1.3.2).
fn decoded(value: &[u8]) -> Option<String> {
    percent_decoded(&unquoted(value)?)
}

/// What stands in a quoted string (RFC 7230, 3.2.6), or the text itself. `None` for one that doesn't end.
fn unquoted(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(quoted) = value.strip_prefix(b"\"") else { return Some(Cow::Borrowed(value)) };
    let quoted = quoted.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => text.push(*bytes.next()?),
            b'"' => return None,
            other => text.push(*other),
        }
    }
    Some(Cow::Owned(text))
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
        r#"{"specversion":"1.0","id":"1","type":"bomba_medida","source":"pump","data":{"x":1}}"#;

    fn arrival() -> Timestamp {
        Timestamp::from_millis_clamped(1_760_000_000_000)
    }

    fn binary(more: &[(&'static str, &str)], body: &[u8]) -> Result<Event, EventError> {
        let given =
            [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "bomba_medida"), ("ce-source", "pump")];
        let mut headers = HeaderMap::new();
        for (name, value) in given.iter().chain(more) {
            headers.insert(*name, value.parse().unwrap());
        }
        from_headers(&headers, body, arrival())
    }

    #[test]
    fn a_binary_event_equals_its_structured_form() {
        let structured = Event::parse(EVENT.as_bytes(), arrival()).unwrap();
        assert_eq!(binary(&[], br#"{"x":1}"#).unwrap(), structured);
        assert_eq!(binary(&[("content-type", "application/json")], br#"{"x":1}"#).unwrap(), structured);
    }

    #[test]
    fn the_content_type_of_a_binary_event_is_its_datas() {
        let event = binary(&[("content-type", "application/vnd.acme+json; charset=utf-8")], b"{}").unwrap();
        assert_eq!(event.datacontenttype.as_deref(), Some("application/vnd.acme+json; charset=utf-8"));
        let refused = binary(&[("ce-datacontenttype", "application/json")], b"{}").unwrap_err();
        assert!(refused.to_string().contains("Content-Type"), "{refused}");
    }

    #[test]
    fn every_attribute_comes_from_its_header() {
        let more = [
            ("ce-source", "\"a \\\"quoted\\\" caf%C3%A9\""),
            ("ce-time", "2025-09-16T21:41:41Z"),
            ("ce-subject", "s%20t"),
            ("ce-dataversion", "3"),
            ("ce-correlationid", "01890000-0000-7000-8000-000000000001"),
            ("ce-traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("ce-mine", "12"),
        ];
        let event = binary(&more, b"").unwrap();
        assert_eq!(event.source, "a \"quoted\" café");
        assert_eq!(event.time, "2025-09-16T21:41:41Z".parse().unwrap());
        assert_eq!((event.subject.as_deref(), event.dataversion), (Some("s t"), 3));
        assert!(event.correlationid.is_some() && event.traceparent.is_some() && event.data.is_empty());
        assert_eq!(event.extensions["mine"], "12", "the binding has texts only");
    }

    #[test]
    fn bad_binary_events_are_refused_with_the_attribute() {
        for (header, reason) in [
            (("ce-source", "%zz"), "`source` is not percent-encoded"),
            (("ce-source", "\"open"), "`source` is not percent-encoded"),
            (("ce-time", "yesterday"), "`time`"),
            (("ce-specversion", "0.3"), "`specversion`"),
            (("ce-dataversion", "one"), "`dataversion`"),
            (("ce-data", "{}"), "`data` belongs into the body"),
            (("ce-my_own", "x"), "`my_own`"),
        ] {
            let refused = binary(&[header], b"{}").unwrap_err();
            assert!(refused.to_string().contains(reason), "{header:?}: {refused}");
        }
        assert!(matches!(binary(&[], b"[1]"), Err(EventError::Attribute { .. })));
        assert!(matches!(binary(&[], b"{"), Err(EventError::Malformed(_))));
        let large = vec![b' '; MAX_EVENT_BYTES + 1];
        assert!(matches!(binary(&[], &large), Err(EventError::TooLong { .. })));
    }

    #[test]
    fn headers_are_percent_decoded() {
        assert_eq!(percent_decoded(b"caf%C3%A9 %25").as_deref(), Some("café %"));
        for broken in [&b"%"[..], b"%4", b"%zz", b"%ff"] {
            assert_eq!(percent_decoded(broken), None);
        }
    }

    fn checked(form: EventsForm, body: &str) -> Checked {
        check(form, &HeaderMap::new(), body.as_bytes(), arrival()).unwrap()
    }

    #[test]
    fn a_batch_keeps_its_good_events_and_names_the_bad_ones() {
        let checked = checked(EventsForm::Batch, &format!("[{EVENT}, {{}}, {EVENT}]"));
        assert_eq!((checked.ids.len(), checked.records.len()), (2, 2));
        assert_eq!(checked.rejections.listed()[0].index, 1);
    }

    #[test]
    fn an_empty_batch_is_one_and_an_empty_array_is_not() {
        let empty = checked(EventsForm::Batch, " [ ] ");
        assert!(empty.records.is_empty() && empty.rejections.total() == 0);
        assert!(check(EventsForm::Json, &HeaderMap::new(), b"[]", arrival()).is_err());
    }

    #[test]
    fn nobody_else_writes_farols_account_of_itself() {
        for reserved in
            ["particoes_reatribuidas", "verificacao_alterada", "servico_registrado", "servico_removido"]
        {
            let checked = checked(EventsForm::Json, &EVENT.replace("bomba_medida", reserved));
            assert!(checked.records.is_empty());
            assert!(checked.rejections.listed()[0].error.contains(reserved));
        }
    }

    #[test]
    fn nobody_else_speaks_for_farols_policies_and_others_speak_for_theirs() {
        let measured = |caller: &str| {
            let data = format!(r#"{{"caller":"{caller}","name":"db","kind":"bulkhead","counters":{{}}}}"#);
            EVENT.replace("bomba_medida", "politica_medida").replace("{\"x\":1}", &data)
        };
        let forged = checked(EventsForm::Json, &measured("farol"));
        assert!(forged.records.is_empty());
        assert!(forged.rejections.listed()[0].error.contains("caller `farol`"));
        assert_eq!(checked(EventsForm::Json, &measured("web")).records.len(), 1);
    }

    #[test]
    fn an_event_about_a_service_that_cannot_be_read_is_refused_with_the_reason() {
        let breaker = r#"{"caller":"web","name":"db","from":"open","to":"closed"}"#;
        for (event_type, data, reason) in [
            ("metrica_coletada", "{\"x\":1}", "nome"),
            ("disjuntor_aberto", breaker, "not `open` as its type says"),
            ("politica_medida", "{}", "caller"),
        ] {
            let event = EVENT.replace("bomba_medida", event_type).replace("{\"x\":1}", data);
            let checked = checked(EventsForm::Json, &event);
            assert!(checked.records.is_empty(), "{event_type}");
            let error = &checked.rejections.listed()[0].error;
            assert!(error.contains(event_type) && error.contains(reason), "{error}");
            let counted = checked.rejections.by_reason().find(|(_, count)| *count > 0);
            assert_eq!(counted, Some((Reason::InvalidField, 1)));
        }
    }

    #[test]
    fn an_event_that_grows_beyond_what_readers_take_is_refused() {
        let numbers = vec!["1e15"; MAX_EVENT_BYTES / 6].join(",");
        let long = EVENT.replace("{\"x\":1}", &format!("{{\"x\":[{numbers}]}}"));
        assert!(long.len() < MAX_EVENT_BYTES);
        let checked = checked(EventsForm::Structured, &long);
        assert!(checked.records.is_empty());
        assert_eq!(checked.rejections.by_reason().find(|(_, count)| *count > 0), Some((Reason::TooLong, 1)));
    }
}

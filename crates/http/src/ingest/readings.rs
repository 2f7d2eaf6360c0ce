//! `POST /api/readings`: readings to durable records.

use std::borrow::Cow;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use farol_bus::{Partitioning, ProducerRecord};
use farol_event::{Reading, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::ingest::elements;
use crate::ingest::media::{self, ReadingsForm};
use crate::ingest::producers::{self, ProducerName};
use crate::ingest::rejection::{Accepted, Reason, Rejections};
use crate::openapi::{PostProblems, ReadingBody};
use crate::problem::{Kind, Problem};

/// How many readings one request may carry.
pub const MAX_READINGS: usize = 100_000;

/// Bodies above this are checked on a thread of their own: some 200 readings take half a millisecond, which is as much
/// as an async thread should spend in one go.
const CHECK_ASIDE_BYTES: usize = 48 * 1024;

/// Send readings.
///
/// One reading, an array of them, or one a line. The answer comes when what was accepted is durable. What can't be
/// accepted is listed by its index and does no harm to the rest.
#[utoipa::path(
    post,
    path = "/api/readings",
    tag = "readings",
    params(
        ("Farol-Producer" = Option<String>, Header, description = "The sender's name, shown on the pipeline page",
            max_length = 64, pattern = "^[A-Za-z0-9._:-]{1,64}$", example = "line-3-gateway"),
        ("Farol-Producer-Kind" = Option<ProducerKind>, Header, description = "What kind of sender it is"),
    ),
    request_body(
        description = "At most 16 MiB and 100 000 readings",
        content((ReadingBody = "application/json"), (String = "application/x-ndjson"))
    ),
    responses(
        (status = 202, description = "At least one reading was accepted and is durable", body = Accepted),
        PostProblems,
    )
)]
pub async fn post_readings(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let form = media::readings_form(&headers)?;
    let producer = ProducerName::from_headers(&headers)?;
    let (bytes, held) = app.collect(&headers, body, app.limits().body_bytes).await?;
    let arrival = Timestamp::from_system_time(SystemTime::now());
    let record_headers: Vec<(String, Bytes)> = producer
        .name
        .iter()
        .map(|name| (producers::PRODUCER_HEADER.to_owned(), Bytes::copy_from_slice(name.as_bytes())))
        .collect();
    let checked = if bytes.len() > CHECK_ASIDE_BYTES {
        tokio::task::spawn_blocking(move || check(form, &bytes, arrival, &record_headers))
            .await
            .map_err(|e| Problem::internal("checking the readings", &e))?
    } else {
        check(form, &bytes, arrival, &record_headers)
    };
    let Checked { records, rejections } = checked.inspect_err(|problem| {
        if problem.kind().status() == StatusCode::BAD_REQUEST {
            app.metrics().readings_rejected(Reason::Malformed, 1);
        }
    })?;
    for (reason, count) in rejections.by_reason() {
        app.metrics().readings_rejected(reason, count);
    }
    let accepted = u64::try_from(records.len()).unwrap_or(u64::MAX);
    let rejected = rejections.total();
    if accepted > 0 {
        app.producer().send(&app.topics().sensor_data, records).await?;
    }
    drop(held);
    app.metrics().readings_accepted(accepted);
    app.producers().count(&producer, accepted, rejected);
    if accepted == 0 {
        return Err(nothing_accepted(&rejections));
    }
    Ok((StatusCode::ACCEPTED, Json(rejections.into_answer(accepted))).into_response())
}

/// The kinds of sender, for the API's description.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used; the header is matched as text")]
pub(crate) enum ProducerKind {
    /// Any HTTP client.
    Http,
    /// A simulator.
    Simulator,
    /// `farol replay`.
    Replay,
    /// `farol load`.
    Load,
}

/// 400 with what would have stood in the answer.
pub(crate) fn nothing_accepted(rejections: &Rejections) -> Problem {
    let detail = match rejections.listed() {
        [only] => only.error.clone(),
        [first, ..] => format!("none of {} was accepted; the first: {}", rejections.total(), first.error),
        [] => "the request carries nothing".to_owned(),
    };
    let listed = serde_json::to_value(rejections.listed()).expect("an index and a text serialise");
    Problem::new(Kind::NothingAccepted, detail)
        .with_member("accepted", 0)
        .with_member("rejected", listed)
        .with_member("rejected_total", rejections.total())
}

/// The records of one request, and what was refused of it.
#[derive(Debug, Default)]
struct Checked {
    records: Vec<ProducerRecord>,
    rejections: Rejections,
}

/// Checks every reading of a body.
fn check(
    form: ReadingsForm,
    body: &Bytes,
    arrival: Timestamp,
    headers: &[(String, Bytes)],
) -> Result<Checked, Problem> {
    let body = without_byte_order_mark(body);
    let Some(first) = body.iter().find(|b| !b.is_ascii_whitespace()) else {
        return Err(Problem::bad_request(
            "the body is empty; send a reading such as {\"sensor_id\": \"temp-1\", \"value\": 21.5}",
        ));
    };
    let mut checked = Checked::default();
    match (form, first) {
        (ReadingsForm::Lines, _) => check_lines(&body, arrival, headers, &mut checked)?,
        (ReadingsForm::Json, b'[') => check_array(&body, arrival, headers, &mut checked)?,
        (ReadingsForm::Json, _) => {
            checked.add(0, &body, &body, arrival, headers);
            if !checked.rejections.listed().is_empty() && holds_several_values(&body) {
                return Err(Problem::bad_request(
                    "the body holds several JSON values one after another; send them with `Content-Type: \
                     application/x-ndjson`, one a line, or as one JSON array",
                ));
            }
        }
    }
    Ok(checked)
}

fn check_lines(
    body: &Bytes,
    arrival: Timestamp,
    headers: &[(String, Bytes)],
    checked: &mut Checked,
) -> Result<(), Problem> {
    let mut start = 0;
    for (index, end) in memchr::memchr_iter(b'\n', body).chain([body.len()]).enumerate() {
        let line = body.get(start..end).unwrap_or_default().trim_ascii();
        start = end + 1;
        if line.is_empty() {
            continue;
        }
        checked.add(index, body, line, arrival, headers);
        checked.within_bound()?;
    }
    Ok(())
}

fn check_array(
    body: &Bytes,
    arrival: Timestamp,
    headers: &[(String, Bytes)],
    checked: &mut Checked,
) -> Result<(), Problem> {
    let count = elements::for_each(body, MAX_READINGS + 1, |index, json| {
        checked.add(index, body, json, arrival, headers);
    })
    .map_err(|e| Problem::bad_request(format!("the body is not a JSON array of readings: {e}")))?;
    checked.within_bound()?;
    if count == 0 {
        return Err(Problem::bad_request("the array is empty"));
    }
    Ok(())
}

impl Checked {
    /// Checks one reading, `json` being a part of `body`.
    fn add(
        &mut self,
        index: usize,
        body: &Bytes,
        json: &[u8],
        arrival: Timestamp,
        headers: &[(String, Bytes)],
    ) {
        match Reading::parse(json, arrival) {
            Ok(reading) => {
                let key = match reading.sensor_id {
                    Cow::Borrowed(id) => body.slice_ref(id.as_bytes()),
                    Cow::Owned(id) => Bytes::from(id),
                };
                self.records.push(ProducerRecord {
                    partitioning: Partitioning::ByKey,
                    key: Some(key),
                    value: Some(body.slice_ref(json)),
                    timestamp_ms: arrival.as_millis(),
                    headers: headers.to_vec(),
                });
            }
            Err(error) => self.rejections.push(index, Reason::from(&error), &error),
        }
    }

    fn within_bound(&self) -> Result<(), Problem> {
        let total =
            u64::try_from(self.records.len()).unwrap_or(u64::MAX).saturating_add(self.rejections.total());
        if total > MAX_READINGS as u64 {
            return Err(Problem::new(
                Kind::TooLarge,
                format!("more than {MAX_READINGS} readings in one request; send them in several"),
            ));
        }
        Ok(())
    }
}

/// Windows tools put one at the start of UTF-8 files.
fn without_byte_order_mark(body: &Bytes) -> Bytes {
    if body.starts_with(b"\xef\xbb\xbf") { body.slice(3..) } else { body.clone() }
}

/// Whether a body that is no single JSON value begins with a whole object and goes on with another.
fn holds_several_values(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct AnyObject {}
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<AnyObject>();
    matches!(values.next(), Some(Ok(_)))
        && body.get(values.byte_offset()..).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(form: ReadingsForm, body: &'static [u8]) -> Result<Checked, Problem> {
        check(form, &Bytes::from_static(body), Timestamp::from_millis_clamped(1_700_000_000_000), &[])
    }

    fn value(checked: &Checked, index: usize) -> &[u8] {
        checked.records[index].value.as_deref().unwrap()
    }

    #[test]
    fn a_records_value_is_the_senders_text_untouched() {
        let checked =
            checked(ReadingsForm::Json, b"{ \"value\":1.50,\n \"sensor_id\":\"a\", \"x\": [1 , 2] }")
                .unwrap();
        assert_eq!(value(&checked, 0), b"{ \"value\":1.50,\n \"sensor_id\":\"a\", \"x\": [1 , 2] }");
        assert_eq!(checked.records[0].key.as_deref(), Some(&b"a"[..]));
    }

    #[test]
    fn lines_are_split_at_newlines_and_bad_ones_are_named_by_line() {
        let body = b"\xef\xbb\xbf{\"sensor_id\":\"a\",\"value\":1}\r\n\n{\"sensor_id\":\"b\"}\n  {\"sensor_id\":\"c\",\"value\":3}";
        let checked = checked(ReadingsForm::Lines, body).unwrap();
        assert_eq!(checked.records.len(), 2);
        assert_eq!(value(&checked, 0), b"{\"sensor_id\":\"a\",\"value\":1}");
        assert_eq!(value(&checked, 1), b"{\"sensor_id\":\"c\",\"value\":3}");
        let [rejected] = checked.rejections.listed() else { panic!("{:?}", checked.rejections) };
        assert_eq!(rejected.index, 2);
        assert!(rejected.error.contains("value"), "{}", rejected.error);
    }

    #[test]
    fn elements_of_an_array_are_judged_one_by_one() {
        let checked = checked(
            ReadingsForm::Json,
            b"[{\"sensor_id\":\"a\",\"value\":1}, 7, {\"sensor_id\":\"b\",\"value\":2 } ]",
        )
        .unwrap();
        assert_eq!(checked.records.len(), 2);
        assert_eq!(value(&checked, 1), b"{\"sensor_id\":\"b\",\"value\":2 }");
        assert_eq!(checked.rejections.listed()[0].index, 1);
    }

    #[test]
    fn newline_delimited_objects_sent_as_json_are_told_the_right_content_type() {
        let problem = checked(
            ReadingsForm::Json,
            b"{\"sensor_id\":\"a\",\"value\":1}\n{\"sensor_id\":\"b\",\"value\":2}\n",
        )
        .unwrap_err();
        assert!(problem.detail().contains("application/x-ndjson"), "{}", problem.detail());
    }

    #[test]
    fn empty_bodies_and_arrays_are_refused() {
        for body in [&b""[..], b" \n\t ", b"[]", b"[", b"[1,", b"\xef\xbb\xbf"] {
            let problem = checked(ReadingsForm::Json, body).unwrap_err();
            assert_eq!(problem.kind().status(), 400, "{body:?}");
        }
    }

    #[test]
    fn a_body_of_very_many_tiny_elements_is_refused_as_too_many() {
        let body = Bytes::from(format!("[{}1]", "1,".repeat(MAX_READINGS)));
        let problem = check(ReadingsForm::Json, &body, Timestamp::EPOCH, &[]).unwrap_err();
        assert_eq!(problem.kind(), Kind::TooLarge);
        let body = Bytes::from("1\n".repeat(MAX_READINGS + 10));
        let problem = check(ReadingsForm::Lines, &body, Timestamp::EPOCH, &[]).unwrap_err();
        assert_eq!(problem.kind(), Kind::TooLarge);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let body = Bytes::from(body);
            for form in [ReadingsForm::Json, ReadingsForm::Lines] {
                let _judged = check(form, &body, Timestamp::EPOCH, &[]);
            }
        }

        #[test]
        fn every_line_is_either_accepted_or_rejected(
            lines in proptest::collection::vec("(\\{\"sensor_id\":\"[a-z]\",\"value\":[0-9]{1,3}\\})|[a-z{}\":]{1,12}", 1..40)
        ) {
            let body = Bytes::from(lines.join("\n"));
            let checked = check(ReadingsForm::Lines, &body, Timestamp::EPOCH, &[]).unwrap();
            let total = checked.records.len() as u64 + checked.rejections.total();
            proptest::prop_assert_eq!(total, lines.len() as u64);
        }
    }
}

//! Which form a body has, by its content type.

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::problem::Problem;

/// The forms that `POST /api/readings` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingsForm {
    /// One JSON value: an object or an array of them.
    Json,
    /// One object a line.
    Lines,
}

/// The forms that `POST /api/events` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventsForm {
    /// One event with its attributes in JSON.
    Structured,
    /// An array of events.
    Batch,
    /// Attributes in `ce-` headers, `data` in the body.
    Binary,
    /// Plain JSON: an event or an array of events.
    Json,
}

/// The form of readings that the headers announce. No content type counts as JSON.
///
/// # Errors
/// 415 for every other content type.
pub fn readings_form(headers: &HeaderMap) -> Result<ReadingsForm, Problem> {
    match media_type(headers)?.as_deref() {
        None | Some("application/json") => Ok(ReadingsForm::Json),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => Ok(ReadingsForm::Lines),
        Some(other) => Err(Problem::unsupported_media_type(format!(
            "`{other}` is not accepted; send `Content-Type: application/json` (one reading or an array) or \
             `application/x-ndjson` (one reading a line)"
        ))),
    }
}

/// The form of events that the headers announce. No content type counts as JSON.
///
/// # Errors
/// 415 for a content type that is neither CloudEvents' nor JSON.
pub fn events_form(headers: &HeaderMap) -> Result<EventsForm, Problem> {
    // One that was forgotten is missed better as an attribute than as a wrong content type.
    let required = ["ce-specversion", "ce-id", "ce-type", "ce-source"];
    let binary = required.iter().any(|name| headers.contains_key(*name));
    match media_type(headers)?.as_deref() {
        Some("application/cloudevents+json") => Ok(EventsForm::Structured),
        Some("application/cloudevents-batch+json") => Ok(EventsForm::Batch),
        None | Some("application/json") if binary => Ok(EventsForm::Binary),
        None | Some("application/json") => Ok(EventsForm::Json),
        Some(other)
            if binary && other.ends_with("+json") && !other.starts_with("application/cloudevents") =>
        {
            Ok(EventsForm::Binary)
        }
        Some(other) => Err(Problem::unsupported_media_type(format!(
            "`{other}` is not accepted; send `application/cloudevents+json`, `application/cloudevents-batch+json`, or \
             `ce-` headers with a body of `application/json` or another type of JSON"
        ))),
    }
}

/// Asks for JSON. No content type counts as JSON.
///
/// # Errors
/// 415 for every other content type.
pub fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers)?.as_deref() {
        None | Some("application/json") => Ok(()),
        Some(other) => Err(Problem::unsupported_media_type(format!(
            "`{other}` is not accepted; send `application/json`"
        ))),
    }
}

/// The media type in lower case, without parameters.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::unsupported_media_type("more than one Content-Type was sent"));
    }
    let Ok(text) = first.to_str() else {
        return Err(Problem::unsupported_media_type("the Content-Type is not plain text"));
    };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim_matches('"');
        if name.eq_ignore_ascii_case("charset")
            && !value.eq_ignore_ascii_case("utf-8")
            && !value.eq_ignore_ascii_case("us-ascii")
        {
            return Err(Problem::unsupported_media_type("only UTF-8 is accepted; leave the charset out"));
        }
    }
    Ok(Some(essence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(content_type: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        headers
    }

    #[test]
    fn parameters_and_letter_case_do_not_matter() {
        assert_eq!(readings_form(&with("Application/JSON; charset=UTF-8")).unwrap(), ReadingsForm::Json);
        assert_eq!(readings_form(&with("application/x-ndjson")).unwrap(), ReadingsForm::Lines);
        assert_eq!(readings_form(&HeaderMap::new()).unwrap(), ReadingsForm::Json);
    }

    #[test]
    fn other_types_and_charsets_are_refused_with_what_would_do() {
        for refused in
            ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""]
        {
            let problem = readings_form(&with(refused)).unwrap_err();
            assert_eq!(problem.kind().status(), 415, "{refused}");
        }
        let problem = readings_form(&with("application/x-www-form-urlencoded")).unwrap_err();
        assert!(problem.detail().contains("application/json"), "{}", problem.detail());
    }

    #[test]
    fn ce_headers_make_a_json_body_binary_mode() {
        let mut headers = with("application/json");
        assert_eq!(events_form(&headers).unwrap(), EventsForm::Json);
        headers.insert("ce-specversion", "1.0".parse().unwrap());
        assert_eq!(events_form(&headers).unwrap(), EventsForm::Binary);
        assert_eq!(events_form(&with("application/cloudevents-batch+json")).unwrap(), EventsForm::Batch);
        let mut headers = with("application/vnd.acme+json");
        assert_eq!(events_form(&headers).unwrap_err().kind().status(), 415);
        headers.insert("ce-id", "1".parse().unwrap());
        assert_eq!(events_form(&headers).unwrap(), EventsForm::Binary);
        for structured in ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"] {
            headers.insert(CONTENT_TYPE, structured.parse().unwrap());
            assert_eq!(events_form(&headers).unwrap(), EventsForm::Structured, "the content type decides");
        }
        for refused in ["application/cloudevents+avro", "application/cloudevents", "text/plain"] {
            headers.insert(CONTENT_TYPE, refused.parse().unwrap());
            assert_eq!(events_form(&headers).unwrap_err().kind().status(), 415, "{refused}");
        }
    }
}

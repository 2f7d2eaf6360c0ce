//! What a client asked for: which streams, and of them what.
//!
//! # Rules
//! - A value is one of a list separated by commas, or of a parameter that is repeated; a record passes a filter if it fits
//!   one of its values, and passes if it passes every filter that concerns its stream. `type` and `source` concern
//!   `alert`, `event` and `pipeline`; `severity` concerns `alert`.
//! - `sensor_id` says which readings: every one of these sensors, instead of the newest of each.
//! - Without `events`, the streams are those that every given filter concerns, and `reading` if `sensor_id` is given:
//!   who asks for a type doesn't get all alerts beside it. With neither filter nor `events`, all streams.
//!
//! # Limits
//! [`MAX_VALUES`] values a filter. A source that has a comma in it can't be asked for.
//!
//! # Failures
//! A name or a value that is not known, and a filter that concerns none of the streams that are asked for, is refused with
//! the reason: a filter that is misspelt and ignored answers a question that was not asked.

use std::str::FromStr;
use std::sync::Arc;

use farol_event::Severity;
use farol_event::envelope::MAX_ATTRIBUTE_BYTES;
use farol_event::reading::MAX_SENSOR_ID_BYTES;

use crate::stream::frame::{PerStream, Scope, Stream};

/// How many values one filter may have.
pub const MAX_VALUES: usize = 64;

/// What a client asked for. Two that are equal are answered with the same frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    streams: PerStream<bool>,
    /// Sorted, without repetitions, as all of them; empty: any.
    types: Vec<String>,
    sources: Vec<String>,
    severities: Vec<Severity>,
    /// Empty: the newest reading of each.
    sensors: Vec<Arc<str>>,
}

/// What filters look at in a record of topics `alerts` and `system-events`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) stream: Stream,
    pub(crate) event_type: &'a str,
    pub(crate) source: &'a str,
    /// Of an alert.
    pub(crate) severity: Option<Severity>,
}

impl Wish {
    /// Reads the parameters that say what is wanted; others are left to the caller.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub(crate) fn from_parameters<'p>(
        parameters: impl IntoIterator<Item = (&'p str, &'p str)>,
    ) -> Result<Self, String> {
        let mut raw = Raw::default();
        for (name, value) in parameters {
            raw.take(name, value)?;
        }
        raw.resolve()
    }

    pub(crate) fn wants_stream(&self, stream: Stream) -> bool {
        self.streams.get(stream as usize).copied().unwrap_or(false)
    }

    /// Whether this record is wanted.
    pub(crate) fn wants(&self, subject: &Subject<'_>) -> bool {
        let any_or = |list: &[String], text: &str| list.is_empty() || list.iter().any(|item| item == text);
        self.wants_stream(subject.stream)
            && any_or(&self.types, subject.event_type)
            && any_or(&self.sources, subject.source)
            && (self.severities.is_empty()
                || subject.severity.is_none_or(|severity| self.severities.contains(&severity)))
    }

    /// Whether these readings are wanted.
    pub(crate) fn wants_readings(&self, scope: &Scope) -> bool {
        self.wants_stream(Stream::Reading)
            && match scope {
                Scope::Overview => self.sensors.is_empty(),
                Scope::Sensor(id) => self.sensors.contains(id),
            }
    }

    /// The readings that are wanted; none if the stream is not.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        if !self.wants_stream(Stream::Reading) {
            Vec::new()
        } else if self.sensors.is_empty() {
            vec![Scope::Overview]
        } else {
            self.sensors.iter().cloned().map(Scope::Sensor).collect()
        }
    }

    /// Whether it takes only a part of a stream.
    pub(crate) fn is_filtered(&self) -> bool {
        !(self.types.is_empty()
            && self.sources.is_empty()
            && self.severities.is_empty()
            && self.sensors.is_empty())
    }
}

#[derive(Default)]
struct Raw {
    events: Option<PerStream<bool>>,
    types: Vec<String>,
    sources: Vec<String>,
    severities: Vec<Severity>,
    sensors: Vec<Arc<str>>,
}

impl Raw {
    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "events" | "streams" => {
                let events = self.events.get_or_insert_default();
                for word in value.split(',') {
                    let stream = Stream::from_name(word.trim()).ok_or_else(|| {
                        format!(
                            "`{name}` must be a list, separated by commas, of reading, alert, event, pipeline"
                        )
                    })?;
                    if let Some(wanted) = events.get_mut(stream as usize) {
                        *wanted = true;
                    }
                }
                Ok(())
            }
            "type" => add(&mut self.types, name, value, |text| bounded(text, MAX_ATTRIBUTE_BYTES)),
            "source" => add(&mut self.sources, name, value, |text| bounded(text, MAX_ATTRIBUTE_BYTES)),
            "severity" => add(&mut self.severities, name, value, |text| {
                Severity::from_str(text).map_err(|error| error.to_string())
            }),
            "sensor_id" => {
                add(&mut self.sensors, name, value, |text| bounded(text, MAX_SENSOR_ID_BYTES).map(Arc::from))
            }
            _ => Err(format!(
                "unknown parameter `{name}`, expected one of `events`, `type`, `source`, `severity`, `sensor_id`, `last_event_id`"
            )),
        }
    }

    fn resolve(self) -> Result<Wish, String> {
        let facts = [Stream::Alert, Stream::Event, Stream::Pipeline];
        // Each filter that was given, with the streams that it concerns.
        let given = [
            ("type", !self.types.is_empty(), facts.as_slice()),
            ("source", !self.sources.is_empty(), facts.as_slice()),
            ("severity", !self.severities.is_empty(), &[Stream::Alert]),
            ("sensor_id", !self.sensors.is_empty(), &[Stream::Reading]),
        ];
        let given = || given.iter().filter(|(_, is_given, _)| *is_given);
        let streams = match self.events {
            Some(events) => {
                let asked = |stream: &Stream| events.get(*stream as usize).copied().unwrap_or(false);
                if let Some((name, _, _)) = given().find(|(_, _, concerned)| !concerned.iter().any(asked)) {
                    return Err(format!("`{name}` concerns none of the streams that `events` asks for"));
                }
                events
            }
            None => {
                let narrowing = || given().filter(|(name, _, _)| *name != "sensor_id");
                let by_filters = |stream| narrowing().all(|(_, _, concerned)| concerned.contains(&stream));
                let by_sensor = |stream| stream == Stream::Reading && !self.sensors.is_empty();
                Stream::ALL.map(|stream| by_filters(stream) || by_sensor(stream))
            }
        };
        Ok(Wish {
            streams,
            types: sorted(self.types),
            sources: sorted(self.sources),
            severities: sorted(self.severities),
            sensors: sorted(self.sensors),
        })
    }
}

fn add<T>(
    list: &mut Vec<T>,
    name: &str,
    values: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), String> {
    for value in values.split(',') {
        if list.len() == MAX_VALUES {
            return Err(format!("`{name}` has more than {MAX_VALUES} values"));
        }
        list.push(parse(value.trim()).map_err(|problem| format!("`{name}`: {problem}"))?);
    }
    Ok(())
}

fn bounded(text: &str, most: usize) -> Result<String, String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("a value must have 1 to {most} bytes"));
    }
    Ok(text.to_owned())
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(query: &[(&str, &str)]) -> Result<Wish, String> {
        Wish::from_parameters(query.iter().copied())
    }

    fn streams(query: &[(&str, &str)]) -> Vec<&'static str> {
        let wish = wish(query).unwrap();
        Stream::ALL.into_iter().filter(|s| wish.wants_stream(*s)).map(Stream::as_str).collect()
    }

    #[test]
    fn streams_follow_from_the_filters_unless_they_are_named() {
        assert_eq!(streams(&[]), ["reading", "alert", "event", "pipeline"]);
        assert_eq!(streams(&[("sensor_id", "a")]), ["reading", "alert", "event", "pipeline"]);
        assert_eq!(streams(&[("type", "x")]), ["alert", "event", "pipeline"]);
        assert_eq!(streams(&[("severity", "critical"), ("source", "s")]), ["alert"]);
        assert_eq!(streams(&[("severity", "critical"), ("sensor_id", "a")]), ["reading", "alert"]);
        assert_eq!(streams(&[("events", "alert, reading")]), ["reading", "alert"]);
        assert_eq!(streams(&[("streams", "event"), ("events", "alert")]), ["alert", "event"]);
        assert_eq!(streams(&[("events", "event,alert"), ("severity", "info")]), ["alert", "event"]);
    }

    #[test]
    fn a_record_passes_if_it_passes_every_filter_that_concerns_its_stream() {
        let wish =
            wish(&[("type", "a,b"), ("type", "c"), ("source", "s"), ("events", "event,alert")]).unwrap();
        let event = Subject { stream: Stream::Event, event_type: "c", source: "s", severity: None };
        assert!(wish.wants(&event));
        assert!(wish.wants(&Subject { event_type: "a", ..event }));
        assert!(!wish.wants(&Subject { event_type: "d", ..event }));
        assert!(!wish.wants(&Subject { source: "other", ..event }));
        assert!(!wish.wants(&Subject { stream: Stream::Pipeline, ..event }));
        let severe = self::wish(&[("severity", "ERROR,critical"), ("events", "alert,event")]).unwrap();
        let alert = Subject { stream: Stream::Alert, severity: Some(Severity::Error), ..event };
        assert!(severe.wants(&alert));
        assert!(!severe.wants(&Subject { severity: Some(Severity::Info), ..alert }));
        assert!(severe.wants(&event), "an event has no severity");
    }

    #[test]
    fn readings_are_those_of_the_sensors_or_the_newest_of_each() {
        let some = wish(&[("sensor_id", "b,a"), ("sensor_id", "b")]).unwrap();
        assert_eq!(some.scopes(), [Scope::Sensor("a".into()), Scope::Sensor("b".into())]);
        assert!(some.wants_readings(&Scope::Sensor("a".into())));
        assert!(!some.wants_readings(&Scope::Sensor("c".into())) && !some.wants_readings(&Scope::Overview));
        assert_eq!(wish(&[]).unwrap().scopes(), [Scope::Overview]);
        assert!(wish(&[("events", "alert")]).unwrap().scopes().is_empty());
    }

    #[test]
    fn the_same_wish_in_other_words_is_the_same() {
        assert_eq!(wish(&[("type", "a,b")]), wish(&[("type", "b"), ("type", "a"), ("type", "b")]));
        assert_ne!(wish(&[("type", "a")]), wish(&[("source", "a")]));
    }

    #[test]
    fn what_is_unknown_or_senseless_is_refused_with_the_reason() {
        let long = "x".repeat(1025);
        let many = vec!["x"; 65].join(",");
        for (query, reason) in [
            (vec![("events", "weather")], "reading, alert, event, pipeline"),
            (vec![("streams", "")], "`streams` must be a list"),
            (vec![("severity", "bad")], "not a severity"),
            (vec![("type", "a,,b")], "1 to 1024 bytes"),
            (vec![("source", "")], "`source`"),
            (vec![("source", &long)], "1 to 1024 bytes"),
            (vec![("sensor_id", "")], "1 to 256 bytes"),
            (vec![("type", &many)], "more than 64 values"),
            (vec![("events", "reading"), ("type", "x")], "`type` concerns none"),
            (vec![("events", "event"), ("severity", "info")], "`severity` concerns none"),
            (vec![("typ", "x")], "unknown parameter `typ`"),
        ] {
            let refused = wish(&query).unwrap_err();
            assert!(refused.contains(reason), "{query:?}: {refused}");
        }
    }
}

//! What rules judge: one value of one series. A sensor's reading is one; so is what an event tells of a service:
//!
//! * `metrica_coletada`: a value of the series that service, metric and tags make;
//! * `sistema_indisponivel`, `sistema_recuperado`: 0 and 1 of the service's metric `available`;
//! * `servico_parado`, `servico_removido`: the end of the service's series ([`ServiceEnd`]).
//!
//! A service's series is named as Prometheus writes it, `response_time_ms{service="shop",endpoint="/pay"}`: service first, tags in
//! order of their names, and a metric whose name is no plain word in quotes within the braces, so that no two series share a name.

use std::fmt::Write as _;

use farol_event::service::names::AVAILABLE;
use farol_event::{Event, EventType, Reading, ServiceFact, ServiceFactError, Timestamp};

use crate::selector::{METRIC, SERVICE, SeriesLabels, ServiceLabels};

/// One value of one series.
#[derive(Debug, Clone, Copy)]
pub struct Measurement<'a> {
    /// The series and its labels.
    pub labels: SeriesLabels<'a>,
    /// When it was so.
    pub at: Timestamp,
    /// The value.
    pub value: f64,
    /// How far its sender trusts it, 0..=1.
    pub quality: Option<f64>,
    /// It tells of a state rather than of a quantity: of two, the one told later counts, whatever clocks say. If its time is older
    /// than the newest of its series, it is judged at that one instead of being late.
    pub in_order: bool,
}

impl<'a> From<&'a Reading<'_>> for Measurement<'a> {
    fn from(reading: &'a Reading<'_>) -> Self {
        Self {
            labels: SeriesLabels::from(reading),
            at: reading.timestamp,
            value: reading.value,
            quality: reading.quality,
            in_order: false,
        }
    }
}

/// What an event tells of a service that concerns rules.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceNews {
    /// A value of one of its series.
    Sample(ServiceSample),
    /// Its series end.
    Ended {
        /// The service.
        service: String,
        /// How.
        how: ServiceEnd,
    },
}

/// How a service's series end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceEnd {
    /// It said that it stops. Whether it is available is still asked for.
    Stopped,
    /// Somebody removed it.
    Removed,
}

/// What an event tells of a service, as a value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSample {
    series: String,
    unit: String,
    labels: ServiceLabels,
    at: Timestamp,
    value: f64,
    in_order: bool,
}

impl ServiceNews {
    /// Whether an event of this type claims to tell something that concerns rules.
    pub fn is_claimed_by(event_type: &str) -> bool {
        [
            EventType::METRIC_COLLECTED,
            EventType::SYSTEM_UNAVAILABLE,
            EventType::SYSTEM_RECOVERED,
            EventType::SERVICE_STOPPED,
            EventType::SERVICE_REMOVED,
        ]
        .iter()
        .any(|claims| claims.as_str() == event_type)
    }

    /// What the event tells, if it is of a type that concerns rules.
    ///
    /// # Errors
    /// When it claims to and doesn't.
    pub fn of(event: &Event) -> Result<Option<Self>, ServiceFactError> {
        if !Self::is_claimed_by(event.event_type.as_str()) {
            return Ok(None);
        }
        let Some(fact) = ServiceFact::of(event).transpose()? else { return Ok(None) };
        let ended = |how| Ok(Some(Self::Ended { service: event.source.clone(), how }));
        let available = |value| (AVAILABLE.to_owned(), value, String::new(), Default::default(), true);
        let (metric, value, unit, tags, in_order) = match fact {
            ServiceFact::Metric(metric) => {
                (metric.name, metric.value, metric.unit.unwrap_or_default(), metric.tags, false)
            }
            ServiceFact::Unavailable(_) => available(0.0),
            ServiceFact::Recovered(_) => available(1.0),
            ServiceFact::Stopped(_) => return ended(ServiceEnd::Stopped),
            ServiceFact::Removed => return ended(ServiceEnd::Removed),
            _ => return Ok(None),
        };
        let labels = ServiceLabels { service: event.source.clone(), metric, tags };
        let series = series_name(&labels);
        Ok(Some(Self::Sample(ServiceSample { series, unit, labels, at: event.time, value, in_order })))
    }

    /// The service.
    pub fn service(&self) -> &str {
        match self {
            ServiceNews::Sample(sample) => sample.service(),
            ServiceNews::Ended { service, .. } => service,
        }
    }
}

impl ServiceSample {
    /// The service.
    pub fn service(&self) -> &str {
        &self.labels.service
    }

    /// The name of its series.
    pub fn series(&self) -> &str {
        &self.series
    }

    /// As rules judge it.
    pub fn measurement(&self) -> Measurement<'_> {
        Measurement {
            labels: SeriesLabels {
                sensor_id: &self.series,
                unit: &self.unit,
                service: Some(&self.labels),
                ..SeriesLabels::default()
            },
            at: self.at,
            value: self.value,
            quality: None,
            in_order: self.in_order,
        }
    }
}

/// `response_time_ms{service="shop",endpoint="/pay"}`.
fn series_name(labels: &ServiceLabels) -> String {
    let mut name = String::with_capacity(64);
    let plain = is_plain(&labels.metric);
    name.push_str(if plain { &labels.metric } else { "" });
    name.push('{');
    if !plain {
        quoted(&mut name, &labels.metric);
        name.push(',');
    }
    name.push_str(SERVICE);
    name.push('=');
    quoted(&mut name, &labels.service);
    for (tag, value) in &labels.tags {
        name.push(',');
        // A tag of that name would read as if it were the service.
        if is_plain(tag) && tag != SERVICE && tag != METRIC {
            name.push_str(tag);
        } else {
            quoted(&mut name, tag);
        }
        name.push('=');
        quoted(&mut name, value);
    }
    name.push('}');
    name
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                let _ = write!(out, "\\{c}");
            }
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests;

//! What `/metrics` says of watched services.
//!
//! Only services that the settings or the API have watched have lines, not every one that events tell of: so there are at most
//! [`MAX_SERVICES`](farol_registry::MAX_SERVICES) of them with [`MAX_CHECKS`](farol_registry::definition::MAX_CHECKS) checks each, whatever
//! is sent. State and values are those of the view, results of checks are counted since Farol's start.

use farol_event::Timestamp;
use farol_registry::ServiceId;
use farol_registry::catalogue::Entry;
use farol_view::query::services::{ServiceNumbers, ServiceState};

use super::{Sample, SampleValue, as_float};

/// The lines. `told` is what the view has of them.
pub(crate) fn samples(watched: &[(ServiceId, Entry)], told: &[ServiceNumbers]) -> Vec<Sample> {
    let states = told.iter().flat_map(|numbers| {
        ServiceState::ALL.map(|state| {
            let help = "1 for the state that a watched service is in, 0 for the others";
            let value = if numbers.state == state { 1.0 } else { 0.0 };
            let mut sample = gauge("farol_service_state", help, &numbers.service, value);
            sample.labels.push(("state", state.as_str().to_owned()));
            sample
        })
    });
    let checked = told.iter().filter_map(|numbers| {
        let help = "When a watched service was last checked, or last sent a heartbeat, since the Unix epoch";
        let at = seconds(numbers.last_check_at?);
        Some(gauge("farol_service_last_check_timestamp_seconds", help, &numbers.service, at))
    });
    let response_times = told.iter().filter_map(|numbers| {
        let help = "The newest response time of a watched service";
        let value = numbers.response_time_ms? / 1000.0;
        Some(gauge("farol_service_response_time_seconds", help, &numbers.service, value))
    });
    let errors = told.iter().filter_map(|numbers| {
        let help = "The newest error rate that a watched service told, from 0 to 1";
        let value = numbers.error_rate_percent? / 100.0;
        Some(gauge("farol_service_error_ratio", help, &numbers.service, value))
    });
    let results = watched.iter().flat_map(|(service, entry)| {
        entry.results.iter().flat_map(move |(check, results)| {
            [("passed", results.passed()), ("failed", results.failed())].map(|(outcome, count)| Sample {
                name: "farol_service_check_results",
                help: "Results of a watched service's checks",
                labels: vec![
                    ("service", service.to_string()),
                    ("check", check.to_string()),
                    ("outcome", outcome.to_owned()),
                ],
                value: SampleValue::Counter(count),
            })
        })
    });
    states.chain(checked).chain(response_times).chain(errors).chain(results).collect()
}

fn gauge(name: &'static str, help: &'static str, service: &str, value: f64) -> Sample {
    Sample { name, help, labels: vec![("service", service.to_owned())], value: SampleValue::Gauge(value) }
}

fn seconds(at: Timestamp) -> f64 {
    as_float(u64::try_from(at.as_micros()).unwrap_or(0)) / 1e6
}

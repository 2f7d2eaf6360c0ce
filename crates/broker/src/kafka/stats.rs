//! The server in numbers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use farol_log::{DurationCounts, Durations};
use kafka_protocol::ResponseError;
use parking_lot::Mutex;

use super::admission::{Admission, Refused};
use super::apis::Apis;
use super::connection::Ended;

/// The server in numbers, since its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KafkaStats {
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were taken.
    pub connections_taken: u64,
    /// Connections refused because as many were open as may be, in total or of their address.
    pub connections_refused: u64,
    /// Connections ended because of a request that could not be read or that nobody serves.
    pub invalid_requests: u64,
    /// Connections ended because half a request, or room for it, was waited for too long.
    pub stalled_requests: u64,
    /// Connections ended because an answer was not taken in time.
    pub stalled_answers: u64,
    /// Connections ended because there was no room for an answer.
    pub answers_refused: u64,
    /// Connections ended because nothing came for too long.
    pub idle: u64,
    /// Connections ended because they had been answered nothing yet and there was no place for a new one.
    pub made_room: u64,
    /// Clients that could not prove who they are.
    pub authentications_refused: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of answers.
    pub bytes_out: u64,
    /// Bytes of requests that aren't answered, and of answers that aren't sent, but for the first 64 KiB of each connection.
    pub in_flight_bytes: usize,
    /// By API, those that were asked for.
    pub apis: Vec<ApiStats>,
    /// By API and error code, failures that were told.
    pub errors: Vec<ErrorStats>,
}

/// One error code of one API in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorStats {
    /// The API's name: `Produce`.
    pub api: String,
    /// The code's name: `UnknownTopicOrPartition`.
    pub name: String,
    /// Times that it was told: of a request, or of each topic, partition, group or member of which it was.
    pub told: u64,
}

/// One API in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiStats {
    /// Its name: `Produce`.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// How long those took that were answered, from the whole request to the last byte of its answer. A wait for records or
    /// for other members counts too.
    pub durations: DurationCounts,
}

/// The live counters behind [`ApiStats`].
#[derive(Debug, Default)]
struct ApiCounters {
    requests: AtomicU64,
    durations: Durations,
}

/// The live counters behind [`KafkaStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    taken: AtomicU64,
    refused: AtomicU64,
    invalid_requests: AtomicU64,
    stalled_requests: AtomicU64,
    stalled_answers: AtomicU64,
    answers_refused: AtomicU64,
    idle: AtomicU64,
    made_room: AtomicU64,
    cut_off: AtomicU64,
    authentications_refused: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// In the order of the table.
    apis: Vec<ApiCounters>,
    /// By place in the table and error code: as many as there are of both, at most.
    errors: Mutex<BTreeMap<(usize, i16), u64>>,
}

impl Counters {
    pub(super) fn new(apis: &Apis) -> Self {
        Self { apis: apis.rows().iter().map(|_| ApiCounters::default()).collect(), ..Self::default() }
    }

    /// A connection was not taken.
    pub(super) fn refuse(&self, _: Refused) {
        add(&self.refused, 1);
    }

    /// A request for the API at this place of the table.
    pub(super) fn request(&self, place: usize) {
        if let Some(api) = self.apis.get(place) {
            add(&api.requests, 1);
        }
    }

    /// A request for the API at this place was answered.
    pub(super) fn answered(&self, place: usize, took: Duration) {
        if let Some(api) = self.apis.get(place) {
            api.durations.count(took);
        }
    }

    /// An error code, if it is one, was told to a client by the API at this place.
    pub(super) fn told(&self, place: usize, code: i16) {
        if code != 0 {
            *self.errors.lock().entry((place, code)).or_insert(0) += 1;
        }
    }

    /// A connection ended.
    pub(super) fn end(&self, ended: &Ended) {
        add(&self.taken, 1);
        match ended {
            Ended::Invalid(_) => add(&self.invalid_requests, 1),
            Ended::StalledRequest => add(&self.stalled_requests, 1),
            Ended::StalledAnswer => add(&self.stalled_answers, 1),
            Ended::Idle => add(&self.idle, 1),
            Ended::MadeRoom => add(&self.made_room, 1),
            Ended::Closed | Ended::Io(_) | Ended::Stopped | Ended::Said(_) => {}
        }
    }

    /// There was no room for an answer.
    pub(super) fn refuse_answer(&self) {
        add(&self.answers_refused, 1);
    }

    /// A client could not prove who it is.
    pub(super) fn refuse_authentication(&self) {
        add(&self.authentications_refused, 1);
    }

    /// Connections were cut off at the stop.
    pub(super) fn count_cut_off(&self, connections: usize) {
        add(&self.cut_off, connections as u64);
    }

    /// How many were.
    pub(super) fn cut_off(&self) -> usize {
        usize::try_from(get(&self.cut_off)).unwrap_or(usize::MAX)
    }

    pub(super) fn snapshot(&self, apis: &Apis, admission: &Admission) -> KafkaStats {
        let connections = admission.open();
        let by_api = apis.rows().iter().zip(&self.apis).map(|(row, counters)| ApiStats {
            name: format!("{:?}", row.key),
            requests: get(&counters.requests),
            durations: counters.durations.snapshot(),
        });
        KafkaStats {
            connections,
            connections_taken: get(&self.taken) + connections as u64,
            connections_refused: get(&self.refused),
            invalid_requests: get(&self.invalid_requests),
            stalled_requests: get(&self.stalled_requests),
            stalled_answers: get(&self.stalled_answers),
            answers_refused: get(&self.answers_refused),
            idle: get(&self.idle),
            made_room: get(&self.made_room),
            authentications_refused: get(&self.authentications_refused),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            in_flight_bytes: admission.request_bytes_taken() + admission.answer_bytes_taken(),
            apis: by_api.filter(|api| api.requests > 0).collect(),
            errors: self.errors(apis),
        }
    }
}

impl Counters {
    fn errors(&self, apis: &Apis) -> Vec<ErrorStats> {
        let errors = self.errors.lock();
        let named = errors.iter().filter_map(|((place, code), told)| {
            let (api, name) = (apis.rows().get(*place)?.key, ResponseError::try_from_code(*code)?);
            Some(ErrorStats { api: format!("{api:?}"), name: format!("{name:?}"), told: *told })
        });
        named.collect()
    }
}

/// Moves a counter.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

//! `GET /api/stream`: one client's stream.

#![expect(
    unused_qualifications,
    reason = "utoipa's attribute writes the types of parameters with full paths"
)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use farol_view::query::sensors::{Sensor, SensorFilter, SensorSort, SensorSortKey};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::app::App;
use crate::extract::Parameters;
use crate::openapi::StreamProblems;
use crate::problem::Problem;
use crate::stream::audience::Seat;
use crate::stream::frame::{self, Hello, PerStream, RETRY, Scope, Stream};
use crate::stream::live::{LiveReadings, MAX_SENSORS, Watching};
use crate::stream::place::Place;
use crate::stream::resume::{self, Replay, Resumption, gap};
use crate::stream::ring::Read;
use crate::stream::wish::Wish;

/// How long a stream is silent at most.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// What a client wants to be told. Only its description is used: each of these but the last may be repeated, which
/// [`Wish::from_parameters`] reads.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
struct StreamQuery {
    /// Which streams, separated by commas. If absent: those that every other filter concerns; without any, all.
    /// `streams` is another name of this parameter.
    #[param(
        pattern = "^(reading|alert|event|pipeline)(,(reading|alert|event|pipeline))*$",
        example = "reading,alert"
    )]
    events: Option<String>,
    /// Only events of these types, separated by commas. Concerns `alert`, `event` and `pipeline`.
    #[param(rename = "type", min_length = 1, example = "servico_iniciado,servico_parado")]
    event_type: Option<String>,
    /// Only what comes from these sources, separated by commas; an alert's source is its series. Concerns `alert`,
    /// `event` and `pipeline`.
    #[param(min_length = 1)]
    source: Option<String>,
    /// Only alerts of these severities, separated by commas. Concerns `alert`.
    #[param(
        pattern = "^(info|warning|error|critical)(,(info|warning|error|critical))*$",
        example = "error,critical"
    )]
    severity: Option<String>,
    /// Every reading of these sensors, separated by commas, instead of the newest of each. Concerns `reading`.
    #[param(min_length = 1)]
    sensor_id: Option<String>,
    /// The id of the newest event that the client has seen, if it can't send the header `Last-Event-ID`.
    #[param(pattern = "^1-[0-9.]*-[0-9.]*$", example = "1-17.3-204.199.230")]
    last_event_id: Option<String>,
}

/// Follow what happens.
///
/// Server-sent events. `hello` comes first; then `reading` (coalesced every 200 ms: the newest of each sensor, at most
/// 500 sensors; with `sensor_id`: every reading of that one), `alert` (a transition, at once), `event` and `pipeline`
/// (a CloudEvents event, at once). `gap` says that the client missed something of a stream and should fetch it anew.
/// `Last-Event-ID` resumes `alert`, `event` and `pipeline` from the log, none missing and none twice; with filters too:
/// a comment with the newest id comes at least every 15 s, so that what was filtered out is not gone through again.
///
/// A record comes if it fits one value of every filter that concerns its stream. Filters may be repeated.
#[utoipa::path(
    get,
    path = "/api/stream",
    tag = "stream",
    params(
        StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "Sent by browsers when they connect again; text that is no id of this stream is ignored"),
    ),
    responses(
        (status = 200, description = "The stream; it ends when the server stops", body = String, content_type = "text/event-stream"),
        StreamProblems,
    )
)]
pub async fn stream(
    State(app): State<App>,
    Parameters(query): Parameters<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (from_query, wishes): (Vec<_>, Vec<_>) =
        query.iter().map(|(n, v)| (n.as_str(), v.as_str())).partition(|(name, _)| *name == "last_event_id");
    let wish = Wish::from_parameters(wishes).map_err(Problem::bad_request)?;
    let from = match from_query.as_slice() {
        [] => last_place(&headers, None)?,
        [(_, id)] => last_place(&headers, Some(id))?,
        _ => return Err(Problem::bad_request("`last_event_id` is given more than once")),
    };
    let permit = app.hub().admit()?;
    let session = Session::open(&app, wish, from, permit).await?;
    let body = Body::from_stream(futures_util::stream::unfold(session, |mut session| async move {
        session.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), session))
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Reverse proxies such as nginx would hold events back until a buffer is full.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The place that a client has been told up to. A header that can't be read is ignored: it is not the page's doing what
/// the browser remembers, and a refusal would end its reconnecting for good.
fn last_place(headers: &HeaderMap, parameter: Option<&str>) -> Result<Option<Place>, Problem> {
    if let Some(value) = headers.get("last-event-id") {
        return Ok(value.to_str().ok().and_then(Place::parse));
    }
    parameter
        .map(|text| {
            Place::parse(text)
                .ok_or_else(|| Problem::bad_request("`last_event_id` is not the id of an event"))
        })
        .transpose()
}

/// One client.
struct Session {
    app: App,
    seat: Seat,
    /// What is to be sent before anything else.
    queue: VecDeque<Bytes>,
    replay: Option<Replay>,
    /// When the client was told an id, at the latest.
    id_told_at: Instant,
    _watching: Option<Watching>,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    async fn open(
        app: &App,
        wish: Wish,
        from: Option<Place>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Problem> {
        let hub = app.hub();
        let scopes = wish.scopes();
        let newest_of_each = scopes.contains(&Scope::Overview);
        let wants_readings = !scopes.is_empty();
        let watching = wants_readings.then(|| hub.watchers.watch(scopes));
        let (seat, to) = hub.audience.join(wish);
        let mut queue = VecDeque::from([RETRY]);
        let mut replay = None;
        let mut resumes = false;
        if let Some(from) = &from {
            match resume::resume(app.bus().as_ref(), &hub.topics, from, &to, seat.wish()).await? {
                Resumption::Nothing => {}
                Resumption::Gaps(gaps) => queue.extend(gaps),
                Resumption::Replay(from_log) => {
                    replay = Some(from_log);
                    resumes = true;
                }
            }
            if newest_of_each {
                queue.extend(missed_readings(app).await);
            } else if wants_readings {
                // Who watches single sensors has to fetch what it missed.
                queue.push_back(gap(Stream::Reading, 0));
            }
        }
        // Until the replay has caught up, the client must keep the place that it came with.
        let id = if resumes { from.as_ref().unwrap_or(&to) } else { &to }.to_string();
        queue.insert(1, hello(app, &id));
        app.metrics().stream_opened();
        Ok(Self {
            app: app.clone(),
            seat,
            queue,
            replay,
            id_told_at: Instant::now(),
            _watching: watching,
            _permit: permit,
        })
    }

    /// What is sent next. `None` when the server stops. Not cancel-safe: only ever awaited to its end or dropped for good.
    async fn next(&mut self) -> Option<Bytes> {
        let shutdown = self.app.shutdown().clone();
        loop {
            if let Some(bytes) = self.queue.pop_front() {
                return Some(bytes);
            }
            if let Some(replay) = &mut self.replay {
                let more = tokio::select! {
                    more = replay.next(&mut self.queue) => more,
                    () = shutdown.cancelled() => return None,
                };
                if !more {
                    self.replay = None;
                }
                continue;
            }
            let heartbeat_at = self.id_told_at + HEARTBEAT_EVERY;
            // Before the ring: if that turns out empty, everything up to this place has been told.
            let place = (Instant::now() >= heartbeat_at).then(|| self.app.hub().audience.place());
            match (self.seat.reader.read(), place) {
                (Read::Frame(frame), _) => {
                    if frame.stream != Stream::Reading {
                        self.id_told_at = Instant::now();
                    }
                    self.queue.push_back(frame.text.clone());
                }
                (Read::Missed(missed), _) => self.tell_gaps(&missed),
                (Read::Empty, Some(place)) => {
                    self.id_told_at = Instant::now();
                    self.queue.push_back(frame::heartbeat(&place.to_string()));
                }
                (Read::Empty, None) => {
                    tokio::select! {
                        () = self.seat.reader.wait() => {}
                        () = tokio::time::sleep_until(heartbeat_at) => {}
                        () = shutdown.cancelled() => return None,
                    }
                }
            }
        }
    }

    fn tell_gaps(&mut self, missed: &PerStream<u64>) {
        for stream in Stream::ALL {
            let count = crate::stream::ring::of(missed, stream);
            if count > 0 {
                self.app.metrics().frames_missed(stream.as_str(), count);
                self.queue.push_back(gap(stream, count));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.app.metrics().stream_closed();
    }
}

fn hello(app: &App, id: &str) -> Bytes {
    let hello = Hello { version: &app.about().version, server_time: app.now() };
    let json = serde_json::to_vec(&hello).expect("two texts serialise");
    frame::encode("hello", Some(id), &json)
}

/// A sensor's newest reading, as `reading` events have it.
#[derive(Debug, Serialize)]
struct NewestReading<'a> {
    sensor_id: &'a str,
    sensor_type: &'a str,
    timestamp: farol_event::Timestamp,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "farol_view::query::sensors::SensorLocation::is_empty")]
    location: &'a farol_view::query::sensors::SensorLocation,
}

/// What a client that comes back is told of readings: the newest of each sensor.
async fn missed_readings(app: &App) -> Option<Bytes> {
    let filter = SensorFilter {
        sort: SensorSort { key: SensorSortKey::LastSeen, descending: true },
        limit: Some(MAX_SENSORS),
        ..SensorFilter::default()
    };
    let now = app.now();
    match app.store().query(move |queries| queries.sensors(&filter, now)).await {
        Ok(page) if page.sensors.is_empty() => None,
        Ok(page) => {
            let skipped =
                usize::try_from(page.total).unwrap_or(usize::MAX).saturating_sub(page.sensors.len());
            let readings: Vec<NewestReading<'_>> = page.sensors.iter().map(newest_of).collect();
            let data = LiveReadings { total: readings.len(), readings, skipped };
            let json = serde_json::to_vec(&data).ok()?;
            Some(frame::encode(Stream::Reading.as_str(), None, &json))
        }
        Err(error) => {
            tracing::warn!(%error, "a resumed stream starts without the newest readings");
            Some(gap(Stream::Reading, 0))
        }
    }
}

fn newest_of(sensor: &Sensor) -> NewestReading<'_> {
    NewestReading {
        sensor_id: &sensor.sensor_id,
        sensor_type: &sensor.sensor_type,
        timestamp: sensor.last_timestamp,
        value: sensor.last_value,
        unit: sensor.unit.as_deref(),
        location: &sensor.location,
    }
}

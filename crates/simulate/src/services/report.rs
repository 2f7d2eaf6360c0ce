//! What Farol is told of simulated services, and what it tells them.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use farol_event::service::{Reason, ServiceDescription, SimulationApplied, SimulationChanged};
use farol_event::{DurationText, Event, EventType};
use farol_resilience::retry::Decision;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Listening, ServiceOptions, ServicesError};
use crate::client::{Answer, ClientError, Connection, RequestTemplate, ServerUrl};
use crate::event_stream::{EventStream, Followed, StreamRefused, reconnect};
use crate::upload::problem_detail;

/// How long one request to Farol may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long another simulator may take to say that it is there.
const OTHER_LIMIT: Duration = Duration::from_secs(1);
/// What kind of service simulated ones are.
const SIMULATED: &str = "simulated";
/// How often it is looked whether a command has ended.
const TICK: Duration = Duration::from_millis(200);

pub(super) struct Reporter {
    farol: ServerUrl,
    services: Vec<Listening>,
    options: ServiceOptions,
}

impl Reporter {
    pub(super) fn new(farol: ServerUrl, services: Vec<Listening>, options: ServiceOptions) -> Self {
        Self { farol, services, options }
    }

    /// Announces, reports and obeys until `shutdown`.
    pub(super) async fn run(&self, shutdown: &CancellationToken) -> Result<(), ServicesError> {
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            outcome = self.obey() => outcome,
            () = self.report() => Ok(()),
        }
    }

    /// Ends only when Farol refuses a service.
    async fn obey(&self) -> Result<(), ServicesError> {
        let mut standing = Standing::default();
        let mut last_id: Option<String> = None;
        let retry = reconnect();
        let mut tries = retry.tries();
        loop {
            let mut stream = EventStream::new(
                self.farol.clone(),
                [("events", "event"), ("type", EventType::SIMULATION_CHANGED.as_str())],
            );
            if let Some(id) = last_id.take() {
                stream = stream.after(id);
            }
            match self.follow(&mut stream, &mut standing).await {
                Failed::Refused(problem) => return Err(ServicesError::Refused(problem)),
                error if standing.reached => {
                    tracing::warn!(farol = %self.farol, %error, "Farol can't be reached; it is tried again");
                    standing.reached = false;
                    tries = retry.tries();
                }
                Failed::Client(_) | Failed::Lost(_) => {}
            }
            last_id = stream.last_id().map(str::to_owned);
            let Some(pause) = tries.decided(Decision::Retry, false) else { return Ok(()) };
            tokio::time::sleep(pause).await;
        }
    }

    /// Announces every service when the stream is open, because a command that comes right behind the announcement must be heard; then
    /// obeys until it fails.
    async fn follow(&self, stream: &mut EventStream, standing: &mut Standing) -> Failed {
        loop {
            let taken = match stream.next().await {
                Ok(Followed::Event(told)) if told.event == "hello" => self.introduce(standing).await,
                Ok(Followed::Event(told)) => match Event::parse(told.data.as_bytes(), crate::now()) {
                    Ok(event) => self.take(&event).await,
                    Err(_) => Ok(()),
                },
                Ok(Followed::Lost(reason)) => Err(Failed::Lost(reason)),
                Err(refused) => Err(refused.into()),
            };
            if let Err(failed) = taken {
                return failed;
            }
        }
    }

    /// Announces every service, and that it has started if that was not told yet.
    async fn introduce(&self, standing: &mut Standing) -> Result<(), Failed> {
        if !standing.introduced {
            // All of them before any is announced: who is refused leaves nothing behind.
            for service in &self.services {
                self.is_free(service).await?;
            }
        }
        for service in &self.services {
            self.announce(service).await?;
        }
        if !standing.introduced {
            let started = self.services.iter().flat_map(|service| {
                let address = Some(format!("http://{}", service.address));
                let kind = Some(SIMULATED.to_owned());
                let description = ServiceDescription { address, kind, ..ServiceDescription::default() };
                let applied = service.core.lock().applied(crate::now());
                [
                    event(service, EventType::SERVICE_STARTED, &description, None),
                    event(service, EventType::SIMULATION_APPLIED, &applied, None),
                ]
            });
            self.send(&started.collect::<Vec<_>>()).await?;
        }
        *standing = Standing { introduced: true, reached: true };
        Ok(())
    }

    /// Refuses a name that somebody else has: a service that is not simulated, or a simulated one that still answers. What a
    /// simulation left behind that could not say goodbye is taken over.
    async fn is_free(&self, service: &Listening) -> Result<(), Failed> {
        let answer = call(&self.farol, Method::GET, &path(service, ""), &()).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        if !answer.status.is_success() {
            return Err(ClientError::Request(problem_detail(&answer.body)).into());
        }
        let known = serde_json::from_slice::<Known>(&answer.body)
            .map_err(|error| ClientError::Request(error.to_string()))?
            .service;
        if !known.registered {
            return Ok(());
        }
        let place = known.address.as_deref().unwrap_or("an address that it does not tell");
        let name = &service.name;
        if known.kind.as_deref() != Some(SIMULATED) {
            return Err(Failed::Refused(format!(
                "`{name}` is a service that is watched already, at {place}; simulate one of another name"
            )));
        }
        match simulator_at(place) {
            Some(other)
                if !self.services.iter().any(|own| own.address == other) && answers_as(name, other).await =>
            {
                Err(Failed::Refused(format!(
                    "`{name}` is simulated already, at {place}; end that, or simulate one of another name"
                )))
            }
            _ => Ok(()),
        }
    }

    async fn announce(&self, service: &Listening) -> Result<(), Failed> {
        let interval = DurationText::new(self.options.check_interval);
        let definition = json!({
            "labels": { "simulated": "true", "kind": SIMULATED },
            "checks": [{ "http": format!("http://{}/health", service.address), "interval": interval }],
        });
        let answer = call(&self.farol, Method::PUT, &path(service, ""), &definition).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        if answer.status.is_server_error() {
            return Err(ClientError::Request(problem_detail(&answer.body)).into());
        }
        Err(Failed::Refused(format!(
            "Farol does not take `{}`: {}",
            service.name,
            problem_detail(&answer.body)
        )))
    }

    /// Obeys an event, if it is a command to one of these services.
    async fn take(&self, event: &Event) -> Result<(), Failed> {
        let Some(service) = self.services.iter().find(|service| *service.name == *event.source) else {
            return Ok(());
        };
        if event.event_type != EventType::SIMULATION_CHANGED {
            return Ok(());
        }
        let change = match serde_json::from_value::<SimulationChanged>(event.data.clone().into()) {
            Ok(change) if change.validate().is_ok() => change,
            _ => {
                tracing::warn!(service = %service.name, id = event.id, "a command that makes no sense is not obeyed");
                return Ok(());
            }
        };
        let applied = service.core.lock().command(&change, crate::now());
        self.tell_applied(service, &applied, event.correlationid).await
    }

    async fn tell_applied(
        &self,
        service: &Listening,
        applied: &SimulationApplied,
        correlation_id: Option<Uuid>,
    ) -> Result<(), Failed> {
        self.send(&[event(service, EventType::SIMULATION_APPLIED, applied, correlation_id)]).await
    }

    /// Sends metrics, and what time alone changes. Never ends.
    async fn report(&self) {
        let mut next = tokio::time::Instant::now() + self.options.metrics_interval;
        loop {
            tokio::time::sleep(TICK).await;
            let now = crate::now();
            for service in &self.services {
                let changed = service.core.lock().tick(now);
                if let Some(applied) = changed {
                    self.whatever(self.tell_applied(service, &applied, None).await);
                }
            }
            if tokio::time::Instant::now() < next {
                continue;
            }
            next += self.options.metrics_interval;
            let metrics = self.services.iter().flat_map(|service| {
                let metrics = service.core.lock().metrics(now);
                metrics
                    .into_iter()
                    .map(|metric| event(service, EventType::METRIC_COLLECTED, &metric, None))
                    .collect::<Vec<_>>()
            });
            let metrics: Vec<Event> = metrics.collect();
            self.whatever(self.send(&metrics).await);
        }
    }

    /// That Farol can't be reached is said where it is waited for.
    fn whatever(&self, outcome: Result<(), Failed>) {
        if let Err(error) = outcome {
            tracing::debug!(farol = %self.farol, %error, "something of the simulated services was not told");
        }
    }

    /// Says that they stop by intention, and ends the watch over them.
    pub(super) async fn goodbye(&self) {
        let reason = Reason { reason: Some("the simulation ends".to_owned()) };
        let stopped: Vec<_> = self
            .services
            .iter()
            .map(|service| event(service, EventType::SERVICE_STOPPED, &reason, None))
            .collect();
        // First, because of a service that isn't watched any more this would be the first that is heard again.
        self.whatever(self.send(&stopped).await);
        for service in &self.services {
            let deleted = call(&self.farol, Method::DELETE, &path(service, ""), &()).await;
            self.whatever(deleted.map(drop).map_err(Failed::from));
        }
    }

    async fn send(&self, events: &[Event]) -> Result<(), Failed> {
        let body = serde_json::to_vec(events)
            .map(Bytes::from)
            .map_err(|error| ClientError::Request(error.to_string()))?;
        let template = RequestTemplate::sending(
            Method::POST,
            &self.farol,
            "/api/events",
            "application/cloudevents-batch+json",
        )?;
        let mut connection = Connection::open(&self.farol).await?;
        let answer = connection.exchange(&template, body, ANSWER_LIMIT).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        Err(ClientError::Request(format!("{}: {}", answer.status, problem_detail(&answer.body))).into())
    }
}

/// How the simulation stands with Farol.
struct Standing {
    /// Whether the services were announced for the first time.
    introduced: bool,
    /// Whether the last that was said is not that Farol can't be reached.
    reached: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { introduced: false, reached: true }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Lost(String),
    #[error("{0}")]
    Refused(String),
}

impl From<StreamRefused> for Failed {
    fn from(refused: StreamRefused) -> Self {
        Self::Lost(refused.to_string())
    }
}

/// What Farol knows of a service, as far as it matters here.
#[derive(Deserialize)]
struct Known {
    service: KnownService,
}

#[derive(Deserialize)]
struct KnownService {
    registered: bool,
    kind: Option<String>,
    address: Option<String>,
}

/// Where a simulated service of this address listens; none if it can't be one, as they listen on loopback only.
fn simulator_at(address: &str) -> Option<SocketAddr> {
    let place = address.strip_prefix("http://")?;
    let place = place.split_once('/').map_or(place, |(place, _)| place);
    place.parse::<SocketAddr>().ok().filter(|place| place.ip().is_loopback())
}

/// Whether a simulated service of this name answers there. Its first page comes without the simulated latency.
async fn answers_as(name: &str, place: SocketAddr) -> bool {
    let Ok(server) = format!("http://{place}").parse::<ServerUrl>() else { return false };
    let asking = call(&server, Method::GET, "/", &());
    let Ok(Ok(answer)) = tokio::time::timeout(OTHER_LIMIT, asking).await else { return false };
    serde_json::from_slice::<serde_json::Value>(&answer.body)
        .is_ok_and(|page| page.get("service").and_then(serde_json::Value::as_str) == Some(name))
}

fn path(service: &Listening, rest: &str) -> String {
    format!("/api/services/{}{rest}", service.name)
}

fn event(
    service: &Listening,
    event_type: EventType,
    data: &impl Serialize,
    correlation_id: Option<Uuid>,
) -> Event {
    let mut event = Event::new(Uuid::now_v7(), crate::now(), event_type, &*service.name, data);
    event.correlationid = correlation_id;
    event
}

/// One request with a JSON body.
pub(super) async fn call(
    farol: &ServerUrl,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<Answer, ClientError> {
    let template = RequestTemplate::sending(method.clone(), farol, path, "application/json")?;
    let body = if matches!(method, Method::GET | Method::DELETE) {
        Bytes::new()
    } else {
        serde_json::to_vec(body).map(Bytes::from).map_err(|error| ClientError::Request(error.to_string()))?
    };
    Connection::open(farol).await?.exchange(&template, body, ANSWER_LIMIT).await
}

//! Who plays: the Farol, the simulated services, and this program as their client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use farol_bus::Bus;
use farol_event::{Event, Timestamp};
use farol_pipeline::outgoing;
use farol_resilience::{Registry, StateChange};
use farol_simulate::ServerUrl;
use farol_simulate::services::{self, Listening, Method};
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::run::metrics::EventBuses;

/// Who makes the calls, as the dashboard names it.
pub const CALLER: &str = "demo";
/// How long one call to a service may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What stands at a place in JSON; null if there is nothing.
pub fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// Asks until there is an answer; `otherwise` says what is missing when patience ends.
pub async fn eventually<T>(
    otherwise: &str,
    ask: impl AsyncFn() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + super::scenes::PATIENCE;
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{otherwise}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The Farol that is told of everything.
pub struct Farol {
    /// Its dashboard and API.
    pub url: ServerUrl,
    /// Its log.
    pub bus: Arc<dyn Bus>,
    /// What of this process is on its `/metrics`, if it runs in it.
    pub event_buses: Option<EventBuses>,
}

/// Who plays.
pub struct World {
    farol: ServerUrl,
    /// The log of that Farol.
    pub bus: Arc<dyn Bus>,
    /// What of this process is on its `/metrics`, if it runs in it.
    pub event_buses: Option<EventBuses>,
    /// Shorter waits.
    pub fast: bool,
    services: BTreeMap<String, ServerUrl>,
    /// What happened before is not of this demonstration.
    began: Timestamp,
}

impl World {
    /// These services, and this Farol.
    pub fn new(farol: Farol, services: &[Listening], fast: bool) -> Self {
        let services = services
            .iter()
            .filter_map(|service| {
                Some((service.name.to_string(), format!("http://{}", service.address).parse().ok()?))
            })
            .collect();
        let Farol { url, bus, event_buses } = farol;
        let began = Timestamp::from_system_time(std::time::SystemTime::now());
        Self { farol: url, bus, event_buses, fast, services, began }
    }

    /// The services' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// A shorter time in tests.
    pub fn pace(&self, usual: Duration) -> Duration {
        if self.fast { usual / 4 } else { usual }
    }

    /// One call to a service; an error unless the work was done.
    pub async fn work(&self, service: &str) -> Result<(), String> {
        let Some(server) = self.services.get(service) else { return Err(format!("no service `{service}`")) };
        let answering = services::call(server, Method::GET, "/work", &());
        match tokio::time::timeout(CALL_LIMIT, answering).await {
            Ok(Ok(answer)) if answer.status.is_success() => Ok(()),
            Ok(Ok(answer)) => Err(answer.status.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {CALL_LIMIT:?}")),
        }
    }

    /// Has a service behave otherwise, and waits until it says that it does.
    pub async fn set(&self, service: &str, change: &Value) -> anyhow::Result<()> {
        let path = format!("/api/services/{service}/simulation");
        let answer = services::call(&self.farol, Method::PATCH, &path, change).await?;
        if !answer.status.is_success() {
            bail!("{service}: {}", services::problem_of(&answer));
        }
        let told: Value = serde_json::from_slice(&answer.body)?;
        let id = at(&told, "/correlation_id").as_str().context("the answer names no command")?.to_owned();
        self.event(&format!("type=simulacao_aplicada&correlation_id={id}"), |_| true).await?;
        Ok(())
    }

    /// A `GET` of JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.text(path).await?)?)
    }

    /// A `GET` of text.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = services::call(&self.farol, Method::GET, path, &()).await?;
        if !answer.status.is_success() {
            bail!("{path}: {}", services::problem_of(&answer));
        }
        Ok(String::from_utf8(answer.body.into())?)
    }

    /// The events of this demonstration, newest first.
    pub async fn events(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let found = self.get(&format!("/api/events?limit=200&from={}&{query}", self.began)).await?;
        Ok(at(&found, "/events").as_array().cloned().unwrap_or_default())
    }

    /// Waits for an event of this demonstration that fits.
    pub async fn event(&self, query: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        eventually(&format!("no event came that fits {query}"), async || {
            Ok(self.events(query).await?.into_iter().find(&fits))
        })
        .await
    }

    /// Waits for an event, and makes sure that it is the only one of its type and service.
    pub async fn only(&self, service: &str, event_type: &str) -> anyhow::Result<()> {
        let query = format!("source={service}&type={event_type}");
        self.event(&query, |_| true).await?;
        let count = self.events(&query).await?.len();
        ensure!(count == 1, "{event_type} came {count} times from {service}");
        Ok(())
    }

    /// Waits until the one alert of `rule` about a service has this status, and gives it; more than one is an error.
    pub async fn alert(&self, service: &str, rule: &str, status: &str) -> anyhow::Result<Value> {
        let path = format!("/api/alerts?service={service}&rule={rule}&from={}", self.began);
        eventually(&format!("no alert of {rule} about {service} is {status}"), async || {
            let found = self.get(&path).await?;
            let total = at(&found, "/total").as_u64().unwrap_or_default();
            ensure!(total <= 1, "{total} alerts of {rule} tell of {service}");
            let alert = at(&found, "/alerts/0");
            Ok((at(alert, "/status") == status).then(|| alert.clone()))
        })
        .await
    }

    /// Tells the Farol of policies: moves that have happened, and how all of them stand.
    pub async fn tell(
        &self,
        policies: &Registry,
        service: &str,
        moves: &mut broadcast::Receiver<StateChange>,
    ) -> anyhow::Result<()> {
        let mut events = Vec::new();
        while let Ok(change) = moves.try_recv() {
            events.extend(outgoing::moved(CALLER, Some(service), &change));
        }
        let now = Timestamp::from_system_time(std::time::SystemTime::now());
        events.extend(
            policies.snapshots().iter().map(|policy| outgoing::measured(CALLER, Some(service), policy, now)),
        );
        self.publish(&events).await
    }

    /// Publishes events.
    pub async fn publish(&self, events: &[Event]) -> anyhow::Result<()> {
        let answer = services::call(&self.farol, Method::POST, "/api/events", &events).await?;
        if !answer.status.is_success() {
            bail!("the events were not taken: {}", services::problem_of(&answer));
        }
        Ok(())
    }
}

//! Services: the list, one with its whole story, and the points of its metrics for charts.

use farol_event::service::{CheckKind, CheckState, SimulationApplied};
use farol_event::{Alert, Event, Timestamp};
use rusqlite::Row;
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use crate::error::ViewError;
use crate::fold::services::DEFINED_CHECKS;
use crate::query::alerts::{ALERT_COLUMNS, alert_of_row};
use crate::query::condition::{Conditions, containing};
use crate::query::events::EventFilter;
use crate::query::metrics::MetricAggregate;
use crate::query::policies::{Policy, PolicyFilter};
use crate::query::{
    Queries, count, cursor, instant, instant_if_any, json_if_any, page_size, sql_limit, unreadable, word,
};
pub use crate::service_state::{ServiceCause, ServiceState};
use crate::service_state::{Silence, Standing};

/// The default number of services on a page.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of services on a page.
pub const MAX_LIMIT: usize = 1000;
/// How many events and how many alerts are shown with a service.
pub const RECENT: usize = 20;
/// How many metrics, and how many policies, are shown with a service.
pub const MAX_SHOWN: usize = 200;

/// Which services are listed.
#[derive(Debug, Clone, Default)]
pub struct ServiceFilter {
    /// In one of these states; empty: any.
    pub states: Vec<ServiceState>,
    /// With this in its name, kind, address or description, in any letter case.
    pub text: Option<String>,
    /// At most this many; see [`DEFAULT_LIMIT`] and [`MAX_LIMIT`].
    pub limit: Option<usize>,
    /// Go on after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// A service as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// Its name: the `source` of its events.
    pub service: String,
    /// What state it is in.
    pub state: ServiceState,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// Why, if there is a reason to give.
    pub reason: Option<String>,
    /// The same, to be said in any language, unless it was told in somebody's own words.
    pub cause: Option<ServiceCause>,
    /// What sort of service it is (`host`, `api`, …), as it says.
    pub kind: Option<String>,
    /// Its version, as it says.
    pub version: Option<String>,
    /// Where it is reached.
    pub address: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether somebody registered it.
    pub registered: bool,
    /// When it announced its last start.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub started_at: Option<Timestamp>,
    /// When it was last heard of itself.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_seen: Timestamp,
    /// When it was last checked, whatever came of it: by a check, or by a heartbeat of its own.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_check_at: Option<Timestamp>,
    /// Its newest `response_time_ms`; none of before an outage while that lasts.
    pub response_time_ms: Option<f64>,
    /// Its newest `error_rate_percent`.
    pub error_rate_percent: Option<f64>,
    /// Its newest `requests_per_second`.
    pub requests_per_second: Option<f64>,
    /// Its newest `cpu_percent`.
    pub cpu_percent: Option<f64>,
    /// Its newest `memory_percent`.
    pub memory_percent: Option<f64>,
    /// Its newest `memory_bytes`.
    pub memory_bytes: Option<f64>,
    /// Its newest `uptime_seconds`.
    pub uptime_seconds: Option<f64>,
    /// How many checks it has.
    pub checks: u64,
    /// How many of them are down.
    pub checks_down: u64,
    /// How many circuit breakers in front of it are open or half open, by the word of callers that are still heard of.
    pub breakers_open: u64,
    /// How it is simulated, if it is a simulated one.
    pub simulation: Option<SimulationApplied>,
}

/// As much of a service as metrics say.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceNumbers {
    /// Its name.
    pub service: String,
    /// What state it is in.
    pub state: ServiceState,
    /// When it was last checked, or sent a heartbeat.
    pub last_check_at: Option<Timestamp>,
    /// Its newest `response_time_ms`.
    pub response_time_ms: Option<f64>,
    /// Its newest `error_rate_percent`.
    pub error_rate_percent: Option<f64>,
}

/// A page of services, by name.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServicePage {
    /// The services.
    pub services: Vec<Service>,
    /// How many fit the filter, on all pages.
    pub total: u64,
    /// How many services are in each state, whatever the filter.
    pub by_state: ServiceStateCounts,
    /// Where the next page starts; absent on the last one.
    pub next_cursor: Option<String>,
}

/// How many services are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceStateCounts {
    /// Announced, without a sign of life since.
    pub starting: u64,
    /// Up.
    pub up: u64,
    /// Up, but not as they should be.
    pub degraded: u64,
    /// Down.
    pub down: u64,
    /// Heard of regularly, and not any more.
    pub unknown: u64,
    /// Being worked on.
    pub maintenance: u64,
}

/// An active check of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceCheck {
    /// Its name.
    pub check: String,
    /// What it does.
    pub kind: Option<CheckKind>,
    /// Whether the service is down when it is.
    pub critical: bool,
    /// What it found.
    pub state: CheckState,
    /// Since when.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub since: Timestamp,
    /// Why.
    pub reason: Option<String>,
    /// How long the answer took that changed its state.
    pub response_time_ms: Option<f64>,
}

/// A service with its whole story.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceDetail {
    /// The service.
    pub service: Service,
    /// Its checks, by name.
    pub checks: Vec<ServiceCheck>,
    /// Its metrics, by name.
    pub metrics: Vec<MetricAggregate>,
    /// The policies in front of it, and those of its own calls.
    pub policies: Vec<Policy>,
    /// Its newest events but its metrics, newest first.
    pub events: Vec<Event>,
    /// Its alerts: those that are pending or firing, then the newest.
    pub alerts: Vec<Alert>,
}

/// The services with what the time, which is the first value of the query, makes of what was told: table `standing`, whose column of
/// that name is the state at that time.
const STANDING: &str = "WITH clock(now) AS (VALUES (?)),
open AS MATERIALIZED (SELECT service, caller, name, since FROM policies, clock
    WHERE kind = 'circuit_breaker' AND state IN ('open', 'half_open', 'forced_open') AND expires_at > now),
told AS (SELECT services.*,
        iif(state IN ('up', 'degraded') AND silent_at <= now, silent_at, NULL) AS silent_since,
        (SELECT count(*) FROM open WHERE open.service = services.service) AS breakers_open,
        (SELECT json_object('caller', caller, 'name', name, 'since', since) FROM open WHERE open.service = services.service
         ORDER BY since, caller, name LIMIT 1) AS breaker
    FROM services, clock),
standing AS (SELECT *, CASE WHEN silent_since IS NOT NULL THEN 'unknown'
        WHEN state = 'up' AND breakers_open > 0 THEN 'degraded' ELSE state END AS standing FROM told)";

const COLUMNS: &str = "service, state, since, reason, kind, version, address, description, registered, started_at, last_seen, \
    last_check_at, response_time_ms, error_rate_percent, requests_per_second, cpu_percent, memory_percent, memory_bytes, \
    uptime_seconds, checks, checks_down, breakers_open, simulation, cause, silent_since, silent_after, breaker";

/// What the cursors of the list of services are called.
const CURSOR: &str = "services";

impl Queries<'_> {
    /// The services that fit the filter, by name. One whose registration was taken back and that was not heard of since is
    /// not among them. `now` decides who is silent, and which breakers count.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::InvalidCursor`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn services(&self, filter: &ServiceFilter, now: Timestamp) -> Result<ServicePage, ViewError> {
        let limit = page_size(filter.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
        let failed = self.failed("services");
        let mut conditions = filter.conditions();
        let total = self
            .number(
                &format!("{STANDING} SELECT count(*) FROM standing {}", conditions.sql()),
                at(now, &conditions, []),
            )
            .map_err(&failed)?;
        if let Some(text) = &filter.cursor {
            conditions.and("service > ?", cursor::decode::<1>(CURSOR, text)?);
        }
        let sql = format!(
            "{STANDING} SELECT {COLUMNS} FROM standing {} ORDER BY service LIMIT ?",
            conditions.sql()
        );
        let values = at(now, &conditions, [sql_limit(limit + 1)]);
        let mut services = self.rows(&sql, values, service_of_row).map_err(&failed)?;
        let more = services.len() > limit;
        services.truncate(limit);
        let next_cursor = services
            .last()
            .filter(|_| more)
            .map(|last| cursor::encode(CURSOR, &[Value::Text(last.service.clone())]));
        Ok(ServicePage { services, total, by_state: self.service_counts(now)?, next_cursor })
    }

    /// How many services are in each state at `now`.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn service_counts(&self, now: Timestamp) -> Result<ServiceStateCounts, ViewError> {
        let sql =
            format!("{STANDING} SELECT standing, count(*) FROM standing WHERE NOT removed GROUP BY standing");
        let rows = self
            .rows(&sql, vec![Value::Integer(now.as_micros())], |row| {
                Ok((word::<ServiceState>(row, 0)?, count(row, 1)?))
            })
            .map_err(self.failed("services"))?;
        let mut counts = ServiceStateCounts::default();
        for (state, number) in rows {
            *match state {
                ServiceState::Starting => &mut counts.starting,
                ServiceState::Up => &mut counts.up,
                ServiceState::Degraded => &mut counts.degraded,
                ServiceState::Down => &mut counts.down,
                ServiceState::Unknown => &mut counts.unknown,
                ServiceState::Maintenance => &mut counts.maintenance,
            } = number;
        }
        Ok(counts)
    }

    /// What metrics say of those of these services that are known, by name, as it is at `now`.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn service_numbers(
        &self,
        services: &[String],
        now: Timestamp,
    ) -> Result<Vec<ServiceNumbers>, ViewError> {
        let sql = format!(
            "{STANDING} SELECT service, standing, last_check_at, response_time_ms, error_rate_percent FROM standing
             WHERE service IN (SELECT value FROM json_each(?)) AND NOT removed ORDER BY service"
        );
        let names = serde_json::Value::from(services).to_string();
        self.rows(&sql, vec![Value::Integer(now.as_micros()), Value::Text(names)], |row| {
            Ok(ServiceNumbers {
                service: row.get(0)?,
                state: word(row, 1)?,
                last_check_at: instant_if_any(row, 2)?,
                response_time_ms: row.get(3)?,
                error_rate_percent: row.get(4)?,
            })
        })
        .map_err(self.failed("services"))
    }

    /// Whether there is a service of that name.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn service_is_known(&self, service: &str) -> Result<bool, ViewError> {
        self.number(
            "SELECT count(*) FROM services WHERE service = ? AND NOT removed",
            vec![Value::Text(service.to_owned())],
        )
        .map(|found| found > 0)
        .map_err(self.failed("services"))
    }

    /// Whether a service was told to be in maintenance.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn service_is_in_maintenance(&self, service: &str) -> Result<bool, ViewError> {
        self.number(
            "SELECT count(*) FROM services WHERE service = ? AND state = 'maintenance'",
            vec![Value::Text(service.to_owned())],
        )
        .map(|found| found > 0)
        .map_err(self.failed("services"))
    }

    /// One service with its whole story, as it is at `now`.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn service_detail(&self, service: &str, now: Timestamp) -> Result<Option<ServiceDetail>, ViewError> {
        let name = || Value::Text(service.to_owned());
        let sql = format!("{STANDING} SELECT {COLUMNS} FROM standing WHERE service = ? AND NOT removed");
        let values = vec![Value::Integer(now.as_micros()), name()];
        let found = self.rows(&sql, values, service_of_row).map_err(self.failed("services"))?;
        let Some(found) = found.into_iter().next() else { return Ok(None) };
        let checks = self
            .rows(
                &format!(
                    "SELECT name, kind, critical, state, since, reason, response_time_ms {DEFINED_CHECKS}"
                ),
                vec![name()],
                check_of_row,
            )
            .map_err(self.failed("service_checks"))?;
        let about = PolicyFilter { service: Some(service.to_owned()), ..PolicyFilter::default() };
        let own = PolicyFilter { caller: Some(service.to_owned()), ..PolicyFilter::default() };
        let mut policies = self.policies(&about, now)?.policies;
        policies.extend(self.policies(&own, now)?.policies);
        policies.sort_by(|a, b| a.key().cmp(&b.key()));
        policies.dedup_by(|a, b| a.key() == b.key());
        policies.truncate(MAX_SHOWN);
        Ok(Some(ServiceDetail {
            service: found,
            checks,
            metrics: self.metrics_of_service(service)?,
            policies,
            events: self.events_of_service(service)?,
            alerts: self.alerts_of_service(service)?,
        }))
    }

    fn events_of_service(&self, service: &str) -> Result<Vec<Event>, ViewError> {
        let filter = EventFilter { source: Some(service.to_owned()), ..EventFilter::default() };
        self.events_but_metrics(&filter, RECENT)
    }

    fn alerts_of_service(&self, service: &str) -> Result<Vec<Alert>, ViewError> {
        let sql = format!(
            "SELECT {ALERT_COLUMNS} FROM alerts WHERE json_extract(labels, '$.service') = ?
             ORDER BY status IN ('pending', 'firing') DESC, began_at DESC, alert_id DESC LIMIT ?"
        );
        self.rows(&sql, vec![Value::Text(service.to_owned()), sql_limit(RECENT)], alert_of_row)
            .map_err(self.failed("alerts"))
    }
}

impl ServiceFilter {
    fn conditions(&self) -> Conditions {
        let mut conditions = Conditions::default();
        conditions.and("NOT removed", []);
        conditions.and_one_of(
            "standing",
            self.states.iter().map(|state| Value::Text(state.as_str().into())).collect(),
        );
        if let Some(text) = &self.text {
            let pattern = Value::Text(containing(text));
            conditions.and(
                "(service LIKE ? ESCAPE '\\' OR coalesce(kind, '') LIKE ? ESCAPE '\\'
                  OR coalesce(address, '') LIKE ? ESCAPE '\\' OR coalesce(description, '') LIKE ? ESCAPE '\\')",
                [pattern.clone(), pattern.clone(), pattern.clone(), pattern],
            );
        }
        conditions
    }
}

/// The values of a query over [`STANDING`].
fn at(now: Timestamp, conditions: &Conditions, further: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut values = vec![Value::Integer(now.as_micros())];
    values.extend(conditions.values_and(further));
    values
}

fn service_of_row(row: &Row<'_>) -> rusqlite::Result<Service> {
    let told = Standing {
        state: word(row, 1)?,
        since: instant(row, 2)?,
        reason: row.get(3)?,
        cause: json_if_any(row, 23)?,
    };
    let silence = match instant_if_any(row, 24)? {
        Some(since) => Some(Silence { since, after_seconds: count(row, 25)? / 1_000_000 }),
        None => None,
    };
    let Standing { state, since, reason, cause } = told.at_present(silence, json_if_any(row, 26)?);
    Ok(Service {
        service: row.get(0)?,
        state,
        since,
        reason,
        cause,
        kind: row.get(4)?,
        version: row.get(5)?,
        address: row.get(6)?,
        description: row.get(7)?,
        registered: row.get(8)?,
        started_at: instant_if_any(row, 9)?,
        last_seen: instant(row, 10)?,
        last_check_at: instant_if_any(row, 11)?,
        response_time_ms: row.get(12)?,
        error_rate_percent: row.get(13)?,
        requests_per_second: row.get(14)?,
        cpu_percent: row.get(15)?,
        memory_percent: row.get(16)?,
        memory_bytes: row.get(17)?,
        uptime_seconds: row.get(18)?,
        checks: count(row, 19)?,
        checks_down: count(row, 20)?,
        breakers_open: count(row, 21)?,
        simulation: json_if_any(row, 22)?,
    })
}

fn check_of_row(row: &Row<'_>) -> rusqlite::Result<ServiceCheck> {
    let kind: Option<String> = row.get(1)?;
    let kind = kind.map(|kind| serde_json::from_value(kind.into()).map_err(|error| unreadable(1, error)));
    Ok(ServiceCheck {
        check: row.get(0)?,
        kind: kind.transpose()?,
        critical: row.get(2)?,
        state: word(row, 3)?,
        since: instant(row, 4)?,
        reason: row.get(5)?,
        response_time_ms: row.get(6)?,
    })
}

//! Metrics of services: sums over all that was ever collected, and points for charts.

use std::collections::BTreeMap;

use farol_event::Timestamp;
use rusqlite::Row;
use rusqlite::types::Value;
use serde::Serialize;

use crate::error::ViewError;
use crate::fold::services::BUCKET;
use crate::query::condition::Conditions;
use crate::query::{Queries, count, instant, json, sql_limit};

/// How many services are listed with a metric.
pub const MAX_SERVICES: usize = 1000;
/// How many points of all series together one answer has.
pub const MAX_POINTS: usize = 50_000;
/// How many names can be asked for at once.
pub const MAX_NAMES: usize = 32;

/// A metric of a service, over all that was ever collected.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetricAggregate {
    /// The service.
    pub service: String,
    /// The metric's name.
    pub name: String,
    /// Its unit, as it was last told.
    pub unit: Option<String>,
    /// How many values were collected.
    pub count: u64,
    /// Their sum.
    pub total: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// The newest.
    pub last: f64,
    /// When the newest was collected.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_update: Timestamp,
}

/// A metric over all services.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetricOverview {
    /// The metric's name.
    pub name: String,
    /// Its unit, as the newest value has it.
    pub unit: Option<String>,
    /// How many values were collected.
    pub count: u64,
    /// Their sum.
    pub total: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// The newest.
    pub last: f64,
    /// When the newest was collected.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_update: Timestamp,
    /// The same for each service, by name; the first thousand.
    pub services: Vec<MetricAggregate>,
    /// How many services have it.
    pub services_total: u64,
}

/// Which points are wanted.
#[derive(Debug, Clone, Default)]
pub struct PointFilter {
    /// Of this service.
    pub service: String,
    /// Of these metrics; empty: all. At most [`MAX_NAMES`].
    pub names: Vec<String>,
    /// Collected at or after this instant.
    pub from: Option<Timestamp>,
    /// Collected at or before this instant.
    pub to: Option<Timestamp>,
}

/// Points of a service's metrics.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetricPoints {
    /// The service.
    pub service: String,
    /// Points are thinned to one in so long.
    pub resolution_seconds: u64,
    /// One for each metric and set of tags.
    pub series: Vec<MetricSeries>,
    /// Whether older points were left out because there are too many.
    pub truncated: bool,
}

/// Points of one metric with one set of tags, oldest first. The lists are of equal length.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MetricSeries {
    /// The metric's name.
    pub name: String,
    /// Its unit, as it was last told.
    pub unit: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When the value was collected.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub timestamps: Vec<Timestamp>,
    /// The newest value of each stretch.
    pub values: Vec<f64>,
    /// The smallest.
    pub min: Vec<f64>,
    /// The largest.
    pub max: Vec<f64>,
}

/// A sum that has left the range of numbers stands at its end.
fn sum(a: f64, b: f64) -> f64 {
    (a + b).clamp(f64::MIN, f64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "more than 2^53 values nobody collects")]
fn mean(total: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { total / count as f64 }
}

impl MetricAggregate {
    fn of_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (number, total) = (count(row, 3)?, row.get(4)?);
        Ok(Self {
            service: row.get(0)?,
            name: row.get(1)?,
            unit: row.get(2)?,
            count: number,
            total,
            min: row.get(5)?,
            max: row.get(6)?,
            mean: mean(total, number),
            last: row.get(7)?,
            last_update: instant(row, 8)?,
        })
    }

    /// Takes in a later part of the same.
    fn add(&mut self, part: MetricAggregate) {
        self.count += part.count;
        self.total = sum(self.total, part.total);
        self.min = self.min.min(part.min);
        self.max = self.max.max(part.max);
        self.mean = mean(self.total, self.count);
        if part.last_update >= self.last_update {
            (self.last, self.last_update) = (part.last, part.last_update);
            self.unit = part.unit.or_else(|| self.unit.take());
        }
    }
}

const PARTS: &str =
    "SELECT service, metric, unit, count, total, minimum, maximum, last, last_at FROM service_metric_part";

impl Queries<'_> {
    /// The metrics of a service, by name; the first [`crate::query::services::MAX_SHOWN`].
    pub(crate) fn metrics_of_service(&self, service: &str) -> Result<Vec<MetricAggregate>, ViewError> {
        let sql = format!("{PARTS} WHERE service = ? ORDER BY metric, partition");
        let parts = self
            .rows(&sql, vec![Value::Text(service.to_owned())], MetricAggregate::of_row)
            .map_err(self.failed("service_metrics"))?;
        let mut metrics = whole(parts);
        metrics.truncate(crate::query::services::MAX_SHOWN);
        Ok(metrics)
    }

    /// A metric over all services that have it. `None` if none has.
    ///
    /// # Errors
    /// [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn metric(&self, name: &str) -> Result<Option<MetricOverview>, ViewError> {
        let sql = format!("{PARTS} WHERE metric = ? ORDER BY service, partition");
        let parts = self
            .rows(&sql, vec![Value::Text(name.to_owned())], MetricAggregate::of_row)
            .map_err(self.failed("service_metrics"))?;
        let mut services = whole(parts);
        let Some(mut all) = services.first().cloned() else { return Ok(None) };
        services.iter().skip(1).for_each(|service| all.add(service.clone()));
        let services_total = u64::try_from(services.len()).unwrap_or(u64::MAX);
        services.truncate(MAX_SERVICES);
        let MetricAggregate { name, unit, count, total, min, max, mean, last, last_update, .. } = all;
        Ok(Some(MetricOverview {
            name,
            unit,
            count,
            total,
            min,
            max,
            mean,
            last,
            last_update,
            services,
            services_total,
        }))
    }

    /// Points of a service's metrics, for charts.
    ///
    /// # Errors
    /// [`ViewError::InvalidFilter`], [`ViewError::Query`], [`ViewError::TimedOut`].
    pub fn metric_points(&self, filter: &PointFilter) -> Result<MetricPoints, ViewError> {
        if filter.names.len() > MAX_NAMES {
            let problem = format!("must be at most {MAX_NAMES} names, not {}", filter.names.len());
            return Err(ViewError::InvalidFilter { field: "names", problem });
        }
        if filter.from.zip(filter.to).is_some_and(|(from, to)| from > to) {
            return Err(ViewError::InvalidFilter { field: "from", problem: "is after `to`".into() });
        }
        let micros = |at: Timestamp| Value::Integer(at.as_micros());
        let mut conditions = Conditions::default();
        conditions.and("service = ?", [Value::Text(filter.service.clone())]);
        conditions.and_one_of("metric", filter.names.iter().cloned().map(Value::Text).collect());
        conditions.and_if("at >= ?", filter.from.map(micros));
        conditions.and_if("at <= ?", filter.to.map(micros));
        let failed = self.failed("service_metric_points");
        // The newest, if they are too many.
        let sql = format!(
            "SELECT metric, tags, at, value, minimum, maximum FROM service_metric_points {}
             ORDER BY at DESC, metric, tags LIMIT ?",
            conditions.sql()
        );
        let mut rows = self
            .rows(&sql, conditions.values_and([sql_limit(MAX_POINTS + 1)]), |row| {
                let series: (String, String) = (row.get(0)?, row.get(1)?);
                let tags: BTreeMap<String, String> = json(row, 1)?;
                Ok((series, tags, instant(row, 2)?, [row.get(3)?, row.get(4)?, row.get(5)?]))
            })
            .map_err(&failed)?;
        let truncated = rows.len() > MAX_POINTS;
        rows.truncate(MAX_POINTS);
        let mut series: BTreeMap<(String, String), MetricSeries> = BTreeMap::new();
        for (key, tags, at, [value, min, max]) in rows.into_iter().rev() {
            let name = key.0.clone();
            let one =
                series.entry(key).or_insert_with(|| MetricSeries { name, tags, ..MetricSeries::default() });
            one.timestamps.push(at);
            one.values.push(value);
            one.min.push(min);
            one.max.push(max);
        }
        let units: BTreeMap<String, Option<String>> =
            self.metrics_of_service(&filter.service)?.into_iter().map(|m| (m.name, m.unit)).collect();
        let mut series: Vec<MetricSeries> = series.into_values().collect();
        for one in &mut series {
            one.unit = units.get(&one.name).cloned().flatten();
        }
        let service = filter.service.clone();
        Ok(MetricPoints { service, resolution_seconds: BUCKET.as_secs(), series, truncated })
    }
}

/// Puts the parts of each service's metric together; those of one stand next to each other.
fn whole(parts: Vec<MetricAggregate>) -> Vec<MetricAggregate> {
    let mut whole: Vec<MetricAggregate> = Vec::new();
    for part in parts {
        match whole.last_mut() {
            Some(last) if last.service == part.service && last.name == part.name => last.add(part),
            _ => whole.push(part),
        }
    }
    whole
}

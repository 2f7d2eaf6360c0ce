//! Metrics of services: sums for ever, and points for charts.

use farol_event::service::Metric;
use rusqlite::{Transaction, params};

use super::facts::Told;
use super::{BUCKET, MAX_BUCKETS, MAX_SERIES_PER_SERVICE};
use crate::fold::json_text;

/// Takes in one collected metric. False if its service has too many already.
pub(super) fn collected(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    metric: &Metric,
) -> rusqlite::Result<bool> {
    let tags = json_text(&metric.tags);
    if !has_room(transaction, told, &metric.name, &tags)? {
        return Ok(false);
    }
    // A sum that has left the range of numbers stays at its end: infinity minus infinity would be no number at all.
    transaction
        .prepare_cached(
            "INSERT INTO service_metric_part
                 (service, metric, partition, unit, count, total, minimum, maximum, last, last_at)
             VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5, ?5, ?5, ?6)
             ON CONFLICT (service, metric, partition) DO UPDATE SET
                 count = count + 1,
                 total = max(-1.7976931348623157e308, min(1.7976931348623157e308, total + excluded.total)),
                 minimum = min(minimum, excluded.minimum), maximum = max(maximum, excluded.maximum),
                 last = iif(excluded.last_at >= last_at, excluded.last, last),
                 unit = iif(excluded.last_at >= last_at, coalesce(excluded.unit, unit), unit),
                 last_at = max(last_at, excluded.last_at)",
        )?
        .execute(params![
            told.service,
            metric.name,
            told.partition,
            metric.unit,
            metric.value,
            told.at.as_micros()
        ])?;
    point(transaction, told, metric, &tags)?;
    Ok(true)
}

/// Takes note of a metric with its tags; whether its service may have it.
fn has_room(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    metric: &str,
    tags: &str,
) -> rusqlite::Result<bool> {
    let known = transaction
        .prepare_cached(
            "UPDATE service_metric_series SET last_at = max(last_at, ?4)
             WHERE service = ?1 AND metric = ?2 AND tags = ?3",
        )?
        .execute((told.service, metric, tags, told.at.as_micros()))?;
    if known > 0 {
        return Ok(true);
    }
    let count: i64 = transaction
        .prepare_cached("SELECT count(*) FROM service_metric_series WHERE service = ?1")?
        .query_row([told.service], |row| row.get(0))?;
    if count >= MAX_SERIES_PER_SERVICE {
        return Ok(false);
    }
    transaction
        .prepare_cached(
            "INSERT INTO service_metric_series (service, metric, tags, last_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((told.service, metric, tags, told.at.as_micros()))?;
    Ok(true)
}

/// Takes in one point, if it isn't older than what is kept.
fn point(
    transaction: &Transaction<'_>,
    told: &Told<'_>,
    metric: &Metric,
    tags: &str,
) -> rusqlite::Result<()> {
    let width = i64::try_from(BUCKET.as_micros()).unwrap_or(i64::MAX);
    let bucket = told.at.as_micros().div_euclid(width);
    let newest: Option<i64> = transaction
        .prepare_cached(
            "SELECT max(bucket) FROM service_metric_points WHERE service = ?1 AND metric = ?2 AND tags = ?3",
        )?
        .query_row((told.service, &metric.name, tags), |row| row.get(0))?;
    if newest.is_some_and(|newest| bucket <= newest - MAX_BUCKETS) {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT INTO service_metric_points
                 (service, metric, tags, bucket, at, value, minimum, maximum, count, partition, offset)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?6, 1, ?7, ?8)
             ON CONFLICT (service, metric, tags, bucket) DO UPDATE SET
                 value = iif((excluded.at, excluded.partition, excluded.offset) > (at, partition, offset),
                     excluded.value, value),
                 partition = iif((excluded.at, excluded.partition, excluded.offset) > (at, partition, offset),
                     excluded.partition, partition),
                 offset = iif((excluded.at, excluded.partition, excluded.offset) > (at, partition, offset),
                     excluded.offset, offset),
                 at = max(at, excluded.at),
                 minimum = min(minimum, excluded.minimum), maximum = max(maximum, excluded.maximum),
                 count = count + 1",
        )?
        .execute(params![
            told.service,
            metric.name,
            tags,
            bucket,
            told.at.as_micros(),
            metric.value,
            told.partition,
            told.offset
        ])?;
    if newest.is_some_and(|newest| bucket > newest) {
        transaction
            .prepare_cached(
                "DELETE FROM service_metric_points
                 WHERE service = ?1 AND metric = ?2 AND tags = ?3 AND bucket <= ?4",
            )?
            .execute((told.service, &metric.name, tags, bucket - MAX_BUCKETS))?;
    }
    Ok(())
}

//! What the server itself counted, before and after a run, and whether that fits what it acknowledged.
//!
//! Two counts are read: `farol_http_readings_accepted_total` of `/metrics`, which begins at zero when the server starts, and
//! the records of the readings' topic in `/api/system-status`, which survive a restart and are what is really in the log.
//! Anybody else who sends readings meanwhile (a demonstration's simulators) is counted by the server too; then the counts
//! differ and the summary says by how much.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;

use super::LoadOptions;
use super::summary::{Agreement, ServerCounts};
use crate::client::{Connection, RequestTemplate, ServerUrl};

/// How long the server's counts may lag behind its acknowledgements.
pub const COUNT_LAG: Duration = Duration::from_secs(5);
const COUNT_PAUSE: Duration = Duration::from_millis(100);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The server's counts at one moment; `None` for what it does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Readings accepted since the server started.
    pub accepted_total: Option<u64>,
    /// Records in the readings' topic.
    pub stored_records: Option<u64>,
}

/// The metric that counts accepted readings, without labels.
const ACCEPTED_METRIC: &str = "farol_http_readings_accepted_total";

#[derive(Deserialize)]
struct SystemStatus {
    log: LogStatus,
}

#[derive(Deserialize)]
struct LogStatus {
    topics: Vec<TopicStatus>,
}

#[derive(Deserialize)]
struct TopicStatus {
    name: String,
    records: u64,
}

/// Reads both counts. What can't be read is `None`; why is logged at debug level, because the load doesn't depend on it.
pub async fn read_counts(server: &ServerUrl, topic: &str) -> Counts {
    let accepted_total = get(server, "/metrics").await.and_then(|text| metric(&text, ACCEPTED_METRIC));
    let stored_records = get(server, "/api/system-status")
        .await
        .and_then(|json| {
            serde_json::from_slice::<SystemStatus>(&json)
                .inspect_err(|error| tracing::debug!(%error, "the server's status is not as expected"))
                .ok()
        })
        .and_then(|status| Some(status.log.topics.iter().find(|t| t.name == topic)?.records));
    Counts { accepted_total, stored_records }
}

/// The value of a metric without labels in Prometheus' text format.
fn metric(text: &[u8], name: &str) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok())
}

async fn get(server: &ServerUrl, path: &str) -> Option<Bytes> {
    let answer = async {
        let template = RequestTemplate::get(server, path)?;
        let mut connection = Connection::open(server).await?;
        connection.exchange(&template, Bytes::new(), ANSWER_LIMIT).await
    };
    match answer.await {
        Ok(answer) if answer.status == StatusCode::OK => Some(answer.body),
        Ok(answer) => {
            tracing::debug!(path, status = %answer.status, "the server does not tell its count");
            None
        }
        Err(error) => {
            tracing::debug!(path, %error, "the server's count could not be read");
            None
        }
    }
}

/// Reads the counts again until they have caught up with what was acknowledged, at most for [`COUNT_LAG`], and judges.
pub(super) async fn compare(
    options: &LoadOptions,
    before: Counts,
    accepted: u64,
    unanswered: u64,
) -> ServerCounts {
    let begun = Instant::now();
    loop {
        let after = read_counts(&options.server, &options.sensor_topic).await;
        let judged = judge(before, after, accepted, unanswered);
        // Too few may be lag; too many won't become fewer.
        let may_lag = judged.stored.or(judged.accepted).is_some_and(|counted| counted < accepted);
        if !may_lag || begun.elapsed() >= COUNT_LAG {
            return judged;
        }
        tokio::time::sleep(COUNT_PAUSE).await;
    }
}

/// What the server says it gained, against what it acknowledged.
fn judge(before: Counts, after: Counts, accepted: u64, unanswered: u64) -> ServerCounts {
    let gained = |before: Option<u64>, after: Option<u64>| after?.checked_sub(before?);
    let stored = gained(before.stored_records, after.stored_records);
    let counted = gained(before.accepted_total, after.accepted_total);
    // The log's count is the better witness: it survives a restart.
    let agreement = match stored.or(counted) {
        None => Agreement::Unknown,
        Some(gained) if (accepted..=accepted + unanswered).contains(&gained) => Agreement::Agrees,
        Some(_) => Agreement::Differs,
    };
    ServerCounts { accepted: counted, stored, agreement }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(accepted_total: Option<u64>, stored_records: Option<u64>) -> Counts {
        Counts { accepted_total, stored_records }
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = b"# TYPE a_total counter\na_total_created 1\na_total{x=\"y\"} 2\na_total 97693\nb 4\n";
        assert_eq!(metric(text, "a_total"), Some(97_693));
        assert_eq!((metric(text, "a"), metric(b"\xff", "a")), (None, None));
    }

    #[test]
    fn the_log_decides_and_unanswered_readings_may_or_may_not_be_in_it() {
        let table = [
            (counts(Some(5), Some(5)), counts(Some(105), Some(105)), 100, 0, Agreement::Agrees),
            (counts(Some(5), Some(5)), counts(Some(105), Some(104)), 100, 0, Agreement::Differs),
            (counts(Some(5), Some(5)), counts(Some(105), Some(106)), 100, 0, Agreement::Differs),
            (counts(Some(5), Some(5)), counts(Some(3), Some(110)), 100, 10, Agreement::Agrees),
            (counts(Some(5), Some(5)), counts(Some(3), Some(116)), 100, 10, Agreement::Differs),
            (counts(Some(5), None), counts(Some(105), None), 100, 0, Agreement::Agrees),
            (counts(Some(5), None), counts(Some(4), None), 100, 0, Agreement::Unknown),
            (counts(None, None), counts(None, None), 100, 0, Agreement::Unknown),
        ];
        for (before, after, accepted, unanswered, wanted) in table {
            let judged = judge(before, after, accepted, unanswered);
            assert_eq!(judged.agreement, wanted, "{before:?} {after:?} {accepted} {unanswered}");
        }
    }
}

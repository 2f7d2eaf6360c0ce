//! The facts of a service: one row for each kind and partition, in which the later of two in the log counts.

use std::collections::HashMap;

use farol_event::Timestamp;
use rusqlite::{OptionalExtension, Transaction};

use super::{STOP_GRACE, believed, rhythm};
use crate::decode::EventRecord;

/// The kinds of fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fact {
    /// First told of; the value is nothing, `since` is what counts.
    Known,
    /// `starting`, `alive`, `stopped`.
    Life,
    /// `down`, `up`.
    Outage,
    /// `on`, `off`.
    Maintenance,
    /// `high`, `low`.
    ErrorRate,
    /// `yes`, `no`.
    Registered,
    /// It was started; `at` is what counts.
    Started,
    /// It was heard of; `at` is what counts.
    Seen,
    /// It was checked; `at` is what counts.
    Checked,
    Version,
    Address,
    Kind,
    Description,
    /// Its address, kind as its registration says them; nothing if it doesn't.
    GivenAddress,
    GivenKind,
    /// The names of the checks that its registration has, as JSON; what was told before `at` of others is over.
    Checks,
    /// How it is simulated, as JSON.
    Simulation,
}

impl Fact {
    const ALL: [Fact; 17] = [
        Fact::Known,
        Fact::Life,
        Fact::Outage,
        Fact::Maintenance,
        Fact::ErrorRate,
        Fact::Registered,
        Fact::Started,
        Fact::Seen,
        Fact::Checked,
        Fact::Version,
        Fact::Address,
        Fact::Kind,
        Fact::Description,
        Fact::GivenAddress,
        Fact::GivenKind,
        Fact::Checks,
        Fact::Simulation,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Fact::Known => "known",
            Fact::Life => "life",
            Fact::Outage => "outage",
            Fact::Maintenance => "maintenance",
            Fact::ErrorRate => "error_rate",
            Fact::Registered => "registered",
            Fact::Started => "started",
            Fact::Seen => "seen",
            Fact::Checked => "checked",
            Fact::Version => "version",
            Fact::Address => "address",
            Fact::Kind => "kind",
            Fact::Description => "description",
            Fact::GivenAddress => "given_address",
            Fact::GivenKind => "given_kind",
            Fact::Checks => "checks",
            Fact::Simulation => "simulation",
        }
    }
}

/// Who is told of, when, and where in the log.
pub(super) struct Told<'a> {
    pub(super) service: &'a str,
    pub(super) at: Timestamp,
    /// When the log took it, by a clock that all senders share.
    pub(super) arrival: Timestamp,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A fact as it is kept.
pub(super) struct Kept {
    pub(super) value: String,
    pub(super) reason: Option<String>,
    /// Since when the value is what it is.
    pub(super) since: i64,
    /// When it was told last.
    pub(super) at: i64,
}

impl<'a> Told<'a> {
    pub(super) fn of(record: &'a EventRecord) -> Self {
        Self {
            service: &record.event.source,
            at: believed(record),
            arrival: record.arrival,
            partition: record.partition,
            offset: record.offset,
        }
    }

    /// Keeps a fact. One that says the same as before holds since then.
    pub(super) fn set(
        &self,
        transaction: &Transaction<'_>,
        fact: Fact,
        value: &str,
        reason: Option<&str>,
    ) -> rusqlite::Result<()> {
        transaction
            .prepare_cached(
                "INSERT INTO service_fact (service, name, partition, value, reason, since, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                 ON CONFLICT (service, name, partition) DO UPDATE SET
                     since = iif(value = excluded.value, since, excluded.since),
                     reason = iif(value = excluded.value, coalesce(excluded.reason, reason), excluded.reason),
                     value = excluded.value, at = max(at, excluded.at)",
            )?
            .execute((self.service, fact.as_str(), self.partition, value, reason, self.at.as_micros()))?;
        Ok(())
    }

    /// The service itself was heard of.
    pub(super) fn seen(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.set(transaction, Fact::Seen, "", None)
    }

    /// The registration was taken back. Whatever stands before this in the log is no later, whatever clocks say.
    pub(super) fn removed(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if let Some(seen) = self.kept(transaction, Fact::Seen)? {
            self.at = self.at.max(micros(seen.at));
        }
        self.set(transaction, Fact::Registered, "no", None)
    }

    /// Whether the registration was taken back and the service has not been heard of since.
    pub(super) fn is_removed(&self, transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
        let Some(removed) = self.kept(transaction, Fact::Registered)?.filter(|kept| kept.value == "no")
        else {
            return Ok(false);
        };
        Ok(self.kept(transaction, Fact::Seen)?.is_none_or(|seen| seen.at <= removed.at))
    }

    /// A fact as this partition tells it.
    fn kept(&self, transaction: &Transaction<'_>, fact: Fact) -> rusqlite::Result<Option<Kept>> {
        transaction
            .prepare_cached(
                "SELECT value, reason, since, at FROM service_fact WHERE service = ?1 AND name = ?2 AND partition = ?3",
            )?
            .query_row((self.service, fact.as_str(), self.partition), |row| {
                Ok(Kept { value: row.get(0)?, reason: row.get(1)?, since: row.get(2)?, at: row.get(3)? })
            })
            .optional()
    }

    /// The service gave a sign of life. One that has stopped may still be heard of for [`STOP_GRACE`] and stays stopped; if it is heard
    /// of later than that, it is there again and didn't say so.
    pub(super) fn alive(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.seen(transaction)?;
        rhythm::heard(transaction, self)?;
        let revives = match self.kept(transaction, Fact::Life)? {
            None => true,
            Some(life) if life.value == "stopped" => self.at > micros(life.at).saturating_add(STOP_GRACE),
            Some(life) => life.value == "starting",
        };
        if revives {
            self.set(transaction, Fact::Life, "alive", None)?;
        }
        Ok(())
    }

    /// Something was told of the service.
    pub(super) fn known(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.set(transaction, Fact::Known, "", None)
    }
}

/// What the tables hold came out of a [`Timestamp`].
pub(super) fn micros(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap_or_default()
}

/// The facts of a service, put together from all partitions: the one that was told last counts.
pub(super) fn of_service(
    transaction: &Transaction<'_>,
    service: &str,
) -> rusqlite::Result<HashMap<Fact, Kept>> {
    let mut statement = transaction.prepare_cached(
        "SELECT name, value, reason, since, at FROM service_fact WHERE service = ?1 ORDER BY at, partition",
    )?;
    let mut rows = statement.query([service])?;
    let mut facts = HashMap::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let Some(fact) = Fact::ALL.into_iter().find(|fact| fact.as_str() == name) else { continue };
        facts.insert(
            fact,
            Kept { value: row.get(1)?, reason: row.get(2)?, since: row.get(3)?, at: row.get(4)? },
        );
    }
    Ok(facts)
}

//! The state of one series as bytes: what is kept in the compacted topic under its `sensor_id` (or, of a service, its series' name).
//!
//! Layout of version 1, of a sensor's series. Integers are zig-zag varints (LEB128), texts a length and UTF-8, times microseconds since the
//! Unix epoch, floats 8 bytes little-endian:
//!
//! ```text
//! version u8 = 1 · partition · sensor_id · sensor_type · unit · factory_section · machine_id · zone
//! applied_through · newest · last_arrival · number of rules, and for each:
//!   name · fingerprint 16 bytes · flags u8, and for each flag that is set, in this order:
//!     1  earliest beginning of the next alert
//!     2  number of samples, and for each: time · value · offset
//!     4  arrival of the last reading that counts · its offset
//!     8  the alert as JSON (a text) · offset of the reading with which it began
//!     16 time since which it has been clear · offset of the reading that showed it
//! ```
//!
//! Version 2, of a service's series, has other labels and is the same after them:
//!
//! ```text
//! version u8 = 2 · partition · series · unit · service · metric · number of tags, and for each: name · value
//! applied_through · …
//! ```
//!
//! A rule has an entry only if there is something to remember, so a series that is well takes about a hundred bytes.
//! Which rules are about the series is found anew when it is restored; entries of rules that are no longer in force as they were
//! keep only their alert, to be ended. Versions are only added, never changed: bytes of each are kept as golden files.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use farol_event::{Alert, AlertStatus, Timestamp};
use uuid::Uuid;

use crate::condition::Condition;
use crate::detector::{
    Active, InForce, Memory, RuleState, Sample, Samples, Series, Shared, rule_at, state_of,
};
use crate::rule::{Rule, RuleFacts, RuleFingerprint};
use crate::rule_set::RuleSet;
use crate::selector::{METRIC, SERVICE, SeriesLabels, ServiceLabels};

mod bytes;

use bytes::{Cursor, Sink};

/// The version that is written for a sensor.
pub const VERSION: u8 = 1;
/// The version that is written for a service.
pub const SERVICE_VERSION: u8 = 2;

/// Why bytes are no state of a series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Written by a newer Farol.
    #[error(
        "the saved state has version {0}, and this program knows none after {SERVICE_VERSION}: use the newer program that wrote it"
    )]
    UnknownVersion(u8),
    /// Cut short, or otherwise not as it was written.
    #[error("the saved state is damaged at byte {at}: {problem}")]
    Damaged {
        /// Byte offset in the state.
        at: usize,
        /// What was wrong there.
        problem: String,
    },
    /// The state of a series in another partition, whose offsets mean nothing here.
    #[error("the saved state of `{sensor_id}` belongs to partition {partition}, not to {here}")]
    OtherPartition {
        /// The series.
        sensor_id: String,
        /// Its partition.
        partition: i32,
        /// The partition that was to be restored.
        here: i32,
    },
    /// The partition has [`crate::detector::MAX_SERIES`] series already.
    #[error("the partition has too many sensors to restore `{sensor_id}`")]
    SeriesLimit {
        /// The series.
        sensor_id: String,
    },
}

const HAS_NOT_BEFORE: u8 = 1;
const HAS_SAMPLES: u8 = 2;
const HAS_ARRIVAL: u8 = 4;
const HAS_ALERT: u8 = 8;
const HAS_CLEARING: u8 = 16;

/// The bytes of a series. `unsettled` are its alerts whose rule is gone.
pub(crate) fn encode(partition: i32, series: &Series, unsettled: &[Active], rules: &RuleSet) -> Vec<u8> {
    let mut out = Sink(Vec::with_capacity(128));
    out.labels(partition, &series.labels.of(&series.id));
    out.integer(series.applied_through);
    out.time(series.newest);
    out.time(series.last_arrival);
    let remembered: Vec<(&Arc<Rule>, &RuleState)> = series
        .states
        .iter()
        .filter(|state| flags(state, series) != 0)
        .filter_map(|state| Some((rule_at(rules, state.rule)?, state)))
        .collect();
    out.count(remembered.len() + unsettled.len());
    for (rule, state) in remembered {
        let flags = flags(state, series);
        out.rule(rule.name(), rule.fingerprint(), flags);
        if flags & HAS_NOT_BEFORE != 0 {
            out.time(state.not_before);
        }
        match &state.memory {
            Memory::Samples(samples) if flags & HAS_SAMPLES != 0 => {
                out.count(samples.0.len());
                for sample in &samples.0 {
                    out.time(sample.at);
                    out.float(sample.value);
                    out.integer(sample.offset);
                }
            }
            Memory::Arrival { at, offset } => {
                out.time(*at);
                out.integer(*offset);
            }
            Memory::Samples(_) | Memory::Nothing => {}
        }
        if let Some(active) = &state.active {
            out.alert(active, &series.id);
        }
    }
    for active in unsettled {
        let clearing = if active.clearing.is_some() { HAS_CLEARING } else { 0 };
        out.rule(&active.facts.name, active.facts.fingerprint, HAS_ALERT | clearing);
        out.alert(active, &series.id);
    }
    out.0
}

fn flags(state: &RuleState, series: &Series) -> u8 {
    let mut flags = 0;
    // Readings before the newest aren't judged, so only a limit after it has an effect.
    if state.not_before > series.newest {
        flags |= HAS_NOT_BEFORE;
    }
    match &state.memory {
        Memory::Samples(samples) if !samples.0.is_empty() => flags |= HAS_SAMPLES,
        Memory::Arrival { .. } => flags |= HAS_ARRIVAL,
        Memory::Samples(_) | Memory::Nothing => {}
    }
    if let Some(active) = &state.active {
        flags |= HAS_ALERT;
        if active.clearing.is_some() {
            flags |= HAS_CLEARING;
        }
    }
    flags
}

impl Sink {
    /// Version, partition and labels.
    fn labels(&mut self, partition: i32, labels: &SeriesLabels<'_>) {
        self.byte(if labels.service.is_some() { SERVICE_VERSION } else { VERSION });
        self.integer(partition.into());
        self.text(labels.sensor_id);
        if let Some(service) = labels.service {
            self.text(labels.unit);
            self.text(&service.service);
            self.text(&service.metric);
            self.count(service.tags.len());
            for (name, value) in &service.tags {
                self.text(name);
                self.text(value);
            }
            return;
        }
        for text in [labels.sensor_type, labels.unit, labels.factory_section, labels.machine_id, labels.zone]
        {
            self.text(text);
        }
    }

    fn rule(&mut self, name: &str, fingerprint: RuleFingerprint, flags: u8) {
        self.text(name);
        self.0.extend_from_slice(fingerprint.0.as_bytes());
        self.byte(flags);
    }

    fn alert(&mut self, active: &Active, series: &str) {
        let json = serde_json::to_string(&active.alert(series))
            .expect("an alert has only string keys, so it serialises");
        self.text(&json);
        self.integer(active.began_offset);
        if let Some((since, offset)) = active.clearing {
            self.time(since);
            self.integer(offset);
        }
    }
}

/// The state of a series as it was saved.
#[derive(Debug)]
pub(crate) struct SavedSeries {
    pub partition: i32,
    pub sensor_id: String,
    labels: SavedLabels,
    applied_through: i64,
    newest: Timestamp,
    last_arrival: Timestamp,
    rules: Vec<SavedRule>,
}

/// Empty where the series doesn't have a label.
#[derive(Debug, Default)]
struct SavedLabels {
    sensor_type: String,
    unit: String,
    factory_section: String,
    machine_id: String,
    zone: String,
    service: Option<ServiceLabels>,
}

#[derive(Debug)]
struct SavedRule {
    name: String,
    fingerprint: RuleFingerprint,
    not_before: Option<Timestamp>,
    samples: Option<VecDeque<Sample>>,
    arrival: Option<(Timestamp, i64)>,
    alert: Option<SavedAlert>,
}

#[derive(Debug)]
struct SavedAlert {
    alert: Box<Alert>,
    began_offset: i64,
    clearing: Option<(Timestamp, i64)>,
}

pub(crate) fn decode(bytes: &[u8]) -> Result<SavedSeries, RestoreError> {
    let mut cursor = Cursor::new(bytes);
    let version = cursor.byte("version")?;
    if !matches!(version, VERSION | SERVICE_VERSION) {
        return Err(RestoreError::UnknownVersion(version));
    }
    let partition = cursor.integer("partition")?;
    let partition = i32::try_from(partition).map_err(|_| cursor.damaged("partition out of range"))?;
    let saved = SavedSeries {
        partition,
        sensor_id: cursor.text("sensor_id")?.to_owned(),
        labels: if version == VERSION { sensor_labels(&mut cursor)? } else { service_labels(&mut cursor)? },
        applied_through: cursor.integer("applied_through")?,
        newest: cursor.time("newest")?,
        last_arrival: cursor.time("last_arrival")?,
        rules: {
            let count = cursor.count("rules")?;
            (0..count).map(|_| rule(&mut cursor)).collect::<Result<_, _>>()?
        },
    };
    if cursor.is_at_end() { Ok(saved) } else { Err(cursor.damaged("more bytes than the state has")) }
}

fn sensor_labels(cursor: &mut Cursor<'_>) -> Result<SavedLabels, RestoreError> {
    Ok(SavedLabels {
        sensor_type: cursor.text("sensor_type")?.to_owned(),
        unit: cursor.text("unit")?.to_owned(),
        factory_section: cursor.text("factory_section")?.to_owned(),
        machine_id: cursor.text("machine_id")?.to_owned(),
        zone: cursor.text("zone")?.to_owned(),
        service: None,
    })
}

fn service_labels(cursor: &mut Cursor<'_>) -> Result<SavedLabels, RestoreError> {
    let unit = cursor.text("unit")?.to_owned();
    let (service, metric) = (cursor.text("service")?.to_owned(), cursor.text("metric")?.to_owned());
    let count = cursor.count("tags")?;
    let tags = (0..count)
        .map(|_| Ok((cursor.text("tag")?.to_owned(), cursor.text("tag")?.to_owned())))
        .collect::<Result<BTreeMap<_, _>, RestoreError>>()?;
    let service = Some(ServiceLabels { service, metric, tags });
    Ok(SavedLabels { unit, service, ..SavedLabels::default() })
}

fn rule(cursor: &mut Cursor<'_>) -> Result<SavedRule, RestoreError> {
    let name = cursor.text("rule name")?.to_owned();
    let fingerprint = RuleFingerprint(Uuid::from_bytes(cursor.array("fingerprint")?));
    let flags = cursor.byte("flags")?;
    if flags & !(HAS_NOT_BEFORE | HAS_SAMPLES | HAS_ARRIVAL | HAS_ALERT | HAS_CLEARING) != 0 {
        return Err(cursor.damaged("unknown flag"));
    }
    let has = |flag: u8| flags & flag != 0;
    let not_before = if has(HAS_NOT_BEFORE) { Some(cursor.time("not_before")?) } else { None };
    let samples = if has(HAS_SAMPLES) { Some(samples(cursor)?) } else { None };
    let arrival = if has(HAS_ARRIVAL) {
        Some((cursor.time("arrival")?, cursor.integer("arrival offset")?))
    } else {
        None
    };
    let alert = if has(HAS_ALERT) { Some(alert(cursor, has(HAS_CLEARING))?) } else { None };
    Ok(SavedRule { name, fingerprint, not_before, samples, arrival, alert })
}

fn samples(cursor: &mut Cursor<'_>) -> Result<VecDeque<Sample>, RestoreError> {
    let count = cursor.count("samples")?;
    if count > crate::detector::MAX_SAMPLES + 1 {
        return Err(cursor.damaged("too many samples"));
    }
    (0..count)
        .map(|_| {
            Ok(Sample {
                at: cursor.time("sample")?,
                value: cursor.float("sample")?,
                offset: cursor.integer("sample")?,
            })
        })
        .collect()
}

fn alert(cursor: &mut Cursor<'_>, has_clearing: bool) -> Result<SavedAlert, RestoreError> {
    let json = cursor.text("alert")?;
    let alert: Box<Alert> = serde_json::from_str(json).map_err(|e| cursor.damaged(&format!("alert: {e}")))?;
    let began_offset = cursor.integer("offset of the beginning")?;
    let clearing =
        if has_clearing { Some((cursor.time("clear since")?, cursor.integer("clear since")?)) } else { None };
    Ok(SavedAlert { alert, began_offset, clearing })
}

impl SavedSeries {
    /// The series under the rules in force, and its alerts whose rule is gone.
    pub fn into_series(self, rules: &RuleSet, shared: &mut Shared, now: Timestamp) -> (Series, Vec<Active>) {
        let labels = self.labels.of(&self.sensor_id);
        let is_service = labels.service.is_some();
        let mut series = Series {
            labels: shared.labels(&labels),
            id: self.sensor_id.as_str().into(),
            applied_through: self.applied_through,
            newest: self.newest,
            last_arrival: self.last_arrival,
            dirty: false,
            armed: None,
            selected: shared.selection(&[]),
            states: Vec::new(),
        };
        let in_force = InForce { since: now.max(self.last_arrival) };
        let selects = |_, rule: &Rule, series: &Series| rule.selects(&series.labels.of(&series.id));
        series.rematch(rules, shared, in_force, |_| None, selects);
        let mut unsettled = Vec::new();
        for saved in self.rules {
            let is_it = |index: &&u32| {
                let rule = rule_at(rules, **index);
                rule.is_some_and(|rule| rule.name() == saved.name && rule.fingerprint() == saved.fingerprint)
            };
            let state = series.selected.iter().find(is_it).map(|index| state_of(&mut series.states, *index));
            match state {
                // A second alert of the same rule can't have been written; if it is there, it is ended, not lost.
                Some(state) if state.active.is_none() || saved.alert.is_none() => {
                    saved.resume(rules, state, is_service, shared)
                }
                _ => unsettled.extend(
                    saved.alert.map(|alert| alert.active(saved.fingerprint, None, is_service, shared)),
                ),
            }
        }
        series.keep_ids_apart(rules, &unsettled);
        (series, unsettled)
    }
}

impl SavedLabels {
    fn of<'a>(&'a self, series: &'a str) -> SeriesLabels<'a> {
        SeriesLabels {
            sensor_id: series,
            sensor_type: &self.sensor_type,
            unit: &self.unit,
            factory_section: &self.factory_section,
            machine_id: &self.machine_id,
            zone: &self.zone,
            service: self.service.as_ref(),
        }
    }
}

impl SavedRule {
    fn resume(self, rules: &RuleSet, state: &mut RuleState, is_service: bool, shared: &mut Shared) {
        let Some(rule) = rule_at(rules, state.rule) else { return };
        if let Some(not_before) = self.not_before {
            state.not_before = state.not_before.max(not_before);
        }
        match (rule.condition(), self.samples, self.arrival) {
            (Condition::Rate { .. }, Some(samples), _) => {
                state.memory = Memory::Samples(Box::new(Samples(samples)))
            }
            (Condition::Absent(_), _, Some((at, offset))) => state.memory = Memory::Arrival { at, offset },
            _ => {}
        }
        if let Some(alert) = self.alert {
            state.active = Some(Box::new(alert.active(self.fingerprint, Some(rule), is_service, shared)));
        }
    }
}

impl SavedAlert {
    /// The alert as the detector keeps it, with the facts of `rule` if it is still in force.
    fn active(
        self,
        fingerprint: RuleFingerprint,
        rule: Option<&Rule>,
        is_service: bool,
        shared: &mut Shared,
    ) -> Active {
        let alert = *self.alert;
        let label = |name: &str| alert.labels.get(name).map_or("", String::as_str);
        let own_labels = alert.rule_definition.get("labels");
        let of_rule = |name: &str| own_labels.and_then(|labels| labels.get(name)).is_some();
        let of_series = |name: &str| match is_service {
            true => !of_rule(name),
            false => crate::selector::LabelName::of(name).is_some(),
        };
        let service = is_service.then(|| ServiceLabels {
            service: label(SERVICE).to_owned(),
            metric: label(METRIC).to_owned(),
            tags: alert
                .labels
                .iter()
                .filter(|(name, _)| !matches!(name.as_str(), SERVICE | METRIC | "unit") && of_series(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        });
        let labels = shared.labels(&SeriesLabels {
            sensor_id: &alert.series,
            sensor_type: label("sensor_type"),
            unit: label("unit"),
            factory_section: label("factory_section"),
            machine_id: label("machine_id"),
            zone: label("zone"),
            service: service.as_ref(),
        });
        let facts = match rule {
            Some(rule) => Arc::clone(rule.facts()),
            None => {
                let own = alert.labels.iter().filter(|(name, _)| !of_series(name));
                let labels = own.map(|(name, value)| (name.clone(), value.clone())).collect();
                Arc::new(RuleFacts {
                    name: alert.rule,
                    definition: alert.rule_definition,
                    fingerprint,
                    severity: alert.severity,
                    labels,
                })
            }
        };
        Active {
            facts,
            id: alert.id,
            labels,
            summary: alert.summary,
            value: alert.value,
            began_at: alert.began_at,
            began_offset: self.began_offset,
            fired_at: alert.fired_at.filter(|_| alert.status == AlertStatus::Firing),
            clearing: self.clearing,
        }
    }
}

#[cfg(test)]
mod tests;

//! The state of one partition's series: readings in, alert transitions out.
//!
//! A [`PartitionState`] belongs to one partition of the topic of readings, or of that of services' events, and to the worker that
//! owns it. It is a pure function of what it is given: [`PartitionState::apply_reading`] (or [`PartitionState::apply`]) for every
//! record in order, [`PartitionState::tick`] now and then, [`PartitionState::rules_changed`] when the rules do. A series is a sensor,
//! or a metric of a service with its tags; its labels are those of its newest reading. "Reading" below means either.
//!
//! # Time
//!
//! * **Event time decides** about values and rates. `for` completes with a reading at or after the beginning plus `for`
//!   that still breaches; `clear_for` likewise. Between readings nothing is assumed, so a sensor that falls silent
//!   leaves its alerts as they are: silence is what `absent_for` is there for.
//! * **Late readings** (older than the newest judged one of the series) don't change what rules have found; they are
//!   counted. Readings of equal time are judged in the order of their offsets. So the order of arrival matters only
//!   within a series and only in that one way: readings of different series may be interleaved anyhow.
//! * **A timestamp more than [`MAX_CLOCK_LEAD`] after arrival is not believed**, and the reading is judged at its
//!   arrival: one reading of a sensor whose clock runs ahead must not make all its later ones late.
//! * **Absence is measured by arrival**, because event time stands still when nothing arrives. Any reading that the rule
//!   doesn't ignore ends it, late ones too. The instants are exact however rarely `tick` is called, and even if it never is:
//!   a reading that comes too late first makes the alert fire, at the instant at which it was due, and then ends it.
//!
//! # Alerts
//!
//! For each rule and series there is at most one alert that is pending or firing. A pending alert ends (*dismissed*)
//! with the first reading that doesn't breach the threshold; hysteresis (`clear`) and `clear_for` concern firing ones.
//! An alert's id is made from rule, series and beginning, so an alert that begins at the instant at which its
//! predecessor began, begins a microsecond later. Alerts of rules that are removed, changed, disabled, or no longer select the
//! series, end with a transition that says so.
//!
//! # State
//!
//! [`PartitionState::series_state`] gives the state of one series as bytes, [`PartitionState::restore`] takes it back, and going on from
//! there equals never having stopped. It holds the offset of the last applied reading; applying that one or an earlier
//! one again does nothing. So states need not all be saved at the same offset: it is enough to save a series in the
//! same transaction as its transitions, and the other changed ones ([`PartitionState::take_dirty`]) from time to time, if after
//! a crash reading starts again where they were last all saved. Save all of them when the rules change, because readings that are
//! read again are judged by the new rules.
//!
//! Limits: [`MAX_SERIES`] series, of them [`MAX_SERIES_PER_SERVICE`] metrics of one service; whether services are available has a bound of
//! its own ([`MAX_SERIES`] services), so that no flood of metrics hides an outage. [`MAX_TRANSITIONS_PER_CALL`] transitions from one call of `tick`, `rules_changed` or `settle`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use farol_event::service::names::AVAILABLE;
use farol_event::{AlertTransition, Reading, Timestamp};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::measurement::{Measurement, ServiceEnd};
use crate::rule::Rule;
use crate::rule_set::RuleSet;
use crate::selector::{SeriesLabels, ServiceLabels};

mod absence;
mod judge;
mod labels;
mod rate;
mod series;

use absence::{AbsenceWatch, Timers};
use judge::{EndedBy, Place, Seen, Subject};
pub(crate) use labels::Shared;
pub(crate) use rate::{MAX_SAMPLES, Sample, Samples};
pub(crate) use series::{Active, InForce, Memory, RuleState, Series, rule_at, state_of};

/// How many series one partition may have; readings of further ones are refused with [`SeriesLimit`].
pub const MAX_SERIES: usize = 1_000_000;
/// How many metrics with their tags one service may have; further ones are refused with [`SeriesLimit`]. So a sender that puts what
/// is always new into a tag takes no room from others.
pub const MAX_SERIES_PER_SERVICE: usize = 1_000;
/// How far after its arrival a reading's timestamp is believed.
pub const MAX_CLOCK_LEAD: Duration = Duration::from_secs(60);
/// How many transitions one call makes at most (besides those that one reading causes); call again for the rest.
pub const MAX_TRANSITIONS_PER_CALL: usize = 4_000;

/// There are [`MAX_SERIES`] or [`MAX_SERIES_PER_SERVICE`] series already, and this reading is of another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whose} has {most} series already: rules are not evaluated for `{sensor_id}`")]
pub struct SeriesLimit {
    /// Whose bound it is: the partition's or the service's.
    pub whose: String,
    /// The bound.
    pub most: usize,
    /// The sensor whose reading was refused.
    pub sensor_id: String,
}

/// What happened to readings, counted since the state was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Judged by the rules, if any select them.
    pub judged: u64,
    /// Older than the newest of their series, and so not judged.
    pub late: u64,
    /// Applied before, and so skipped.
    pub repeated: u64,
    /// Judged at their arrival, because their timestamp was too far ahead of it.
    pub clock_ahead: u64,
    /// Ignored by a rule for their quality (one reading counts once for each rule).
    pub low_quality: u64,
    /// Refused with [`SeriesLimit`].
    pub over_limit: u64,
}

/// The state of one series, to be saved under its `sensor_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesState {
    /// The series.
    pub sensor_id: String,
    /// Its state, see [`crate::saved`].
    pub bytes: Vec<u8>,
}

/// The state of one partition's series under the rules in force.
#[derive(Debug)]
pub struct PartitionState {
    place: Place,
    rules: Arc<RuleSet>,
    series: Vec<Series>,
    /// Index into `series` by `sensor_id`.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// How many of the series tell whether a service is available.
    availabilities: usize,
    /// How many others each service has.
    per_service: BTreeMap<Box<str>, usize>,
    shared: Shared,
    /// When to look at which series for absence. An entry may come too early, never too late, and counts only if its
    /// series is `armed` for it.
    timers: Timers,
    /// Before this, readings could not arrive.
    listening_since: Timestamp,
    dirty: VecDeque<u32>,
    /// Alerts, by series, whose rule is gone and which have not ended yet.
    unsettled: BTreeMap<Box<str>, Vec<Active>>,
    counters: Counters,
}

impl PartitionState {
    /// The state of a partition of which nothing has been read yet.
    pub fn new(topic: Arc<str>, partition: i32, rules: Arc<RuleSet>) -> Self {
        Self {
            place: Place { topic, partition },
            rules,
            series: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            availabilities: 0,
            per_service: BTreeMap::new(),
            shared: Shared::default(),
            timers: Timers::new(),
            listening_since: Timestamp::EPOCH,
            dirty: VecDeque::new(),
            unsettled: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Applies one reading: the record at `offset`, which arrived at `arrival`. Transitions come in the order in which
    /// they happened, those of the same instant in the order of the rules.
    ///
    /// # Errors
    /// [`SeriesLimit`] if the partition has too many series; nothing has changed then.
    pub fn apply_reading(
        &mut self,
        reading: &Reading<'_>,
        offset: i64,
        arrival: Timestamp,
    ) -> Result<Vec<AlertTransition>, SeriesLimit> {
        self.apply(&Measurement::from(reading), offset, arrival)
    }

    /// Applies one measurement of a sensor or service; see [`PartitionState::apply_reading`].
    ///
    /// # Errors
    /// [`SeriesLimit`] if the partition has too many series; nothing has changed then.
    pub fn apply(
        &mut self,
        reading: &Measurement<'_>,
        offset: i64,
        arrival: Timestamp,
    ) -> Result<Vec<AlertTransition>, SeriesLimit> {
        let mut out = Vec::new();
        let labels = reading.labels;
        let (slot, at) = match self.find(labels.sensor_id) {
            Some(found) => found,
            None => self.create(&labels, arrival)?,
        };
        if self.series.get(at).is_none_or(|series| offset <= series.applied_through) {
            self.counters.repeated += 1;
            return Ok(out);
        }
        if !self.unsettled.is_empty() {
            self.settle_one(labels.sensor_id, arrival, &mut out);
        }
        let Some(series) = self.series.get_mut(at) else { return Ok(out) };
        series.applied_through = offset;
        series.last_arrival = series.last_arrival.max(arrival);
        if !series.dirty {
            series.dirty = true;
            self.dirty.push_back(slot);
        }
        if series.states.iter().any(|state| matches!(state.memory, Memory::Arrival { .. })) {
            let watch = AbsenceWatch {
                rules: &self.rules,
                place: &self.place,
                listening_since: self.listening_since,
            };
            watch.reading_arrived(series, reading.quality, arrival, &mut out);
            watch.arm(&mut self.timers, slot, series);
        }
        let ahead = reading.at > arrival.saturating_add(MAX_CLOCK_LEAD);
        let mut seen = Seen { at: if ahead { arrival } else { reading.at }, value: reading.value, offset };
        self.counters.clock_ahead += u64::from(ahead);
        if reading.in_order {
            seen.at = seen.at.max(series.newest);
        }
        if seen.at < series.newest {
            self.counters.late += 1;
            return Ok(out);
        }
        self.counters.judged += 1;
        series.newest = seen.at;
        if !series.labels.are(&labels) {
            series.labels = self.shared.labels(&labels);
            let selects = |_, rule: &Rule, series: &Series| rule.selects(&series.labels.of(&series.id));
            let ended =
                series.rematch(&self.rules, &mut self.shared, InForce { since: arrival }, Some, selects);
            let by = EndedBy::NoLongerSelected;
            out.extend(
                ended.iter().map(|active| judge::ended_by(active, &self.place, &series.id, by, seen.at)),
            );
            let watch = AbsenceWatch {
                rules: &self.rules,
                place: &self.place,
                listening_since: self.listening_since,
            };
            watch.arm(&mut self.timers, slot, series);
        }
        for index in series.selected.iter() {
            let Some(rule) = rule_at(&self.rules, *index) else { continue };
            if !rule.trusts(reading.quality) {
                self.counters.low_quality += 1;
                continue;
            }
            // The usual case, and the only one for most series: nothing is remembered, and nothing begins.
            let known = series.states.iter().any(|state| state.rule == *index);
            if !known && !judge::begins(rule, seen.value) {
                continue;
            }
            let subject = Subject { place: &self.place, id: &series.id, labels: &series.labels };
            judge::reading(rule, state_of(&mut series.states, *index), subject, seen, &mut out);
        }
        if !out.is_empty() {
            series.states.retain(|state| state.matters(series.newest));
        }
        Ok(out)
    }

    /// A service stopped or was removed, as the record at `offset` says that arrived at `arrival`: its alerts end, and its series are
    /// forgotten, so that their saved states can be deleted. Of one that stopped, whether it is available remains: who asks for that
    /// says so. Gives the transitions and the forgotten series, in order.
    pub fn service_ended(
        &mut self,
        service: &str,
        how: ServiceEnd,
        offset: i64,
        arrival: Timestamp,
    ) -> (Vec<AlertTransition>, Vec<String>) {
        let ends = |series: &Series| {
            let labels = series.labels.of(&series.id);
            let its_own = labels.service.filter(|labels| labels.service == service);
            let stays = |labels| how == ServiceEnd::Stopped && is_availability(labels);
            series.applied_through < offset && its_own.is_some_and(|labels| !stays(labels))
        };
        let mut ending: Vec<&Series> = self.series.iter().filter(|series| ends(series)).collect();
        if ending.is_empty() {
            return (Vec::new(), Vec::new());
        }
        ending.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut out = Vec::new();
        let by = EndedBy::Service(how, offset);
        for series in &ending {
            let active = series.states.iter().filter_map(|state| state.active.as_deref());
            let unsettled = self.unsettled.get(&series.id).into_iter().flatten();
            out.extend(
                active
                    .chain(unsettled)
                    .map(|active| judge::ended_by(active, &self.place, &series.id, by, arrival)),
            );
        }
        let ids: BTreeSet<String> = ending.iter().map(|series| series.id.to_string()).collect();
        self.forget(&ids);
        (out, ids.into_iter().collect())
    }

    /// Lets time pass, to `now` by the clock that stamps arrivals: alerts for absence fire. At most
    /// [`MAX_TRANSITIONS_PER_CALL`] at a time; while [`PartitionState::next_deadline`] is not after `now`, call again.
    pub fn tick(&mut self, now: Timestamp) -> Vec<AlertTransition> {
        let mut out = Vec::new();
        while out.len() < MAX_TRANSITIONS_PER_CALL {
            let Some(&Reverse((due, slot))) = self.timers.peek().filter(|Reverse((due, _))| *due <= now)
            else {
                break;
            };
            self.timers.pop();
            let Some(series) = series_at(&mut self.series, slot).filter(|series| series.armed == Some(due))
            else {
                continue;
            };
            series.armed = None;
            let before = out.len();
            let watch = AbsenceWatch {
                rules: &self.rules,
                place: &self.place,
                listening_since: self.listening_since,
            };
            watch.time_passed(series, now, &mut out);
            watch.arm(&mut self.timers, slot, series);
            if out.len() > before && !series.dirty {
                series.dirty = true;
                self.dirty.push_back(slot);
            }
        }
        // Series of one instant come in an order that says nothing; make it the same after a restart.
        out.sort_by(|a, b| (a.at, &a.alert.series).cmp(&(b.at, &b.alert.series)));
        out
    }

    /// Nothing will become absent before this instant. Without one, nothing will at all.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.peek().map(|Reverse((due, _))| *due)
    }

    /// Readings could not arrive before `now`: absence counts from here. For whoever has kept the door shut (the whole
    /// program was down), so that a restart doesn't report every sensor absent; not for a partition that merely moved.
    pub fn listening_since(&mut self, now: Timestamp) {
        self.listening_since = self.listening_since.max(now);
    }

    /// Puts other rules in force. Alerts whose rule is no longer there as it was end at `now`; those that remain
    /// unsettled because they are too many ([`PartitionState::unsettled`]) are ended by [`PartitionState::settle`].
    pub fn rules_changed(&mut self, rules: Arc<RuleSet>, now: Timestamp) -> Vec<AlertTransition> {
        let before = std::mem::replace(&mut self.rules, rules);
        // By new index: where the same rule stood before.
        let same =
            |rule: &Arc<Rule>| before.rules().iter().position(|was| was.fingerprint() == rule.fingerprint());
        let carried: Vec<Option<u32>> = self
            .rules
            .rules()
            .iter()
            .map(|rule| same(rule).and_then(|was| u32::try_from(was).ok()))
            .collect();
        let earlier = |index: u32| slot_index(index).and_then(|at| carried.get(at).copied().flatten());
        // A rule that stays is about the same series as before; only for the others do selectors have to be evaluated.
        let selects = |index, rule: &Rule, series: &Series| match earlier(index) {
            Some(was) => series.selected.contains(&was),
            None => rule.selects(&series.labels.of(&series.id)),
        };
        self.timers.clear();
        for (slot, series) in (0u32..).zip(&mut self.series) {
            let in_force = InForce { since: now.max(series.last_arrival) };
            let ended = series.rematch(&self.rules, &mut self.shared, in_force, earlier, selects);
            if !ended.is_empty() {
                self.unsettled.entry(series.id.clone()).or_default().extend(ended);
            }
            series.armed = None;
            let watch = AbsenceWatch {
                rules: &self.rules,
                place: &self.place,
                listening_since: self.listening_since,
            };
            watch.arm(&mut self.timers, slot, series);
            if !series.dirty {
                series.dirty = true;
                self.dirty.push_back(slot);
            }
        }
        self.settle(now)
    }

    /// How many series have alerts whose rule is gone and which have not ended yet.
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Ends alerts whose rule is gone: after [`PartitionState::restore`], when rules may have changed in between, and after
    /// [`PartitionState::rules_changed`] left some over. Series in order of their ids. At most about [`MAX_TRANSITIONS_PER_CALL`]; while
    /// [`PartitionState::unsettled`] is not zero, call again. (A reading settles its own series, so nothing goes wrong in between.)
    pub fn settle(&mut self, now: Timestamp) -> Vec<AlertTransition> {
        let mut out = Vec::new();
        while out.len() < MAX_TRANSITIONS_PER_CALL
            && let Some((series, ended)) = self.unsettled.pop_first()
        {
            self.end(&series, &ended, now, &mut out);
        }
        out
    }

    fn settle_one(&mut self, sensor_id: &str, now: Timestamp, out: &mut Vec<AlertTransition>) {
        if let Some(ended) = self.unsettled.remove(sensor_id) {
            self.end(sensor_id, &ended, now, out);
        }
    }

    fn end(&mut self, sensor_id: &str, ended: &[Active], now: Timestamp, out: &mut Vec<AlertTransition>) {
        for active in ended {
            let by = match self.rules.get(&active.facts.name) {
                None => EndedBy::RuleRemoved,
                Some(rule) if !rule.enabled() => EndedBy::RuleDisabled,
                Some(rule) if rule.fingerprint() != active.facts.fingerprint => EndedBy::RuleChanged,
                Some(_) => EndedBy::NoLongerSelected,
            };
            out.push(judge::ended_by(active, &self.place, sensor_id, by, now));
        }
        self.mark_dirty(sensor_id);
    }

    /// The ids of series that changed since they were last taken, with their states; those that changed first come first,
    /// at most `at_most`, and no further one once they have `max_bytes`.
    pub fn take_dirty(&mut self, at_most: usize, max_bytes: usize) -> Vec<SeriesState> {
        let mut taken: Vec<SeriesState> = Vec::with_capacity(at_most.min(self.dirty.len()));
        let mut bytes = 0;
        while taken.len() < at_most
            && bytes < max_bytes
            && let Some(slot) = self.dirty.pop_front()
        {
            let Some(series) = series_at(&mut self.series, slot) else { continue };
            series.dirty = false;
            let sensor_id = series.id.to_string();
            let state = self.series_state(&sensor_id).map(|bytes| SeriesState { sensor_id, bytes });
            bytes += state.as_ref().map_or(0, |state| state.sensor_id.len() + state.bytes.len());
            taken.extend(state);
        }
        taken
    }

    /// How many series changed since they were last taken.
    pub fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Says that a series has to be saved (again): a transaction with its state was aborted, say.
    pub fn mark_dirty(&mut self, sensor_id: &str) {
        if let Some((slot, at)) = self.find(sensor_id)
            && let Some(series) = self.series.get_mut(at)
            && !series.dirty
        {
            series.dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// The state of one series as bytes.
    pub fn series_state(&self, sensor_id: &str) -> Option<Vec<u8>> {
        let (_, at) = self.find(sensor_id)?;
        let unsettled = self.unsettled.get(sensor_id).map_or(&[][..], Vec::as_slice);
        Some(crate::saved::encode(self.place.partition, self.series.get(at)?, unsettled, &self.rules))
    }

    /// Takes back the state of one series, in place of what is known of it. `now` is from when on rules that the saved
    /// state doesn't know count absence. When all are restored, call [`PartitionState::settle`]. What was saved is taken back
    /// also beyond [`MAX_SERIES_PER_SERVICE`]: its alerts would never end otherwise.
    ///
    /// # Errors
    /// The bytes are of an unknown version, damaged, of another partition, or there are [`MAX_SERIES`] series already.
    pub fn restore(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), crate::RestoreError> {
        let saved = crate::saved::decode(bytes)?;
        if saved.partition != self.place.partition {
            let (partition, here) = (saved.partition, self.place.partition);
            return Err(crate::RestoreError::OtherPartition { sensor_id: saved.sensor_id, partition, here });
        }
        let (series, unsettled) = saved.into_series(&self.rules, &mut self.shared, now);
        let slot = match self.find(&series.id) {
            Some((slot, at)) => {
                if let Some(place) = self.series.get_mut(at) {
                    let dirty = place.dirty;
                    *place = Series { dirty, ..series };
                }
                slot
            }
            None => {
                if self.partition_is_full(is_availability_of(&series)) {
                    let sensor_id = series.id.to_string();
                    return Err(crate::RestoreError::SeriesLimit { sensor_id });
                }
                self.insert(series)
            }
        };
        let Some(series) = series_at(&mut self.series, slot) else { return Ok(()) };
        if unsettled.is_empty() {
            self.unsettled.remove(&series.id);
        } else {
            self.unsettled.insert(series.id.clone(), unsettled);
        }
        let watch =
            AbsenceWatch { rules: &self.rules, place: &self.place, listening_since: self.listening_since };
        watch.arm(&mut self.timers, slot, series);
        Ok(())
    }

    /// Forgets series without a pending or firing alert of which nothing arrived since `before`, and returns their ids, in order, so
    /// that their saved states can be deleted. A forgotten series that comes back is new.
    pub fn forget_idle(&mut self, before: Timestamp) -> Vec<String> {
        let unsettled = std::mem::take(&mut self.unsettled);
        let gone = self.forget_where(|series| {
            series.last_arrival < before
                && series.states.iter().all(|state| state.active.is_none())
                && !unsettled.contains_key(&series.id)
        });
        self.unsettled = unsettled;
        gone
    }

    /// Forgets the series of these ids, whatever state they are in: that they were forgotten is what was saved last of them.
    pub fn forget(&mut self, ids: &BTreeSet<String>) {
        self.unsettled.retain(|id, _| !ids.contains(&**id));
        self.forget_where(|series| ids.contains(&*series.id));
    }

    fn forget_where(&mut self, goes: impl Fn(&Series) -> bool) -> Vec<String> {
        let (gone, kept): (Vec<Series>, Vec<Series>) =
            std::mem::take(&mut self.series).into_iter().partition(goes);
        // Slots have moved: index, timers and the queue of changed series are made anew.
        self.index.clear();
        self.timers.clear();
        self.dirty.clear();
        self.availabilities = 0;
        self.per_service.clear();
        for series in kept {
            let dirty = series.dirty;
            let slot = self.insert(Series { armed: None, ..series });
            if dirty {
                self.dirty.push_back(slot);
            }
            let watch = AbsenceWatch {
                rules: &self.rules,
                place: &self.place,
                listening_since: self.listening_since,
            };
            if let Some(series) = series_at(&mut self.series, slot) {
                watch.arm(&mut self.timers, slot, series);
            }
        }
        let mut gone: Vec<String> = gone.into_iter().map(|series| series.id.into_string()).collect();
        gone.sort_unstable();
        gone
    }

    /// The rules in force.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// How many series are known.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// How many alerts are pending or firing.
    pub fn active_count(&self) -> usize {
        let settled = self
            .series
            .iter()
            .flat_map(|series| &series.states)
            .filter(|state| state.active.is_some())
            .count();
        settled + self.unsettled.values().map(Vec::len).sum::<usize>()
    }

    /// What happened to readings.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The offset of the last reading applied to a series.
    pub fn applied_through(&self, sensor_id: &str) -> Option<i64> {
        let (_, at) = self.find(sensor_id)?;
        self.series.get(at).map(|series| series.applied_through)
    }

    /// The slot of a series, as kept and as an index.
    fn find(&self, sensor_id: &str) -> Option<(u32, usize)> {
        let is_it = |slot: &u32| {
            slot_index(*slot).and_then(|at| self.series.get(at)).is_some_and(|s| *s.id == *sensor_id)
        };
        let slot = *self.index.find(self.hasher.hash_one(sensor_id), is_it)?;
        Some((slot, slot_index(slot)?))
    }

    /// A new series with the rules that select it.
    fn create(&mut self, labels: &SeriesLabels<'_>, arrival: Timestamp) -> Result<(u32, usize), SeriesLimit> {
        self.room(labels)?;
        let mut series = Series {
            id: labels.sensor_id.into(),
            labels: self.shared.labels(labels),
            applied_through: -1,
            newest: Timestamp::EPOCH,
            last_arrival: arrival,
            dirty: false,
            armed: None,
            selected: self.shared.selection(&[]),
            states: Vec::new(),
        };
        let selects = |_, rule: &Rule, series: &Series| rule.selects(&series.labels.of(&series.id));
        series.rematch(&self.rules, &mut self.shared, InForce { since: arrival }, |_| None, selects);
        let slot = self.insert(series);
        Ok((slot, self.series.len() - 1))
    }

    /// Whether there is room for another series.
    fn room(&mut self, labels: &SeriesLabels<'_>) -> Result<(), SeriesLimit> {
        let full = match labels.service {
            Some(service) if is_availability(service) => self.partition_is_full(true).then_some(None),
            _ if self.partition_is_full(false) => Some(None),
            Some(service) => {
                let has = self.per_service.get(service.service.as_str()).copied().unwrap_or(0);
                (has >= MAX_SERIES_PER_SERVICE).then_some(Some(&service.service))
            }
            None => None,
        };
        let Some(service) = full else { return Ok(()) };
        self.counters.over_limit += 1;
        let (whose, most) = match service {
            Some(service) => (format!("service `{service}`"), MAX_SERIES_PER_SERVICE),
            None => (format!("partition {}", self.place.partition), MAX_SERIES),
        };
        Err(SeriesLimit { whose, most, sensor_id: labels.sensor_id.to_owned() })
    }

    /// Whether the partition has as many series as it may: of those that tell if a service is available, or of all others.
    fn partition_is_full(&self, of_availability: bool) -> bool {
        let others = self.series.len().saturating_sub(self.availabilities);
        (if of_availability { self.availabilities } else { others }) >= MAX_SERIES
    }

    /// Puts a series that isn't there yet, whether or not there is room.
    fn insert(&mut self, series: Series) -> u32 {
        let labels = series.labels.of(&series.id);
        match labels.service {
            Some(service) if is_availability(service) => self.availabilities += 1,
            Some(service) => match self.per_service.get_mut(service.service.as_str()) {
                Some(count) => *count += 1,
                None => drop(self.per_service.insert(service.service.as_str().into(), 1)),
            },
            None => {}
        }
        let slot = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        let hash = self.hasher.hash_one(&*series.id);
        self.series.push(series);
        let (all, hasher) = (&self.series, &self.hasher);
        let rehash =
            |slot: &u32| slot_index(*slot).and_then(|at| all.get(at)).map_or(0, |s| hasher.hash_one(&*s.id));
        self.index.insert_unique(hash, slot, rehash);
        slot
    }
}

/// Whether the series tells if the service is available, and nothing else.
fn is_availability(service: &ServiceLabels) -> bool {
    service.metric == AVAILABLE && service.tags.is_empty()
}

fn is_availability_of(series: &Series) -> bool {
    series.labels.of(&series.id).service.is_some_and(is_availability)
}

fn slot_index(slot: u32) -> Option<usize> {
    usize::try_from(slot).ok()
}

fn series_at(series: &mut [Series], slot: u32) -> Option<&mut Series> {
    series.get_mut(slot_index(slot)?)
}

#[cfg(test)]
mod tests;

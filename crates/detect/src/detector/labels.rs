//! The labels of a series, shared between series: a plant has thousands of sensors and few machines, zones and units.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::selector::{LabelName, METRIC, SERVICE, SeriesLabels, ServiceLabels};

/// The labels of one series except its `sensor_id`. What it doesn't have is empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Labels {
    pub sensor_type: Arc<str>,
    pub unit: Arc<str>,
    pub factory_section: Arc<str>,
    pub machine_id: Arc<str>,
    pub zone: Arc<str>,
    /// Of a series of a service. Behind one pointer, because nearly all series are of sensors.
    pub service: Option<Arc<ServiceLabels>>,
}

impl Labels {
    pub fn of<'a>(&'a self, sensor_id: &'a str) -> SeriesLabels<'a> {
        SeriesLabels {
            sensor_id,
            sensor_type: &self.sensor_type,
            unit: &self.unit,
            factory_section: &self.factory_section,
            machine_id: &self.machine_id,
            zone: &self.zone,
            service: self.service.as_deref(),
        }
    }

    /// Whether these are the labels in `given`, its `sensor_id` aside.
    pub fn are(&self, given: &SeriesLabels<'_>) -> bool {
        *self.sensor_type == *given.sensor_type
            && *self.unit == *given.unit
            && *self.factory_section == *given.factory_section
            && *self.machine_id == *given.machine_id
            && *self.zone == *given.zone
            && self.service.as_deref() == given.service
    }

    /// As an alert carries them: the non-empty ones, with the rule's own.
    pub fn of_alert(
        &self,
        sensor_id: &str,
        rule_labels: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let labels = self.of(sensor_id);
        let own = rule_labels.iter().map(|(name, value)| (name.clone(), value.clone()));
        if let Some(service) = &self.service {
            let unit = Some((LabelName::Unit.as_str(), labels.unit)).filter(|(_, unit)| !unit.is_empty());
            let tags = service.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            // A tag that is called like a label of the series gives way to it; the rule's own labels come last.
            return tags
                .chain(unit)
                .chain([(SERVICE, service.service.as_str()), (METRIC, service.metric.as_str())])
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .chain(own)
                .collect();
        }
        LabelName::ALL
            .into_iter()
            .filter(|name| !labels.get(*name).is_empty())
            .map(|name| (name.as_str().to_owned(), labels.get(name).to_owned()))
            .chain(own)
            .collect()
    }
}

/// What series have in common, kept once: label texts, and which rules select a series.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    texts: InUse<str>,
    selections: InUse<[u32]>,
}

impl Shared {
    pub fn labels(&mut self, labels: &SeriesLabels<'_>) -> Labels {
        Labels {
            sensor_type: self.texts.one(labels.sensor_type),
            unit: self.texts.one(labels.unit),
            factory_section: self.texts.one(labels.factory_section),
            machine_id: self.texts.one(labels.machine_id),
            zone: self.texts.one(labels.zone),
            service: labels.service.map(|service| Arc::new(service.clone())),
        }
    }

    /// Indices of the rules that select a series.
    pub fn selection(&mut self, rules: &[u32]) -> Arc<[u32]> {
        self.selections.one(rules)
    }
}

/// One copy of everything in use.
#[derive(Debug)]
struct InUse<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// At this many, those out of use are dropped.
    sweep_at: usize,
}

impl<T: ?Sized> Default for InUse<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SWEEP_AT_LEAST }
    }
}

const SWEEP_AT_LEAST: usize = 4096;

impl<T: ?Sized + Eq + Hash> InUse<T> {
    fn one<'a>(&mut self, wanted: &'a T) -> Arc<T>
    where
        Arc<T>: From<&'a T>,
    {
        if let Some(known) = self.known.get(wanted) {
            return Arc::clone(known);
        }
        // A sender that changes its labels with every reading must not fill the memory.
        if self.known.len() >= self.sweep_at {
            self.known.retain(|one| Arc::strong_count(one) > 1);
            self.sweep_at = (2 * self.known.len()).max(SWEEP_AT_LEAST);
        }
        let new: Arc<T> = wanted.into();
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_out_of_use_are_dropped() {
        let mut shared = Shared::default();
        let kept = shared.labels(&SeriesLabels { machine_id: "kept", ..Default::default() });
        for i in 0..100_000 {
            shared.labels(&SeriesLabels { machine_id: &i.to_string(), ..Default::default() });
        }
        assert!(shared.texts.known.len() <= SWEEP_AT_LEAST);
        let again = shared.labels(&SeriesLabels { machine_id: "kept", ..Default::default() });
        assert!(Arc::ptr_eq(&kept.machine_id, &again.machine_id));
    }
}

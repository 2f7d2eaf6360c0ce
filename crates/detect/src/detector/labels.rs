//! The labels of a series, shared between series: a plant has thousands of sensors and few machines, zones and units.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::selector::{LabelName, SeriesLabels};

/// The labels of one series except its `sensor_id`. What it doesn't have is empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Labels {
    pub sensor_type: Arc<str>,
    pub unit: Arc<str>,
    pub factory_section: Arc<str>,
    pub machine_id: Arc<str>,
    pub zone: Arc<str>,
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
        }
    }

    /// Whether these are the labels in `given`, its `sensor_id` aside.
    pub fn are(&self, given: &SeriesLabels<'_>) -> bool {
        *self.sensor_type == *given.sensor_type
            && *self.unit == *given.unit
            && *self.factory_section == *given.factory_section
            && *self.machine_id == *given.machine_id
            && *self.zone == *given.zone
    }

    /// As an alert carries them: the non-empty ones, with the rule's own.
    pub fn of_alert(
        &self,
        sensor_id: &str,
        rule_labels: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let labels = self.of(sensor_id);
        LabelName::ALL
            .into_iter()
            .filter(|name| !labels.get(*name).is_empty())
            .map(|name| (name.as_str().to_owned(), labels.get(name).to_owned()))
            .chain(rule_labels.iter().map(|(name, value)| (name.clone(), value.clone())))
            .collect()
    }
}

/// One copy of every label text in use.
#[derive(Debug, Default)]
pub(crate) struct LabelTexts {
    texts: HashSet<Arc<str>>,
    /// At this many texts, those that no series uses any more are dropped.
    sweep_at: usize,
}

impl LabelTexts {
    const SWEEP_AT_LEAST: usize = 4096;

    pub fn share(&mut self, labels: &SeriesLabels<'_>) -> Labels {
        Labels {
            sensor_type: self.text(labels.sensor_type),
            unit: self.text(labels.unit),
            factory_section: self.text(labels.factory_section),
            machine_id: self.text(labels.machine_id),
            zone: self.text(labels.zone),
        }
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        // A sender that changes its labels with every reading must not fill the memory.
        if self.texts.len() >= self.sweep_at.max(Self::SWEEP_AT_LEAST) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = 2 * self.texts.len();
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_out_of_use_are_dropped() {
        let mut texts = LabelTexts::default();
        let kept = texts.share(&SeriesLabels { machine_id: "kept", ..Default::default() });
        for i in 0..100_000 {
            texts.share(&SeriesLabels { machine_id: &i.to_string(), ..Default::default() });
        }
        assert!(texts.texts.len() <= LabelTexts::SWEEP_AT_LEAST);
        let again = texts.share(&SeriesLabels { machine_id: "kept", ..Default::default() });
        assert!(Arc::ptr_eq(&kept.machine_id, &again.machine_id));
    }
}

//! Which views there are, and what each reads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What the topics are called. Only a setting (`SENSOR_TOPIC`, `ALERT_TOPIC`) makes them differ from the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewTopics {
    /// Readings; `sensor-data` by default.
    pub sensor_data: Arc<str>,
    /// Alerts' transitions; `alerts` by default.
    pub alerts: Arc<str>,
    /// Events about the system itself; `system-events` by default.
    pub system_events: Arc<str>,
    /// Records that could not be processed; `dead-letters` by default.
    pub dead_letters: Arc<str>,
}

impl Default for ViewTopics {
    fn default() -> Self {
        Self {
            sensor_data: "sensor-data".into(),
            alerts: "alerts".into(),
            system_events: "system-events".into(),
            dead_letters: "dead-letters".into(),
        }
    }
}

impl ViewTopics {
    /// The topics that `view` reads.
    pub fn of(&self, view: ViewName) -> Vec<Arc<str>> {
        let topics = match view {
            ViewName::Readings | ViewName::Sensors => vec![&self.sensor_data],
            ViewName::Alerts | ViewName::Events => vec![&self.alerts, &self.system_events],
            ViewName::Pipeline => vec![&self.system_events, &self.dead_letters],
            ViewName::Services => vec![&self.system_events],
            ViewName::Silences => vec![&self.system_events],
        };
        topics.into_iter().cloned().collect()
    }

    /// What the records of `topic` are, if a view reads it.
    pub(crate) fn content_of(&self, topic: &str) -> Option<TopicContent> {
        [
            (&self.sensor_data, TopicContent::Readings),
            (&self.alerts, TopicContent::Alerts),
            (&self.system_events, TopicContent::SystemEvents),
            (&self.dead_letters, TopicContent::DeadLetters),
        ]
        .into_iter()
        .find_map(|(name, content)| (**name == *topic).then_some(content))
    }
}

/// What the records of a topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicContent {
    Readings,
    Alerts,
    SystemEvents,
    DeadLetters,
}

/// One view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewName {
    /// Every reading, by sensor and time.
    Readings,
    /// Every sensor with its newest reading.
    Sensors,
    /// Every alert with its transitions and the deliveries of its notifications.
    Alerts,
    /// Events by time, source, type and correlation id.
    Events,
    /// Consumers, producers, rebalances and dead letters.
    Pipeline,
    /// Services with their state, metrics and checks, and resilience policies.
    Services,
    /// Silences: what nobody is told, until when.
    Silences,
}

impl ViewName {
    /// Every view.
    pub const ALL: [ViewName; 7] = [
        ViewName::Readings,
        ViewName::Sensors,
        ViewName::Alerts,
        ViewName::Events,
        ViewName::Pipeline,
        ViewName::Services,
        ViewName::Silences,
    ];

    /// The name in tables, settings and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            ViewName::Readings => "readings",
            ViewName::Sensors => "sensors",
            ViewName::Alerts => "alerts",
            ViewName::Events => "events",
            ViewName::Pipeline => "pipeline",
            ViewName::Services => "services",
            ViewName::Silences => "silences",
        }
    }

    /// Whether the view folds records of that content.
    pub(crate) fn folds(self, content: TopicContent) -> bool {
        match self {
            ViewName::Readings | ViewName::Sensors => content == TopicContent::Readings,
            ViewName::Alerts | ViewName::Events => {
                matches!(content, TopicContent::Alerts | TopicContent::SystemEvents)
            }
            ViewName::Pipeline => matches!(content, TopicContent::SystemEvents | TopicContent::DeadLetters),
            ViewName::Services => content == TopicContent::SystemEvents,
            ViewName::Silences => content == TopicContent::SystemEvents,
        }
    }
}

impl fmt::Display for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no view of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no view `{0}`; the views are readings, sensors, alerts, events, pipeline, services and silences"
)]
pub struct UnknownView(pub String);

impl FromStr for ViewName {
    type Err = UnknownView;

    fn from_str(text: &str) -> Result<Self, UnknownView> {
        Self::ALL
            .into_iter()
            .find(|view| view.as_str() == text)
            .ok_or_else(|| UnknownView(text.chars().take(64).collect()))
    }
}

//! Which series a rule is about: label matchers in PromQL's syntax, `{sensor_type="temperature", machine_id=~"m-.*"}`.
//!
//! As in PromQL: `=`, `!=`, `=~` and `!~`; regular expressions match the whole value; a label that a series doesn't
//! have counts as empty; strings are in double or single quotes with Go's escapes, or raw in backticks; a trailing
//! comma is allowed. Unlike PromQL: no metric name in front, and a selector is about sensors or about services, never both:
//!
//! * one that names `service` or `metric` is about what services send. Any other label but `unit` is then a tag of the metric:
//!   `{metric="response_time_ms", endpoint="/checkout"}`;
//! * any other is about sensors, and `{}` selects them all. The only labels are those of [`LabelName`], so that a misspelt one is
//!   an error instead of a rule that never matches.
//!
//! Limits: [`MAX_SELECTOR_BYTES`], [`MAX_MATCHERS`], [`MAX_COMPILED_REGEX_BYTES`]. The regex engine runs in time linear
//! in the value, so no pattern can stall a partition.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use farol_event::Reading;
use farol_matcher::syntax::{self, Quoted};
use farol_matcher::{Dialect, Pattern, SyntaxError};

pub use farol_matcher::{MAX_COMPILED_REGEX_BYTES, MAX_MATCHERS};

/// The longest selector, in bytes.
pub const MAX_SELECTOR_BYTES: usize = farol_matcher::MAX_BYTES;

/// A label that every series of a sensor has (empty if the sender gave nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LabelName {
    /// Who measures.
    SensorId,
    /// What is measured.
    SensorType,
    /// The unit of the values.
    Unit,
    /// Section of the plant.
    FactorySection,
    /// The machine that carries the sensor.
    MachineId,
    /// Zone within the section.
    Zone,
}

impl LabelName {
    /// Every label.
    pub const ALL: [LabelName; 6] = [
        LabelName::SensorId,
        LabelName::SensorType,
        LabelName::Unit,
        LabelName::FactorySection,
        LabelName::MachineId,
        LabelName::Zone,
    ];

    /// The label's name in selectors, summaries and alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            LabelName::SensorId => "sensor_id",
            LabelName::SensorType => "sensor_type",
            LabelName::Unit => "unit",
            LabelName::FactorySection => "factory_section",
            LabelName::MachineId => "machine_id",
            LabelName::Zone => "zone",
        }
    }

    /// The label of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.as_str() == name)
    }
}

/// The label that tells which service a series is about.
pub const SERVICE: &str = "service";
/// The label that tells which metric of a service a series is.
pub const METRIC: &str = "metric";

/// What tells a series of a service apart: a metric with its tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceLabels {
    /// The service.
    pub service: String,
    /// The metric's name.
    pub metric: String,
    /// The metric's tags.
    pub tags: BTreeMap<String, String>,
}

/// The labels of one series. A label that it doesn't have is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SeriesLabels<'a> {
    /// The series: for a sensor its id.
    pub sensor_id: &'a str,
    /// What is measured.
    pub sensor_type: &'a str,
    /// The unit of the values.
    pub unit: &'a str,
    /// Section of the plant.
    pub factory_section: &'a str,
    /// The machine that carries the sensor.
    pub machine_id: &'a str,
    /// Zone within the section.
    pub zone: &'a str,
    /// Service, metric and tags, if the series is one of a service; of the others it has only `unit` then.
    pub service: Option<&'a ServiceLabels>,
}

impl<'a> SeriesLabels<'a> {
    /// The value of one of a sensor's labels.
    pub fn get(&self, name: LabelName) -> &'a str {
        match name {
            LabelName::SensorId => self.sensor_id,
            LabelName::SensorType => self.sensor_type,
            LabelName::Unit => self.unit,
            LabelName::FactorySection => self.factory_section,
            LabelName::MachineId => self.machine_id,
            LabelName::Zone => self.zone,
        }
    }
}

impl<'a> From<&'a Reading<'_>> for SeriesLabels<'a> {
    fn from(reading: &'a Reading<'_>) -> Self {
        let text = |label: &'a Option<std::borrow::Cow<'_, str>>| label.as_deref().unwrap_or("");
        Self {
            sensor_id: &reading.sensor_id,
            sensor_type: &reading.sensor_type,
            unit: text(&reading.unit),
            factory_section: text(&reading.location.factory_section),
            machine_id: text(&reading.location.machine_id),
            zone: text(&reading.location.zone),
            service: None,
        }
    }
}

/// Label matchers that must all hold. `Display` gives a canonical text that parses back.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// Whether it is about series of services; otherwise it is about sensors.
    about_services: bool,
    matchers: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    label: Label,
    negated: bool,
    test: Test,
}

/// What a matcher looks at.
#[derive(Debug, Clone)]
enum Label {
    /// Of a sensor, or the unit.
    Known(LabelName),
    Service,
    Metric,
    /// A tag of a metric.
    Tag(Box<str>),
}

impl Label {
    fn as_str(&self) -> &str {
        match self {
            Label::Known(name) => name.as_str(),
            Label::Service => SERVICE,
            Label::Metric => METRIC,
            Label::Tag(name) => name,
        }
    }

    /// The label of that name in a selector about services.
    fn of_service(name: &str) -> Self {
        match name {
            SERVICE => Label::Service,
            METRIC => Label::Metric,
            _ if name == LabelName::Unit.as_str() => Label::Known(LabelName::Unit),
            _ => Label::Tag(name.into()),
        }
    }

    fn value<'a>(&self, labels: &SeriesLabels<'a>) -> &'a str {
        let of_service =
            |part: fn(&ServiceLabels) -> &String| labels.service.map_or("", |service| part(service));
        match self {
            Label::Known(name) => labels.get(*name),
            Label::Service => of_service(|service| &service.service),
            Label::Metric => of_service(|service| &service.metric),
            Label::Tag(name) => {
                labels.service.and_then(|service| service.tags.get(&**name)).map_or("", String::as_str)
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Test {
    Equal(Box<str>),
    /// The anchored expression and its text as it was written.
    Regex(Pattern, Box<str>),
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Longer than [`MAX_SELECTOR_BYTES`].
    #[error("the selector has {0} bytes; at most {MAX_SELECTOR_BYTES} are accepted")]
    TooLong(usize),
    /// More than [`MAX_MATCHERS`].
    #[error("the selector has more than {MAX_MATCHERS} matchers")]
    TooManyMatchers,
    /// Something else stood where the syntax asks for a certain thing.
    #[error("at byte {at}: expected {expected}")]
    Expected {
        /// Byte offset in the selector.
        at: usize,
        /// What the syntax asks for.
        expected: &'static str,
    },
    /// A label that series don't have.
    #[error(
        "at byte {at}: no series has a label `{name}`; use sensor_id, sensor_type, unit, factory_section, machine_id or zone \
         (or, about services, name `service` or `metric` as well)"
    )]
    UnknownLabel {
        /// Byte offset in the selector.
        at: usize,
        /// The refused name, shortened.
        name: String,
    },
    /// A string with an escape that Go doesn't know.
    #[error(
        "at byte {at}: unknown escape in string (for a regular expression's backslash write two, or use backticks)"
    )]
    Escape {
        /// Byte offset in the selector.
        at: usize,
    },
    /// A regular expression that doesn't compile, or is too large.
    #[error("at byte {at}: regular expression: {problem}")]
    Regex {
        /// Byte offset in the selector.
        at: usize,
        /// What the engine said.
        problem: String,
    },
}

impl Selector {
    /// Whether all matchers hold for these labels.
    pub fn selects(&self, labels: &SeriesLabels<'_>) -> bool {
        labels.service.is_some() == self.about_services
            && self.matchers.iter().all(|matcher| {
                let value = matcher.label.value(labels);
                let holds = match &matcher.test {
                    Test::Equal(text) => value == text.as_ref(),
                    Test::Regex(pattern, _) => pattern.matches(value),
                };
                holds != matcher.negated
            })
    }

    /// Whether it is about series of services.
    pub fn is_about_services(&self) -> bool {
        self.about_services
    }

    /// The tags that it names.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.matchers.iter().filter_map(|matcher| match &matcher.label {
            Label::Tag(name) => Some(&**name),
            _ => None,
        })
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError::TooLong(text.len()));
        }
        let mut matchers = Vec::new();
        let parsed = syntax::matchers(text, Dialect::PromQl)?;
        let about_services = parsed.iter().any(|matcher| matches!(&*matcher.label, SERVICE | METRIC));
        for parsed in parsed {
            let label = if about_services {
                Label::of_service(&parsed.label)
            } else {
                LabelName::of(&parsed.label).map(Label::Known).ok_or_else(|| SelectorError::UnknownLabel {
                    at: parsed.label_at,
                    name: parsed.label.chars().take(64).collect(),
                })?
            };
            let test = if parsed.regex {
                Test::Regex(compile(&parsed.value, parsed.value_at)?, parsed.value.into())
            } else {
                Test::Equal(parsed.value.into())
            };
            matchers.push(Matcher { label, negated: parsed.negated, test });
        }
        Ok(Self { about_services, matchers })
    }
}

/// Compiles `pattern` to match whole values only.
fn compile(pattern: &str, at: usize) -> Result<Pattern, SelectorError> {
    Pattern::new(pattern).map_err(|error| SelectorError::Regex { at, problem: error.to_string() })
}

impl From<SyntaxError> for SelectorError {
    fn from(error: SyntaxError) -> Self {
        match error {
            SyntaxError::TooManyMatchers => SelectorError::TooManyMatchers,
            SyntaxError::Expected { at, expected } => SelectorError::Expected { at, expected },
            SyntaxError::Escape { at } => SelectorError::Escape { at },
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, matcher) in self.matchers.iter().enumerate() {
            let (operator, value) = match (&matcher.test, matcher.negated) {
                (Test::Equal(text), false) => ("=", text),
                (Test::Equal(text), true) => ("!=", text),
                (Test::Regex(_, text), false) => ("=~", text),
                (Test::Regex(_, text), true) => ("!~", text),
            };
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}{operator}{}", matcher.label.as_str(), Quoted(value))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;

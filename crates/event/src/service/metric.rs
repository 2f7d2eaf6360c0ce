//! One collected metric: the data of `metrica_coletada`, the founding documents' Metrica.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::service::{Checked, MAX_TAGS, bounded, name};

/// Names of metrics that Farol itself sends or gives a meaning to. Any other name is a metric as well.
pub mod names {
    /// Processor in use, in percent of all processors.
    pub const CPU_PERCENT: &str = "cpu_percent";
    /// Memory in use, in percent of all memory.
    pub const MEMORY_PERCENT: &str = "memory_percent";
    /// Memory in use, in bytes.
    pub const MEMORY_BYTES: &str = "memory_bytes";
    /// Disk in use, in percent; tag `mount` says which.
    pub const DISK_PERCENT: &str = "disk_percent";
    /// What the network interfaces receive.
    pub const NETWORK_RECEIVED: &str = "network_received_bytes_per_second";
    /// What the network interfaces send.
    pub const NETWORK_SENT: &str = "network_sent_bytes_per_second";
    /// How long an answer took.
    pub const RESPONSE_TIME_MS: &str = "response_time_ms";
    /// Requests served per second.
    pub const REQUESTS_PER_SECOND: &str = "requests_per_second";
    /// Requests that failed, in percent.
    pub const ERROR_RATE_PERCENT: &str = "error_rate_percent";
    /// Time since the start.
    pub const UPTIME_SECONDS: &str = "uptime_seconds";
    /// Whether a service is available, 1 or 0: what rules see of `sistema_indisponivel` and `sistema_recuperado`.
    pub const AVAILABLE: &str = "available";
}

/// One metric of one service at the event's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metric {
    /// What was measured (`cpu_percent`, `response_time_ms`, … or anything else).
    #[serde(rename = "nome", alias = "name")]
    pub name: String,
    /// The value, always finite, in [`Metric::unit`].
    #[serde(rename = "valor", alias = "value")]
    pub value: f64,
    /// The unit, as the sender writes it (`%`, `ms`, …).
    #[serde(rename = "unidade", alias = "unit", default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What tells this metric apart from others of the same name. Tags that are numbers or booleans become text.
    #[serde(default, deserialize_with = "tags", skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

impl Metric {
    /// A metric without tags.
    pub fn new(name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit: Some(unit.into()), tags: BTreeMap::new() }
    }

    /// The same with one more tag.
    #[must_use]
    pub fn with_tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }
}

impl Checked for Metric {
    fn check(&self) -> Result<(), String> {
        name("nome", &self.name)?;
        if !self.value.is_finite() {
            return Err("`valor` is not a finite number".into());
        }
        if let Some(unit) = &self.unit {
            bounded("unidade", unit, crate::service::MAX_NAME_BYTES)?;
        }
        if self.tags.len() > MAX_TAGS {
            return Err(format!("`tags` are more than {MAX_TAGS}"));
        }
        self.tags.iter().try_for_each(|(tag, value)| {
            name("tags", tag)?;
            bounded(tag, value, crate::service::MAX_NAME_BYTES)
        })
    }
}

/// An object of texts, numbers and booleans, or null for none.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct TagsVisitor;
    impl<'de> Visitor<'de> for TagsVisitor {
        type Value = BTreeMap<String, String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut tags = BTreeMap::new();
            while let Some((name, Tag(value))) = map.next_entry::<String, Tag<'_>>()? {
                if tags.len() > MAX_TAGS {
                    return Err(de::Error::custom(format_args!("`tags` are more than {MAX_TAGS}")));
                }
                if let Some(value) = value {
                    tags.insert(name, value.into_owned());
                }
            }
            Ok(tags)
        }
    }
    deserializer.deserialize_any(TagsVisitor)
}

/// A tag as text; none if it was null.
struct Tag<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Tag<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TagVisitor;
        impl<'de> Visitor<'de> for TagVisitor {
            type Value = Tag<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, number or boolean")
            }
            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Tag(None))
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Tag(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Tag(Some(Cow::Owned(text.to_owned()))))
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Self::Value, E> {
                Ok(Tag(Some(Cow::Borrowed(if truth { "true" } else { "false" }))))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Tag(Some(Cow::Owned(number.to_string()))))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Tag(Some(Cow::Owned(number.to_string()))))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Tag(Some(Cow::Owned(number.to_string()))))
            }
        }
        deserializer.deserialize_any(TagVisitor)
    }
}

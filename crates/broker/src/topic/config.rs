//! Topic configuration by Kafka's names.
//!
//! Those that are honoured; a further few are kept ([`keys`]), and all others refused.
//!
//! | key | values | default |
//! | --- | --- | --- |
//! | `cleanup.policy` | `delete`, `compact`, `compact,delete` | `delete` |
//! | `retention.ms` | milliseconds; -1 keeps for ever | -1 |
//! | `retention.bytes` | bytes of one partition; -1 is no limit | -1 |
//! | `segment.bytes` | 16 KiB to 1 GiB | 128 MiB |
//! | `segment.ms` | milliseconds after which a segment is closed | never, or a quarter of `retention.ms` |
//! | `max.compaction.lag.ms` | how old a record of a compacted topic may get before compaction has looked at it | 9223372036854775807, no limit |
//! | `delete.retention.ms` | how long a tombstone stays | 86400000 |
//! | `compression.type` | `uncompressed`, `gzip`, `snappy`, `lz4`, `zstd`; `producer` means what the producer sends: uncompressed | `producer` |
//! | `max.message.bytes` | largest batch, 1 KiB to 8 MiB | 1048588 |
//! | `message.timestamp.after.max.ms` | how far ahead of the broker's clock a sender's timestamp may be | 3600000, as with Kafka since 4.0 (KIP-1030) |
//! | `message.timestamp.type` | `CreateTime`; `LogAppendTime` puts the time of the append in place of the sender's | `CreateTime` |
//! | `farol.sync` | `always`, `never`, or an interval (`50ms`, `2s`) | the broker's |

pub mod keys;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use keys::{CONFIG_KEYS, ConfigKey};

use farol_log::{Compaction, Compression, PartitionOptions, Retention, SyncPolicy};

/// The largest number that Kafka can say.
const MAX_LIMIT: u64 = i64::MAX as u64;
/// Kafka's default.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
/// Kafka's default, an hour.
const DEFAULT_TIMESTAMP_AHEAD_MS: i64 = 3_600_000;
/// A segment that is written for too long keeps old records alive; with a retention of R, they live up to 1.25 R.
const SEGMENTS_PER_RETENTION: u32 = 4;
/// The longest interval of `farol.sync`: more is `never` in disguise.
const MAX_SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CleanupPolicy {
    /// They go by age and size.
    #[default]
    Delete,
    /// Only the newest of each key stays.
    Compact,
    /// Both.
    CompactAndDelete,
}

/// A topic's configuration, checked, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// What happens to old records.
    pub cleanup: CleanupPolicy,
    /// How long records stay; `None` for ever.
    pub retention: Option<Duration>,
    /// Bytes that one partition keeps; `None` for all.
    pub retention_bytes: Option<u64>,
    /// Bytes of a segment.
    pub segment_bytes: u32,
    /// After what time a segment is closed.
    pub segment_age: Option<Duration>,
    /// How old something new may be that isn't compacted; `None` for as old as may be.
    pub compaction_lag: Option<Duration>,
    /// How long a tombstone stays.
    pub tombstone_grace: Duration,
    /// How sent records are compressed.
    pub compression: Compression,
    /// Bytes of the largest batch, before compression.
    pub max_message_bytes: usize,
    /// How far ahead of the broker's clock a sender's timestamp may be, in milliseconds.
    pub timestamp_ahead_ms: i64,
    /// Whether records get the time of their append in place of the sender's.
    pub log_append_time: bool,
    /// When an append is acknowledged.
    pub sync: SyncPolicy,
}

impl TopicConfig {
    /// Whether only the newest record of each key stays.
    pub fn is_compacted(&self) -> bool {
        self.cleanup != CleanupPolicy::Delete
    }

    /// Checks a configuration. The error names the key, its value and what would do.
    pub(crate) fn parse(
        overrides: &BTreeMap<String, String>,
        default_sync: SyncPolicy,
    ) -> Result<Self, String> {
        let mut config = Self {
            cleanup: CleanupPolicy::Delete,
            retention: None,
            retention_bytes: None,
            segment_bytes: PartitionOptions::default().segment_bytes,
            segment_age: None,
            compaction_lag: None,
            tombstone_grace: Compaction::default().tombstone_grace,
            compression: Compression::None,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            timestamp_ahead_ms: DEFAULT_TIMESTAMP_AHEAD_MS,
            log_append_time: false,
            sync: default_sync,
        };
        for (key, value) in overrides {
            config.set(key, value.trim())?;
        }
        if config.segment_age.is_none() {
            config.segment_age = config.retention.map(|age| age / SEGMENTS_PER_RETENTION);
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let refused = |allowed: &str| format!("`{key}` is `{value}`; {allowed}");
        match key {
            "cleanup.policy" => {
                let mut policies: Vec<&str> = value.split(',').map(str::trim).collect();
                policies.sort_unstable();
                self.cleanup = match policies.as_slice() {
                    ["delete"] => CleanupPolicy::Delete,
                    ["compact"] => CleanupPolicy::Compact,
                    ["compact", "delete"] => CleanupPolicy::CompactAndDelete,
                    _ => return Err(refused("`delete`, `compact` or `compact,delete` would do")),
                };
            }
            "retention.ms" => self.retention = limit(key, value)?.map(Duration::from_millis),
            "retention.bytes" => self.retention_bytes = limit(key, value)?,
            "segment.bytes" => self.segment_bytes = number(key, value, 16 * 1024, 1024 * 1024 * 1024)?,
            "segment.ms" => {
                self.segment_age = Some(Duration::from_millis(number(key, value, 1, MAX_LIMIT)?));
            }
            "max.compaction.lag.ms" => {
                let lag = number(key, value, 1, MAX_LIMIT)?;
                self.compaction_lag = (lag < MAX_LIMIT).then(|| Duration::from_millis(lag));
            }
            "delete.retention.ms" => {
                self.tombstone_grace = Duration::from_millis(number(key, value, 0, MAX_LIMIT)?);
            }
            "compression.type" => {
                self.compression = match value {
                    "uncompressed" | "producer" => Compression::None,
                    "gzip" => Compression::Gzip,
                    "snappy" => Compression::Snappy,
                    "lz4" => Compression::Lz4,
                    "zstd" => Compression::Zstd,
                    _ => {
                        return Err(refused(
                            "`producer`, `uncompressed`, `gzip`, `snappy`, `lz4` or `zstd` would do",
                        ));
                    }
                };
            }
            "max.message.bytes" => self.max_message_bytes = number(key, value, 1024, 8 * 1024 * 1024)?,
            "message.timestamp.after.max.ms" => {
                self.timestamp_ahead_ms = number(key, value, 0, i64::MAX)?;
            }
            "message.timestamp.type" => {
                self.log_append_time = match value {
                    "CreateTime" => false,
                    "LogAppendTime" => true,
                    _ => return Err(refused("`CreateTime` or `LogAppendTime` would do")),
                };
            }
            "farol.sync" => {
                self.sync = parse_sync(value).ok_or_else(|| {
                    refused("`always`, `never` or an interval such as `50ms` or `2s` would do")
                })?;
            }
            _ => match ConfigKey::find(key) {
                Some(kept) if kept.kind.fits(value) => {}
                Some(kept) => return Err(refused(&format!("a value such as `{}` would do", kept.default))),
                None => {
                    let known: Vec<&str> = CONFIG_KEYS.iter().map(|key| key.name).collect();
                    let known = known.join(", ");
                    return Err(format!("`{key}` is no configuration that is honoured; there are {known}"));
                }
            },
        }
        Ok(())
    }

    /// What a key is that nobody has set.
    pub(crate) fn unset_value(&self, key: &ConfigKey) -> String {
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
        match key.name {
            "farol.sync" => match self.sync {
                SyncPolicy::Always => "always".to_owned(),
                SyncPolicy::Never => "never".to_owned(),
                SyncPolicy::Interval(interval) => format!("{}ms", interval.as_millis()),
            },
            "segment.ms" => self.segment_age.map_or(MAX_LIMIT, millis).to_string(),
            _ => key.default.to_owned(),
        }
    }

    /// The same for the log.
    pub(crate) fn partition_options(&self) -> PartitionOptions {
        let deletes = self.cleanup != CleanupPolicy::Compact;
        PartitionOptions {
            sync: self.sync,
            segment_bytes: self.segment_bytes,
            segment_age: self.segment_age,
            retention: Retention {
                max_age: self.retention.filter(|_| deletes),
                max_bytes: self.retention_bytes.filter(|_| deletes),
            },
            compaction: (self.cleanup != CleanupPolicy::Delete).then(|| Compaction {
                tombstone_grace: self.tombstone_grace,
                max_lag: self.compaction_lag,
                ..Compaction::default()
            }),
        }
    }
}

/// A number within bounds.
fn number<T: FromStr + PartialOrd + Copy + std::fmt::Display>(
    key: &str,
    value: &str,
    min: T,
    max: T,
) -> Result<T, String> {
    match value.parse::<T>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("`{key}` is `{value}`; a whole number from {min} to {max} would do")),
    }
}

/// A number of which -1 means no limit.
fn limit(key: &str, value: &str) -> Result<Option<u64>, String> {
    if value == "-1" {
        return Ok(None);
    }
    number(key, value, 0, MAX_LIMIT)
        .map(Some)
        .map_err(|_| format!("`{key}` is `{value}`; a whole number, or -1 for no limit, would do"))
}

fn parse_sync(value: &str) -> Option<SyncPolicy> {
    match value {
        "always" => Some(SyncPolicy::Always),
        "never" => Some(SyncPolicy::Never),
        _ => {
            let interval = if let Some(millis) = value.strip_suffix("ms") {
                Duration::from_millis(millis.trim().parse().ok()?)
            } else {
                Duration::from_secs(value.strip_suffix('s')?.trim().parse().ok()?)
            };
            (interval > Duration::ZERO && interval <= MAX_SYNC_INTERVAL)
                .then_some(SyncPolicy::Interval(interval))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let overrides = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        TopicConfig::parse(&overrides, SyncPolicy::Always)
    }

    #[test]
    fn every_key_is_honoured() {
        let config = parse(&[
            ("cleanup.policy", "delete, compact"),
            ("retention.ms", "60000"),
            ("retention.bytes", "1000000"),
            ("segment.bytes", "65536"),
            ("delete.retention.ms", "5"),
            ("compression.type", "lz4"),
            ("max.message.bytes", "2048"),
            ("message.timestamp.after.max.ms", "1000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("farol.sync", "50ms"),
        ])
        .unwrap();
        assert_eq!(config.cleanup, CleanupPolicy::CompactAndDelete);
        assert_eq!(config.compression, Compression::Lz4);
        assert_eq!(config.max_message_bytes, 2048);
        assert!(config.log_append_time);
        assert_eq!(config.timestamp_ahead_ms, 1000);
        let options = config.partition_options();
        assert_eq!(options.sync, SyncPolicy::Interval(Duration::from_millis(50)));
        assert_eq!(options.retention.max_age, Some(Duration::from_secs(60)));
        assert_eq!(options.retention.max_bytes, Some(1_000_000));
        assert_eq!(options.segment_bytes, 65536);
        assert_eq!(options.segment_age, Some(Duration::from_secs(15)), "a quarter of the retention");
        assert_eq!(options.compaction.unwrap().tombstone_grace, Duration::from_millis(5));
    }

    #[test]
    fn a_topic_without_configuration_deletes_nothing() {
        let options = parse(&[]).unwrap().partition_options();
        assert_eq!(options.retention, Retention::default());
        assert_eq!(options.compaction, None);
        assert_eq!(parse(&[("retention.ms", "-1")]).unwrap().partition_options().retention.max_age, None);
    }

    #[test]
    fn a_compacted_topic_is_not_deleted_by_age() {
        let options =
            parse(&[("cleanup.policy", "compact"), ("retention.ms", "1000")]).unwrap().partition_options();
        assert_eq!(options.retention.max_age, None);
        assert_eq!(options.compaction.unwrap().max_lag, None);
        for (lag, expected) in [("5000", Some(Duration::from_secs(5))), ("9223372036854775807", None)] {
            let config = parse(&[("cleanup.policy", "compact"), ("max.compaction.lag.ms", lag)]).unwrap();
            assert_eq!(config.partition_options().compaction.unwrap().max_lag, expected);
        }
    }

    #[test]
    fn errors_name_key_value_and_what_would_do() {
        for (key, value, hint) in [
            ("cleanup.policy", "delet", "`compact`"),
            ("retention.ms", "-2", "-1 for no limit"),
            ("segment.bytes", "12", "16384"),
            ("compression.type", "brotli", "`zstd`"),
            ("farol.sync", "sometimes", "`always`"),
            ("farol.sync", "0ms", "`always`"),
            ("max.message.bytes", "9999999999", "8388608"),
            ("segment.ms", "0", "from 1"),
        ] {
            let error = parse(&[(key, value)]).unwrap_err();
            assert!(error.contains(key) && error.contains(value) && error.contains(hint), "{error}");
        }
        for unknown in ["retention", "min.compaction.lag.ms", "remote.storage.enable"] {
            let error = parse(&[(unknown, "2")]).unwrap_err();
            assert!(error.contains(unknown) && error.contains("retention.ms"), "{error}");
        }
    }

    #[test]
    fn keys_that_make_no_difference_are_checked_and_change_nothing() {
        let plain = parse(&[]).unwrap();
        let kept =
            [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "false"), ("flush.ms", "1")];
        assert_eq!(parse(&kept).unwrap(), plain);
        for (key, value) in [("min.insync.replicas", "two"), ("preallocate", "maybe"), ("flush.ms", "-2")] {
            let error = parse(&[(key, value)]).unwrap_err();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn the_longest_time_that_kafka_can_say_is_for_ever_or_nearly() {
        let config = parse(&[("retention.ms", "9223372036854775807")]).unwrap();
        assert!(config.retention.is_none_or(|age| age > Duration::from_secs(1_000_000_000)));
    }
}

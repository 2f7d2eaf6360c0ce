//! Every key of a topic's configuration, once: those that are honoured, and those of Kafka that are kept.
//!
//! Kafka's tools and libraries set more than one machine needs. Keys that only say how many copies there must be, or when and
//! how files are written, change nothing about what becomes of a record here: they are checked, kept and told again, and make
//! no difference. All other keys of Kafka are refused, because a setting that is taken and not honoured would disappear
//! silently.

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigKey {
    /// Kafka's name for it.
    pub name: &'static str,
    /// What it is when nobody sets it.
    pub default: &'static str,
    /// What its values look like.
    pub kind: ConfigKind,
    /// What it is for, in a sentence.
    pub help: &'static str,
    /// Whether it makes a difference.
    pub effect: Effect,
}

/// What a value looks like. The numbers are those of the protocol's DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    Text = 2,
    /// A whole number of 32 bits.
    Int = 3,
    /// A whole number of 64 bits.
    Long = 5,
    /// A number.
    Double = 6,
    /// Texts with commas between.
    List = 7,
}

/// Whether a key makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The broker does what it says.
    Honoured,
    /// It is kept, and makes no difference on one machine.
    Kept,
}

/// Every key that can be set, in alphabetical order.
pub const CONFIG_KEYS: [ConfigKey; 26] = [
    honoured(
        "cleanup.policy",
        "delete",
        ConfigKind::List,
        "What happens to old records: `delete`, `compact` or both.",
    ),
    honoured(
        "compression.type",
        "producer",
        ConfigKind::Text,
        "How records that are sent in process are compressed; batches of Kafka clients stay as they come.",
    ),
    honoured(
        "delete.retention.ms",
        "86400000",
        ConfigKind::Long,
        "How long a tombstone stays in a compacted topic.",
    ),
    honoured(
        "farol.sync",
        "",
        ConfigKind::Text,
        "When an append is acknowledged: `always` after an fdatasync, an interval, or `never`.",
    ),
    kept("file.delete.delay.ms", "60000", ConfigKind::Long, "Segments that are deleted go at once."),
    kept(
        "flush.messages",
        "9223372036854775807",
        ConfigKind::Long,
        "When to sync is `farol.sync`'s business.",
    ),
    kept("flush.ms", "9223372036854775807", ConfigKind::Long, "When to sync is `farol.sync`'s business."),
    kept("follower.replication.throttled.replicas", "", ConfigKind::List, "There is one copy."),
    kept("index.interval.bytes", "4096", ConfigKind::Int, "Indexes have an interval of their own."),
    kept("leader.replication.throttled.replicas", "", ConfigKind::List, "There is one copy."),
    honoured(
        "max.compaction.lag.ms",
        "9223372036854775807",
        ConfigKind::Long,
        "How old a record may get before compaction has looked at it, give or take five seconds.",
    ),
    honoured("max.message.bytes", "1048588", ConfigKind::Int, "Largest batch, 1 KiB to 8 MiB."),
    kept("message.downconversion.enable", "false", ConfigKind::Boolean, "Batches leave as they came."),
    kept("message.format.version", "3.0-IV1", ConfigKind::Text, "There is one format, v2."),
    honoured(
        "message.timestamp.after.max.ms",
        "3600000",
        ConfigKind::Long,
        "How far ahead of the broker's clock a sender's timestamp may be; further ahead is refused.",
    ),
    honoured(
        "message.timestamp.type",
        "CreateTime",
        ConfigKind::Text,
        "`CreateTime`, or `LogAppendTime` for the time of the append.",
    ),
    kept(
        "min.cleanable.dirty.ratio",
        "0.5",
        ConfigKind::Double,
        "Compaction runs when there is something to do.",
    ),
    kept("min.insync.replicas", "1", ConfigKind::Int, "There is one copy."),
    kept("preallocate", "false", ConfigKind::Boolean, "Segments grow as they are written."),
    honoured("retention.bytes", "-1", ConfigKind::Long, "Bytes that one partition keeps; -1 for all."),
    honoured("retention.ms", "-1", ConfigKind::Long, "How long records stay; -1 for ever."),
    honoured(
        "segment.bytes",
        "134217728",
        ConfigKind::Int,
        "Size at which a segment is closed, 16 KiB to 1 GiB.",
    ),
    kept("segment.index.bytes", "10485760", ConfigKind::Int, "Indexes have the size that they need."),
    kept("segment.jitter.ms", "0", ConfigKind::Long, "Segments are closed without jitter."),
    honoured(
        "segment.ms",
        "",
        ConfigKind::Long,
        "Age at which a segment is closed; a quarter of `retention.ms`, or never.",
    ),
    kept("unclean.leader.election.enable", "false", ConfigKind::Boolean, "There is one copy."),
];

const fn honoured(
    name: &'static str,
    default: &'static str,
    kind: ConfigKind,
    help: &'static str,
) -> ConfigKey {
    ConfigKey { name, default, kind, help, effect: Effect::Honoured }
}

const fn kept(name: &'static str, default: &'static str, kind: ConfigKind, help: &'static str) -> ConfigKey {
    ConfigKey { name, default, kind, help, effect: Effect::Kept }
}

impl ConfigKey {
    /// The key of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CONFIG_KEYS.binary_search_by(|key| key.name.cmp(name)).ok().and_then(|place| CONFIG_KEYS.get(place))
    }
}

impl ConfigKind {
    /// Whether a value looks like this.
    pub(super) fn fits(self, value: &str) -> bool {
        match self {
            Self::Boolean => matches!(value, "true" | "false"),
            Self::Int => value.parse::<i32>().is_ok_and(|number| number >= -1),
            Self::Long => value.parse::<i64>().is_ok_and(|number| number >= -1),
            Self::Double => value.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0),
            Self::Text | Self::List => value.len() <= MAX_TEXT_BYTES && !value.chars().any(char::is_control),
        }
    }
}

/// Longest text that is kept.
const MAX_TEXT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_and_its_default_looks_like_its_kind() {
        for key in &CONFIG_KEYS {
            assert_eq!(ConfigKey::find(key.name), Some(key));
            assert!(key.default.is_empty() || key.kind.fits(key.default), "{}", key.name);
        }
        assert_eq!(ConfigKey::find("retention"), None);
    }
}

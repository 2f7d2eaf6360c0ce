//! What the log keeps of the book: the records of the compacted topic [`TOPIC`], one key for each thing about a service.
//!
//! The key is `definition/shop`, `maintenance/shop`, `heartbeat/shop` or `outage/shop`; a record without a value says that there is no
//! such thing any more. The value is JSON:
//!
//! ```json
//! {"version": 1, "service": "shop", "at": "2026-11-24T16:00:00.000000Z", "definition": {"origin": "api", "checks": […]}}
//! ```
//!
//! A value of a higher version is refused; who reads skips it and says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_event::Timestamp;
use serde::{Deserialize, Serialize};

use crate::book::Command;
use crate::definition::ServiceDefinition;
use crate::id::ServiceId;
use crate::service::{Maintenance, Origin, Outage};

/// The topic. Compacted, one partition.
pub const TOPIC: &str = "services";

/// The extension attribute of an event that tells what stands in a record already: the record's offset, if the API wrote it.
pub const KEPT: &str = "kept";

const VERSION: u32 = 1;

/// One thing about a service that has to survive a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Which service.
    pub service: ServiceId,
    /// What.
    pub content: Content,
}

/// What is kept. `None`: it is over.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// How it is watched, and who said so.
    Definition(Option<(Origin, Arc<ServiceDefinition>)>),
    /// The maintenance that it is in.
    Maintenance(Option<Maintenance>),
    /// When it said last that it lives.
    Heartbeat(Option<Timestamp>),
    /// The outage that was told.
    Outage(Option<Outage>),
}

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(String);

#[derive(Deserialize)]
struct Envelope {
    version: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct Value {
    version: u32,
    at: Timestamp,
    service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    definition: Option<StoredDefinition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maintenance: Option<Maintenance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heartbeat: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outage: Option<Outage>,
}

/// A definition as it is kept: what the present version doesn't know of it makes it unreadable, because a check that is
/// asked otherwise than it was said is worse than none.
#[derive(Serialize, Deserialize)]
struct StoredDefinition {
    origin: Origin,
    service: ServiceDefinition,
}

impl Record {
    /// The key.
    pub fn key(&self) -> String {
        let kind = match self.content {
            Content::Definition(_) => "definition",
            Content::Maintenance(_) => "maintenance",
            Content::Heartbeat(_) => "heartbeat",
            Content::Outage(_) => "outage",
        };
        format!("{kind}/{}", self.service)
    }

    /// The value, written at `now`; none if the thing is over.
    pub fn value(&self, now: Timestamp) -> Option<Vec<u8>> {
        let mut value =
            Value { version: VERSION, at: now, service: self.service.to_string(), ..Value::default() };
        match self.content.clone() {
            Content::Definition(definition) => {
                let (origin, service) = definition?;
                let service = Arc::unwrap_or_clone(service);
                value.definition = Some(StoredDefinition { origin, service });
            }
            Content::Maintenance(maintenance) => value.maintenance = Some(maintenance?),
            Content::Heartbeat(at) => value.heartbeat = Some(at?),
            Content::Outage(outage) => value.outage = Some(outage?),
        }
        Some(serde_json::to_vec(&value).expect("it has only string keys, so it serialises"))
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        let refuse = |problem: String| RecordError(problem);
        let key = std::str::from_utf8(key).map_err(|error| refuse(format!("its key is no text: {error}")))?;
        let (kind, service) =
            key.split_once('/').ok_or_else(|| refuse("its key names no service".to_owned()))?;
        let service: ServiceId = service.parse().map_err(|error| refuse(format!("its key: {error}")))?;
        let value = value.map(read_value).transpose()?;
        let missing = || refuse(format!("its value has no `{kind}`"));
        let content = match kind {
            "definition" => Content::Definition(match value {
                Some(value) => {
                    let StoredDefinition { origin, service } = value.definition.ok_or_else(missing)?;
                    Some((origin, Arc::new(service)))
                }
                None => None,
            }),
            "maintenance" => Content::Maintenance(match value {
                Some(value) => Some(value.maintenance.ok_or_else(missing)?),
                None => None,
            }),
            "heartbeat" => Content::Heartbeat(match value {
                Some(value) => Some(value.heartbeat.ok_or_else(missing)?),
                None => None,
            }),
            "outage" => Content::Outage(match value {
                Some(value) => Some(value.outage.ok_or_else(missing)?),
                None => None,
            }),
            other => return Err(refuse(format!("`{}` is not known", other.escape_default()))),
        };
        Ok(Self { service, content })
    }

    /// The command that carries it out; none for what the watch itself has written.
    pub fn command(self) -> Option<Command> {
        let id = self.service;
        match self.content {
            Content::Definition(Some((origin, definition))) => {
                Some(Command::Define { id, definition, origin })
            }
            Content::Definition(None) => Some(Command::Remove { id }),
            Content::Maintenance(maintenance) => Some(Command::Maintain { id, maintenance }),
            Content::Heartbeat(at) => at.map(|at| Command::Beat { id, at }),
            Content::Outage(_) => None,
        }
    }
}

fn read_value(json: &[u8]) -> Result<Value, RecordError> {
    let unreadable = |error: serde_json::Error| RecordError(format!("its value can't be read: {error}"));
    let Envelope { version } = serde_json::from_slice(json).map_err(unreadable)?;
    if version > VERSION {
        return Err(RecordError(format!("it was written by a newer Farol (version {version})")));
    }
    serde_json::from_slice(json).map_err(unreadable)
}

/// What a topic that is read from its beginning comes to.
#[derive(Debug, Default)]
pub struct Replay {
    services: BTreeMap<ServiceId, Kept>,
}

/// What is kept of one service.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Kept {
    /// How it is watched.
    pub definition: Option<(Origin, Arc<ServiceDefinition>)>,
    /// The maintenance that it is in.
    pub maintenance: Option<Maintenance>,
    /// When it said last that it lives.
    pub heartbeat: Option<Timestamp>,
    /// The outage that was told.
    pub outage: Option<Outage>,
}

impl Replay {
    /// Takes the next record.
    pub fn take(&mut self, record: Record) {
        let kept = self.services.entry(record.service).or_default();
        match record.content {
            Content::Definition(definition) => kept.definition = definition,
            Content::Maintenance(maintenance) => kept.maintenance = maintenance,
            Content::Heartbeat(at) => kept.heartbeat = at,
            Content::Outage(outage) => kept.outage = outage,
        }
    }

    /// What is kept of a service.
    pub fn get(&self, id: &ServiceId) -> Option<&Kept> {
        self.services.get(id)
    }

    /// The services that are watched by `origin`'s word.
    pub fn defined_by(&self, origin: Origin) -> impl Iterator<Item = &ServiceId> {
        self.services
            .iter()
            .filter(move |(_, kept)| kept.definition.as_ref().is_some_and(|(by, _)| *by == origin))
            .map(|(id, _)| id)
    }

    /// The commands that bring an empty book to where it was, but for definitions of the settings: those are for who knows
    /// the settings of today, before these.
    pub fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for (id, kept) in &self.services {
            if let Some((Origin::Api, definition)) = &kept.definition {
                let (id, definition) = (id.clone(), Arc::clone(definition));
                commands.push(Command::Define { id, definition, origin: Origin::Api });
            }
        }
        for (id, kept) in &self.services {
            // The maintenance first: an outage is told again at its end only if it outlasts it.
            if let Some(maintenance) = &kept.maintenance {
                let maintenance = Some(maintenance.clone());
                commands.push(Command::Maintain { id: id.clone(), maintenance });
            }
            if let Some(outage) = &kept.outage {
                commands.push(Command::Restore { id: id.clone(), outage: outage.clone() });
            }
            if let Some(at) = kept.heartbeat {
                commands.push(Command::Beat { id: id.clone(), at });
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> ServiceId {
        "shop".parse().unwrap()
    }

    fn definition() -> Arc<ServiceDefinition> {
        Arc::new(serde_json::from_str(r#"{"labels":{"a":"b"},"checks":[{"ttl":"5s"}]}"#).unwrap())
    }

    fn contents() -> Vec<Content> {
        let at = Timestamp::from_millis_clamped(7000);
        let maintenance = Maintenance { by: "ana".into(), reason: Some("disk".into()), until: Some(at) };
        vec![
            Content::Definition(Some((Origin::Api, definition()))),
            Content::Maintenance(Some(maintenance)),
            Content::Heartbeat(Some(at)),
            Content::Outage(Some(Outage { since: at, check: "ttl".parse().unwrap() })),
        ]
    }

    #[test]
    fn what_is_written_reads_back() {
        let over = [
            Content::Definition(None),
            Content::Maintenance(None),
            Content::Heartbeat(None),
            Content::Outage(None),
        ];
        for content in contents().into_iter().chain(over) {
            let record = Record { service: shop(), content };
            let value = record.value(Timestamp::EPOCH);
            assert_eq!(Record::read(record.key().as_bytes(), value.as_deref()), Ok(record));
        }
    }

    #[test]
    fn the_format_of_version_1_stays_readable() {
        let key = b"definition/shop";
        let value = br#"{"version":1,"at":"2026-11-24T16:00:00.000000Z","service":"shop","definition":{"origin":"settings",
            "service":{"checks":[{"name":"http","http":"http://127.0.0.1:1/","interval":"10s","timeout":"5s","down_after":3,
            "up_after":2,"status":"200-299"}]}}}"#;
        let record = Record::read(key, Some(value)).unwrap();
        let Content::Definition(Some((Origin::Settings, definition))) = record.content else { panic!() };
        assert_eq!(definition.checks.len(), 1);
    }

    #[test]
    fn what_is_foreign_newer_or_broken_is_refused_with_the_reason() {
        let value: &[u8] = br#"{"version":1,"at":"2026-11-24T16:00:00Z","service":"shop"}"#;
        for (key, value, expected) in [
            (&b"x"[..], None, "names no service"),
            (b"definition/a b", None, "not a name"),
            (b"colour/shop", None, "`colour` is not known"),
            (b"\xff/shop", None, "no text"),
            (b"outage/shop", Some(value), "no `outage`"),
            (b"outage/shop", Some(&br#"{"version":2,"x":1}"#[..]), "newer Farol"),
            (b"outage/shop", Some(b"nothing"), "can't be read"),
        ] {
            let error = Record::read(key, value).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_replay_keeps_the_newest_of_each_and_gives_commands_in_an_order_that_works() {
        let mut replay = Replay::default();
        let mut contents = contents();
        // Compaction may leave a definition behind everything else.
        contents.rotate_left(1);
        for content in contents {
            replay.take(Record { service: shop(), content });
        }
        let kinds: Vec<_> = replay
            .commands()
            .iter()
            .map(|command| match command {
                Command::Define { .. } => "define",
                Command::Maintain { .. } => "maintain",
                Command::Restore { .. } => "restore",
                Command::Beat { .. } => "beat",
                Command::Remove { .. } => "remove",
            })
            .collect();
        assert_eq!(kinds, ["define", "maintain", "restore", "beat"]);
        replay.take(Record { service: shop(), content: Content::Definition(None) });
        replay.take(Record { service: shop(), content: Content::Outage(None) });
        assert_eq!(replay.commands().len(), 2);
        assert_eq!(replay.defined_by(Origin::Api).count(), 0);
    }
}

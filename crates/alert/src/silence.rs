//! Silences: which alerts nobody is told about, for how long, by whose will and why.
//!
//! A silence is a fact in the log: `silencio_criado` carries it whole, `silencio_expirado` ends it before its time, and
//! [`SilenceBook`] is what they fold to. Silencing changes nothing about an alert: it fires, is shown and resolves as ever.
//!
//! Maintenance of a service is a silence of its alerts, and needs no event of its own: `servico_em_manutencao` begins it and
//! `servico_em_operacao` ends it. Each service has one, whose id follows from its name.
//!
//! Limits: [`MAX_COMMENT_BYTES`], [`MAX_BY_BYTES`], [`MAX_DURATION`], [`MAX_SILENCES`] that have not ended, and those of matchers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use farol_event::{Alert, Event, EventType, ServiceFact, Timestamp};
use farol_matcher::{Matcher, Matchers, Operator};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::label;
use crate::words;
pub use crate::words::{MAX_BY_BYTES, MAX_COMMENT_BYTES};

/// The longest time that a silence may last.
pub const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);
/// How many silences may wait or be in force at a time.
pub const MAX_SILENCES: usize = 10_000;
/// The label that names an alert's service.
const SERVICE_LABEL: &str = "service";
/// The `source` of events about silences, and so their key: one partition keeps them all in order.
pub const SOURCE: &str = "silences";

/// Identifies a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct SilenceId(pub Uuid);

impl SilenceId {
    /// UUID v5 namespace of silences that follow from maintenance, fixed for ever.
    const MAINTENANCE: Uuid = Uuid::from_u128(0x3b6d_0f5e_58c1_5a0f_8f0e_7a61_90c4_d203);

    /// The id of the silence that maintenance of a service is.
    pub fn of_maintenance(service: &str) -> Self {
        Self(Uuid::new_v5(&Self::MAINTENANCE, service.as_bytes()))
    }
}

impl fmt::Display for SilenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SilenceId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// Nobody is told of alerts that these matchers hold for, from start to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Silence {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    pub id: SilenceId,
    /// Which alerts, by their labels.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "{severity=\"warning\"}"))]
    pub matchers: Matchers,
    /// From when on.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub starts_at: Timestamp,
    /// Until when, not included.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub ends_at: Timestamp,
    /// Who silenced, as they named themselves.
    pub created_by: String,
    /// Why.
    pub comment: String,
    /// When somebody asked for it, or changed or ended it, last.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: Timestamp,
    /// Who ended it before its time, if somebody did and said who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_by: Option<String>,
}

/// Where a silence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SilenceState {
    /// It has not begun.
    Pending,
    /// It is in force.
    Active,
    /// It is over.
    Expired,
}

impl SilenceState {
    /// The lower-case word of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            SilenceState::Pending => "pending",
            SilenceState::Active => "active",
            SilenceState::Expired => "expired",
        }
    }
}

impl Silence {
    /// Where it stands at `now`.
    pub fn state(&self, now: Timestamp) -> SilenceState {
        if now >= self.ends_at {
            SilenceState::Expired
        } else if now >= self.starts_at {
            SilenceState::Active
        } else {
            SilenceState::Pending
        }
    }

    /// Whether it holds `alert` back at `now`.
    pub fn silences(&self, alert: &Alert, now: Timestamp) -> bool {
        self.state(now) == SilenceState::Active && self.matchers.hold(|name| label::value(alert, name))
    }
}

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct NewSilence<'a> {
    /// Which alerts.
    pub matchers: Matchers,
    /// From when on; in the past means now.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Who asks.
    pub created_by: &'a str,
    /// Why.
    pub comment: &'a str,
}

/// Why a silence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SilenceRefused {
    /// It would silence alerts without a label in common, everything perhaps.
    #[error("at least one matcher must not match an empty value, or the silence would hold for everything")]
    MatchesEverything,
    /// It ends before it begins, or has ended already.
    #[error("a silence must end after its start and after now; this one ends at {ends_at}")]
    Ended {
        /// Its end.
        ends_at: Timestamp,
    },
    /// Longer than [`MAX_DURATION`].
    #[error("a silence may last 366 days at most")]
    TooLong,
    /// `created_by` is empty, too long, or has control characters.
    #[error("who silences must be named with 1 to {MAX_BY_BYTES} bytes and no control characters")]
    By,
    /// `comment` is empty, too long, or has control characters other than line breaks and tabs.
    #[error(
        "a silence needs a comment that says why, of 1 to {MAX_COMMENT_BYTES} bytes without control characters"
    )]
    Comment,
    /// It is over already.
    #[error("silence {id} is over since {ended_at}")]
    Over {
        /// The silence.
        id: SilenceId,
        /// When it ended.
        ended_at: Timestamp,
    },
    /// There are [`MAX_SILENCES`] already.
    #[error("there are {MAX_SILENCES} silences already; expire some")]
    TooMany,
}

/// Checks what somebody asks for and makes the silence of it.
///
/// # Errors
/// [`SilenceRefused`] says what is wrong.
pub fn create(asked: NewSilence<'_>, id: SilenceId, now: Timestamp) -> Result<Silence, SilenceRefused> {
    if asked.matchers.iter().all(|matcher| matcher.holds("")) {
        return Err(SilenceRefused::MatchesEverything);
    }
    let starts_at = asked.starts_at.max(now);
    if asked.ends_at <= starts_at {
        return Err(SilenceRefused::Ended { ends_at: asked.ends_at });
    }
    if asked.ends_at.since(starts_at) > MAX_DURATION {
        return Err(SilenceRefused::TooLong);
    }
    Ok(Silence {
        id,
        matchers: asked.matchers,
        starts_at,
        ends_at: asked.ends_at,
        created_by: name(asked.created_by)?,
        comment: comment(asked.comment)?,
        updated_at: now,
        expired_by: None,
    })
}

fn name(by: &str) -> Result<String, SilenceRefused> {
    words::name(by).map(str::to_owned).ok_or(SilenceRefused::By)
}

fn comment(text: &str) -> Result<String, SilenceRefused> {
    words::comment(text).map(str::to_owned).ok_or(SilenceRefused::Comment)
}

/// The fact that somebody ends `silence` now.
///
/// # Errors
/// [`SilenceRefused::Over`], or [`SilenceRefused::By`].
pub fn expire(silence: &Silence, by: Option<&str>, now: Timestamp) -> Result<SilenceFact, SilenceRefused> {
    if silence.state(now) == SilenceState::Expired {
        return Err(SilenceRefused::Over { id: silence.id, ended_at: silence.ends_at });
    }
    let by = by.map(name).transpose()?;
    Ok(SilenceFact::Expired { id: silence.id, at: now, by })
}

/// What is known of silences, one event each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SilenceFact {
    /// Somebody silenced alerts, or changed a silence that there is.
    Created(Silence),
    /// Somebody ended a silence before its time.
    Expired {
        /// Which.
        id: SilenceId,
        /// When.
        at: Timestamp,
        /// Who, if they said so.
        by: Option<String>,
    },
}

/// The `data` of `silencio_expirado`.
#[derive(Serialize, Deserialize)]
struct ExpiredData {
    id: SilenceId,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

impl SilenceFact {
    /// The silence that it is about.
    pub fn id(&self) -> SilenceId {
        match self {
            SilenceFact::Created(silence) => silence.id,
            SilenceFact::Expired { id, .. } => *id,
        }
    }

    /// The event that carries it.
    pub fn to_event(&self, event_id: Uuid, now: Timestamp) -> Event {
        let mut event = match self {
            SilenceFact::Created(silence) => {
                Event::new(event_id, now, EventType::SILENCE_CREATED, SOURCE, silence)
            }
            SilenceFact::Expired { id, at, by } => {
                let data = ExpiredData { id: *id, at: *at, by: by.clone() };
                Event::new(event_id, now, EventType::SILENCE_EXPIRED, SOURCE, &data)
            }
        };
        event.subject = Some(self.id().to_string());
        event
    }

    /// Whether events of this type may carry a fact about silences.
    pub fn is_told_by(event_type: &str) -> bool {
        [
            EventType::SILENCE_CREATED,
            EventType::SILENCE_EXPIRED,
            EventType::MAINTENANCE_STARTED,
            EventType::MAINTENANCE_ENDED,
        ]
        .iter()
        .any(|tells| tells.as_str() == event_type)
    }

    /// The fact that an event carries; nothing if it is about something else, or of somebody who may not say so.
    ///
    /// # Errors
    /// What the parser said of its data.
    pub fn of_event(event: &Event) -> Result<Option<Self>, String> {
        let created = event.event_type == EventType::SILENCE_CREATED;
        if !created && event.event_type != EventType::SILENCE_EXPIRED {
            return Ok(of_maintenance(event));
        }
        if event.source != SOURCE {
            return Ok(None);
        }
        if event.dataversion != 1 {
            return Err(format!("`dataversion` {} is newer than this program", event.dataversion));
        }
        let data = serde_json::Value::Object(event.data.clone());
        if created {
            return serde_json::from_value(data)
                .map(|silence| Some(SilenceFact::Created(silence)))
                .map_err(|e| e.to_string());
        }
        let ExpiredData { id, at, by } = serde_json::from_value(data).map_err(|e| e.to_string())?;
        Ok(Some(SilenceFact::Expired { id, at, by }))
    }
}

/// The silence that maintenance of a service is. What claims to tell of maintenance and doesn't silences nothing; whoever keeps
/// services says what is wrong with it.
fn of_maintenance(event: &Event) -> Option<SilenceFact> {
    let (id, at) = (SilenceId::of_maintenance(&event.source), event.time);
    match ServiceFact::of(event)?.ok()? {
        ServiceFact::MaintenanceStarted(told) => {
            let service = Matcher::new(SERVICE_LABEL, Operator::Equal, &event.source).ok()?;
            let comment =
                told.reason.map_or_else(|| "maintenance".to_owned(), |why| format!("maintenance: {why}"));
            Some(SilenceFact::Created(Silence {
                id,
                matchers: Matchers::new(vec![service]).ok()?,
                starts_at: at,
                ends_at: told.until.unwrap_or_else(|| at.saturating_add(MAX_DURATION)),
                created_by: told.by.unwrap_or_else(|| event.source.clone()),
                comment,
                updated_at: at,
                expired_by: None,
            }))
        }
        ServiceFact::MaintenanceEnded(_) => Some(SilenceFact::Expired { id, at, by: None }),
        _ => None,
    }
}

/// Every silence that is known.
#[derive(Debug, Clone, Default)]
pub struct SilenceBook {
    silences: BTreeMap<SilenceId, Silence>,
}

impl SilenceBook {
    /// Folds one fact; the silence as it stands then, if the fact changed anything.
    pub fn apply(&mut self, fact: &SilenceFact) -> Option<&Silence> {
        let next = folded(self.silences.get(&fact.id()), fact)?;
        let id = next.id;
        self.silences.insert(id, next);
        self.silences.get(&id)
    }

    /// Takes back a silence that was saved.
    pub fn restore(&mut self, silence: Silence) {
        self.silences.insert(silence.id, silence);
    }

    /// The silence of that id.
    pub fn get(&self, id: SilenceId) -> Option<&Silence> {
        self.silences.get(&id)
    }

    /// Every silence, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.silences.values()
    }

    /// The silences that hold `alert` back at `now`.
    pub fn silencing(&self, alert: &Alert, now: Timestamp) -> Vec<SilenceId> {
        self.silences.values().filter(|silence| silence.silences(alert, now)).map(|one| one.id).collect()
    }

    /// Forgets silences that ended before `before`; which ones.
    pub fn forget_ended(&mut self, before: Timestamp) -> Vec<SilenceId> {
        let over = |silence: &&Silence| silence.ends_at < before;
        let gone: Vec<SilenceId> = self.silences.values().filter(over).map(|silence| silence.id).collect();
        for id in &gone {
            self.silences.remove(id);
        }
        gone
    }
}

/// The silence after `fact`; nothing if the fact changes nothing.
pub fn folded(current: Option<&Silence>, fact: &SilenceFact) -> Option<Silence> {
    match (fact, current) {
        (SilenceFact::Created(silence), current) => {
            // Read again after it was changed or ended, an older fact changes nothing.
            let newer = current.is_none_or(|current| current.updated_at < silence.updated_at);
            newer.then(|| silence.clone())
        }
        (SilenceFact::Expired { at, by, .. }, Some(current)) if *at < current.ends_at => Some(Silence {
            starts_at: current.starts_at.min(*at),
            ends_at: *at,
            updated_at: current.updated_at.max(*at),
            expired_by: by.clone(),
            ..current.clone()
        }),
        (SilenceFact::Expired { .. }, _) => None,
    }
}

#[cfg(test)]
mod tests;

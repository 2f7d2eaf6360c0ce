//! What the rest of the process can see of the watched services, and what it may ask to be watched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::book::MAX_SERVICES;
use crate::definition::ServiceDefinition;
use crate::id::{CheckName, ServiceId};
use crate::machine::Results;
use crate::probe::Reach;
use crate::service::{Maintenance, Origin};
use crate::target::Target;

/// A service as it is watched.
#[derive(Debug, Clone)]
pub struct Entry {
    /// How it is watched.
    pub definition: Arc<ServiceDefinition>,
    /// Who said so.
    pub origin: Origin,
    /// The maintenance that it is in.
    pub maintenance: Option<Maintenance>,
    /// Whether it has a check that waits for heartbeats.
    pub listens: bool,
    /// What its checks have counted.
    pub results: BTreeMap<CheckName, Arc<Results>>,
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The API may not say what is watched.
    #[error("checks can't be registered through the API here; the setting `checks.api_targets` allows it")]
    NotAllowed,
    /// The API may only have loopback addresses checked.
    #[error(
        "`{target}` is not on this machine's loopback, and checks that come through the API may go nowhere else; \
         write the service into farol.toml, or set `checks.api_targets = \"any\"`"
    )]
    TooFar {
        /// Where it would go.
        target: String,
    },
    /// The settings file has the service; the file decides.
    #[error("`{0}` is defined in the settings file; change it there")]
    InSettings(ServiceId),
    /// As many services that nobody watches are in maintenance as may be.
    #[error("{MAX_SERVICES} services that aren't watched are in maintenance already, which is the most")]
    TooMuchMaintenance,
    /// As many as may be are watched.
    #[error("{MAX_SERVICES} services are watched already, which is the most")]
    Full,
    /// Nobody watches it.
    #[error("there is no watched service `{0}`; register it with PUT /api/services/{0}")]
    Unknown(ServiceId),
    /// Nobody listens for its heartbeats.
    #[error("`{0}` has no check with `ttl`, so nobody listens for its heartbeats")]
    NoHeartbeat(ServiceId),
}

/// What is watched, as of the last command that was carried out.
#[derive(Debug)]
pub struct Catalogue {
    entries: RwLock<BTreeMap<ServiceId, Entry>>,
    /// The maintenance of services that nobody watches.
    unwatched: RwLock<BTreeMap<ServiceId, Maintenance>>,
    /// When each watched service was last asked, whatever came of it.
    checked: RwLock<BTreeMap<ServiceId, Timestamp>>,
    /// How far checks that come through the API may reach; `None` if there may be none.
    api_reach: Option<Reach>,
    /// The position in the log up to which commands have been carried out.
    applied: watch::Sender<i64>,
}

impl Catalogue {
    /// An empty one.
    pub fn new(api_reach: Option<Reach>) -> Self {
        Self {
            entries: RwLock::default(),
            unwatched: RwLock::default(),
            checked: RwLock::default(),
            api_reach,
            applied: watch::Sender::new(-1),
        }
    }

    /// A service.
    pub fn get(&self, id: &ServiceId) -> Option<Entry> {
        self.entries.read().get(id).cloned()
    }

    /// The maintenance that a service is in, watched or not.
    pub fn maintenance(&self, id: &ServiceId) -> Option<Maintenance> {
        match self.get(id) {
            Some(entry) => entry.maintenance,
            None => self.unwatched.read().get(id).cloned(),
        }
    }

    /// When a watched service was last asked, whatever came of it.
    pub fn checked_at(&self, id: &ServiceId) -> Option<Timestamp> {
        self.checked.read().get(id).copied()
    }

    /// Every service, by name.
    pub fn list(&self) -> Vec<(ServiceId, Entry)> {
        self.entries.read().iter().map(|(id, entry)| (id.clone(), entry.clone())).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.read().is_empty()
    }

    /// How far a service's checks may reach.
    pub fn reach(&self, origin: Origin) -> Reach {
        match origin {
            Origin::Settings => Reach::Anywhere,
            Origin::Api => self.api_reach.unwrap_or(Reach::Loopback),
        }
    }

    /// Whether the API may have a service watched like this.
    ///
    /// # Errors
    /// Why not.
    pub fn may_define(&self, id: &ServiceId, definition: &ServiceDefinition) -> Result<(), Refusal> {
        let reach = self.api_reach.ok_or(Refusal::NotAllowed)?;
        for check in &definition.checks {
            let at = match &check.target {
                Target::Http(http) => http.url.at(),
                Target::Tcp(at) => at,
                Target::Heartbeat => continue,
            };
            // A name is looked at again when it is resolved, each time.
            if !reach.may_be(&at.host) {
                return Err(Refusal::TooFar { target: at.to_string() });
            }
        }
        let entries = self.entries.read();
        match entries.get(id) {
            Some(entry) if entry.origin == Origin::Settings => Err(Refusal::InSettings(id.clone())),
            None if entries.len() >= MAX_SERVICES => Err(Refusal::Full),
            _ => Ok(()),
        }
    }

    /// Whether a service, watched or not, may be put into maintenance.
    ///
    /// # Errors
    /// [`Refusal::TooMuchMaintenance`].
    pub fn may_maintain(&self, id: &ServiceId) -> Result<(), Refusal> {
        if self.get(id).is_some() {
            return Ok(());
        }
        let unwatched = self.unwatched.read();
        let has_room = unwatched.len() < MAX_SERVICES || unwatched.contains_key(id);
        if has_room { Ok(()) } else { Err(Refusal::TooMuchMaintenance) }
    }

    /// Whether the API may end the watch over a service.
    ///
    /// # Errors
    /// Why not.
    pub fn may_remove(&self, id: &ServiceId) -> Result<(), Refusal> {
        match self.known(id)?.origin {
            Origin::Settings => Err(Refusal::InSettings(id.clone())),
            Origin::Api => Ok(()),
        }
    }

    /// Whether somebody listens for a service's heartbeats.
    ///
    /// # Errors
    /// Why not.
    pub fn may_beat(&self, id: &ServiceId) -> Result<(), Refusal> {
        if self.known(id)?.listens { Ok(()) } else { Err(Refusal::NoHeartbeat(id.clone())) }
    }

    /// A service that must be watched.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn known(&self, id: &ServiceId) -> Result<Entry, Refusal> {
        self.get(id).ok_or_else(|| Refusal::Unknown(id.clone()))
    }

    /// Says that everything up to this position in the log has been carried out.
    pub fn applied(&self, position: i64) {
        self.applied.send_modify(|applied| *applied = position.max(*applied));
    }

    /// Whether everything up to this position has been carried out.
    pub fn has_applied(&self, position: i64) -> bool {
        *self.applied.borrow() >= position
    }

    /// Waits until everything up to this position has been carried out; whether that was in time.
    pub async fn wait_applied(&self, position: i64, limit: Duration) -> bool {
        let mut applied = self.applied.subscribe();
        tokio::time::timeout(limit, applied.wait_for(|applied| *applied >= position))
            .await
            .is_ok_and(|waited| waited.is_ok())
    }

    pub(crate) fn set(&self, id: &ServiceId, entry: Option<Entry>) {
        if entry.is_none() {
            self.checked.write().remove(id);
        }
        put(&mut self.entries.write(), id, entry);
    }

    pub(crate) fn set_unwatched(&self, id: &ServiceId, maintenance: Option<Maintenance>) {
        put(&mut self.unwatched.write(), id, maintenance);
    }

    pub(crate) fn set_checked(&self, id: &ServiceId, at: Timestamp) {
        self.checked.write().insert(id.clone(), at);
    }
}

fn put<T>(entries: &mut BTreeMap<ServiceId, T>, id: &ServiceId, entry: Option<T>) {
    match entry {
        Some(entry) => entries.insert(id.clone(), entry),
        None => entries.remove(id),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ServiceId {
        text.parse().unwrap()
    }

    fn definition(checks: &str) -> ServiceDefinition {
        serde_json::from_str(&format!(r#"{{"checks":[{checks}]}}"#)).unwrap()
    }

    fn entry(origin: Origin, checks: &str) -> Entry {
        let definition = Arc::new(definition(checks));
        let listens = definition.checks.iter().any(|check| check.target == Target::Heartbeat);
        Entry { definition, origin, maintenance: None, listens, results: BTreeMap::new() }
    }

    #[test]
    fn the_api_has_only_loopback_checked_unless_it_may_more() {
        let near = definition(
            r#"{"http":"http://127.0.0.1:1/"},{"tcp":"[::1]:1"},{"tcp":"localhost:1"},{"ttl":"1s"}"#,
        );
        for far in [
            r#"{"http":"http://169.254.169.254/"}"#,
            r#"{"tcp":"10.0.0.1:22"}"#,
            r#"{"tcp":"0.0.0.0:22"}"#,
            r#"{"http":"http://shop/"}"#,
        ] {
            let far = definition(far);
            let refused = Catalogue::new(Some(Reach::Loopback)).may_define(&id("a"), &far);
            assert!(matches!(refused, Err(Refusal::TooFar { .. })), "{far:?}");
            assert_eq!(Catalogue::new(Some(Reach::Anywhere)).may_define(&id("a"), &far), Ok(()));
        }
        assert_eq!(Catalogue::new(Some(Reach::Loopback)).may_define(&id("a"), &near), Ok(()));
        assert_eq!(Catalogue::new(None).may_define(&id("a"), &near), Err(Refusal::NotAllowed));
    }

    #[test]
    fn what_the_settings_define_the_api_can_not_change() {
        let catalogue = Catalogue::new(Some(Reach::Loopback));
        catalogue.set(&id("file"), Some(entry(Origin::Settings, "")));
        catalogue.set(&id("api"), Some(entry(Origin::Api, r#"{"ttl":"1s"}"#)));
        let nothing = definition("");
        assert_eq!(catalogue.may_define(&id("file"), &nothing), Err(Refusal::InSettings(id("file"))));
        assert_eq!(catalogue.may_remove(&id("file")), Err(Refusal::InSettings(id("file"))));
        assert_eq!(catalogue.may_remove(&id("none")), Err(Refusal::Unknown(id("none"))));
        assert_eq!(catalogue.may_remove(&id("api")), Ok(()));
        assert_eq!(catalogue.may_beat(&id("api")), Ok(()));
        assert_eq!(catalogue.may_beat(&id("file")), Err(Refusal::NoHeartbeat(id("file"))));
    }

    #[test]
    fn there_are_only_so_many() {
        let catalogue = Catalogue::new(Some(Reach::Loopback));
        for number in 0..MAX_SERVICES {
            catalogue.set(&id(&format!("s{number}")), Some(entry(Origin::Api, "")));
        }
        assert_eq!(catalogue.may_define(&id("one-more"), &definition("")), Err(Refusal::Full));
        assert_eq!(catalogue.may_define(&id("s7"), &definition("")), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_position_ends_when_it_is_reached_or_the_time_is_up() {
        let catalogue = Catalogue::new(None);
        assert!(!catalogue.wait_applied(3, Duration::from_secs(1)).await);
        catalogue.applied(4);
        catalogue.applied(2);
        assert!(catalogue.wait_applied(3, Duration::from_secs(1)).await);
        assert!(catalogue.has_applied(4) && !catalogue.has_applied(5));
    }
}

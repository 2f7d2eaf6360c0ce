//! Every watched service: a function of (state, command or result, now).

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_event::Timestamp;

use crate::definition::ServiceDefinition;
use crate::id::{CheckName, ServiceId};
use crate::probe::ProbeAnswer;
use crate::service::{Finding, FindingKind, Maintenance, Origin, Outage, Service};

/// The most services that are watched, and the most others that are in maintenance.
pub const MAX_SERVICES: usize = 1000;

/// What changes what is watched.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A service is to be watched, or watched otherwise.
    Define {
        /// Which.
        id: ServiceId,
        /// How.
        definition: Arc<ServiceDefinition>,
        /// Who says so.
        origin: Origin,
    },
    /// A service is not to be watched any more.
    Remove {
        /// Which.
        id: ServiceId,
    },
    /// Planned work on a service begins or (`None`) ends.
    Maintain {
        /// Which.
        id: ServiceId,
        /// The work.
        maintenance: Option<Maintenance>,
    },
    /// A service said that it lives.
    Beat {
        /// Which.
        id: ServiceId,
        /// When it said so.
        at: Timestamp,
    },
    /// The log says that an outage was told and not ended.
    Restore {
        /// Of which service.
        id: ServiceId,
        /// The outage.
        outage: Outage,
    },
}

impl Command {
    /// The service that it is about.
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::Define { id, .. }
            | Self::Remove { id }
            | Self::Maintain { id, .. }
            | Self::Beat { id, .. }
            | Self::Restore { id, .. } => id,
        }
    }
}

/// Every watched service, and the maintenance of others: its end is told all the same.
#[derive(Debug, Default)]
pub struct Book {
    services: BTreeMap<ServiceId, Service>,
    unwatched: BTreeMap<ServiceId, Maintenance>,
}

impl Book {
    /// A service.
    pub fn get(&self, id: &ServiceId) -> Option<&Service> {
        self.services.get(id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The maintenance that a service is in, watched or not.
    pub fn maintenance(&self, id: &ServiceId) -> Option<&Maintenance> {
        self.services.get(id).map_or_else(|| self.unwatched.get(id), Service::maintenance)
    }

    /// Carries a command out. What is about a service that is not watched does nothing, but for maintenance, and so does what is beyond
    /// [`MAX_SERVICES`]; whether it did something is told.
    pub fn apply(&mut self, command: Command, now: Timestamp, findings: &mut Vec<Finding>) -> bool {
        match command {
            Command::Define { id, definition, origin } => {
                return self.define(id, definition, origin, now, findings);
            }
            Command::Remove { id } => match self.services.remove(&id) {
                Some(service) => service.remove(now, findings),
                None => return false,
            },
            Command::Maintain { id, maintenance } => match self.services.get_mut(&id) {
                Some(service) => service.maintain(maintenance, now, findings),
                None => return self.maintain_unwatched(id, maintenance),
            },
            Command::Beat { id, at } => {
                return self.services.get_mut(&id).is_some_and(|service| service.beat(at, now, findings));
            }
            Command::Restore { id, outage } => match self.services.get_mut(&id) {
                Some(service) => service.restore_outage(outage, now, findings),
                // Nobody watches it any more, so nobody else would ever end it.
                None => {
                    let reason = Some("it is not watched any more");
                    let kind = FindingKind::Recovered { outage, reason };
                    findings.push(Finding { service: id, at: now, kind });
                }
            },
        }
        true
    }

    fn define(
        &mut self,
        id: ServiceId,
        definition: Arc<ServiceDefinition>,
        origin: Origin,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) -> bool {
        if let Some(service) = self.services.get_mut(&id) {
            service.redefine(definition, origin, now, findings);
            return true;
        }
        if self.services.len() >= MAX_SERVICES {
            return false;
        }
        let mut service = Service::new(id.clone(), definition, origin, now);
        if let Some(maintenance) = self.unwatched.remove(&id) {
            service.maintain(Some(maintenance), now, findings);
        }
        self.services.insert(id, service);
        true
    }

    fn maintain_unwatched(&mut self, id: ServiceId, maintenance: Option<Maintenance>) -> bool {
        let Some(maintenance) = maintenance else { return self.unwatched.remove(&id).is_some() };
        let has_room = self.unwatched.len() < MAX_SERVICES || self.unwatched.contains_key(&id);
        if has_room {
            self.unwatched.insert(id, maintenance);
        }
        has_room
    }

    /// Takes what a check found.
    pub fn observe(
        &mut self,
        id: &ServiceId,
        check: &CheckName,
        answer: &ProbeAnswer,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        if let Some(service) = self.services.get_mut(id) {
            service.observe(check, answer, now, findings);
        }
    }

    /// What time alone brings.
    pub fn tick(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        for service in self.services.values_mut() {
            service.tick(now, findings);
        }
        self.unwatched.retain(|id, maintenance| {
            let goes_on = maintenance.until.is_none_or(|until| until > now);
            if !goes_on {
                findings.push(Finding { service: id.clone(), at: now, kind: FindingKind::MaintenanceEnded });
            }
            goes_on
        });
    }

    /// When [`Book::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let ends = self.unwatched.values().filter_map(|maintenance| maintenance.until);
        self.services.values().filter_map(Service::next_deadline).chain(ends).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ServiceId {
        text.parse().unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    fn maintain(service: &str, until: Option<i64>) -> Command {
        let maintenance = Maintenance { by: "ana".into(), reason: None, until: until.map(at) };
        Command::Maintain { id: id(service), maintenance: Some(maintenance) }
    }

    #[test]
    fn the_maintenance_of_a_service_that_nobody_watches_ends_when_its_time_is_up() {
        let (mut book, mut findings) = (Book::default(), Vec::new());
        assert!(book.apply(maintain("vm", Some(30)), at(0), &mut findings));
        assert!(book.apply(maintain("other", None), at(0), &mut findings));
        assert_eq!((book.next_deadline(), book.len()), (Some(at(30)), 0));
        book.tick(at(29), &mut findings);
        assert_eq!((findings.as_slice(), book.maintenance(&id("vm")).is_some()), (&[][..], true));
        book.tick(at(30), &mut findings);
        let ended = Finding { service: id("vm"), at: at(30), kind: FindingKind::MaintenanceEnded };
        assert_eq!((findings, book.maintenance(&id("vm"))), (vec![ended], None));
        let end = |service| Command::Maintain { id: id(service), maintenance: None };
        assert!(book.apply(end("other"), at(31), &mut Vec::new()));
        assert!(!book.apply(end("other"), at(32), &mut Vec::new()), "there is none any more");
    }

    #[test]
    fn maintenance_goes_on_when_the_service_comes_to_be_watched() {
        let (mut book, mut findings) = (Book::default(), Vec::new());
        book.apply(maintain("shop", Some(30)), at(0), &mut findings);
        let definition = Arc::new(serde_json::from_str(r#"{"checks":[]}"#).unwrap());
        book.apply(Command::Define { id: id("shop"), definition, origin: Origin::Api }, at(1), &mut findings);
        assert!(book.get(&id("shop")).unwrap().maintenance().is_some());
        book.tick(at(30), &mut findings);
        assert_eq!(findings.len(), 1, "its end is told once: {findings:?}");
    }

    #[test]
    fn only_so_many_services_that_nobody_watches_are_in_maintenance() {
        let mut book = Book::default();
        for number in 0..MAX_SERVICES {
            assert!(book.apply(maintain(&format!("s{number}"), None), at(0), &mut Vec::new()));
        }
        assert!(!book.apply(maintain("one-more", None), at(0), &mut Vec::new()));
        assert!(book.apply(maintain("s7", Some(9)), at(0), &mut Vec::new()));
    }
}

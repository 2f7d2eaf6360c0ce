//! Every watched service: a function of (state, command or result, now).

use std::collections::BTreeMap;
use std::sync::Arc;

use farol_event::Timestamp;

use crate::definition::ServiceDefinition;
use crate::id::{CheckName, ServiceId};
use crate::probe::ProbeAnswer;
use crate::service::{Finding, FindingKind, Maintenance, Origin, Outage, Service};

/// The most services that are watched.
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

/// Every watched service.
#[derive(Debug, Default)]
pub struct Book {
    services: BTreeMap<ServiceId, Service>,
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

    /// Carries a command out. What is about a service that is not watched does nothing, and so does a definition beyond
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
                None => return false,
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
        self.services.insert(id.clone(), Service::new(id, definition, origin, now));
        true
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
    }

    /// When [`Book::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.services.values().filter_map(Service::next_deadline).min()
    }
}

//! One watched service: its checks, its outage, its maintenance, as a function of (state, result or command, now).
//!
//! A service is out while one of its critical checks is down. An outage is told when it begins and when it ends, and so the two
//! always take turns: whatever the results' order, nothing is told twice. Maintenance silences the beginning of an outage, not
//! the measuring: one that lasts beyond the maintenance is told when that ends. The end of an outage that was told is
//! always told, so that nobody waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use farol_event::Timestamp;
use farol_event::service::CheckKind;
use serde::{Deserialize, Serialize};

use crate::definition::{CheckDefinition, ServiceDefinition};
use crate::id::{CheckName, ServiceId};
use crate::machine::{CheckState, Machine, Results};
use crate::probe::{Failure, ProbeAnswer};
use crate::target::Target;

/// Where a service's definition comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The settings file.
    Settings,
    /// The API; kept in the log.
    Api,
}

/// Planned work on a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Who said so.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it ends by itself; when somebody says so, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// An outage that has been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Since when.
    pub since: Timestamp,
    /// The check that found it.
    pub check: CheckName,
}

/// Something to be told about a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which service.
    pub service: ServiceId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: FindingKind,
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq)]
pub enum FindingKind {
    /// A check changed its state.
    CheckChanged {
        /// Which.
        check: CheckName,
        /// From here.
        from: CheckState,
        /// To here.
        to: CheckState,
        /// Why, if something failed.
        reason: Option<String>,
        /// What the check does.
        doing: CheckKind,
        /// Whether the service is out when this check is down.
        critical: bool,
    },
    /// An answer came after this time.
    Measured {
        /// The check that asked.
        check: CheckName,
        /// How long the answer took.
        response_time: Duration,
    },
    /// An outage began. Told once.
    Unavailable {
        /// The outage.
        outage: Outage,
        /// What failed.
        reason: String,
    },
    /// An outage ended. Told once.
    Recovered {
        /// The outage.
        outage: Outage,
        /// How it ended, if not by the service's being there again.
        reason: Option<&'static str>,
    },
    /// Its maintenance ran out.
    MaintenanceEnded,
}

/// A watched service.
#[derive(Debug)]
pub struct Service {
    id: ServiceId,
    definition: Arc<ServiceDefinition>,
    origin: Origin,
    checks: BTreeMap<CheckName, Check>,
    maintenance: Option<Maintenance>,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Check {
    definition: CheckDefinition,
    machine: Machine,
    /// What failed last, while it fails.
    failure: Option<String>,
    /// Of a heartbeat: when the next one is missed.
    expires: Option<Timestamp>,
    results: Arc<Results>,
}

impl Check {
    fn new(definition: CheckDefinition, now: Timestamp) -> Self {
        let expires =
            matches!(definition.target, Target::Heartbeat).then(|| now.saturating_add(definition.interval));
        let machine = Machine::new(CheckState::Unknown, now);
        Self { definition, machine, failure: None, expires, results: Arc::default() }
    }

    /// The same question under another definition: what is known of it stays known.
    fn go_on_as(self, definition: &CheckDefinition, now: Timestamp) -> Self {
        if self.definition == *definition {
            return self;
        }
        let Self { machine, failure, results, .. } = self;
        Self { machine, failure, results, ..Self::new(definition.clone(), now) }
    }
}

impl Service {
    /// One that is watched from now on.
    pub fn new(id: ServiceId, definition: Arc<ServiceDefinition>, origin: Origin, now: Timestamp) -> Self {
        let checks = definition
            .checks
            .iter()
            .map(|check| (check.name.clone(), Check::new(check.clone(), now)))
            .collect();
        Self { id, definition, origin, checks, maintenance: None, outage: None }
    }

    /// Its definition.
    pub fn definition(&self) -> &Arc<ServiceDefinition> {
        &self.definition
    }

    /// Where that comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The maintenance that it is in.
    pub fn maintenance(&self) -> Option<&Maintenance> {
        self.maintenance.as_ref()
    }

    /// The outage that was told and has not ended.
    pub fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// A check's state.
    pub fn check(&self, name: &CheckName) -> Option<CheckState> {
        self.checks.get(name).map(|check| check.machine.state())
    }

    /// What its checks have counted, by name.
    pub fn results(&self) -> BTreeMap<CheckName, Arc<Results>> {
        self.checks.iter().map(|(name, check)| (name.clone(), Arc::clone(&check.results))).collect()
    }

    /// Another definition. Checks that ask the same as before keep what they know, however often and with whatever thresholds they
    /// ask now; of others it is told that nothing is known any more.
    pub fn redefine(
        &mut self,
        definition: Arc<ServiceDefinition>,
        origin: Origin,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        let mut known = std::mem::take(&mut self.checks);
        self.checks = definition
            .checks
            .iter()
            .map(|check| {
                let kept = known.remove(&check.name).and_then(|kept| {
                    if kept.definition.target == check.target {
                        return Some(kept.go_on_as(check, now));
                    }
                    findings.extend(self.forgotten(&kept, now));
                    None
                });
                (check.name.clone(), kept.unwrap_or_else(|| Check::new(check.clone(), now)))
            })
            .collect();
        findings.extend(known.values().filter_map(|check| self.forgotten(check, now)));
        (self.definition, self.origin) = (definition, origin);
        // Without the check that was down there may be nothing left that says so.
        self.settle(now, findings);
    }

    /// What a restart found in the log: an outage that was told and has not been ended.
    pub fn restore_outage(&mut self, outage: Outage, now: Timestamp, findings: &mut Vec<Finding>) {
        if let Some(check) = self.checks.get_mut(&outage.check).filter(|check| check.definition.critical) {
            check.machine = Machine::new(CheckState::Down, outage.since);
            check.failure = Some("it was down before the restart".to_owned());
        } else if let Some(check) = self.checks.values_mut().find(|check| check.definition.critical) {
            check.machine = Machine::new(CheckState::Down, now);
        }
        self.outage = Some(outage);
        // A service that has no critical checks any more has none that could end it.
        self.settle(now, findings);
    }

    /// Begins or ends maintenance.
    pub fn maintain(
        &mut self,
        maintenance: Option<Maintenance>,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        self.maintenance = maintenance;
        self.settle(now, findings);
    }

    /// Takes what a check found.
    pub fn observe(
        &mut self,
        check: &CheckName,
        answer: &ProbeAnswer,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        if let Some(response_time) = answer.response_time
            && self.checks.contains_key(check)
        {
            findings.push(self.finding(now, FindingKind::Measured { check: check.clone(), response_time }));
        }
        self.judge(check, answer.outcome.as_ref().err(), now, findings);
    }

    /// The service says that it lives. `at` is when it said so. Whether it has a check to which that still says something.
    pub fn beat(&mut self, at: Timestamp, now: Timestamp, findings: &mut Vec<Finding>) -> bool {
        let mut listening = Vec::new();
        for (name, check) in &mut self.checks {
            if let Some(expires) = &mut check.expires {
                // One that comes late, out of a log that is read again, must not end the present time to live, and is no sign of
                // life any more when its own is up: an outage that a restart found goes on.
                let lasts_until = at.saturating_add(check.definition.interval);
                *expires = (*expires).max(lasts_until);
                if lasts_until > now {
                    listening.push(name.clone());
                }
            }
        }
        for name in &listening {
            self.judge(name, None, now, findings);
        }
        !listening.is_empty()
    }

    /// Whether somebody listens for heartbeats.
    pub fn listens(&self) -> bool {
        self.checks.values().any(|check| check.expires.is_some())
    }

    /// What time alone brings: heartbeats that did not come, a maintenance that ran out.
    pub fn tick(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        let ran_out = self.maintenance.as_ref().and_then(|m| m.until).is_some_and(|until| until <= now);
        if ran_out {
            findings.push(self.finding(now, FindingKind::MaintenanceEnded));
            self.maintain(None, now, findings);
        }
        let mut missed = Vec::new();
        for (name, check) in &mut self.checks {
            let Some(expires) = &mut check.expires else { continue };
            if *expires <= now {
                let ttl = check.definition.interval;
                // After a pause of the process itself one miss is one miss, not as many as would have fitted into it.
                *expires = (*expires).saturating_add(ttl).max(now);
                missed.push((name.clone(), Failure::NoHeartbeat(ttl)));
            }
        }
        for (name, failure) in &missed {
            self.judge(name, Some(failure), now, findings);
        }
    }

    /// When [`Service::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let heartbeats = self.checks.values().filter_map(|check| check.expires);
        heartbeats.chain(self.maintenance.as_ref().and_then(|maintenance| maintenance.until)).min()
    }

    /// Ends the watch: an outage that was told is over for everybody who waits.
    pub fn remove(self, now: Timestamp, findings: &mut Vec<Finding>) {
        findings.extend(self.checks.values().filter_map(|check| self.forgotten(check, now)));
        if let Some(outage) = self.outage.clone() {
            let reason = Some("it is not watched any more");
            findings.push(self.finding(now, FindingKind::Recovered { outage, reason }));
        }
    }

    fn judge(
        &mut self,
        name: &CheckName,
        failure: Option<&Failure>,
        now: Timestamp,
        findings: &mut Vec<Finding>,
    ) {
        let Some(check) = self.checks.get_mut(name) else { return };
        check.results.count(failure.is_none());
        check.failure = failure.map(ToString::to_string);
        let change = check.machine.observe(failure.is_none(), check.definition.thresholds, now);
        let reason = check.failure.clone();
        let (doing, critical) = (check.definition.kind(), check.definition.critical);
        let Some(change) = change else { return };
        let kind = FindingKind::CheckChanged {
            check: name.clone(),
            from: change.from,
            to: change.to,
            reason,
            doing,
            critical,
        };
        findings.push(self.finding(now, kind));
        self.settle(now, findings);
    }

    /// Tells the beginning or end of an outage, if what was told last is not true any more.
    fn settle(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        // The one that is down for longest names the outage.
        let down = self
            .checks
            .iter()
            .filter(|(_, check)| check.definition.critical && check.machine.state() == CheckState::Down)
            .min_by_key(|(_, check)| check.machine.since());
        match (&self.outage, down) {
            (None, Some((name, check))) if self.maintenance.is_none() => {
                let outage = Outage { since: check.machine.since(), check: name.clone() };
                let reason = check.failure.clone().unwrap_or_else(|| "the check is down".to_owned());
                self.outage = Some(outage.clone());
                findings.push(self.finding(now, FindingKind::Unavailable { outage, reason }));
            }
            (Some(outage), None) => {
                let outage = outage.clone();
                self.outage = None;
                findings.push(self.finding(now, FindingKind::Recovered { outage, reason: None }));
            }
            _ => {}
        }
    }

    /// Tells that nothing is known any more of what a check asked, if anything was told of it.
    fn forgotten(&self, check: &Check, now: Timestamp) -> Option<Finding> {
        let from = check.machine.state();
        (from != CheckState::Unknown).then(|| {
            let kind = FindingKind::CheckChanged {
                check: check.definition.name.clone(),
                from,
                to: CheckState::Unknown,
                reason: Some("it is not checked like this any more".to_owned()),
                doing: check.definition.kind(),
                critical: check.definition.critical,
            };
            self.finding(now, kind)
        })
    }

    fn finding(&self, at: Timestamp, kind: FindingKind) -> Finding {
        Finding { service: self.id.clone(), at, kind }
    }
}

#[cfg(test)]
mod tests;

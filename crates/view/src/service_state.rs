//! What state a service is in: a function of what was told of it, and of nothing else. (Whether it has fallen silent is for checks to
//! find out, which then tell it; no clock is read here.)
//!
//! The first of these that holds:
//!
//! | state | holds when |
//! | --- | --- |
//! | `maintenance` | work on it was announced (`servico_em_manutencao`) and is not over |
//! | `down` | it was told to be unavailable and not to have recovered; or one of its critical checks is down; or it has stopped, and gave no sign of life more than a moment later |
//! | `starting` | it was registered or has announced its start, and gave no sign of life since: no metric, no heartbeat, no check that passes |
//! | `degraded` | its error rate is above [`DEGRADED_ERROR_RATE_PERCENT`], or one of its checks that isn't critical is down, or a circuit breaker in front of it is open or half open |
//! | `up` | otherwise |

use farol_event::Timestamp;
use farol_event::service::CheckState;
use serde::{Deserialize, Serialize};

/// The error rate above which a service that is up counts as degraded.
pub const DEGRADED_ERROR_RATE_PERCENT: f64 = 5.0;

/// How a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// It has announced itself, and gave no sign of life since.
    Starting,
    /// All is well.
    Up,
    /// It serves, but not as it should.
    Degraded,
    /// It doesn't serve.
    Down,
    /// It is being worked on.
    Maintenance,
}

impl ServiceState {
    /// Every state.
    pub const ALL: [ServiceState; 5] = [
        ServiceState::Starting,
        ServiceState::Up,
        ServiceState::Degraded,
        ServiceState::Down,
        ServiceState::Maintenance,
    ];

    /// The word of the API and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceState::Starting => "starting",
            ServiceState::Up => "up",
            ServiceState::Degraded => "degraded",
            ServiceState::Down => "down",
            ServiceState::Maintenance => "maintenance",
        }
    }
}

/// Where a service stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Announced, without a sign of life since.
    Starting,
    /// It gave a sign of life.
    Alive,
    /// It stopped by intention.
    Stopped,
}

/// Something that holds since an instant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Since<T> {
    pub(crate) is: T,
    pub(crate) since: Timestamp,
    /// Why, if its sender said.
    pub(crate) reason: Option<String>,
}

/// A check as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckFact {
    pub(crate) name: String,
    pub(crate) critical: bool,
    pub(crate) state: Since<CheckState>,
}

/// A circuit breaker in front of the service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BreakerFact {
    pub(crate) caller: String,
    pub(crate) name: String,
    /// Whether it rejects calls, all or most of them.
    pub(crate) rejects: Since<bool>,
}

/// What was told of a service.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct StateFacts {
    /// When it was first known.
    pub(crate) known_since: Timestamp,
    pub(crate) life: Option<Since<Life>>,
    /// Whether it is unavailable.
    pub(crate) unavailable: Option<Since<bool>>,
    pub(crate) maintenance: Option<Since<bool>>,
    /// Whether its error rate is above [`DEGRADED_ERROR_RATE_PERCENT`].
    pub(crate) error_rate_high: Option<Since<bool>>,
    pub(crate) checks: Vec<CheckFact>,
    pub(crate) breakers: Vec<BreakerFact>,
}

/// The state, since when, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: ServiceState,
    pub(crate) since: Timestamp,
    pub(crate) reason: Option<String>,
}

impl StateFacts {
    /// The state that follows.
    pub(crate) fn standing(&self) -> Standing {
        self.maintenance_standing()
            .or_else(|| self.down())
            .or_else(|| self.starting())
            .or_else(|| self.degraded())
            .unwrap_or_else(|| self.up())
    }

    fn maintenance_standing(&self) -> Option<Standing> {
        let maintenance = self.maintenance.as_ref().filter(|m| m.is)?;
        Some(Standing {
            state: ServiceState::Maintenance,
            since: maintenance.since,
            reason: maintenance.reason.clone(),
        })
    }

    /// The cause that began first, for it was down since then.
    fn down(&self) -> Option<Standing> {
        let outage = self.unavailable.as_ref().filter(|u| u.is).map(|u| (u.since, u.reason.clone()));
        let stopped = self.life.as_ref().filter(|life| life.is == Life::Stopped).map(|life| {
            let reason =
                life.reason.as_ref().map_or("stopped".to_owned(), |reason| format!("stopped: {reason}"));
            (life.since, Some(reason))
        });
        first(outage.into_iter().chain(stopped).chain(self.checks_down(true)), ServiceState::Down)
    }

    fn starting(&self) -> Option<Standing> {
        let since = match &self.life {
            Some(life) if life.is == Life::Starting => life.since,
            Some(_) => return None,
            // Registered, or known by what others say of it, and not heard of itself.
            None if self.checks.iter().any(|check| check.state.is == CheckState::Up) => return None,
            None => self.known_since,
        };
        Some(Standing { state: ServiceState::Starting, since, reason: None })
    }

    fn degraded(&self) -> Option<Standing> {
        let errors = self
            .error_rate_high
            .as_ref()
            .filter(|high| high.is)
            .map(|high| (high.since, Some(format!("error rate above {DEGRADED_ERROR_RATE_PERCENT} %"))));
        let breakers = self.breakers.iter().filter(|breaker| breaker.rejects.is).map(|breaker| {
            (breaker.rejects.since, Some(format!("breaker {} of {} is open", breaker.name, breaker.caller)))
        });
        let causes = errors.into_iter().chain(self.checks_down(false)).chain(breakers);
        first(causes, ServiceState::Degraded)
    }

    /// Since the last thing that was otherwise ended.
    fn up(&self) -> Standing {
        let life = self.life.iter().map(|life| life.since);
        let ended = [&self.unavailable, &self.maintenance, &self.error_rate_high];
        let ended = ended.into_iter().flatten().map(|fact| fact.since);
        let checks = self.checks.iter().map(|check| check.state.since);
        let breakers = self.breakers.iter().map(|breaker| breaker.rejects.since);
        let since = life.chain(ended).chain(checks).chain(breakers).max().unwrap_or(self.known_since);
        Standing { state: ServiceState::Up, since, reason: None }
    }

    fn checks_down(&self, critical: bool) -> impl Iterator<Item = (Timestamp, Option<String>)> {
        self.checks.iter().filter(move |c| c.critical == critical && c.state.is == CheckState::Down).map(
            |check| {
                let reason = match &check.state.reason {
                    Some(reason) => format!("check {}: {reason}", check.name),
                    None => format!("check {} is down", check.name),
                };
                (check.state.since, Some(reason))
            },
        )
    }
}

/// The cause that began first; of those of one instant, the one that is named first.
fn first(causes: impl Iterator<Item = (Timestamp, Option<String>)>, state: ServiceState) -> Option<Standing> {
    let (since, reason) = causes.min_by_key(|(since, _)| *since)?;
    Some(Standing { state, since, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    fn since<T>(is: T, seconds: i64) -> Since<T> {
        Since { is, since: at(seconds), reason: None }
    }

    fn check(name: &str, critical: bool, state: CheckState, seconds: i64) -> CheckFact {
        CheckFact { name: name.into(), critical, state: since(state, seconds) }
    }

    fn breaker(rejects: bool, seconds: i64) -> BreakerFact {
        BreakerFact { caller: "web".into(), name: "db".into(), rejects: since(rejects, seconds) }
    }

    fn alive(seconds: i64) -> StateFacts {
        StateFacts { known_since: at(1), life: Some(since(Life::Alive, seconds)), ..StateFacts::default() }
    }

    #[test]
    fn the_state_follows_from_what_was_told() {
        let unavailable = |is, s| Some(since(is, s));
        for (told, facts, expected) in [
            (
                "nothing but its name",
                StateFacts { known_since: at(3), ..StateFacts::default() },
                ("starting", 3, None),
            ),
            (
                "its start",
                StateFacts { life: Some(since(Life::Starting, 5)), ..StateFacts::default() },
                ("starting", 5, None),
            ),
            ("a sign of life", alive(7), ("up", 7, None)),
            (
                "a check that passes, and nothing by itself",
                StateFacts { checks: vec![check("http", true, CheckState::Up, 9)], ..StateFacts::default() },
                ("up", 9, None),
            ),
            (
                "a check without a finding",
                StateFacts {
                    known_since: at(2),
                    checks: vec![check("http", true, CheckState::Unknown, 9)],
                    ..StateFacts::default()
                },
                ("starting", 2, None),
            ),
            (
                "that it stopped",
                StateFacts { life: Some(since(Life::Stopped, 8)), ..alive(7) },
                ("down", 8, Some("stopped")),
            ),
            ("an outage", StateFacts { unavailable: unavailable(true, 20), ..alive(7) }, ("down", 20, None)),
            (
                "the end of an outage",
                StateFacts { unavailable: unavailable(false, 30), ..alive(7) },
                ("up", 30, None),
            ),
            (
                "an outage, and a check that had found it before",
                StateFacts {
                    unavailable: unavailable(true, 20),
                    checks: vec![check("http", true, CheckState::Down, 18)],
                    ..alive(7)
                },
                ("down", 18, Some("check http is down")),
            ),
            (
                "a check that isn't critical is down",
                StateFacts { checks: vec![check("disk", false, CheckState::Down, 11)], ..alive(7) },
                ("degraded", 11, Some("check disk is down")),
            ),
            (
                "too many errors, and a breaker that is open for longer",
                StateFacts {
                    error_rate_high: unavailable(true, 15),
                    breakers: vec![breaker(true, 14)],
                    ..alive(7)
                },
                ("degraded", 14, Some("breaker db of web is open")),
            ),
            (
                "few errors again, and a closed breaker",
                StateFacts {
                    error_rate_high: unavailable(false, 16),
                    breakers: vec![breaker(false, 18)],
                    ..alive(7)
                },
                ("up", 18, None),
            ),
            (
                "maintenance in an outage",
                StateFacts {
                    maintenance: unavailable(true, 40),
                    unavailable: unavailable(true, 41),
                    ..alive(7)
                },
                ("maintenance", 40, None),
            ),
            (
                "the end of maintenance, with the outage still open",
                StateFacts {
                    maintenance: unavailable(false, 50),
                    unavailable: unavailable(true, 41),
                    ..alive(7)
                },
                ("down", 41, None),
            ),
            (
                "an outage while it starts",
                StateFacts {
                    life: Some(since(Life::Starting, 5)),
                    unavailable: unavailable(true, 6),
                    ..StateFacts::default()
                },
                ("down", 6, None),
            ),
        ] {
            let standing = facts.standing();
            let found = (standing.state.as_str(), standing.since, standing.reason.as_deref());
            assert_eq!(found, (expected.0, at(expected.1), expected.2), "told: {told}");
        }
    }
}

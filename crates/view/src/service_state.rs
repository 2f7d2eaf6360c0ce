//! What state a service is in: a function of what was told of it, and of the time for what time alone changes. What was told is kept
//! with the service; who asks says what the time is, and gets what time has made of it.
//!
//! The first of these that holds:
//!
//! | state | holds when |
//! | --- | --- |
//! | `maintenance` | work on it was announced (`servico_em_manutencao`) and is not over |
//! | `down` | it was told to be unavailable and not to have recovered; or one of its critical checks is down; or it has stopped, and gave no sign of life more than a moment later |
//! | `unknown` | it would be `up` or `degraded`, no critical check finds it up, it was heard of regularly, and is not any more |
//! | `starting` | it was registered or has announced its start, and gave no sign of life since: no metric, no heartbeat, no check that passes |
//! | `degraded` | its error rate is above [`DEGRADED_ERROR_RATE_PERCENT`], or one of its checks that isn't critical is down, or a circuit breaker in front of it is open or half open, by the word of a caller that is still heard of |
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
    /// It was heard of regularly, and is not any more.
    Unknown,
    /// It is being worked on.
    Maintenance,
}

impl ServiceState {
    /// Every state.
    pub const ALL: [ServiceState; 6] = [
        ServiceState::Starting,
        ServiceState::Up,
        ServiceState::Degraded,
        ServiceState::Down,
        ServiceState::Unknown,
        ServiceState::Maintenance,
    ];

    /// The word of the API and of the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            ServiceState::Starting => "starting",
            ServiceState::Up => "up",
            ServiceState::Degraded => "degraded",
            ServiceState::Down => "down",
            ServiceState::Unknown => "unknown",
            ServiceState::Maintenance => "maintenance",
        }
    }
}

/// Why a service is in its state, as far as it isn't told in somebody's own words: to be said in any language.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ServiceCause {
    /// It stopped by intention.
    #[error("stopped{}", after_colon(.why))]
    Stopped {
        /// Why, in its own words.
        why: Option<String>,
    },
    /// A check of it is down.
    #[error("check {check}{}", .why.as_ref().map_or_else(|| " is down".to_owned(), |why| format!(": {why}")))]
    CheckDown {
        /// Which.
        check: String,
        /// What it found.
        why: Option<String>,
    },
    /// Too many calls fail.
    #[error("error rate above {above_percent} %")]
    ErrorRate {
        /// The bound.
        above_percent: f64,
    },
    /// A circuit breaker in front of it is open or half open.
    #[error("breaker {name} of {caller} is open")]
    BreakerOpen {
        /// Whose.
        caller: String,
        /// Which.
        name: String,
    },
    /// It was heard of regularly, and is not any more.
    #[error("nothing was heard of it for {for_seconds} s, and it was heard of regularly")]
    Silent {
        /// After how long it counted as silent.
        for_seconds: u64,
    },
}

fn after_colon(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
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

/// A circuit breaker in front of the service that rejects calls, all or most of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct OpenBreaker {
    pub(crate) caller: String,
    pub(crate) name: String,
    /// In microseconds.
    since: i64,
}

/// The service was heard of regularly, and is not any more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Silence {
    pub(crate) since: Timestamp,
    /// After how long it counted as silent, in seconds.
    pub(crate) after_seconds: u64,
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
    /// Since when each circuit breaker in front of it lets calls through again. What those say that don't holds only for a time, so it is
    /// asked for when somebody looks.
    pub(crate) breakers_closed: Vec<Timestamp>,
}

/// The state, since when, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: ServiceState,
    pub(crate) since: Timestamp,
    /// Why, in somebody's own words or in those of the cause.
    pub(crate) reason: Option<String>,
    pub(crate) cause: Option<ServiceCause>,
}

impl Standing {
    fn told(state: ServiceState, since: Timestamp, reason: Option<String>) -> Self {
        Self { state, since, reason, cause: None }
    }

    fn because(state: ServiceState, since: Timestamp, cause: ServiceCause) -> Self {
        Self { state, since, reason: Some(cause.to_string()), cause: Some(cause) }
    }

    /// What was told, and on top of it what the time makes of it: a silence, or the breaker in front of the service that rejects calls
    /// for longest.
    pub(crate) fn at_present(self, silence: Option<Silence>, breaker: Option<OpenBreaker>) -> Self {
        if !matches!(self.state, ServiceState::Up | ServiceState::Degraded) {
            return self;
        }
        if let Some(Silence { since, after_seconds }) = silence {
            let cause = ServiceCause::Silent { for_seconds: after_seconds };
            return Self::because(ServiceState::Unknown, since, cause);
        }
        let Some(OpenBreaker { caller, name, since }) = breaker else { return self };
        let since = Timestamp::from_micros(since).unwrap_or_default();
        if self.state == ServiceState::Degraded && self.since <= since {
            return self;
        }
        Self::because(ServiceState::Degraded, since, ServiceCause::BreakerOpen { caller, name })
    }
}

impl StateFacts {
    /// The state that follows from what was told.
    pub(crate) fn standing(&self) -> Standing {
        self.maintenance_standing()
            .or_else(|| self.down())
            .or_else(|| self.starting())
            .or_else(|| self.degraded())
            .unwrap_or_else(|| self.up())
    }

    fn maintenance_standing(&self) -> Option<Standing> {
        let maintenance = self.maintenance.as_ref().filter(|m| m.is)?;
        Some(Standing::told(ServiceState::Maintenance, maintenance.since, maintenance.reason.clone()))
    }

    /// The cause that began first, for it was down since then. Of those of one instant the check, which knows more than the outage that
    /// was told because of it.
    pub(crate) fn down(&self) -> Option<Standing> {
        let outage = self.unavailable.as_ref().filter(|u| u.is);
        let outage = outage.map(|u| Standing::told(ServiceState::Down, u.since, u.reason.clone()));
        let stopped = self.life.as_ref().filter(|life| life.is == Life::Stopped).map(|life| {
            let cause = ServiceCause::Stopped { why: life.reason.clone() };
            Standing::because(ServiceState::Down, life.since, cause)
        });
        first(self.checks_down(true, ServiceState::Down).chain(outage).chain(stopped))
    }

    fn starting(&self) -> Option<Standing> {
        let since = match &self.life {
            Some(life) if life.is == Life::Starting => life.since,
            Some(_) => return None,
            // Registered, or known by what others say of it, and not heard of itself.
            None if self.checks.iter().any(|check| check.state.is == CheckState::Up) => return None,
            None => self.known_since,
        };
        Some(Standing::told(ServiceState::Starting, since, None))
    }

    fn degraded(&self) -> Option<Standing> {
        let errors = self.error_rate_high.as_ref().filter(|high| high.is).map(|high| {
            let cause = ServiceCause::ErrorRate { above_percent: DEGRADED_ERROR_RATE_PERCENT };
            Standing::because(ServiceState::Degraded, high.since, cause)
        });
        first(errors.into_iter().chain(self.checks_down(false, ServiceState::Degraded)))
    }

    /// Since the last thing that was otherwise ended.
    fn up(&self) -> Standing {
        let life = self.life.iter().map(|life| life.since);
        let ended = [&self.unavailable, &self.maintenance, &self.error_rate_high];
        let ended = ended.into_iter().flatten().map(|fact| fact.since);
        let checks = self.checks.iter().map(|check| check.state.since);
        let breakers = self.breakers_closed.iter().copied();
        let since = life.chain(ended).chain(checks).chain(breakers).max().unwrap_or(self.known_since);
        Standing::told(ServiceState::Up, since, None)
    }

    fn checks_down(&self, critical: bool, state: ServiceState) -> impl Iterator<Item = Standing> {
        let down = move |check: &&CheckFact| check.critical == critical && check.state.is == CheckState::Down;
        self.checks.iter().filter(down).map(move |check| {
            let cause =
                ServiceCause::CheckDown { check: check.name.clone(), why: check.state.reason.clone() };
            Standing::because(state, check.state.since, cause)
        })
    }
}

/// The one that began first; of those of one instant, the one that is named first.
fn first(standings: impl Iterator<Item = Standing>) -> Option<Standing> {
    standings.min_by_key(|standing| standing.since)
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

    fn breaker(seconds: i64) -> OpenBreaker {
        OpenBreaker { caller: "web".into(), name: "db".into(), since: at(seconds).as_micros() }
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
                "few errors again, and a closed breaker",
                StateFacts {
                    error_rate_high: unavailable(false, 16),
                    breakers_closed: vec![at(18)],
                    ..alive(7)
                },
                ("up", 18, None),
            ),
            (
                "an outage, and the check that found it in the same moment",
                StateFacts {
                    unavailable: unavailable(true, 20),
                    checks: vec![check("ttl", true, CheckState::Down, 20)],
                    ..alive(7)
                },
                ("down", 20, Some("check ttl is down")),
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

    #[test]
    fn silence_and_open_breakers_count_for_a_service_that_would_be_well_otherwise() {
        let silence = Some(Silence { since: at(90), after_seconds: 60 });
        let errors = StateFacts { error_rate_high: Some(since(true, 15)), ..alive(7) };
        let out = StateFacts { unavailable: Some(since(true, 20)), ..alive(7) };
        let open = Some("breaker db of web is open");
        let silent = Some("nothing was heard of it for 60 s, and it was heard of regularly");
        for (what, facts, silence, breaker, expected) in [
            ("an open breaker", alive(7), None, Some(breaker(14)), ("degraded", 14, open)),
            ("a breaker open for longer", errors.clone(), None, Some(breaker(14)), ("degraded", 14, open)),
            (
                "errors for longer",
                errors.clone(),
                None,
                Some(breaker(16)),
                ("degraded", 15, Some("error rate above 5 %")),
            ),
            ("silence", errors, silence, Some(breaker(14)), ("unknown", 90, silent)),
            ("an outage", out, silence, Some(breaker(14)), ("down", 20, None)),
        ] {
            let standing = facts.standing().at_present(silence, breaker);
            let found = (standing.state.as_str(), standing.since, standing.reason.as_deref());
            assert_eq!(found, (expected.0, at(expected.1), expected.2), "{what}");
        }
    }
}

//! `GET /api/v2/alerts`, `GET /api/v2/alerts/groups`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use farol_alert::alertmanager::{annotations, fingerprint};
use farol_alert::label;
use farol_alert::route::GroupKey;
use farol_event::Timestamp;
use farol_matcher::{Matchers, Pattern};
use serde::Serialize;

use super::{Refused, filters, fingerprints, select};
use crate::app::App;
use crate::control::Notifying;
use crate::problem::Problem;
use crate::read::suppression::{ListedAlert, Suppressions};

/// An alert that fires has no end yet; Alertmanager asks for one, and moves it on as long as the alert is heard of.
const ASSUMED_TO_LAST: std::time::Duration = std::time::Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Receiver {
    name: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AlertStatus {
    state: &'static str,
    silenced_by: Vec<String>,
    inhibited_by: Vec<String>,
}

/// `gettableAlert`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GettableAlert {
    annotations: BTreeMap<String, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    updated_at: Timestamp,
    fingerprint: String,
    receivers: Vec<Receiver>,
    status: AlertStatus,
    labels: BTreeMap<String, String>,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator_url: Option<String>,
}

/// `alertGroup`.
#[derive(Debug, Serialize)]
pub(crate) struct AlertGroup {
    labels: BTreeMap<String, String>,
    receiver: Receiver,
    alerts: Vec<GettableAlert>,
}

/// Which alerts are asked for.
struct Asked {
    filter: Matchers,
    active: bool,
    silenced: bool,
    inhibited: bool,
    receiver: Option<Pattern>,
}

/// The query as it came: names may be repeated.
type RawQuery = Result<Query<Vec<(String, String)>>, QueryRejection>;

impl Asked {
    fn of(query: RawQuery) -> Result<Self, Refused> {
        let Query(pairs) = query.map_err(|error| Refused::bad_request(error.body_text()))?;
        let mut asked = Self {
            filter: Matchers::default(),
            active: true,
            silenced: true,
            inhibited: true,
            receiver: None,
        };
        let mut texts = Vec::new();
        for (name, value) in pairs {
            let flag = || match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(Refused::bad_request(format!("`{name}` must be true or false"))),
            };
            match name.as_str() {
                "filter" => texts.push(value),
                "active" => asked.active = flag()?,
                "silenced" => asked.silenced = flag()?,
                "inhibited" => asked.inhibited = flag()?,
                // Whatever fires has been looked at: there are none that are unprocessed.
                "unprocessed" => drop(flag()?),
                "receiver" if value.is_empty() => {}
                "receiver" => {
                    let pattern = Pattern::new(&value);
                    asked.receiver = Some(pattern.map_err(|error| {
                        Refused::bad_request(format!("failed to parse receiver param: {error}"))
                    })?);
                }
                _ => return Err(Refused::bad_request(format!("there is no parameter `{name}`"))),
            }
        }
        asked.filter = filters(&texts)?;
        Ok(asked)
    }

    fn takes(&self, listed: &ListedAlert) -> bool {
        let (silenced, inhibited) = (!listed.silenced_by.is_empty(), !listed.inhibited_by.is_empty());
        (self.silenced || !silenced)
            && (self.inhibited || !inhibited)
            && (self.active || silenced || inhibited)
            && select(&self.filter, &listed.alert)
    }

    fn takes_receiver(&self, name: &str) -> bool {
        self.receiver.as_ref().is_none_or(|pattern| pattern.matches(name))
    }
}

/// What fires and is asked for.
async fn firing(app: &App, asked: &Asked) -> Result<Vec<ListedAlert>, Refused> {
    let (notifying, now) = (app.control().notifying(), app.now());
    let listed = app
        .store()
        .query(move |queries| {
            let firing = queries.firing_alerts()?;
            Ok(Suppressions::now(queries, &notifying, now)?.of_all(firing))
        })
        .await
        .map_err(Problem::from)?;
    Ok(listed.into_iter().filter(|alert| asked.takes(alert)).collect())
}

fn gettable(
    listed: ListedAlert,
    receivers: Vec<Receiver>,
    dashboard: Option<&str>,
    now: Timestamp,
) -> GettableAlert {
    let ListedAlert { alert, silenced_by, inhibited_by } = listed;
    let suppressed = !(silenced_by.is_empty() && inhibited_by.is_empty());
    GettableAlert {
        annotations: annotations(&alert),
        starts_at: alert.began_at,
        ends_at: now.saturating_add(ASSUMED_TO_LAST),
        updated_at: alert.fired_at.unwrap_or(alert.began_at),
        fingerprint: fingerprint(alert.id),
        receivers,
        status: AlertStatus {
            state: if suppressed { "suppressed" } else { "active" },
            silenced_by: silenced_by.iter().map(ToString::to_string).collect(),
            inhibited_by: fingerprints(&inhibited_by),
        },
        labels: label::all(&alert),
        generator_url: dashboard.map(|url| farol_alert::alertmanager::alert_url(url, alert.id)),
    }
}

/// The receivers that an alert is told to.
fn receivers(notifying: &Notifying, listed: &ListedAlert) -> Vec<Receiver> {
    let name = |name: &str| Receiver { name: name.to_owned() };
    let at_once = notifying.at_once.iter().map(String::as_str);
    let mut all: Vec<_> =
        notifying.routes.receivers(&listed.alert).into_iter().chain(at_once).map(name).collect();
    all.sort();
    all.dedup();
    all
}

pub(crate) async fn list(
    State(app): State<App>,
    query: RawQuery,
) -> Result<Json<Vec<GettableAlert>>, Refused> {
    let asked = Asked::of(query)?;
    let (notifying, now) = (app.control().notifying(), app.now());
    let mut alerts = Vec::new();
    for listed in firing(&app, &asked).await? {
        let receivers = receivers(&notifying, &listed);
        let told = receivers.iter().any(|receiver| asked.takes_receiver(&receiver.name));
        if told || asked.receiver.is_none() {
            alerts.push(gettable(listed, receivers, notifying.dashboard.as_deref(), now));
        }
    }
    alerts.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
    Ok(Json(alerts))
}

/// Nobody else's alerts are taken. 405 would be the word, but of that amtool shows no text.
pub(crate) async fn refuse() -> Refused {
    Refused::bad_request(
        "alerts can't be posted to Farol: its own rules raise them (POST /api/events takes events)",
    )
}

pub(crate) async fn groups(
    State(app): State<App>,
    query: RawQuery,
) -> Result<Json<Vec<AlertGroup>>, Refused> {
    let asked = Asked::of(query)?;
    let (notifying, now) = (app.control().notifying(), app.now());
    let mut groups: BTreeMap<(BTreeMap<String, String>, String), Vec<GettableAlert>> = BTreeMap::new();
    for listed in firing(&app, &asked).await? {
        let all = receivers(&notifying, &listed);
        let mut keys = Vec::new();
        for route in notifying.routes.of(&listed.alert) {
            keys.extend(
                route
                    .receivers
                    .iter()
                    .map(|receiver| (GroupKey::of(&listed.alert, route, receiver).labels, receiver.clone())),
            );
        }
        // A receiver that hears at once hears of each alert alone.
        keys.extend(notifying.at_once.iter().map(|receiver| (label::all(&listed.alert), receiver.clone())));
        for key in keys.into_iter().filter(|(_, receiver)| asked.takes_receiver(receiver)) {
            let alert = gettable(listed.clone(), all.clone(), notifying.dashboard.as_deref(), now);
            groups.entry(key).or_default().push(alert);
        }
    }
    let group =
        |((labels, receiver), alerts)| AlertGroup { labels, receiver: Receiver { name: receiver }, alerts };
    Ok(Json(groups.into_iter().map(group).collect()))
}

use std::time::Duration;

use farol_event::Acknowledgement;

use super::*;
use crate::fixture::{alert, at};

const TIMING: GroupTiming = GroupTiming {
    wait: Duration::from_secs(30),
    interval: Duration::from_secs(300),
    repeat: Duration::from_secs(14_400),
};

/// A group in virtual time: alerts by number, some silenced.
struct Rig {
    group: Group,
    alerts: BTreeMap<AlertId, Alert>,
    silenced: BTreeSet<AlertId>,
    send_resolved: bool,
}

impl Rig {
    fn new() -> Self {
        Self {
            group: Group::new(TIMING, at(0)),
            alerts: BTreeMap::new(),
            silenced: BTreeSet::new(),
            send_resolved: true,
        }
    }

    fn fire(&mut self, number: i64) -> AlertId {
        let alert = alert(number);
        let id = alert.id;
        self.alerts.insert(id, alert);
        self.group.insert(id);
        id
    }

    fn resolve(&mut self, id: AlertId) {
        self.alerts.get_mut(&id).unwrap().status = AlertStatus::Resolved;
    }

    fn look(&mut self, now: i64) -> Look {
        let (alerts, silenced) = (&self.alerts, &self.silenced);
        let suppression = |alert: &Alert| Suppression {
            silenced_by: silenced.contains(&alert.id).then(|| SilenceId(Uuid::nil())).into_iter().collect(),
            inhibited_by: Vec::new(),
        };
        self.group.look(|id| alerts.get(&id), suppression, TIMING, self.send_resolved, at(now))
    }

    fn delivered(&mut self, now: i64) {
        self.group.ended(Ended::Delivered, at(now));
    }

    fn says(&mut self, now: i64) -> Option<(Reason, usize, usize)> {
        let said = self.look(now).say.map(|say| (say.reason, say.firing.len(), say.resolved.len()));
        if said.is_some() {
            self.delivered(now);
        }
        said
    }
}

#[test]
fn a_group_waits_then_tells_changes_at_its_interval_and_repeats() {
    let mut rig = Rig::new();
    let one = rig.fire(1);
    assert_eq!(rig.group.next_look(), Some(at(30)));
    let two = rig.fire(2);
    assert_eq!(rig.says(30), Some((Reason::First, 2, 0)), "both in one");
    assert_eq!(rig.group.next_look(), Some(at(330)));
    assert_eq!(rig.says(330), None, "nothing changed");
    rig.fire(3);
    assert_eq!(rig.says(630), Some((Reason::Changed, 3, 0)));
    rig.resolve(one);
    assert_eq!(rig.says(930), Some((Reason::Changed, 2, 1)));
    assert_eq!(rig.says(930 + 14_399), None);
    assert_eq!(rig.says(930 + 14_400), Some((Reason::Repeat, 2, 0)));
    rig.resolve(two);
    let three = alert(3).id;
    rig.resolve(three);
    assert_eq!(rig.says(20_000), Some((Reason::Resolved, 0, 2)));
    assert!(rig.group.is_empty());
}

#[test]
fn what_resolves_before_it_was_told_is_never_told() {
    let mut rig = Rig::new();
    let one = rig.fire(1);
    rig.resolve(one);
    let look = rig.look(30);
    assert_eq!((look.say, look.dropped), (None, vec![one]));
    assert!(rig.group.is_empty());
}

#[test]
fn acknowledged_alerts_are_not_repeated() {
    let mut rig = Rig::new();
    let one = rig.fire(1);
    rig.says(30);
    let given = Acknowledgement { by: "ana".into(), at: at(40), comment: None };
    rig.alerts.get_mut(&one).unwrap().acknowledgement = Some(given);
    assert_eq!(rig.says(100_000), None);
    rig.fire(2);
    assert_eq!(rig.says(200_000), Some((Reason::Changed, 2, 0)), "a new one is told");
    assert_eq!(rig.says(300_000), Some((Reason::Repeat, 2, 0)), "and is acknowledged by nobody");
}

#[test]
fn silenced_alerts_are_left_out_recorded_once_and_told_when_the_silence_is_over() {
    let mut rig = Rig::new();
    let (one, two) = (rig.fire(1), rig.fire(2));
    rig.silenced.insert(one);
    let look = rig.look(30);
    assert_eq!(look.held_back.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [one]);
    assert_eq!(look.say.unwrap().firing, [two]);
    rig.delivered(30);
    assert!(rig.look(330).held_back.is_empty(), "recorded already");
    rig.silenced.clear();
    assert_eq!(rig.says(630), Some((Reason::Changed, 2, 0)));
    rig.silenced.insert(one);
    rig.resolve(one);
    let look = rig.look(930);
    assert_eq!((look.say, look.dropped), (None, vec![one]), "it ends without a word");
    assert_eq!(look.held_back.len(), 1);
}

#[test]
fn an_alert_that_was_told_and_then_silenced_is_not_news_afterwards() {
    let mut rig = Rig::new();
    let one = rig.fire(1);
    rig.says(30);
    rig.silenced.insert(one);
    rig.fire(2);
    assert_eq!(rig.says(330), Some((Reason::Changed, 1, 0)));
    rig.silenced.clear();
    assert_eq!(rig.says(630), None);
    rig.resolve(one);
    assert_eq!(rig.says(930), Some((Reason::Changed, 1, 1)), "and its end is told");
}

#[test]
fn nothing_else_is_said_while_a_notification_is_on_its_way_and_a_lost_one_is_said_again_as_things_stand() {
    let mut rig = Rig::new();
    let one = rig.fire(1);
    let first = rig.look(30).say.unwrap();
    assert_eq!(rig.group.next_look(), None);
    rig.group.ended(Ended::GaveUp, at(400));
    assert_eq!(rig.group.next_look(), Some(at(330)));
    let again = rig.look(400).say.unwrap();
    assert_eq!(again, first);
    let key = GroupKey { route: "{}".into(), receiver: "ops".into(), labels: BTreeMap::new() };
    assert_eq!(again.id(&key), first.id(&key), "a receiver can tell that it is the same");
    rig.group.ended(Ended::GaveUp, at(500));
    rig.fire(2);
    let third = rig.look(800).say.unwrap();
    assert_eq!((third.reason, third.firing.len()), (Reason::First, 2));
    assert_ne!(third.id(&key), first.id(&key));
    rig.group.ended(Ended::Refused, at(800));
    assert_eq!(rig.look(1100).say, None, "who refuses is not asked again for the same");
    rig.resolve(one);
    assert_eq!(rig.look(1400).say.unwrap().resolved, [one]);
}

#[test]
fn receiver_that_wants_no_ends_hears_of_none() {
    let mut rig = Rig { send_resolved: false, ..Rig::new() };
    let one = rig.fire(1);
    rig.says(30);
    rig.resolve(one);
    let look = rig.look(330);
    assert_eq!((look.say, look.dropped), (None, vec![one]));
}

#[test]
fn suppression_is_told_in_words() {
    let silence = SilenceId(Uuid::nil());
    let alert = alert(1).id;
    for (silenced, inhibited, words) in [
        (vec![], vec![], String::new()),
        (vec![silence], vec![], format!("silenced by {silence}")),
        (vec![], vec![alert], format!("inhibited by alert {alert}")),
        (vec![silence], vec![alert], format!("silenced by {silence}; inhibited by alert {alert}")),
    ] {
        let suppression = Suppression { silenced_by: silenced, inhibited_by: inhibited };
        assert_eq!(suppression.reason(), words);
        assert_eq!(suppression.is_none(), words.is_empty());
    }
}

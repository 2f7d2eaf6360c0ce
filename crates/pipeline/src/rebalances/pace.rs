//! How often rebalances are told: a group whose members crash and come back, or mean harm, sets off thousands a second, and must not
//! fill the log with them. Pure: told a rebalance and the time, it says what to tell now.
//!
//! Each group may have a few told at once, and one more now and then ([`OF_A_GROUP`]); all groups together alike ([`OF_ALL`]). What
//! is beyond that is held and put together with the group's next ones: told later, as one, it says how many it stands for, who owned
//! what before the first and who owns what after the last. So the last state of every group is told, a little later.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use farol_view::query::rebalances::{Rebalance, RebalanceCost};
use tokio::time::Instant;

use super::longest;

/// Rebalances of one group.
pub(super) const OF_A_GROUP: Rate = Rate { burst: 30, interval: Duration::from_secs(5) };
/// Rebalances of all groups.
const OF_ALL: Rate = Rate { burst: 200, interval: Duration::from_secs(1) };
/// For how many groups something is held; of further ones, rebalances are only counted.
const MAX_HELD_GROUPS: usize = 1000;
/// Members that came and went, listed one by one; further ones are counted.
const MAX_CHANGES: usize = 64;

/// So many at once, and one more after each interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) interval: Duration,
}

/// What a rate leaves.
#[derive(Debug, Default)]
struct Allowance {
    /// When the whole burst may be used again; `None` if it was never used.
    whole_at: Option<Instant>,
}

/// One rebalance, or several of a group in a row as one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) rebalance: Rebalance,
    /// How many it stands for.
    pub(super) rebalances: u64,
    /// Changes that are not listed.
    pub(super) more_changes: u64,
}

/// What to do with a rebalance.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Tell it now.
    Tell(Box<Told>),
    /// It is held, and told later with others.
    Held,
    /// Too much is held: it is not told.
    Untold,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    groups: HashMap<String, Group>,
    all: Allowance,
    held: usize,
}

#[derive(Debug, Default)]
struct Group {
    allowance: Allowance,
    held: Option<Told>,
}

impl Allowance {
    fn has_one(&self, rate: Rate, now: Instant) -> bool {
        let early = rate.interval * rate.burst.saturating_sub(1);
        self.whole_at.is_none_or(|at| at.saturating_duration_since(now) <= early)
    }

    fn take(&mut self, rate: Rate, now: Instant) {
        self.whole_at = Some(self.whole_at.unwrap_or(now).max(now) + rate.interval);
    }

    fn is_whole(&self, now: Instant) -> bool {
        self.whole_at.is_none_or(|at| at <= now)
    }
}

impl Told {
    /// One rebalance, of which `more_changes` are not listed.
    pub(super) fn one(rebalance: Rebalance, more_changes: u64) -> Self {
        Self { rebalance, rebalances: 1, more_changes }
    }

    fn and_then(&mut self, later: Self) {
        let (first, last) = (&mut self.rebalance, later.rebalance);
        self.rebalances += later.rebalances;
        let room = MAX_CHANGES.saturating_sub(first.changes.len());
        self.more_changes += later.more_changes + last.changes.len().saturating_sub(room) as u64;
        first.changes.extend(last.changes.into_iter().take(room));
        first.causes.extend(last.causes.into_iter().take(room));
        (first.generation, first.completed_at) = (last.generation, last.completed_at);
        first.after = last.after;
        let mut paused: BTreeMap<String, u64> = std::mem::take(&mut first.paused_ms);
        for (partition, pause) in last.paused_ms {
            let sum = paused.entry(partition).or_default();
            *sum = sum.saturating_add(pause);
        }
        let cost =
            RebalanceCost::of(first.began_at, first.completed_at, &first.before, &first.after, &paused);
        first.cost = cost.at_least(first.cost).at_least(last.cost);
        first.paused_ms = longest(paused);
    }

    /// The rebalance, with what is not told one by one among its causes.
    pub(super) fn in_words(self) -> Rebalance {
        let mut rebalance = self.rebalance;
        if self.more_changes > 0 {
            rebalance.causes.push(format!("({} more)", self.more_changes));
        }
        if self.rebalances > 1 {
            rebalance.causes.push(format!("({} rebalances in a row, told as one)", self.rebalances));
        }
        rebalance
    }
}

impl Pace {
    /// What to do with a rebalance that has just ended.
    pub(super) fn offer(&mut self, told: Told, now: Instant) -> Verdict {
        let group = self.groups.entry(told.rebalance.group.clone()).or_default();
        if let Some(held) = &mut group.held {
            held.and_then(told);
            return Verdict::Held;
        }
        if group.allowance.has_one(OF_A_GROUP, now) && self.all.has_one(OF_ALL, now) {
            group.allowance.take(OF_A_GROUP, now);
            self.all.take(OF_ALL, now);
            return Verdict::Tell(Box::new(told));
        }
        if self.held >= MAX_HELD_GROUPS {
            return Verdict::Untold;
        }
        group.held = Some(told);
        self.held += 1;
        Verdict::Held
    }

    /// Whether something is held.
    pub(super) fn holds(&self) -> bool {
        self.held > 0
    }

    /// What was held and may be told now, the oldest first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Told> {
        self.groups.retain(|_, group| group.held.is_some() || !group.allowance.is_whole(now));
        let mut waiting: Vec<&mut Group> = self
            .groups
            .values_mut()
            .filter(|group| group.held.is_some() && group.allowance.has_one(OF_A_GROUP, now))
            .collect();
        waiting.sort_by_key(|group| group.held.as_ref().map(|held| held.rebalance.began_at));
        let mut due = Vec::new();
        for group in waiting {
            if !self.all.has_one(OF_ALL, now) {
                break;
            }
            group.allowance.take(OF_A_GROUP, now);
            self.all.take(OF_ALL, now);
            due.extend(group.held.take());
        }
        self.held -= due.len();
        due
    }

    /// Everything that is held, because there is no later.
    pub(super) fn rest(&mut self) -> Vec<Told> {
        self.held = 0;
        self.groups.drain().filter_map(|(_, group)| group.held).collect()
    }
}

#[cfg(test)]
mod tests {
    use farol_event::Timestamp;
    use farol_view::query::rebalances::{ChangeKind, MemberChange};

    use super::*;

    fn rebalance(group: &str, n: i32) -> Told {
        let owned = |n| BTreeMap::from([(format!("c{n}"), vec!["t/0".to_owned()])]);
        let at = |ms: i32| Timestamp::from_millis_clamped(ms.into());
        let change = MemberChange {
            change: ChangeKind::Joined,
            consumer_id: Some(format!("c{n}")),
            member_id: None,
            reason: None,
        };
        let rebalance = Rebalance {
            group: group.to_owned(),
            generation: n,
            began_at: at(n * 10),
            completed_at: at(n * 10 + 5),
            causes: vec![format!("c{n} joined")],
            changes: vec![change],
            before: owned(n - 1),
            after: owned(n),
            paused_ms: [("t/0".to_owned(), 3)].into(),
            cost: RebalanceCost::default(),
        };
        Told::one(rebalance, 0)
    }

    fn offer(pace: &mut Pace, group: &str, n: i32, now: Instant) -> Option<Told> {
        match pace.offer(rebalance(group, n), now) {
            Verdict::Tell(told) => Some(*told),
            Verdict::Held | Verdict::Untold => None,
        }
    }

    #[test]
    fn an_ordinary_group_is_told_of_at_once_and_a_restless_one_now_and_then_with_nothing_lost() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut told = Vec::new();
        // A thousand a second, for a minute.
        let mut now = start;
        for n in 1..=60_000 {
            now = start + Duration::from_millis(n.try_into().unwrap());
            told.extend(offer(&mut pace, "restless", n, now));
            if n % 1000 == 0 {
                told.extend(pace.due(now));
            }
            if n % 10_000 == 0 {
                assert!(offer(&mut pace, "ordinary", n, now).is_some());
            }
        }
        assert!((41..=43).contains(&told.len()), "30 at once, and one each five seconds: {}", told.len());
        told.extend(pace.rest());
        assert_eq!(told.iter().map(|told| told.rebalances).sum::<u64>(), 60_000);
        let listed: usize = told.iter().map(|told| told.rebalance.changes.len()).sum();
        let more: u64 = told.iter().map(|told| told.more_changes).sum();
        assert_eq!(listed as u64 + more, 60_000);
        assert!(told.iter().all(|told| told.rebalance.changes.len() <= MAX_CHANGES));
        for pair in told.windows(2) {
            assert_eq!(pair[0].rebalance.after, pair[1].rebalance.before, "no gap between what is told");
        }
        let last = told.pop().unwrap();
        assert_eq!(last.rebalance.generation, 60_000);
        let (count, more) = (last.rebalances, last.more_changes);
        let words = last.in_words();
        assert_eq!(words.paused_ms["t/0"], 3 * count);
        assert!(words.causes.contains(&format!("({more} more)")), "{:?}", words.causes);
        assert!(words.causes.contains(&format!("({count} rebalances in a row, told as one)")));
        assert!(!pace.holds() && pace.due(now).is_empty());
    }

    #[test]
    fn many_restless_groups_are_bounded_together_and_beyond_a_number_only_counted() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let mut verdicts: HashMap<&str, usize> = HashMap::new();
        for n in 0..5000 {
            let verdict = match pace.offer(rebalance(&format!("g{n}"), n), now) {
                Verdict::Tell(_) => "told",
                Verdict::Held => "held",
                Verdict::Untold => "untold",
            };
            *verdicts.entry(verdict).or_default() += 1;
        }
        assert_eq!(verdicts, [("told", 200), ("held", 1000), ("untold", 3800)].into());
        // Twenty seconds later there is room for twenty, the oldest first; groups that have nothing to say are forgotten.
        let due = pace.due(now + Duration::from_secs(20));
        let groups: Vec<&str> = due.iter().map(|told| told.rebalance.group.as_str()).collect();
        assert_eq!(groups, (200..220).map(|n| format!("g{n}")).collect::<Vec<_>>());
        assert_eq!(pace.groups.len(), 1000);
        assert_eq!(pace.rest().len(), 980);
        assert!(pace.groups.is_empty());
    }
}

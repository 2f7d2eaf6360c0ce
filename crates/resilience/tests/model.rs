//! The breaker against a model of it that is as plain as can be: a list of what was admitted, and no cleverness.

use std::time::Duration;

use farol_resilience::breaker::{Permit, State};
use farol_resilience::{CircuitBreaker, ManualClock};
use proptest::prelude::*;

/// A breaker as one would write it without threads. Times in milliseconds.
struct Model {
    failures_to_open: usize,
    open_for: u64,
    probes: usize,
    successes_to_close: usize,
    half_open_limit: u64,
    state: State,
    /// When the state began.
    since: u64,
    /// Since when it waits half-open for a verdict.
    waiting: u64,
    /// Outcomes since the state began: true is a success.
    outcomes: Vec<bool>,
    /// Numbers of the calls that were admitted in this state and have not ended.
    under_way: Vec<usize>,
    next_call: usize,
}

impl Model {
    fn enter(&mut self, state: State, now: u64) {
        self.state = state;
        (self.since, self.waiting) = (now, now);
        self.outcomes.clear();
        self.under_way.clear();
    }

    /// The number of the call, if it is admitted.
    fn admit(&mut self, now: u64) -> Option<usize> {
        if self.state == State::Open && now >= self.since + self.open_for {
            self.enter(State::HalfOpen, now);
        } else if self.state == State::HalfOpen && self.under_way.is_empty() {
            self.waiting = now;
        } else if self.state == State::HalfOpen && now >= self.waiting + self.half_open_limit {
            self.enter(State::Open, now);
        }
        let admitted = match self.state {
            State::Closed | State::Disabled => true,
            State::Open | State::ForcedOpen => false,
            State::HalfOpen => self.under_way.len() < self.probes,
        };
        admitted.then(|| {
            self.next_call += 1;
            self.under_way.push(self.next_call);
            self.next_call
        })
    }

    fn end(&mut self, call: usize, success: Option<bool>, now: u64) {
        let Some(place) = self.under_way.iter().position(|known| *known == call) else { return };
        self.under_way.remove(place);
        let Some(success) = success else { return };
        self.outcomes.push(success);
        self.waiting = now;
        match self.state {
            State::Closed => {
                let failures = self.outcomes.iter().rev().take_while(|success| !**success).count();
                if failures >= self.failures_to_open {
                    self.enter(State::Open, now);
                }
            }
            State::HalfOpen if !success => self.enter(State::Open, now),
            State::HalfOpen if self.outcomes.len() >= self.successes_to_close => {
                self.enter(State::Closed, now)
            }
            _ => {}
        }
    }

    fn order(&mut self, order: Order, now: u64) {
        let state = match order {
            Order::Open => State::ForcedOpen,
            Order::Disable => State::Disabled,
            Order::Close | Order::Reset => State::Closed,
        };
        if state != self.state || matches!(order, Order::Reset) {
            self.enter(state, now);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Open,
    Close,
    Reset,
    Disable,
}

#[derive(Debug, Clone)]
enum Step {
    Begin,
    /// One of the calls under way ends: well, badly, or given up.
    End(usize, Option<bool>),
    Wait(u64),
    Order(Order),
}

fn steps() -> impl Strategy<Value = Step> {
    let order = prop_oneof![Just(Order::Open), Just(Order::Close), Just(Order::Reset), Just(Order::Disable)];
    prop_oneof![
        10 => Just(Step::Begin),
        10 => (any::<usize>(), prop_oneof![2 => Just(Some(false)), 2 => Just(Some(true)), 1 => Just(None)])
            .prop_map(|(which, success)| Step::End(which, success)),
        4 => (1_u64..150).prop_map(Step::Wait),
        1 => order.prop_map(Step::Order),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_breaker_does_what_the_model_does(
        failures in 1_u32..5,
        probes in 1_u16..4,
        successes in 1_u16..4,
        steps in proptest::collection::vec(steps(), 1..200),
    ) {
        let clock = ManualClock::new();
        let breaker = CircuitBreaker::builder("model")
            .clock(clock.shared())
            .consecutive_failures(failures)
            .open_for(Duration::from_millis(100))
            .probes(probes)
            .successes_to_close(successes)
            .half_open_limit(Some(Duration::from_millis(250)))
            .build()
            .unwrap();
        let mut model = Model {
            failures_to_open: failures as usize,
            open_for: 100,
            probes: usize::from(probes),
            successes_to_close: usize::from(successes),
            half_open_limit: 250,
            state: State::Closed,
            since: 0,
            waiting: 0,
            outcomes: Vec::new(),
            under_way: Vec::new(),
            next_call: 0,
        };
        let mut now = 0;
        let mut calls: Vec<(usize, Permit<'_>)> = Vec::new();
        for step in steps {
            match step {
                Step::Begin => {
                    let (expected, permit) = (model.admit(now), breaker.try_acquire());
                    prop_assert_eq!(expected.is_some(), permit.is_ok());
                    if let Err(refusal) = &permit {
                        let known = model.state == State::Open;
                        let left = Duration::from_millis((model.since + 100).saturating_sub(now));
                        prop_assert_eq!(refusal.retry_after(), known.then_some(left));
                    }
                    calls.extend(expected.zip(permit.ok()));
                }
                Step::End(which, success) => {
                    if calls.is_empty() {
                        continue;
                    }
                    let (call, permit) = calls.swap_remove(which % calls.len());
                    model.end(call, success, now);
                    match success {
                        Some(true) => permit.success(),
                        Some(false) => permit.failure(),
                        None => drop(permit),
                    }
                }
                Step::Wait(milliseconds) => {
                    now += milliseconds;
                    clock.advance(Duration::from_millis(milliseconds));
                }
                Step::Order(order) => {
                    model.order(order, now);
                    match order {
                        Order::Open => breaker.open(),
                        Order::Close => breaker.close(),
                        Order::Reset => breaker.reset(),
                        Order::Disable => breaker.disable(),
                    }
                }
            }
            prop_assert_eq!(breaker.state(), model.state);
        }
    }
}

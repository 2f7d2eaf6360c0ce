//! A breaker that opens, rejects, probes and closes; retries that come back spread.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use farol_resilience::breaker::State;
use farol_resilience::retry::Jitter;
use farol_resilience::{CircuitBreaker, Error, Registry, Retry};
use futures_util::future::join_all;
use serde_json::json;

use super::super::PAYMENTS;
use super::super::screen::{Screen, short};
use super::super::world::{World, at};

/// Failures in a row that open the breaker, as in the founding document.
const FAILURES: u32 = 5;
/// Calls that are rejected, to see how fast.
const REJECTED: u32 = 10_000;
/// The rule whose alert an outage fires.
const UNAVAILABLE: &str = "service-unavailable";
/// How long the clients wait before their second try, if no jitter shortens it. No shorter in tests: it has to stand out from what
/// sixty calls at once take.
const RETRY_DELAY: Duration = Duration::from_millis(800);
/// Clients that fail at one moment.
const CLIENTS: usize = 60;

pub async fn play(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        3,
        "Resilience: a breaker opens, fails fast, probes, recovers; retries spread out",
        "payments goes down and comes back, and so does its breaker; one alert fires and resolves",
    );
    let open_for = world.pace(Duration::from_secs(4));
    let policies = Registry::new();
    let mut moves = policies.subscribe();
    let breaker = CircuitBreaker::builder("demo payments breaker")
        .consecutive_failures(FAILURES)
        .open_for(open_for)
        .build()?;
    policies.register(breaker.clone())?;

    screen.step("payments goes down");
    world.set(PAYMENTS, &json!({ "down": true })).await?;
    let mut failed = 0;
    while breaker.state() == State::Closed {
        ensure!(failed < FAILURES, "the breaker is still closed after {FAILURES} failures");
        match breaker.call(|| world.work(PAYMENTS)).await {
            Err(Error::Inner(_)) => failed += 1,
            other => bail!("payments is down, and the call came to {other:?}"),
        }
    }
    screen.right(&format!("the breaker opened within the {failed}th failing call, without a timer"));
    let began = Instant::now();
    for _ in 0..REJECTED {
        let call: Result<(), Error<String>> = breaker.call_blocking(|| Ok(()));
        ensure!(matches!(call, Err(Error::CircuitOpen { .. })), "an open breaker let a call through");
    }
    let fast = began.elapsed() / REJECTED;
    screen.right(&format!(
        "{REJECTED} further calls were rejected in {} each; none reached payments",
        short(fast)
    ));
    world.tell(&policies, PAYMENTS, &mut moves).await?;
    let crowds = retries_of_a_crowd(world, screen).await?;
    world.only(PAYMENTS, "sistema_indisponivel").await?;
    screen.right("Farol's own check found the outage: sistema_indisponivel, once");
    world.alert(PAYMENTS, UNAVAILABLE, "firing").await?;
    screen.right("one alert fires");

    screen.step("payments comes back");
    world.set(PAYMENTS, &json!({ "down": false })).await?;
    tokio::time::sleep(open_for).await;
    let probe = breaker.call(|| world.work(PAYMENTS)).await;
    ensure!(probe.is_ok(), "the probe failed: {probe:?}");
    ensure!(
        breaker.state() == State::Closed,
        "the breaker is {:?} after a probe that succeeded",
        breaker.state()
    );
    world.tell(&policies, PAYMENTS, &mut moves).await?;
    for event_type in ["disjuntor_aberto", "disjuntor_meio_aberto", "disjuntor_fechado"] {
        world
            .event(&format!("source={PAYMENTS}&type={event_type}"), |event| {
                at(event, "/data/caller") == "demo"
            })
            .await?;
    }
    screen.right("one probe went through half-open, and the breaker closed: three events tell of it");
    world.only(PAYMENTS, "sistema_recuperado").await?;
    world.only(PAYMENTS, "sistema_indisponivel").await?;
    screen.right("sistema_recuperado, once");
    world.alert(PAYMENTS, UNAVAILABLE, "resolved").await?;
    screen.right("the alert is resolved, and there was no other of its rule");
    let (crowd, calm) = crowds;
    Ok(format!(
        "the breaker opened after {FAILURES} failures, rejected in {}, and closed after one probe; jitter took the crowd from {crowd} to {calm}",
        short(fast)
    ))
}

/// Lets a crowd of clients fail and try again, without jitter and with it; how many came back together at most.
async fn retries_of_a_crowd(world: &World, screen: &mut Screen) -> anyhow::Result<(usize, usize)> {
    let (together, spread) = (retries(world, Jitter::None).await?, retries(world, Jitter::Full).await?);
    let piece = RETRY_DELAY / 8;
    screen.step(&format!(
        "{CLIENTS} clients call payments while it is down; when do they try again? Without jitter:"
    ));
    screen.histogram(&together, piece);
    screen.step("with full jitter:");
    screen.histogram(&spread, piece);
    let (crowd, calm) = (busiest(&together, piece), busiest(&spread, piece));
    ensure!(calm < crowd, "jitter did not spread the retries: {calm} at a time with it, {crowd} without");
    screen.right(&format!("at most {calm} of {CLIENTS} come back together, instead of {crowd}"));
    Ok((crowd, calm))
}

/// When each client's second try came, after the moment at which all began. The service is down, so each try fails.
async fn retries(world: &World, jitter: Jitter) -> anyhow::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut tries = Vec::with_capacity(CLIENTS);
    let clients = (0..CLIENTS).map(|client| async move {
        let retry = Retry::idempotent(format!("demo retry {client}"))
            .max_tries(2)
            .initial_delay(RETRY_DELAY)
            .jitter(jitter)
            .build();
        let mut calls = Vec::new();
        let outcome = retry
            .call(|| {
                calls.push(began.elapsed());
                world.work(PAYMENTS)
            })
            .await;
        (outcome, calls)
    });
    for (outcome, calls) in join_all(clients).await {
        ensure!(outcome.is_err(), "payments is down, and a call to it did not fail");
        let [_, again] = calls.as_slice() else {
            bail!("a client called {} times instead of twice", calls.len())
        };
        tries.push(*again);
    }
    Ok(tries)
}

/// The most that fall into one piece of time.
fn busiest(instants: &[Duration], piece: Duration) -> usize {
    let piece = piece.as_millis().max(1);
    instants
        .iter()
        .map(|one| {
            instants.iter().filter(|other| other.as_millis() / piece == one.as_millis() / piece).count()
        })
        .max()
        .unwrap_or(0)
}

//! A breaker that opens, rejects, probes and closes; retries that come back spread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use farol_resilience::breaker::State;
use farol_resilience::retry::Jitter;
use farol_resilience::{CircuitBreaker, Error, Registry, Retry};
use parking_lot::Mutex;
use serde_json::json;

use super::super::screen::{Screen, short};
use super::super::world::{World, at};

/// Failures in a row that open the breaker, as in the founding document.
const FAILURES: u32 = 5;
/// Calls that are rejected, to see how fast.
const REJECTED: u32 = 10_000;
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
    world.set("payments", &json!({ "down": true })).await?;
    let mut failed = 0;
    while breaker.state() == State::Closed {
        ensure!(failed < FAILURES, "the breaker is still closed after {FAILURES} failures");
        match breaker.call(|| world.work("payments")).await {
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
    world.tell(&policies, "payments", &mut moves).await?;
    world.event("source=payments&type=sistema_indisponivel", |_| true).await?;
    screen.right("Farol's own check found the outage: sistema_indisponivel, once");

    screen.step("payments comes back");
    world.set("payments", &json!({ "down": false })).await?;
    tokio::time::sleep(open_for).await;
    let probe = breaker.call(|| world.work("payments")).await;
    ensure!(probe.is_ok(), "the probe failed: {probe:?}");
    ensure!(
        breaker.state() == State::Closed,
        "the breaker is {:?} after a probe that succeeded",
        breaker.state()
    );
    world.tell(&policies, "payments", &mut moves).await?;
    for event_type in ["disjuntor_aberto", "disjuntor_meio_aberto", "disjuntor_fechado"] {
        world
            .event(&format!("source=payments&type={event_type}"), |event| at(event, "/data/caller") == "demo")
            .await?;
    }
    screen.right("one probe went through half-open, and the breaker closed: three events tell of it");
    world.event("source=payments&type=sistema_recuperado", |_| true).await?;
    screen.right("sistema_recuperado, once");

    let (together, spread) = (retries(world, Jitter::None).await?, retries(world, Jitter::Full).await?);
    let piece = world.pace(Duration::from_millis(100));
    screen.step(&format!("{CLIENTS} clients fail at one moment; when do they try again? Without jitter:"));
    screen.histogram(&together, piece);
    screen.step("with full jitter:");
    screen.histogram(&spread, piece);
    let (crowd, calm) = (busiest(&together, piece), busiest(&spread, piece));
    ensure!(calm < crowd, "jitter did not spread the retries: {calm} at a time with it, {crowd} without");
    screen.right(&format!("at most {calm} of {CLIENTS} come back together, instead of {crowd}"));
    Ok(format!(
        "the breaker opened after {FAILURES} failures, rejected in {}, and closed after one probe; jitter took the crowd from {crowd} to {calm}",
        short(fast)
    ))
}

/// When each client's second try came, after the moment at which all had failed.
async fn retries(world: &World, jitter: Jitter) -> anyhow::Result<Vec<Duration>> {
    let (delay, began) = (world.pace(Duration::from_millis(800)), Instant::now());
    let tries = Arc::new(Mutex::new(Vec::new()));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let tries = Arc::clone(&tries);
        let retry = Retry::idempotent(format!("demo retry {client}"))
            .max_tries(2)
            .initial_delay(delay)
            .jitter(jitter)
            .build();
        clients.spawn(async move {
            let mut first = true;
            let outcome: Result<(), &str> = retry
                .call(|| {
                    let again = !std::mem::replace(&mut first, false);
                    if again {
                        tries.lock().push(began.elapsed());
                    }
                    async move { if again { Ok(()) } else { Err("all fail at once") } }
                })
                .await;
            outcome
        });
    }
    while let Some(client) = clients.join_next().await {
        ensure!(client?.is_ok(), "a second try failed");
    }
    let tries = tries.lock().clone();
    ensure!(tries.len() == CLIENTS, "{} of {CLIENTS} clients tried again", tries.len());
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

//! The five demonstrations.

mod events;
mod isolation;
mod resilience;

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use super::PAYMENTS;
use super::screen::{Screen, short};
use super::world::{World, at};

/// How many there are.
pub const COUNT: usize = 5;
/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Plays one; gives a line for the summary.
pub async fn play(number: usize, world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    match number {
        1 => start_up(world, screen).await,
        2 => metrics(world, screen).await,
        3 => resilience::play(world, screen).await,
        4 => isolation::play(world, screen).await,
        5 => events::play(world, screen).await,
        _ => bail!("there are {COUNT} demonstrations"),
    }
}

async fn start_up(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        1,
        "Start-up: services announce themselves and are checked",
        "three services go from unknown to up",
    );
    let mut seen = 0;
    for name in world.names() {
        world.event(&format!("source={name}&type=servico_iniciado"), |_| true).await?;
        let query = format!("source={name}&type=verificacao_alterada");
        let up = world.event(&query, |event| at(event, "/data/to") == "up").await?;
        let time = at(&up, "/time").as_str().unwrap_or_default();
        screen.right(&format!("{name}: servico_iniciado, then its HTTP check found it up at {time}"));
        seen += 1;
    }
    Ok(format!("{seen} services announced themselves and were found up"))
}

async fn metrics(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        2,
        "Metrics: collected as events, aggregated",
        "CPU, memory, requests per second of each service",
    );
    const CALLS: usize = 20;
    for name in world.names() {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            world.work(name).await.map_err(|error| anyhow::anyhow!("{name} failed: {error}"))?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let median = times.get(CALLS / 2).copied().unwrap_or_default();
        let slowest = times.last().copied().unwrap_or_default();
        screen.step(&format!(
            "{name}: {CALLS} calls, median {}, slowest {} (20 ms ± 10 ms are simulated)",
            short(median),
            short(slowest)
        ));
    }
    let mut kinds = 0;
    for metric in
        ["cpu_percent", "memory_percent", "requests_per_second", "error_rate_percent", "response_time_ms"]
    {
        let event = world
            .event(&format!("source={PAYMENTS}&type=metrica_coletada"), |event| {
                at(event, "/data/nome") == metric
            })
            .await?;
        let value = at(&event, "/data/valor").as_f64().unwrap_or_default();
        let unit = at(&event, "/data/unidade").as_str().unwrap_or_default();
        screen.right(&format!("{PAYMENTS} sent {metric} = {value:.1} {unit}"));
        kinds += 1;
    }
    Ok(format!("{kinds} kinds of metric came as events, at {CALLS} calls to each service"))
}

/// What an event is about, in a few words.
fn in_words(event: &Value) -> String {
    format!(
        "{} from {}",
        at(event, "/type").as_str().unwrap_or("?"),
        at(event, "/source").as_str().unwrap_or("?")
    )
}

//! Metrics that come as events, one value out of the ordinary that raises an alert, and what is known of all values together.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::{join_all, try_join_all};

use super::super::screen::{Screen, short};
use super::super::world::{World, at, eventually};
use super::super::{INVENTORY, PAYMENTS};

/// What each service sends.
const METRICS: [&str; 5] =
    ["cpu_percent", "memory_percent", "requests_per_second", "error_rate_percent", "response_time_ms"];
/// Calls to each service, to see how fast it is.
const CALLS: usize = 20;
/// Between two of them: they are no rush.
const PAUSE: Duration = Duration::from_millis(40);
/// Clients that rush to one service.
const RUSH: usize = 16;
/// The rule about a processor that is too busy.
const BUSY: &str = "service-cpu";
/// From which share of the processor on it fires.
const TOO_BUSY: f64 = 90.0;

/// One metric of one service over all values.
struct Aggregate {
    count: u64,
    total: f64,
    min: f64,
    mean: f64,
    max: f64,
}

pub async fn play(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        2,
        "Metrics: collected as events, an anomaly, aggregates",
        "CPU, memory, requests per second of each service; inventory's CPU has a peak, and one alert tells of it",
    );
    let calls = world.names().map(|name| async move { (name, call(world, name).await) });
    for (name, times) in join_all(calls).await {
        let times = times?;
        let median = times.get(CALLS / 2).copied().unwrap_or_default();
        let slowest = times.last().copied().unwrap_or_default();
        screen.step(&format!(
            "{name}: {CALLS} calls, median {}, slowest {} (20 ms ± 10 ms are simulated)",
            short(median),
            short(slowest)
        ));
    }
    for metric in METRICS {
        let event = world
            .event(&format!("source={PAYMENTS}&type=metrica_coletada"), |event| {
                at(event, "/data/nome") == metric
            })
            .await?;
        let value = at(&event, "/data/valor").as_f64().unwrap_or_default();
        let unit = at(&event, "/data/unidade").as_str().unwrap_or_default();
        screen.right(&format!("{PAYMENTS} sent {metric} = {value:.1} {unit}"));
    }
    let peak = anomaly(world, screen).await?;
    let values = aggregates(world, screen, peak).await?;
    Ok(format!(
        "{} kinds of metric came as events, {values} values are aggregated; a peak of {peak:.1} % CPU raised one alert",
        METRICS.len()
    ))
}

/// How long calls to a service take, from the fastest to the slowest.
async fn call(world: &World, name: &str) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        world.work(name).await.map_err(|error| anyhow::anyhow!("{name} failed: {error}"))?;
        times.push(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_unstable();
    Ok(times)
}

/// So many clients come at once that the processor of a service is too busy; then they go. Gives the value that the alert tells of.
async fn anomaly(world: &World, screen: &mut Screen) -> anyhow::Result<f64> {
    screen.step(&format!("an anomaly: {RUSH} clients rush to {INVENTORY}"));
    let clients = (0..RUSH).map(|_| rush(world));
    let alert = tokio::select! {
        alert = world.alert(INVENTORY, BUSY, "firing") => alert?,
        rushed = try_join_all(clients) => bail!("the rush ended: {:?}", rushed.err()),
    };
    let peak = at(&alert, "/value").as_f64().context("the alert tells no value")?;
    ensure!(peak > TOO_BUSY, "the alert fired at {peak} %");
    screen.right(&format!(
        "one alert fires, {}: {}",
        at(&alert, "/severity").as_str().unwrap_or("?"),
        at(&alert, "/summary").as_str().unwrap_or("?")
    ));
    world.alert(INVENTORY, BUSY, "resolved").await?;
    screen.right("the clients go, and it is resolved");
    Ok(peak)
}

/// Calls without a pause, until a call fails.
async fn rush(world: &World) -> Result<Infallible, String> {
    loop {
        world.work(INVENTORY).await?;
    }
}

/// Shows what is known of every metric of every service. Gives how many values that were.
async fn aggregates(world: &World, screen: &mut Screen, peak: f64) -> anyhow::Result<u64> {
    // The view may be a moment behind the alert.
    eventually(&format!("the aggregate of {INVENTORY}'s CPU knows no peak of {peak} %"), async || {
        let found = aggregate(world, INVENTORY, "cpu_percent").await?;
        Ok((found.max >= peak).then_some(()))
    })
    .await?;
    screen.step("all values together, since the services are known:");
    screen.step(&format!(
        "  {:<16} {:<20} {:>6} {:>10} {:>8} {:>8} {:>8}",
        "service", "metric", "count", "total", "min", "max", "mean"
    ));
    let mut values = 0;
    for name in world.names() {
        for metric in METRICS {
            let Aggregate { count, total, min, max, mean } = aggregate(world, name, metric).await?;
            let sum = mean * count as f64;
            let adds_up = (sum - total).abs() <= 1e-6 * total.abs().max(1.0);
            ensure!(
                count > 0 && min <= mean && mean <= max && adds_up,
                "the aggregate of {metric} of {name} can't be: count {count}, total {total}, min {min}, max {max}, mean {mean}"
            );
            screen.step(&format!(
                "  {name:<16} {metric:<20} {count:>6} {total:>10.1} {min:>8.1} {max:>8.1} {mean:>8.1}"
            ));
            values += count;
        }
    }
    screen.right(&format!("the peak is {INVENTORY}'s largest value; every total is count times mean"));
    Ok(values)
}

async fn aggregate(world: &World, service: &str, metric: &str) -> anyhow::Result<Aggregate> {
    let found = world.get(&format!("/api/metrics/{metric}")).await?;
    let of_service = at(&found, "/services")
        .as_array()
        .and_then(|services| services.iter().find(|of| at(of, "/service") == service))
        .with_context(|| format!("{metric} of {service} is not aggregated"))?;
    let number = |pointer| -> anyhow::Result<f64> {
        at(of_service, pointer).as_f64().with_context(|| format!("{metric} has no {pointer}"))
    };
    Ok(Aggregate {
        count: at(of_service, "/count").as_u64().unwrap_or_default(),
        total: number("/total")?,
        min: number("/min")?,
        mean: number("/mean")?,
        max: number("/max")?,
    })
}

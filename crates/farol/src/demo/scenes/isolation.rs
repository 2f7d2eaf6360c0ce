//! A bulkhead keeps one slow dependency from starving another.

use std::time::{Duration, Instant};

use anyhow::ensure;
use farol_resilience::{Bulkhead, Error, Registry};
use futures_util::future::join_all;
use serde_json::json;

use super::super::screen::{Screen, short};
use super::super::world::World;
use super::super::{INVENTORY, ORDERS};

/// Places for calls that are under way.
const POOL: usize = 4;
/// Calls to the slow service.
const SLOW_CALLS: usize = 8;
/// Calls to the quick one.
const QUICK_CALLS: usize = 10;

pub async fn play(world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    screen.scene(
        4,
        "Isolation: one pool for all, and one for each",
        "inventory's response time rises; the bulkheads of inventory and orders",
    );
    // Well within what its check waits for an answer: it is to be slow, not down.
    let slow = Duration::from_millis(if world.fast { 300 } else { 700 });
    let slow_ms = u64::try_from(slow.as_millis())?;
    world.set(INVENTORY, &json!({ "latency_ms": slow_ms, "latency_variation_ms": 0 })).await?;
    screen.step(&format!("inventory now takes {}; orders is as quick as before", short(slow)));

    let bulkhead = |name: &str| {
        Bulkhead::builder(format!("demo {name}"))
            .max_concurrent(POOL)
            .max_wait(Duration::from_secs(30))
            .build()
    };
    let shared = bulkhead("shared pool");
    let together = orders_beside_inventory(world, &shared, &shared).await?;
    screen.step(&format!("one pool of {POOL} for both: a call to orders takes {} (median)", short(together)));
    let (own, other) = (bulkhead("orders pool"), bulkhead("inventory pool"));
    let apart = orders_beside_inventory(world, &own, &other).await?;
    screen.step(&format!("a pool of {POOL} for each: a call to orders takes {} (median)", short(apart)));
    for (pool, service) in [(shared, INVENTORY), (other, INVENTORY), (own, ORDERS)] {
        let policies = Registry::new();
        policies.register(pool)?;
        let mut moves = policies.subscribe();
        world.tell(&policies, service, &mut moves).await?;
    }
    world.set(INVENTORY, &json!({ "latency_ms": 20, "latency_variation_ms": 10 })).await?;
    let outages = world.events(&format!("source={INVENTORY}&type=sistema_indisponivel")).await?.len();
    ensure!(outages == 0, "{INVENTORY} was to be slow, and Farol found it down");
    ensure!(apart * 2 < together, "isolation did not help: {} against {}", short(apart), short(together));
    screen.right("the slow service holds up nobody but its own callers");
    Ok(format!(
        "orders took {} in a pool shared with a slow service, {} in its own",
        short(together),
        short(apart)
    ))
}

/// The median time of a call to orders, while inventory is called as well.
async fn orders_beside_inventory(
    world: &World,
    for_orders: &Bulkhead,
    for_inventory: &Bulkhead,
) -> anyhow::Result<Duration> {
    let slow = (0..SLOW_CALLS).map(|_| for_inventory.call(|| world.work(INVENTORY)));
    let quick = async {
        // The slow ones are to be there first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let calls = (0..QUICK_CALLS).map(|_| async {
            let began = Instant::now();
            for_orders.call(|| world.work(ORDERS)).await.map(|()| began.elapsed())
        });
        join_all(calls).await
    };
    let (slow, quick) = tokio::join!(join_all(slow), quick);
    let all_done = slow.into_iter().collect::<Result<Vec<()>, Error<String>>>();
    ensure!(all_done.is_ok(), "a call to inventory failed: {all_done:?}");
    let mut times = quick
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow::anyhow!("orders failed: {error}"))?;
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

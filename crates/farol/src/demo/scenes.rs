//! The five demonstrations.

mod events;
mod isolation;
mod metrics;
mod resilience;

use std::time::Duration;

use anyhow::bail;

use super::screen::Screen;
use super::world::{World, at};

/// How many there are.
pub const COUNT: usize = 5;
/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Plays one; gives a line for the summary.
pub async fn play(number: usize, world: &World, screen: &mut Screen) -> anyhow::Result<String> {
    match number {
        1 => start_up(world, screen).await,
        2 => metrics::play(world, screen).await,
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

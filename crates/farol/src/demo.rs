//! `farol demo resilience`: the founding document's five demonstrations, live on the terminal and, through events, on the
//! dashboard.
//!
//! Three simulated services (real HTTP servers on loopback) report to a Farol: one of its own on a temporary folder, or the one
//! that `--server` names. The demonstration is their client: it calls `/work` through the policies of `farol-resilience` and tells
//! the Farol what the policies did, as any other program would. Its handlers of events are on an event bus over that Farol's log: in
//! the same process, or over the Kafka port. Each scene says what it expects and checks it; what does not come
//! true fails the demonstration, with exit code 1.
//!
//! Bounds: every wait has one ([`scenes::PATIENCE`]), and the whole has [`LIMIT`].

mod scenes;
mod screen;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use farol_event::service::SimulationApplied;
use farol_simulate::{ServiceOptions, ServiceSimulators};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cli::service::DemoResilience;
use crate::client::{server, until_interrupted};
use crate::kafka;
use crate::run::parts;
use crate::run::stops::{PART_LIMIT, Stops};
use crate::services::a_seed;
use crate::settings::services::{ApiTargets, Services};
use crate::settings::value::{ListenAddress, ListenOrOff};
use crate::settings::{RulesSettings, Settings};
use crate::terminal::say;
use screen::Screen;
use world::{CALLER, Farol, World};

/// How long the whole may take.
const LIMIT: Duration = Duration::from_secs(180);
/// The service that goes down. The names are not those of other simulations, which may run beside this one.
const PAYMENTS: &str = "demo-payments";
/// The one that is rushed, and becomes slow.
const INVENTORY: &str = "demo-inventory";
/// The one that nothing happens to.
const ORDERS: &str = "demo-orders";

/// Plays it.
pub fn run(arguments: &DemoResilience, settings: &Settings) -> anyhow::Result<ExitCode> {
    let (url, fast) = (arguments.server.clone(), arguments.fast);
    until_interrupted(|shutdown| async move {
        let mut stops = Stops::new(PART_LIMIT);
        let folder = TemporaryFolder::make()?;
        let played = tokio::select! {
            played = play(url.as_deref(), settings, &folder, fast, &mut stops) => played,
            () = tokio::time::sleep(LIMIT) => Err(anyhow::anyhow!("the demonstration took longer than {LIMIT:?}")),
            () = shutdown.cancelled() => Err(anyhow::anyhow!("interrupted")),
        };
        stops.stop_all().await;
        played
    })
}

async fn play(
    url: Option<&str>,
    settings: &Settings,
    folder: &TemporaryFolder,
    fast: bool,
    stops: &mut Stops,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let farol = match url {
        Some(url) => Farol {
            url: server(Some(url), settings)?,
            bus: kafka::connect(settings, CALLER).await?,
            event_buses: None,
        },
        None => {
            own_farol(settings, folder, stops).await.context("can't start a Farol for the demonstration")?
        }
    };
    let mut screen = Screen::new();
    let reporting_to = farol.url.clone();
    screen.title(&reporting_to.to_string());
    let simulators = ServiceSimulators::listen(options(fast)).await?;
    let world = World::new(farol, simulators.services(), fast);
    let stop = CancellationToken::new();
    let (refused, refusal) = oneshot::channel();
    let running = tokio::spawn({
        let stop = stop.clone();
        async move {
            if let Err(error) = simulators.run(reporting_to, stop).await {
                // Nobody waits for it when everything stops anyway.
                let _ = refused.send(error);
            }
        }
    });
    stops.push("simulated services", async move {
        stop.cancel();
        running.await.err().map(|error| error.to_string()).into_iter().collect()
    });
    tokio::select! {
        Ok(error) = refusal => Err(error.into()),
        played = play_scenes(&world, &mut screen, began) => Ok(played),
    }
}

async fn play_scenes(world: &World, screen: &mut Screen, began: Instant) -> ExitCode {
    let mut failed = Vec::new();
    let mut lines = Vec::new();
    for number in 1..=scenes::COUNT {
        match scenes::play(number, world, screen).await {
            Ok(summary) => lines.push(format!("{number}. {summary}")),
            Err(error) => {
                screen.wrong(&format!("{error:#}"));
                failed.push(number);
                lines.push(format!("{number}. FAILED: {error:#}"));
            }
        }
    }
    screen.summary(&lines, began.elapsed());
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(format_args!("{} of {} demonstrations failed", failed.len(), scenes::COUNT));
    ExitCode::FAILURE
}

fn options(fast: bool) -> ServiceOptions {
    let names = [PAYMENTS, INVENTORY, ORDERS].map(str::to_owned).to_vec();
    let pace = |usual_ms: u64, fast_ms: u64| Duration::from_millis(if fast { fast_ms } else { usual_ms });
    ServiceOptions {
        behaviour: SimulationApplied {
            failure_rate: 0.0,
            latency_ms: 20,
            latency_variation_ms: 10,
            down: false,
            until: None,
        },
        // An answer may take as long, which is longer than any scene makes a service take: slow is not down.
        check_interval: pace(1200, 600),
        metrics_interval: pace(1000, 300),
        ..ServiceOptions::new(names, a_seed())
    }
}

/// A Farol in this process, on free ports and a folder that goes with it.
async fn own_farol(
    settings: &Settings,
    folder: &TemporaryFolder,
    stops: &mut Stops,
) -> anyhow::Result<Farol> {
    let mut settings = settings.clone();
    settings.data.dir = folder.0.clone();
    settings.http.listen = ListenAddress { host: "127.0.0.1".to_owned(), port: 0 };
    settings.http.token = None;
    settings.kafka.listen = ListenOrOff::Off;
    settings.services = Services::default();
    settings.api_targets = ApiTargets::Loopback;
    // The outage is made up: nobody is to be called for it, and its alert comes from the built-in rules.
    settings.rules = RulesSettings { files: Vec::new(), defaults: true };
    settings.webhook = None;
    settings.notify.emails.clear();
    settings.notify.webhooks.clear();
    settings.notify.routes.clear();
    let started = parts::start(&settings, false, stops).await?;
    Ok(Farol { url: started.dashboard.parse()?, bus: started.bus, event_buses: Some(started.event_buses) })
}

/// A folder that is removed when it is dropped.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("farol-demo-{}-{}", std::process::id(), a_seed()));
        std::fs::create_dir(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What can't be removed is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

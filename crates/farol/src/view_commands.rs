//! `farol view`: the views of a data folder on which Farol isn't running.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use farol_bus::{Bus, OffsetSpec, TopicPartition};
use farol_pipeline::rebuild_view;
use farol_view::{Store, ViewName};
use tokio_util::sync::CancellationToken;

use crate::data_folder::{self, DataFolder, view_topics};
use crate::settings::Settings;
use crate::settings::value::show_duration;
use crate::terminal::say;

/// Prints every view and how far it has read the log.
pub fn list(settings: &Settings) -> anyhow::Result<ExitCode> {
    with_folder(settings, async |folder, store| {
        say(format_args!("{:<10} {:>12} {:>12} {:>10}  TOPICS", "VIEW", "READ", "IN THE LOG", "TO READ"));
        for view in ViewName::ALL {
            let topics = view_topics(settings).of(view);
            let ends = ends(folder, &topics).await?;
            let positions = store.positions(view);
            let end: i64 = ends.iter().map(|(_, end)| end).sum();
            let read: i64 = ends.iter().filter_map(|(partition, _)| positions.get(partition)).sum();
            say(format_args!(
                "{:<10} {read:>12} {end:>12} {:>10}  {}",
                view.as_str(),
                end - read,
                topics.join(", ")
            ));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The end of every partition of some topics.
async fn ends(folder: &DataFolder, topics: &[Arc<str>]) -> anyhow::Result<Vec<(TopicPartition, i64)>> {
    let described = folder.bus.topics().await?;
    let partitions: Vec<TopicPartition> = described
        .iter()
        .filter(|topic| topics.contains(&topic.name))
        .flat_map(|topic| {
            (0..topic.partitions).map(|partition| TopicPartition::new(Arc::clone(&topic.name), partition))
        })
        .collect();
    Ok(folder.bus.offsets(&partitions, OffsetSpec::Latest).await?.into_iter().collect())
}

/// Empties a view and reads the log again.
pub fn rebuild(name: &str, settings: &Settings) -> anyhow::Result<ExitCode> {
    let view: ViewName = name.parse()?;
    with_folder(settings, async |folder, store| {
        let began = Instant::now();
        say(format_args!("building view {name} again from the log in {}", folder.dir.display()));
        let stop = CancellationToken::new();
        let interrupted = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                interrupted.cancel();
            }
        });
        let bus: Arc<dyn Bus> = folder.bus.clone();
        let report = |left| say(format_args!("  {left} records to go"));
        rebuild_view(bus, store.clone(), view, &stop, report).await?;
        if stop.is_cancelled() {
            say(
                "interrupted; the view is correct as far as it goes, and the next `farol run` goes on from there",
            );
            return Ok(ExitCode::FAILURE);
        }
        say(format_args!("done in {}", show_duration(began.elapsed())));
        Ok(ExitCode::SUCCESS)
    })
}

/// Opens the data folder of the settings, which must be one already, and closes it in order afterwards.
fn with_folder(
    settings: &Settings,
    command: impl AsyncFnOnce(&DataFolder, &Store) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let dir = &settings.data.dir;
    anyhow::ensure!(dir.is_dir(), "there is no data folder {}; name it with --data", dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    runtime.block_on(async {
        let folder = data_folder::open(settings)?;
        let store = folder.open_store(settings).await?;
        let result = command(&folder, &store).await;
        store.close().await;
        folder.bus.close().await?;
        result
    })
}

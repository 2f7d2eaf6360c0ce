//! Watches the rule files and has them read again when one changed, or on SIGHUP.
//!
//! Files are looked at by their metadata, every [`INTERVAL`]: that works on every file system, follows editors that replace
//! a file instead of writing it, and costs nothing that could be measured for a handful of files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use farol_event::{EventType, Timestamp};
use farol_pipeline::{RulesChange, RulesHandle, SystemEvents};
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::terminal::say;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Runs until told to stop.
pub async fn watch(
    rules: Arc<RulesHandle>,
    events: SystemEvents,
    mut hangup: Signal,
    stop: CancellationToken,
) {
    let files = rules.files().to_vec();
    let mut seen = look(&files);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            _ = hangup.recv() => true,
            _ = ticks.tick() => false,
        };
        let now_there = look(&files);
        if !asked && now_there == seen {
            continue;
        }
        seen = now_there;
        let handle = Arc::clone(&rules);
        let reloaded = tokio::task::spawn_blocking(move || {
            handle.reload(Timestamp::from_system_time(SystemTime::now()))
        });
        match reloaded.await {
            Ok(Some(change)) => {
                say(sentence(&change));
                events.announce(EventType::RULES_CHANGED, "rules", &change).await;
            }
            Ok(None) if asked => say("rules: nothing changed"),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "reading the rules again died; the old rules stay in force")
            }
        }
    }
}

/// What tells that a file changed: its time, its size, and whether it is there at all.
fn look(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let state = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(state).collect()
}

fn sentence(change: &RulesChange) -> String {
    if let Some(problem) = &change.problem {
        let problem = problem.replace('\n', "\n  ");
        return format!(
            "rules: not changed, because the new ones can't be used; the old ones stay in force\n  {problem}"
        );
    }
    let parts: Vec<String> =
        [("new", &change.added), ("changed", &change.changed), ("gone", &change.removed)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
    let what = if parts.is_empty() { "as before".to_owned() } else { parts.join("; ") };
    format!("rules: {} in force ({what})", change.rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_a_sentence() {
        let change = RulesChange {
            rules: 3,
            added: vec!["a".into(), "b".into()],
            removed: vec!["c".into()],
            ..RulesChange::default()
        };
        assert_eq!(sentence(&change), "rules: 3 in force (new: a, b; gone: c)");
        let refused =
            RulesChange { problem: Some("r.toml:1: no\nr.toml:2: no".into()), ..RulesChange::default() };
        assert!(sentence(&refused).ends_with("stay in force\n  r.toml:1: no\n  r.toml:2: no"));
    }

    #[test]
    fn a_file_that_is_replaced_grows_or_goes_is_noticed() {
        let dir = tempfile::tempdir().expect("a temp folder");
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, "1").expect("written");
        let files = [file.clone()];
        let before = look(&files);
        assert_eq!(look(&files), before);
        std::fs::write(&file, "12").expect("written");
        let grown = look(&files);
        assert_ne!(grown, before);
        std::fs::remove_file(&file).expect("removed");
        assert_ne!(look(&files), grown);
    }
}

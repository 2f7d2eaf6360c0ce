//! A worker process that is killed, as the pipeline page shows it: who owned what, who was expelled, how long it paused.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::farol::{Farol, farol, folder};
use crate::webdriver::Browser;

/// A killed worker is noticed when it has missed its heartbeats, and then the group has to be shared out.
const EXPULSION: Duration = Duration::from_secs(60);

/// A `farol worker`. Killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(folder: &Path, server: &Farol, name: &str) -> Self {
        let mut command = farol(folder);
        command.args(["worker", "--brokers", &server.kafka, "--consumer-id", name]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("farol can be run"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipeline_page_follows_a_worker_process_that_is_killed() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let mut workers =
        ["consumer-1", "consumer-2", "consumer-3"].map(|name| Worker::start(folder.path(), &server, name));
    let browser = Browser::start().await;
    browser.driver.goto(format!("{}/#/pipeline", server.address)).await.unwrap();
    let owners = "const owners = new Set([...document.querySelectorAll('[data-testid=timeline-lane]')].map((lane) => lane.dataset.owner));";
    browser
        .until(
            EXPULSION,
            "three workers own a lane each",
            &format!("{owners} return owners.size === 3 && !owners.has('');"),
        )
        .await;

    let killed = &mut workers[1].0;
    killed.kill().unwrap();
    killed.wait().unwrap();
    browser
        .until(
            EXPULSION,
            "its lane has another owner",
            &format!("{owners} return owners.size === 2 && !owners.has('') && !owners.has('consumer-2');"),
        )
        .await;
    browser
        .until(
            Duration::from_secs(10),
            "the history says why",
            "return [...document.querySelectorAll('[data-testid=rebalance-row]')].some((row) => row.textContent.includes('consumer-2')\
             && row.querySelector('[data-reason=missed_heartbeats]') && Number(row.dataset.longestPause) >= 10000)",
        )
        .await;
    browser
        .until(
            Duration::from_secs(10),
            "the picture shows how long the partition stood still",
            "return [...document.querySelectorAll('[data-testid=segment-gap]')].some((gap) => Number(gap.dataset.paused) >= 10000 && gap.getBoundingClientRect().width >= 4)",
        )
        .await;
    browser
        .until(
            Duration::from_secs(10),
            "its lane is gone",
            "return ![...document.querySelectorAll('[data-testid=lane]')].some((lane) => lane.dataset.owner === 'consumer-2')",
        )
        .await;
}

//! The dashboard in a real browser: what a person sees within two seconds of a reading.

use std::time::Duration;

use crate::farol::{Farol, PLAIN_RULE, folder, write};
use crate::webdriver::Browser;

/// How soon a reading must be on the page.
const TWO_SECONDS: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_shows_readings_alerts_acknowledgement_and_a_worker_that_stops() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    write(folder.path(), "farol.toml", "rules.defaults = false\n");
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    let browser = Browser::start().await;
    let page = |hash: &str| format!("{}/#/{hash}", server.address);
    let sensor_shows = |sensor: &str, value: &str| {
        format!(
            "const row = [...document.querySelectorAll('[data-testid=sensor-row]')].find(row => row.textContent.includes('{sensor}'));\
             return !!row && row.textContent.includes('{value}');"
        )
    };

    // A reading is on the page within two seconds.
    browser.driver.goto(page("sensors")).await.unwrap();
    browser
        .until(
            Duration::from_secs(20),
            "the page is live",
            "return document.querySelector('[data-testid=connection]')?.dataset.state === 'live'",
        )
        .await;
    server.temperature("press-7", 21.25).await;
    browser.until(TWO_SECONDS, "the reading is shown", &sensor_shows("press-7", "21.25")).await;
    server.temperature("press-7", 22.75).await;
    browser.until(TWO_SECONDS, "the next reading is shown", &sensor_shows("press-7", "22.75")).await;

    // An alert fires, is acknowledged, and resolves.
    browser.driver.goto(page("alerts")).await.unwrap();
    let alert_is = |status: &str| {
        format!(
            "const row = document.querySelector('[data-testid=alert-row]');\
             return !!row && row.textContent.includes('press-7') && !!row.querySelector('[data-testid=alert-status].{status}');"
        )
    };
    server.temperature("press-7", 44.5).await;
    browser.until(TWO_SECONDS, "the alert fires on the page", &alert_is("firing")).await;
    browser.element("ack-button").await.click().await.unwrap();
    browser.element("ack-name").await.send_keys("Ana").await.unwrap();
    browser.element("ack-comment").await.send_keys("on my way").await.unwrap();
    browser.element("ack-submit").await.click().await.unwrap();
    browser
        .until(
            Duration::from_secs(5),
            "the acknowledgement is shown",
            "return document.body.textContent.includes('Ana')",
        )
        .await;
    let acknowledged = server.alerts("acknowledged=true").await;
    assert_eq!(acknowledged.len(), 1, "{acknowledged:?}");
    server.temperature("press-7", 25.0).await;
    browser.until(TWO_SECONDS, "the alert resolves on the page", &alert_is("resolved")).await;

    // The pipeline page follows a worker that stops.
    browser.driver.goto(page("pipeline")).await.unwrap();
    let stopped = |worker: &str| {
        format!(
            "const rows = [...document.querySelectorAll('[data-testid=lane], [data-testid=consumer-row]')];\
             const state = [...document.querySelectorAll('[data-testid=worker-state]')].find(state => state.closest('tr, [data-testid=lane], li, section')?.textContent.includes('{worker}'));\
             return rows.length > 0 && !!state && state.textContent.toLowerCase().includes('stopped');"
        )
    };
    browser
        .until(
            Duration::from_secs(10),
            "three workers are shown",
            "return document.querySelectorAll('[data-testid=worker-stop]').length === 3",
        )
        .await;
    let _ = server.post("/api/workers/worker-2/stop", &serde_json::json!({})).await;
    browser.until(Duration::from_secs(10), "the worker is shown as stopped", &stopped("worker-2")).await;
    browser
        .until(
            Duration::from_secs(10),
            "the rebalance is shown",
            "return [...document.querySelectorAll('[data-testid=rebalance-row]')].some(row => row.textContent.includes('worker-2'))",
        )
        .await;

    // Nothing went wrong behind the page.
    let logs = browser.driver.execute("return window.farolErrors ?? []", Vec::new()).await.unwrap();
    assert_eq!(logs.json().as_array().map(Vec::len), Some(0), "{:?}", logs.json());
}

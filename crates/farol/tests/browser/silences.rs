//! Silences in a real browser: an alert that is silenced in its row, says so, and is told of again when somebody ends it.

use std::time::Duration;

use crate::farol::{Farol, PLAIN_RULE, folder, write};
use crate::webdriver::Browser;

/// How long a page may take to follow what was told, on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_silenced_in_its_row_until_somebody_ends_the_silence() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    write(folder.path(), "farol.toml", "rules.defaults = false\n");
    let server = Farol::start(folder.path(), &["--rules", rules.to_str().unwrap()]).await;
    let browser = Browser::start().await;
    server.temperature("press-7", 44.5).await;
    browser.driver.goto(format!("{}/#/alerts", server.address)).await.unwrap();

    browser.element("silence-button").await.click().await.unwrap();
    browser.element("silence-name").await.send_keys("Ana").await.unwrap();
    // Without a reason nobody is silenced.
    browser.element("silence-submit").await.click().await.unwrap();
    browser.element("silence-error").await;
    browser.element("silence-comment").await.send_keys("the belt is being changed").await.unwrap();
    browser.element("silence-submit").await.click().await.unwrap();
    browser
        .until(
            SOON,
            "the row says that the alert is silenced, and still fires",
            "const row = document.querySelector('[data-testid=alert-row][data-status=firing]');\
             return row?.querySelector('[data-testid=held-back]')?.dataset.silenced === 'true'\
             && row.textContent.includes('Ana') && !row.querySelector('[data-testid=silence-button]')",
        )
        .await;
    browser
        .until(
            SOON,
            "the silence is in the list, with who and why",
            "const row = document.querySelector('[data-testid=silence-row][data-state=active]');\
             return !!row && row.textContent.includes('Ana') && row.textContent.includes('the belt is being changed')\
             && row.textContent.includes('press-7')",
        )
        .await;
    let silences = server.get("/api/silences?state=active").await;
    assert_eq!(silences["silences"].as_array().map(Vec::len), Some(1), "{silences}");
    assert_eq!(silences["silences"][0]["created_by"], "Ana");

    browser.element("silence-expire").await.click().await.unwrap();
    browser
        .until(
            SOON,
            "the alert is held back no longer, and can be silenced again",
            "const row = document.querySelector('[data-testid=alert-row][data-status=firing]');\
             return !!row && !row.querySelector('[data-testid=held-back]') && !!row.querySelector('[data-testid=silence-button]')",
        )
        .await;
    browser.element("silences-expired").await.click().await.unwrap();
    browser
        .until(
            SOON,
            "the silence is among those that are over, with who ended it",
            "const row = document.querySelector('[data-testid=silence-row]');\
             return row?.dataset.state === 'expired' && !row.querySelector('[data-testid=silence-expire]')",
        )
        .await;
    let over = server.get("/api/silences?state=expired").await;
    assert_eq!(over["silences"][0]["expired_by"], "Ana", "{over}");
}

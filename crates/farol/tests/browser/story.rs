//! The story of partitions that the pipeline page draws, worked out by the page's own module from made-up rebalances.

use serde_json::{Value, json};

use crate::farol::{Farol, folder};
use crate::webdriver::Browser;

/// A rebalance as the API gives it; times in seconds.
fn rebalance(
    generation: i32,
    began: i64,
    completed: i64,
    before: &Value,
    after: &Value,
    paused: &Value,
) -> Value {
    let at = |second: i64| format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
    json!({ "group": "g", "generation": generation, "began_at": at(began), "completed_at": at(completed), "causes": [],
        "changes": [], "before": before, "after": after, "paused_ms": paused })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_picture_shows_owners_pauses_and_what_nobody_knows() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    browser.driver.goto(&server.address).await.unwrap();
    // Newest first, as the API gives them.
    let rebalances = [
        // The log was down: who owned what before is not what was told last, and only of one partition it is known for how long.
        rebalance(1, 200, 200, &json!({}), &json!({"c": ["t/0", "t/1"]}), &json!({"t/0": 8000})),
        // One was expelled; what it had stood still since it was last heard of, long before anybody knew.
        rebalance(
            4,
            100,
            101,
            &json!({"a": ["t/0"], "b": ["t/1"]}),
            &json!({"a": ["t/0", "t/1"]}),
            &json!({"t/1": 11000}),
        ),
        // One came and was given a partition, so fast that nobody could have seen a gap.
        rebalance(
            2,
            30,
            30,
            &json!({"a": ["t/0", "t/1"]}),
            &json!({"a": ["t/0"], "b": ["t/1"]}),
            &json!({"t/1": 3}),
        ),
    ];
    let script = "const [rebalances, current] = arguments; const origin = Date.parse('2026-01-01T00:00:00Z');\
        const { stories } = await import('/js/pages/pipeline/story.js');\
        const told = stories(rebalances, current, () => origin + 300000, origin + 310000);\
        const seconds = (ms) => ms === 0 ? 'before' : (ms - origin) / 1000;\
        return [...told].map(([name, segments]) => [name, segments.map((s) => [s.owner, seconds(s.from), seconds(s.to)])]);";
    let script = format!("return (async function () {{ {script} }}).apply(null, arguments)");
    let current = json!([{ "name": "t/0", "owner": "c" }, { "name": "t/1", "owner": null }]);
    let told = browser.driver.execute(script, vec![json!(rebalances), current]).await.unwrap();
    let expected = json!([
        ["t/0", [["a", "before", 192], [null, 192, 200], ["c", 200, 310]]],
        [
            "t/1",
            // The 3 ms are in the list; the last owner is gone, and no rebalance has told yet to whom its partition goes.
            [
                ["a", "before", 29.997],
                ["b", 30, 90],
                [null, 90, 101],
                ["a", 101, 200],
                ["c", 200, 300],
                [null, 300, 310]
            ]
        ],
    ]);
    assert_eq!(told.json(), &expected);
}

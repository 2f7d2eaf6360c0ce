//! `farol events`, and the stream that it follows.

use crate::farol::{Farol, SOON, eventually, farol, folder, output, text};
use crate::running::Running;
use serde_json::{Value, json};

async fn send(server: &Farol, event_type: &str, source: &str, id: &str) {
    let event =
        json!({"specversion": "1.0", "id": id, "type": event_type, "source": source, "data": {"n": id}});
    let answer = server.post("/api/events", &event).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

fn ids(lines: &str) -> Vec<String> {
    let id = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        event["id"].as_str().unwrap().to_owned()
    };
    lines.lines().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_listed_and_followed_by_type_and_source() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    for (event_type, source, id) in
        [("a", "loja", "1"), ("b", "loja", "2"), ("a", "caixa", "3"), ("a", "loja", "4")]
    {
        send(&server, event_type, source, id).await;
    }
    let list = |arguments: &[&str]| {
        let done =
            output(farol(folder.path()).arg("events").args(["--url", &server.address]).args(arguments));
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    let mine = ["--type", "a", "--source", "loja", "--json"];
    eventually(SOON, "the view has them", async || (ids(&list(&mine)) == ["1", "4"]).then_some(())).await;
    assert_eq!(ids(&list(&["--json", "--type", "a", "-n", "2"])), ["3", "4"]);
    let readable = list(&["--type", "b"]);
    assert!(readable.ends_with("  b  loja  {\"n\":\"2\"}\n"), "{readable}");
    let refused = output(farol(folder.path()).args(["events", "--url", &server.address, "--type", "a,b"]));
    assert!(text(&refused.stderr).contains("--follow"), "{}", text(&refused.stderr));

    let following = Running::start(
        folder.path(),
        &["events", "--follow", "--url", &server.address, "--json", "--type", "a"],
    );
    following.says("\"id\":\"4\"").await;
    send(&server, "b", "loja", "5").await;
    send(&server, "a", "caixa", "6").await;
    following.says("\"id\":\"6\"").await;
    let (status, printed) = following.interrupt().await;
    assert!(status.success(), "{printed}");
    let mut seen = ids(&printed);
    seen.sort();
    assert_eq!(seen, ["1", "3", "4", "6"]);
}

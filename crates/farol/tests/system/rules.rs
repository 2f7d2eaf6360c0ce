//! Rule files that change while Farol runs.

use rustix::process::Signal;

use crate::farol::{Farol, PLAIN_RULE, SOON, eventually, farol, folder, output, text, write};

#[tokio::test]
async fn changed_rules_come_into_force_without_a_restart_and_bad_ones_do_not() {
    let folder = folder();
    let rules = write(folder.path(), "rules.toml", PLAIN_RULE);
    write(folder.path(), "farol.toml", "rules.files = [\"rules.toml\"]\nrules.defaults = false\n");
    let farol = Farol::start(folder.path(), &[]).await;
    let names = async || {
        let rules = farol.get("/api/rules").await;
        let names: Vec<String> = rules["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["name"].as_str().unwrap().to_owned())
            .collect();
        (names, rules["problem"].as_str().map(str::to_owned))
    };
    assert_eq!(names().await, (vec!["hot".to_owned()], None));

    // Noticed by itself.
    std::fs::write(&rules, format!("{PLAIN_RULE}\n[[rule]]\nname = \"cold\"\nselect = '{{}}'\nbelow = 0\n"))
        .unwrap();
    eventually(SOON, "the new rule is in force", async || (names().await.0 == ["hot", "cold"]).then_some(()))
        .await;
    eventually(SOON, "it is said", async || {
        farol.printed().contains("rules: 2 in force (new: cold)").then_some(())
    })
    .await;
    farol.temperature("t-1", -3.0).await;
    eventually(SOON, "the new rule fires", async || {
        farol.alerts("rule=cold&status=firing").await.first().cloned()
    })
    .await;

    // A bad file changes nothing, and says so everywhere.
    std::fs::write(&rules, "[[rule]]\nname = \"hot\"\nabove = \"very\"\n").unwrap();
    farol.signal(Signal::HUP);
    let problem = eventually(SOON, "the problem is shown", async || names().await.1).await;
    assert!(problem.contains("rules.toml:3"), "{problem}");
    assert_eq!(names().await.0, ["hot", "cold"]);
    eventually(SOON, "it is said", async || {
        farol.printed().contains("the old ones stay in force").then_some(())
    })
    .await;
    farol.temperature("t-1", 50.0).await;
    eventually(SOON, "an old rule fires", async || {
        farol.alerts("rule=hot&status=firing").await.first().cloned()
    })
    .await;
    eventually(SOON, "the problem is an event", async || {
        let events = farol.get("/api/events?type=regra_alterada").await;
        let newest = events["events"].as_array()?.first()?.clone();
        newest["data"]["problem"].as_str().map(str::to_owned)
    })
    .await;

    // Mended, it is forgotten.
    std::fs::write(&rules, PLAIN_RULE).unwrap();
    farol.signal(Signal::HUP);
    eventually(SOON, "the mended rules are in force", async || {
        (names().await == (vec!["hot".to_owned()], None)).then_some(())
    })
    .await;
}

#[test]
fn bad_rules_at_the_start_are_all_named_and_nothing_starts() {
    let folder = folder();
    let rules = write(
        folder.path(),
        "rules.toml",
        "[[rule]]\nname = \"a\"\n[[rule]]\nname = \"b\"\nselect = '{}'\nabove = \"x\"\n",
    );
    let run = output(farol(folder.path()).args(["run", "--listen", "127.0.0.1:0", "--rules"]).arg(rules));
    assert_eq!(run.status.code(), Some(1));
    let error = text(&run.stderr);
    assert!(error.contains("rules.toml:1") && error.contains("rules.toml:6"), "{error}");
}

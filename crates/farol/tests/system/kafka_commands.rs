//! The command line over the Kafka port: topics, groups, consume, produce, simulate.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use farol_bus::kafka::{KafkaBus, KafkaOptions};
use farol_bus::{Bus as _, ProducerRecord};
use farol_event::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rustix::process::Signal;
use serde_json::Value;

use crate::farol::{Farol, eventually, farol, folder, output, text, write};
use crate::running::Running;
use crate::terminal::{CTRL_C, Terminal};

/// Runs a command against a server and gives what it printed; it must succeed.
pub fn run(folder: &Path, server: &Farol, arguments: &[&str]) -> String {
    let done = attempt(folder, server, arguments);
    assert!(done.status.success(), "{arguments:?}: {}", text(&done.stderr));
    text(&done.stdout)
}

pub fn attempt(folder: &Path, server: &Farol, arguments: &[&str]) -> Output {
    output(farol(folder).args(arguments).args(["--brokers", &server.kafka]))
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Sends lines on standard input; it must succeed.
pub fn produce(folder: &Path, server: &Farol, arguments: &[&str], lines: &str) -> String {
    let mut command = farol(folder);
    command.arg("produce").args(arguments).args(["--brokers", &server.kafka]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_shown_filled_read_and_deleted() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let path = folder.path();
    let create =
        ["topics", "create", "notes", "--partitions", "2", "--topic-config", "retention.ms=86400000"];
    assert_eq!(run(path, &server, &create), "created notes\n");
    let again = attempt(path, &server, &create);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("exists already"), "{}", text(&again.stderr));
    let invalid = "`retention.ms` is `soon`; a whole number";
    for (arguments, reason) in [
        (&["topics", "create", "x", "--topic-config", "retention.ms=soon"][..], invalid),
        (&["topics", "create", "x", "--partitions", "100000"], "are not between 1 and"),
        (&["topics", "delete", "alerts", "--yes"], "Farol's own topics are a matter of its settings"),
    ] {
        let refused = attempt(path, &server, arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
        let said = text(&refused.stderr);
        assert!(said.contains(reason), "{said}");
    }
    run(path, &server, &["topics", "create", "kept", "--topic-config", "cleanup.policy=compact"]);
    let file = write(path, "keyless.txt", "no key");
    let refused = attempt(path, &server, &["produce", "kept", file.to_str().unwrap()]);
    assert!(text(&refused.stderr).contains("each record must have a key"), "{}", text(&refused.stderr));

    let lines = "a:{\"x\": 1}\nb:two words\n\na:{\"x\":\n";
    assert_eq!(
        produce(path, &server, &["notes", "--key-separator", ":"], lines),
        "3 records acknowledged, 1 empty line left out\n"
    );
    let file = write(path, "lines.txt", "one\ntwo\r\nthree");
    let sent =
        json(&run(path, &server, &["produce", "notes", file.to_str().unwrap(), "--key", "k", "--json"]));
    assert_eq!(sent["acknowledged"], 3);

    let listed = run(path, &server, &["topics"]);
    let line = listed.lines().find(|line| line.starts_with("notes ")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("retention.ms=86400000") && line.split_whitespace().nth(2) == Some("6"), "{line}");
    let many: String = (0..5000).map(|n| format!("{n}\n")).collect();
    run(path, &server, &["topics", "create", "many", "--partitions", "3"]);
    produce(path, &server, &["many", "--key", "k"], &many);
    let read = run(path, &server, &["consume", "many", "--from-beginning", "--json"]);
    let numbers: Vec<i64> = read.lines().map(|line| json(line)["value"].as_i64().unwrap()).collect();
    assert_eq!(numbers.len(), 5000);
    assert!(numbers.is_sorted(), "lines keep their order");

    let described = json(&run(path, &server, &["topics", "describe", "notes", "--json"]));
    let ends = described["partitions"].as_array().unwrap().iter().map(|p| p["end"].as_i64().unwrap());
    assert_eq!((ends.len(), ends.sum::<i64>()), (2, 6));

    let printed = run(path, &server, &["consume", "notes", "--from-beginning"]);
    assert_eq!(printed.lines().count(), 6, "one line a record: {printed}");
    for expected in ["  a  {\"x\":1}", "  b  two words", "  a  {\"x\":\n", "  k  two\n"] {
        assert!(printed.contains(expected), "missing: {expected}\nin: {printed}");
    }
    let records: Vec<Value> =
        run(path, &server, &["consume", "notes", "--from-beginning", "--json"]).lines().map(json).collect();
    let of = |key: &str| {
        records.iter().filter(|r| r["key"] == key).map(|r| r["value"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("a"), [serde_json::json!({ "x": 1 }), serde_json::json!("{\"x\":")], "in order");
    assert_eq!(of("k"), ["one", "two", "three"]);

    let first = &records[0];
    let (partition, offset) =
        (first["partition"].to_string(), (first["offset"].as_i64().unwrap() + 1).to_string());
    let rest =
        run(path, &server, &["consume", "notes", "--partition", &partition, "--offset", &offset, "--json"]);
    let same = records.iter().filter(|r| r["partition"] == first["partition"]).count();
    assert_eq!(rest.lines().count(), same - 1);

    let unsure = attempt(path, &server, &["topics", "delete", "notes"]);
    assert_eq!(unsure.status.code(), Some(1), "nobody was there to say yes");
    assert_eq!(run(path, &server, &["topics", "delete", "notes", "--yes"]), "deleted notes\n");
    for gone in [
        &["topics", "describe", "notes"][..],
        &["consume", "notes", "--from-beginning"],
        &["produce", "notes"],
    ] {
        let refused = attempt(path, &server, gone);
        assert_eq!(refused.status.code(), Some(1), "{gone:?}");
        assert!(text(&refused.stderr).contains("there is no topic `notes`"), "{}", text(&refused.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_claims_to_be_of_the_future_heads_no_list_however_it_came() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let event = |id: &str, time: &str| {
        let data = r#"{"nome":"cpu_percent","valor":1}"#;
        format!(
            r#"{{"specversion":"1.0","id":"{id}","type":"metrica_coletada","source":"shop","time":"{time}","data":{data}}}"#
        )
    };
    let events = [event("old", "2001-01-01T00:00:00Z"), event("future", "2099-01-01T00:00:00Z")].join("\n");
    produce(folder.path(), &server, &["system-events", "--key", "shop"], &events);
    let reading = |time: &str| format!(r#"{{"sensor_id":"temp-1","value":20,"timestamp":"{time}"}}"#);
    let readings = [reading("2001-01-01T00:00:00Z"), reading("2099-01-01T00:00:00Z")].join("\n");
    produce(folder.path(), &server, &["sensor-data", "--key", "temp-1"], &readings);
    server.caught_up().await;
    let listed = server.get("/api/events?source=shop").await;
    assert_eq!(listed["events"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["events"][0]["id"], "old", "what is old may come late");
    let stored = server.get("/api/readings?sensor_id=temp-1").await;
    assert_eq!(stored["readings"].as_array().unwrap().len(), 1, "{stored}");
    // It is counted, and whoever looks finds the reason with what was sent.
    let metrics = server.text("/metrics").await;
    let skipped = "reason=\"the event has a bad time\"} 1";
    assert!(
        metrics.lines().any(|line| line.contains("view=\"events\"") && line.ends_with(skipped)),
        "{metrics}"
    );
    let letters = eventually(Duration::from_secs(30), "both are dead letters", async || {
        let letters = server.get("/api/dead-letters").await;
        (letters["total"] == 2).then_some(letters)
    })
    .await;
    for letter in letters["dead_letters"].as_array().unwrap() {
        assert!(letter["reason"].as_str().unwrap().contains("too far in the future"), "{letter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_follows_until_it_is_told_to_stop_or_its_reader_goes() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes"]);
    produce(path, &server, &["notes"], "before\n");
    let following = Running::start(
        path,
        &["consume", "notes", "--follow", "--from-beginning", "--brokers", &server.kafka],
    );
    following.says("  before").await;
    produce(path, &server, &["notes"], "after\n");
    following.says("  after").await;
    let (status, printed) = following.interrupt().await;
    assert!(status.success(), "{status}");
    assert_eq!(printed.lines().count(), 2, "{printed}");

    produce(path, &server, &["notes"], &"x\n".repeat(20_000));
    let mut child = farol(path)
        .args(["consume", "notes", "--from-beginning", "--follow", "--brokers", &server.kafka])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = eventually(Duration::from_secs(30), "the consumer ends with its reader", async || {
        child.try_wait().unwrap()
    })
    .await;
    let mut complaint = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut complaint).unwrap();
    assert!(status.success() && complaint.is_empty(), "{status}: {complaint}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_groups_lag_is_shown_and_the_group_reset_and_deleted() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes", "--partitions", "2"]);
    produce(path, &server, &["notes", "--key", "k"], "1\n2\n3\n4\n5\n");
    let first =
        run(path, &server, &["consume", "notes", "--group", "g", "--from-beginning", "--max-messages", "3"]);
    assert_eq!(first.lines().count(), 3, "{first}");
    let listed: Value = json(&run(path, &server, &["groups", "--json"]));
    let group = listed.as_array().unwrap().iter().find(|group| group["group"] == "g").unwrap();
    assert_eq!((&group["state"], &group["lag_records"]), (&"Empty".into(), &2.into()), "{group}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let described: Value = json(&run(path, &server, &["groups", "describe", "g", "--json"]));
    let lagging: Vec<&Value> =
        described["partitions"].as_array().unwrap().iter().filter(|p| p["lag_records"] != 0).collect();
    assert_eq!(lagging.len(), 1, "{described}");
    assert_eq!(
        described["partitions"].as_array().unwrap().len(),
        2,
        "the one in which nothing was read, too: {described}"
    );
    assert_eq!((&lagging[0]["committed"], &lagging[0]["end"]), (&3.into(), &5.into()));
    assert!(lagging[0]["lag_seconds"].as_f64().unwrap() >= 1.0, "{described}");
    assert!(run(path, &server, &["groups", "describe", "g"]).contains("nobody"));

    // The second member goes on where the first one had committed.
    let second = run(path, &server, &["consume", "notes", "--group", "g", "--max-messages", "2", "--json"]);
    assert_eq!(second.lines().map(|line| json(line)["value"].clone()).collect::<Vec<_>>(), [4, 5]);
    let wrong =
        attempt(path, &server, &["groups", "reset", "g", "--topic", "notes", "--to", "yesterday", "--yes"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    run(path, &server, &["groups", "reset", "g", "--topic", "notes", "--to", "earliest", "--yes"]);
    let again = run(path, &server, &["consume", "notes", "--group", "g", "--max-messages", "1", "--json"]);
    assert_eq!(json(&again)["value"], 1);
    assert_eq!(run(path, &server, &["groups", "delete", "g", "--yes"]), "deleted g\n");
    let gone = attempt(path, &server, &["groups", "describe", "g"]);
    assert_eq!(gone.status.code(), Some(1), "{}", text(&gone.stdout));

    let reader = Running::start(path, &["consume", "notes", "--group", "busy", "--brokers", &server.kafka]);
    eventually(Duration::from_secs(30), "it owns both partitions", async || {
        let described = attempt(path, &server, &["groups", "describe", "busy", "--json"]);
        let described: Value = serde_json::from_slice(&described.stdout).ok()?;
        let partitions = described["partitions"].as_array()?;
        let name = |p: &Value| p["owner"].as_str().is_some_and(|owner| owner.starts_with("farol-consume-"));
        (partitions.len() == 2 && partitions.iter().all(name)).then_some(())
    })
    .await;
    let refused = attempt(path, &server, &["groups", "delete", "busy", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "it has a member");
    reader.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_beyond_the_end_is_refused_or_waited_for() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "short"]);
    produce(path, &server, &["short"], "1\n2\n");
    let beyond = ["consume", "short", "--partition", "0", "--offset", "99"];
    let refused = attempt(path, &server, &beyond);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("short/0 ends at 2, before offset 99") && said.lines().count() == 1, "{said}");
    let negative = attempt(path, &server, &["consume", "short", "--partition", "0", "--offset", "-3"]);
    assert_eq!(negative.status.code(), Some(2), "{}", text(&negative.stderr));

    let follower = Running::start(path, &[&beyond[..], &["--follow", "--brokers", &server.kafka]].concat());
    eventually(Duration::from_secs(30), "it waits", async || {
        follower.complained().contains("waiting for new records").then_some(())
    })
    .await;
    let mut sent = 0;
    eventually(Duration::from_secs(30), "what comes is printed", async || {
        sent += 1;
        produce(path, &server, &["short"], &format!("new-{sent}\n"));
        follower.printed().contains("new-").then_some(())
    })
    .await;
    follower.interrupt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_s_end_counts_what_an_open_transaction_wrote() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "held"]);
    produce(path, &server, &["held"], "1\n2\n");
    let bus = KafkaBus::new(KafkaOptions::new(server.kafka.as_str(), "test")).unwrap();
    let mut producer = bus.transactional_producer("open").await.unwrap();
    producer.begin().unwrap();
    let record = ProducerRecord::new("k", "3", Timestamp::EPOCH);
    producer.send("held", vec![record]).await.unwrap();
    let described = eventually(Duration::from_secs(30), "the record is there", async || {
        let described = json(&run(path, &server, &["topics", "describe", "held", "--json"]));
        (described["partitions"][0]["end"] == 3).then_some(described)
    })
    .await;
    assert_eq!(described["partitions"][0]["stable"], 2, "{described}");
    let shown = run(path, &server, &["topics", "describe", "held"]);
    assert!(shown.contains("held/0 is stable up to 2"), "{shown}");
    producer.abort().await.unwrap();
    let shown = run(path, &server, &["topics", "describe", "held"]);
    assert!(!shown.contains("stable"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_named_by_its_line() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "small", "--topic-config", "max.message.bytes=1024"]);
    let file = write(path, "lines.txt", &format!("fits\n{}\n", "x".repeat(5000)));
    let refused = attempt(path, &server, &["produce", "small", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let error = text(&refused.stderr);
    let (said, reason) = (
        "farol: 1 line is acknowledged, 1 is not:\n  line 2: ",
        " bytes are more than the 1024 that one record may have",
    );
    assert!(
        error.starts_with(said) && error.contains(reason) && error.contains("max.message.bytes"),
        "{error}"
    );
    // What a record takes beside the line counts, too.
    let file = write(path, "nearly.txt", &format!("{}\n", "x".repeat(1000)));
    let refused = attempt(path, &server, &["produce", "small", file.to_str().unwrap(), "--json"]);
    let told = json(&text(&refused.stdout));
    assert_eq!((&told["acknowledged"], &told["not_acknowledged"]), (&0.into(), &1.into()), "{told}");
    assert_eq!(told["failures"][0]["reason"], "1070 bytes are more than the 1024 that one record may have");
    // Lines that fit each don't go out in a batch that doesn't.
    let many = "y".repeat(200) + "\n";
    assert_eq!(produce(path, &server, &["small"], &many.repeat(50)), "50 records acknowledged\n");
    let keyless = write(path, "keyless.txt", "a:1\nno key\n");
    let refused =
        attempt(path, &server, &["produce", "small", keyless.to_str().unwrap(), "--key-separator", ":"]);
    assert!(text(&refused.stderr).contains("line 2: there is no `:`"), "{}", text(&refused.stderr));
    assert_eq!(text(&refused.stdout), "1 record acknowledged\n");
    let missing = attempt(path, &server, &["produce", "small", "nowhere.txt"]);
    assert!(text(&missing.stderr).contains("nowhere.txt"), "{}", text(&missing.stderr));
}

#[test]
fn a_broker_that_is_not_there_is_said_to_be_and_how_to_name_another() {
    let folder = folder();
    for command in [&["topics"][..], &["groups"], &["consume", "x"], &["produce", "x"]] {
        let done = output(farol(folder.path()).args(command).args(["--brokers", "127.0.0.1:1"]));
        assert_eq!(done.status.code(), Some(1), "{command:?}");
        let error = text(&done.stderr);
        assert!(error.contains("127.0.0.1:1 does not answer") && error.contains("KAFKA_BROKERS"), "{error}");
    }
    let wrong = output(farol(folder.path()).args(["topics", "--brokers", "nonsense"]));
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_interruption_is_enough_while_a_command_waits_for_a_broker() {
    let folder = folder();
    for command in
        [&["topics"][..], &["groups"], &["consume", "x"], &["produce", "x"], &["simulate", "--sensors", "1"]]
    {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let brokers = silent.local_addr().unwrap().to_string();
        let mut waiting = Running::start(folder.path(), &[command, &["--brokers", &brokers]].concat());
        let connection = silent.accept().await.unwrap();
        waiting.signal(Signal::INT);
        assert_eq!(waiting.ended().await.code(), Some(130), "{command:?}");
        assert_eq!(waiting.complained(), "", "{command:?}");
        drop(connection);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_interruption_is_enough_where_a_command_asks() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes"]);
    let delete = ["topics", "delete", "notes", "--brokers", &server.kafka];
    let mut terminal = Terminal::start(path, &delete);
    terminal.shows("[y/N]").await;
    terminal.types(CTRL_C);
    assert_eq!(terminal.ended().await.code(), Some(130));
    run(path, &server, &["topics", "describe", "notes"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_asks_only_where_there_is_something_to_delete_and_says_what_a_no_comes_to() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes"]);
    produce(path, &server, &["notes"], "1\n");
    run(path, &server, &["consume", "notes", "--group", "idle", "--from-beginning"]);
    let busy = ["consume", "notes", "--group", "busy", "--from-beginning", "--follow"];
    let busy = Running::start(path, &[&busy[..], &["--brokers", &server.kafka]].concat());
    busy.says("  1").await;
    let reset = |group, topic| ["groups", "reset", group, "--topic", topic, "--to", "earliest"];
    let described = attempt(path, &server, &["groups", "describe", "busy"]);
    assert!(text(&described.stdout).starts_with("busy: Stable, 1 member\n"), "{}", text(&described.stdout));
    // Nobody is at a terminal, which would be said first where something is asked.
    for (command, reason) in [
        (&["topics", "delete", "missing"][..], "there is no topic `missing`"),
        (&["groups", "delete", "missing"], "there is no group `missing`"),
        (&["groups", "delete", "busy"], "group busy has members (1)"),
        (&reset("idle", "missing"), "there is no topic `missing`"),
        (&reset("busy", "notes"), "group busy has members (1)"),
    ] {
        let refused = attempt(path, &server, command);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains(reason), "{command:?}: {said}");
        assert!(!said.contains("--yes") && !said.contains("topics create"), "{command:?}: {said}");
    }
    busy.interrupt().await;
    for (command, outcome) in [
        (&["topics", "delete", "notes"][..], "nothing was deleted"),
        (&["groups", "delete", "idle"], "nothing was deleted"),
        (&reset("idle", "notes"), "nothing was changed"),
    ] {
        let mut terminal = Terminal::start(path, &[command, &["--brokers", &server.kafka]].concat());
        terminal.shows("[y/N]").await;
        terminal.types("n\n");
        assert_eq!(terminal.ended().await.code(), Some(1), "{command:?}");
        terminal.shows(outcome).await;
    }
    let mut terminal = Terminal::start(path, &["topics", "delete", "notes", "--brokers", &server.kafka]);
    terminal.shows("[y/N]").await;
    terminal.types("y\n");
    assert_eq!(terminal.ended().await.code(), Some(0));
    terminal.shows("deleted notes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_sent_until_somebody_interrupts_has_not_been_sent() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes"]);
    // Whoever writes the pipe has not ended it.
    let mut command = farol(path);
    command.args(["produce", "notes", "--brokers", &server.kafka]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = child.stdin.take().unwrap();
    lines.write_all(b"one\n\ntwo\n").unwrap();
    eventually(Duration::from_secs(30), "they are stored", async || {
        let described = json(&run(path, &server, &["topics", "describe", "notes", "--json"]));
        (described["partitions"][0]["end"] == 2).then_some(())
    })
    .await;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130));
    assert_eq!(text(&done.stdout), "2 records acknowledged, 1 empty line left out\n");
    assert_eq!(text(&done.stderr), "interrupted after line 3; nothing behind it was sent\n");
    drop(lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_name_begins_like_the_brokers_own_is_one_like_others() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "__notes"]);
    produce(path, &server, &["__notes"], "1\n");
    assert!(run(path, &server, &["topics"]).contains("__notes "));
    assert!(!run(path, &server, &["topics"]).contains("__consumer_offsets"));
    let read = ["consume", "__notes", "--from-beginning", "--group", "g"];
    assert_eq!(run(path, &server, &read).lines().count(), 1);
    let groups = json(&run(path, &server, &["groups", "describe", "g", "--json"]));
    assert_eq!(groups["partitions"][0]["committed"], 1, "{groups}");
    for command in [
        &["topics", "describe", "__consumer_offsets"][..],
        &["topics", "delete", "__transaction_state", "--yes"],
        &["consume", "__consumer_offsets", "--from-beginning"],
    ] {
        let refused = attempt(path, &server, command);
        let said = text(&refused.stderr);
        assert!(said.contains("is the brokers' own") && !said.contains("create"), "{command:?}: {said}");
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
    }
    assert_eq!(run(path, &server, &["topics", "delete", "__notes", "--yes"]), "deleted __notes\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_sensors_send_over_the_kafka_protocol() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let simulated = farol(folder.path())
        .args(["simulate", "--sensors", "20", "--duration", "6s"])
        .env("KAFKA_BROKERS", &server.kafka)
        .output()
        .unwrap();
    assert!(simulated.status.success(), "{}", text(&simulated.stderr));
    let printed = text(&simulated.stdout);
    assert!(printed.contains(" 0 rejected") && !printed.contains(" 0 readings"), "{printed}");
    server.caught_up().await;
    let sensors = server.pages("/api/sensors?limit=1000", "sensors").await;
    assert!(!sensors.is_empty(), "their readings are shown");
    let producers = server.get("/api/producer-health").await;
    assert!(!producers["producers"].as_array().unwrap().is_empty(), "{producers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_others_neither_steer_the_terminal_nor_forge_rows() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes"]);
    let group = "evil\u{1b}[2J\u{202e}\nforged  Stable";
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &server.kafka)
        .set("group.id", group)
        .set("client.id", "mine\u{9b}31m\nnotes/1  somebody")
        .create()
        .unwrap();
    consumer.subscribe(&["notes"]).unwrap();
    eventually(Duration::from_secs(30), "the assignment", async || {
        consumer.poll(Duration::from_millis(50));
        (consumer.assignment().unwrap().count() == 1).then_some(())
    })
    .await;
    let list = [&["groups"][..], &["groups", "--json"]];
    let describe = [&["groups", "describe", group][..], &["groups", "describe", group, "--json"]];
    for command in [list, describe].concat() {
        let shown = run(path, &server, command);
        let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(steers), "{shown:?}");
        let forged = |line: &str| line.starts_with("forged") || line.starts_with("notes/1");
        assert!(shown.contains("forged") && !shown.lines().any(forged), "{shown}");
        if command.contains(&"--json") {
            let shown = json(&shown);
            assert!([&shown["group"], &shown[0]["group"]].contains(&&Value::from(group)), "{shown}");
        }
    }
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_under_its_readers_hides_no_group() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "doomed", "--partitions", "2"]);
    // A client that doesn't look again keeps the partitions that it was assigned.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &server.kafka)
        .set("group.id", "holders")
        .set("topic.metadata.refresh.interval.ms", "-1")
        .create()
        .unwrap();
    consumer.subscribe(&["doomed"]).unwrap();
    eventually(Duration::from_secs(30), "the assignment", async || {
        consumer.poll(Duration::from_millis(50));
        (consumer.assignment().unwrap().count() == 2).then_some(())
    })
    .await;
    run(path, &server, &["topics", "delete", "doomed", "--yes"]);
    let groups = server.get("/api/groups").await;
    let named = |name: &str| groups["groups"].as_array().unwrap().iter().any(|group| group["group"] == name);
    assert!(named("holders") && named("sensor-processors"), "{groups}");
    server.get("/api/partition-assignment").await;
    let listed = run(path, &server, &["groups"]);
    assert!(listed.contains("holders") && listed.contains("sensor-processors"), "{listed}");
    run(path, &server, &["groups", "describe", "holders"]);
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_begins_at_the_beginning_stops_at_the_end_and_goes_when_nobody_reads() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "list", "--partitions", "3"]);
    let lines: String = (0..200).map(|n| format!("{n}:{n}\n")).collect();
    produce(path, &server, &["list", "--key-separator", ":"], &lines);
    let consume = ["consume", "list", "--group", "readers", "--from-beginning"];
    assert_eq!(run(path, &server, &consume).lines().count(), 200);
    produce(path, &server, &["list"], "one more\n");
    assert_eq!(run(path, &server, &consume).lines().count(), 1, "it goes on where it was");
    assert_eq!(run(path, &server, &consume), "", "nothing more is there");

    // `| head -1` on a topic in which nothing happens.
    let mut command = farol(path);
    command.args(["consume", "list", "--group", "readers", "--brokers", &server.kafka]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = eventually(Duration::from_secs(60), "its end", async || child.try_wait().unwrap()).await;
    assert!(ended.success(), "{ended}");
}

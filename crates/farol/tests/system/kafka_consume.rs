//! `farol consume` while things change under it: its group, the broker, the topic.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farol_bus::kafka::{KafkaBus, KafkaOptions};
use farol_bus::{Bus as _, Producer, ProducerRecord};
use farol_event::Timestamp;
use rustix::process::Signal;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::farol::{Farol, SOON, eventually, folder};
use crate::kafka_commands::{attempt, json, run};
use crate::running::Running;

/// A member of group `readers` that reads topic `notes` from its beginning.
fn member(folder: &Path, brokers: &str) -> Running {
    let what = ["consume", "notes", "--group", "readers", "--from-beginning", "--follow", "--json"];
    Running::start(folder, &[&what[..], &["--brokers", brokers]].concat())
}

async fn producer(server: &Farol) -> Arc<dyn Producer> {
    let bus = KafkaBus::new(KafkaOptions::new(server.kafka.as_str(), "test")).unwrap();
    bus.producer("test").await.unwrap()
}

async fn send(producer: &dyn Producer, number: u64) {
    let record = ProducerRecord::new(format!("k-{}", number % 50), number.to_string(), Timestamp::EPOCH);
    producer.send("notes", vec![record]).await.unwrap();
}

/// How often each number was printed.
fn counts(printed: &[String]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for line in printed.iter().flat_map(|printed| printed.lines()) {
        *counts.entry(json(line)["value"].as_u64().unwrap()).or_default() += 1;
    }
    counts
}

/// The members of group `readers`, and how many partitions they own together.
fn membership(folder: &Path, server: &Farol) -> Option<(usize, usize)> {
    let described = attempt(folder, server, &["groups", "describe", "readers", "--json"]);
    let described: Value = serde_json::from_slice(&described.stdout).ok()?;
    let members = described["members"].as_array()?;
    let owned = members.iter().filter_map(|member| Some(member["partitions"].as_array()?.len()));
    Some((members.len(), owned.sum()))
}

async fn members(folder: &Path, server: &Farol, count: usize, partitions: usize) {
    let wanted = Some((count, partitions));
    eventually(SOON * 2, "the members share the partitions", async || {
        (membership(folder, server) == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_come_and_go_in_order_print_each_record_once() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes", "--partitions", "6"]);
    let producer = producer(&server).await;
    let done = CancellationToken::new();
    let until = done.clone();
    let sending = tokio::spawn(async move {
        let mut number = 0;
        while !until.is_cancelled() {
            send(producer.as_ref(), number).await;
            number += 1;
        }
        number
    });
    let mut printed = Vec::new();
    let mut running = vec![member(path, &server.kafka)];
    members(path, &server, 1, 6).await;
    let described = run(path, &server, &["groups", "describe", "readers"]);
    let named = format!("-{} ", running[0].pid());
    assert!(described.contains("farol-consume-") && described.contains(&named), "{described}");
    for _ in 0..3 {
        running.push(member(path, &server.kafka));
        running.push(member(path, &server.kafka));
        members(path, &server, 3, 6).await;
        for leaves in running.drain(..2) {
            let (status, text) = leaves.interrupt().await;
            assert!(status.success(), "{status}");
            printed.push(text);
        }
    }
    done.cancel();
    let sent: u64 = sending.await.unwrap();
    eventually(SOON, "everything is printed", async || {
        let mut all = printed.clone();
        all.push(running[0].printed());
        (counts(&all).len() as u64 == sent).then_some(())
    })
    .await;
    printed.push(running.remove(0).interrupt().await.1);
    let twice: Vec<_> = counts(&printed).into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(twice.is_empty(), "of {sent}: {twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_slept_through_its_session_goes_on() {
    let folder = folder();
    let server = Farol::start(folder.path(), &["--workers", "0"]).await;
    let path = folder.path();
    run(path, &server, &["topics", "create", "notes"]);
    let producer = producer(&server).await;
    let mut sleeper = member(path, &server.kafka);
    send(producer.as_ref(), 1).await;
    sleeper.says("\"value\":1").await;
    // Ctrl-Z. What comes right after it is on its way to the sleeper already.
    sleeper.signal(Signal::STOP);
    send(producer.as_ref(), 2).await;
    eventually(SOON, "it is thrown out", async || {
        (membership(path, &server).is_none_or(|(members, _)| members == 0)).then_some(())
    })
    .await;
    sleeper.signal(Signal::CONT);
    members(path, &server, 1, 1).await;
    send(producer.as_ref(), 3).await;
    sleeper.says("\"value\":3").await;
    sleeper.signal(Signal::INT);
    let status = sleeper.ended().await;
    assert!(status.success(), "{status}: {}", sleeper.complained());
    let counts = counts(&[sleeper.printed()]);
    assert!(counts.values().all(|count| *count == 1) && counts.len() == 3, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_waits_for_a_broker_that_is_killed_and_prints_each_record_once() {
    let folder = folder();
    let path = folder.path();
    let mut server = Farol::start(path, &["--workers", "0"]).await;
    let brokers = server.kafka.clone();
    run(path, &server, &["topics", "create", "notes", "--partitions", "2"]);
    let alone = ["consume", "notes", "--from-beginning", "--follow", "--json", "--brokers", &brokers];
    let followers = [Running::start(path, &alone), member(path, &brokers)];
    let mut sent = 0;
    for outage in 1..=2 {
        let now = producer(&server).await;
        for _ in 0..20 {
            send(now.as_ref(), sent).await;
            sent += 1;
        }
        for follower in &followers {
            eventually(SOON * 2, "all is printed", async || {
                (counts(&[follower.printed()]).len() as u64 == sent).then_some(())
            })
            .await;
        }
        let told = async |what: &str| {
            for follower in &followers {
                // A commit on its way is given up first.
                eventually(SOON * 2, what, async || {
                    (follower.complained().matches(what).count() >= outage).then_some(())
                })
                .await;
            }
        };
        server.kill();
        told(&format!("{brokers} is away (no broker answers)")).await;
        server = Farol::start(path, &["--workers", "0", "--kafka-listen", &brokers]).await;
        told(&format!("{brokers} is back")).await;
    }
    send(producer(&server).await.as_ref(), sent).await;
    for follower in followers {
        follower.says(&format!("\"value\":{sent}")).await;
        let (status, printed) = follower.interrupt().await;
        assert!(status.success(), "{status}");
        let counts = counts(&[printed]);
        assert!(counts.len() as u64 == sent + 1 && counts.values().all(|count| *count == 1), "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_under_whoever_follows_is_named() {
    let folder = folder();
    let path = folder.path();
    let server = Farol::start(path, &["--workers", "0"]).await;
    run(path, &server, &["topics", "create", "notes"]);
    send(producer(&server).await.as_ref(), 1).await;
    let alone = ["consume", "notes", "--from-beginning", "--follow", "--brokers", &server.kafka];
    let followers = [Running::start(path, &alone), member(path, &server.kafka)];
    for follower in &followers {
        eventually(SOON, "it has read", async || (!follower.printed().is_empty()).then_some(())).await;
    }
    run(path, &server, &["topics", "delete", "notes", "--yes"]);
    for mut follower in followers {
        // Earlier than librdkafka believes it, which takes it half a minute.
        let status = follower.ended_within(Duration::from_secs(20)).await;
        let said = follower.complained();
        assert_eq!((status.code(), &*said), (Some(1), "farol: there is no topic `notes`, or not any more"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_group_misses_nothing_between_two_members_that_print_nothing_before() {
    let folder = folder();
    let path = folder.path();
    let server = Farol::start(path, &["--workers", "0"]).await;
    run(path, &server, &["topics", "create", "notes"]);
    let now = producer(&server).await;
    send(now.as_ref(), 1).await;
    let consume = ["consume", "notes", "--group", "readers", "--json", "--brokers", &server.kafka];
    let idle = Running::start(path, &consume);
    eventually(SOON, "it has committed where it begins", async || {
        let described = attempt(path, &server, &["groups", "describe", "readers", "--json"]);
        let described: Value = serde_json::from_slice(&described.stdout).ok()?;
        (described["partitions"][0]["committed"] == 1).then_some(())
    })
    .await;
    assert_eq!(idle.interrupt().await.1, "");
    send(now.as_ref(), 2).await;
    let next = Running::start(path, &consume);
    next.says("\"value\":2").await;
    assert_eq!(counts(&[next.interrupt().await.1]), BTreeMap::from([(2, 1)]));
}

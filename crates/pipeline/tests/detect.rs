//! The pipeline over the real embedded bus and the real store.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod plant;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{TopicPartition, partition_for_key};
use farol_event::{AlertStatus, Event, EventType, TransitionKind};
use farol_view::ViewName;
use plant::{Plant, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn breach_fires_and_recovery_resolves_with_evidence() {
    let plant = Plant::start(2).await;
    plant.send("t-1", "temperature", &[25.0, 41.0]).await;
    let fired = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.iter().filter(|t| t.kind == TransitionKind::Fired).count() == 2).then_some(all)
    })
    .await;
    let critical = fired.iter().find(|t| t.alert.rule == "temperature-critical").unwrap();
    let evidence = critical.evidence.as_ref().unwrap();
    assert_eq!(evidence.value, Some(41.0));
    assert!(evidence.explanation.contains("41"), "{}", evidence.explanation);
    let position = evidence.positions.last().unwrap();
    assert_eq!(plant.reading_at(position).await, 41.0);

    plant.send("t-1", "temperature", &[20.0]).await;
    eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.iter().filter(|t| t.kind == TransitionKind::Resolved).count() == 2).then_some(())
    })
    .await;
    let in_view = eventually(LIMIT, async || {
        let alerts = plant.alerts_in_view().await;
        let resolved = alerts.iter().filter(|a| a.status == AlertStatus::Resolved).count();
        (resolved == 2).then_some(alerts)
    })
    .await;
    assert_eq!(in_view.len(), 2);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_and_go_neither_lose_nor_double_alerts() {
    const SENSORS: usize = 40;
    const SERVICES: usize = 10;
    const CYCLES: usize = 12;
    let plant = Plant::start(3).await;
    let disturb = async {
        for round in 0..CYCLES {
            let name = format!("worker-{}", round % 3 + 1);
            plant.pipeline().workers().stop(&name).unwrap();
            plant.worker_stopped(&name).await;
            plant.pipeline().workers().start(&name).unwrap();
        }
    };
    let load = async {
        for _ in 0..CYCLES {
            for sensor in 0..SENSORS {
                plant.send(&format!("t-{sensor}"), "temperature", &[50.0, 10.0]).await;
            }
            for service in 0..SERVICES {
                let name = format!("service-{service}");
                plant.tell(EventType::SYSTEM_UNAVAILABLE, &name, &json!({"reason": "no answer"})).await;
                plant.tell(EventType::SYSTEM_RECOVERED, &name, &json!({})).await;
            }
        }
    };
    tokio::join!(disturb, load);
    // Two rules about sensors and one about services, each fires and resolves once a cycle.
    let expected = SENSORS * CYCLES * 4 + SERVICES * CYCLES * 2;
    let all = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() >= expected).then_some(all)
    })
    .await;
    assert_eq!(all.len(), expected);
    let mut per_alert: BTreeMap<_, Vec<TransitionKind>> = BTreeMap::new();
    for transition in &all {
        per_alert.entry(transition.alert.id).or_default().push(transition.kind);
    }
    assert_eq!(per_alert.len(), expected / 2);
    assert!(per_alert.values().all(|kinds| *kinds == [TransitionKind::Fired, TransitionKind::Resolved]));
    assert!(plant.rebalances_in_view().await > 3, "the workers did come and go");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn active_alert_and_its_state_survive_a_restart() {
    let plant = Plant::start(1).await;
    plant.send("t-1", "temperature", &[50.0]).await;
    eventually(LIMIT, async || (plant.transitions().await.len() == 2).then_some(())).await;
    let plant = plant.restart().await;
    // Still breaching: a worker that had forgotten would raise it again.
    plant.send("t-1", "temperature", &[51.0, 10.0]).await;
    let all = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() >= 4).then_some(all)
    })
    .await;
    assert_eq!(all.len(), 4);
    assert_eq!(all.iter().filter(|t| t.kind == TransitionKind::Resolved).count(), 2);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reading_becomes_a_dead_letter_with_its_reason() {
    let plant = Plant::start(1).await;
    plant.send_raw("broken", b"{\"sensor_id\":\"broken\",\"value\":\"hot\"}").await;
    plant.send_raw("rubbish", &[0xff, 0x00, 0x80]).await;
    plant.send("t-1", "temperature", &[50.0]).await;
    let letters = eventually(LIMIT, async || {
        let letters = plant.dead_letters_in_view().await;
        (letters.len() >= 2).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().any(|reason| reason.contains("`value`")), "{letters:?}");
    // And nobody behind them waits.
    eventually(LIMIT, async || (plant.transitions().await.len() == 2).then_some(())).await;
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reading_holds_nobody_up_however_long_its_key_is() {
    let plant = Plant::start(1).await;
    // As text in JSON six times as long: more than a record may be.
    plant.send_raw(&"\u{1}".repeat(200_000), b"rubbish").await;
    let letters = eventually(LIMIT, async || {
        let letters = plant.dead_letters_in_view().await;
        (!letters.is_empty()).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 1);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_send_raises_alerts_and_an_outage_that_goes_on_survives_a_restart() {
    let plant = Plant::start(2).await;
    plant.tell(EventType::SYSTEM_UNAVAILABLE, "shop", &json!({"reason": "3 checks failed"})).await;
    plant
        .tell(
            EventType::METRIC_COLLECTED,
            "shop",
            &json!({"nome": "cpu_percent", "valor": 97.5, "unidade": "%"}),
        )
        .await;
    let fired = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() == 2).then_some(all)
    })
    .await;
    let down = fired.iter().find(|t| t.alert.rule == "service-unavailable").unwrap();
    assert_eq!(down.alert.series, "available{service=\"shop\"}");
    let position = down.evidence.as_ref().unwrap().positions.last().unwrap().clone();
    assert_eq!(&*position.topic, "system-events");
    let told = plant.event_at(&position).await;
    assert_eq!((told.source.as_str(), told.event_type), ("shop", EventType::SYSTEM_UNAVAILABLE));

    let plant = plant.restart().await;
    // Still down: whoever had forgotten would raise it again.
    plant.tell(EventType::SYSTEM_UNAVAILABLE, "shop", &json!({})).await;
    plant.tell(EventType::SYSTEM_RECOVERED, "shop", &json!({})).await;
    let all = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() >= 3).then_some(all)
    })
    .await;
    assert_eq!(all.len(), 3);
    let ended = all.iter().find(|t| t.kind == TransitionKind::Resolved).unwrap();
    assert_eq!(ended.alert.id, down.alert.id);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_get_more_partitions_are_judged_in_all_of_them_by_workers_that_run() {
    const SERIES: usize = 24;
    let rule = "[[rule]]\nname = \"hot\"\nselect = '{sensor_type=\"kiln\"}'\nabove = 10\n";
    let mut plant = Plant::with_rules(2, rule).await;
    // They own the old ones and have judged something before there are others.
    plant.send("kiln-before", "kiln", &[20.0, 5.0]).await;
    plant.tell(EventType::SYSTEM_UNAVAILABLE, "before", &json!({})).await;
    plant.tell(EventType::SYSTEM_RECOVERED, "before", &json!({})).await;
    eventually(LIMIT, async || (plant.transitions().await.len() == 4).then_some(())).await;
    plant.grow("sensor-data", 6).await;
    plant.grow("system-events", 6).await;
    for number in 0..SERIES {
        plant.send(&format!("kiln-{number}"), "kiln", &[20.0]).await;
        plant.tell(EventType::SYSTEM_UNAVAILABLE, &format!("service-{number}"), &json!({})).await;
    }
    let fired = eventually(LIMIT * 3, async || {
        let transitions = plant.transitions().await;
        (transitions.len() == 4 + 2 * SERIES).then_some(transitions)
    })
    .await;
    for topic in ["sensor-data", "system-events"] {
        let positions = fired.iter().filter_map(|t| t.evidence.as_ref()).flat_map(|e| &e.positions);
        let of_topic = positions.filter(|position| *position.topic == *topic);
        let used: BTreeSet<i32> = of_topic.map(|position| position.partition).collect();
        assert!(used.range(3..).next().is_some(), "{topic}: nothing was in a new one: {used:?}");
    }

    // What the rules remember of the new partitions is there again after a restart.
    plant = plant.restart().await;
    for number in 0..SERIES {
        plant.send(&format!("kiln-{number}"), "kiln", &[5.0]).await;
        plant.tell(EventType::SYSTEM_RECOVERED, &format!("service-{number}"), &json!({})).await;
    }
    eventually(LIMIT * 3, async || {
        let transitions = plant.transitions().await;
        assert!(transitions.len() <= 4 + 4 * SERIES, "each alert fires once and ends once");
        (transitions.len() == 4 + 4 * SERIES).then_some(())
    })
    .await;
    assert_eq!(plant.dead_letters_in_view().await, Vec::<String>::new());
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_events_that_claim_to_tell_of_a_service_become_dead_letters() {
    let plant = Plant::start(1).await;
    plant.tell_raw("rubbish", &[0xff, 0x00, 0x80]).await;
    plant.tell_raw("shop", br#"{"type":"metrica_coletada","source":"shop"}"#).await;
    plant.tell(EventType::METRIC_COLLECTED, "shop", &json!({"nome": "cpu_percent", "valor": "much"})).await;
    plant.tell(EventType::new("own.type"), "shop", &json!({"nome": 3})).await;
    plant.tell(EventType::SERVICE_STARTED, "shop", &json!({"version": 3})).await;
    plant
        .tell(EventType::METRIC_COLLECTED, "shop", &json!({"nome": "response_time_ms", "valor": 6000}))
        .await;
    // The last of them is judged, and nobody behind the bad ones waits.
    eventually(LIMIT, async || (plant.transitions().await.len() == 1).then_some(())).await;
    let letters = eventually(LIMIT, async || {
        let letters = plant.dead_letters_in_view().await;
        (letters.len() >= 2).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters.iter().any(|reason| reason.contains("`specversion`")), "{letters:?}");
    assert!(letters.iter().any(|reason| reason.contains("expected f64")), "{letters:?}");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_is_told_in_several_partitions_is_one_alert_and_the_rest_are_dead_letters() {
    let plant = Plant::start(2).await;
    let event = |event_type: EventType| {
        Event::new(uuid::Uuid::now_v7(), plant::now(), event_type, "shop", &json!({})).to_json()
    };
    for partition in 0..3 {
        plant.tell_in(partition, "k", &event(EventType::SYSTEM_UNAVAILABLE)).await;
    }
    plant.tell_raw("shop", &event(EventType::SYSTEM_RECOVERED)).await;
    let letters = eventually(LIMIT, async || {
        let letters = plant.dead_letters_in_view().await;
        (letters.len() >= 2).then_some(letters)
    })
    .await;
    let home = partition_for_key(b"shop", 3);
    assert!(
        letters.iter().all(|reason| reason.contains(&format!("belongs into {home} of 3"))
            && reason.contains("-X partitioner=murmur2_random -k 'shop'")),
        "{letters:?}"
    );
    let kinds: Vec<_> = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() >= 2).then_some(all)
    })
    .await
    .iter()
    .map(|transition| transition.kind)
    .collect();
    assert_eq!(kinds, [TransitionKind::Fired, TransitionKind::Resolved]);
    assert_eq!(letters.len(), 2);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_rules_come_into_force_and_bad_ones_do_not() {
    let plant =
        Plant::with_rules(2, "[[rule]]\nname = \"hot\"\nselect = '{sensor_type=\"kiln\"}'\nabove = 900\n")
            .await;
    plant.send("k-1", "kiln", &[950.0]).await;
    eventually(LIMIT, async || (plant.transitions().await.len() == 1).then_some(())).await;

    plant.write_rules("[[rule]]\nname = \"hot\"\nselect = '{sensor_type=\"kiln\"}'\nabove = \"very\"\n");
    let change = plant.rules().reload(plant::now()).unwrap();
    assert!(change.problem.as_deref().is_some_and(|p| p.contains("above")), "{change:?}");
    assert!(plant.rules().problem().is_some());
    assert!(plant.rules().current().rules.get("hot").is_some());

    plant.write_rules("[[rule]]\nname = \"hotter\"\nselect = '{sensor_type=\"kiln\"}'\nabove = 1000\n");
    let change = plant.rules().reload(plant::now()).unwrap();
    assert_eq!((change.added, change.removed), (vec!["hotter".to_owned()], vec!["hot".to_owned()]));
    assert!(plant.rules().problem().is_none());
    // The alert of the rule that is gone ends, and says why.
    let all = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!(all[1].kind, TransitionKind::Resolved);
    plant.send("k-1", "kiln", &[1001.0]).await;
    eventually(LIMIT, async || (plant.transitions().await.len() == 3).then_some(())).await;
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_of_a_sensor_fires_and_its_return_resolves() {
    let rules = "[[rule]]\nname = \"silent\"\nselect = '{sensor_type=\"kiln\"}'\nabsent_for = \"1s\"\n";
    let plant = Plant::with_rules(1, rules).await;
    plant.send("k-1", "kiln", &[1.0]).await;
    eventually(LIMIT, async || (plant.transitions().await.len() == 1).then_some(())).await;
    plant.send("k-1", "kiln", &[1.0]).await;
    let all = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        (all.len() == 2).then_some(all)
    })
    .await;
    assert_eq!((all[0].kind, all[1].kind), (TransitionKind::Fired, TransitionKind::Resolved));
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilt_view_has_the_same_content() {
    let plant = Plant::start(2).await;
    for sensor in 0..10 {
        plant.send(&format!("t-{sensor}"), "temperature", &[20.0, 50.0, 20.0]).await;
    }
    let before = eventually(LIMIT, async || {
        let alerts = plant.alerts_in_view().await;
        (alerts.len() == 20 && alerts.iter().all(|alert| alert.ended_at.is_some())).then_some(alerts)
    })
    .await;
    assert_eq!(plant.rebuilt_alerts().await, before);
}

/// Copies a folder and all in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_ahead_of_a_log_that_lost_its_end_are_built_again() {
    let plant = Plant::start(1).await;
    plant.send("t-1", "temperature", &[1.0, 2.0, 3.0]).await;
    let seen = async |plant: &Plant, wanted: &[f64]| {
        eventually(LIMIT, async || (plant.values_in_view("t-1").await == wanted).then_some(())).await;
    };
    seen(&plant, &[1.0, 2.0, 3.0]).await;
    let plant = plant.restart_after(|dir| copy(&dir.join("log"), &dir.join("earlier"))).await;
    assert_eq!(plant.pipeline().views_ahead_of_log(), []);
    plant.send("t-1", "temperature", &[4.0, 5.0]).await;
    seen(&plant, &[1.0, 2.0, 3.0, 4.0, 5.0]).await;

    // The log as a power cut would leave it that takes what was never synced; the views were synced.
    let lose_the_end = |dir: &Path| {
        std::fs::remove_dir_all(dir.join("log")).unwrap();
        std::fs::rename(dir.join("earlier"), dir.join("log")).unwrap();
    };
    let plant = plant.restart_after(lose_the_end).await;
    let ahead = plant.pipeline().views_ahead_of_log();
    assert!(ahead.contains(&ViewName::Readings) && ahead.contains(&ViewName::Sensors), "{ahead:?}");
    plant.send("t-1", "temperature", &[6.0, 7.0, 8.0]).await;
    seen(&plant, &[1.0, 2.0, 3.0, 6.0, 7.0, 8.0]).await;
    let plant = plant.restart().await;
    assert_eq!(plant.pipeline().views_ahead_of_log(), []);
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_transactions_are_ended_again_and_again_goes_on_if_nobody_else_has_its_name() {
    let plant = Plant::start(1).await;
    for _ in 0..4 {
        plant.send("t-1", "kiln", &[1.0]).await;
        eventually(LIMIT, async || plant.processed().await.then_some(())).await;
        plant.end_transactions_of("worker-1").await;
    }
    plant.send("t-1", "kiln", &[1.0]).await;
    eventually(LIMIT, async || plant.processed().await.then_some(())).await;
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_sensor_stays_forgotten_although_its_older_state_is_still_there() {
    let rule = "[[rule]]\nname = \"silent\"\nselect = '{sensor_type=\"kiln\"}'\nabsent_for = \"3s\"\n";
    let plant = Plant::with_rules(1, rule).await;
    plant.send("gone", "kiln", &[1.0]).await;
    plant.send("kept", "kiln", &[1.0]).await;
    eventually(LIMIT, async || plant.processed().await.then_some(())).await;
    // The orderly stop writes the state of both, and the tombstone comes after that, as it would a month later.
    let plant = plant.restart().await;
    plant.forget_sensor("gone").await;
    let plant = plant.restart().await;
    let fired = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        all.iter().any(|t| t.alert.series == "kept").then_some(all)
    })
    .await;
    assert_eq!(fired.iter().filter(|t| t.alert.series == "gone").count(), 0, "{fired:?}");
    // A whole round of the worker later it is still so.
    plant.send("kept", "kiln", &[2.0]).await;
    let all = eventually(LIMIT, async || {
        let all = plant.transitions().await;
        all.iter().any(|t| t.kind == TransitionKind::Resolved).then_some(all)
    })
    .await;
    assert_eq!(all.iter().filter(|t| t.alert.series == "gone").count(), 0, "{all:?}");
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_that_wait_for_their_view_count_as_lag() {
    let plant = Plant::start(1).await;
    let lag = || plant.pipeline().views().snapshot().get("readings").map_or(0, |view| view.lag_records);
    let mut sent = 0;
    eventually(LIMIT, async || {
        plant.send("t-1", "temperature", &[20.0]).await;
        sent += 1;
        (lag() > 0).then_some(())
    })
    .await;
    eventually(LIMIT, async || (plant.values_in_view("t-1").await.len() == sent).then_some(())).await;
    eventually(LIMIT, async || (lag() == 0).then_some(())).await;
    plant.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_rebuilt_although_a_transaction_that_was_aborted_is_the_last_of_its_topic() {
    let plant = Plant::start(1).await;
    plant.append_in_vain(TopicPartition::new("alerts", 0)).await;
    let rebuilt = tokio::time::timeout(LIMIT, plant.rebuilt_alerts()).await;
    assert_eq!(rebuilt.expect("the rebuild ends"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_rules_are_found_however_much_lies_before_them() {
    let plant = Plant::start(1).await;
    // More than one poll brings.
    for _ in 0..4 {
        plant.publish_rules("other", vec![b' '; 6 << 20].into()).await;
    }
    let newest = br#"{"version":1,"rules":[{"name":"newest","select":"{}","above":1}]}"#;
    plant.publish_rules("rules", Bytes::from_static(newest)).await;
    let found = plant.published_rules().await;
    let names: Vec<_> = found.rules().iter().map(|rule| rule.definition().name.clone()).collect();
    assert_eq!(names, ["newest"]);
    plant.stop().await;
}

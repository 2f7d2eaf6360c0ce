//! The event stream: what comes, in which order, and what those get who were away or are slow.

use std::time::Duration;

use farol_bus::{Bus, ProducerRecord};
use farol_event::{Event, EventType, Timestamp};
use serde_json::json;
use uuid::Uuid;

use crate::support::{EventSource, Farol, ServerEvent};

/// Appends numbered events of a user's type.
async fn append(farol: &Farol, numbers: std::ops::Range<u32>) {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let records = numbers
        .map(|n| {
            let event = Event::new(
                Uuid::now_v7(),
                now,
                EventType::new("numbered"),
                format!("s{}", n % 7),
                &json!({"n": n}),
            );
            ProducerRecord::new(event.source.clone(), event.to_json(), now)
        })
        .collect();
    farol.bus.producer("test").await.unwrap().send("system-events", records).await.unwrap();
}

/// The next `count` numbers, in the order in which they came.
async fn numbers(stream: &mut EventSource, count: usize) -> (Vec<u64>, ServerEvent) {
    let mut found = Vec::new();
    loop {
        let event = stream.next_named("event").await;
        if event.data["type"] == "numbered" {
            found.push(event.data["data"]["n"].as_u64().unwrap());
            if found.len() == count {
                return (found, event);
            }
        }
    }
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn readings_alerts_and_events_come_as_they_happen() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("", &[]).await;
    let hello = stream.next().await;
    assert_eq!(hello.name, "hello");
    assert!(hello.id.is_some() && hello.data["version"].is_string());
    farol.reading("hot", 99.0).await;
    let (mut reading, mut alert) = (None, None);
    while reading.is_none() || alert.is_none() {
        let event = stream.next().await;
        match event.name.as_str() {
            "reading" => reading = Some(event),
            "alert" => alert = Some(event),
            _ => {}
        }
    }
    let reading = reading.unwrap().data;
    assert_eq!(reading["total"], 1);
    assert_eq!(reading["readings"][0]["sensor_id"], "hot");
    assert_eq!(reading["readings"][0]["value"], 99.0);
    assert_eq!(reading["readings"][0]["unit"], "°C");
    let alert = alert.unwrap();
    assert_eq!(alert.data["kind"], "fired");
    assert_eq!(alert.data["alert"]["series"], "hot");
    assert!(alert.id.is_some());
}

#[tokio::test]
async fn only_the_streams_asked_for_come() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?streams=event", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    farol.reading("hot", 99.0).await;
    farol.get_until("/api/alerts", |json| json["total"].as_u64().unwrap() > 0).await;
    append(&farol, 0..1).await;
    let (_, _) = numbers(&mut stream, 1).await;
    let mut pipeline = farol.stream("?streams=pipeline", &[]).await;
    assert_eq!(pipeline.next().await.name, "hello");
    farol.post_json("/api/workers/worker-1/stop", "").await;
    // Rebalances of the start may come first.
    let moved = loop {
        let event = pipeline.next_named("pipeline").await;
        let data = &event.data["data"];
        if event.data["type"] == "particoes_reatribuidas" && data["changes"][0]["change"] == "left" {
            break event;
        }
    };
    assert_eq!(moved.data["data"]["group"], "sensor-processors");
    assert_eq!(moved.data["data"]["changes"][0]["consumer_id"], "worker-1");
}

#[tokio::test]
async fn a_watched_sensor_shows_every_reading() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?streams=reading&sensor_id=a", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    // Watching starts with the first reading seen: readings before the follower stands at the end are not for it.
    let mut seen = Vec::new();
    let mut sent = 0_u32;
    while seen.is_empty() {
        farol.reading("a", f64::from(sent)).await;
        sent += 1;
        let next = tokio::time::timeout(Duration::from_millis(500), stream.next()).await;
        if let Ok(event) = next {
            seen.extend(
                event.data["readings"].as_array().unwrap().iter().map(|r| r["value"].as_f64().unwrap()),
            );
        }
    }
    let lines: String = (0..50)
        .map(|i| {
            format!("{{\"sensor_id\":\"a\",\"value\":{}}}\n{{\"sensor_id\":\"b\",\"value\":1}}\n", 1000 + i)
        })
        .collect();
    farol.post("/api/readings", "application/x-ndjson", lines).await;
    seen.clear();
    while seen.iter().filter(|v| **v >= 1000.0).count() < 50 {
        let event = stream.next_named("reading").await;
        let readings = event.data["readings"].as_array().unwrap().clone();
        assert!(readings.iter().all(|r| r["sensor_id"] == "a"));
        seen.extend(readings.iter().map(|r| r["value"].as_f64().unwrap()));
    }
    seen.retain(|v| *v >= 1000.0);
    assert_eq!(seen, (0..50).map(|i| f64::from(1000 + i)).collect::<Vec<_>>(), "all of them, in order, once");
}

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_missed() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?streams=event,alert", &[]).await;
    append(&farol, 0..40).await;
    let (first, _) = numbers(&mut stream, 25).await;
    // It goes away in the middle, at a frame that is not the last of its batch.
    let (more, last) = numbers(&mut stream, 5).await;
    drop(stream);
    let id = last.id.unwrap();
    append(&farol, 40..100).await;
    let mut again = farol.stream("?streams=event,alert", &[("last-event-id", &id)]).await;
    assert_eq!(again.next().await.name, "hello");
    append(&farol, 100..120).await;
    let (missed, _) = numbers(&mut again, 90).await;
    let all = sorted([first, more, missed].concat());
    assert_eq!(all, (0..120).collect::<Vec<u64>>(), "none missing, none twice");
    // The same by query parameter, and interrupted once more within the replay.
    let mut third = farol.stream(&format!("?streams=event&last_event_id={id}"), &[]).await;
    let (part, last) = numbers(&mut third, 33).await;
    drop(third);
    let mut fourth = farol.stream("?streams=event", &[("last-event-id", &last.id.unwrap())]).await;
    let (rest, _) = numbers(&mut fourth, 57).await;
    assert_eq!(sorted([part, rest].concat()).len(), 90);
    append(&farol, 120..121).await;
    assert_eq!(numbers(&mut fourth, 1).await.0, [120]);
}

#[tokio::test]
async fn the_hellos_id_resumes_too() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("", &[]).await;
    let id = stream.next().await.id.unwrap();
    drop(stream);
    append(&farol, 0..3).await;
    let mut again = farol.stream("?streams=event", &[("last-event-id", &id)]).await;
    assert_eq!(sorted(numbers(&mut again, 3).await.0), [0, 1, 2]);
}

#[tokio::test]
async fn a_client_that_was_away_for_too_long_is_told_to_fetch_anew() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?streams=event", &[]).await;
    let id = stream.next().await.id.unwrap();
    for start in (0..5100).step_by(1020) {
        append(&farol, start..start + 1020).await;
        numbers(&mut stream, 1020).await;
    }
    let mut again = farol.stream("?streams=event", &[("last-event-id", &id)]).await;
    assert_eq!(again.next().await.name, "hello");
    let gap = again.next().await;
    assert_eq!(gap.name, "gap");
    assert_eq!(gap.data["stream"], "event");
    assert!(gap.data["missed"].as_u64().unwrap() >= 5100);
    append(&farol, 9000..9001).await;
    assert_eq!(numbers(&mut again, 1).await.0, [9000], "and goes on from now");
    // An id of another log, from beyond the end of this one.
    let mut other = farol.stream("?streams=alert", &[("last-event-id", "1-99999.99999-9.9.9")]).await;
    assert_eq!(other.next().await.name, "hello");
    assert_eq!(other.next().await.name, "gap");
    // Something that is no id at all is ignored.
    let mut odd = farol.stream("?streams=event", &[("last-event-id", "whatever")]).await;
    assert_eq!(odd.next().await.name, "hello");
}

#[tokio::test]
async fn a_client_that_comes_back_sees_the_newest_reading_of_each_sensor() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?streams=reading", &[]).await;
    let id = stream.next().await.id.unwrap();
    drop(stream);
    farol.reading("a", 1.0).await;
    farol.reading("a", 2.0).await;
    farol.get_until("/api/sensors/a", |json| json["last_value"] == 2.0).await;
    let mut again = farol.stream("?streams=reading", &[("last-event-id", &id)]).await;
    assert_eq!(again.next().await.name, "hello");
    let newest = again.next_named("reading").await;
    assert_eq!(newest.data["readings"][0]["value"], 2.0);
}

#[tokio::test]
async fn a_slow_client_misses_frames_and_is_told_how_many() {
    let farol =
        Farol::start_with(|settings| settings.limits.write_stall_timeout = Duration::from_secs(600)).await;
    let mut slow = farol.stream("?streams=event", &[]).await;
    assert_eq!(slow.next().await.name, "hello");
    // Far more than the ring, the socket's buffers and the server's own hold, while the client takes nothing.
    let mut quick = farol.stream("?streams=event", &[]).await;
    let big = "x".repeat(400_000);
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let producer = farol.bus.producer("test").await.unwrap();
    const EVENTS: u64 = 100;
    for n in 0..EVENTS {
        let event =
            Event::new(Uuid::now_v7(), now, EventType::new("numbered"), "s", &json!({"n": n, "big": big}));
        producer.send("system-events", vec![ProducerRecord::new("s", event.to_json(), now)]).await.unwrap();
        assert_eq!(numbers(&mut quick, 1).await.0, [n], "a quick client misses nothing");
    }
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < EVENTS {
        let event = slow.next().await;
        match event.name.as_str() {
            "gap" => missed += event.data["missed"].as_u64().unwrap(),
            _ if event.data["type"] == "numbered" => seen += 1,
            _ => {}
        }
    }
    assert!(missed > 0);
    assert_eq!(seen + missed, EVENTS, "what it did not get is what it was told");
}

#[tokio::test]
async fn one_stream_too_many_is_told_to_come_again() {
    let farol = Farol::start_with(|settings| settings.limits.streams = 2).await;
    let first = farol.stream("", &[]).await;
    let _second = farol.stream("", &[]).await;
    farol.get("/api/stream").await.problem(503);
    assert_eq!(farol.get("/api/sensors").await.status, 200, "streams take no other request's place");
    drop(first);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while farol.get("/metrics").await.text().contains("farol_http_streams 2\n") {
        assert!(std::time::Instant::now() < deadline, "a closed stream's place is free again");
    }
    let mut third = farol.stream("", &[]).await;
    assert_eq!(third.next().await.name, "hello");
}

#[tokio::test]
async fn a_client_comes_back_also_with_many_partitions() {
    let farol = Farol::start_over("system-events", 200).await;
    let mut stream = farol.stream("?streams=event", &[]).await;
    append(&farol, 0..150).await;
    let (first, last) = numbers(&mut stream, 70).await;
    drop(stream);
    let mut again = farol.stream("?streams=event", &[("last-event-id", &last.id.unwrap())]).await;
    let (rest, _) = numbers(&mut again, 80).await;
    assert_eq!(sorted([first, rest].concat()), (0..150).collect::<Vec<u64>>(), "none missing, none twice");
}

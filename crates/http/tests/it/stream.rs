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

/// Appends one event.
async fn append_one(farol: &Farol, event_type: &str, source: &str) {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let event = Event::new(Uuid::now_v7(), now, EventType::new(event_type), source, &json!({}));
    let record = ProducerRecord::new(event.source.clone(), event.to_json(), now);
    farol.bus.producer("test").await.unwrap().send("system-events", vec![record]).await.unwrap();
}

/// The next event, whatever its name, as its type and source.
async fn next_fact(stream: &mut EventSource) -> (String, String) {
    let event = stream.next().await;
    let text = |field: &str| event.data[field].as_str().unwrap().to_owned();
    (text("type"), text("source"))
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
    // Rebalances of the start may come first, and the worker leaves its other group, too.
    let moved = loop {
        let event = pipeline.next_named("pipeline").await;
        let data = &event.data["data"];
        let of_readings = data["group"] == "sensor-processors";
        let reassigned = event.data["type"] == "particoes_reatribuidas";
        if of_readings && reassigned && data["changes"][0]["change"] == "left" {
            break event;
        }
    };
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

#[tokio::test]
async fn a_filtered_stream_brings_what_passes_every_filter_and_nothing_else() {
    let farol = Farol::start().await;
    let mut one = farol.stream("?type=simulacao_alterada&source=loja", &[]).await;
    let mut lists = farol.stream("?type=a,simulacao_alterada&type=b&source=loja&source=caixa", &[]).await;
    for stream in [&mut one, &mut lists] {
        assert_eq!(stream.next().await.name, "hello");
    }
    farol.reading("hot", 99.0).await;
    farol.get_until("/api/alerts", |json| json["total"].as_u64().unwrap() > 0).await;
    for (event_type, source) in [
        ("simulacao_alterada", "other"),
        ("servico_iniciado", "loja"),
        ("simulacao_alterada", "caixa"),
        ("b", "loja"),
        ("simulacao_alterada", "loja"),
    ] {
        append_one(&farol, event_type, source).await;
    }
    assert_eq!(next_fact(&mut one).await, ("simulacao_alterada".to_owned(), "loja".to_owned()));
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(next_fact(&mut lists).await);
    }
    found.sort();
    let expected = [("b", "loja"), ("simulacao_alterada", "caixa"), ("simulacao_alterada", "loja")];
    assert_eq!(found, expected.map(|(t, s)| (t.to_owned(), s.to_owned())));
}

#[tokio::test]
async fn alerts_are_picked_by_severity_and_series() {
    let farol = Farol::start().await;
    let mut severe = farol.stream("?severity=critical&source=hot,hotter", &[]).await;
    let mut milder = farol.stream("?events=alert&severity=warning,info", &[]).await;
    for stream in [&mut severe, &mut milder] {
        assert_eq!(stream.next().await.name, "hello");
    }
    // Over the warning level; then, of other series, over the critical one.
    farol.reading("warm", 36.0).await;
    // Other series are judged by other workers: one after the other, so that it is known which alert is first.
    farol.get_until("/api/alerts?source=warm", |json| json["total"].as_u64().unwrap() > 0).await;
    farol.reading("elsewhere", 99.0).await;
    farol.get_until("/api/alerts?source=elsewhere", |json| json["total"].as_u64().unwrap() > 0).await;
    farol.reading("hotter", 99.0).await;
    let alert = severe.next().await;
    assert_eq!(alert.name, "alert");
    assert_eq!(
        (&alert.data["alert"]["severity"], &alert.data["alert"]["series"]),
        (&json!("critical"), &json!("hotter"))
    );
    let alert = milder.next().await;
    assert_eq!(
        (&alert.data["alert"]["severity"], &alert.data["alert"]["series"]),
        (&json!("warning"), &json!("warm"))
    );
}

#[tokio::test]
async fn a_filtered_client_that_comes_back_gets_exactly_what_it_missed_of_its_own() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?type=mine", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    append_one(&farol, "mine", "s0").await;
    let first = stream.next().await;
    drop(stream);
    append(&farol, 0..50).await;
    append_one(&farol, "mine", "s1").await;
    append(&farol, 50..100).await;
    append_one(&farol, "mine", "s2").await;
    let mut again = farol.stream("?type=mine", &[("last-event-id", &first.id.unwrap())]).await;
    assert_eq!(again.next().await.name, "hello");
    append_one(&farol, "mine", "s3").await;
    let mut sources = Vec::new();
    for _ in 0..3 {
        let (event_type, source) = next_fact(&mut again).await;
        assert_eq!(event_type, "mine");
        sources.push(source);
    }
    sources.sort();
    assert_eq!(sources, ["s1", "s2", "s3"]);
}

#[tokio::test]
async fn nothing_is_made_for_the_stream_that_nobody_asked_for() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?type=mine", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    append(&farol, 0..100).await;
    append_one(&farol, "mine", "s3").await;
    assert_eq!(next_fact(&mut stream).await.0, "mine");
    let text = farol.get("/metrics").await.text().to_owned();
    let made = text.lines().find(|line| line.starts_with("farol_http_stream_frames_total{stream=\"event\"}"));
    assert_eq!(made, Some("farol_http_stream_frames_total{stream=\"event\"} 1"));
}

#[tokio::test]
async fn what_a_filter_lets_through_is_not_reported_missing_when_others_flood_the_stream() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?type=mine", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    // More than any ring holds; somebody wants them, so that frames are made of them.
    let mut all = farol.stream("?events=event", &[]).await;
    for start in (0..5000).step_by(1000) {
        append(&farol, start..start + 1000).await;
        numbers(&mut all, 1000).await;
    }
    append_one(&farol, "mine", "s").await;
    assert_eq!(stream.next().await.name, "event", "no gap before it");
}

#[tokio::test]
async fn a_silent_filtered_stream_tells_how_far_it_is() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?type=mine", &[]).await;
    let before = stream.next().await.id.unwrap();
    append(&farol, 0..20).await;
    let told = tokio::time::timeout(Duration::from_secs(30), stream.next_id_alone()).await.unwrap();
    assert_ne!(told, before);
    append_one(&farol, "mine", "s").await;
    let mut again = farol.stream("?events=event", &[("last-event-id", &told)]).await;
    assert_eq!(again.next().await.name, "hello");
    assert_eq!(next_fact(&mut again).await.0, "mine", "nothing of what was before the id comes again");
}

#[tokio::test]
async fn several_sensors_are_watched_at_once() {
    let farol = Farol::start().await;
    let mut stream = farol.stream("?events=reading&sensor_id=a,b", &[]).await;
    assert_eq!(stream.next().await.name, "hello");
    let mut seen = std::collections::BTreeSet::new();
    // Watching starts when the follower stands at the end.
    while seen.len() < 2 {
        for sensor in ["a", "b", "c"] {
            farol.reading(sensor, 1.0).await;
        }
        while let Ok(event) = tokio::time::timeout(Duration::from_millis(500), stream.next()).await {
            let readings = event.data["readings"].as_array().unwrap();
            seen.extend(readings.iter().map(|r| r["sensor_id"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

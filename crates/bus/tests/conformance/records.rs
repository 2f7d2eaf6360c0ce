//! Topics, sending, reading.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use farol_bus::{
    BusError, ConsumerSettings, OffsetSpec, Partitioning, Polled, ProducerRecord, StartAt, TopicPartition,
    TopicSpec,
};

use super::{
    Engine, LIMIT, content, eventually, eventually_read, number, numbered, read, reader, record, topic,
    unique,
};

pub async fn a_topic_is_listed_and_refuses_to_be_made_twice(engine: &mut impl Engine) {
    let bus = engine.bus();
    let name = topic(&bus, "listed", 3, &[("retention.ms", "60000")]).await;
    let listed = bus.topics().await.unwrap().into_iter().find(|t| *t.name == *name).unwrap();
    assert_eq!(listed.partitions, 3);
    assert_eq!(listed.config, BTreeMap::from([("retention.ms".to_owned(), "60000".to_owned())]));
    let again = TopicSpec { name: name.clone(), partitions: 1, config: BTreeMap::new() };
    assert!(matches!(bus.create_topic(again).await, Err(BusError::TopicExists(topic)) if topic == name));
}

pub async fn a_topic_takes_another_configuration_and_keeps_its_records_and_it_over_a_restart(
    engine: &mut impl Engine,
) {
    let bus = engine.bus();
    let name = topic(&bus, "configured", 1, &[("retention.ms", "60000"), ("segment.bytes", "1048576")]).await;
    // Younger than the retention.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let young = ProducerRecord { timestamp_ms: i64::try_from(now.as_millis()).unwrap(), ..numbered(1) };
    bus.producer("p").await.unwrap().send(&name, vec![young]).await.unwrap();
    let config = BTreeMap::from([("retention.ms".to_owned(), "120000".to_owned())]);
    bus.configure_topic(&name, config.clone()).await.unwrap();
    let bad = BTreeMap::from([("retention.ms".to_owned(), "soon".to_owned())]);
    let refused = bus.configure_topic(&name, bad).await;
    assert!(matches!(refused, Err(BusError::InvalidTopic { .. })), "{refused:?}");
    let absent = bus.configure_topic("absent", config.clone()).await;
    assert!(matches!(absent, Err(BusError::UnknownTopicOrPartition(_))), "{absent:?}");
    drop(bus);
    engine.restart().await;
    let bus = engine.bus();
    let listed = bus.topics().await.unwrap().into_iter().find(|t| *t.name == *name).unwrap();
    assert_eq!((listed.partitions, listed.config), (1, config));
    assert_eq!(read(&mut reader(&bus, &name).await, 1).await.len(), 1);
}

pub async fn a_topic_gets_more_partitions_that_can_be_used_at_once_and_never_fewer(engine: &mut impl Engine) {
    let bus = engine.bus();
    let name = topic(&bus, "grown", 1, &[]).await;
    let count =
        async || bus.topics().await.unwrap().into_iter().find(|t| *t.name == *name).unwrap().partitions;
    let producer = bus.producer("p").await.unwrap();
    producer.send(&name, vec![numbered(1)]).await.unwrap();
    for (wanted, has) in [(4, 4), (4, 4), (2, 4)] {
        bus.grow_topic(&name, wanted).await.unwrap();
        assert_eq!(count().await, has, "{wanted} were wanted");
    }
    let last = ProducerRecord { partitioning: Partitioning::Explicit(3), ..numbered(2) };
    let producer = bus.producer("later").await.unwrap();
    let written = producer.send(&name, vec![last]).await.unwrap();
    assert_eq!(written[0].partition, 3);
    let absent = bus.grow_topic("absent", 2).await;
    assert!(matches!(absent, Err(BusError::UnknownTopicOrPartition(_))), "{absent:?}");
}

pub async fn unusable_topics_are_refused_with_the_reason(engine: &mut impl Engine) {
    let bus = engine.bus();
    let refused = |name: &str, partitions, config: &[(&str, &str)]| {
        let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let spec = TopicSpec { name: name.to_owned(), partitions, config };
        let bus = bus.clone();
        async move { bus.create_topic(spec).await.unwrap_err() }
    };
    for name in ["", "..", "a/b", "with space", &"x".repeat(250)] {
        assert!(matches!(refused(name, 1, &[]).await, BusError::InvalidTopic { .. }), "{name:?}");
    }
    for partitions in [0, -1] {
        assert!(matches!(refused(&unique("p"), partitions, &[]).await, BusError::InvalidTopic { .. }));
    }
    let error = refused(&unique("c"), 1, &[("retention.ms", "soon")]).await;
    assert!(error.to_string().contains("retention.ms"), "{error}");
    let error = bus.producer("p").await.unwrap().send("absent", vec![numbered(1)]).await.unwrap_err();
    assert!(matches!(error, BusError::UnknownTopicOrPartition(_)), "{error}");
}

pub async fn a_record_comes_back_with_everything_it_carried(engine: &mut impl Engine) {
    let bus = engine.bus();
    for compression in ["uncompressed", "gzip", "snappy", "lz4", "zstd"] {
        let topic = topic(&bus, "whole", 1, &[("compression.type", compression)]).await;
        let sent = [
            ProducerRecord {
                headers: vec![("a".into(), "1".into()), ("b".into(), Bytes::new()), ("a".into(), "2".into())],
                ..record("key", "value")
            },
            ProducerRecord { key: None, ..record("", Bytes::from(vec![0u8, 255, 10])) },
            ProducerRecord { value: None, timestamp_ms: 1, ..record("dead", "") },
            record("", ""),
        ];
        bus.producer("p").await.unwrap().send(&topic, sent.to_vec()).await.unwrap();
        let read = read(&mut reader(&bus, &topic).await, sent.len()).await;
        for (index, ((_, read), sent)) in read.iter().zip(&sent).enumerate() {
            assert_eq!(read.offset, i64::try_from(index).unwrap());
            assert_eq!(
                (&read.key, &read.value, read.timestamp_ms, &read.headers),
                (&sent.key, &sent.value, sent.timestamp_ms, &sent.headers),
                "{compression}"
            );
        }
    }
}

pub async fn records_of_a_key_keep_their_order_and_their_partition(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "ordered", 3, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    for chunk in 0..20 {
        let sent =
            producer.send(&topic, (chunk * 50..(chunk + 1) * 50).map(numbered).collect()).await.unwrap();
        assert_eq!(sent.len(), 50);
    }
    let read = read(&mut reader(&bus, &topic).await, 1000).await;
    let mut by_key: BTreeMap<Bytes, (i32, Vec<u32>)> = BTreeMap::new();
    for (partition, record) in &read {
        let entry = by_key.entry(record.key.clone().unwrap()).or_insert((partition.partition, Vec::new()));
        assert_eq!(entry.0, partition.partition, "a key has one partition");
        entry.1.push(number(record));
    }
    assert_eq!(by_key.len(), 10);
    for (key, (_, numbers)) in by_key {
        assert_eq!(numbers.len(), 100);
        assert!(numbers.is_sorted(), "{key:?}");
    }
}

pub async fn keys_go_where_kafkas_clients_put_them(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "murmur", 3, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    // murmur2 of the Java client: 21 → -973932308, foobar → -790332482, abc → 479470107; positive, modulo 3.
    for (key, hash) in [("21", -973_932_308i32), ("foobar", -790_332_482), ("abc", 479_470_107)] {
        let sent = producer.send(&topic, vec![record(key, "x")]).await.unwrap();
        assert_eq!(sent[0].partition, (hash & 0x7fff_ffff) % 3, "{key}");
    }
}

pub async fn metadata_tells_where_each_record_stands(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "metadata", 4, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    // More than one batch for each partition, and partitions in no order.
    let records: Vec<_> = (0..400)
        .map(|n: u32| ProducerRecord {
            partitioning: match n % 3 {
                0 => Partitioning::ByKey,
                _ => Partitioning::Explicit(i32::try_from(n * 7 % 4).unwrap()),
            },
            ..record(&format!("k{n}"), format!("{n:>12000}"))
        })
        .collect();
    let mut expected = BTreeMap::new();
    for _ in 0..2 {
        let sent = producer.send(&topic, records.clone()).await.unwrap();
        for (record, sent) in records.iter().zip(sent) {
            let place = (sent.partition, sent.offset);
            assert_eq!(expected.insert(place, record.value.clone()), None, "{place:?} twice");
        }
    }
    let found: BTreeMap<_, _> = read(&mut reader(&bus, &topic).await, 800)
        .await
        .into_iter()
        .map(|(partition, record)| ((partition.partition, record.offset), record.value))
        .collect();
    assert_eq!(found, expected);
}

pub async fn a_record_that_is_too_large_is_refused_and_never_stored(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "large", 1, &[("max.message.bytes", "4096")]).await;
    let producer = bus.producer("p").await.unwrap();
    let error = producer.send(&topic, vec![record("k", vec![b'x'; 5000])]).await.unwrap_err();
    assert!(matches!(error, BusError::TooLarge { what: "record", limit: 4096, .. }), "{error}");
    let error = producer
        .send(&topic, vec![ProducerRecord { partitioning: Partitioning::Explicit(1), ..numbered(1) }])
        .await
        .unwrap_err();
    assert!(matches!(error, BusError::UnknownTopicOrPartition(_)), "{error}");
    assert_eq!(producer.send(&topic, Vec::new()).await.unwrap(), []);
    // The producer goes on.
    producer.send(&topic, vec![numbered(2)]).await.unwrap();
    assert_eq!(content(&bus, &topic).await.len(), 1);
}

pub async fn a_waiting_poll_is_woken_by_a_record(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "woken", 2, &[]).await;
    let mut consumer = reader(&bus, &topic).await;
    let waiting = tokio::spawn(async move { consumer.poll(Duration::from_secs(600)).await });
    tokio::task::yield_now().await;
    bus.producer("p").await.unwrap().send(&topic, vec![numbered(7)]).await.unwrap();
    let polled = tokio::time::timeout(LIMIT, waiting).await.expect("the poll is woken").unwrap().unwrap();
    let Polled::Records(batches) = polled else { panic!("{polled:?}") };
    assert_eq!(number(&batches[0].records[0]), 7);
}

pub async fn a_poll_that_is_dropped_loses_no_record(engine: &mut impl Engine) {
    const RECORDS: u32 = 20_000;
    let bus = engine.bus();
    let topic = topic(&bus, "dropped", 3, &[("compression.type", "lz4")]).await;
    let producer = bus.producer("p").await.unwrap();
    let mut settings = ConsumerSettings::standalone("dropper");
    settings.max_bytes = 16 * 1024;
    let mut consumer = bus.consumer(settings).await.unwrap();
    let all = (0..3).map(|p| (TopicPartition::new(topic.as_str(), p), StartAt::Earliest)).collect();
    consumer.assign(all).await.unwrap();
    let sending = tokio::spawn(async move {
        for chunk in 0..20 {
            let numbers = chunk * RECORDS / 20..(chunk + 1) * RECORDS / 20;
            producer.send(&topic, numbers.map(numbered).collect()).await.unwrap();
        }
    });
    let mut seen = vec![0u8; usize::try_from(RECORDS).unwrap()];
    let (mut count, mut dropped, mut patience) = (0, 0, 0u64);
    let started = std::time::Instant::now();
    while count < RECORDS {
        assert!(started.elapsed() < LIMIT, "{count} records came, {dropped} polls were dropped");
        // Dropped at every point that it can be: at once, or after some microseconds.
        patience = (patience + 37) % 400;
        let poll = consumer.poll(Duration::from_secs(5));
        match tokio::time::timeout(Duration::from_micros(patience), poll).await {
            Err(_) => dropped += 1,
            Ok(Ok(Polled::Records(batches))) => {
                for record in batches.iter().flat_map(|batch| &batch.records) {
                    let seen = &mut seen[usize::try_from(number(record)).unwrap()];
                    *seen += 1;
                    assert_eq!(*seen, 1, "a record came twice");
                    count += 1;
                }
            }
            Ok(other) => panic!("{other:?}"),
        }
    }
    sending.await.unwrap();
    assert!(dropped > 0, "no poll was dropped");
}

pub async fn a_poll_takes_no_more_than_its_bytes_and_is_fair(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "fair", 4, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    let in_partition = |partition: i32, records: usize| -> Vec<ProducerRecord> {
        let one = ProducerRecord {
            partitioning: Partitioning::Explicit(partition),
            ..record("k", vec![b'x'; 1000])
        };
        vec![one; records]
    };
    for _ in 0..100 {
        producer.send(&topic, in_partition(0, 20)).await.unwrap();
    }
    for partition in 1..4 {
        producer.send(&topic, in_partition(partition, 20)).await.unwrap();
    }
    let mut settings = ConsumerSettings::standalone("fair");
    settings.max_bytes = 100_000;
    let mut consumer = bus.consumer(settings).await.unwrap();
    let all = (0..4).map(|p| (TopicPartition::new(topic.as_str(), p), StartAt::Earliest)).collect();
    consumer.assign(all).await.unwrap();
    let (mut polls, mut complete, mut records) = (0, Vec::new(), 0);
    let mut by_partition = BTreeMap::<i32, usize>::new();
    while records < 2060 {
        polls += 1;
        assert!(polls < 200, "{records} records in {polls} polls");
        let Polled::Records(batches) = consumer.poll(Duration::from_secs(5)).await.unwrap() else { panic!() };
        let bytes: usize =
            batches.iter().flat_map(|b| &b.records).map(|r| r.value.as_ref().map_or(0, Bytes::len)).sum();
        assert!(bytes <= 125_000, "{bytes} bytes: over the bound by more than one batch");
        for batch in batches {
            records += batch.records.len();
            let count = by_partition.entry(batch.partition.partition).or_default();
            *count += batch.records.len();
            if batch.partition.partition > 0 && *count == 20 {
                complete.push(polls);
            }
        }
    }
    assert_eq!(complete.len(), 3);
    assert!(complete.iter().all(|poll| *poll <= 8), "the full partition held the others up: {complete:?}");
}

pub async fn a_standalone_consumer_starts_where_it_is_told_and_seeks(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "assigned", 1, &[]).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let producer = bus.producer("p").await.unwrap();
    for n in 0..5 {
        producer.send(&topic, vec![numbered(2 * n), numbered(2 * n + 1)]).await.unwrap();
    }
    let mut consumer = bus.consumer(ConsumerSettings::standalone("s")).await.unwrap();
    assert!(matches!(consumer.poll(Duration::ZERO).await, Err(BusError::InvalidState(_))));
    assert!(matches!(consumer.seek(&partition, 1), Err(BusError::InvalidState(_))));
    for (start, first) in [(StartAt::Earliest, 0), (StartAt::Offset(7), 7)] {
        consumer.assign(vec![(partition.clone(), start)]).await.unwrap();
        let read = read(&mut consumer, 10 - usize::try_from(first).unwrap()).await;
        assert_eq!(number(&read[0].1), first);
    }
    consumer.assign(vec![(partition.clone(), StartAt::Latest)]).await.unwrap();
    let Polled::Records(none) = consumer.poll(Duration::ZERO).await.unwrap() else { panic!() };
    assert!(none.is_empty());
    // Into the middle of a batch, backwards and forwards.
    for (offset, count) in [(3, 7), (9, 1), (0, 10)] {
        consumer.seek(&partition, offset).unwrap();
        assert_eq!(consumer.position(&partition), Some(offset));
        let read = read(&mut consumer, count).await;
        assert_eq!(read[0].1.offset, offset);
        assert_eq!(consumer.position(&partition), Some(10));
    }
    assert_eq!(consumer.position(&TopicPartition::new(topic.as_str(), 1)), None);
    assert!(matches!(consumer.subscribe(&[&topic]).await, Err(BusError::InvalidState(_))));
    assert!(matches!(consumer.commit(BTreeMap::new()).await, Err(BusError::InvalidState(_))));
    let absent = vec![(TopicPartition::new(topic.as_str(), 1), StartAt::Earliest)];
    assert!(matches!(consumer.assign(absent).await, Err(BusError::UnknownTopicOrPartition(_))));
}

pub async fn a_topic_that_is_deleted_and_made_again_is_read_from_its_start(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "again", 1, &[]).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    bus.producer("p").await.unwrap().send(&topic, (0..10).map(numbered).collect()).await.unwrap();
    let mut consumer = reader(&bus, &topic).await;
    read(&mut consumer, 10).await;
    engine.delete_topic(&topic).await;
    let spec = TopicSpec { name: topic.clone(), partitions: 1, config: BTreeMap::new() };
    bus.create_topic(spec).await.unwrap();
    // Fewer than were read of the one before, so that each has an offset that was read already.
    bus.producer("q").await.unwrap().send(&topic, (100..108).map(numbered).collect()).await.unwrap();
    let mut numbers = Vec::new();
    eventually_read(&mut consumer, |record| {
        assert_eq!(record.offset, i64::try_from(numbers.len()).unwrap());
        numbers.push(number(record));
        numbers.len() == 8
    })
    .await;
    assert_eq!(numbers, (100..108).collect::<Vec<_>>());
    assert_eq!(consumer.position(&partition), Some(8));
}

pub async fn offsets_are_found_by_place_and_by_time(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "times", 2, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    for n in 0..10i64 {
        let record = ProducerRecord {
            partitioning: Partitioning::Explicit(0),
            timestamp_ms: 1_000_000 + n * 1000,
            ..record("k", "v")
        };
        producer.send(&topic, vec![record]).await.unwrap();
    }
    let (full, empty) = (TopicPartition::new(topic.as_str(), 0), TopicPartition::new(topic.as_str(), 1));
    let both = [full.clone(), empty.clone()];
    for (spec, in_full) in [
        (OffsetSpec::Earliest, 0),
        (OffsetSpec::Latest, 10),
        (OffsetSpec::Timestamp(0), 0),
        (OffsetSpec::Timestamp(1_003_000), 3),
        (OffsetSpec::Timestamp(1_003_001), 4),
        (OffsetSpec::Timestamp(2_000_000), 10),
    ] {
        let expected = BTreeMap::from([(full.clone(), in_full), (empty.clone(), 0)]);
        assert_eq!(bus.offsets(&both, spec).await.unwrap(), expected, "{spec:?}");
    }
    let absent = [TopicPartition::new("absent", 0)];
    assert!(bus.offsets(&absent, OffsetSpec::Latest).await.is_err());
}

pub async fn a_compacted_topic_keeps_the_newest_of_each_key(engine: &mut impl Engine) {
    let bus = engine.bus();
    let config = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
    let topic = topic(&bus, "compacted", 1, &config).await;
    let producer = bus.producer("p").await.unwrap();
    let padding = "x".repeat(2000);
    let mut sent = 0;
    for round in 0..100u32 {
        let records: Vec<_> =
            (0..50).map(|key| record(&format!("k{key}"), format!("{round} {padding}"))).collect();
        sent += records.len();
        producer.send(&topic, records).await.unwrap();
    }
    let newest = eventually("compaction", || async {
        let content = content(&bus, &topic).await;
        let newest: BTreeMap<Bytes, Bytes> =
            content.iter().map(|(_, r)| (r.key.clone().unwrap(), r.value.clone().unwrap())).collect();
        assert_eq!(newest.len(), 50, "no key is lost at any time");
        assert!(newest.values().all(|value| value.starts_with(b"99 ")), "the newest stays at all times");
        (content.len() < sent / 2).then_some(newest)
    })
    .await;
    assert_eq!(newest.len(), 50);
}

pub async fn records_and_topics_are_there_after_a_restart(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "kept", 3, &[("compression.type", "zstd")]).await;
    let producer = bus.producer("p").await.unwrap();
    producer.send(&topic, (0..500).map(numbered).collect()).await.unwrap();
    let before: Vec<_> =
        content(&bus, &topic).await.into_iter().map(|(p, r)| (p, r.offset, r.value)).collect();
    drop((producer, bus));
    engine.restart().await;
    let bus = engine.bus();
    let mut after: Vec<_> =
        content(&bus, &topic).await.into_iter().map(|(p, r)| (p, r.offset, r.value)).collect();
    let mut before = before;
    before.sort();
    after.sort();
    assert_eq!(after.len(), 500);
    assert_eq!(after, before);
    let listed = bus.topics().await.unwrap().into_iter().find(|t| *t.name == *topic).unwrap();
    assert_eq!((listed.partitions, listed.config.len()), (3, 1));
}

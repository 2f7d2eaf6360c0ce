//! Transactions: all or nothing, fenced.

use std::collections::BTreeMap;

use farol_bus::{BusError, GroupMetadata, OffsetSpec, Polled, TopicPartition};

use super::{
    Engine, LIMIT, assigned, assigned_beside, content, member, next_offsets, numbered, read, reader, record,
    topic, unique,
};

pub async fn records_and_offsets_of_a_transaction_appear_together(engine: &mut impl Engine) {
    let bus = engine.bus();
    let input = topic(&bus, "in", 1, &[]).await;
    let outputs =
        [topic(&bus, "out", 3, &[]).await, topic(&bus, "out", 1, &[("compression.type", "lz4")]).await];
    let group = unique("g");
    bus.producer("p").await.unwrap().send(&input, (0..10).map(numbered).collect()).await.unwrap();
    let mut consumer = member(&bus, "m", &group, &input).await;
    assigned(&mut consumer).await;
    let consumed = read(&mut consumer, 10).await;
    let offsets = next_offsets(&consumed);

    let mut transaction = bus.transactional_producer(&unique("tx")).await.unwrap();
    transaction.begin().unwrap();
    transaction.send(&outputs[0], (0..6).map(numbered).collect()).await.unwrap();
    transaction.send(&outputs[1], (6..10).map(numbered).collect()).await.unwrap();
    transaction.send(&outputs[0], vec![numbered(10)]).await.unwrap();
    transaction.send_offsets(offsets.clone(), &consumer.group_metadata()).await.unwrap();
    for output in &outputs {
        assert!(content(&bus, output).await.is_empty(), "nothing is seen before the commit");
    }
    assert!(bus.committed(&group).await.unwrap().is_empty());
    transaction.commit().await.unwrap();
    assert_eq!(read(&mut reader(&bus, &outputs[0]).await, 7).await.len(), 7);
    assert_eq!(read(&mut reader(&bus, &outputs[1]).await, 4).await.len(), 4);
    assert_eq!(bus.committed(&group).await.unwrap(), offsets);

    // The same producer goes on.
    transaction.begin().unwrap();
    transaction.send(&outputs[1], vec![numbered(11)]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(read(&mut reader(&bus, &outputs[1]).await, 5).await.len(), 5);
    drop((transaction, consumer, bus));
    engine.restart().await;
    assert_eq!(engine.bus().committed(&group).await.unwrap(), offsets);
    assert_eq!(content(&engine.bus(), &outputs[0]).await.len(), 7);
}

pub async fn an_aborted_transaction_is_never_seen(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "aborted", 1, &[]).await;
    let mut transaction = bus.transactional_producer(&unique("tx")).await.unwrap();
    assert!(matches!(transaction.commit().await, Err(BusError::InvalidState(_))));
    assert!(matches!(transaction.abort().await, Err(BusError::InvalidState(_))));
    assert!(matches!(transaction.send(&topic, vec![]).await, Err(BusError::InvalidState(_))));
    transaction.begin().unwrap();
    assert!(matches!(transaction.begin(), Err(BusError::InvalidState(_))));
    transaction.send(&topic, (0..5).map(numbered).collect()).await.unwrap();
    transaction.abort().await.unwrap();
    transaction.begin().unwrap();
    transaction.send(&topic, vec![record("k", "kept")]).await.unwrap();
    transaction.commit().await.unwrap();
    // Dropped while open: as if aborted.
    transaction.begin().unwrap();
    transaction.send(&topic, (0..5).map(numbered).collect()).await.unwrap();
    drop(transaction);
    let read = read(&mut reader(&bus, &topic).await, 1).await;
    assert_eq!(read[0].1.value.as_deref(), Some(&b"kept"[..]));
}

pub async fn a_transaction_with_a_failed_send_can_only_be_aborted(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "broken", 1, &[("max.message.bytes", "4096")]).await;
    let mut transaction = bus.transactional_producer(&unique("tx")).await.unwrap();
    transaction.begin().unwrap();
    transaction.send(&topic, vec![numbered(1)]).await.unwrap();
    // Told at once, or by the commit.
    match transaction.send(&topic, vec![record("k", vec![0; 5000])]).await {
        Err(error) => {
            assert!(matches!(error, BusError::TooLarge { .. }), "{error}");
            assert!(matches!(transaction.commit().await, Err(BusError::InvalidState(_))));
            transaction.abort().await.unwrap();
        }
        Ok(()) => {
            let error = transaction.commit().await.unwrap_err();
            assert!(matches!(error, BusError::TooLarge { .. }), "{error}");
            assert!(matches!(transaction.abort().await, Err(BusError::InvalidState(_))), "it has ended");
        }
    }
    assert!(content(&bus, &topic).await.is_empty());
    transaction.begin().unwrap();
    transaction.send(&topic, vec![numbered(2)]).await.unwrap();
    transaction.commit().await.unwrap();
    read(&mut reader(&bus, &topic).await, 1).await;
}

pub async fn a_newer_producer_fences_the_older_one(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (topic, id) = (topic(&bus, "fenced", 1, &[]).await, unique("tx"));
    let mut older = bus.transactional_producer(&id).await.unwrap();
    older.begin().unwrap();
    older.send(&topic, vec![record("k", "older")]).await.unwrap();
    let mut newer = bus.transactional_producer(&id).await.unwrap();
    assert!(matches!(older.commit().await, Err(BusError::Fenced(_))));
    assert!(matches!(older.begin(), Err(BusError::Fenced(_))), "it stays fenced");
    newer.begin().unwrap();
    newer.send(&topic, vec![record("k", "newer")]).await.unwrap();
    newer.commit().await.unwrap();
    // Also when the newer one is gone, and another one has come.
    drop(newer);
    assert!(matches!(older.begin(), Err(BusError::Fenced(_))));
    bus.transactional_producer(&id).await.unwrap().begin().unwrap();
    let read = read(&mut reader(&bus, &topic).await, 1).await;
    assert_eq!(read[0].1.value.as_deref(), Some(&b"newer"[..]));
}

pub async fn the_position_moves_over_the_markers_of_transactions(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "markers", 1, &[]).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let mut consumer = reader(&bus, &topic).await;
    let mut transaction = bus.transactional_producer(&unique("tx")).await.unwrap();
    transaction.begin().unwrap();
    transaction.send(&topic, vec![numbered(1)]).await.unwrap();
    transaction.commit().await.unwrap();
    transaction.begin().unwrap();
    transaction.send(&topic, (2..5).map(numbered).collect()).await.unwrap();
    transaction.abort().await.unwrap();
    read(&mut consumer, 1).await;
    let end = bus.offsets(std::slice::from_ref(&partition), OffsetSpec::Latest).await.unwrap()[&partition];
    let started = std::time::Instant::now();
    while consumer.position(&partition).unwrap() < end {
        let polled = consumer.poll(std::time::Duration::from_millis(50)).await.unwrap();
        assert!(matches!(&polled, Polled::Records(none) if none.is_empty()), "{polled:?}");
        assert!(started.elapsed() < LIMIT, "{:?} of {end}", consumer.position(&partition));
    }
    assert_eq!(consumer.position(&partition), Some(end));
    // Back over them, and the record is there again.
    consumer.seek(&partition, 0).unwrap();
    read(&mut consumer, 1).await;
}

pub async fn a_member_of_an_older_generation_cannot_commit_a_transaction(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (input, output, group) =
        (topic(&bus, "in", 2, &[]).await, topic(&bus, "out", 1, &[]).await, unique("g"));
    bus.producer("p").await.unwrap().send(&input, (0..40).map(numbered).collect()).await.unwrap();
    let mut first = member(&bus, "first", &group, &input).await;
    assigned(&mut first).await;
    let consumed = next_offsets(&read(&mut first, 40).await);
    let stale = first.group_metadata();
    let mut second = member(&bus, "second", &group, &input).await;
    let polled = tokio::time::timeout(LIMIT, first.poll(LIMIT)).await.unwrap().unwrap();
    let Polled::Revoked(revoked) = polled else { panic!("{polled:?}") };
    first.poll(std::time::Duration::ZERO).await.unwrap();
    let gained = assigned_beside(&mut second, &mut first).await;
    assert_eq!(gained.partitions, [(revoked[0].clone(), 0)]);

    let mut transaction = bus.transactional_producer(&unique("tx")).await.unwrap();
    // An older generation, and nobody at all.
    let lost = BTreeMap::from([(revoked[0].clone(), consumed[&revoked[0]])]);
    let nobody = GroupMetadata::new(group.as_str(), "nobody", 1);
    for (offsets, metadata) in [(&consumed, &stale), (&consumed, &nobody)] {
        transaction.begin().unwrap();
        transaction.send(&output, vec![record("k", "never")]).await.unwrap();
        transaction.send_offsets(offsets.clone(), metadata).await.unwrap();
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(error, BusError::Fenced(_)), "{error}");
    }
    assert!(content(&bus, &output).await.is_empty(), "nothing of a fenced transaction is written");
    assert!(bus.committed(&group).await.unwrap().is_empty());

    // What stayed can be committed, and what moved, by its new owner.
    let kept: BTreeMap<TopicPartition, i64> =
        consumed.iter().filter(|(p, _)| !revoked.contains(p)).map(|(p, o)| (p.clone(), *o)).collect();
    first.poll(std::time::Duration::from_millis(20)).await.unwrap();
    let present = first.group_metadata();
    assert!(present.generation > stale.generation);
    transaction.begin().unwrap();
    transaction.send_offsets(kept, &present).await.unwrap();
    transaction.commit().await.unwrap();
    transaction.begin().unwrap();
    transaction.send_offsets(lost, &second.group_metadata()).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(bus.committed(&group).await.unwrap(), consumed);
}

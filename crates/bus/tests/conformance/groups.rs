//! Consumer groups: sharing, moving, committing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use farol_bus::{
    Bus, BusError, Consumer, ConsumerSettings, LeaveReason, OffsetReset, Polled, RebalanceCause,
    TopicPartition,
};
use tokio::task::JoinHandle;

use super::{
    Engine, LIMIT, assigned, assigned_beside, eventually, member, next_offsets, number, numbered, read,
    topic, unique,
};

pub async fn a_member_gets_every_partition_and_its_commits_are_kept(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (topic, group) = (topic(&bus, "shared", 3, &[]).await, unique("g"));
    let producer = bus.producer("p").await.unwrap();
    producer.send(&topic, (0..100).map(numbered).collect()).await.unwrap();
    let mut consumer = member(&bus, "m", &group, &topic).await;
    let assignment = assigned(&mut consumer).await;
    assert_eq!(assignment.partitions.len(), 3);
    assert!(assignment.partitions.iter().all(|(_, offset)| *offset == 0));
    let first = read(&mut consumer, 100).await;
    let offsets = next_offsets(&first);
    consumer.commit(offsets.clone()).await.unwrap();
    assert_eq!(bus.committed(&group).await.unwrap(), offsets);
    consumer.close().await.unwrap();
    drop((consumer, producer, bus));

    engine.restart().await;
    let bus = engine.bus();
    assert_eq!(bus.committed(&group).await.unwrap(), offsets, "committed offsets outlive the process");
    assert!(bus.groups().await.unwrap().iter().any(|g| g.group == group && g.members.is_empty()));
    bus.producer("p").await.unwrap().send(&topic, (100..120).map(numbered).collect()).await.unwrap();
    let mut consumer = member(&bus, "m", &group, &topic).await;
    let resumed: BTreeMap<_, _> = assigned(&mut consumer).await.partitions.into_iter().collect();
    assert_eq!(resumed, offsets);
    let second = read(&mut consumer, 20).await;
    assert!(second.iter().all(|(_, record)| number(record) >= 100), "nothing committed comes again");
}

pub async fn without_a_commit_the_settings_say_where_to_start(engine: &mut impl Engine) {
    let bus = engine.bus();
    let topic = topic(&bus, "reset", 1, &[]).await;
    let producer = bus.producer("p").await.unwrap();
    producer.send(&topic, (0..10).map(numbered).collect()).await.unwrap();
    for (reset, start) in [(OffsetReset::Earliest, 0), (OffsetReset::Latest, 10)] {
        let mut settings = ConsumerSettings::member("m", unique("g"));
        settings.offset_reset = reset;
        let mut consumer = bus.consumer(settings).await.unwrap();
        consumer.subscribe(&[&topic]).await.unwrap();
        assert_eq!(
            assigned(&mut consumer).await.partitions,
            [(TopicPartition::new(topic.as_str(), 0), start)]
        );
    }
}

pub async fn a_leaving_members_partitions_resume_from_its_commit(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (topic, group) = (topic(&bus, "resumed", 2, &[]).await, unique("g"));
    let producer = bus.producer("p").await.unwrap();
    producer.send(&topic, (0..50).map(numbered).collect()).await.unwrap();
    let mut first = member(&bus, "first", &group, &topic).await;
    assigned(&mut first).await;
    let done = read(&mut first, 50).await;
    first.commit(next_offsets(&done)).await.unwrap();
    producer.send(&topic, (50..80).map(numbered).collect()).await.unwrap();
    // Read and not committed: the next owner's.
    read(&mut first, 30).await;
    let mut second = member(&bus, "second", &group, &topic).await;
    drop(first);
    let mut again = Vec::new();
    let started = Instant::now();
    while again.len() < 30 {
        assert!(started.elapsed() < LIMIT);
        if let Polled::Records(batches) = second.poll(Duration::from_secs(1)).await.unwrap() {
            again.extend(batches.into_iter().flat_map(|batch| batch.records).map(|record| number(&record)));
        }
    }
    again.sort_unstable();
    assert_eq!(again, (50..80).collect::<Vec<_>>());
}

pub async fn a_moving_partition_is_revoked_before_it_is_assigned(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (topic, group) = (topic(&bus, "moving", 2, &[]).await, unique("g"));
    let mut first = member(&bus, "first", &group, &topic).await;
    assert_eq!(assigned(&mut first).await.partitions.len(), 2);
    let mut second = member(&bus, "second", &group, &topic).await;
    // A waiting poll is woken to hear of it.
    let polled = tokio::time::timeout(LIMIT, first.poll(Duration::from_secs(600))).await.unwrap().unwrap();
    let Polled::Revoked(revoked) = polled else { panic!("{polled:?}") };
    assert_eq!(revoked.len(), 1, "one moves, one stays");
    // Until first acknowledges with its next poll, it may commit, and second gets nothing.
    first.commit(BTreeMap::from([(revoked[0].clone(), 0)])).await.unwrap();
    assert!(
        matches!(second.poll(Duration::from_millis(200)).await.unwrap(), Polled::Records(none) if none.is_empty())
    );
    first.poll(Duration::ZERO).await.unwrap();
    let gained = assigned_beside(&mut second, &mut first).await;
    assert_eq!(gained.partitions, [(revoked[0].clone(), 0)]);
    // Each sees itself in the group's description.
    owned_by(&bus, &group, 2, 2).await;
    let groups = bus.groups().await.unwrap();
    let described = groups.iter().find(|g| g.group == group).unwrap();
    assert!(described.members.iter().all(|m| m.assignment.len() == 1), "{described:?}");

    second.close().await.unwrap();
    assert_eq!(assigned(&mut first).await.partitions, [(revoked[0].clone(), 0)]);
}

/// Of an engine that sees every member; Kafka doesn't.
pub async fn rebalances_tell_what_set_them_off_and_what_they_cost(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (topic, group) = (topic(&bus, "told", 2, &[]).await, unique("g"));
    let mut rebalances = bus.rebalances();
    let mut first = member(&bus, "first", &group, &topic).await;
    assigned(&mut first).await;
    let joined = rebalances.recv().await.unwrap();
    assert!(matches!(&joined.causes[..], [RebalanceCause::Joined { client_id, .. }] if client_id == "first"));
    let mut second = member(&bus, "second", &group, &topic).await;
    let polled = tokio::time::timeout(LIMIT, first.poll(Duration::from_secs(600))).await.unwrap().unwrap();
    let Polled::Revoked(revoked) = polled else { panic!("{polled:?}") };
    first.poll(Duration::ZERO).await.unwrap();
    let gained = assigned(&mut second).await;
    assert!(gained.generation > joined.generation);
    assert!(rebalances.try_recv().is_err(), "second may have something to restore before it goes on");
    second.poll(Duration::ZERO).await.unwrap();
    let moved = rebalances.recv().await.unwrap();
    assert_eq!((&moved.group, moved.generation), (&group, gained.generation));
    assert_eq!(moved.before["first"].len(), 2);
    assert_eq!((moved.after["first"].len(), moved.after["second"].len()), (1, 1));
    assert!(moved.paused.contains_key(&revoked[0]));
    second.close().await.unwrap();
    assigned(&mut first).await;
    first.poll(Duration::ZERO).await.unwrap();
    let left = rebalances.recv().await.unwrap();
    assert!(matches!(
        &left.causes[..],
        [RebalanceCause::Left { client_id, reason: LeaveReason::Left, .. }] if client_id == "second"
    ));
}

pub async fn a_member_that_polls_too_rarely_is_expelled_fenced_and_comes_back(engine: &mut impl Engine) {
    let bus = engine.bus();
    let (topic, group) = (topic(&bus, "stuck", 1, &[]).await, unique("g"));
    let settings = engine.impatient(ConsumerSettings::member("stuck", group.as_str()));
    let interval = settings.max_poll_interval;
    let mut stuck = bus.consumer(settings).await.unwrap();
    stuck.subscribe(&[&topic]).await.unwrap();
    assigned(&mut stuck).await;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let offsets = BTreeMap::from([(partition.clone(), 0)]);
    stuck.commit(offsets.clone()).await.unwrap();
    eventually("the stuck member's expulsion", || async {
        let groups = bus.groups().await.unwrap();
        groups.iter().find(|g| g.group == group).is_none_or(|g| g.members.is_empty()).then_some(())
    })
    .await;
    let error = stuck.commit(offsets.clone()).await.unwrap_err();
    assert!(matches!(error, BusError::Fenced(_)), "{error}");
    assert!(matches!(stuck.poll(LIMIT).await.unwrap(), Polled::Revoked(lost) if lost == [partition.clone()]));
    assert_eq!(assigned(&mut stuck).await.partitions, [(partition, 0)]);
    stuck.commit(offsets).await.unwrap();
    // A poll that waits for longer than the interval is a sign of life all the same.
    let polled = stuck.poll(interval * 3).await.unwrap();
    assert!(matches!(&polled, Polled::Records(none) if none.is_empty()), "{polled:?}");
}

/// A worker: polls, notes what it read, commits, until told to stop.
struct Worker {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<u32>>,
}

impl Worker {
    async fn start(bus: &Arc<dyn Bus>, name: &str, group: &str, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let consumer = member(bus, name, group, topic).await;
        Self { stop: Arc::clone(&stop), task: tokio::spawn(work(consumer, stop)) }
    }

    async fn stop(self) -> Vec<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// What was processed and is not committed yet: the next offset, and the numbers.
type Uncommitted = BTreeMap<TopicPartition, (i64, Vec<u32>)>;

async fn work(mut consumer: Box<dyn Consumer>, stop: Arc<AtomicBool>) -> Vec<u32> {
    let (mut processed, mut uncommitted) = (Vec::new(), Uncommitted::new());
    while !stop.load(Ordering::Relaxed) {
        let polled = consumer.poll(Duration::from_millis(20)).await.unwrap();
        match polled {
            Polled::Assigned(_) => {}
            // The last chance: after the next poll they are somebody else's.
            Polled::Revoked(lost) => {
                commit(&mut consumer, &mut uncommitted, &mut processed).await;
                uncommitted.retain(|partition, _| !lost.contains(partition));
            }
            Polled::Records(batches) => {
                for batch in batches {
                    let (next, numbers) = uncommitted.entry(batch.partition).or_default();
                    *next = batch.next_offset;
                    numbers.extend(batch.records.iter().map(number));
                }
                commit(&mut consumer, &mut uncommitted, &mut processed).await;
            }
        }
    }
    while !uncommitted.is_empty() {
        commit(&mut consumer, &mut uncommitted, &mut processed).await;
        if let Polled::Revoked(lost) = consumer.poll(Duration::ZERO).await.unwrap() {
            uncommitted.retain(|partition, _| !lost.contains(partition));
        }
    }
    consumer.close().await.unwrap();
    processed
}

/// Commits, unless a rebalance that is under way refuses it.
async fn commit(consumer: &mut Box<dyn Consumer>, uncommitted: &mut Uncommitted, processed: &mut Vec<u32>) {
    if uncommitted.is_empty() {
        return;
    }
    let offsets = uncommitted.iter().map(|(partition, (next, _))| (partition.clone(), *next)).collect();
    match consumer.commit(offsets).await {
        Ok(()) => {
            processed.extend(std::mem::take(uncommitted).into_values().flat_map(|(_, numbers)| numbers))
        }
        Err(BusError::Fenced(_) | BusError::Unavailable(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

pub async fn every_record_is_processed_while_members_come_and_go(engine: &mut impl Engine) {
    const RECORDS: u32 = 6000;
    let bus = engine.bus();
    let (topic, group) = (topic(&bus, "flow", 5, &[]).await, unique("g"));
    let producer = bus.producer("p").await.unwrap();
    let sending = {
        let (producer, topic) = (Arc::clone(&producer), topic.clone());
        tokio::spawn(async move {
            for first in (0..RECORDS).step_by(20) {
                producer.send(&topic, (first..first + 20).map(numbered).collect()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    // 1, 2, 3, 4 members and back to 1, while records flow.
    let mut workers = Vec::new();
    let mut processed = Vec::new();
    for n in 0..4 {
        workers.push(Worker::start(&bus, &format!("w{n}"), &group, &topic).await);
        owned_by(&bus, &group, workers.len(), 5).await;
    }
    while workers.len() > 1 {
        processed.extend(workers.remove(0).stop().await);
        owned_by(&bus, &group, workers.len(), 5).await;
    }
    sending.await.unwrap();
    let ends = bus
        .offsets(
            &(0..5).map(|p| TopicPartition::new(topic.as_str(), p)).collect::<Vec<_>>(),
            farol_bus::OffsetSpec::Latest,
        )
        .await
        .unwrap();
    eventually("commits up to the end", || async {
        let committed = bus.committed(&group).await.unwrap();
        ends.iter().all(|(p, end)| *end == 0 || committed.get(p) == Some(end)).then_some(())
    })
    .await;
    processed.extend(workers.remove(0).stop().await);
    // Each commits before its next poll, so what moved had been committed or is not counted: once, not only at least once.
    let mut times = BTreeMap::<u32, u32>::new();
    processed.into_iter().for_each(|number| *times.entry(number).or_default() += 1);
    let wrong: Vec<_> = (0..RECORDS)
        .map(|number| (number, times.get(&number).copied().unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .collect();
    assert!(wrong.is_empty(), "{} of {RECORDS}, by number and how often: {:?}", wrong.len(), wrong.get(..20));
}

/// Waits until the group is stable with so many members that own so many partitions.
async fn owned_by(bus: &Arc<dyn Bus>, group: &str, members: usize, partitions: usize) {
    eventually("a stable group", || async {
        let groups = bus.groups().await.unwrap();
        let group = groups.iter().find(|g| g.group == group)?;
        let owned: usize = group.members.iter().map(|m| m.assignment.len()).sum();
        (group.state == "Stable" && group.members.len() == members && owned == partitions).then_some(())
    })
    .await;
}

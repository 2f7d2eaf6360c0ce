//! Queries on events, consumers, producers, rebalances and dead letters.

use farol_event::EventType;
use farol_view::Retention;
use farol_view::query::events::EventFilter;
use farol_view::query::pipeline::{ConsumerStatus, ProducerStatus};
use farol_view::query::rebalances::{
    ChangeKind, DepartureReason, MemberChange, RebalanceCost, RebalanceFilter,
};
use serde_json::json;
use uuid::Uuid;

use crate::support::{Log, TestStore, at};

#[tokio::test]
async fn events_are_found_by_source_type_time_and_correlation() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..20 {
        let source = ["billing", "shop"][second as usize % 2];
        log.system_event(EventType::SERVICE_STARTED, source, second, &json!({"n": second}));
    }
    let mut event =
        farol_event::Event::new(Uuid::from_u128(7), at(100), EventType::new("own.type"), "shop", &json!({}));
    let correlation = Uuid::from_u128(99);
    event.correlationid = Some(correlation);
    event.extensions.insert("tenant".into(), json!("acme"));
    log.append("system-events", 1, event.to_json(), at(100));
    log.system_event(EventType::CONSUMER_HEARTBEAT, "w-1", 101, &json!({"group": "g"}));
    test.apply_all(log.batches()).await;

    let find = async |filter: EventFilter| test.ask(move |q| q.events(&filter)).await.events;
    let all = find(EventFilter::default()).await;
    assert_eq!(all.len(), 21, "heartbeats are left out");
    assert!(all.is_sorted_by(|a, b| a.time >= b.time));
    assert_eq!(all[0], event);
    assert_eq!(find(EventFilter { source: Some("shop".into()), ..Default::default() }).await.len(), 11);
    assert_eq!(
        find(EventFilter { event_type: Some("own.type".into()), ..Default::default() }).await.len(),
        1
    );
    let ranged = EventFilter { from: Some(at(5)), to: Some(at(7)), ..Default::default() };
    assert_eq!(find(ranged).await.len(), 3);
    let tied = find(EventFilter { correlation_id: Some(correlation), ..Default::default() }).await;
    assert_eq!(tied, [event]);

    let mut filter = EventFilter { limit: Some(8), ..Default::default() };
    let mut ids = Vec::new();
    loop {
        let asked = filter.clone();
        let page = test.ask(move |q| q.events(&asked)).await;
        ids.extend(page.events.into_iter().map(|e| e.id));
        let Some(cursor) = page.next_cursor else { break };
        filter.cursor = Some(cursor);
    }
    assert_eq!(ids, all.into_iter().map(|e| e.id).collect::<Vec<_>>());
}

#[tokio::test]
async fn consumers_are_active_left_expelled_or_stale() {
    let test = TestStore::new();
    let mut log = Log::new();
    let pulse = |n: i64| {
        json!({"group": "g", "partitions": ["sensor-data/0"], "records_processed": n, "records_per_s": 2.5,
            "lag_records": -3, "lag_ms": 7, "errors": 1})
    };
    for name in ["active", "left", "expelled", "stale", "back"] {
        log.system_event(
            EventType::CONSUMER_JOINED,
            name,
            0,
            &json!({"group": "g", "generation": 1, "member_id": "m"}),
        );
        log.system_event(EventType::CONSUMER_HEARTBEAT, name, 10, &pulse(10));
    }
    let gone = |reason: &str| json!({"group": "g", "generation": 2, "member_id": "m", "reason": reason});
    log.system_event(EventType::CONSUMER_LEFT, "left", 11, &gone("left"));
    log.system_event(EventType::CONSUMER_LEFT, "expelled", 11, &gone("missed_heartbeats"));
    log.system_event(EventType::CONSUMER_LEFT, "back", 11, &gone("missed_polls"));
    log.system_event(EventType::CONSUMER_HEARTBEAT, "back", 39, &pulse(12));
    log.system_event(EventType::CONSUMER_HEARTBEAT, "active", 40, &pulse(20));
    // An older one that comes late counts for nothing.
    log.system_event(EventType::CONSUMER_HEARTBEAT, "active", 30, &pulse(15));
    test.apply_all(log.batches()).await;
    let consumers = test.ask(|q| q.consumers(at(41))).await.consumers;
    let shown: Vec<(&str, ConsumerStatus, u64, usize)> = consumers
        .iter()
        .map(|c| (c.consumer_id.as_str(), c.status, c.records_processed, c.partitions.len()))
        .collect();
    let expected = [
        ("active", ConsumerStatus::Active, 20, 1),
        ("back", ConsumerStatus::Active, 12, 1),
        ("expelled", ConsumerStatus::Expelled, 10, 0),
        ("left", ConsumerStatus::Left, 10, 0),
        ("stale", ConsumerStatus::Stale, 10, 1),
    ];
    assert_eq!(shown, expected);
    assert_eq!((consumers[0].lag_records, consumers[0].lag_ms), (0, 7));
    assert_eq!((consumers[0].joined_at, consumers[0].last_heartbeat), (Some(at(0)), Some(at(40))));
}

#[tokio::test]
async fn producers_rebalances_and_dead_letters_are_shown() {
    let test = TestStore::new();
    let mut log = Log::new();
    for (name, status, second) in [("sim", "active", 30), ("old", "active", 1), ("done", "stopped", 1)] {
        let data = json!({"kind": "simulator", "records_sent": 5, "records_per_s": 1.0, "rejected": 0, "status": status});
        log.system_event(EventType::PRODUCER_HEARTBEAT, name, second, &data);
    }
    for generation in 1..4 {
        let data = json!({"group": "g", "generation": generation, "began_at": at(generation).to_string(),
            "completed_at": at(generation + 1).to_string(), "causes": ["w joined"], "before": {}, "after": {"w": ["t/0"]},
            "paused_ms": {"t/0": 12}});
        log.system_event(EventType::PARTITIONS_REASSIGNED, "g", generation + 1, &data);
    }
    log.system_event(EventType::PARTITIONS_REASSIGNED, "g", 9, &json!({"group": 1}));
    for index in 0..5 {
        let letter = json!({"at": at(index / 2).to_string(), "reason": "not JSON", "value": format!("v{index}"),
            "source": {"topic": "sensor-data", "partition": 1, "offset": index}, "consumer_id": "w"});
        log.append("dead-letters", 0, letter.to_string(), at(index));
    }
    test.apply_all(log.batches()).await;

    let producers = test.ask(|q| q.producers(at(31))).await.producers;
    let shown: Vec<_> = producers.iter().map(|p| (p.producer_id.as_str(), p.status)).collect();
    let expected =
        [("done", ProducerStatus::Stopped), ("old", ProducerStatus::Stale), ("sim", ProducerStatus::Active)];
    assert_eq!(shown, expected);
    let rebalances = test.ask(|q| q.newest_rebalances(2)).await;
    assert_eq!(rebalances.iter().map(|r| r.generation).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(rebalances[0].paused_ms["t/0"], 12);
    // Events of before causes were told one by one: what they cost is worked out.
    assert!(rebalances[0].changes.is_empty());
    let cost = RebalanceCost { took_ms: 1000, partitions_moved: 1, longest_pause_ms: 12 };
    assert_eq!(rebalances[0].cost, cost);

    let first = test.ask(|q| q.dead_letters(Some(3), None)).await;
    assert_eq!((first.total, first.dead_letters.len()), (5, 3));
    assert_eq!(first.dead_letters[0].value, "v4");
    assert_eq!(first.dead_letters[0].source.to_string(), "sensor-data/1@4");
    let cursor = first.next_cursor.unwrap();
    let second = test.ask(move |q| q.dead_letters(Some(3), Some(&cursor))).await;
    assert_eq!(second.dead_letters.iter().map(|d| d.value.as_str()).collect::<Vec<_>>(), ["v1", "v0"]);
    assert!(second.next_cursor.is_none());

    let pruned = test
        .store
        .prune(Retention { readings_before: None, history_before: Some(at(2)), ..Retention::default() })
        .await
        .unwrap();
    assert_eq!((pruned.dead_letters, pruned.rebalances, pruned.members), (4, 0, 2));
    assert_eq!(test.ask(|q| q.dead_letters(None, None)).await.total, 1);
}

#[tokio::test]
async fn rebalances_are_paged_by_group_and_time_with_their_causes() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..10 {
        let group = ["g", "other"][second as usize % 2];
        let data = json!({"group": group, "generation": second, "began_at": at(second).to_string(),
            "completed_at": at(second).to_string(), "causes": ["w left: missed heartbeats"],
            "changes": [{"change": "left", "consumer_id": "w", "member_id": "w-1", "reason": "missed_heartbeats"},
                {"change": "subscription_changed"}],
            "before": {}, "after": {}, "paused_ms": {}});
        log.system_event(EventType::PARTITIONS_REASSIGNED, group, second, &data);
    }
    test.apply_all(log.batches()).await;

    let filter = RebalanceFilter { group: Some("g".into()), limit: Some(2), ..RebalanceFilter::default() };
    let (mut asked, mut generations) = (filter.clone(), Vec::new());
    loop {
        let this = asked.clone();
        let page = test.ask(move |q| q.rebalances(&this)).await;
        assert_eq!(page.total, 5);
        generations.extend(page.rebalances.into_iter().map(|r| r.generation));
        let Some(cursor) = page.next_cursor else { break };
        asked.cursor = Some(cursor);
    }
    assert_eq!(generations, [8, 6, 4, 2, 0]);

    let ranged = RebalanceFilter { from: Some(at(3)), to: Some(at(6)), ..RebalanceFilter::default() };
    let page = test.ask(move |q| q.rebalances(&ranged)).await;
    assert_eq!((page.total, page.next_cursor), (4, None));
    let left = MemberChange {
        change: ChangeKind::Left,
        consumer_id: Some("w".into()),
        member_id: Some("w-1".into()),
        reason: Some(DepartureReason::MissedHeartbeats),
    };
    let topics = MemberChange {
        change: ChangeKind::SubscriptionChanged,
        consumer_id: None,
        member_id: None,
        reason: None,
    };
    assert_eq!(page.rebalances[0].changes, [left, topics]);

    let nobody = RebalanceFilter { group: Some("nobody".into()), ..RebalanceFilter::default() };
    assert_eq!(test.ask(move |q| q.rebalances(&nobody)).await.total, 0);
}

//! Services, their metrics, checks and policies.

use farol_event::EventType;
use farol_event::service::BreakerState;
use farol_view::Retention;
use farol_view::query::metrics::PointFilter;
use farol_view::query::policies::PolicyFilter;
use farol_view::query::services::{ServiceFilter, ServiceState};
use serde_json::json;

use crate::support::{Log, TestStore, at};

fn metric(log: &mut Log, service: &str, seconds: i64, name: &str, value: f64) {
    let data = json!({"nome": name, "valor": value, "unidade": "%"});
    log.system_event(EventType::METRIC_COLLECTED, service, seconds, &data);
}

/// As it was told.
async fn state(test: &TestStore, service: &'static str) -> (ServiceState, i64, Option<String>) {
    state_at(test, service, 0).await
}

async fn state_at(test: &TestStore, service: &'static str, now: i64) -> (ServiceState, i64, Option<String>) {
    let detail = test.ask(move |q| q.service_detail(service, at(now))).await.unwrap();
    let since = (detail.service.since.as_micros() - at(0).as_micros()) / 1_000_000;
    (detail.service.state, since, detail.service.reason)
}

#[tokio::test]
async fn a_service_goes_through_its_states_as_it_is_told_of() {
    let test = TestStore::new();
    let mut log = Log::new();
    let steps = [
        (
            EventType::SERVICE_STARTED,
            json!({"versao": "1.4", "endereco": "http://127.0.0.1:1", "tipo": "api"}),
            ("starting", 0, None),
        ),
        (EventType::METRIC_COLLECTED, json!({"nome": "response_time_ms", "valor": 12.5}), ("up", 1, None)),
        (
            EventType::METRIC_COLLECTED,
            json!({"nome": "error_rate_percent", "valor": 7}),
            ("degraded", 2, Some("error rate above 5 %")),
        ),
        (
            EventType::METRIC_COLLECTED,
            json!({"nome": "error_rate_percent", "valor": 9}),
            ("degraded", 2, Some("error rate above 5 %")),
        ),
        (EventType::METRIC_COLLECTED, json!({"nome": "error_rate_percent", "valor": 1}), ("up", 4, None)),
        (
            EventType::CHECK_CHANGED,
            json!({"check": "disk", "from": "up", "to": "down", "reason": "full", "critical": false}),
            ("degraded", 5, Some("check disk: full")),
        ),
        (EventType::SYSTEM_UNAVAILABLE, json!({"reason": "no answer"}), ("down", 6, Some("no answer"))),
        (EventType::SYSTEM_UNAVAILABLE, json!({}), ("down", 6, Some("no answer"))),
        (
            EventType::MAINTENANCE_STARTED,
            json!({"motivo": "disk replaced", "por": "ana"}),
            ("maintenance", 8, Some("disk replaced")),
        ),
        (EventType::MAINTENANCE_ENDED, json!({}), ("down", 6, Some("no answer"))),
        (EventType::SYSTEM_RECOVERED, json!({}), ("degraded", 5, Some("check disk: full"))),
        (
            EventType::CHECK_CHANGED,
            json!({"check": "disk", "from": "down", "to": "up", "critical": false}),
            ("up", 11, None),
        ),
        (
            EventType::SERVICE_STOPPED,
            json!({"motivo": "deployed anew"}),
            ("down", 12, Some("stopped: deployed anew")),
        ),
        (
            EventType::METRIC_COLLECTED,
            json!({"nome": "x", "valor": 1}),
            ("down", 12, Some("stopped: deployed anew")),
        ),
        (EventType::SERVICE_STARTED, json!({}), ("starting", 14, None)),
        (EventType::SERVICE_HEARTBEAT, json!({}), ("up", 15, None)),
    ];
    for (told, (event_type, data, expected)) in (0..).zip(steps) {
        log.system_event(event_type.clone(), "shop", told, &data);
        test.apply_all(log.batches()).await;
        let (state, since, reason) = state(&test, "shop").await;
        assert_eq!((state.as_str(), since, reason.as_deref()), expected, "after {event_type} at {told}");
    }
    let detail = test.ask(|q| q.service_detail("shop", at(0))).await.unwrap();
    let service = &detail.service;
    assert_eq!((service.version.as_deref(), service.kind.as_deref()), (Some("1.4"), Some("api")));
    assert_eq!((service.response_time_ms, service.error_rate_percent), (Some(12.5), Some(1.0)));
    assert_eq!((service.started_at, service.last_check_at), (Some(at(14)), Some(at(15))));
    assert_eq!((detail.checks.len(), service.checks, service.checks_down), (1, 1, 0));
    assert!(detail.events.iter().all(|event| event.event_type != EventType::METRIC_COLLECTED));
    assert_eq!(detail.events.len(), 11);
}

#[tokio::test]
async fn a_service_that_stopped_is_there_again_when_it_is_heard_of_more_than_a_moment_later() {
    let up = json!({"check": "http", "from": "unknown", "to": "up"});
    for (sign, data) in [
        (EventType::SERVICE_HEARTBEAT, json!({})),
        (
            EventType::METRIC_COLLECTED,
            json!({"nome": "response_time_ms", "valor": 3, "tags": {"check": "http"}}),
        ),
        (EventType::CHECK_CHANGED, up),
    ] {
        let test = TestStore::new();
        let mut log = Log::new();
        log.system_event(EventType::SERVICE_STARTED, "shop", 0, &json!({}));
        log.system_event(EventType::SERVICE_STOPPED, "shop", 60, &json!({"motivo": "deploy"}));
        // What was on its way at the stop: of before it, of the same moment, and a few seconds late.
        for second in [59, 60, 69] {
            log.system_event(sign.clone(), "shop", second, &data);
        }
        test.apply_all(log.batches()).await;
        let stopped = (ServiceState::Down, 60, Some("stopped: deploy".to_owned()));
        assert_eq!(state(&test, "shop").await, stopped, "{sign}");
        log.system_event(sign.clone(), "shop", 71, &data);
        test.apply_all(log.batches()).await;
        assert_eq!(state(&test, "shop").await, (ServiceState::Up, 71, None), "{sign}");
        // What arrives late of before the stop doesn't count.
        log.system_event(EventType::SERVICE_STOPPED, "shop", 90, &json!({}));
        log.system_event(sign.clone(), "shop", 80, &data);
        test.apply_all(log.batches()).await;
        assert_eq!(state(&test, "shop").await.0, ServiceState::Down, "{sign}");
    }
}

#[tokio::test]
async fn services_are_listed_by_state_and_text_page_by_page() {
    let test = TestStore::new();
    let mut log = Log::new();
    for (index, name) in ["api-1", "api-2", "db", "web"].into_iter().enumerate() {
        let kind = if name == "db" { "store" } else { "server" };
        log.system_event(EventType::SERVICE_REGISTERED, name, 0, &json!({"kind": kind, "checks": []}));
        if index % 2 == 0 {
            log.system_event(EventType::SYSTEM_UNAVAILABLE, name, 1, &json!({}));
        }
    }
    log.system_event(EventType::SERVICE_REMOVED, "web", 9, &json!({}));
    test.apply_all(log.batches()).await;
    let names = async |filter: ServiceFilter| {
        let page = test.ask(move |q| q.services(&filter, at(0))).await;
        let names: Vec<String> = page.services.iter().map(|service| service.service.clone()).collect();
        (names.join(" "), page.total, page.next_cursor)
    };
    let all = names(ServiceFilter::default()).await;
    assert_eq!((all.0.as_str(), all.1), ("api-1 api-2 db", 3), "what was removed is not there");
    let down = ServiceFilter { states: vec![ServiceState::Down], ..ServiceFilter::default() };
    assert_eq!(names(down).await.0, "api-1 db");
    let text = ServiceFilter { text: Some("STORE".into()), ..ServiceFilter::default() };
    assert_eq!(names(text).await.0, "db");
    let first = names(ServiceFilter { limit: Some(2), ..ServiceFilter::default() }).await;
    assert_eq!((first.0.as_str(), first.1), ("api-1 api-2", 3));
    let second = names(ServiceFilter { limit: Some(2), cursor: first.2, ..ServiceFilter::default() }).await;
    assert_eq!((second.0.as_str(), second.2), ("db", None));
    let counts = test.ask(|q| q.service_counts(at(0))).await;
    assert_eq!((counts.down, counts.starting), (2, 1));
    assert!(test.ask(|q| q.service_detail("web", at(0))).await.is_none());
    // It comes back by itself.
    metric(&mut log, "web", 10, "cpu_percent", 1.0);
    test.apply_all(log.batches()).await;
    assert_eq!(state(&test, "web").await.0, ServiceState::Up);
}

fn check_down(log: &mut Log, service: &str, seconds: i64, check: &str) {
    let data = json!({"check": check, "from": "unknown", "to": "down", "reason": "refused"});
    log.system_event(EventType::CHECK_CHANGED, service, seconds, &data);
}

#[tokio::test]
async fn a_check_that_is_not_defined_any_more_keeps_nobody_down() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.system_event(EventType::SERVICE_REGISTERED, "a", 0, &json!({"checks": ["old", "both"]}));
    check_down(&mut log, "a", 1, "old");
    log.system_event(EventType::SYSTEM_UNAVAILABLE, "a", 1, &json!({}));
    // The new check may be faster than the word of the registration; what the old one found last may come after it.
    let up = json!({"check": "new", "from": "unknown", "to": "up"});
    log.system_event(EventType::CHECK_CHANGED, "a", 4, &up);
    log.system_event(EventType::SYSTEM_RECOVERED, "a", 4, &json!({}));
    log.system_event(EventType::SERVICE_REGISTERED, "a", 5, &json!({"checks": ["new", "both"]}));
    check_down(&mut log, "a", 3, "old");
    test.apply_all(log.batches()).await;
    assert_eq!(state(&test, "a").await.0, ServiceState::Up);
    let detail = test.ask(|q| q.service_detail("a", at(0))).await.unwrap();
    let names: Vec<_> = detail.checks.iter().map(|check| check.check.as_str()).collect();
    assert_eq!((names, detail.service.checks, detail.service.checks_down), (vec!["new"], 1, 0));
}

#[tokio::test]
async fn a_service_that_is_removed_while_it_is_down_is_gone_and_comes_back_without_its_past() {
    let test = TestStore::new();
    let mut log = Log::new();
    log.system_event(EventType::SERVICE_REGISTERED, "a", 0, &json!({"checks": ["tcp"]}));
    check_down(&mut log, "a", 1, "tcp");
    log.system_event(EventType::SYSTEM_UNAVAILABLE, "a", 1, &json!({}));
    log.system_event(EventType::SERVICE_REMOVED, "a", 5, &json!({}));
    log.system_event(EventType::SYSTEM_RECOVERED, "a", 6, &json!({"reason": "it is not watched any more"}));
    test.apply_all(log.batches()).await;
    assert!(test.ask(|q| q.service_detail("a", at(0))).await.is_none(), "that is no sign of life");
    log.system_event(EventType::SERVICE_REGISTERED, "a", 9, &json!({"checks": ["ttl"]}));
    log.system_event(EventType::SERVICE_HEARTBEAT, "a", 10, &json!({}));
    test.apply_all(log.batches()).await;
    let detail = test.ask(|q| q.service_detail("a", at(0))).await.unwrap();
    assert_eq!((detail.service.state, detail.checks.len()), (ServiceState::Up, 0));
}

#[tokio::test]
async fn a_registration_replaces_what_the_one_before_it_said_and_not_what_the_service_says() {
    let test = TestStore::new();
    let mut log = Log::new();
    let first = json!({"address": "127.0.0.1:1", "kind": "api", "checks": ["tcp"]});
    log.system_event(EventType::SERVICE_REGISTERED, "a", 0, &first);
    log.system_event(EventType::SERVICE_REGISTERED, "b", 0, &first);
    log.system_event(EventType::SERVICE_STARTED, "b", 1, &json!({"address": "http://b", "version": "2"}));
    for service in ["a", "b"] {
        log.system_event(EventType::SERVICE_REGISTERED, service, 2, &json!({"checks": ["ttl"]}));
    }
    test.apply_all(log.batches()).await;
    let described = async |service: &'static str| {
        let service = test.ask(move |q| q.service_detail(service, at(0))).await.unwrap().service;
        (service.address, service.kind, service.version)
    };
    assert_eq!(described("a").await, (None, None, None));
    assert_eq!(described("b").await, (Some("http://b".into()), None, Some("2".into())));
}

#[tokio::test]
async fn metrics_are_summed_up_per_service_and_over_all() {
    let test = TestStore::new();
    let mut log = Log::new();
    for (service, values) in [("a", [1.0, 4.0, 1.0]), ("b", [10.0, -20.0, 4.0])] {
        for (second, value) in (0..).zip(values) {
            metric(&mut log, service, second, "cpu_percent", value);
        }
    }
    // Late: it counts, but is not the newest.
    metric(&mut log, "b", 1, "cpu_percent", 100.0);
    test.apply_all(log.batches()).await;
    let metric = test.ask(|q| q.metric("cpu_percent")).await.unwrap();
    assert_eq!((metric.count, metric.total, metric.min, metric.max), (7, 100.0, -20.0, 100.0));
    assert!((metric.mean - 100.0 / 7.0).abs() < 1e-9);
    assert_eq!((metric.last, metric.last_update, metric.services_total), (4.0, at(2), 2));
    let a = &metric.services[0];
    assert_eq!((a.service.as_str(), a.count, a.total, a.mean, a.last), ("a", 3, 6.0, 2.0, 1.0));
    assert!(test.ask(|q| q.metric("nothing")).await.is_none());
    let sql =
        "SELECT count, total, min, max, round(mean, 6), last, unit FROM service_metrics WHERE service = 'b'";
    let row = test.outside().query_row(sql, [], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, f64>(1)?,
            row.get::<_, f64>(2)?,
            row.get::<_, f64>(3)?,
            row.get::<_, f64>(4)?,
            row.get::<_, f64>(5)?,
            row.get::<_, String>(6)?,
        ))
    });
    assert_eq!(row.unwrap(), (4, 94.0, -20.0, 100.0, 23.5, 4.0, "%".to_owned()));
}

#[tokio::test]
async fn sums_that_leave_the_range_of_numbers_stay_numbers() {
    let test = TestStore::new();
    let mut log = Log::new();
    for value in [f64::MAX, f64::MAX, f64::MIN, f64::MIN, f64::MIN] {
        metric(&mut log, "a", 0, "huge", value);
    }
    test.apply_all(log.batches()).await;
    let metric = test.ask(|q| q.metric("huge")).await.unwrap();
    assert!(metric.total.is_finite() && metric.mean.is_finite());
    assert_eq!(metric.count, 5);
}

#[tokio::test]
async fn a_service_that_makes_new_tags_for_ever_has_a_bound_and_others_don_t_notice() {
    let test = TestStore::new();
    let mut log = Log::new();
    for request in 0..1100 {
        let data = json!({"nome": "calls", "valor": 1, "tags": {"request": request}});
        log.system_event(EventType::METRIC_COLLECTED, "talker", request, &data);
    }
    metric(&mut log, "talker", 1200, "cpu_percent", 1.0);
    metric(&mut log, "other", 1200, "cpu_percent", 1.0);
    // What it has, it goes on with.
    let known = json!({"nome": "calls", "valor": 1, "tags": {"request": 7}});
    log.system_event(EventType::METRIC_COLLECTED, "talker", 1201, &known);
    test.apply_all(log.batches()).await;
    let count = |sql: &str| test.outside().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(
        count("SELECT count(DISTINCT tags) FROM service_metric_points WHERE service = 'talker'"),
        1000
    );
    assert_eq!(
        count("SELECT count FROM service_metrics WHERE service = 'talker' AND metric = 'calls'"),
        1001
    );
    assert_eq!(count("SELECT count(*) FROM service_metrics WHERE metric = 'cpu_percent'"), 1);
    assert_eq!(state(&test, "talker").await.0, ServiceState::Up);
}

#[tokio::test]
async fn points_are_thinned_bounded_and_go_with_the_history() {
    let test = TestStore::new();
    let mut log = Log::new();
    // One every second for a minute, then one seven hours later.
    for second in 0..60 {
        metric(&mut log, "a", second, "cpu_percent", f64::from(second as i32));
    }
    let points = async |test: &TestStore, from: Option<i64>| {
        let filter = PointFilter {
            service: "a".into(),
            names: vec!["cpu_percent".into()],
            from: from.map(at),
            ..PointFilter::default()
        };
        let mut points = test.ask(move |q| q.metric_points(&filter)).await;
        assert!(!points.truncated);
        points.series.pop()
    };
    test.apply_all(log.batches()).await;
    let series = points(&test, None).await.unwrap();
    assert_eq!(series.values.len(), 6, "one in ten seconds");
    assert_eq!(
        (series.timestamps[0], series.values[0], series.min[0], series.max[0]),
        (at(9), 9.0, 0.0, 9.0)
    );
    assert_eq!(series.unit.as_deref(), Some("%"));
    assert_eq!(points(&test, Some(30)).await.unwrap().values.len(), 3);

    // Collected metrics leave the events before the rest of the history does.
    let metric_events = Retention { metric_events_before: Some(at(30)), ..Retention::default() };
    assert_eq!(test.store.prune(metric_events).await.unwrap().events, 30);
    metric(&mut log, "a", 7 * 3600, "cpu_percent", 1.0);
    // What is older than the window by now isn't kept.
    metric(&mut log, "a", 61, "cpu_percent", 2.0);
    test.apply_all(log.batches()).await;
    assert_eq!(points(&test, None).await.unwrap().timestamps, [at(7 * 3600)]);

    let retention = Retention { history_before: Some(at(8 * 3600)), ..Retention::default() };
    let pruned = test.store.prune(retention).await.unwrap();
    assert_eq!(pruned.points, 1);
    assert!(points(&test, None).await.is_none());
    assert!(
        test.ask(|q| q.service_detail("a", at(0))).await.is_none(),
        "nobody registered it, and nobody speaks of it"
    );
}

#[tokio::test]
async fn breakers_and_other_policies_are_shown_with_their_history() {
    let test = TestStore::new();
    let mut log = Log::new();
    metric(&mut log, "db", 0, "cpu_percent", 1.0);
    let moved = |from: &str, to: &str| {
        json!({"caller": "web", "name": "db", "service": "db", "from": from, "to": to, "cause": "5 failures",
            "counters": {"failures": 5}})
    };
    log.system_event(EventType::BREAKER_OPENED, "db", 10, &moved("closed", "open"));
    let pool = json!({"caller": "web", "name": "pool", "kind": "bulkhead", "service": "db", "state": "full",
        "counters": {"in_use": 10}, "settings": {"size": 10}});
    log.system_event(EventType::POLICY_MEASURED, "db", 11, &pool);
    let breaker = json!({"caller": "web", "name": "db", "kind": "circuit_breaker", "service": "db", "state": "open",
        "counters": {"rejected": 7}});
    log.system_event(EventType::POLICY_MEASURED, "db", 12, &breaker);
    test.apply_all(log.batches()).await;
    let page = test
        .ask(|q| q.policies(&PolicyFilter { service: Some("db".into()), ..PolicyFilter::default() }, at(0)))
        .await;
    assert_eq!(page.total, 2);
    let db = &page.policies[0];
    assert_eq!((db.name.as_str(), db.state.as_deref(), db.since), ("db", Some("open"), Some(at(10))));
    assert_eq!((db.cause.as_deref(), db.counters["rejected"]), (Some("5 failures"), 7.0));
    assert_eq!(page.policies[1].settings["size"], 10);
    assert_eq!(
        state(&test, "db").await,
        (ServiceState::Degraded, 10, Some("breaker db of web is open".into()))
    );

    log.system_event(EventType::BREAKER_HALF_OPENED, "db", 70, &moved("open", "half_open"));
    log.system_event(EventType::BREAKER_CLOSED, "db", 71, &moved("half_open", "closed"));
    test.apply_all(log.batches()).await;
    assert_eq!(state(&test, "db").await.0, ServiceState::Up);
    let filter = |cursor| PolicyFilter {
        caller: Some("web".into()),
        limit: Some(2),
        cursor,
        ..PolicyFilter::default()
    };
    let first = test.ask(move |q| q.policy_changes(&filter(None))).await;
    let ends: Vec<BreakerState> = first.changes.iter().map(|change| change.to).collect();
    assert_eq!(ends, [BreakerState::Closed, BreakerState::HalfOpen], "newest first");
    let second = test.ask(move |q| q.policy_changes(&filter(first.next_cursor))).await;
    assert_eq!((second.changes.len(), second.next_cursor), (1, None));
    assert_eq!(second.changes[0].counters["failures"], 5.0);
}

#[tokio::test]
async fn policies_of_one_caller_that_share_a_name_stand_side_by_side() {
    let test = TestStore::new();
    let mut log = Log::new();
    metric(&mut log, "prices", 0, "cpu_percent", 1.0);
    let moved =
        json!({"caller": "web", "name": "prices", "service": "prices", "from": "closed", "to": "open"});
    log.system_event(EventType::BREAKER_OPENED, "prices", 10, &moved);
    let kinds = ["circuit_breaker", "retry", "bulkhead", "timeout"];
    for (second, kind) in (11..).zip(kinds) {
        let state = (kind == "circuit_breaker").then_some("open");
        let data = json!({"caller": "web", "name": "prices", "kind": kind, "service": "prices", "state": state,
            "counters": {"calls": second}});
        log.system_event(EventType::POLICY_MEASURED, "prices", second, &data);
    }
    test.apply_all(log.batches()).await;
    let mut shown = Vec::new();
    let mut cursor = None;
    loop {
        let filter =
            PolicyFilter { caller: Some("web".into()), limit: Some(1), cursor, ..PolicyFilter::default() };
        let page = test.ask(move |q| q.policies(&filter, at(0))).await;
        assert_eq!(page.total, 4);
        shown.extend(page.policies.into_iter().map(|p| (p.kind, p.state, p.counters["calls"])));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let open = Some("open".to_owned());
    let expected = [
        ("bulkhead", None, 13.0),
        ("circuit_breaker", open, 11.0),
        ("retry", None, 12.0),
        ("timeout", None, 14.0),
    ];
    assert_eq!(shown, expected.map(|(kind, state, calls)| (kind.to_owned(), state, calls)));
    let detail = test.ask(|q| q.service_detail("prices", at(0))).await.unwrap();
    assert_eq!((detail.policies.len(), detail.service.breakers_open), (4, 1));
    assert_eq!(detail.service.state, ServiceState::Degraded);
}

#[tokio::test]
async fn a_breaker_counts_only_while_its_caller_is_heard_of() {
    let opened = json!({"caller": "web", "name": "db", "service": "db", "from": "closed", "to": "open"});
    let degraded = (ServiceState::Degraded, 10, Some("breaker db of web is open".to_owned()));
    let heartbeat = json!({"caller": "web", "name": "other", "kind": "retry", "counters": {"calls": 1}});
    // The caller's last word: of the breaker itself, of another policy, of itself as a service, of its stop.
    for (last, counts_until) in [
        (None, 310),
        (Some((EventType::POLICY_MEASURED, "elsewhere", 100, &heartbeat)), 400),
        (Some((EventType::SERVICE_HEARTBEAT, "web", 200, &heartbeat)), 500),
        (Some((EventType::SERVICE_STOPPED, "web", 15, &heartbeat)), 15),
    ] {
        let test = TestStore::new();
        let mut log = Log::new();
        metric(&mut log, "db", 0, "cpu_percent", 1.0);
        log.system_event(EventType::BREAKER_OPENED, "db", 10, &opened);
        if let Some((event_type, source, second, data)) = last {
            log.system_event(event_type, source, second, data);
        }
        test.apply_all(log.batches()).await;
        assert_eq!(state_at(&test, "db", counts_until - 1).await, degraded);
        assert_eq!(state_at(&test, "db", counts_until).await, (ServiceState::Up, 0, None));
        for (now, open) in [(counts_until - 1, 1), (counts_until, 0)] {
            let about = PolicyFilter { service: Some("db".into()), ..PolicyFilter::default() };
            let policy = test.ask(move |q| q.policies(&about, at(now))).await.policies.remove(0);
            assert_eq!((policy.state.as_deref(), policy.stale), (Some("open"), open == 0));
            let counts = test.ask(move |q| q.service_counts(at(now))).await;
            assert_eq!(counts.degraded, open, "at {now}");
            let degraded = ServiceFilter { states: vec![ServiceState::Degraded], ..ServiceFilter::default() };
            let listed = test.ask(move |q| q.services(&degraded, at(now))).await;
            let listed: Vec<_> =
                listed.services.iter().map(|s| (s.service.as_str(), s.breakers_open)).collect();
            assert_eq!(listed, vec![("db", 1); usize::try_from(open).unwrap()], "at {now}");
        }
    }
}

#[tokio::test]
async fn a_service_that_was_heard_of_regularly_is_unknown_when_it_falls_silent() {
    let test = TestStore::new();
    let mut log = Log::new();
    // Every ten seconds; once a minute; once in ten minutes; a burst; twice, not far apart; watched by a check; stopped.
    for second in (0..=600).step_by(10) {
        metric(&mut log, "often", second, "cpu_percent", 1.0);
        metric(&mut log, "watched", second, "cpu_percent", 1.0);
        metric(&mut log, "done", second, "cpu_percent", 1.0);
    }
    for second in (0..=600).step_by(60) {
        log.system_event(EventType::SERVICE_HEARTBEAT, "minutely", second, &json!({}));
    }
    for second in [0, 600, 1200, 1800] {
        metric(&mut log, "rarely", second, "cpu_percent", 1.0);
    }
    for _ in 0..50 {
        metric(&mut log, "burst", 600, "cpu_percent", 1.0);
    }
    for second in [400, 600] {
        metric(&mut log, "twice", second, "cpu_percent", 1.0);
    }
    let up = json!({"check": "http", "from": "unknown", "to": "up"});
    log.system_event(EventType::CHECK_CHANGED, "watched", 1, &up);
    log.system_event(EventType::SERVICE_STOPPED, "done", 600, &json!({}));
    test.apply_all(log.batches()).await;

    assert_eq!(state_at(&test, "often", 659).await.0, ServiceState::Up);
    let silent =
        |after: u64| Some(format!("nothing was heard of it for {after} s, and it was heard of regularly"));
    assert_eq!(state_at(&test, "often", 660).await, (ServiceState::Unknown, 660, silent(60)));
    assert_eq!(state_at(&test, "minutely", 779).await.0, ServiceState::Up);
    assert_eq!(state_at(&test, "minutely", 780).await, (ServiceState::Unknown, 780, silent(180)));
    for service in ["rarely", "burst", "twice", "watched"] {
        assert_eq!(state_at(&test, service, 86_400).await.0, ServiceState::Up, "{service}");
    }
    assert_eq!(state_at(&test, "done", 86_400).await.0, ServiceState::Down);
    let unknown = ServiceFilter { states: vec![ServiceState::Unknown], ..ServiceFilter::default() };
    let page = test.ask(move |q| q.services(&unknown, at(780))).await;
    let names: Vec<_> = page.services.iter().map(|service| service.service.as_str()).collect();
    assert_eq!((names, page.total, page.by_state.unknown), (vec!["minutely", "often"], 2, 2));

    // A word is enough to be back; a start is the beginning of another rhythm.
    metric(&mut log, "often", 900, "cpu_percent", 1.0);
    test.apply_all(log.batches()).await;
    assert_eq!(state_at(&test, "often", 900).await.0, ServiceState::Up);
    log.system_event(EventType::SERVICE_STARTED, "minutely", 900, &json!({}));
    log.system_event(EventType::SERVICE_HEARTBEAT, "minutely", 901, &json!({}));
    test.apply_all(log.batches()).await;
    assert_eq!(state_at(&test, "minutely", 86_400).await.0, ServiceState::Up);
}

#[tokio::test]
async fn an_answer_of_before_an_outage_is_not_shown_while_that_lasts() {
    let test = TestStore::new();
    let mut log = Log::new();
    let shown = async |log: &Log| {
        test.apply_all(log.batches()).await;
        test.ask(|q| q.service_detail("a", at(0))).await.unwrap().service.response_time_ms
    };
    metric(&mut log, "a", 1, "response_time_ms", 12.0);
    assert_eq!(shown(&log).await, Some(12.0));
    check_down(&mut log, "a", 5, "tcp");
    log.system_event(EventType::MAINTENANCE_STARTED, "a", 6, &json!({}));
    assert_eq!(shown(&log).await, None, "whatever else it is in");
    metric(&mut log, "a", 7, "response_time_ms", 30.0);
    assert_eq!(shown(&log).await, Some(30.0), "it answers, though not as it should");
    log.system_event(EventType::CHECK_CHANGED, "a", 9, &json!({"check": "tcp", "from": "down", "to": "up"}));
    assert_eq!(shown(&log).await, Some(30.0));
}

#[tokio::test]
async fn a_breaker_that_leaves_a_service_for_another_degrades_the_other_one() {
    let test = TestStore::new();
    let mut log = Log::new();
    for (second, service) in [(0, "old"), (1, "new")] {
        metric(&mut log, service, second, "cpu_percent", 1.0);
    }
    for (second, service) in [(2, "old"), (3, "new")] {
        let data = json!({"caller": "web", "name": "db", "service": service, "from": "closed", "to": "open"});
        log.system_event(EventType::BREAKER_OPENED, service, second, &data);
        test.apply_all(log.batches()).await;
        assert_eq!(state(&test, service).await.0, ServiceState::Degraded);
    }
    assert_eq!(state(&test, "old").await.0, ServiceState::Up);
}

#[tokio::test]
async fn a_policy_keeps_its_newest_changes() {
    let test = TestStore::new();
    let mut log = Log::new();
    for second in 0..1100 {
        let data = json!({"caller": "web", "name": "db", "from": "closed", "to": "open"});
        log.system_event(EventType::BREAKER_OPENED, "db", second, &data);
    }
    test.apply_all(log.batches()).await;
    let (count, oldest): (i64, i64) = test
        .outside()
        .query_row("SELECT count(*), min(at) FROM policy_changes", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((count, oldest), (1000, at(100).as_micros()));
}

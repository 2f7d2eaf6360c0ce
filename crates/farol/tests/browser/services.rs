//! Services and the policies around them in a real browser: what is told by events is on the page without a reload.

use std::process::{Child, Stdio};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use thirtyfour::Key;

use crate::farol::{Farol, farol, folder};
use crate::webdriver::Browser;

/// How long a page may take to follow what was told, on a machine that does other things as well.
const SOON: Duration = Duration::from_secs(15);

/// Tells one event of a service.
async fn tell(server: &Farol, id: &str, event_type: &str, source: &str, data: Value) {
    let event = json!({ "specversion": "1.0", "id": id, "type": event_type, "source": source, "data": data });
    let answer = server.post("/api/events", &event).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
}

/// Goes to a page and waits until its stream is open.
async fn open(browser: &Browser, server: &Farol, hash: &str) {
    browser.driver.goto(format!("{}/#/{hash}", server.address)).await.unwrap();
    browser
        .until(
            SOON,
            "the page is live",
            "return document.querySelector('[data-testid=connection]')?.dataset.state === 'live'",
        )
        .await;
    // A page that is loaded anew doesn't have this.
    browser.driver.execute("window.sameAsBefore = true", Vec::new()).await.unwrap();
}

async fn was_not_loaded_anew(browser: &Browser) {
    let same = browser.driver.execute("return window.sameAsBefore === true", Vec::new()).await.unwrap();
    assert_eq!(same.json(), &Value::Bool(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_page_follows_a_service_that_fails_and_recovers() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    let state_is = |state: &str| {
        format!(
            "return document.querySelector('[data-testid=service-row][data-service=shop]')?.dataset.state === '{state}'"
        )
    };
    let counted = |state: &str, count: u32| {
        format!(
            "return document.querySelector('[data-testid=service-state-filter][data-state={state}]')?.dataset.count === '{count}'"
        )
    };

    open(&browser, &server, "services").await;
    browser.element("simulate-command").await;
    tell(&server, "1", "servico_iniciado", "shop", json!({ "version": "1.4.2", "kind": "api" })).await;
    browser.until(SOON, "a service that starts is there", &state_is("starting")).await;
    browser
        .until(
            SOON,
            "nobody is told any more how to get one",
            "return !document.querySelector('[data-testid=no-services]')",
        )
        .await;
    let metric = json!({ "nome": "response_time_ms", "valor": 42.5, "unidade": "ms" });
    tell(&server, "2", "metrica_coletada", "shop", metric).await;
    browser
        .until(
            SOON,
            "its response time is in its row",
            "return document.querySelector('[data-service=shop] [data-testid=response_time_ms]')?.dataset.value === '42.5'",
        )
        .await;
    browser.until(SOON, "it is up", &state_is("up")).await;

    tell(&server, "3", "sistema_indisponivel", "shop", json!({ "motivo": "no answer" })).await;
    browser.until(SOON, "it is down", &state_is("down")).await;
    browser.until(SOON, "one is counted as down", &counted("down", 1)).await;
    tell(&server, "4", "sistema_recuperado", "shop", json!({})).await;
    browser.until(SOON, "it is up again", &state_is("up")).await;
    browser.until(SOON, "none is counted as down", &counted("down", 0)).await;
    was_not_loaded_anew(&browser).await;

    // Its own page tells the same, with the chart of what was collected and the alert of the outage.
    browser.element("service-table").await;
    browser.select("[data-service=shop] td a").await.click().await.unwrap();
    browser
        .until(
            SOON,
            "its page has state, chart, and the outage's alert, which is over",
            "return document.querySelector('[data-testid=service-detail]')?.dataset.state === 'up'\
             && Number(document.querySelector('[data-testid=metric-chart][data-metric=response_time_ms]')?.dataset.points) >= 1\
             && document.querySelector('[data-testid=service-alerts] [data-testid=alert-row]')?.dataset.status === 'resolved'\
             && !!document.querySelector('[data-testid=service-event][data-type=sistema_indisponivel]')",
        )
        .await;

    // The overview counts it.
    open(&browser, &server, "").await;
    browser
        .until(
            SOON,
            "the overview counts services by state",
            "return Number(document.querySelector('[data-testid=service-count][data-state=up]')?.dataset.count) >= 1",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_that_opens_and_closes_is_a_picture_on_both_pages() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    let moved = |from: &str, to: &str| json!({ "caller": "shop", "name": "payments", "service": "payments", "from": from, "to": to, "cause": "told so" });
    let lane_is = |state: &str, segments: &str| {
        format!(
            "const lane = document.querySelector('[data-testid=breaker-lane][data-caller=shop][data-name=payments]');\
             const segments = [...(lane?.querySelectorAll('[data-testid=breaker-segment]') ?? [])].map((each) => each.dataset.state).join(' ');\
             return lane?.dataset.state === '{state}' && segments === '{segments}';"
        )
    };
    let bulkhead = |active: u32| {
        json!({ "caller": "shop", "name": "payments-pool", "kind": "bulkhead", "service": "payments",
            "counters": { "active_calls": active, "max_concurrent_calls": 10, "rejected_full": 3 } })
    };
    let used = |active: u32| {
        format!(
            "const row = document.querySelector('[data-testid=policy-row][data-name=payments-pool]');\
             return row?.querySelector('[data-testid=policy-use]')?.dataset.used === '{active}'\
             && row.querySelector('[data-counter=rejected_full]')?.dataset.value === '3'"
        )
    };

    open(&browser, &server, "resilience").await;
    let own = "return !!document.querySelector('[data-testid=policy-row][data-name=bus]')";
    browser.until(SOON, "Farol's own calls are there", own).await;
    tell(&server, "0", "servico_iniciado", "payments", json!({ "kind": "api" })).await;
    tell(&server, "1", "disjuntor_aberto", "payments", moved("closed", "open")).await;
    browser.until(SOON, "it was closed and is open", &lane_is("open", "closed open")).await;
    tell(&server, "2", "disjuntor_meio_aberto", "payments", moved("open", "half_open")).await;
    browser.until(SOON, "it probes", &lane_is("half_open", "closed open half_open")).await;
    tell(&server, "3", "disjuntor_fechado", "payments", moved("half_open", "closed")).await;
    let whole = lane_is("closed", "closed open half_open closed");
    browser.until(SOON, "it is closed again", &whole).await;
    tell(&server, "4", "politica_medida", "payments", bulkhead(4)).await;
    browser.until(SOON, "the bulkhead is there", &used(4)).await;
    tell(&server, "5", "politica_medida", "payments", bulkhead(10)).await;
    browser.until(SOON, "and is full", &used(10)).await;
    was_not_loaded_anew(&browser).await;

    open(&browser, &server, "services/payments").await;
    browser.until(SOON, "the service's page has the same picture", &whole).await;
    browser.until(SOON, "and the same bulkhead", &used(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_of_a_breaker_begins_before_its_first_move_and_follows_a_program_that_was_started_anew() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    browser.driver.goto(&server.address).await.unwrap();
    let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
    // Newest first, as the API gives them.
    let changes = json!([
        { "caller": "a", "name": "x", "from": "half_open", "to": "open", "at": at(30) },
        { "caller": "a", "name": "x", "from": "open", "to": "half_open", "at": at(20) },
        { "caller": "a", "name": "x", "from": "closed", "to": "open", "at": at(10) },
    ]);
    let breaker = |name: &str, state: &str, since: Option<String>| json!({ "caller": "a", "name": name, "kind": "circuit_breaker", "state": state, "since": since, "measured_at": at(45) });
    // The program of `x` was started anew, with a closed breaker, which no move tells; `y` has never moved.
    let policies = json!([breaker("x", "closed", Some(at(40))), breaker("y", "closed", None)]);
    let script = "return (async function () { const [changes, policies] = arguments; const origin = Date.parse('2026-01-01T00:00:00Z');\
        const { breakerStories } = await import('/js/parts/breaker-story.js');\
        const seconds = (ms) => ms === 0 ? 'before' : (ms - origin) / 1000;\
        return [...breakerStories(changes, policies, origin + 50000)].map(([key, segments]) => [key.split('\\n')[1], segments.map((s) => [s.state, seconds(s.from), seconds(s.to)])]);\
        }).apply(null, arguments)";
    let told = browser.driver.execute(script, vec![changes, policies]).await.unwrap();
    let expected = json!([
        [
            "x",
            [
                ["closed", "before", 10],
                ["open", 10, 20],
                ["half_open", 20, 30],
                ["open", 30, 40],
                ["closed", 40, 50]
            ]
        ],
        ["y", [["closed", "before", 50]]],
    ]);
    assert_eq!(told.json(), &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_shows_the_event_that_it_comes_of_and_leads_to_a_service_of_any_name() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let browser = Browser::start().await;
    let name = "shop/eu?#1 %2e é";
    tell(
        &server,
        "1",
        "metrica_coletada",
        name,
        json!({ "nome": "cpu_percent", "valor": 97.5, "unidade": "%" }),
    )
    .await;
    server.caught_up().await;
    let alerts = server.alerts("status=firing").await;
    open(&browser, &server, &format!("alerts/{}", alerts[0]["id"].as_str().unwrap())).await;
    let shown = "const row = document.querySelector('[data-testid=evidence-row]');\
        return row?.dataset.position.startsWith('system-events') && row.textContent.includes('97.5')";
    browser.until(SOON, "the event is there with its value", shown).await;
    browser
        .driver
        .execute("document.querySelector('.headline a[href*=services]').click()", Vec::new())
        .await
        .unwrap();
    let its_page = "return document.querySelector('[data-testid=service-detail] h1')?.textContent === 'shop/eu?#1 %2e é'";
    browser.until(SOON, "its service's page", its_page).await;
    was_not_loaded_anew(&browser).await;
}

/// A `farol simulate services`. Killed when dropped.
struct Simulator(Child);

impl Drop for Simulator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sliders_and_buttons_steer_a_simulated_service() {
    let folder = folder();
    let server = Farol::start(folder.path(), &[]).await;
    let mut command = farol(folder.path());
    command.args([
        "simulate",
        "services",
        "--name",
        "shop",
        "--failure-rate",
        "0",
        "--check-interval",
        "200ms",
        "--url",
    ]);
    command.arg(&server.address).stdout(Stdio::null()).stderr(Stdio::null());
    let _simulator = Simulator(command.spawn().expect("farol can be run"));
    let browser = Browser::start().await;
    let page_is = |state: &str, down: bool| {
        format!(
            "return document.querySelector('[data-testid=service-detail]')?.dataset.state === '{state}'\
             && document.querySelector('[data-testid=simulation-state]')?.dataset.down === '{down}'"
        )
    };

    open(&browser, &server, "services/shop").await;
    browser.until(SOON, "it is up and answers", &page_is("up", false)).await;
    browser.element("slider-latency_ms").await.send_keys(Key::Right + "").await.unwrap();
    browser
        .until(
            SOON,
            "one step more is in force, as the simulator says",
            "return document.querySelector('[data-testid=slider-latency_ms]').dataset.inForce === '150'",
        )
        .await;
    browser.element("simulation-down").await.click().await.unwrap();
    browser.element("confirm").await.click().await.unwrap();
    browser.until(SOON, "it is down", &page_is("down", true)).await;
    browser.element("simulation-up").await.click().await.unwrap();
    browser.until(SOON, "it is up again", &page_is("up", false)).await;

    // Maintenance begins with a name and ends with a click.
    browser.element("maintenance").await.click().await.unwrap();
    browser.element("maintenance-name").await.send_keys("Ana").await.unwrap();
    browser.element("maintenance-submit").await.click().await.unwrap();
    browser.until(SOON, "it is in maintenance", &page_is("maintenance", false)).await;
    browser
        .until(
            SOON,
            "the dialog is gone",
            "return !document.querySelector('[data-testid=maintenance-dialog]')",
        )
        .await;
    browser.element("maintenance").await.click().await.unwrap();
    browser.until(SOON, "the maintenance is over", &page_is("up", false)).await;
    was_not_loaded_anew(&browser).await;
}

//! The attributes on functions of all shapes, as a program outside the crate writes them.
#![cfg(feature = "macros")]

use std::cell::Cell;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use farol_resilience::retry::RetryBudget;
use farol_resilience::{
    Bulkhead, CircuitBreaker, Error, Registry, Retry, Timeout, bulkhead, circuit_breaker, retry, timeout,
};

/// @circuit_breaker, as founding document 000 writes it.
#[circuit_breaker]
fn chamar_api_externa(answer: Result<u32, &'static str>) -> Result<u32, &'static str> {
    let answer = answer?;
    if answer == 0 {
        return Err("zero");
    }
    Ok(answer)
}

#[test]
fn a_breaker_on_a_sync_function_opens_and_can_be_reached() {
    for _ in 0..4 {
        assert_eq!(chamar_api_externa(Err("refused")), Err(Error::Inner("refused")));
    }
    assert_eq!(chamar_api_externa(Ok(0)), Err(Error::Inner("zero")));
    assert!(matches!(chamar_api_externa(Ok(7)), Err(Error::CircuitOpen { .. })));
    let breaker = chamar_api_externa_circuit_breaker();
    assert_eq!(breaker.name().as_ref(), "macros::chamar_api_externa");
    assert_eq!(breaker.snapshot().state, Some("open"));
    breaker.reset();
    assert_eq!(chamar_api_externa(Ok(7)), Ok(7));
    let registry = Registry::new();
    registry.register(breaker.clone()).unwrap();
    assert_eq!(registry.len(), 1);
}

/// What the function returns is an alias, and a success can be a failure.
#[circuit_breaker(
    name = "status",
    failure_threshold = 2,
    recovery_timeout = Duration::from_secs(30),
    probes = 2,
    failure_if = |answer| !matches!(answer, Ok(status) if *status < 500)
)]
async fn status(answer: u16) -> io::Result<u16> {
    tokio::task::yield_now().await;
    Ok(answer)
}

#[tokio::test]
async fn a_breaker_on_an_async_function_judges_by_the_predicate() {
    assert_eq!(status(500).await.unwrap(), 500);
    assert_eq!(status(404).await.unwrap(), 404);
    assert_eq!(status(500).await.unwrap(), 500);
    assert_eq!(status(500).await.unwrap(), 500);
    assert!(status(200).await.unwrap_err().is_rejected());
    let snapshot = status_circuit_breaker().snapshot();
    assert_eq!(snapshot.name.as_ref(), "status");
    assert_eq!(snapshot.settings.get("open_for").map(String::as_str), Some("30s"));
}

/// @retry(stop=stop_after_attempt(3), wait=wait_exponential(multiplier=1, min=1, max=10)) of founding document 001.
#[retry(idempotent, max_tries = 3, initial_delay = "1s", multiplier = 2, max_delay = "10s", jitter = "none")]
async fn call_api(tries: &AtomicU32, mut path: String) -> Result<String, io::Error> {
    path.push_str("/data");
    match tries.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err(io::Error::other("refused"))?,
        _ => Ok(path),
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_on_an_async_function_clones_the_arguments_for_each_try_and_keeps_the_error_type() {
    let (tries, began) = (AtomicU32::new(0), tokio::time::Instant::now());
    let answer: Result<String, io::Error> = call_api(&tries, "https://api.com".to_owned()).await;
    assert_eq!(answer.unwrap(), "https://api.com/data");
    // The first at once, then after 1 s and 2 s.
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(call_api_retry().snapshot().count("successful_with_retry"), Some(1));
}

/// What is under a policy can be a method, hold what isn't `Send`, and have its policies shared with others.
struct Client {
    tries: Cell<u32>,
}

fn common_budget() -> RetryBudget {
    RetryBudget::builder("common").min_per_second(0).ratio(0.0).build()
}

impl Client {
    #[retry(idempotent, initial_delay = "0s", when_error = |error| *error != "not found")]
    fn get(&self, path: &str) -> Result<u32, &'static str> {
        self.tries.set(self.tries.get() + 1);
        if path == "/missing" { Err("not found") } else { Err("refused") }
    }

    #[retry(not_idempotent = |error: &&str| *error == "refused", budget = common_budget())]
    async fn pay(&self, amount: u32) -> Result<u32, &'static str> {
        self.tries.set(self.tries.get() + 1);
        if amount == 0 { Err("nothing to pay") } else { Err("refused") }
    }

    #[bulkhead(max_concurrent = 1, max_wait = 0)]
    async fn query(&mut self, id: Box<u32>) -> Result<u32, &'static str> {
        let tries = self.tries.get_mut();
        *tries += 1;
        Ok(*id)
    }
}

#[tokio::test(start_paused = true)]
async fn methods_can_be_under_policies() {
    let mut client = Client { tries: Cell::new(0) };
    assert_eq!(client.get("/missing"), Err("not found"));
    assert_eq!(client.tries.replace(0), 1);
    assert_eq!(client.get("/"), Err("refused"));
    assert_eq!(client.tries.replace(0), 3);
    assert_eq!(Client::get_retry().snapshot().count("retries"), Some(2));

    assert_eq!(client.pay(0).await, Err("nothing to pay"));
    assert_eq!(client.pay(1).await, Err("refused"));
    assert_eq!(client.tries.replace(0), 2);
    assert_eq!(Client::pay_retry().snapshot().count("no_budget_left"), Some(1));

    assert_eq!(client.query(Box::new(7)).await, Ok(7));
    assert_eq!(Client::query_bulkhead().snapshot().count("permitted"), Some(1));
}

#[retry(idempotent, jitter = "none")]
#[circuit_breaker(consecutive_failures = 2)]
#[bulkhead(max_concurrent = 3)]
#[timeout("100ms")]
async fn fetch(tries: &AtomicU32, takes: Duration) -> Result<u32, io::Error> {
    let number = tries.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(takes).await;
    Ok(number)
}

#[tokio::test(start_paused = true)]
async fn attributes_stand_inside_one_another_from_the_top_down() {
    let tries = AtomicU32::new(0);
    assert_eq!(fetch(&tries, Duration::ZERO).await.unwrap(), 0);
    // Each of two tries is given up, which opens the breaker; its refusal isn't tried again.
    let refused =
        tokio::spawn(async { fetch(&AtomicU32::new(0), Duration::from_secs(1)).await }).await.unwrap();
    assert!(matches!(refused, Err(Error::CircuitOpen { .. })));
    assert_eq!(fetch_retry().snapshot().count("retries"), Some(2));
    assert_eq!(fetch_timeout().snapshot().count("timed_out"), Some(2));
    assert_eq!(fetch_bulkhead().snapshot().count("permitted"), Some(3));
    assert_eq!(fetch_circuit_breaker().snapshot().count("not_permitted_calls"), Some(1));
}

#[circuit_breaker]
#[farol_resilience::bulkhead(max_concurrent = 1)]
fn once<T: Send>(value: T) -> Result<T, String> {
    Ok(value)
}

#[test]
fn a_generic_sync_function_can_be_under_several_policies_that_call_once() {
    struct NotClone(u8);
    assert_eq!(once(NotClone(7)).unwrap().0, 7);
    assert_eq!(once("text").unwrap(), "text");
    assert_eq!(once_bulkhead().snapshot().count("permitted"), Some(2));
}

static DATABASE: LazyLock<Bulkhead> = LazyLock::new(|| Bulkhead::new("database"));

fn common_retry() -> &'static Retry {
    static RETRY: LazyLock<Retry> =
        LazyLock::new(|| Retry::idempotent("common").initial_delay(Duration::ZERO).build());
    &RETRY
}

/// A trait whose methods somebody else declares.
trait Prices {
    fn cached(&self, product: u32) -> Result<u32, &'static str>;
    fn stored(&self, product: u32) -> Result<u32, Error<&'static str>>;
    async fn fetched(&self, product: u32) -> Result<u32, Error<&'static str>>;
}

struct Shop {
    breaker: CircuitBreaker,
    asked: AtomicU32,
}

impl Shop {
    fn answer(&self, product: u32) -> Result<u32, &'static str> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if product == 0 { Err("no such product") } else { Ok(product * 2) }
    }
}

impl Prices for Shop {
    #[retry(policy = common_retry())]
    fn cached(&self, product: u32) -> Result<u32, &'static str> {
        self.answer(product)
    }

    #[circuit_breaker(policy = self.breaker)]
    fn stored(&self, product: u32) -> Result<u32, &'static str> {
        self.answer(product)
    }

    #[retry(policy = common_retry())]
    #[circuit_breaker(policy = self.breaker)]
    #[bulkhead(policy = DATABASE)]
    #[timeout(policy = Timeout::new("fetched", Duration::from_secs(1)))]
    async fn fetched(&self, product: u32) -> Result<u32, &'static str> {
        self.answer(product)
    }
}

#[tokio::test]
async fn methods_of_traits_are_under_policies_that_are_made_elsewhere_and_may_be_shared() {
    let shop = |name: &str| Shop { breaker: CircuitBreaker::new(name), asked: AtomicU32::new(0) };
    let (one, other) = (shop("one"), shop("other"));
    assert_eq!(one.cached(0), Err("no such product"));
    assert_eq!(one.asked.swap(0, Ordering::SeqCst), 3);
    assert_eq!(one.stored(7), Ok(14));
    for _ in 0..5 {
        assert_eq!(one.stored(0), Err(Error::Inner("no such product")));
    }
    // The breaker is the shop's, and all of its methods are under it.
    assert!(one.stored(7).unwrap_err().is_rejected());
    assert!(one.fetched(7).await.unwrap_err().is_rejected());
    assert_eq!(other.fetched(7).await, Ok(14));
    assert_eq!(DATABASE.snapshot().count("permitted"), Some(1));
    assert_eq!(common_retry().snapshot().count("retries"), Some(2));
}

#[deny(warnings)]
mod of_one_line {
    use farol_resilience::{Error, circuit_breaker, retry};

    #[circuit_breaker(failure_rate = 0.5, window_calls = 5)]
    pub(super) async fn answer(value: u32) -> Result<u32, String> {
        Ok(value)
    }

    #[retry(idempotent)]
    pub(super) async fn twice(value: u32) -> Result<u32, Error<String>> {
        answer(value).await
    }

    #[circuit_breaker]
    pub(super) fn at_once(value: u32) -> Result<u32, String> {
        Ok(value)
    }
}

#[tokio::test]
async fn functions_of_one_line_bring_no_warning_and_a_small_window_is_enough() {
    assert_eq!(of_one_line::twice(3).await.unwrap(), 3);
    assert_eq!(of_one_line::at_once(4).unwrap(), 4);
    let settings = of_one_line::answer_circuit_breaker().snapshot().settings;
    assert_eq!(settings.get("minimum_calls").map(String::as_str), Some("5"));
}

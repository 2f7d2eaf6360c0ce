//! Attributes that put a function under policies of `farol-resilience`, which re-exports them (feature `macros`).
//!
//! ```
//! use farol_resilience::{Error, circuit_breaker, retry};
//!
//! // @circuit(failure_threshold=5, recovery_timeout=60)
//! #[circuit_breaker(failure_threshold = 5, recovery_timeout = 60)]
//! fn call_external_api() -> Result<String, std::io::Error> {
//!     // response = requests.get('https://api.externa.com/data')
//!     # Ok("data".to_owned())
//! }
//!
//! // @retry(stop=stop_after_attempt(3), wait=wait_exponential(multiplier=1, min=1, max=10))
//! #[retry(idempotent, max_tries = 3, initial_delay = "1s", multiplier = 2, max_delay = "10s", jitter = "none")]
//! async fn call_api(path: &str) -> Result<String, std::io::Error> {
//!     // return requests.get('https://api.com/data')
//!     # Ok(format!("data of {path}"))
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! assert_eq!(call_external_api().unwrap(), "data");
//! assert_eq!(call_api("/data").await.unwrap(), "data of /data");
//! # });
//! // Each function has a policy of its own, to be looked at, registered, reset:
//! assert_eq!(call_external_api_circuit_breaker().snapshot().count("successful"), Some(1));
//! assert_eq!(call_api_retry().snapshot().count("successful_without_retry"), Some(1));
//! ```
//!
//! # What becomes of the function
//!
//! It must return a `Result` (under any alias), and may be async. Its body is called through the policy, which lives in a
//! static and is made at the first call. Beside the function `f` there is a function `f_circuit_breaker()`, `f_retry()`,
//! `f_bulkhead()` or `f_timeout()` with the same visibility that gives this policy. Its name is the function's path
//! (`shop::prices::fetch`) unless `name` says otherwise.
//!
//! With a breaker, bulkhead or timeout the error becomes `farol_resilience::Error<E>`, because they can refuse or give up a
//! call; with a retry alone it stays `E`.
//!
//! Several attributes on one function stand inside one another **from the top down**, as with Python's decorators: the
//! uppermost is outermost. They make one pipeline, so the error is one flat `Error<E>`, and a retry doesn't repeat what a
//! breaker under it refused. Result and
//! error must then be `Send`, and so must an async function.
//!
//! ```
//! use farol_resilience::{Error, circuit_breaker, retry, timeout};
//!
//! #[retry(idempotent)]
//! #[circuit_breaker]
//! #[timeout("2s")]
//! async fn fetch(id: u32) -> Result<u32, std::io::Error> {
//!     Ok(id)
//! }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let fetched: Result<u32, Error<std::io::Error>> = fetch(7).await;
//! assert_eq!(fetched.unwrap(), 7);
//! # });
//! ```
//!
//! # A policy from elsewhere
//!
//! `policy = expression` puts the function under a policy that is made elsewhere: one that several functions share, or one that each
//! value of a type has for itself. It may be a policy, a reference to one or a `LazyLock` of one, and is looked up at each call. No function comes
//! beside it, so this is also how methods **in an `impl` of a trait** are put under policies:
//!
//! ```
//! use std::sync::LazyLock;
//! use farol_resilience::{Bulkhead, CircuitBreaker, Error, bulkhead, circuit_breaker};
//!
//! static DATABASE: LazyLock<Bulkhead> = LazyLock::new(|| Bulkhead::new("database"));
//!
//! trait Prices {
//!     async fn price(&self, product: u32) -> Result<u32, Error<std::io::Error>>;
//! }
//!
//! struct Shop {
//!     breaker: CircuitBreaker,
//! }
//!
//! impl Prices for Shop {
//!     #[circuit_breaker(policy = self.breaker)]
//!     #[bulkhead(policy = DATABASE)]
//!     async fn price(&self, product: u32) -> Result<u32, std::io::Error> {
//!         Ok(product * 2)
//!     }
//! }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let shop = Shop { breaker: CircuitBreaker::new("shop") };
//! assert_eq!(shop.price(7).await.unwrap(), 14);
//! assert_eq!(shop.breaker.snapshot().count("successful"), Some(1));
//! assert_eq!(DATABASE.snapshot().count("permitted"), Some(1));
//! # });
//! ```
//!
//! # Limits
//!
//! * Arguments of a function under `#[retry]` are cloned for each try, so they must be `Clone` and have a name; `self` must
//!   be `&self`.
//! * In an `impl` block the function must have a `self` or mention `Self`: nothing else tells a macro that it isn't a free
//!   function. In an `impl` of a trait a policy must be given (see above), because the function beside it wouldn't be the trait's: the
//!   compiler says that `f_retry` "is not a member of trait". A macro can't see in what sort of `impl` it stands.
//! * Under `#[async_trait]` a method returns no `Result` any more when its attributes are looked at, and can't be under a policy.
//! * Without `name`, a policy is named after module and function. Methods of one name on two types of a module need names: a
//!   macro doesn't see the type, and a registry takes each name once.
//! * All instances of a generic function share one policy. Predicates (`when`, `when_error`, `not_idempotent`,
//!   `failure_if`) can't be used if the result's type is generic, nor if they capture anything.
//!
//! Durations are whole seconds (`60`), text (`"100ms"`, `"1.5s"`, `"2m"`), or any expression of type `Duration`.

mod arguments;
mod function;
mod policies;

use proc_macro::TokenStream;

use policies::Kind;

/// Puts a function under a circuit breaker of its own.
///
/// Arguments, all optional: `name`, `failure_threshold` or `consecutive_failures` (5), `recovery_timeout` or `open_for`
/// (60 s), `failure_rate`, `minimum_calls`, `window_calls` or `window_time`, `probes`, `successes_to_close`, and
/// `failure_if`, a function of `&Result<T, E>` that says what counts as failure. What they mean is said by
/// `farol_resilience::breaker::CircuitBreakerBuilder`. See [the crate](crate) for what becomes of the function.
///
/// A wrong argument is an error at its place:
///
/// ```compile_fail
/// # use farol_resilience::circuit_breaker;
/// #[circuit_breaker(failure_treshold = 5)]
/// fn call() -> Result<(), ()> { Ok(()) }
/// ```
///
/// So is a function without a result to judge:
///
/// ```compile_fail
/// # use farol_resilience::circuit_breaker;
/// #[circuit_breaker]
/// fn call() {}
/// ```
#[proc_macro_attribute]
pub fn circuit_breaker(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::CircuitBreaker, arguments, item)
}

/// Tries a function again when it fails.
///
/// One argument is needed: `idempotent` says that the function may be carried out more than once;
/// `not_idempotent = predicate` that it may not, and for which errors (`&E`) it certainly wasn't carried out.
///
/// Optional: `name`, `max_tries` (3), `initial_delay` (100 ms), `multiplier` (2), `max_delay` (5 s), `jitter` (`"full"`,
/// `"equal"`, `"decorrelated"`, `"none"`), `max_elapsed`, `budget` (an expression that gives a `RetryBudget`), and one of
/// `when` (a function of `&Result<T, E>`) and `when_error` (of `&E`) that says what is tried again. What they mean is said by
/// `farol_resilience::retry::RetryBuilder`. See [the crate](crate) for what becomes of the function.
///
/// ```
/// # use farol_resilience::retry;
/// #[retry(not_idempotent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused)]
/// fn pay(amount: u32) -> Result<(), std::io::Error> {
///     # let _ = amount;
///     Ok(())
/// }
/// pay(100).unwrap();
/// ```
///
/// Leaving out whether the function may be repeated is an error:
///
/// ```compile_fail
/// # use farol_resilience::retry;
/// #[retry(max_tries = 3)]
/// fn pay(amount: u32) -> Result<(), ()> { Ok(()) }
/// ```
///
/// So is a policy of its own for a method that a trait declares; [`policy`](crate#a-policy-from-elsewhere) gives it one:
///
/// ```compile_fail,E0407
/// # use farol_resilience::retry;
/// # trait Fetch { fn fetch(&self) -> Result<(), ()>; }
/// # struct Client;
/// impl Fetch for Client {
///     #[retry(idempotent)]
///     fn fetch(&self) -> Result<(), ()> { Ok(()) }
/// }
/// ```
///
/// So is an argument that can't be given twice:
///
/// ```compile_fail
/// # use farol_resilience::retry;
/// #[retry(idempotent)]
/// fn push(list: &mut Vec<u8>) -> Result<(), ()> { Ok(()) }
/// ```
#[proc_macro_attribute]
pub fn retry(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Retry, arguments, item)
}

/// Bounds how many calls of a function are under way.
///
/// Arguments, all optional: `name`, `max_concurrent` (10), `max_waiting` (100), `max_wait` (5 s). What they mean is said by
/// `farol_resilience::bulkhead::BulkheadBuilder`. See [the crate](crate) for what becomes of the function.
///
/// ```
/// # use farol_resilience::bulkhead;
/// #[bulkhead(name = "DatabasePool", max_concurrent = 10, max_wait = "2s")]
/// fn query(id: u32) -> Result<u32, std::io::Error> {
///     Ok(id)
/// }
/// assert_eq!(query(7).unwrap(), 7);
/// assert_eq!(query_bulkhead().active(), 0);
/// ```
#[proc_macro_attribute]
pub fn bulkhead(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Bulkhead, arguments, item)
}

/// Gives an async function up that takes too long: `#[timeout("2s")]`, or `#[timeout(after = "2s", name = "…")]`.
///
/// See [the crate](crate) for what becomes of the function. A sync function can't be given up:
///
/// ```compile_fail
/// # use farol_resilience::timeout;
/// #[timeout("2s")]
/// fn call() -> Result<(), ()> { Ok(()) }
/// ```
#[proc_macro_attribute]
pub fn timeout(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(Kind::Timeout, arguments, item)
}

fn expand(kind: Kind, arguments: TokenStream, item: TokenStream) -> TokenStream {
    function::expand(kind, arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

//! Asking a running Farol over its API, for commands that print what it answers.

use anyhow::{Context as _, bail, ensure};
use farol_simulate::ServerUrl;
use farol_simulate::event_stream::percent_encoded;
use farol_simulate::services::{self, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::terminal::harmless;

/// Items on one page of a list: the most that the API gives.
const PAGE: usize = 1000;
/// Items of one list in all; a longer one is nothing for a terminal.
const MAX_ITEMS: usize = 100_000;

/// Sends a request, which must succeed; the JSON of the answer.
pub async fn ask(server: &ServerUrl, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
    let answer =
        services::call(server, method, path, body).await.with_context(|| format!("asking {server}"))?;
    if !answer.status.is_success() {
        bail!("{}", harmless(&services::problem_of(&answer)));
    }
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("the answer of {server} can't be read"))
}

/// What stands at a path.
pub async fn get(server: &ServerUrl, path: &str) -> anyhow::Result<Value> {
    ask(server, Method::GET, path, &Value::Null).await
}

/// Every item of a list, through all its pages. `noun` is what the list is called, in the path as in the answer.
pub async fn all(server: &ServerUrl, noun: &str, query: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
    let filters: String =
        query.iter().map(|(name, value)| format!("&{name}={}", percent_encoded(value))).collect();
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = get(server, &format!("/api/{noun}?limit={PAGE}{filters}{cursor}")).await?;
        let Some(Value::Array(more)) = page.get_mut(noun).map(Value::take) else {
            bail!("the answer of {server} has no `{noun}`");
        };
        items.extend(more);
        ensure!(items.len() <= MAX_ITEMS, "there are more than {MAX_ITEMS} {noun}; ask for fewer of them");
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", percent_encoded(next)),
            None => return Ok(items),
        }
    }
}

/// Part of an answer as what it is.
pub fn read<T: DeserializeOwned>(answer: &Value) -> anyhow::Result<T> {
    T::deserialize(answer).context("the answer can't be read; is the other Farol of another version?")
}

//! Collecting a request's body within its bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::problem::{Kind, Problem};

/// Bytes of request bodies held at present, over all requests of one server.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    held: Arc<AtomicUsize>,
    limit: usize,
}

/// A share of a [`BodyBudget`], given back when dropped.
#[derive(Debug)]
pub struct HeldBytes {
    budget: BodyBudget,
    bytes: usize,
}

impl BodyBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { held: Arc::new(AtomicUsize::new(0)), limit }
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn share(&self) -> HeldBytes {
        HeldBytes { budget: self.clone(), bytes: 0 }
    }
}

impl HeldBytes {
    /// Takes `more` bytes, unless that would exceed the budget.
    fn grow(&mut self, more: usize) -> Result<(), Problem> {
        let before = self.budget.held.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.budget.limit {
            self.budget.held.fetch_sub(more, Ordering::Relaxed);
            return Err(Problem::busy(
                "the bodies of other requests fill the memory set aside for them; send it again",
            ));
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Collects a body of at most `limit` bytes that comes within `time`. A body that came in one piece is not copied.
///
/// # Errors
/// 413 beyond `limit`, 415 for an encoded body, 503 beyond the budget, 408 when it takes longer, 400 when the client
/// breaks off.
pub async fn collect(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
    budget: &BodyBudget,
) -> Result<(Bytes, HeldBytes), Problem> {
    match tokio::time::timeout(time, collect_all(headers, body, limit, budget)).await {
        Ok(collected) => collected,
        Err(_) => {
            Err(Problem::new(Kind::Timeout, format!("the body did not come within {} s", time.as_secs_f64())))
        }
    }
}

async fn collect_all(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    budget: &BodyBudget,
) -> Result<(Bytes, HeldBytes), Problem> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(Problem::unsupported_media_type(
            "compressed bodies are not accepted; leave Content-Encoding out",
        ));
    }
    let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(Problem::body_too_large(limit));
    }
    let mut held = budget.share();
    held.grow(announced.unwrap_or(0))?;
    let Some(first) = next_piece(&mut body).await? else {
        return Ok((Bytes::new(), held));
    };
    if announced.is_some_and(|bytes| bytes == first.len()) {
        return Ok((first, held));
    }
    let mut whole = BytesMut::with_capacity(announced.unwrap_or(first.len()));
    let mut piece = first;
    loop {
        let length = whole.len().saturating_add(piece.len());
        if length > limit {
            return Err(Problem::body_too_large(limit));
        }
        if length > held.bytes {
            held.grow(length - held.bytes)?;
        }
        whole.extend_from_slice(&piece);
        match next_piece(&mut body).await? {
            Some(next) => piece = next,
            None => return Ok((whole.freeze(), held)),
        }
    }
}

async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Problem::new(Kind::BadRequest, format!("the body broke off: {e}")))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refuses_what_exceeds_it_and_takes_back_what_was_given() {
        let budget = BodyBudget::new(100);
        let mut one = budget.share();
        one.grow(60).unwrap();
        let mut other = budget.share();
        assert_eq!(other.grow(41).unwrap_err().kind(), Kind::Busy);
        assert_eq!(budget.held(), 60);
        other.grow(40).unwrap();
        drop(one);
        assert_eq!(budget.held(), 40);
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}

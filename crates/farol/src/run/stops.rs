//! The way back: what has started, in order, and how each is stopped.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::terminal::say;

/// How long one part may take to stop before the next is stopped.
pub const PART_LIMIT: Duration = Duration::from_secs(10);

/// What a part says when it has stopped: who was late, and what went wrong.
pub type Stopped = Vec<String>;

type Stop = Pin<Box<dyn Future<Output = Stopped> + Send>>;

/// The parts that have started, in order. Stopped by [`Stops::stop_all`], or abandoned (as a crash would) when dropped.
pub struct Stops {
    parts: Vec<(&'static str, Stop)>,
    limit: Duration,
}

impl Stops {
    /// No part yet; each may take `limit` to stop.
    pub fn new(limit: Duration) -> Self {
        Self { parts: Vec::new(), limit }
    }

    /// Adds a part that has started. `stop` does nothing until it is polled.
    pub fn push(&mut self, name: &'static str, stop: impl Future<Output = Stopped> + Send + 'static) {
        self.parts.push((name, Box::pin(stop)));
    }

    /// Stops every part, the newest first, and says so. One that isn't done within the limit is named and left.
    pub async fn stop_all(&mut self) {
        while let Some((name, stop)) = self.parts.pop() {
            let began = Instant::now();
            match tokio::time::timeout(self.limit, stop).await {
                Ok(problems) if problems.is_empty() => {
                    say(format_args!("  {name:<12} stopped in {} ms", began.elapsed().as_millis()));
                }
                Ok(problems) => say(format_args!("  {name:<12} stopped, but: {}", problems.join("; "))),
                Err(_) => say(format_args!(
                    "  {name:<12} is late: not done within {} s, left behind",
                    self.limit.as_secs()
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn parts_stop_newest_first_and_a_late_one_does_not_hold_up_the_rest() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut stops = Stops::new(Duration::from_millis(20));
        for name in ["first", "second", "third"] {
            let order = Arc::clone(&order);
            stops.push(name, async move {
                order.lock().expect("not poisoned").push(name);
                if name == "second" {
                    std::future::pending::<()>().await;
                }
                Vec::new()
            });
        }
        stops.stop_all().await;
        assert_eq!(*order.lock().expect("not poisoned"), ["third", "second", "first"]);
    }
}

//! From one half of a connection to the other, within one task.
//!
//! A channel between tasks would wake the task that is running already, which has a runtime hand it, and its caches, to another
//! thread, for every request. Here nobody is woken: [`together`] polls the giver and then the taker, and the giver again when the
//! taker has made the room that it waits for.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use parking_lot::Mutex;

/// What is on its way, up to a limit.
pub(super) struct Handover<T> {
    limit: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Whether the giver waits for room.
    giver_waits: bool,
}

/// Which of two futures has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First<G, T> {
    Giver(G),
    Taker(T),
}

impl<T> Handover<T> {
    /// For up to `limit` items, but at least one.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { items: VecDeque::new(), closed: false, giver_waits: false };
        Self { limit: limit.max(1), state: Mutex::new(state) }
    }

    /// Gives an item when there is room for it. Only inside [`together`].
    pub(super) async fn give(&self, item: T) {
        let mut item = Some(item);
        poll_fn(|_| {
            let mut state = self.state.lock();
            state.giver_waits = state.items.len() >= self.limit;
            if state.giver_waits {
                return Poll::Pending;
            }
            state.items.extend(item.take());
            Poll::Ready(())
        })
        .await;
    }

    /// The next item; `None` when there is none and the giver has ended. Inside [`together`], or after it.
    pub(super) async fn take(&self) -> Option<T> {
        poll_fn(|_| {
            let mut state = self.state.lock();
            match state.items.pop_front() {
                None if !state.closed => Poll::Pending,
                item => Poll::Ready(item),
            }
        })
        .await
    }

    /// The next item if there is one.
    pub(super) fn take_now(&self) -> Option<T> {
        self.state.lock().items.pop_front()
    }

    fn giver_can_go_on(&self) -> bool {
        let state = self.state.lock();
        state.giver_waits && state.items.len() < self.limit
    }
}

/// Runs both halves until one of them has ended. If it is the giver, the taker is left to be run to its end.
pub(super) async fn together<T, G: Future, R: Future + Unpin>(
    handover: &Handover<T>,
    giver: G,
    taker: &mut R,
) -> First<G::Output, R::Output> {
    let mut giver = pin!(giver);
    let ended = poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = giver.as_mut().poll(context) {
                return Poll::Ready(First::Giver(ended));
            }
            if let Poll::Ready(ended) = pin!(&mut *taker).poll(context) {
                return Poll::Ready(First::Taker(ended));
            }
            if !handover.giver_can_go_on() {
                return Poll::Pending;
            }
        }
    })
    .await;
    handover.state.lock().closed = true;
    ended
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn everything_arrives_in_order_in_one_poll_and_nobody_is_woken() {
        for limit in [0, 1, 3, 1000] {
            let handover = Handover::new(limit);
            let giver = async {
                for n in 0..100 {
                    handover.give(n).await;
                }
            };
            let mut taker = pin!(async {
                let mut taken = Vec::new();
                while let Some(n) = handover.take().await {
                    taken.push(n);
                }
                taken
            });
            let woken = Arc::new(Woken::default());
            let waker = Arc::clone(&woken).into();
            let mut context = Context::from_waker(&waker);
            let done = pin!(together(&handover, giver, &mut taker)).poll(&mut context);
            assert_eq!(done, Poll::Ready(First::Giver(())), "limit {limit}");
            let all: Vec<i32> = (0..100).collect();
            assert_eq!(taker.as_mut().poll(&mut context), Poll::Ready(all), "what is left comes to its end");
            assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn no_more_than_the_limit_is_on_its_way() {
        let handover = Handover::new(2);
        let given = AtomicUsize::new(0);
        let giver = async {
            loop {
                handover.give(()).await;
                given.fetch_add(1, Ordering::Relaxed);
            }
        };
        let mut idle = pin!(std::future::pending::<()>());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let both: Poll<First<(), ()>> = pin!(together(&handover, giver, &mut idle)).poll(&mut context);
        assert!(both.is_pending());
        assert_eq!(given.load(Ordering::Relaxed), 2);
        assert_eq!(
            (handover.take_now(), handover.take_now(), handover.take_now()),
            (Some(()), Some(()), None)
        );
    }
}

//! A blocked thread that waits for a future, for at most so long. Needs no async runtime.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// The future's result, or `None` if it isn't there in time. How long a thread is parked is measured by the machine's
/// clock, like the parking itself.
pub(super) fn wait_for<F: Future>(mut future: Pin<&mut F>, max_wait: Duration) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let began = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        // A wake-up before the thread parks isn't lost: parking returns at once then.
        match max_wait.checked_sub(began.elapsed()) {
            Some(left) if !left.is_zero() => std::thread::park_timeout(left),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_is_never_ready_is_given_up() {
        assert_eq!(wait_for(std::pin::pin!(std::future::pending::<()>()), Duration::from_millis(20)), None);
    }

    #[test]
    fn a_future_that_another_thread_completes_wakes_the_waiting_one() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let sending = std::thread::spawn(move || sender.send(7));
        let received = wait_for(std::pin::pin!(receiver), Duration::from_secs(60));
        assert_eq!(received, Some(Ok(7)));
        sending.join().unwrap().unwrap();
    }
}

//! Requests on their way to be committed, bounded by bytes.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::append::{AppendError, AppendRequest, OnAppended, QueueFull};

/// A request and who waits for it.
pub(crate) struct Queued {
    pub(crate) request: AppendRequest,
    pub(crate) on_appended: OnAppended,
    bytes: usize,
    by: By,
}

/// Who may commit a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Only the commit thread: it has to wait for the disk.
    Thread,
    /// Its sender, too, who tries to at once. The commit thread isn't woken for it.
    Sender,
}

/// What the commit thread gets to do next.
pub(crate) enum Next {
    /// Requests wait.
    Commit,
    /// The deadline has passed without a request.
    Deadline,
    /// Closed and empty.
    Closed,
}

/// The queue.
pub(crate) struct Queue {
    limit_bytes: usize,
    state: Mutex<State>,
    not_empty: Condvar,
    not_full: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Queued>,
    bytes: usize,
    /// How many of them are for the commit thread alone.
    for_thread: usize,
    closed: bool,
}

impl State {
    /// A request larger than the whole limit goes in when nothing else is there.
    fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.requests.is_empty() || self.bytes.saturating_add(bytes) <= limit
    }

    fn add(&mut self, request: AppendRequest, on_appended: OnAppended, bytes: usize, by: By) {
        self.bytes += bytes;
        self.for_thread += usize::from(by == By::Thread);
        self.requests.push_back(Queued { request, on_appended, bytes, by });
    }

    fn take(&mut self, group_bytes: usize) -> Vec<Queued> {
        let mut group = Vec::with_capacity(self.requests.len().min(64));
        let mut taken = 0usize;
        while let Some(first) = self.requests.front() {
            if !group.is_empty() && taken + first.bytes > group_bytes {
                break;
            }
            let Some(queued) = self.requests.pop_front() else { break };
            taken += queued.bytes;
            self.bytes -= queued.bytes;
            self.for_thread -= usize::from(queued.by == By::Thread);
            group.push(queued);
        }
        group
    }
}

impl Queue {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, state: Mutex::default(), not_empty: Condvar::new(), not_full: Condvar::new() }
    }

    /// Adds a request, waiting for room. The callback is called at once if the queue is closed.
    pub(crate) fn push(&self, request: AppendRequest, on_appended: OnAppended) {
        let bytes = request.total_bytes();
        let mut state = self.state.lock();
        while !state.closed && !state.has_room(bytes, self.limit_bytes) {
            self.not_full.wait(&mut state);
        }
        if state.closed {
            drop(state);
            on_appended(Err(AppendError::Closed));
            return;
        }
        state.add(request, on_appended, bytes, By::Thread);
        drop(state);
        self.not_empty.notify_one();
    }

    /// Adds a request if there is room for it. The callback is called at once if the queue is closed.
    pub(crate) fn try_push(
        &self,
        request: AppendRequest,
        on_appended: OnAppended,
        by: By,
    ) -> Result<(), Box<QueueFull>> {
        let bytes = request.total_bytes();
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            on_appended(Err(AppendError::Closed));
            return Ok(());
        }
        if !state.has_room(bytes, self.limit_bytes) {
            return Err(Box::new(QueueFull { request, on_appended }));
        }
        state.add(request, on_appended, bytes, by);
        drop(state);
        if by == By::Thread {
            self.not_empty.notify_one();
        }
        Ok(())
    }

    /// Waits for a request, until `deadline` if there is one.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Next {
        let mut state = self.state.lock();
        while state.requests.is_empty() {
            if state.closed {
                return Next::Closed;
            }
            match deadline {
                None => self.not_empty.wait(&mut state),
                Some(deadline) => {
                    if self.not_empty.wait_until(&mut state, deadline).timed_out() {
                        return Next::Deadline;
                    }
                }
            }
        }
        Next::Commit
    }

    /// The next group, of up to `group_bytes` (or one larger request), if a request waits.
    pub(crate) fn take(&self, group_bytes: usize) -> Option<Vec<Queued>> {
        let mut state = self.state.lock();
        let group = (!state.requests.is_empty()).then(|| state.take(group_bytes));
        drop(state);
        self.not_full.notify_all();
        group
    }

    /// Bytes that wait, if something does and nothing is for the commit thread alone.
    pub(crate) fn bytes_for_senders(&self) -> Option<usize> {
        let state = self.state.lock();
        (!state.requests.is_empty() && state.for_thread == 0).then_some(state.bytes)
    }

    /// Wakes the commit thread if something waits.
    pub(crate) fn hand_over(&self) {
        if !self.state.lock().requests.is_empty() {
            self.not_empty.notify_one();
        }
    }

    /// Refuses further requests; the ones that wait are still handed out.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.not_empty.notify_all();
        self.not_full.notify_all();
    }

    /// Bytes and requests that wait.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.bytes, state.requests.len())
    }
}

//! How whoever asked a group is answered: a task that waits, or the mailbox of a member of this process.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Groups;
use crate::coordinator::{Answer, GroupError, Input, Ticket};

/// Whom to answer.
pub(crate) enum Reply {
    Task(oneshot::Sender<Answer>),
    Mailbox(Arc<Mailbox>, u64),
}

/// What the coordinator has to say to a member of this process.
#[derive(Default)]
pub(crate) struct Mailbox {
    content: Mutex<MailboxContent>,
    bell: Notify,
}

#[derive(Default)]
struct MailboxContent {
    answers: VecDeque<(u64, Answer)>,
    woken: bool,
}

/// A request that waits for its answer. Dropping it takes the request back.
pub(crate) struct Waiting {
    groups: Arc<Groups>,
    group: String,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Groups {
    /// Gives a group an input whose answer can be waited for.
    pub(crate) fn ask(
        self: &Arc<Self>,
        group: &str,
        ticket: Ticket,
        input: Input,
    ) -> Result<Waiting, GroupError> {
        let (reply, answer) = oneshot::channel();
        self.request(group, input, Some((ticket, Reply::Task(reply))))?;
        Ok(Waiting { groups: Arc::clone(self), group: group.to_owned(), ticket, answer, answered: false })
    }
}

impl Mailbox {
    pub(super) fn put(&self, number: u64, answer: Answer) {
        self.content.lock().answers.push_back((number, answer));
        self.bell.notify_one();
    }

    pub(super) fn wake(&self) {
        self.content.lock().woken = true;
        self.bell.notify_one();
    }

    pub(crate) fn take_answer(&self) -> Option<(u64, Answer)> {
        self.content.lock().answers.pop_front()
    }

    /// Whether a rebalance has begun since the last time that this was asked.
    pub(crate) fn take_wake(&self) -> bool {
        std::mem::take(&mut self.content.lock().woken)
    }

    /// Offsets that were held back may stand.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Resolves when there is something to take, or offsets that were held back may stand.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Waiting {
    /// The answer; none if the group was deleted meanwhile.
    pub(crate) async fn answer(mut self) -> Option<Answer> {
        let answer = (&mut self.answer).await.ok();
        self.answered = true;
        answer
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // The group is there as long as it has a member that waits; if not, there is nothing to take back.
        if let Err(error) = self.groups.request(&self.group, Input::Abandon { ticket: self.ticket }, None) {
            tracing::debug!(%error, "a request could not be taken back");
        }
    }
}

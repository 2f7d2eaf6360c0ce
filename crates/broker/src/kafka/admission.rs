//! Who may come in, and how much may be under way: the bounds over all connections together.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::KafkaLimits;

/// The bounds over all connections.
pub(super) struct Admission {
    open: Arc<Mutex<Open>>,
    connections: usize,
    connections_per_address: usize,
    /// Bytes of requests of an ordinary size.
    requests: Bytes,
    /// Bytes of larger requests, so that slow senders of those hold up nobody else.
    large_requests: Bytes,
    /// Bytes of Fetch answers.
    pub(super) answers: Bytes,
    /// Bytes of other answers, beyond what each connection may hold.
    pub(super) other_answers: Bytes,
    /// Turns for work off the async threads.
    turns: Arc<Semaphore>,
}

/// What most requests aren't larger than: Kafka's clients gather up to 1 MB.
pub(super) const ORDINARY_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// Descriptions and searches that are under way at once.
const TURNS: usize = 4;

#[derive(Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many are open as may be.
    TooMany,
    /// As many of its address are.
    TooManyOfAddress,
}

/// The place of an open connection; dropping it gives it back.
pub(super) struct Place {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
}

/// A number of bytes that connections share.
pub(super) struct Bytes {
    semaphore: Arc<Semaphore>,
    total: usize,
}

impl Admission {
    pub(super) fn new(limits: &KafkaLimits) -> Self {
        Self {
            open: Arc::default(),
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            requests: Bytes::new(limits.requests_in_flight_bytes / 2),
            large_requests: Bytes::new(limits.requests_in_flight_bytes / 2),
            answers: Bytes::new(limits.answers_in_flight_bytes / 4 * 3),
            other_answers: Bytes::new(limits.answers_in_flight_bytes / 4),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// Where a request of this size takes its share.
    pub(super) fn requests_of(&self, bytes: usize) -> &Bytes {
        if bytes > ORDINARY_REQUEST_BYTES { &self.large_requests } else { &self.requests }
    }

    /// Bytes of requests that are taken.
    pub(super) fn request_bytes_taken(&self) -> usize {
        self.requests.taken() + self.large_requests.taken()
    }

    /// Bytes of answers that are taken, but for what connections hold of their own.
    pub(super) fn answer_bytes_taken(&self) -> usize {
        self.answers.taken() + self.other_answers.taken()
    }

    /// Waits for a turn of work off the async threads.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// A place for a connection of `address`, if there is one.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Place, Refused> {
        let mut open = self.open.lock();
        if open.total >= self.connections {
            return Err(Refused::TooMany);
        }
        let of_address = open.by_address.entry(address).or_insert(0);
        if *of_address >= self.connections_per_address {
            return Err(Refused::TooManyOfAddress);
        }
        *of_address += 1;
        open.total += 1;
        Ok(Place { open: Arc::clone(&self.open), address })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.lock().total
    }
}

impl Bytes {
    pub(super) fn new(total: usize) -> Self {
        let total = total.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { semaphore: Arc::new(Semaphore::new(total)), total }
    }

    /// `bytes`, but never more than there are.
    pub(super) fn capped(&self, bytes: usize) -> usize {
        bytes.min(self.total)
    }

    /// Waits for `bytes`, but never for more than there are.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(self.capped(bytes)).ok()?;
        // Never closed.
        Arc::clone(&self.semaphore).acquire_many_owned(bytes).await.ok()
    }

    /// `bytes` if they are there now.
    pub(super) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.semaphore.available_permits()
    }

    /// Bytes that are taken.
    pub(super) fn taken(&self) -> usize {
        self.total.saturating_sub(self.semaphore.available_permits())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(of_address) = open.by_address.get_mut(&self.address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_total_and_by_address_and_come_back() {
        let limits = KafkaLimits { connections: 3, connections_per_address: 2, ..KafkaLimits::default() };
        let admission = Admission::new(&limits);
        let (here, there): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [10, 0, 0, 1].into());
        let first = admission.admit(here).ok().unwrap();
        let _second = admission.admit(here).ok().unwrap();
        assert_eq!(admission.admit(here).err(), Some(Refused::TooManyOfAddress));
        let _third = admission.admit(there).ok().unwrap();
        assert_eq!(admission.admit(there).err(), Some(Refused::TooMany));
        drop(first);
        assert!(admission.admit(here).is_ok());
        assert_eq!(admission.open(), 2, "the last one went at once");
    }

    #[tokio::test]
    async fn more_bytes_than_there_are_wait_for_all_of_them() {
        let limits = KafkaLimits { requests_in_flight_bytes: 20, ..KafkaLimits::default() };
        let admission = Admission::new(&limits);
        let requests = admission.requests_of(1000);
        let all = requests.take(1000).await.unwrap();
        assert_eq!(admission.request_bytes_taken(), 10);
        assert!(requests.try_take(1).is_none());
        assert!(admission.requests_of(ORDINARY_REQUEST_BYTES + 1).try_take(10).is_some(), "of their own");
        drop(all);
        assert!(requests.try_take(10).is_some());
    }
}

//! Who may come in, and how much may be under way: the bounds over all connections together.
//!
//! Where no place is left, the oldest connection that has been answered nothing yet makes room for a new one: whoever opens connections and
//! says nothing keeps nobody out, and a client that means it has its answer long before as many others have come as there are silent ones.
//! Those that were answered keep their places, so one address has a share only; but loopback, where an address tells nobody from anybody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

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
    /// Those that have been answered nothing yet, by age.
    silent: BTreeMap<u64, Silent>,
    /// Numbers the connections by age.
    next: u64,
}

struct Silent {
    address: IpAddr,
    /// Cancelled when the connection has to make room.
    unseated: CancellationToken,
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
    number: u64,
    address: IpAddr,
    /// Cancelled when the connection has to make room; the place is somebody else's then.
    pub(super) unseated: CancellationToken,
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

    /// A place for a connection of `address`, if there is one or a silent connection makes room.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Place, Refused> {
        let address = address.to_canonical();
        let mut open = self.open.lock();
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if !address.is_loopback() && of_address >= self.connections_per_address {
            open.unseat(|silent| silent.address == address).ok_or(Refused::TooManyOfAddress)?;
        } else if open.total >= self.connections {
            open.unseat(|_| true).ok_or(Refused::TooMany)?;
        }
        let unseated = CancellationToken::new();
        let number = open.seat(address, unseated.clone());
        Ok(Place { open: Arc::clone(&self.open), number, address, unseated })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.lock().total
    }
}

impl Open {
    /// Takes a place, and numbers it.
    fn seat(&mut self, address: IpAddr, unseated: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.total += 1;
        *self.by_address.entry(address).or_insert(0) += 1;
        self.silent.insert(number, Silent { address, unseated });
        number
    }

    /// Takes the oldest silent connection of those that may be taken away from its place.
    fn unseat(&mut self, may_be: impl Fn(&Silent) -> bool) -> Option<()> {
        let number = self.silent.iter().find(|(_, silent)| may_be(silent)).map(|(number, _)| *number)?;
        let silent = self.silent.remove(&number)?;
        self.give_back(silent.address);
        silent.unseated.cancel();
        Some(())
    }

    fn give_back(&mut self, address: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(of_address) = self.by_address.get_mut(&address) {
            *of_address = of_address.saturating_sub(1);
            if *of_address == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Place {
    /// The connection has been answered, and keeps its place.
    pub(super) fn keep(&self) {
        self.open.lock().silent.remove(&self.number);
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
        // Decided under the lock: an unseated connection's place was given back with that.
        if !self.unseated.is_cancelled() {
            open.silent.remove(&self.number);
            open.give_back(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that is kept.
    fn kept(admission: &Admission, address: [u8; 4]) -> Result<Place, Refused> {
        let place = admission.admit(address.into())?;
        place.keep();
        Ok(place)
    }

    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

    #[test]
    fn places_are_bounded_in_total_and_by_address_and_come_back() {
        let limits = KafkaLimits { connections: 3, connections_per_address: 2, ..KafkaLimits::default() };
        let admission = Admission::new(&limits);
        let (here, there) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let first = kept(&admission, here).ok().unwrap();
        let _second = kept(&admission, here).ok().unwrap();
        assert_eq!(kept(&admission, here).err(), Some(Refused::TooManyOfAddress));
        let mapped = std::net::Ipv4Addr::from(here).to_ipv6_mapped();
        assert_eq!(admission.admit(mapped.into()).err(), Some(Refused::TooManyOfAddress), "the same address");
        let _third = kept(&admission, there).ok().unwrap();
        assert_eq!(kept(&admission, there).err(), Some(Refused::TooMany));
        drop(first);
        assert!(kept(&admission, here).is_ok());
        assert_eq!(admission.open(), 2, "the last one went at once");
        let _last = kept(&admission, LOOPBACK).ok().unwrap();
        assert_eq!(kept(&admission, LOOPBACK).err(), Some(Refused::TooMany));
    }

    #[test]
    fn many_of_one_machine_are_bounded_in_total_only() {
        let limits = KafkaLimits { connections: 3, connections_per_address: 1, ..KafkaLimits::default() };
        let admission = Admission::new(&limits);
        let places: Vec<_> = (0..3).map(|_| kept(&admission, LOOPBACK).ok().unwrap()).collect();
        assert_eq!(kept(&admission, LOOPBACK).err(), Some(Refused::TooMany));
        drop(places);
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn the_oldest_silent_connection_makes_room_and_gives_its_place_back_once() {
        let limits = KafkaLimits { connections: 3, connections_per_address: 2, ..KafkaLimits::default() };
        let admission = Admission::new(&limits);
        let silent = |address: [u8; 4]| admission.admit(address.into()).ok().unwrap();
        let (here, there, elsewhere) = ([10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]);
        let oldest = silent(there);
        let heard = kept(&admission, here).ok().unwrap();
        let second = silent(here);
        // One address makes room of its own.
        let third = silent(here);
        let unseated =
            |places: &[&Place]| places.iter().map(|place| place.unseated.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(unseated(&[&oldest, &heard, &second, &third]), [false, false, true, false]);
        // Who is another's guest takes the oldest of all.
        let fourth = silent(elsewhere);
        assert_eq!(unseated(&[&oldest, &heard, &third, &fourth]), [true, false, false, false]);
        drop((oldest, second));
        assert_eq!(admission.open(), 3);
        third.keep();
        fourth.keep();
        assert_eq!(admission.admit(there.into()).err(), Some(Refused::TooMany), "all have been answered");
        drop((heard, third, fourth));
        assert_eq!(admission.open(), 0);
        assert!(admission.open.lock().silent.is_empty() && admission.open.lock().by_address.is_empty());
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

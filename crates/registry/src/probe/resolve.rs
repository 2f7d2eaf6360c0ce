//! Names to addresses.
//!
//! The system's resolver blocks a thread for as long as the name servers take, and can't be told to stop: when a question's time is up,
//! its thread still waits. So threads are counted here and not questions: at most [`MAX_LOOKUPS`] names are looked up at a
//! time, each only once however many ask for it. While name servers don't answer, checks of names fail, and everything else goes on.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

/// How many names are looked up at a time; others wait for their turn.
const MAX_LOOKUPS: usize = 64;

/// The addresses of a name, or why there are none.
type Found = Arc<Result<Vec<IpAddr>, String>>;
type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Looks names up. Cheap to clone.
#[derive(Clone)]
pub(super) struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Box<Lookup>,
    turns: Arc<Semaphore>,
    under_way: Mutex<HashMap<String, watch::Receiver<Option<Found>>>>,
}

impl Default for Resolver {
    fn default() -> Self {
        let system = |host: &str| {
            let found = (host, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        };
        Self::new(MAX_LOOKUPS, Box::new(system))
    }
}

impl Resolver {
    fn new(turns: usize, lookup: Box<Lookup>) -> Self {
        let turns = Arc::new(Semaphore::new(turns));
        Self(Arc::new(Shared { lookup, turns, under_way: Mutex::default() }))
    }

    /// The addresses of a host. May be dropped at any time; the lookup goes on for whoever else asks.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let mut found = self.under_way(host);
        let found = found.wait_for(Option::is_some).await.map(|found| found.clone());
        let found = found.ok().flatten().ok_or("its lookup was given up: Farol is stopping")?;
        Result::clone(&found)
    }

    /// The lookup of a host, begun if there is none.
    fn under_way(&self, host: &str) -> watch::Receiver<Option<Found>> {
        let mut under_way = self.0.under_way.lock();
        if let Some(running) = under_way.get(host) {
            return running.clone();
        }
        let (tell, found) = watch::channel(None);
        under_way.insert(host.to_owned(), found.clone());
        drop(under_way);
        let (shared, host) = (Arc::clone(&self.0), host.to_owned());
        tokio::spawn(async move {
            // Nobody closes it.
            let turn = Arc::clone(&shared.turns).acquire_owned().await.ok();
            let (looking, name) = (Arc::clone(&shared), host.clone());
            let looked_up = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                (looking.lookup)(&name).map_err(|error| error.to_string())
            });
            let found = looked_up.await.unwrap_or_else(|error| Err(error.to_string()));
            shared.under_way.lock().remove(&host);
            tell.send_replace(Some(Arc::new(found)));
        });
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test(flavor = "multi_thread")]
    async fn names_that_nobody_answers_hold_up_no_more_than_their_turns() {
        let lookups = Arc::new(AtomicUsize::new(0));
        let (answer, answers) = mpsc::channel::<()>();
        let answers = Mutex::new(answers);
        let counted = Arc::clone(&lookups);
        let resolver = Resolver::new(
            2,
            Box::new(move |host| {
                counted.fetch_add(1, Ordering::Relaxed);
                if host.starts_with("dead") {
                    answers.lock().recv_timeout(Duration::from_secs(60)).unwrap();
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Ok(vec![HOME])
            }),
        );
        // Time is up for a hundred questions about one name.
        for _ in 0..100 {
            let asked = tokio::time::timeout(Duration::from_millis(1), resolver.addresses("dead-1")).await;
            assert!(asked.is_err());
        }
        assert_eq!(resolver.addresses("live").await, Ok(vec![HOME]), "the other turn is free");
        assert_eq!(resolver.addresses("127.0.0.1").await, Ok(vec![HOME]), "nothing to look up");
        assert_eq!(lookups.load(Ordering::Relaxed), 2);

        let second = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.addresses("dead-2").await }
        });
        let third = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.addresses("later").await }
        });
        answer.send(()).unwrap();
        answer.send(()).unwrap();
        assert!(second.await.unwrap().is_err());
        assert_eq!(third.await.unwrap(), Ok(vec![HOME]));
        assert!(resolver.0.under_way.lock().is_empty(), "what has ended is forgotten");
    }
}

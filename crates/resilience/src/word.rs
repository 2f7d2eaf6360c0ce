//! An atomic word as lock-free code needs it, so that tests can run the very same code under loom, which tries every
//! interleaving.

use std::sync::atomic::{AtomicU64, Ordering};

/// An atomic word. Loads acquire, changes acquire and release.
pub(crate) trait Word {
    fn new(value: u64) -> Self;
    fn load(&self) -> u64;
    /// Swaps if the word is `current`; otherwise says what it is.
    fn swap_if(&self, current: u64, new: u64) -> Result<(), u64>;
    fn raise_to(&self, value: u64);

    /// Changes the word by a function of its value, unless that gives `None`; gives the value before.
    #[inline]
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut seen = self.load();
        loop {
            match self.swap_if(seen, change(seen)?) {
                Ok(()) => return Some(seen),
                Err(current) => seen = current,
            }
        }
    }
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    #[inline]
    fn load(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn swap_if(&self, current: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn raise_to(&self, value: u64) {
        self.fetch_max(value, Ordering::AcqRel);
    }
}

/// The same code under loom.
#[cfg(test)]
pub(crate) mod under_loom {
    use std::sync::Arc;

    pub(crate) use loom::sync::atomic::AtomicU64 as LoomU64;
    use loom::sync::atomic::Ordering::{AcqRel, Acquire};

    use super::Word;

    impl Word for LoomU64 {
        fn new(value: u64) -> Self {
            Self::new(value)
        }

        fn load(&self) -> u64 {
            self.load(Acquire)
        }

        fn swap_if(&self, current: u64, new: u64) -> Result<(), u64> {
            self.compare_exchange(current, new, AcqRel, Acquire).map(drop)
        }

        fn raise_to(&self, value: u64) {
            self.fetch_max(value, AcqRel);
        }
    }

    /// Runs the closure in as many threads, under every interleaving with up to two preemptions, and gives what they
    /// returned to `check`.
    pub(crate) fn every_interleaving<S: Send + Sync + 'static, T: Send + 'static>(
        threads: usize,
        prepare: impl Fn() -> S + Send + Sync + 'static,
        run: impl Fn(&S, usize) -> T + Send + Sync + Copy + 'static,
        check: impl Fn(&S, Vec<T>) + Send + Sync + 'static,
    ) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let shared = Arc::new(prepare());
            let others: Vec<_> = (1..threads)
                .map(|number| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || run(&shared, number))
                })
                .collect();
            let mut results = vec![run(&shared, 0)];
            results.extend(others.into_iter().map(|thread| thread.join().unwrap()));
            check(&shared, results);
        });
    }
}

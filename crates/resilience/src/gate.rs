//! Places of which only so many can be taken at once, counted in one atomic word.

use std::sync::atomic::AtomicU64;

use crate::word::Word;

/// How many places are taken.
#[derive(Debug)]
pub(crate) struct Gate<W = AtomicU64> {
    taken: W,
}

impl<W: Word> Gate<W> {
    pub(crate) fn new() -> Self {
        Self { taken: W::new(0) }
    }

    /// Takes a place if fewer than `max` are taken.
    #[inline]
    pub(crate) fn try_take(&self, max: u64) -> bool {
        self.taken.update(|taken| (taken < max).then_some(taken + 1)).is_some()
    }

    /// Gives a taken place back. Says how many were taken, this one included.
    #[inline]
    pub(crate) fn give_back(&self) -> u64 {
        self.taken.update(|taken| taken.checked_sub(1)).unwrap_or(0)
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::word::under_loom::{LoomU64, every_interleaving};

    #[test]
    fn never_more_places_are_taken_than_there_are_and_none_is_lost() {
        for max in [1, 2] {
            every_interleaving(
                3,
                || (Gate::<LoomU64>::new(), AtomicU64::new(0)),
                move |(gate, inside), _| {
                    let entered = gate.try_take(max);
                    if entered {
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < max);
                        // Another thread may run at any touch of the gate: here, while this one is inside.
                        assert!(gate.taken() <= max);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        gate.give_back();
                    }
                    entered
                },
                |(gate, _), entered| {
                    assert_eq!(gate.taken(), 0);
                    assert!(entered.contains(&true));
                },
            );
        }
    }
}

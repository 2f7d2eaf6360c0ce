//! Many points into few, so that a chart of them looks the same.
//!
//! The time axis is cut into stretches of equal width, and of each the smallest and the largest value are kept: what a chart
//! of that width would show of it, spikes included. The width is a power of two of microseconds, counted from the epoch, and
//! the smallest that leaves few enough stretches. So the same readings always give the same points, whatever order
//! they come in, and a chart that grows at its end does not flicker at its beginning.
//!
//! Times are those of readings, so never before the epoch. Memory is bounded by the number of points asked for, not by the number given.

use std::collections::BTreeMap;

/// One point: microseconds since the Unix epoch, and the value.
pub(crate) type Point = (i64, f64);

/// Takes points in any order, gives back at most `max_points`.
pub(crate) struct Decimator {
    max_points: usize,
    seen: u64,
    kept: Kept,
}

enum Kept {
    /// All of them, as long as they are few enough.
    All(Vec<Point>),
    /// The extremes of each stretch of `2^shift` microseconds.
    Extremes { shift: u32, stretches: BTreeMap<i64, Extremes>, current: Option<(i64, Extremes)> },
}

#[derive(Clone, Copy)]
struct Extremes {
    low: Point,
    high: Point,
}

impl Extremes {
    fn of(point: Point) -> Self {
        Self { low: point, high: point }
    }

    fn add(&mut self, other: &Extremes) {
        // Of equal values the earliest counts, so that the order of arrival doesn't matter.
        if (other.low.1, other.low.0) < (self.low.1, self.low.0) {
            self.low = other.low;
        }
        if (other.high.1, -other.high.0) > (self.high.1, -self.high.0) {
            self.high = other.high;
        }
    }
}

impl Decimator {
    /// For at most `max_points` points, which must be at least 2.
    pub(crate) fn new(max_points: usize) -> Self {
        Self { max_points: max_points.max(2), seen: 0, kept: Kept::All(Vec::new()) }
    }

    /// Takes one point. Cheapest when points come in the order of time.
    pub(crate) fn add(&mut self, point: Point) {
        self.seen += 1;
        match &mut self.kept {
            Kept::All(points) => {
                points.push(point);
                if points.len() > self.max_points {
                    let points = std::mem::take(points);
                    self.kept = Kept::Extremes { shift: 0, stretches: BTreeMap::new(), current: None };
                    points.into_iter().for_each(|point| self.add_to_stretch(point));
                }
            }
            Kept::Extremes { .. } => self.add_to_stretch(point),
        }
    }

    /// How many points were taken, and those that remain, by time.
    pub(crate) fn finish(mut self) -> (u64, Vec<Point>) {
        self.close_current();
        let mut points = match self.kept {
            Kept::All(points) => points,
            Kept::Extremes { stretches, .. } => stretches
                .into_values()
                .flat_map(|Extremes { low, high }| {
                    // A stretch with one point, or with equal ones, gives one.
                    std::iter::once(low).chain((low != high).then_some(high))
                })
                .collect(),
        };
        points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        (self.seen, points)
    }

    fn add_to_stretch(&mut self, point: Point) {
        let Kept::Extremes { shift, current, .. } = &mut self.kept else { return };
        let stretch = point.0 >> *shift;
        match current {
            Some((open, extremes)) if *open == stretch => extremes.add(&Extremes::of(point)),
            _ => {
                self.close_current();
                if let Kept::Extremes { shift, current, .. } = &mut self.kept {
                    *current = Some((point.0 >> *shift, Extremes::of(point)));
                }
            }
        }
    }

    /// Puts the stretch that was being filled to the others, and widens them all while they are too many.
    fn close_current(&mut self) {
        let most = self.max_points / 2;
        let Kept::Extremes { shift, stretches, current } = &mut self.kept else { return };
        let Some((stretch, extremes)) = current.take() else { return };
        stretches.entry(stretch).and_modify(|known| known.add(&extremes)).or_insert(extremes);
        while stretches.len() > most && *shift < 62 {
            *shift += 1;
            let mut wider: BTreeMap<i64, Extremes> = BTreeMap::new();
            for (stretch, extremes) in std::mem::take(stretches) {
                wider.entry(stretch >> 1).and_modify(|known| known.add(&extremes)).or_insert(extremes);
            }
            *stretches = wider;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimate(points: &[Point], max_points: usize) -> (u64, Vec<Point>) {
        let mut decimator = Decimator::new(max_points);
        points.iter().for_each(|point| decimator.add(*point));
        decimator.finish()
    }

    #[test]
    fn few_points_are_left_as_they_are() {
        let points = [(30, 1.0), (10, 2.0), (20, 3.0)];
        assert_eq!(decimate(&points, 3), (3, vec![(10, 2.0), (20, 3.0), (30, 1.0)]));
    }

    #[test]
    fn a_single_spike_survives() {
        let mut points: Vec<Point> = (0..100_000).map(|i| (i * 1_000_000, 20.0)).collect();
        points[77_777].1 = 95.0;
        points[12_345].1 = -40.0;
        let (total, kept) = decimate(&points, 500);
        assert_eq!(total, 100_000);
        assert!(kept.len() <= 500 && kept.len() >= 100, "{} points", kept.len());
        assert!(kept.contains(&(77_777_000_000, 95.0)));
        assert!(kept.contains(&(12_345_000_000, -40.0)));
    }

    proptest! {
        #[test]
        fn extremes_survive_in_any_order_of_arrival(
            points in proptest::collection::vec((0_i64..2_000_000_000_000_000, -1e6_f64..1e6), 1..400),
            max_points in 2_usize..64,
            seed in any::<u64>(),
        ) {
            let (total, kept) = decimate(&points, max_points);
            prop_assert_eq!(total, points.len() as u64);
            prop_assert!(kept.len() <= max_points);
            prop_assert!(kept.iter().all(|point| points.contains(point)));
            prop_assert!(kept.is_sorted_by_key(|point| point.0));
            let highest = points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
            let lowest = points.iter().map(|p| p.1).fold(f64::MAX, f64::min);
            prop_assert!(kept.iter().any(|p| p.1 == highest) && kept.iter().any(|p| p.1 == lowest));
            let mut shuffled = points;
            shuffled.sort_by_key(|p| (p.0.cast_unsigned() ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            prop_assert_eq!(decimate(&shuffled, max_points).1, kept);
        }
    }
}

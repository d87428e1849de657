//! The last scores of a channel, both in order of time and sorted.
//!
//! A score is kept as a whole number of 65,536ths, cut off. Then a sum is exact: that of the largest
//! can follow each push by one addition and one subtraction, and is the same whatever order the
//! scores came in, also after a state is saved and restored. A push is two searches and one move of
//! the part between them; what a threshold asks for are a few reads.

use super::arithmetic::clamp;

/// Larger scores are kept as this one; the sums of the longest window stay exact.
pub(super) const LARGEST_KEPT: f64 = 30_000.0;
const PARTS: f64 = 65_536.0;

/// One in so many of the scores, and one at least, make the two tails.
pub(super) const INNER: usize = 10;
pub(super) const OUTER: usize = 50;

/// So few scores are counted one by one.
const COUNTED: usize = 72;

/// A ring of scores, and the same scores sorted.
#[derive(Debug, Clone)]
pub(super) struct Window {
    ring: Vec<i32>,
    oldest: usize,
    sorted: Vec<i32>,
    limit: usize,
    middle: Place,
    upper: Place,
    inner: Top,
    outer: Top,
}

/// A place between two of the sorted scores.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    below: usize,
    above: usize,
    share: f64,
}

/// The largest scores: how many, and their sum.
#[derive(Debug, Clone, Copy, Default)]
struct Top {
    count: usize,
    sum: i64,
}

/// Where a tail begins and what is in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tail {
    /// How many scores are in it.
    pub(super) count: usize,
    /// The largest score that is not.
    pub(super) base: f64,
    /// The sum of those that are.
    pub(super) sum: f64,
}

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ring: Vec::with_capacity(limit),
            oldest: 0,
            sorted: Vec::with_capacity(limit),
            limit,
            middle: Place::default(),
            upper: Place::default(),
            inner: Top::default(),
            outer: Top::default(),
        }
    }

    /// A window that holds these, the oldest first; there must be at most `limit`.
    pub(super) fn from_oldest_first(scores: &[f64], limit: usize) -> Self {
        let mut window = Self::new(limit);
        window.ring.extend(scores.iter().map(|&score| kept(score)));
        window.sorted.extend_from_slice(&window.ring);
        window.sorted.sort_unstable();
        window.add_up();
        window
    }

    pub(super) fn oldest_first(&self) -> Vec<f64> {
        let (newer, older) = self.ring.split_at(self.oldest);
        older.iter().chain(newer).map(|&one| told(one)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    pub(super) fn push(&mut self, score: f64) {
        let score = kept(score);
        if self.ring.len() < self.limit {
            let [to, _] = ranks(&self.sorted, [score, score]);
            self.ring.push(score);
            self.sorted.insert(to, score);
            self.add_up();
            return;
        }
        let leaving = std::mem::replace(&mut self.ring[self.oldest], score);
        self.oldest += 1;
        if self.oldest == self.limit {
            self.oldest = 0;
        }
        let [from, to] = ranks(&self.sorted, [leaving, score]);
        self.inner.follow(&self.sorted, leaving, score);
        self.outer.follow(&self.sorted, leaving, score);
        if to > from {
            self.sorted.copy_within(from + 1..to, from);
            self.sorted[to - 1] = score;
        } else {
            self.sorted.copy_within(to..from, to + 1);
            self.sorted[to] = score;
        }
    }

    /// The median; the window must not be empty.
    pub(super) fn middle(&self) -> f64 {
        self.at(self.middle)
    }

    /// What 84 of a hundred scores are below, a deviation above the median; the window must not be empty.
    pub(super) fn upper(&self) -> f64 {
        self.at(self.upper)
    }

    fn at(&self, place: Place) -> f64 {
        let (low, high) = (
            told(self.sorted[place.below]),
            told(self.sorted[place.above]),
        );
        low + place.share * (high - low)
    }

    /// The largest tenth; there must be two scores at least.
    pub(super) fn inner(&self) -> Tail {
        self.tail(self.inner)
    }

    /// The largest fiftieth; there must be two scores at least.
    pub(super) fn outer(&self) -> Tail {
        self.tail(self.outer)
    }

    fn tail(&self, top: Top) -> Tail {
        Tail {
            count: top.count,
            base: told(self.sorted[self.sorted.len() - top.count - 1]),
            sum: top.sum as f64 / PARTS,
        }
    }

    /// What changes with the number of scores.
    fn add_up(&mut self) {
        self.middle = Place::of(0.5, self.sorted.len());
        self.upper = Place::of(0.84, self.sorted.len());
        self.inner = Top::of(&self.sorted, INNER);
        self.outer = Top::of(&self.sorted, OUTER);
    }
}

impl Place {
    /// Linear interpolation at `q` times the last position.
    fn of(q: f64, count: usize) -> Self {
        let last = count.saturating_sub(1);
        let position = q * last as f64;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a position in the window; the fraction is what is cut off"
        )]
        let below = position as usize;
        Self {
            below,
            above: (below + 1).min(last),
            share: position - below as f64,
        }
    }
}

impl Top {
    fn of(sorted: &[i32], part: usize) -> Self {
        let count = (sorted.len() / part).max(1).min(sorted.len());
        let largest = &sorted[sorted.len() - count..];
        let sum = largest.iter().map(|&score| i64::from(score)).sum();
        Self { count, sum }
    }

    /// What becomes of it when one score leaves a full window and another enters; `sorted` is as it was before.
    #[inline]
    fn follow(&mut self, sorted: &[i32], leaving: i32, entering: i32) {
        let lowest = sorted.len() - self.count;
        // Without the one that leaves, this is the lowest of those that are left at the top.
        let edge = if leaving >= sorted[lowest] {
            self.sum -= i64::from(leaving);
            sorted[lowest - 1]
        } else {
            self.sum -= i64::from(sorted[lowest]);
            sorted[lowest]
        };
        self.sum += i64::from(edge.max(entering));
    }
}

/// A score as it is kept.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the fraction is what is cut off"
)]
fn kept(score: f64) -> i32 {
    (clamp(score, LARGEST_KEPT) * PARTS) as i32
}

fn told(score: i32) -> f64 {
    f64::from(score) / PARTS
}

/// How many of the sorted scores are smaller than each of two.
///
/// A round compares with seven scores, all at once as far as the processor is concerned, and keeps an
/// eighth, until what is left is counted faster than halved. There is no branch to guess, and the two
/// searches go side by side. Where an eighth is not whole, the part that is kept is the last one, and
/// overlaps.
fn ranks(sorted: &[i32], scores: [i32; 2]) -> [usize; 2] {
    let mut starts = [0; 2];
    let mut length = sorted.len();
    while length > COUNTED {
        let part = length / 8;
        // Of the seven marks, so many are smaller; what is left behind the last is longer.
        let rest = length - 7 * part;
        for (start, score) in starts.iter_mut().zip(scores) {
            let here = &sorted[*start..*start + length];
            let below: usize = (1..8)
                .map(|i| usize::from(here[i * part - 1] < score))
                .sum();
            *start += below * part;
        }
        length = rest;
    }
    let count = |start: usize, score: i32| {
        let here = &sorted[start..start + length];
        // As wide as the scores, so that many are counted at once.
        let below: u32 = here.iter().map(|&other| u32::from(other < score)).sum();
        start + below as usize
    };
    [count(starts[0], scores[0]), count(starts[1], scores[1])]
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the same bits are the claim")]
mod tests {
    use proptest::prelude::*;

    use super::{INNER, OUTER, Tail, Window, kept, ranks, told};

    fn naive_tail(sorted: &[i32], part: usize) -> Tail {
        let count = (sorted.len() / part).max(1);
        let (rest, top) = sorted.split_at(sorted.len() - count);
        Tail {
            count,
            base: told(rest[rest.len() - 1]),
            sum: top.iter().map(|&score| told(score)).sum(),
        }
    }

    fn naive_quantile(sorted: &[i32], q: f64) -> f64 {
        let position = q * (sorted.len() - 1) as f64;
        let at = |wanted: f64| {
            let mut places = sorted.iter().enumerate();
            let found = places.find(|&(place, _)| place as f64 == wanted);
            found.map(|(_, &score)| told(score)).expect("a place in it")
        };
        let (low, high) = (position.floor(), position.ceil());
        at(low) + (position - low) * (at(high) - at(low))
    }

    fn scores() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-3_i32..3).prop_map(f64::from),
            4 => -10.0..10.0,
            1 => -1e9..1e9,
        ]
    }

    proptest! {
        /// Few distinct values, so that equal scores meet; a small limit, so that it wraps.
        #[test]
        fn a_window_is_its_last_scores_sorted(
            scores in prop::collection::vec(scores(), 1..200),
            limit in 2_usize..70,
        ) {
            let mut window = Window::new(limit);
            let whole: Vec<i32> = scores.iter().map(|&score| kept(score)).collect();
            for (i, &score) in scores.iter().enumerate() {
                window.push(score);
                let last = &whole[(i + 1).saturating_sub(limit)..=i];
                let told: Vec<f64> = last.iter().map(|&score| told(score)).collect();
                prop_assert_eq!(window.oldest_first(), told.as_slice());
                let mut sorted = last.to_vec();
                sorted.sort_unstable();
                prop_assert_eq!(&window.sorted, &sorted);
                prop_assert_eq!(window.middle(), naive_quantile(&sorted, 0.5));
                prop_assert_eq!(window.upper(), naive_quantile(&sorted, 0.84));
                if sorted.len() > 1 {
                    prop_assert_eq!(window.inner(), naive_tail(&sorted, INNER));
                    prop_assert_eq!(window.outer(), naive_tail(&sorted, OUTER));
                }
            }
            let restored = Window::from_oldest_first(&window.oldest_first(), limit);
            prop_assert_eq!(&restored.sorted, &window.sorted);
            prop_assert_eq!(restored.oldest_first(), window.oldest_first());
        }

        #[test]
        fn a_rank_is_how_many_are_smaller(
            mut sorted in prop::collection::vec(-5_i32..5, 0..80),
            wanted in [-6_i32..6, -6_i32..6],
        ) {
            sorted.sort_unstable();
            let counted = wanted.map(|one| sorted.iter().filter(|&&other| other < one).count());
            prop_assert_eq!(ranks(&sorted, wanted), counted);
        }
    }

    #[test]
    fn what_is_kept_is_kept_again() {
        for score in [0.1, -0.1, 29_999.999, 1e9, -1e9, -0.0, 2.0_f64.powi(-17)] {
            let once = told(kept(score));
            assert_eq!(told(kept(once)).to_bits(), once.to_bits());
            assert!((once - score).abs() < 2.0_f64.powi(-16) || score.abs() > 30_000.0);
        }
    }
}

//! The last scores of a channel, both in order of time and sorted.
//!
//! A push is two searches and one move of the part between them. A quantile is an
//! interpolation. The sum of the largest m is added up anew each time, in eight lanes, so that it
//! depends on the scores alone and not on how the window came to hold them; it is the same after a
//! state is saved and restored.

/// A ring of finite scores, without negative zeros, and the same scores sorted.
#[derive(Debug, Clone)]
pub(super) struct Window {
    ring: Vec<f64>,
    oldest: usize,
    sorted: Vec<f64>,
    limit: usize,
}

const LANES: usize = 8;

impl Window {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            ring: Vec::with_capacity(limit),
            oldest: 0,
            sorted: Vec::with_capacity(limit),
            limit,
        }
    }

    /// A window that holds these, the oldest first; there must be at most `limit`.
    pub(super) fn from_oldest_first(scores: &[f64], limit: usize) -> Self {
        let mut window = Self::new(limit);
        window.ring.extend_from_slice(scores);
        window.sorted.extend_from_slice(scores);
        window.sorted.sort_unstable_by(f64::total_cmp);
        window
    }

    pub(super) fn oldest_first(&self) -> Vec<f64> {
        let (newer, older) = self.ring.split_at(self.oldest);
        [older, newer].concat()
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.sorted.clear();
        self.oldest = 0;
    }

    pub(super) fn push(&mut self, score: f64) {
        if self.ring.len() < self.limit {
            let [to, _] = ranks(&self.sorted, [score, score]);
            self.ring.push(score);
            self.sorted.insert(to, score);
            return;
        }
        let leaving = std::mem::replace(&mut self.ring[self.oldest], score);
        self.oldest += 1;
        if self.oldest == self.limit {
            self.oldest = 0;
        }
        let [from, to] = ranks(&self.sorted, [leaving, score]);
        if to > from {
            self.sorted.copy_within(from + 1..to, from);
            self.sorted[to - 1] = score;
        } else {
            self.sorted.copy_within(to..from, to + 1);
            self.sorted[to] = score;
        }
    }

    /// Linear interpolation at `q` times the last position; the window must not be empty.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let last = self.sorted.len() - 1;
        let position = q * last as f64;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a position in the window; the fraction is what is cut off"
        )]
        let below = position as usize;
        let low = self.sorted[below];
        let high = self.sorted[(below + 1).min(last)];
        low + (position - below as f64) * (high - low)
    }

    /// The largest score that is not one of the top `m`, and the sum of the top `m`.
    ///
    /// The j-th largest, from 0, is added to lane j mod 8, and the lanes are added in pairs.
    pub(super) fn top(&self, m: usize) -> (f64, f64) {
        let (rest, top) = self.sorted.split_at(self.sorted.len() - m);
        let base = rest[rest.len() - 1];
        let mut lanes = [0.0; LANES];
        let (lowest, chunks) = top.as_rchunks::<LANES>();
        for chunk in chunks.iter().rev() {
            for (lane, &score) in lanes.iter_mut().zip(chunk) {
                *lane += score;
            }
        }
        for (lane, &score) in lanes.iter_mut().rev().zip(lowest.iter().rev()) {
            *lane += score;
        }
        let [l7, l6, l5, l4, l3, l2, l1, l0] = lanes;
        let sum = ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7));
        (base, sum)
    }
}

/// How many of the sorted scores are smaller than each of two.
///
/// Each round compares with seven scores, all at once as far as the processor is concerned, and
/// keeps an eighth: a third as many rounds as in a binary search. The two searches go side by
/// side. Where an eighth is not whole, the part that is kept is the last one, and overlaps.
fn ranks(sorted: &[f64], scores: [f64; 2]) -> [usize; 2] {
    let mut starts = [0; 2];
    let mut length = sorted.len();
    while length > 8 {
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
    let count = |start: usize, score: f64| {
        let here = &sorted[start..start + length];
        start + here.iter().filter(|&&other| other < score).count()
    };
    [count(starts[0], scores[0]), count(starts[1], scores[1])]
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the same bits are the claim")]
mod tests {
    use proptest::prelude::*;

    use super::Window;

    fn naive_top(sorted: &[f64], m: usize) -> (f64, f64) {
        let mut lanes = [0.0; 8];
        for (j, &score) in sorted.iter().rev().take(m).enumerate() {
            lanes[j % 8] += score;
        }
        let pairs: Vec<f64> = (0..4).map(|i| lanes[i] + lanes[i + 4]).collect();
        let sum = (pairs[0] + pairs[2]) + (pairs[1] + pairs[3]);
        (sorted[sorted.len() - m - 1], sum)
    }

    proptest! {
        /// Few distinct values, so that equal scores meet; a small limit, so that it wraps.
        #[test]
        fn a_window_is_its_last_scores_sorted(
            scores in prop::collection::vec(prop_oneof![(-3_i32..3).prop_map(f64::from), -10.0..10.0], 1..200),
            limit in 1_usize..70,
        ) {
            let mut window = Window::new(limit);
            for (i, &score) in scores.iter().enumerate() {
                window.push(score);
                let last = &scores[(i + 1).saturating_sub(limit)..=i];
                prop_assert_eq!(window.oldest_first(), last);
                let mut sorted = last.to_vec();
                sorted.sort_by(f64::total_cmp);
                prop_assert_eq!(&window.sorted, &sorted);
                prop_assert_eq!(window.quantile(1.0), sorted[sorted.len() - 1]);
                prop_assert_eq!(window.quantile(0.0), sorted[0]);
                for m in 1..sorted.len() {
                    prop_assert_eq!(window.top(m), naive_top(&sorted, m));
                }
            }
            let restored = Window::from_oldest_first(&window.oldest_first(), limit);
            prop_assert_eq!(restored.sorted, window.sorted);
        }
    }
}

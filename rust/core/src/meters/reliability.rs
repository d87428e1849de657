//! How often a classifier that says "I am 80 % sure" is right: counts by confidence.
//!
//! [`Reliability`] files each prediction by its confidence p twice: in bins of equal width, the
//! first 0 ≤ p ≤ 1/bins, the others (i - 1)/bins < p ≤ i/bins; and in cells of equal ratio, sixteen
//! for each doubling of the odds against, (1 - p) / p, from 2⁻⁶⁰ to 2¹⁴. Cells are what groups of
//! equal mass are made of: a group is a run of cells, so its edges are off by at most one cell,
//! which is 6 % of the odds, and predictions of equal confidence are never parted.
//!
//! State: three integers for each bin and each cell, 54 KB in all, however many samples there are.

use super::fixed::FixedSum;
use crate::Error;

/// The largest number of bins.
pub const MAX_BINS: usize = 1 << 12;

/// Leading bits of a double that choose its cell: sign, exponent, and four bits after the point.
const CELL_SHIFT: u32 = 48;
const CELLS_PER_OCTAVE: usize = 16;
const LOWEST_OCTAVE: usize = 60;
const CELLS: usize = (LOWEST_OCTAVE + 14) * CELLS_PER_OCTAVE;
/// Leading bits of 2⁻⁶⁰.
const FIRST_CELL: u64 = ((1023 - LOWEST_OCTAVE) * CELLS_PER_OCTAVE) as u64;

/// The predictions whose confidence fell into one range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bin {
    /// How many there are.
    pub count: u64,
    /// How many of them are right.
    pub hits: u64,
    /// The sum of their confidences.
    pub confidence: FixedSum,
}

impl Bin {
    #[inline]
    fn add(&mut self, confidence: f64, hit: bool) {
        self.count += 1;
        self.hits += u64::from(hit);
        self.confidence.add(confidence);
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.hits += other.hits;
        self.confidence.merge(other.confidence);
    }
}

/// Counts of predictions by confidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reliability {
    bins: Vec<Bin>,
    /// By rising odds against, which is falling confidence.
    cells: Vec<Bin>,
}

impl Reliability {
    /// Empty counts in `bins` bins of equal width.
    ///
    /// # Errors
    ///
    /// [`Error::Bins`] unless there are 1 to [`MAX_BINS`].
    pub fn new(bins: usize) -> Result<Self, Error> {
        if !(1..=MAX_BINS).contains(&bins) {
            return Err(Error::Bins {
                bins,
                limit: MAX_BINS,
            });
        }
        Ok(Self {
            bins: vec![Bin::default(); bins],
            cells: vec![Bin::default(); CELLS],
        })
    }

    /// Adds a prediction with the odds `against` it, (1 - p) / p >= 0, and whether it was right.
    #[inline]
    pub fn add(&mut self, against: f64, hit: bool) {
        self.add_sure(against, 1.0 / (1.0 + against), hit);
    }

    /// The same for a caller who has divided already: `confidence` is 1 / (1 + `against`).
    #[inline]
    pub(super) fn add_sure(&mut self, against: f64, confidence: f64, hit: bool) {
        let bin = bin_of(confidence, self.bins.len());
        self.bins[bin].add(confidence, hit);
        self.cells[cell_of(against)].add(confidence, hit);
    }

    /// Adds everything that `other`, with as many bins, holds.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mine = self.bins.iter_mut().chain(&mut self.cells);
        for (mine, theirs) in mine.zip(other.bins.iter().chain(&other.cells)) {
            mine.merge(theirs);
        }
    }

    /// The bins of equal width, by rising confidence.
    #[must_use]
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// At most as many groups as bins, by rising confidence and as equal in count as whole cells
    /// allow; none is empty.
    #[must_use]
    pub fn groups(&self) -> Vec<Bin> {
        let wanted = self.bins.len() as u128;
        let total: u128 = self.cells.iter().map(|cell| u128::from(cell.count)).sum();
        let mut groups: Vec<(u128, Bin)> = Vec::new();
        let mut before = 0_u128;
        for cell in self.cells.iter().rev().filter(|cell| cell.count > 0) {
            // A cell goes where its middle sample goes.
            let middle = 2 * before + u128::from(cell.count);
            let place = (wanted * middle) / (2 * total);
            before += u128::from(cell.count);
            match groups.last_mut() {
                Some((last, group)) if *last == place => group.merge(cell),
                _ => groups.push((place, *cell)),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Bins and cells that are not empty, five integers each: place, count, hits, and the two
    /// [`FixedSum::parts`]; cells come after the bins.
    #[must_use]
    pub fn state(&self) -> Vec<i64> {
        let all = (0_i64..).zip(self.bins.iter().chain(&self.cells));
        all.filter(|(_, bin)| bin.count > 0)
            .flat_map(|(place, bin)| {
                let [whole, rest] = bin.confidence.parts();
                let counts = [bin.count, bin.hits].map(u64::cast_signed);
                [place, counts[0], counts[1], whole, rest]
            })
            .collect()
    }

    /// The counts that [`Reliability::state`] wrote, for `hits` of `samples`.
    ///
    /// # Errors
    ///
    /// [`Error::Bins`], or [`Error::State`] for `reliability` if no counts write such a state.
    pub fn from_state(bins: usize, state: &[i64], samples: u64, hits: u64) -> Result<Self, Error> {
        let mut read = Self::new(bins)?;
        let (entries, rest) = state.as_chunks::<5>();
        if !rest.is_empty() {
            return Err(refuse("has a length that is no multiple of 5".to_owned()));
        }
        let mut least = 0;
        for &[place, count, right, whole, part] in entries {
            let index = usize::try_from(place).unwrap_or(usize::MAX);
            let counts = (u64::try_from(count), u64::try_from(right));
            let (true, true, (Ok(count), Ok(right))) =
                (index >= least, index < bins + CELLS, counts)
            else {
                return Err(refuse(format!("has a wrong entry at place {place}")));
            };
            if count == 0 || count > samples || right > count {
                return Err(refuse(format!("holds {right} hits of {count} samples")));
            }
            least = index + 1;
            let bin = Bin {
                count,
                hits: right,
                confidence: FixedSum::from_parts("reliability", [whole, part], count, 1)?,
            };
            match index.checked_sub(bins) {
                None => read.bins[index] = bin,
                Some(cell) => read.cells[cell] = bin,
            }
        }
        let total = |bins: &[Bin]| {
            let count: u128 = bins.iter().map(|bin| u128::from(bin.count)).sum();
            let hits: u128 = bins.iter().map(|bin| u128::from(bin.hits)).sum();
            let mut confidence = FixedSum::new();
            for bin in bins {
                confidence.merge(bin.confidence);
            }
            (count, hits, confidence)
        };
        let (binned, celled) = (total(&read.bins), total(&read.cells));
        if binned != celled || (binned.0, binned.1) != (u128::from(samples), u128::from(hits)) {
            return Err(refuse(format!(
                "counts {} hits of {}, not {hits} of {samples}",
                binned.1, binned.0
            )));
        }
        Ok(read)
    }
}

/// The bin (i - 1)/bins < p <= i/bins that holds `confidence`; 0 is in the first.
#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates at both ends"
)]
fn bin_of(confidence: f64, bins: usize) -> usize {
    let place = confidence * bins as f64;
    let below = place as usize;
    // An edge belongs to the bin below. (`ceil` would be a call.)
    let edge = usize::from(below as f64 >= place);
    below.saturating_sub(edge).min(bins - 1)
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "sixteen bits fit")]
fn cell_of(against: f64) -> usize {
    let leading = against.to_bits() >> CELL_SHIFT;
    (leading.saturating_sub(FIRST_CELL) as usize).min(CELLS - 1)
}

fn refuse(problem: String) -> Error {
    Error::State {
        field: "reliability",
        problem,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Bin, Reliability, bin_of, cell_of};

    fn filed(bins: usize, predictions: &[(f64, bool)]) -> Reliability {
        let mut reliability = Reliability::new(bins).expect("valid bins");
        for &(against, hit) in predictions {
            reliability.add(against, hit);
        }
        reliability
    }

    fn prediction() -> impl Strategy<Value = (f64, bool)> {
        let odds = prop_oneof![
            (-70.0..20.0_f64).prop_map(f64::exp2),
            prop::sample::select(vec![0.0, 1.0, 14.0, 0.5, 1e-300, 16383.0, 1e300]),
        ];
        (odds, any::<bool>())
    }

    #[test]
    fn edges_belong_to_the_bin_below_and_zero_to_the_first() {
        assert_eq!(bin_of(0.0, 15), 0);
        assert_eq!(bin_of(0.2, 5), 0);
        assert_eq!(bin_of(0.2_f64.next_up(), 5), 1);
        assert_eq!(bin_of(1.0, 15), 14);
        assert_eq!((cell_of(0.0), cell_of(1e-300)), (0, 0));
        assert!(cell_of(0.5) < cell_of(0.54));
    }

    proptest! {
        #[test]
        fn order_and_partition_leave_no_trace(
            (all, shuffled) in vec(prediction(), 0..60)
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            cut in any::<prop::sample::Index>(), bins in 1_usize..20,
        ) {
            let whole = filed(bins, &all);
            prop_assert_eq!(&filed(bins, &shuffled), &whole);
            let (left, right) = all.split_at(cut.index(all.len() + 1));
            let mut merged = filed(bins, right);
            merged.merge(&filed(bins, left));
            prop_assert_eq!(&merged, &whole);
            let hits = all.iter().filter(|(_, hit)| *hit).count() as u64;
            let again = Reliability::from_state(bins, &whole.state(), all.len() as u64, hits);
            prop_assert_eq!(again, Ok(whole));
        }

        #[test]
        fn groups_hold_everything_and_rise(all in vec(prediction(), 1..60), bins in 1_usize..20) {
            let reliability = filed(bins, &all);
            let groups = reliability.groups();
            prop_assert!(!groups.is_empty() && groups.len() <= bins);
            let sum = |bins: &[Bin]| bins.iter().fold(Bin::default(), |mut sum, bin| {
                sum.merge(bin);
                sum
            });
            prop_assert_eq!(sum(&groups), sum(reliability.bins()));
            let mean = |bin: &Bin| bin.confidence.value() / bin.count as f64;
            prop_assert!(groups.windows(2).all(|pair| mean(&pair[0]) <= mean(&pair[1]) + 1e-12));
            // No group is further from its share than the largest run of equal cells.
            let mut cells = std::collections::HashMap::new();
            for &(against, _) in &all {
                *cells.entry(cell_of(against)).or_insert(0_usize) += 1;
            }
            let heaviest = *cells.values().max().expect("one prediction") as f64;
            let share = all.len() as f64 / bins as f64;
            prop_assert!(groups.iter().all(|group| group.count as f64 <= share + 2.0 * heaviest));
        }

        #[test]
        fn a_hostile_state_is_refused_without_a_panic(
            bins in 0_usize..4, state in vec(prop_oneof![any::<i64>(), -2_i64..6], 0..16),
            samples in 0_u64..5, hits in 0_u64..5,
        ) {
            if let Ok(read) = Reliability::from_state(bins, &state, samples, hits) {
                prop_assert_eq!(read.state(), state);
            }
        }
    }
}

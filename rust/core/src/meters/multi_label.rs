//! Which of several labels a row has, where it may have any number of them.
//!
//! [`MultiLabel`] reads rows of logits with a flag for each label. A label is predicted where its
//! logit is above the threshold. It keeps, for each label, how often it is true, predicted, and both;
//! and of the rows the sums of squares and products of those three counts, of which every interval of
//! a number that is pooled over labels follows, as the labels of one row are not independent; and the
//! exact sums of precision, recall and F1 of a row, each with the sum of its squares.
//!
//! *Nothing to divide by.* A row has precision 0 where nothing is predicted, recall 0 where nothing is
//! true, and F1 0 where neither is, although that row is right; such rows are counted.
//!
//! *Exactness.* All is integers, or sums in units of 2⁻⁶⁰; so batches, their order and merges leave no
//! trace. A batch counts as a whole or not at all.

use super::fixed::FixedSum;
use super::outcome::NonFinite;
use super::rows::Logit;
use super::source::Rows;
use super::state::MAX_SAMPLES;
use crate::Error;

/// The largest number of labels.
pub const MAX_LABELS: usize = 1 << 20;

/// The low half of a sum of products when it is written down.
const HALF_BITS: u32 = 62;
const HALF_MASK: u128 = (1 << HALF_BITS) - 1;
/// Integers of a state before those of the labels: samples, left out, exact, empty, six products of
/// two halves each, and six sums of two parts each.
const HEAD: usize = 4 + 6 * 2 + 6 * 2;

/// Which labels each row has.
#[derive(Debug, Clone, Copy)]
pub enum Flags<'a> {
    /// 0 or 1 for each label, row by row.
    Narrow(&'a [u8]),
    /// The same in another type.
    Wide(&'a [i64]),
}

/// How often a label is true, predicted, and both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LabelCounts {
    /// How many rows have it.
    pub positives: u64,
    /// How many rows are said to have it.
    pub predicted: u64,
    /// How many rows have it and are said to.
    pub hits: u64,
}

/// What is known of the rows as wholes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowSums {
    /// Rows all of whose labels are right.
    pub exact: u64,
    /// Rows without a true and without a predicted label.
    pub empty: u64,
    /// Sums over rows of products of the numbers of true labels t, predicted labels p and hits h of
    /// a row: t t, p p, h h, t p, t h, p h.
    pub products: [u128; 6],
    /// Sums over rows of precision, its square, recall, its square, F1 and its square.
    pub shares: [FixedSum; 6],
}

/// An accumulator over rows of logits and their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiLabel {
    threshold: f64,
    samples: u64,
    left_out: u64,
    counts: Vec<LabelCounts>,
    rows: RowSums,
}

impl MultiLabel {
    /// An empty meter.
    ///
    /// # Errors
    ///
    /// [`Error::Labels`] unless there are 1 to [`MAX_LABELS`], or [`Error::Threshold`] if it is not finite.
    pub fn new(labels: usize, threshold: f64) -> Result<Self, Error> {
        if !(1..=MAX_LABELS).contains(&labels) {
            return Err(Error::Labels {
                labels,
                limit: MAX_LABELS,
            });
        }
        if !threshold.is_finite() {
            return Err(Error::Threshold { value: threshold });
        }
        Ok(Self {
            threshold: threshold + 0.0, // -0 is 0
            samples: 0,
            left_out: 0,
            counts: vec![LabelCounts::default(); labels],
            rows: RowSums::default(),
        })
    }

    /// Adds a batch.
    ///
    /// # Errors
    ///
    /// [`Error::Length`] if logits and flags do not fit, [`Error::Flag`], [`Error::Logit`] or
    /// [`Error::Full`]; the meter is then what it was before.
    pub fn update<R: Rows>(
        &mut self,
        logits: &R,
        flags: Flags<'_>,
        policy: NonFinite,
    ) -> Result<(), Error> {
        match flags {
            Flags::Narrow(flags) => self.add(logits, flags, policy),
            Flags::Wide(flags) => self.add(logits, flags, policy),
        }
    }

    fn add<R: Rows, T: Flag>(
        &mut self,
        logits: &R,
        flags: &[T],
        policy: NonFinite,
    ) -> Result<(), Error> {
        let labels = self.counts.len();
        if logits.columns() != labels || Some(flags.len()) != logits.len().checked_mul(labels) {
            return Err(Error::Length {
                values: logits.len().saturating_mul(logits.columns()),
                rows: flags.len() / labels,
                classes: labels,
            });
        }
        if let Some(place) = T::first_wrong(flags) {
            return Err(Error::Flag {
                row: place / labels,
                column: place % labels,
                value: flags[place].value(),
            });
        }
        let batch = read(logits, flags, R::Value::floor(self.threshold), policy)?;
        let samples = room(self.samples, batch.samples)?;
        self.left_out = room(self.left_out, batch.left_out)?;
        self.samples = samples;
        for (mine, &[positives, predicted, hits]) in self.counts.iter_mut().zip(&batch.counts) {
            mine.positives += u64::from(positives);
            mine.predicted += u64::from(predicted);
            mine.hits += u64::from(hits);
        }
        self.rows.merge(&batch.rows);
        Ok(())
    }

    /// Adds everything that `other` has seen.
    ///
    /// # Errors
    ///
    /// [`Error::Unlike`] if labels or thresholds differ, or [`Error::Full`]; the meter is then what it
    /// was before.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        let unlike = |field, this: String, other: String| Err(Error::Unlike { field, this, other });
        if self.labels() != other.labels() {
            return unlike(
                "labels",
                self.labels().to_string(),
                other.labels().to_string(),
            );
        }
        if self.threshold.to_bits() != other.threshold.to_bits() {
            return unlike(
                "threshold",
                self.threshold.to_string(),
                other.threshold.to_string(),
            );
        }
        let samples = room(self.samples, other.samples)?;
        self.left_out = room(self.left_out, other.left_out)?;
        self.samples = samples;
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine.positives += theirs.positives;
            mine.predicted += theirs.predicted;
            mine.hits += theirs.hits;
        }
        self.rows.merge(&other.rows);
        Ok(())
    }

    /// The number of labels.
    #[must_use]
    pub const fn labels(&self) -> usize {
        self.counts.len()
    }

    /// Above which logit a label is predicted.
    #[must_use]
    pub const fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The number of rows measured.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// The number of rows left out, as they held NaN or an infinity.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The counts of each label.
    #[must_use]
    pub fn counts(&self) -> &[LabelCounts] {
        &self.counts
    }

    /// What is known of the rows as wholes.
    #[must_use]
    pub const fn rows(&self) -> &RowSums {
        &self.rows
    }

    /// The state as integers; equal meters give equal states.
    ///
    /// Samples, rows left out, exact and empty ones; the products, in two halves each; the shares, in
    /// two parts each; then the three counts of each label.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "2⁵³ rows of 2²⁰ labels leave 93 bits of a sum of products"
    )]
    pub fn state(&self) -> Vec<i64> {
        let counts = [
            self.samples,
            self.left_out,
            self.rows.exact,
            self.rows.empty,
        ];
        let mut state: Vec<i64> = counts.map(u64::cast_signed).to_vec();
        for product in self.rows.products {
            state.extend([(product >> HALF_BITS) as i64, (product & HALF_MASK) as i64]);
        }
        state.extend(self.rows.shares.into_iter().flat_map(FixedSum::parts));
        for one in &self.counts {
            state.extend([one.positives, one.predicted, one.hits].map(u64::cast_signed));
        }
        state
    }

    /// The meter that wrote `state`.
    ///
    /// # Errors
    ///
    /// As [`MultiLabel::new`], or [`Error::State`] if no meter can have written it.
    pub fn from_state(labels: usize, threshold: f64, state: &[i64]) -> Result<Self, Error> {
        let mut read = Self::new(labels, threshold)?;
        if state.len() != HEAD + 3 * labels {
            return Err(refuse(format!(
                "has length {}, not {}",
                state.len(),
                HEAD + 3 * labels
            )));
        }
        let (head, counts) = state.split_at(HEAD);
        if let Some(wrong) = head.iter().chain(counts).find(|&&value| value < 0) {
            return Err(refuse(format!("holds {wrong}, which is no count")));
        }
        let count = |place: usize| head[place].cast_unsigned();
        read.samples = room(0, count(0))?;
        read.left_out = room(0, count(1))?;
        (read.rows.exact, read.rows.empty) = (count(2), count(3));
        if read.rows.exact > read.samples || read.rows.empty > read.rows.exact {
            return Err(refuse("holds more exact rows than rows".to_owned()));
        }
        for (product, &[high, low]) in read
            .rows
            .products
            .iter_mut()
            .zip(head[4..16].as_chunks::<2>().0)
        {
            *product =
                u128::from(high.cast_unsigned()) << HALF_BITS | u128::from(low.cast_unsigned());
            if u128::from(low.cast_unsigned()) > HALF_MASK {
                return Err(refuse(format!("holds the product {high}, {low}")));
            }
        }
        for (sum, &parts) in read
            .rows
            .shares
            .iter_mut()
            .zip(head[16..].as_chunks::<2>().0)
        {
            *sum = FixedSum::from_parts("counts", parts, read.samples, 1)?;
        }
        for (one, &[positives, predicted, hits]) in
            read.counts.iter_mut().zip(counts.as_chunks::<3>().0)
        {
            let [positives, predicted, hits] = [positives, predicted, hits].map(i64::cast_unsigned);
            let fits = positives.max(predicted) <= read.samples && hits <= positives.min(predicted);
            if !fits || positives + predicted - hits > read.samples {
                return Err(refuse(format!(
                    "holds {hits} hits of {positives} and {predicted}"
                )));
            }
            *one = LabelCounts {
                positives,
                predicted,
                hits,
            };
        }
        read.check_products()?;
        Ok(read)
    }

    /// A sum of squares lies between those of equal counts and those of all or nothing.
    fn check_products(&self) -> Result<(), Error> {
        let sum = |of: fn(&LabelCounts) -> u64| -> u128 {
            self.counts.iter().map(|one| u128::from(of(one))).sum()
        };
        let [t, p, h] = [
            sum(|one| one.positives),
            sum(|one| one.predicted),
            sum(|one| one.hits),
        ];
        let labels = self.labels() as u128;
        let [tt, pp, hh, tp, th, ph] = self.rows.products;
        let squares = [(t, tt), (p, pp), (h, hh)];
        let between = squares
            .iter()
            .all(|&(sum, square)| (sum..=sum * labels).contains(&square));
        // (a - b)² >= 0 of every row, and no hits without the two.
        let mixed = 2 * tp <= tt + pp && (hh..=tt).contains(&th) && (hh..=pp).contains(&ph);
        if between && mixed {
            Ok(())
        } else {
            Err(refuse(
                "holds products that no counts of labels have".to_owned(),
            ))
        }
    }
}

impl RowSums {
    #[inline]
    fn add(&mut self, [t, p, h]: [u32; 3]) {
        let [wide_t, wide_p, wide_h] = [t, p, h].map(u64::from);
        self.exact += u64::from(h == t && h == p);
        self.empty += u64::from(t + p == 0);
        for (sum, product) in self.products.iter_mut().zip([
            wide_t * wide_t,
            wide_p * wide_p,
            wide_h * wide_h,
            wide_t * wide_p,
            wide_t * wide_h,
            wide_p * wide_h,
        ]) {
            *sum += u128::from(product);
        }
        let share = |part: u32, whole: u32| f64::from(part) / f64::from(whole.max(1));
        let shares = [share(h, p), share(h, t), share(2 * h, t + p)];
        for ([sum, squares], share) in self.shares.as_chunks_mut::<2>().0.iter_mut().zip(shares) {
            sum.add(share);
            squares.add(share * share);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.exact += other.exact;
        self.empty += other.empty;
        for (mine, theirs) in self.products.iter_mut().zip(other.products) {
            *mine += theirs;
        }
        for (mine, theirs) in self.shares.iter_mut().zip(other.shares) {
            mine.merge(theirs);
        }
    }
}

/// A type that flags come in.
trait Flag: Copy {
    /// 1 if it is set.
    fn bit(self) -> u32;
    fn value(self) -> i64;
    /// Where the first is that is neither 0 nor 1.
    fn first_wrong(flags: &[Self]) -> Option<usize>;
}

impl Flag for u8 {
    #[inline]
    fn bit(self) -> u32 {
        u32::from(self)
    }

    fn value(self) -> i64 {
        i64::from(self)
    }

    fn first_wrong(flags: &[Self]) -> Option<usize> {
        let any = flags.iter().fold(0, |any, flag| any | flag);
        (any > 1).then(|| flags.iter().position(|&flag| flag > 1))?
    }
}

impl Flag for i64 {
    #[inline]
    fn bit(self) -> u32 {
        u32::from(self != 0)
    }

    fn value(self) -> i64 {
        self
    }

    fn first_wrong(flags: &[Self]) -> Option<usize> {
        let any = flags.iter().fold(0, |any, flag| any | (flag & !1));
        (any != 0).then(|| flags.iter().position(|&flag| flag & !1 != 0))?
    }
}

/// What a batch adds.
struct Batch {
    samples: u64,
    left_out: u64,
    /// Positives, predicted and hits of each label.
    counts: Vec<[u32; 3]>,
    rows: RowSums,
}

/// Reads a batch; on processors with AVX2 the same source, compiled for them.
fn read<R: Rows, T: Flag>(
    logits: &R,
    flags: &[T],
    threshold: R::Value,
    policy: NonFinite,
) -> Result<Batch, Error> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code, reason = "the processor was asked")]
        // SAFETY: the function needs nothing but AVX2, which was just detected.
        return unsafe { wide::read(logits, flags, threshold, policy) };
    }
    generic(logits, flags, threshold, policy)
}

#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Batch, Error, Flag, NonFinite, Rows, generic};

    #[target_feature(enable = "avx2")]
    pub(super) fn read<R: Rows, T: Flag>(
        logits: &R,
        flags: &[T],
        threshold: R::Value,
        policy: NonFinite,
    ) -> Result<Batch, Error> {
        generic(logits, flags, threshold, policy)
    }
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]
fn generic<R: Rows, T: Flag>(
    logits: &R,
    flags: &[T],
    threshold: R::Value,
    policy: NonFinite,
) -> Result<Batch, Error> {
    let labels = logits.columns();
    let (mut positives, mut predicted, mut hits) = (
        vec![0_u32; labels],
        vec![0_u32; labels],
        vec![0_u32; labels],
    );
    let mut rows = RowSums::default();
    let (mut samples, mut left_out) = (0, 0);
    let mut scratch = Vec::new();
    if u32::try_from(logits.len()).is_err() {
        return Err(Error::Full {
            limit: u64::from(u32::MAX),
        });
    }
    for (row, flags) in flags.chunks_exact(labels).enumerate() {
        let values = logits.row(row, &mut scratch);
        let outside = values.iter().fold(0, |any, x| any | u32::from(!x.within()));
        if outside != 0 {
            if policy == NonFinite::LeaveOut {
                left_out += 1;
                continue;
            }
            let column = values.iter().position(|x| !x.within()).unwrap_or_default();
            return Err(Error::Logit {
                row,
                column,
                value: values[column].into(),
                limit: R::Value::LIMIT.into(),
            });
        }
        let mut row = [0_u32; 3];
        let counts = positives.iter_mut().zip(&mut predicted).zip(&mut hits);
        for (((t, p), h), (&x, &flag)) in counts.zip(values.iter().zip(flags)) {
            let (truth, said) = (flag.bit(), u32::from(x > threshold));
            let both = truth & said;
            *t += truth;
            *p += said;
            *h += both;
            row[0] += truth;
            row[1] += said;
            row[2] += both;
        }
        rows.add(row);
        samples += 1;
    }
    let counts = positives.into_iter().zip(predicted).zip(hits);
    Ok(Batch {
        samples,
        left_out,
        counts: counts.map(|((t, p), h)| [t, p, h]).collect(),
        rows,
    })
}

fn room(counted: u64, more: u64) -> Result<u64, Error> {
    let total = counted.checked_add(more);
    total
        .filter(|&total| total <= MAX_SAMPLES)
        .ok_or(Error::Full { limit: MAX_SAMPLES })
}

fn refuse(problem: String) -> Error {
    Error::State {
        field: "counts",
        problem,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::source::Dense;
    use super::{Flags, MultiLabel, NonFinite};

    const LABELS: usize = 5;
    type Row = (Vec<f64>, Vec<u8>);

    fn row() -> impl Strategy<Value = Row> {
        let logit = prop_oneof![
            4 => -3.0..3.0_f64,
            1 => prop::sample::select(vec![0.5, 0.0, -0.0, 1e4, -1e4, 1e-310, f64::NAN]),
        ];
        (vec(logit, LABELS), vec(0_u8..2, LABELS))
    }

    fn filled(rows: &[Row]) -> MultiLabel {
        let mut meter = MultiLabel::new(LABELS, 0.5).expect("valid");
        let logits: Vec<f64> = rows.iter().flat_map(|(logits, _)| logits.clone()).collect();
        let flags: Vec<u8> = rows.iter().flat_map(|(_, flags)| flags.clone()).collect();
        meter
            .update(
                &Dense::new(&logits, LABELS),
                Flags::Narrow(&flags),
                NonFinite::LeaveOut,
            )
            .expect("valid batch");
        meter
    }

    /// One label of one row at a time.
    fn oracle(rows: &[Row]) -> (u64, [u64; LABELS], [u64; LABELS], [u64; LABELS], u128) {
        let mut seen = 0;
        let (mut t, mut p, mut h) = ([0; LABELS], [0; LABELS], [0; LABELS]);
        let mut square = 0;
        for (logits, flags) in rows
            .iter()
            .filter(|row| row.0.iter().all(|x| x.is_finite()))
        {
            seen += 1;
            let mut hits = 0_u128;
            for label in 0..LABELS {
                let said = logits[label] > 0.5;
                t[label] += u64::from(flags[label]);
                p[label] += u64::from(said);
                h[label] += u64::from(said && flags[label] == 1);
                hits += u128::from(said && flags[label] == 1);
            }
            square += hits * hits;
        }
        (seen, t, p, h, square)
    }

    proptest! {
        #[test]
        fn counts_are_those_of_one_label_at_a_time_in_any_order_and_partition(
            (all, shuffled) in vec(row(), 0..40)
                .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = filled(&all);
            let (seen, t, p, h, square) = oracle(&all);
            prop_assert_eq!(whole.samples(), seen);
            prop_assert_eq!(whole.samples() + whole.left_out(), all.len() as u64);
            for (label, one) in whole.counts().iter().enumerate() {
                let expected = (t[label], p[label], h[label]);
                prop_assert_eq!((one.positives, one.predicted, one.hits), expected);
            }
            prop_assert_eq!(whole.rows().products[2], square);
            prop_assert_eq!(&filled(&shuffled), &whole);
            let (left, right) = all.split_at(cut.index(all.len() + 1));
            let mut merged = filled(right);
            merged.merge(&filled(left)).expect("alike");
            prop_assert_eq!(&merged, &whole);
            let again = MultiLabel::from_state(LABELS, 0.5, &whole.state());
            prop_assert_eq!(again, Ok(whole));
        }

        #[test]
        fn single_precision_is_compared_with_the_threshold_itself(
            x in any::<f32>(), threshold in -1e3..1e3_f64,
        ) {
            prop_assume!(x.is_finite());
            let mut meter = MultiLabel::new(1, threshold).expect("valid");
            meter
                .update(&Dense::new(&[x], 1), Flags::Wide(&[1]), NonFinite::Refuse)
                .expect("valid batch");
            prop_assert_eq!(meter.counts()[0].hits == 1, f64::from(x) > threshold);
        }

        #[test]
        fn a_hostile_state_or_batch_is_refused_without_a_panic(
            labels in 0_usize..4, threshold in any::<f64>(),
            state in vec(prop_oneof![any::<i64>(), -1_i64..4], 0..48),
            logits in vec(any::<f64>(), 0..12), flags in vec(any::<i64>(), 0..12),
        ) {
            if let Ok(read) = MultiLabel::from_state(labels, threshold, &state) {
                prop_assert_eq!(read.state(), state);
            }
            if let Ok(mut meter) = MultiLabel::new(labels, threshold) {
                let before = meter.clone();
                let rows = Dense::new(&logits, labels);
                if meter.update(&rows, Flags::Wide(&flags), NonFinite::Refuse).is_err() {
                    prop_assert_eq!(meter, before);
                }
            }
        }
    }
}

//! Where rows of logits come from: memory of any type and layout, one row at a time.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the vector unit of the caller"
)]

use super::rows::Logit;

/// Rows of logits that can be looked at one by one.
pub trait Rows {
    /// What the rows are computed in.
    type Value: Logit;

    /// How many rows there are.
    fn len(&self) -> usize;

    /// How many values a row has.
    fn columns(&self) -> usize;

    /// A row below [`Rows::len`], in place or written into `scratch`.
    fn row<'a>(&'a self, index: usize, scratch: &'a mut Vec<Self::Value>) -> &'a [Self::Value];

    /// All values, if they lie row after row in the type that they are computed in.
    fn whole(&self) -> Option<&[Self::Value]> {
        None
    }

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rows that lie one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a, F> {
    values: &'a [F],
    columns: usize,
}

impl<'a, F: Logit> Dense<'a, F> {
    /// The whole rows of `columns` values that `values` holds; what is left over makes
    /// [`Rows::columns`] 0, which no meter takes.
    #[must_use]
    pub const fn new(values: &'a [F], columns: usize) -> Self {
        let whole = columns > 0 && values.len().is_multiple_of(columns);
        Self {
            values,
            columns: if whole { columns } else { 0 },
        }
    }
}

impl<F: Logit> Rows for Dense<'_, F> {
    type Value = F;

    #[inline(always)]
    fn len(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }

    #[inline(always)]
    fn columns(&self) -> usize {
        self.columns
    }

    fn whole(&self) -> Option<&[F]> {
        Some(self.values)
    }

    #[inline(always)]
    fn row<'a>(&'a self, index: usize, _: &'a mut Vec<F>) -> &'a [F] {
        &self.values[index * self.columns..][..self.columns]
    }
}

/// The two types of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// IEEE 754 binary16: five bits of exponent, ten of fraction.
    Binary16,
    /// bfloat16: the upper half of an `f32`.
    Brain,
}

impl Half {
    /// The value, which every `f32` format holds exactly.
    #[inline(always)]
    #[must_use]
    pub fn widen(self, bits: u16) -> f32 {
        let wide = u32::from(bits);
        match self {
            Self::Brain => f32::from_bits(wide << 16),
            Self::Binary16 => {
                // The exponent is moved by a multiplication, which also normalises subnormals.
                const MOVE: f32 = f32::from_bits((127 + 112) << 23);
                let magnitude = f32::from_bits((wide & 0x7fff) << 13) * MOVE;
                let special = if wide & 0x7c00 == 0x7c00 {
                    0x7f80_0000
                } else {
                    0
                };
                f32::from_bits(magnitude.to_bits() | special | (wide & 0x8000) << 16)
            }
        }
    }
}

/// Rows of 16-bit values that lie one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Halves<'a> {
    bits: &'a [u16],
    columns: usize,
    half: Half,
}

impl<'a> Halves<'a> {
    /// The rows of `columns` values that `bits` holds, as [`Dense::new`].
    #[must_use]
    pub const fn new(bits: &'a [u16], columns: usize, half: Half) -> Self {
        let whole = columns > 0 && bits.len().is_multiple_of(columns);
        Self {
            bits,
            columns: if whole { columns } else { 0 },
            half,
        }
    }
}

impl Rows for Halves<'_> {
    type Value = f32;

    #[inline(always)]
    fn len(&self) -> usize {
        self.bits.len().checked_div(self.columns).unwrap_or(0)
    }

    #[inline(always)]
    fn columns(&self) -> usize {
        self.columns
    }

    #[inline(always)]
    fn row<'a>(&'a self, index: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let bits = &self.bits[index * self.columns..][..self.columns];
        scratch.clear();
        scratch.extend(bits.iter().map(|&bits| self.half.widen(bits)));
        scratch
    }
}

#[cfg(test)]
mod tests {
    use super::Half;

    /// Sign, exponent and fraction by their definition.
    fn naive(bits: u16) -> f64 {
        let fraction = f64::from(bits & 0x3ff);
        let magnitude = match (bits >> 10) & 0x1f {
            0 => fraction * 2_f64.powi(-24),
            31 if fraction > 0.0 => f64::NAN,
            31 => f64::INFINITY,
            exponent => (1024.0 + fraction) * 2_f64.powi(i32::from(exponent) - 25),
        };
        if bits >> 15 == 1 {
            -magnitude
        } else {
            magnitude
        }
    }

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (wide, exact) = (f64::from(Half::Binary16.widen(bits)), naive(bits));
            assert!(
                wide.to_bits() == exact.to_bits() || wide.is_nan() && exact.is_nan(),
                "{bits:#x}"
            );
            assert_eq!(Half::Brain.widen(bits).to_bits() >> 16, u32::from(bits));
        }
    }
}

//! Sums of `f64` without rounding error.
//!
//! [`ExactSum`] is the small superaccumulator of R. M. Neal, "Fast exact summation using small and
//! large superaccumulators" (arXiv:1505.05571, 2015): a fixed-point number wide enough for every
//! finite double, kept as chunks of 32 bits inside words of 64. The spare bits take the carries of
//! 2047 additions; then they are propagated.
//!
//! The sum is an integer multiple of 2⁻¹⁰⁷⁴, so addition is exact, hence associative and
//! commutative: any order and any partition give the same [`ExactSum::chunks`]. [`ExactSum::value`]
//! rounds once, to nearest, ties to even.
//!
//! Bounds: 536 bytes; exact for at least 2⁶⁰ additions of any finite values. It loses to a plain `+`
//! by about a factor of five; where a rounded sum is good enough, use that.

use crate::Error;

/// Bits of the sum that one chunk holds once carries are propagated.
const CHUNK_BITS: u32 = 32;
const CHUNK_MASK: i64 = (1 << CHUNK_BITS) - 1;
/// 66 chunks hold the 2098 bits from the smallest subnormal to the largest double. The last one
/// holds the sign and the carries.
const CHUNKS: usize = 67;
const TOP: usize = CHUNKS - 1;
/// An addition moves a chunk by less than 2⁵², so this many stay below 2⁶³.
const ADDITIONS_BETWEEN_CARRIES: u32 = 2047;
/// 2⁶⁰ additions of the largest double carry less than this into the last chunk.
const TOP_LIMIT: i64 = 1 << 48;

const FRACTION_BITS: u32 = 52;
const FRACTION_MASK: u64 = (1 << FRACTION_BITS) - 1;
const EXPONENT_MASK: u64 = 0x7ff;

/// A sum of `f64` that is exact, whatever the order.
#[derive(Debug, Clone)]
pub struct ExactSum {
    chunks: [i64; CHUNKS],
    additions: u32,
}

impl ExactSum {
    /// An empty sum; its value is 0.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            chunks: [0; CHUNKS],
            additions: 0,
        }
    }

    /// Adds one value.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] for NaN and the infinities, which leave the sum as it was.
    pub fn add(&mut self, value: f64) -> Result<(), Error> {
        if !value.is_finite() {
            return Err(Error::NotFinite { value });
        }
        self.add_finite(value);
        Ok(())
    }

    /// Adds a value that the caller knows to be finite.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "an 11-bit exponent fits any integer"
    )]
    pub(crate) fn add_finite(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        if self.additions == ADDITIONS_BETWEEN_CARRIES {
            self.propagate();
        }
        self.additions += 1;
        let bits = value.to_bits();
        let exponent = (bits >> FRACTION_BITS) & EXPONENT_MASK;
        let fraction = bits & FRACTION_MASK;
        // A normal double is (2⁵² + fraction) · 2^(exponent - 1) units of 2⁻¹⁰⁷⁴; a subnormal one
        // has no hidden bit and the exponent of the smallest normal one.
        let (mantissa, shift) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | (1 << FRACTION_BITS), exponent - 1),
        };
        let chunk = (shift / u64::from(CHUNK_BITS)) as usize;
        let shift = (shift % u64::from(CHUNK_BITS)) as u32;
        // 53 bits moved by up to 31 take up to 84: the lower 32 go here, the upper 52 one chunk up.
        let low = ((mantissa << shift) & CHUNK_MASK as u64).cast_signed();
        let high = (mantissa >> (CHUNK_BITS - shift)).cast_signed();
        if value.is_sign_negative() {
            self.chunks[chunk] -= low;
            self.chunks[chunk + 1] -= high;
        } else {
            self.chunks[chunk] += low;
            self.chunks[chunk + 1] += high;
        }
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        self.propagate();
        let other = other.canonical();
        for (mine, theirs) in self.chunks.iter_mut().zip(other) {
            // Only the last chunk could ever leave its range, and that takes more than 2⁶⁰
            // additions; wrapping keeps a hostile state from becoming a panic.
            *mine = mine.wrapping_add(theirs);
        }
        self.propagate();
    }

    /// The sum, correctly rounded: to nearest, ties to even.
    ///
    /// A sum beyond the largest double by half a unit or more is infinite, as IEEE 754 rounds it.
    /// An exact zero is +0.
    #[must_use]
    pub fn value(&self) -> f64 {
        let mut chunks = self.canonical();
        let negative = chunks[TOP] < 0;
        if negative {
            for chunk in &mut chunks {
                *chunk = chunk.wrapping_neg();
            }
            carry(&mut chunks);
        }
        let magnitude = round(&chunks);
        if negative { -magnitude } else { magnitude }
    }

    /// The sum as plain data: equal sums give equal chunks, however they came about.
    ///
    /// Chunk `i` counts units of 2^(32·i - 1074). All but the last are in `0..2³²`; the last one
    /// carries the sign.
    #[must_use]
    pub fn chunks(&self) -> Vec<i64> {
        self.canonical().to_vec()
    }

    /// The sum that [`ExactSum::chunks`] wrote.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if no sum writes such chunks.
    pub fn from_chunks(chunks: &[i64]) -> Result<Self, Error> {
        let refuse = |problem| Error::State {
            field: "chunks",
            problem,
        };
        let chunks: [i64; CHUNKS] = chunks
            .try_into()
            .map_err(|_| refuse(format!("has length {}, not {CHUNKS}", chunks.len())))?;
        for (index, chunk) in chunks.iter().enumerate() {
            let valid = match index {
                TOP => -TOP_LIMIT..=TOP_LIMIT,
                _ => 0..=CHUNK_MASK,
            };
            if !valid.contains(chunk) {
                return Err(refuse(format!(
                    "holds {chunk} at index {index}, out of range"
                )));
            }
        }
        Ok(Self {
            chunks,
            additions: 0,
        })
    }

    fn propagate(&mut self) {
        carry(&mut self.chunks);
        self.additions = 0;
    }

    fn canonical(&self) -> [i64; CHUNKS] {
        let mut chunks = self.chunks;
        carry(&mut chunks);
        chunks
    }
}

impl Default for ExactSum {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for ExactSum {}

/// Brings all chunks but the last into `0..2³²`: the only such form of a number.
fn carry(chunks: &mut [i64; CHUNKS]) {
    let mut carried = 0;
    for chunk in &mut chunks[..TOP] {
        let sum = *chunk + carried;
        carried = sum >> CHUNK_BITS;
        *chunk = sum & CHUNK_MASK;
    }
    chunks[TOP] = chunks[TOP].wrapping_add(carried);
}

/// The double nearest to a canonical, non-negative number.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a mantissa of 53 bits fits `u64`"
)]
fn round(chunks: &[i64; CHUNKS]) -> f64 {
    if chunks[TOP] != 0 {
        return f64::INFINITY; // at least 2^(66·32 - 1074) = 2¹⁰³⁸
    }
    let Some(highest) = chunks.iter().rposition(|&chunk| chunk != 0) else {
        return 0.0;
    };
    // The highest three chunks hold the 53 bits of the mantissa and the one that decides.
    let digit =
        |index: Option<usize>| index.map_or(0, |index| u128::from(chunks[index].cast_unsigned()));
    let window = digit(Some(highest)) << 64
        | digit(highest.checked_sub(1)) << 32
        | digit(highest.checked_sub(2));
    let rest = chunks[..highest.saturating_sub(2)]
        .iter()
        .any(|&chunk| chunk != 0);
    let lead = window.ilog2(); // place of the highest bit in the window, 64..96
    // Its place in the number. Below 53 bits the number is the bit pattern of its double.
    let place = (highest as u64 * 32 + u64::from(lead)) - 64;
    if place <= u64::from(FRACTION_BITS) {
        return f64::from_bits((chunks[0] | (chunks[1] << CHUNK_BITS)).cast_unsigned());
    }
    let dropped = lead - FRACTION_BITS;
    let mantissa = (window >> dropped) as u64;
    let remainder = window & ((1 << dropped) - 1);
    let half = 1 << (dropped - 1);
    let up = remainder > half || (remainder == half && (rest || mantissa & 1 == 1));
    // A mantissa that rounds up to 2⁵³ carries into the exponent, as it should.
    let bits = ((place - u64::from(FRACTION_BITS)) << FRACTION_BITS) + mantissa + u64::from(up);
    f64::from_bits(bits.min(f64::INFINITY.to_bits()))
}

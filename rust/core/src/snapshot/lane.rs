//! What the bytes of a tensor are, as far as "is it finite" goes.

/// How bytes are read when non-finite values are looked for. A complex number is two lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Integers, booleans, anything whose every pattern of bits is a value.
    Opaque,
    /// Eight bits with a four-bit exponent and no infinity; only NaN is not finite.
    Float8E4m3,
    /// Eight bits with a five-bit exponent.
    Float8E5m2,
    /// IEEE half precision.
    Float16,
    /// The upper half of a `f32`.
    Bfloat16,
    /// IEEE single precision.
    Float32,
    /// IEEE double precision.
    Float64,
}

impl Lane {
    /// Read a lane from the name that torch gives its type; `None` for a name it does not know.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "opaque" => Self::Opaque,
            "float8_e4m3fn" => Self::Float8E4m3,
            "float8_e5m2" => Self::Float8E5m2,
            "float16" => Self::Float16,
            "bfloat16" => Self::Bfloat16,
            "float32" => Self::Float32,
            "float64" => Self::Float64,
            _ => return None,
        })
    }

    /// Return how eight bytes at once are looked at.
    pub(super) fn check(self) -> Check {
        match self {
            Self::Opaque => Check::new(64, 0),
            // The only value that is not finite is all ones, so one more carries.
            Self::Float8E4m3 => Check::new(8, 0x01),
            Self::Float8E5m2 => Check::new(8, 0x04),
            Self::Float16 => Check::new(16, 0x0400),
            Self::Bfloat16 => Check::new(16, 0x0080),
            Self::Float32 => Check::new(32, 0x0080_0000),
            Self::Float64 => Check::new(64, 0x0010_0000_0000_0000),
        }
    }
}

/// How values that are not finite are found, all values of a word at a time.
///
/// Without its sign, a value is not finite exactly if its exponent is all ones. Adding one to the
/// exponent then carries into the place of the sign, and never further. So a mask, an addition and
/// an OR answer for any number of words without a branch, whatever the width of the values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    /// The bytes of a value.
    pub(super) width: usize,
    magnitudes: u64,
    ones: u64,
}

impl Check {
    /// For values of `width` bits whose exponent's lowest bit is `one`; zero finds nothing.
    const fn new(width: usize, one: u64) -> Self {
        let every = u64::MAX / (u64::MAX >> (64 - width)); // the lowest bit of every value
        Self {
            width: width / 8,
            magnitudes: !(every << (width - 1)),
            ones: every * one,
        }
    }

    /// Return bits to be collected with OR.
    pub(super) fn carries(self, word: u64) -> u64 {
        (word & self.magnitudes).wrapping_add(self.ones)
    }

    /// Say whether any word that was collected held a value that is not finite.
    pub(super) fn any(self, carries: u64) -> bool {
        carries & !self.magnitudes != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Put the value in every place of a word of values that are as large as finite ones get.
    fn found<const N: usize>(lane: Lane, value: [u8; N], largest: [u8; N]) -> bool {
        let check = lane.check();
        let places = (0..8 / N).map(|place| {
            let mut word = [0; 8];
            for (at, room) in word.chunks_mut(N).enumerate() {
                room.copy_from_slice(if at == place { &value } else { &largest });
            }
            check.any(check.carries(u64::from_le_bytes(word)))
        });
        let found: Vec<bool> = places.collect();
        assert!(found.iter().all(|one| *one == found[0]));
        found[0]
    }

    #[test]
    fn every_half_and_every_brain_float_is_judged_as_its_exponent_says() {
        for bits in 0..=u16::MAX {
            let half = bits & 0x7c00 == 0x7c00;
            let value = bits.to_le_bytes();
            let largest = 0xfbff_u16.to_le_bytes();
            assert_eq!(found(Lane::Float16, value, largest), half, "{bits:#06x}");
            let brain = !f32::from_bits(u32::from(bits) << 16).is_finite();
            let largest = 0xff7f_u16.to_le_bytes();
            assert_eq!(found(Lane::Bfloat16, value, largest), brain, "{bits:#06x}");
        }
    }

    #[test]
    fn every_byte_is_judged_as_its_format_says() {
        for bits in 0..=u8::MAX {
            let four = bits & 0x7f == 0x7f;
            assert_eq!(found(Lane::Float8E4m3, [bits], [0xfe]), four, "{bits:#04x}");
            let five = bits & 0x7c == 0x7c;
            assert_eq!(found(Lane::Float8E5m2, [bits], [0xfb]), five, "{bits:#04x}");
            assert!(!found(Lane::Opaque, [bits; 8], [0; 8]));
        }
    }

    proptest! {
        #[test]
        fn floats_are_judged_as_the_standard_library_does(single: u32, double: u64) {
            for bits in [single, single | 0x7f80_0000, single & !0x0080_0000] {
                let finite = f32::from_bits(bits).is_finite();
                let largest = (-f32::MAX).to_le_bytes();
                prop_assert_eq!(found(Lane::Float32, bits.to_le_bytes(), largest), !finite);
            }
            for bits in [double, double | 0x7ff0_0000_0000_0000] {
                let finite = f64::from_bits(bits).is_finite();
                prop_assert_eq!(found(Lane::Float64, bits.to_le_bytes(), [0; 8]), !finite);
            }
        }
    }
}

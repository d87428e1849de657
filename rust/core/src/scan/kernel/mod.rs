//! The two inner loops for each instruction set: bytes to codes, and codes to candidates.
//!
//! This is the only room of the scanner with unsafe code. `scalar` is the twin of the others: the same codes and the
//! same positions, bit for bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use super::alphabet::Alphabet;
use super::bucket::Tables;
use super::points::ALTERED_FLAG;

/// Bytes behind the last judged code that a kernel may read.
pub(super) const SLACK: usize = 128;

/// An instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust, on any machine.
    Scalar,
    /// AVX2 and BMI2.
    Avx2,
    /// AVX-512 with VBMI and VBMI2.
    Avx512,
}

impl Kernel {
    /// Every kernel, from the slowest.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// Say whether this machine has what the kernel needs.
    #[must_use]
    pub fn is_here(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vbmi")
                    && is_x86_feature_detected!("avx512vbmi2")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Return the fastest one that this machine has.
    #[must_use]
    pub fn fastest() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|kernel| kernel.is_here())
            .unwrap_or(Self::Scalar)
    }

    /// Write the codes of a text to `out`; return how many there are, and whether normalisation may change the text.
    ///
    /// `out` must have room for one code for each byte, and [`SLACK`] more.
    #[inline]
    pub(super) fn fill(self, alphabet: &Alphabet, text: &[u8], out: &mut [u8]) -> (usize, bool) {
        assert!(
            out.len() >= text.len() + SLACK,
            "no room for the codes of a text"
        );
        match self {
            Self::Scalar => scalar::fill(alphabet, text, out),
            // SAFETY: a plan is only given a kernel whose features this machine has, and `out` has the room.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "the features were detected")]
            Self::Avx2 => unsafe { avx2::fill(alphabet, text, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "the features were detected")]
            Self::Avx512 => unsafe { avx512::fill(alphabet, text, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::fill(alphabet, text, out),
        }
    }

    /// Write the codes of texts from `first` on, as many as fit whole, each with [`PAD`](super::alphabet::PAD) behind it.
    ///
    /// The last [`SLACK`] codes are left free.
    pub(super) fn pack(
        self,
        alphabet: &Alphabet,
        texts: &[&[u8]],
        first: usize,
        packed: &mut Packed<'_>,
    ) {
        match self {
            Self::Scalar => scalar::pack(alphabet, texts, first, packed),
            // SAFETY: a plan is only given a kernel whose features this machine has.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "the features were detected")]
            Self::Avx2 => unsafe { avx2::pack(alphabet, texts, first, packed) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "the features were detected")]
            Self::Avx512 => unsafe { avx512::pack(alphabet, texts, first, packed) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::pack(alphabet, texts, first, packed),
        }
    }

    /// Write the positions of the candidates among `codes[from..to]`; return how many there are.
    ///
    /// The code before `from` says whether a word begins there. Behind `to` stand [`SLACK`] codes more, and `out` has
    /// room for `to - from` positions and 64 more.
    pub(super) fn filter(
        self,
        tables: &Tables,
        codes: &[u8],
        from: usize,
        to: usize,
        out: &mut [u16],
    ) -> usize {
        assert!(
            0 < from && from <= to && codes.len() >= to + SLACK,
            "codes without a margin"
        );
        assert!(
            out.len() >= to - from + 64 && u16::try_from(to).is_ok(),
            "no room for positions"
        );
        match self {
            Self::Scalar => scalar::filter(tables, codes, from, to, out, 63),
            // SAFETY: a plan is only given a kernel whose features this machine has; the margins were checked.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "the features were detected")]
            Self::Avx2 => unsafe { avx2::filter(tables, codes, from, to, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code, reason = "the features were detected")]
            Self::Avx512 => unsafe { avx512::filter(tables, codes, from, to, out) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => scalar::filter(tables, codes, from, to, out, 63),
        }
    }
}

/// Where [`Kernel::pack`] writes.
pub(super) struct Packed<'a> {
    pub(super) out: &'a mut [u8],
    /// Where the next text begins.
    pub(super) end: usize,
    /// Where each text begins.
    pub(super) starts: &'a mut Vec<u16>,
    /// The texts that normalisation may change.
    pub(super) altered: &'a mut Vec<usize>,
}

/// How many texts ahead the memory is asked for one.
const SOON: usize = 6;

/// The loop of [`Kernel::pack`], written out for each kernel so that its `fill` is inlined.
macro_rules! pack {
    ($alphabet:ident, $texts:ident, $first:ident, $packed:ident, $fill:expr, $ask:expr) => {
        let room = $packed
            .out
            .len()
            .saturating_sub($crate::scan::kernel::SLACK);
        for (number, text) in $texts.iter().enumerate().skip($first) {
            if $packed.end + text.len() + 1 > room {
                break;
            }
            if let Some(soon) = $texts.get(number + $crate::scan::kernel::SOON) {
                $ask(soon);
            }
            $packed
                .starts
                .push(u16::try_from($packed.end).unwrap_or(u16::MAX));
            let (count, altered) = $fill($alphabet, text, &mut $packed.out[$packed.end..]);
            $packed.end += count;
            $packed.out[$packed.end] = $crate::scan::alphabet::PAD;
            $packed.end += 1;
            if altered {
                $packed.altered.push(number);
            }
        }
    };
}
use pack;

/// Write the code of the character that begins at `text[at]`, which is not ASCII; return its bytes and its code.
#[inline]
fn other(alphabet: &Alphabet, text: &[u8], at: usize) -> (usize, u8) {
    let (point, length) = super::decode::decode(&text[at..]);
    // What begins no character is told like what normalisation may change: both are looked at again.
    let code = if point == super::decode::MALFORMED {
        ALTERED_FLAG
    } else {
        alphabet.get(point)
    };
    (length, code)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::charset::CharSet;
    use super::*;

    fn alphabet() -> Alphabet {
        Alphabet::new([&CharSet::new(
            &[(0x2d, 0x2d), (0x40, 0x40), (0xe9, 0xe9)],
            0,
            false,
        )])
        .expect("few characters")
    }

    fn random_tables(seed: u64) -> Tables {
        let mut state = seed | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let [a, b, c, ..] = state.to_le_bytes();
            a & b & c
        };
        let mut tables = Tables {
            groups: [[[0; 64]; 4]; 3],
            used: [true, !seed.is_multiple_of(3), !seed.is_multiple_of(2)],
            last_word: 40,
        };
        for group in &mut tables.groups {
            for place in group {
                // Alike behind the letters, so that coarser tables say the same.
                let rest = next() | next();
                for (code, byte) in place.iter_mut().enumerate() {
                    *byte = if code < 31 { next() | next() } else { rest };
                }
            }
        }
        tables
    }

    proptest! {
        #[test]
        fn every_kernel_writes_the_codes_of_the_scalar_one(text in "([a-zA-Z0-9 _@.\n-]{0,90}|[éſK\u{200d}中\u{1F600}à-ÿ]{0,9}){0,4}", cut in 0_usize..9) {
            let alphabet = alphabet();
            let bytes = &text.as_bytes()[cut.min(text.len())..]; // may begin within a character
            let mut wanted = vec![0; bytes.len() + SLACK];
            let (count, altered) = scalar::fill(&alphabet, bytes, &mut wanted);
            let expected: Vec<u8> = {
                let (mut at, mut codes) = (0, Vec::new());
                while at < bytes.len() {
                    let (length, code) = if bytes[at] < 0x80 { (1, alphabet.ascii[usize::from(bytes[at])]) } else { other(&alphabet, bytes, at) };
                    codes.push(code & !ALTERED_FLAG);
                    at += length;
                }
                codes
            };
            prop_assert_eq!(&wanted[..count], &expected[..]);
            for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
                let mut out = vec![0; bytes.len() + SLACK];
                prop_assert_eq!(kernel.fill(&alphabet, bytes, &mut out), (count, altered), "{:?}", kernel);
                prop_assert_eq!(&out[..count], &wanted[..count], "{:?}", kernel);
            }
        }

        #[test]
        fn every_kernel_finds_the_positions_of_the_scalar_one(codes in proptest::collection::vec(0_u8..63, 200..700), seed: u64, from in 1_usize..70) {
            let tables = random_tables(seed);
            let to = codes.len() - SLACK;
            let mut wanted = vec![0; codes.len() + 64];
            let from = from.min(to);
            let count = scalar::filter(&tables, &codes, from, to, &mut wanted, 63);
            for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_here()) {
                let mut out = vec![0; codes.len() + 64];
                prop_assert_eq!(kernel.filter(&tables, &codes, from, to, &mut out), count, "{:?}", kernel);
                prop_assert_eq!(&out[..count], &wanted[..count], "{:?}", kernel);
            }
        }
    }
}

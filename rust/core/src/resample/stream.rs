//! Random numbers for one draw: xoshiro256++ (Blackman and Vigna, 2021), seeded by splitmix64.

/// The random stream of one draw.
#[derive(Debug, Clone)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The stream of draw `draw` under `seed`: streams of different draws are unrelated.
    #[must_use]
    pub fn of(seed: u64, draw: u64) -> Self {
        let mut counter =
            mixed(seed) ^ mixed(draw.wrapping_mul(0xD134_2543_DE82_EF95) ^ 0x5851_F42D_4C95_7F2D);
        let state = std::array::from_fn(|_| {
            counter = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mixed(counter)
        });
        Self { state }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Call `each` with `times` numbers below `bound`, every one equally likely (Lemire, 2019).
    ///
    /// Two come from each word. A bound of zero has no numbers, and `each` is not called.
    pub fn below(&mut self, bound: u32, times: usize, mut each: impl FnMut(usize)) {
        if bound == 0 {
            return;
        }
        let uneven = bound.wrapping_neg() % bound;
        let mut left = times;
        while left > 0 {
            let word = self.next();
            for half in [word & 0xFFFF_FFFF, word >> 32] {
                let product = half * u64::from(bound);
                // The low half is below `uneven` where a number has one word too many; it is drawn again.
                let low = product & 0xFFFF_FFFF;
                if low >= u64::from(uneven) && left > 0 {
                    #[allow(clippy::cast_possible_truncation, reason = "a number below a u32")]
                    each((product >> 32) as usize);
                    left -= 1;
                }
            }
        }
    }
}

fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_below_the_bound_and_equally_likely() {
        for bound in [1, 2, 3, 10, 257] {
            let mut seen = vec![0_u32; bound as usize];
            Stream::of(7, 3).below(bound, 100_000, |index| seen[index] += 1);
            let expected = 1e5 / f64::from(bound);
            let square: f64 = seen
                .iter()
                .map(|&count| (f64::from(count) - expected).powi(2) / expected)
                .sum();
            // Chi-square with bound - 1 degrees of freedom: six standard deviations above its mean.
            assert!(
                square < f64::from(bound) + 6.0 * (2.0 * f64::from(bound)).sqrt(),
                "{bound}: {square}"
            );
        }
    }

    #[test]
    fn streams_of_different_draws_and_seeds_differ() {
        let first = |seed, draw| Stream::of(seed, draw).next();
        let mut all: Vec<u64> = (0..50)
            .flat_map(|s| (0..50).map(move |d| first(s, d)))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2500);
    }
}

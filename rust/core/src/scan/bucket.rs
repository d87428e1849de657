//! Windows in buckets: for each place of a window and each code, the buckets that allow it there.
//!
//! Three groups of eight buckets, one bit each. Two are for windows at the start of a word, the third for those that may
//! stand anywhere. A place in a text is a candidate if one bucket allows all four of its codes.

use super::alphabet::Codes;
use super::english::Model;
use super::literal::WINDOW;

/// For each place of a window, the buckets of each code.
pub(super) type Group = [[u8; 64]; WINDOW];

/// The tables of the filter.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// Two groups for word starts, one for anywhere.
    pub(super) groups: [Group; 3],
    /// Whether a group has any window.
    pub(super) used: [bool; 3],
    /// The largest code of a word character.
    pub(super) last_word: u8,
}

/// More clusters than this are first put together by their first codes.
const CLUSTERS: usize = 192;

#[derive(Clone)]
struct Cluster {
    sets: [Codes; WINDOW],
    rate: f64,
}

impl Tables {
    pub(super) fn new(windows: &[([Codes; WINDOW], bool)], last_word: u8, model: &Model) -> Self {
        let mut tables = Self {
            groups: [[[0; 64]; WINDOW]; 3],
            used: [false; 3],
            last_word,
        };
        for (start, groups, buckets) in [(true, 0, 16), (false, 2, 8)] {
            let shares = Shares::new(&model.places(start));
            let wanted = windows
                .iter()
                .filter(|window| window.1 == start)
                .map(|window| window.0);
            let clusters = cluster(wanted, buckets, &shares);
            for (number, cluster) in clusters.iter().enumerate() {
                let group = groups + number / 8;
                tables.used[group] = true;
                for (place, set) in cluster.sets.iter().enumerate() {
                    for code in (0..64).filter(|code| set >> code & 1 == 1) {
                        tables.groups[group][place][code] |= 1 << (number % 8);
                    }
                }
            }
        }
        tables
    }
}

/// The share of a set at each place, summed byte by byte.
struct Shares(Vec<[[f32; 256]; 8]>);

impl Shares {
    #[allow(clippy::cast_possible_truncation, reason = "an estimate")]
    fn new(places: &[[f64; 64]; WINDOW]) -> Self {
        let mut sums = vec![[[0.0; 256]; 8]; WINDOW];
        for (place, shares) in sums.iter_mut().zip(places) {
            for (byte, sums) in place.iter_mut().enumerate() {
                for (bits, sum) in sums.iter_mut().enumerate() {
                    *sum = (0..8)
                        .filter(|bit| bits >> bit & 1 == 1)
                        .map(|bit| shares[byte * 8 + bit] as f32)
                        .sum();
                }
            }
        }
        Self(sums)
    }

    fn rate(&self, sets: &[Codes; WINDOW]) -> f64 {
        self.0
            .iter()
            .zip(sets)
            .map(|(sums, set)| {
                let bytes = set.to_le_bytes();
                let share: f32 = sums
                    .iter()
                    .zip(bytes)
                    .map(|(sums, byte)| sums[usize::from(byte)])
                    .sum();
                f64::from(share.min(1.0))
            })
            .product()
    }
}

/// Merge windows until there are as many clusters as buckets, each time the pair that lets the fewest more places pass.
fn cluster(
    windows: impl Iterator<Item = [Codes; WINDOW]>,
    buckets: usize,
    shares: &Shares,
) -> Vec<Cluster> {
    let mut distinct: Vec<[Codes; WINDOW]> = windows.collect();
    distinct.sort_unstable();
    distinct.dedup();
    // Windows with the same first codes differ least, so they go together first.
    for same in [3, 2, 1] {
        if distinct.len() <= CLUSTERS {
            break;
        }
        let mut merged: Vec<[Codes; WINDOW]> = Vec::new();
        for window in distinct {
            match merged.last_mut() {
                Some(last) if last[..same] == window[..same] => {
                    for (all, one) in last.iter_mut().zip(window) {
                        *all |= one;
                    }
                }
                _ => merged.push(window),
            }
        }
        distinct = merged;
    }
    let mut clusters: Vec<Cluster> = distinct
        .into_iter()
        .map(|sets| Cluster {
            sets,
            rate: shares.rate(&sets),
        })
        .collect();
    let join = |one: &Cluster, other: &Cluster| {
        let mut sets = one.sets;
        for (all, set) in sets.iter_mut().zip(other.sets) {
            *all |= set;
        }
        Cluster {
            sets,
            rate: shares.rate(&sets),
        }
    };
    let price = |one: &Cluster, other: &Cluster| join(one, other).rate - one.rate - other.rate;
    // For each cluster the cheapest partner behind it.
    let cheapest = |clusters: &[Cluster], at: usize| {
        let prices =
            (at + 1..clusters.len()).map(|other| (price(&clusters[at], &clusters[other]), other));
        prices
            .min_by(|one, other| one.0.total_cmp(&other.0))
            .unwrap_or((f64::INFINITY, at))
    };
    let mut partners: Vec<(f64, usize)> = (0..clusters.len())
        .map(|at| cheapest(&clusters, at))
        .collect();
    while clusters.len() > buckets {
        let Some((at, &(_, other))) = partners
            .iter()
            .enumerate()
            .min_by(|one, other| one.1.0.total_cmp(&other.1.0))
        else {
            break;
        };
        clusters[at] = join(&clusters[at], &clusters[other]);
        // The last one takes the freed place.
        let last = clusters.len() - 1;
        clusters.swap_remove(other);
        partners.swap_remove(other);
        for place in 0..clusters.len() {
            let (_, partner) = partners[place];
            let touched = place == at
                || place == other
                || partner == at
                || partner == other
                || partner == last;
            if touched {
                partners[place] = cheapest(&clusters, place);
            } else if place < at {
                let new = price(&clusters[place], &clusters[at]);
                if new < partners[place].0 {
                    partners[place] = (new, at);
                }
            } else if place < other && other < clusters.len() {
                let new = price(&clusters[place], &clusters[other]);
                if new < partners[place].0 {
                    partners[place] = (new, other);
                }
            }
        }
    }
    clusters
}

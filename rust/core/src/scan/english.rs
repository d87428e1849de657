//! How often a window of codes occurs in English, estimated: the literals that a rule is searched by are the rare ones.

use super::alphabet::Codes;

/// Minus eight times the binary logarithm of the share of each triple; written by `english.py`.
static TRIPLES: &[u8; 27 * 27 * 27] = include_bytes!("english.bin");

/// The share of places at which a window is expected.
pub(super) fn window_share(window: &[Codes; 4], start: bool, model: &Model) -> f64 {
    // A chain of triples; in front of the first code of a word stands what is not a letter.
    let lists: Vec<Vec<(usize, f64)>> = window.iter().map(|&codes| model.symbols(codes)).collect();
    let mut total = 0.0;
    for &(a, wa) in &lists[0] {
        for &(b, wb) in &lists[1] {
            let head = if start {
                model.triple(0, a, b)
            } else {
                model.pair(a, b)
            } * wa
                * wb;
            if head == 0.0 {
                continue;
            }
            for &(c, wc) in &lists[2] {
                let three = head * wc * model.next(a, b, c);
                let last: f64 = lists[3]
                    .iter()
                    .map(|&(d, wd)| wd * model.next(b, c, d))
                    .sum();
                total += three * last;
            }
        }
    }
    total
}

/// The table as numbers, with its sums.
#[derive(Debug)]
pub(super) struct Model {
    triples: Vec<f64>,
    pairs: Vec<f64>,
    /// What a code that is no letter has of symbol 0.
    weights: [f64; 64],
}

impl Model {
    pub(super) fn new(blank: u8) -> Self {
        let triples: Vec<f64> = TRIPLES
            .iter()
            .map(|&byte| {
                if byte == 255 {
                    1e-9
                } else {
                    (-f64::from(byte) / 8.0).exp2()
                }
            })
            .collect();
        let pairs = triples.chunks(27).map(|row| row.iter().sum()).collect();
        let mut weights = [0.003; 64];
        weights[usize::from(blank)] = 0.8;
        weights[63] = 0.0;
        Self {
            triples,
            pairs,
            weights,
        }
    }

    fn triple(&self, a: usize, b: usize, c: usize) -> f64 {
        self.triples[(a * 27 + b) * 27 + c]
    }

    fn pair(&self, a: usize, b: usize) -> f64 {
        self.pairs[a * 27 + b]
    }

    fn next(&self, a: usize, b: usize, c: usize) -> f64 {
        self.triple(a, b, c) / self.pair(a, b).max(1e-12)
    }

    /// The symbols of a set, each with the part of it that the set has.
    fn symbols(&self, codes: Codes) -> Vec<(usize, f64)> {
        let mut list: Vec<(usize, f64)> = (1..27)
            .filter(|code| codes >> code & 1 == 1)
            .map(|code| (code, 1.0))
            .collect();
        let other: f64 = [0]
            .into_iter()
            .chain(27..64)
            .filter(|code| codes >> code & 1 == 1)
            .map(|code| self.weights[code])
            .sum();
        if other > 0.0 {
            list.push((0, other.min(1.0)));
        }
        list
    }

    /// How often each code stands at each of four places: of a word, or anywhere.
    pub(super) fn places(&self, start: bool) -> [[f64; 64]; 4] {
        let mut places = [[0.0; 64]; 4];
        let spread = |place: &mut [f64; 64], symbols: &[f64; 27]| {
            for (code, share) in place.iter_mut().enumerate() {
                *share = match code {
                    1..27 => symbols[code],
                    _ => symbols[0] * self.weights[code],
                };
            }
        };
        let mut symbols = [[0.0; 27]; 4];
        for a in 0..27 {
            for b in 0..27 {
                if start {
                    // The word starts of a text, as a share of themselves.
                    let share = self.triple(0, a, b) * if a == 0 { 0.0 } else { 1.0 };
                    symbols[0][a] += share;
                    symbols[1][b] += share;
                    let [.., third, fourth] = &mut symbols;
                    for (c, (third, fourth)) in third.iter_mut().zip(fourth).enumerate() {
                        let next = share * self.next(a, b, c);
                        *third += next;
                        *fourth += next; // close enough
                    }
                } else {
                    for place in &mut symbols {
                        place[a] += self.pair(a, b);
                    }
                }
            }
        }
        for (place, symbols) in places.iter_mut().zip(&mut symbols) {
            let total: f64 = symbols.iter().sum();
            for symbol in symbols.iter_mut() {
                *symbol /= total;
            }
            spread(place, symbols);
        }
        places
    }
}

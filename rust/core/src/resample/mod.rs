//! Bootstrap resamples, counted instead of copied.
//!
//! A bootstrap draws as many samples as there are, with replacement, and looks at the statistic again, a thousand times
//! over. What a resample needs of a sample is how often it was drawn; so [`means`] adds what was drawn, and
//! [`selective`] keeps one count for each sample, in the order of falling confidence that is sorted once, and reads all
//! numbers of a risk-coverage curve off one pass over the counts.
//!
//! # Reproducible
//!
//! Draw `i` under a seed has a random stream of its own ([`Stream`]), so the numbers do not depend on how draws are
//! spread over threads or calls.
//!
//! # What it costs
//!
//! One random number, one increment and one step of the pass for each sample and draw: a few nanoseconds, while the
//! counts fit the caches. It loses against closed forms: the mean of rates has an interval without any resampling.

mod selective;
mod stream;
mod sums;

pub use selective::{Curve, selective};
pub use stream::Stream;
pub use sums::means;

/// Do `work(draw, row)` for draws `first..first + rows`, each with a row of `width` results, on so many threads.
fn on_threads<S>(
    out: &mut [f64],
    width: usize,
    first: u64,
    threads: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(u64, &mut S, &mut [f64]) + Sync,
) {
    let rows = out.len() / width.max(1);
    let share = rows.div_ceil(threads.max(1)).max(1);
    let run = |from: usize, part: &mut [f64]| {
        let mut scratch = scratch();
        for (row, results) in part.chunks_exact_mut(width).enumerate() {
            work(first + (from + row) as u64, &mut scratch, results);
        }
    };
    if threads <= 1 || rows <= 1 {
        run(0, out);
        return;
    }
    std::thread::scope(|scope| {
        for (part, chunk) in out.chunks_mut(share * width).enumerate() {
            let run = &run;
            scope.spawn(move || run(part * share, chunk));
        }
    });
}

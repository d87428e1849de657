//! Means of columns over resampled rows.

use super::{Stream, on_threads};

/// The means of `columns` columns over resampled rows, one row of results for each draw.
///
/// Rows are resampled whole, so columns stay paired. Within each stratum as many rows are drawn as it has.
///
/// # Arguments
///
/// * `values`: the rows, one after another; their number is the sum of `strata`.
/// * `strata`: how many rows each stratum has, in the order of the rows; one number if there are none.
/// * `first`, `draws`: which draws.
///
/// # Panics
///
/// If `values` does not hold that many rows.
#[must_use]
pub fn means(
    values: &[f64],
    columns: usize,
    strata: &[u32],
    seed: u64,
    first: u64,
    draws: usize,
    threads: usize,
) -> Vec<f64> {
    let rows: usize = strata.iter().map(|&count| count as usize).sum();
    assert_eq!(
        values.len(),
        rows * columns,
        "one row of values for each row of the strata"
    );
    let mut out = vec![0.0; draws * columns];
    if rows == 0 || columns == 0 {
        return out;
    }
    on_threads(
        &mut out,
        columns,
        first,
        threads,
        || (),
        |draw, (), sums| {
            let mut stream = Stream::of(seed, draw);
            let mut begin = 0;
            for &count in strata {
                let stratum = &values[begin * columns..(begin + count as usize) * columns];
                stream.below(count, count as usize, |row| {
                    for (sum, value) in sums.iter_mut().zip(&stratum[row * columns..]) {
                        *sum += value;
                    }
                });
                begin += count as usize;
            }
            for sum in sums {
                *sum /= rows as f64;
            }
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_the_mean_of_the_rows_its_stream_names() {
        let values = [1.0, 10.0, 2.0, 20.0, 4.0, 40.0, 8.0, 80.0, 16.0, 160.0];
        let drawn = means(&values, 2, &[3, 2], 5, 2, 3, 1);
        for draw in 0..3 {
            let mut stream = Stream::of(5, 2 + draw);
            let mut sum = [0.0; 2];
            for (begin, count) in [(0, 3_u32), (3, 2)] {
                stream.below(count, count as usize, |row| {
                    sum[0] += values[2 * (begin + row)];
                    sum[1] += values[2 * (begin + row) + 1];
                });
            }
            let at = 2 * usize::try_from(draw).unwrap_or_default();
            assert_eq!(&drawn[at..at + 2], &[sum[0] / 5.0, sum[1] / 5.0]);
        }
    }

    #[test]
    fn threads_and_calls_do_not_change_a_draw() {
        let values: Vec<f64> = (0..500).map(f64::from).collect();
        let whole = means(&values, 1, &[500], 1, 0, 37, 1);
        assert_eq!(means(&values, 1, &[500], 1, 0, 37, 3), whole);
        assert_eq!(means(&values, 1, &[500], 1, 30, 7, 2), whole[30..]);
    }
}

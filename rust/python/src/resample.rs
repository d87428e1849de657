//! Resampling for Python: arrays in, one row of numbers for each draw out.

use flyball_core::resample::{self, Curve};
use numpy::{PyArray1, PyReadonlyArray1, ToPyArray};
use pyo3::prelude::*;

use crate::error::invalid;

/// So many numbers are no longer returned from one call.
const MOST: usize = 1 << 31;

fn check_draws(first: u64, draws: usize, width: usize) -> PyResult<()> {
    let fits = draws.checked_mul(width).is_some_and(|all| all <= MOST);
    if fits && first.checked_add(draws as u64).is_some() {
        return Ok(());
    }
    Err(invalid(format!(
        "`draws` is {draws}, of {width} numbers each, from {first} on: at most {MOST} numbers are drawn in one call"
    )))
}

/// Return the means of resampled rows, `draws` times `columns` numbers.
#[pyfunction]
#[allow(
    clippy::too_many_arguments,
    clippy::needless_pass_by_value,
    reason = "arrays and counts from Python"
)]
pub(crate) fn resample_means<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, f64>,
    columns: usize,
    strata: Vec<u32>,
    seed: u64,
    first: u64,
    draws: usize,
    threads: usize,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let values = values
        .as_slice()
        .map_err(|error| invalid(format!("`values`: {error}")))?;
    check_draws(first, draws, columns)?;
    let rows: usize = strata.iter().map(|&count| count as usize).sum();
    if rows.checked_mul(columns) != Some(values.len()) {
        return Err(invalid(format!(
            "`values` holds {} numbers, but `strata` say {rows} rows of {columns}",
            values.len()
        )));
    }
    let found =
        py.detach(|| resample::means(values, columns, &strata, seed, first, draws, threads));
    Ok(found.to_pyarray(py))
}

/// Return the numbers of a risk-coverage curve over resampled samples; one row without resampling for no `draws`.
#[pyfunction]
#[allow(
    clippy::too_many_arguments,
    clippy::needless_pass_by_value,
    reason = "arrays and counts from Python"
)]
pub(crate) fn resample_selective<'py>(
    py: Python<'py>,
    wrong: PyReadonlyArray1<'py, u8>,
    ends: PyReadonlyArray1<'py, u32>,
    coverages: Vec<f64>,
    risks: Vec<f64>,
    seed: u64,
    first: u64,
    draws: Option<usize>,
    threads: usize,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let wrong = wrong
        .as_slice()
        .map_err(|error| invalid(format!("`wrong`: {error}")))?;
    let ends = ends
        .as_slice()
        .map_err(|error| invalid(format!("`ends`: {error}")))?;
    let rising = ends.windows(2).all(|pair| pair[0] < pair[1])
        && coverages.windows(2).all(|pair| pair[0] <= pair[1]);
    let whole =
        ends.last().copied().unwrap_or(0) as usize == wrong.len() && ends.first() != Some(&0);
    if !rising || !whole || wrong.iter().any(|&one| one > 1) || u32::try_from(wrong.len()).is_err()
    {
        return Err(invalid(
            "`ends` and `coverages` must rise, the last end be the number of samples, and `wrong` hold 0 and 1".into(),
        ));
    }
    let curve = Curve {
        wrong,
        ends,
        coverages: &coverages,
        risks: &risks,
    };
    check_draws(first, draws.unwrap_or(1), curve.width())?;
    let found = py.detach(|| resample::selective(&curve, seed, first, draws, threads));
    Ok(found.to_pyarray(py))
}

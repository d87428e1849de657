//! How `NumPy` arrays of any layout become rows that the core reads in place.

use flyball_core::meters::{Half, Logit, NonFinite, Rows};
use numpy::ndarray::{ArrayView2, Axis};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use crate::error::invalid;

/// A view of an array with two dimensions, for as long as the array is borrowed.
pub(crate) fn floats<'py, T: numpy::Element>(
    value: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<PyReadonlyArray2<'py, T>> {
    let Ok(array) = value.cast::<PyArray2<T>>() else {
        return Err(invalid(format!(
            "`{name}` is not a 2-D array of float32 or float64: convert it"
        )));
    };
    borrowed(array.try_readonly(), name)
}

/// A view of a contiguous array of int64 with one dimension, for as long as it is borrowed.
pub(crate) fn integers<'py>(
    value: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<PyReadonlyArray1<'py, i64>> {
    let Ok(array) = value.cast::<PyArray1<i64>>() else {
        return Err(invalid(format!(
            "`{name}` is not a 1-D array of int64: convert it"
        )));
    };
    let array = borrowed(array.try_readonly(), name)?;
    // One that is misaligned has no slice, either.
    array.as_slice().map_err(|_| not_contiguous(name))?;
    Ok(array)
}

pub(crate) fn borrowed<T>(array: Result<T, numpy::BorrowError>, name: &str) -> PyResult<T> {
    array.map_err(|_| invalid(format!("`{name}` is being written to: pass a copy")))
}

pub(crate) fn not_contiguous(name: &str) -> PyErr {
    invalid(format!(
        "`{name}` must be C-contiguous and aligned: pass a copy"
    ))
}

/// The rows of an array, whatever its strides.
pub(crate) struct Strided<'a, T> {
    rows: usize,
    columns: usize,
    /// All of it, if it lies row by row.
    whole: Option<&'a [T]>,
    view: Option<ArrayView2<'a, T>>,
}

impl<'a, T: numpy::Element> Strided<'a, T> {
    pub(crate) fn new(array: &'a PyReadonlyArray2<'_, T>, name: &str) -> PyResult<Self> {
        if !array.is_aligned() {
            return Err(not_contiguous(name));
        }
        let (rows, columns) = (array.dims()[0], array.dims()[1]);
        // A contiguous array in Fortran order would be a slice, too, but not of rows.
        let whole = if array.is_c_contiguous() {
            array.as_slice().ok()
        } else {
            None
        };
        // An empty array may have strides that lead anywhere.
        let view = (rows > 0 && columns > 0).then(|| array.as_array());
        Ok(Self {
            rows,
            columns,
            whole,
            view,
        })
    }

    #[inline]
    fn slice(&self, index: usize) -> Option<&'a [T]> {
        if let Some(whole) = self.whole {
            return whole.get(index * self.columns..)?.get(..self.columns);
        }
        let row = self.view?.index_axis_move(Axis(0), index);
        row.to_slice()
    }

    #[inline]
    fn gather<U>(&self, index: usize, scratch: &mut Vec<U>, convert: impl Fn(&T) -> U) {
        scratch.clear();
        if let Some(view) = &self.view {
            scratch.extend(view.row(index).iter().map(convert));
        }
    }
}

impl<T: Logit + numpy::Element> Rows for Strided<'_, T> {
    type Value = T;

    #[inline]
    fn len(&self) -> usize {
        self.rows
    }

    #[inline]
    fn columns(&self) -> usize {
        self.columns
    }

    fn whole(&self) -> Option<&[T]> {
        self.whole
    }

    #[inline]
    fn row<'a>(&'a self, index: usize, scratch: &'a mut Vec<T>) -> &'a [T] {
        if let Some(slice) = self.slice(index) {
            return slice;
        }
        self.gather(index, scratch, |&x| x);
        scratch
    }
}

/// The rows of an array that holds 16-bit floats as their bits.
pub(crate) struct StridedHalf<'a> {
    bits: Strided<'a, u16>,
    half: Half,
}

impl<'a> StridedHalf<'a> {
    pub(crate) fn new(
        array: &'a PyReadonlyArray2<'_, u16>,
        half: Half,
        name: &str,
    ) -> PyResult<Self> {
        let bits = Strided::new(array, name)?;
        Ok(Self { bits, half })
    }
}

impl Rows for StridedHalf<'_> {
    type Value = f32;

    #[inline]
    fn len(&self) -> usize {
        self.bits.rows
    }

    #[inline]
    fn columns(&self) -> usize {
        self.bits.columns
    }

    #[inline]
    fn row<'a>(&'a self, index: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        match self.bits.slice(index) {
            Some(slice) => {
                scratch.clear();
                scratch.extend(slice.iter().map(|&bits| self.half.widen(bits)));
            }
            None => self
                .bits
                .gather(index, scratch, |&bits| self.half.widen(bits)),
        }
        scratch
    }
}

/// The type of 16 bits that `NumPy` or torch calls by this name.
pub(crate) fn half_named(name: &str) -> PyResult<Half> {
    match name {
        "float16" => Ok(Half::Binary16),
        "bfloat16" => Ok(Half::Brain),
        _ => Err(invalid(format!(
            "`half` is `{name}`: pass `float16` or `bfloat16`"
        ))),
    }
}

/// Does something with rows of floats of any of the types that a meter takes, looked at in place: `half` names the
/// type of those that come as uint16.
macro_rules! with_rows {
    ($values:expr, $half:expr, $name:literal, |$rows:ident| $read:expr) => {
        match $half {
            Some(half) => {
                let values = $crate::arrays::floats::<u16>($values, $name)?;
                let half = $crate::arrays::half_named(half)?;
                let $rows = &$crate::arrays::StridedHalf::new(&values, half, $name)?;
                $read
            }
            None if $values.cast::<numpy::PyArray2<f32>>().is_ok() => {
                let values = $crate::arrays::floats::<f32>($values, $name)?;
                let $rows = &$crate::arrays::Strided::new(&values, $name)?;
                $read
            }
            None => {
                let values = $crate::arrays::floats::<f64>($values, $name)?;
                let $rows = &$crate::arrays::Strided::new(&values, $name)?;
                $read
            }
        }
    };
}
pub(crate) use with_rows;

/// What to do with a row that holds NaN or an infinity.
pub(crate) fn policy(leave_out: bool) -> NonFinite {
    if leave_out {
        NonFinite::LeaveOut
    } else {
        NonFinite::Refuse
    }
}

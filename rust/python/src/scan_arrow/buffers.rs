//! The buffers of one array of text, read where they lie.

#![allow(
    unsafe_code,
    reason = "buffers are as long as the format says; each block says what it relies on"
)]

use std::ffi::c_void;
use std::ptr;
use std::slice;

use pyo3::prelude::*;

use super::interface::{Array, Schema, broken, size, text};
use crate::error::wrong_type;

/// Where the texts lie in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Offsets32,
    Offsets64,
    Views,
}

pub(super) fn texts<'a>(
    schema: &'a Schema,
    array: &'a Array,
    first: usize,
    length: usize,
) -> PyResult<Vec<Option<&'a [u8]>>> {
    let layout = match text(schema.format).unwrap_or("") {
        "u" => Layout::Offsets32,
        "U" => Layout::Offsets64,
        "vu" => Layout::Views,
        other => {
            return Err(wrong_type(format!(
                "`data` has values of Arrow's format `{other}`: a column of text has `u`, `U` or `vu` (cast it)"
            )));
        }
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let buffers = Buffers::of(array)?;
    let valid = |row: usize| buffers.valid(first + row);
    let mut out = Vec::with_capacity(length);
    match layout {
        Layout::Views => {
            // SAFETY: there is a view of 16 bytes for each row.
            let views = unsafe { buffers.slice::<[u8; 16]>(1, first + length)? };
            for (row, view) in views[first..].iter().enumerate() {
                out.push(if valid(row) {
                    Some(buffers.view(view)?)
                } else {
                    None
                });
            }
        }
        Layout::Offsets32 => {
            // SAFETY: there is an offset for each row, and one more.
            let offsets = unsafe { buffers.slice::<i32>(1, first + length + 1)? };
            for (row, pair) in offsets[first..].windows(2).enumerate() {
                out.push(if valid(row) {
                    Some(buffers.range(pair[0].into(), pair[1].into())?)
                } else {
                    None
                });
            }
        }
        Layout::Offsets64 => {
            // SAFETY: as above.
            let offsets = unsafe { buffers.slice::<i64>(1, first + length + 1)? };
            for (row, pair) in offsets[first..].windows(2).enumerate() {
                out.push(if valid(row) {
                    Some(buffers.range(pair[0], pair[1])?)
                } else {
                    None
                });
            }
        }
    }
    Ok(out)
}

pub(super) fn indices(
    format: &str,
    array: &Array,
    first: usize,
    length: usize,
    known: usize,
) -> PyResult<Vec<Option<usize>>> {
    if length == 0 {
        return Ok(Vec::new());
    }
    let buffers = Buffers::of(array)?;
    macro_rules! read {
        ($kind:ty) => {{
            // SAFETY: there is an index for each row.
            let all = unsafe { buffers.slice::<$kind>(1, first + length)? };
            all[first..]
                .iter()
                .map(|&index| usize::try_from(index).ok())
                .collect::<Vec<_>>()
        }};
    }
    let raw = match format {
        "c" => read!(i8),
        "C" => read!(u8),
        "s" => read!(i16),
        "S" => read!(u16),
        "i" => read!(i32),
        "I" => read!(u32),
        "l" => read!(i64),
        "L" => read!(u64),
        _ => return Err(broken("has a dictionary with indices that are no integers")),
    };
    raw.into_iter()
        .enumerate()
        .map(|(row, index)| match index {
            _ if !buffers.valid(first + row) => Ok(None),
            Some(index) if index < known => Ok(Some(index)),
            _ => Err(broken("has an index outside its dictionary")),
        })
        .collect()
}

/// The buffers of an array. How long they are is known by the format only, but for views.
struct Buffers<'a>(&'a [*const c_void]);

impl<'a> Buffers<'a> {
    fn of(array: &'a Array) -> PyResult<Self> {
        let count = size(array.n_buffers)?;
        if count < 2 || array.buffers.is_null() {
            return Err(broken("has too few buffers"));
        }
        // SAFETY: there are as many buffers as it says.
        Ok(Self(unsafe { slice::from_raw_parts(array.buffers, count) }))
    }

    /// # Safety
    /// The buffer has `length` values of this type.
    unsafe fn slice<T>(&self, buffer: usize, length: usize) -> PyResult<&'a [T]> {
        let pointer = self
            .0
            .get(buffer)
            .copied()
            .unwrap_or(ptr::null())
            .cast::<T>();
        if pointer.is_null() || !pointer.is_aligned() {
            return Err(broken("has a buffer that is missing or not aligned"));
        }
        // SAFETY: not null, aligned, and as long as the caller says.
        Ok(unsafe { slice::from_raw_parts(pointer, length) })
    }

    fn valid(&self, row: usize) -> bool {
        let bits = self.0[0].cast::<u8>();
        // SAFETY: where there is a bitmap, it has a bit for each row.
        bits.is_null() || unsafe { *bits.add(row / 8) } >> (row % 8) & 1 == 1
    }

    fn range(&self, first: i64, last: i64) -> PyResult<&'a [u8]> {
        let (Ok(from), Ok(to)) = (usize::try_from(first), usize::try_from(last)) else {
            return Err(broken("has a negative offset"));
        };
        if from > to {
            return Err(broken("has offsets that do not ascend"));
        }
        if from == to {
            return Ok(&[]);
        }
        // SAFETY: the bytes of a column reach to its largest offset.
        Ok(unsafe { &self.slice::<u8>(2, to)?[from..] })
    }

    fn view(&self, view: &'a [u8; 16]) -> PyResult<&'a [u8]> {
        let number = |at: usize| {
            view[at..]
                .first_chunk()
                .map_or(0, |bytes| i32::from_le_bytes(*bytes))
        };
        let length =
            usize::try_from(number(0)).map_err(|_| broken("has a view of negative length"))?;
        if length <= 12 {
            return Ok(&view[4..4 + length]);
        }
        let (Ok(buffer), Ok(offset)) = (usize::try_from(number(8)), usize::try_from(number(12)))
        else {
            return Err(broken("has a view to nowhere"));
        };
        let data = self
            .0
            .len()
            .checked_sub(3)
            .ok_or_else(|| broken("has views without their buffers"))?;
        if buffer >= data {
            return Err(broken("has a view to a buffer that is not there"));
        }
        // SAFETY: the last buffer holds the length of each data buffer.
        let lengths = unsafe { self.slice::<i64>(self.0.len() - 1, data)? };
        let known = size(lengths[buffer])?;
        if offset + length > known {
            return Err(broken("has a view that ends behind its buffer"));
        }
        // SAFETY: the buffer is as long as its length says.
        Ok(unsafe { &self.slice::<u8>(2 + buffer, known)?[offset..offset + length] })
    }
}

//! Columns of text from anything that speaks Arrow's C data interface, read where they lie.
//!
//! Only what a column of text needs is here: `utf8`, `large_utf8` and `utf8_view`, plain or behind a dictionary, alone or
//! as a column of a table; slices, nulls, and any number of chunks.

#![allow(
    unsafe_code,
    reason = "columns lie behind pointers of the C data interface; each block says what it relies on"
)]

mod buffers;
mod interface;

use std::marker::PhantomData;
use std::slice;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use self::buffers::{indices, texts};
use self::interface::{Array, Held, Released as _, Schema, Stream, broken, check, size, text};
use crate::error::{invalid, wrong_type};

/// The texts of one chunk: one for each row, or those of its dictionary with an index for each row.
pub(crate) struct Chunk<'a> {
    pub(crate) texts: Vec<Option<&'a [u8]>>,
    /// For each row the text of the dictionary, `None` for a null.
    pub(crate) rows: Option<Vec<Option<usize>>>,
    lifetime: PhantomData<&'a ()>,
}

/// Call `each` with every chunk of a column.
pub(crate) fn chunks(
    data: &Bound<'_, PyAny>,
    column: Option<&str>,
    mut each: impl FnMut(&Chunk<'_>) -> PyResult<()>,
) -> PyResult<()> {
    if data.hasattr("__arrow_c_stream__")? {
        let capsule = data.call_method0("__arrow_c_stream__")?;
        let mut stream = Held::<Stream>::of(&capsule, c"arrow_array_stream")?;
        let mut schema = Held(Box::new(Schema::empty()));
        let Some(get_schema) = stream.0.get_schema else {
            return Err(broken("has no schema"));
        };
        // SAFETY: the stream is valid, and the schema is ours to fill.
        let code = unsafe { get_schema(&raw mut *stream.0, &raw mut *schema.0) };
        check(&mut stream, code)?;
        let Some(get_next) = stream.0.get_next else {
            return Err(broken("has no next chunk"));
        };
        loop {
            let mut array = Held(Box::new(Array::empty()));
            // SAFETY: as above.
            let code = unsafe { get_next(&raw mut *stream.0, &raw mut *array.0) };
            check(&mut stream, code)?;
            if array.0.release.is_none() {
                return Ok(()); // the end
            }
            each(&read(&schema.0, &array.0, column)?)?;
        }
    }
    if data.hasattr("__arrow_c_array__")? {
        let capsules = data.call_method0("__arrow_c_array__")?;
        let capsules = capsules.cast::<PyTuple>()?;
        let schema = Held::<Schema>::of(&capsules.get_item(0)?, c"arrow_schema")?;
        let array = Held::<Array>::of(&capsules.get_item(1)?, c"arrow_array")?;
        return each(&read(&schema.0, &array.0, column)?);
    }
    let kind = data.get_type().name()?;
    Err(wrong_type(format!(
        "`data` is of type `{kind}`: pass a column or table of Arrow (pyarrow, polars, a dataset with format \"arrow\"), or call `scan_batch` for a list"
    )))
}

/// Read a chunk: the column itself, or one of a table.
fn read<'a>(schema: &'a Schema, array: &'a Array, column: Option<&str>) -> PyResult<Chunk<'a>> {
    let format = text(schema.format).ok_or_else(|| broken("has no format"))?;
    if format != "+s" {
        return leaf(schema, array, 0, array.length);
    }
    let count = size(schema.n_children)?;
    if count != size(array.n_children)?
        || (count > 0 && (schema.children.is_null() || array.children.is_null()))
    {
        return Err(broken("has columns that do not fit its schema"));
    }
    let lost = || broken("has a column that is not there");
    // SAFETY: there are as many children as it says, each null or valid as long as its parent.
    let children = unsafe { items(schema.children.cast::<Option<&'a Schema>>(), count) };
    let children: Vec<&Schema> = children
        .iter()
        .copied()
        .collect::<Option<_>>()
        .ok_or_else(lost)?;
    let names: Vec<&str> = children
        .iter()
        .map(|child| text(child.name).unwrap_or(""))
        .collect();
    let place = match column {
        None if count == 1 => 0,
        None => {
            return Err(invalid(format!(
                "`data` is a table: name one of its columns ({}) as `column`",
                names.join(", ")
            )));
        }
        Some(name) => names.iter().position(|one| *one == name).ok_or_else(|| {
            invalid(format!(
                "`column` is `{name}`: the table has {}",
                names.join(", ")
            ))
        })?,
    };
    // SAFETY: as above.
    let arrays = unsafe { items(array.children.cast::<Option<&'a Array>>(), count) };
    let values = arrays[place].ok_or_else(lost)?;
    leaf(children[place], values, array.offset, array.length)
}

/// Read a column of text from row `from` on.
fn leaf<'a>(schema: &'a Schema, array: &'a Array, from: i64, length: i64) -> PyResult<Chunk<'a>> {
    let (first, length) = (size(array.offset)? + size(from)?, size(length)?);
    let format = text(schema.format).unwrap_or("");
    // SAFETY: a dictionary is null or valid as long as what it belongs to.
    let dictionary = unsafe { (schema.dictionary.as_ref(), array.dictionary.as_ref()) };
    if let (Some(kind), Some(values)) = dictionary {
        let texts = texts(kind, values, size(values.offset)?, size(values.length)?)?;
        let rows = indices(format, array, first, length, texts.len())?;
        return Ok(Chunk {
            texts,
            rows: Some(rows),
            lifetime: PhantomData,
        });
    }
    Ok(Chunk {
        texts: texts(schema, array, first, length)?,
        rows: None,
        lifetime: PhantomData,
    })
}

/// # Safety
/// The pointer is valid for so many items, or there are none.
unsafe fn items<'a, T>(pointer: *mut T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: what the caller says.
    unsafe { slice::from_raw_parts(pointer, count) }
}

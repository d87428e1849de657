//! Columns of text from anything that speaks Arrow's C data interface, read where they lie.
//!
//! Only what a column of text needs is here: `utf8`, `large_utf8` and `utf8_view`, plain or behind a dictionary, alone or
//! as a column of a table; slices, nulls, and any number of chunks.

#![allow(
    unsafe_code,
    reason = "the structs of the C data interface; each block says what it relies on"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::slice;

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::error::{invalid, wrong_type};

#[repr(C)]
struct Schema {
    format: *const c_char,
    name: *const c_char,
    metadata: *const c_char,
    flags: i64,
    n_children: i64,
    children: *mut *mut Schema,
    dictionary: *mut Schema,
    release: Option<unsafe extern "C" fn(*mut Schema)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct Array {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *const *const c_void,
    children: *mut *mut Array,
    dictionary: *mut Array,
    release: Option<unsafe extern "C" fn(*mut Array)>,
    private_data: *mut c_void,
}

#[repr(C)]
struct Stream {
    get_schema: Option<unsafe extern "C" fn(*mut Stream, *mut Schema) -> c_int>,
    get_next: Option<unsafe extern "C" fn(*mut Stream, *mut Array) -> c_int>,
    get_last_error: Option<unsafe extern "C" fn(*mut Stream) -> *const c_char>,
    release: Option<unsafe extern "C" fn(*mut Stream)>,
    private_data: *mut c_void,
}

/// A struct of the interface: released once, by whoever holds it last.
trait Released {
    fn empty() -> Self;
    fn release(&mut self);
    /// Take what a capsule holds, and leave it as one that was released.
    fn take(&mut self) -> Self;
}

macro_rules! released {
    ($($kind:ident),*) => {
        $(impl Released for $kind {
            fn empty() -> Self {
                // SAFETY: the structs are plain numbers and pointers, for which zero means "nothing".
                unsafe { std::mem::zeroed() }
            }

            fn release(&mut self) {
                if let Some(release) = self.release {
                    // SAFETY: the producer's own function, called once: it clears the field.
                    unsafe { release(self) }
                    self.release = None;
                }
            }

            fn take(&mut self) -> Self {
                // SAFETY: a struct may be moved by copying its bytes, if the source is marked as released.
                let taken = unsafe { ptr::read(self) };
                self.release = None;
                taken
            }
        })*
    };
}
released!(Schema, Array, Stream);

struct Held<T: Released>(Box<T>);

impl<T: Released> Held<T> {
    /// Take the struct out of a capsule.
    fn of(capsule: &Bound<'_, PyAny>, name: &CStr) -> PyResult<Self> {
        let capsule = capsule.cast::<PyCapsule>()?;
        let pointer = capsule.pointer_checked(Some(name))?.cast::<T>();
        // SAFETY: a capsule of this name holds such a struct, and nobody else reads it while we hold Python's lock.
        Ok(Self(Box::new(unsafe { (*pointer.as_ptr()).take() })))
    }
}

impl<T: Released> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Where the texts lie in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Offsets32,
    Offsets64,
    Views,
}

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

fn check(stream: &mut Held<Stream>, code: c_int) -> PyResult<()> {
    if code == 0 {
        return Ok(());
    }
    let said = stream.0.get_last_error.map_or(ptr::null(), |ask| {
        // SAFETY: the stream is valid; the answer lives until the next call.
        unsafe { ask(&raw mut *stream.0) }
    });
    Err(invalid(format!(
        "`data` cannot be read: {}",
        text(said).unwrap_or("its producer gives no reason")
    )))
}

fn broken(problem: &str) -> PyErr {
    invalid(format!(
        "`data` {problem}: its producer does not follow Arrow's C data interface"
    ))
}

fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    // SAFETY: a string of the interface ends in a zero, and lives as long as what it stands in.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_str().ok())?
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
    // SAFETY: there are as many children as it says, and none is null.
    let children = unsafe { items(schema.children.cast::<&'a Schema>(), count) };
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
    let arrays = unsafe { items(array.children.cast::<&'a Array>(), count) };
    leaf(children[place], arrays[place], array.offset, array.length)
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

fn texts<'a>(
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

fn indices(
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

/// # Safety
/// The pointer is valid for so many items, or there are none.
unsafe fn items<'a, T>(pointer: *mut T, count: usize) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: what the caller says.
    unsafe { slice::from_raw_parts(pointer, count) }
}

fn size(number: i64) -> PyResult<usize> {
    usize::try_from(number).map_err(|_| broken("has a negative length"))
}

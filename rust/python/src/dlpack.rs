//! Tensors borrowed through the C functions that a tensor library offers beside `__dlpack__`.
//!
//! `__dlpack__` costs a microsecond or more for each tensor, in Python; these functions cost a tenth of that. They are
//! found in the capsule `__dlpack_c_exchange_api__` of the type of the tensors, with a version, so nothing of the
//! library's own layout is relied on (`DLPackExchangeAPI`, version 1).

#![allow(unsafe_code, reason = "the interface is one of C")]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::slice;

use flyball_core::norm::Floats;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};

const MAJOR: u32 = 1;
const MAIN_MEMORY: i32 = 1;
const FLOAT: u8 = 2;

#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

/// The head of the table of functions, up to the one that is used.
#[repr(C)]
struct ExchangeApi {
    version: Version,
    previous: *const c_void,
    allocator: *const c_void,
    from_object: Option<unsafe extern "C" fn(*mut c_void, *mut *mut Managed) -> c_int>,
}

#[repr(C)]
struct Tensor {
    data: *const u8,
    device_type: i32,
    device_id: i32,
    dimensions: i32,
    type_code: u8,
    type_bits: u8,
    type_lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
    flags: u64,
    tensor: Tensor,
}

/// How tensors of one type are borrowed.
pub(crate) struct Exchange {
    of: Py<PyType>,
    from_object: unsafe extern "C" fn(*mut c_void, *mut *mut Managed) -> c_int,
}

impl Exchange {
    /// Return how tensors of a type are borrowed, if the type says so in a version that is known here.
    pub(crate) fn of(kind: &Bound<'_, PyType>) -> Option<Self> {
        let capsule = kind.getattr("__dlpack_c_exchange_api__").ok()?;
        let table = capsule
            .cast::<PyCapsule>()
            .ok()?
            .pointer_checked(Some(c"dlpack_exchange_api"))
            .ok()?;
        // SAFETY: a capsule of this name holds a table that begins with its version and lives as long as the process.
        let table = unsafe { table.cast::<ExchangeApi>().as_ref() };
        let from_object = table.from_object.filter(|_| table.version.major == MAJOR)?;
        Some(Self {
            of: kind.clone().unbind(),
            from_object,
        })
    }

    /// Borrow a tensor; `None` if it is of another type (a subclass among them), or the library will not lend it.
    pub(crate) fn borrow(&self, tensor: &Bound<'_, PyAny>) -> Option<Borrowed> {
        if !tensor.get_type().is(&self.of) {
            return None;
        }
        let mut managed = std::ptr::null_mut();
        // SAFETY: the object is of the type that the function is for, alive, and the interpreter is held.
        let failed = unsafe { (self.from_object)(tensor.as_ptr().cast(), &raw mut managed) } != 0;
        if failed {
            let _ = PyErr::take(tensor.py()); // a sparse tensor, for one: whoever asks does it another way
            return None;
        }
        NonNull::new(managed).map(Borrowed)
    }
}

/// A tensor that stays alive, with its memory, until this is dropped.
pub(crate) struct Borrowed(NonNull<Managed>);

impl Borrowed {
    /// Return its values in any order, if they are floats in main memory without a gap between them.
    pub(crate) fn floats(&self) -> Option<Floats<'_>> {
        // SAFETY: the library gave it, and it is not given back before it is dropped.
        let tensor = unsafe { &self.0.as_ref().tensor };
        if tensor.device_type != MAIN_MEMORY || tensor.type_code != FLOAT || tensor.type_lanes != 1
        {
            return None;
        }
        let count = self.dense()?;
        let data = tensor
            .data
            .wrapping_add(usize::try_from(tensor.byte_offset).ok()?);
        match tensor.type_bits {
            32 => self.values(data, count).map(Floats::Single),
            64 => self.values(data, count).map(Floats::Double),
            _ => None,
        }
    }

    /// Return how many elements there are, if they lie without a gap and each once.
    fn dense(&self) -> Option<usize> {
        // SAFETY: as above.
        let tensor = unsafe { &self.0.as_ref().tensor };
        let dimensions = usize::try_from(tensor.dimensions).ok()?;
        if dimensions == 0 {
            return Some(1);
        }
        if tensor.shape.is_null() || tensor.strides.is_null() {
            return None;
        }
        // SAFETY: there is a size and a step for each dimension, and they live as long as the tensor.
        let (shape, strides) = unsafe {
            (
                slice::from_raw_parts(tensor.shape, dimensions),
                slice::from_raw_parts(tensor.strides, dimensions),
            )
        };
        let count = shape
            .iter()
            .try_fold(1_i64, |count, &size| count.checked_mul(size))?;
        let contiguous = shape
            .iter()
            .zip(strides)
            .rev()
            .try_fold(1, |reach, (&size, &step)| {
                (size == 1 || step == reach).then_some(reach * size)
            });
        if count > 0 && contiguous.is_none() {
            let mut order: Vec<_> = strides
                .iter()
                .zip(shape)
                .filter(|&(_, &size)| size > 1)
                .collect();
            order.sort_unstable();
            order.iter().try_fold(1, |reach, &(&step, &size)| {
                (step == reach).then_some(reach * size)
            })?;
        }
        usize::try_from(count).ok()
    }

    /// Return values in its memory, if they are where such values may be.
    #[allow(clippy::unused_self, reason = "they live as long as it does")]
    fn values<T>(&self, data: *const u8, count: usize) -> Option<&[T]> {
        if count == 0 {
            return Some(&[]);
        }
        let data = data.cast::<T>();
        if data.is_null() || !data.is_aligned() {
            return None;
        }
        // SAFETY: the memory holds so many floats, any bits of which are a value, and is held by what was borrowed.
        // Somebody who writes to a gradient while its norm is taken gets the norm of neither, as with torch's own.
        Some(unsafe { slice::from_raw_parts(data, count) })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // SAFETY: it is given back once, by the function that came with it, with the interpreter held.
        unsafe {
            if let Some(deleter) = self.0.as_ref().deleter {
                deleter(self.0.as_ptr());
            }
        }
    }
}

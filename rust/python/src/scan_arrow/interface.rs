//! The structs of Arrow's C data interface, and who releases them.

#![allow(
    unsafe_code,
    reason = "the structs of the C data interface; each block says what it relies on"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::error::invalid;

#[repr(C)]
pub(super) struct Schema {
    pub(super) format: *const c_char,
    pub(super) name: *const c_char,
    pub(super) metadata: *const c_char,
    pub(super) flags: i64,
    pub(super) n_children: i64,
    pub(super) children: *mut *mut Schema,
    pub(super) dictionary: *mut Schema,
    pub(super) release: Option<unsafe extern "C" fn(*mut Schema)>,
    pub(super) private_data: *mut c_void,
}

#[repr(C)]
pub(super) struct Array {
    pub(super) length: i64,
    pub(super) null_count: i64,
    pub(super) offset: i64,
    pub(super) n_buffers: i64,
    pub(super) n_children: i64,
    pub(super) buffers: *const *const c_void,
    pub(super) children: *mut *mut Array,
    pub(super) dictionary: *mut Array,
    pub(super) release: Option<unsafe extern "C" fn(*mut Array)>,
    pub(super) private_data: *mut c_void,
}

#[repr(C)]
pub(super) struct Stream {
    pub(super) get_schema: Option<unsafe extern "C" fn(*mut Stream, *mut Schema) -> c_int>,
    pub(super) get_next: Option<unsafe extern "C" fn(*mut Stream, *mut Array) -> c_int>,
    pub(super) get_last_error: Option<unsafe extern "C" fn(*mut Stream) -> *const c_char>,
    pub(super) release: Option<unsafe extern "C" fn(*mut Stream)>,
    pub(super) private_data: *mut c_void,
}

/// A struct of the interface: released once, by whoever holds it last.
pub(super) trait Released {
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

pub(super) struct Held<T: Released>(pub(super) Box<T>);

impl<T: Released> Held<T> {
    /// Take the struct out of a capsule.
    pub(super) fn of(capsule: &Bound<'_, PyAny>, name: &CStr) -> PyResult<Self> {
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

pub(super) fn check(stream: &mut Held<Stream>, code: c_int) -> PyResult<()> {
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

pub(super) fn broken(problem: &str) -> PyErr {
    invalid(format!(
        "`data` {problem}: its producer does not follow Arrow's C data interface"
    ))
}

pub(super) fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    // SAFETY: a string of the interface ends in a zero, and lives as long as what it stands in.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_str().ok())?
}

pub(super) fn size(number: i64) -> PyResult<usize> {
    usize::try_from(number).map_err(|_| broken("has a negative length"))
}

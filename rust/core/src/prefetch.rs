//! A hint to the processor that memory will be read soon; the one thing here that safe Rust cannot say.

#![allow(unsafe_code, reason = "the intrinsic takes a raw pointer")]

/// How far ahead of where it reads a pass asks for memory. The hardware fetches ahead by itself, but not beyond a
/// page of 4 KiB; four pages further, what is asked for comes in time.
const AHEAD: usize = 16 << 10;

/// The bytes that come at once.
pub(crate) const LINE: usize = 64;

/// Ask for the line that lies behind `here` by as much as a pass looks ahead. Does nothing where there is no such hint.
#[inline]
pub(crate) fn ahead<T>(here: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = std::ptr::from_ref(here).cast::<i8>().wrapping_add(AHEAD);
        // SAFETY: a prefetch of any address at all changes nothing that a program can see, and never faults; the
        // instruction belongs to SSE, which every x86-64 has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = here;
}

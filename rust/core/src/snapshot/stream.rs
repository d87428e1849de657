//! Copies that do not pass through the cache, the one thing here that safe Rust cannot say.
//!
//! An ordinary store first reads the line that it writes to, which makes three transfers of memory of the two that a
//! copy needs, and drives out of the cache what training is about to use. The C library copies large ranges in this
//! way, too, but is handed a block at a time here.

#![allow(unsafe_code, reason = "the intrinsics take raw pointers")]

/// Copy bytes to a place of the same length; call [`fence`] before another thread reads them.
///
/// # Panics
///
/// If the lengths differ.
pub(super) fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a place of the same length");
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};

        const WIDTH: usize = size_of::<__m128i>();
        if to.as_ptr().addr().is_multiple_of(WIDTH) {
            let (wide_to, rest_to) = to.as_chunks_mut::<WIDTH>();
            let (wide_from, rest_from) = from.as_chunks::<WIDTH>();
            for (to, from) in wide_to.iter_mut().zip(wide_from) {
                // SAFETY: both are sixteen bytes, the place is aligned because the first one is and the width is its
                // alignment, and it is borrowed for this alone. SSE2 belongs to every x86-64.
                unsafe {
                    let value = _mm_loadu_si128(from.as_ptr().cast());
                    _mm_stream_si128(to.as_mut_ptr().cast(), value);
                }
            }
            rest_to.copy_from_slice(rest_from);
            return;
        }
    }
    to.copy_from_slice(from);
}

/// Let everything that [`copy`] wrote arrive before what this thread writes next.
pub(super) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it orders stores and does nothing else.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_copies_as_a_copy_does(bytes: Vec<u8>, shift in 0_usize..32, behind in 0_usize..20) {
            let mut room = vec![0xaa; shift + bytes.len() + behind];
            let mut plainly = room.clone();
            plainly[shift..][..bytes.len()].copy_from_slice(&bytes);
            copy(&mut room[shift..][..bytes.len()], &bytes);
            fence();
            prop_assert_eq!(room, plainly);
        }
    }
}

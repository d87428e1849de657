//! Two meters behind locks, one of which takes in the other.

use std::sync::{Mutex, PoisonError};

/// Merges `theirs` into `mine` without a copy, unless they are one.
///
/// Both locks are taken, that at the lower address first: so two threads that merge both ways cannot wait in a circle.
pub(crate) fn merged<T: Clone, E>(
    mine: &Mutex<T>,
    theirs: &Mutex<T>,
    merge: impl FnOnce(&mut T, &T) -> Result<(), E>,
) -> Result<(), E> {
    if std::ptr::eq(mine, theirs) {
        let copy = theirs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut mine = mine.lock().unwrap_or_else(PoisonError::into_inner);
        return merge(&mut mine, &copy);
    }
    let first_mine = std::ptr::from_ref(mine) < std::ptr::from_ref(theirs);
    let (first, second) = if first_mine {
        (mine, theirs)
    } else {
        (theirs, mine)
    };
    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
    let mut second = second.lock().unwrap_or_else(PoisonError::into_inner);
    if first_mine {
        merge(&mut first, &second)
    } else {
        merge(&mut second, &first)
    }
}

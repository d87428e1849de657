//! Work cut into chunks, taken from one queue by a few threads, with results in the order of the work.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// The bytes that a thread takes at a time.
pub(crate) const CHUNK: usize = 256 << 10;
/// From so many bytes on, another thread earns what its start costs.
pub(crate) const WORTH_A_THREAD: usize = 4 << 20;

/// Return how many threads help with work on so many bytes, where up to `threads` may work.
pub(crate) fn helpers(bytes: usize, threads: usize) -> usize {
    (bytes / WORTH_A_THREAD).min(threads.saturating_sub(1))
}

/// Do all the work, on this thread and on `helpers` more.
pub(crate) fn in_order<W: Send, R: Send>(
    work: Vec<W>,
    helpers: usize,
    labour: impl Fn(W) -> R + Sync,
) -> Vec<R> {
    if helpers == 0 {
        return work.into_iter().map(labour).collect();
    }
    let mut results: Vec<Option<R>> = work.iter().map(|_| None).collect();
    let queue = Mutex::new(work.into_iter().zip(&mut results));
    let toil = || {
        loop {
            // A poisoned queue still hands out each chunk once.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((work, result)) = next else { return };
            *result = Some(labour(work));
        }
    };
    thread::scope(|scope| {
        let started: Vec<_> = (0..helpers)
            .map(|_| thread::Builder::new().spawn_scoped(scope, toil))
            .collect();
        toil();
        // A thread that could not be started did no work; the queue was emptied by the others.
        for helper in started.into_iter().flatten() {
            helper
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    results.into_iter().flatten().collect()
}

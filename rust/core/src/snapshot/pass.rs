//! The pass itself: pieces cut into chunks, chunks taken by threads, findings added up.

use super::checksum::{BLOCK, finish, term};
use super::error::Error;
use super::lane::{Check, Lane};
use super::stream;
use crate::share::{CHUNK, helpers, in_order};

const _: () = assert!(
    CHUNK.is_multiple_of(BLOCK),
    "a checksum is cut between blocks"
);

/// What a pass found in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The checksum of its bytes.
    pub checksum: u64,
    /// Where the first value that is not finite begins, in bytes from the piece's own beginning.
    pub nonfinite: Option<usize>,
}

/// Memory to be copied into the arena.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// What is copied.
    pub bytes: &'a [u8],
    /// Where in the arena it goes.
    pub offset: usize,
    /// What the bytes are.
    pub lane: Lane,
}

/// Memory to be filled from the arena.
#[derive(Debug)]
pub struct Target<'a> {
    /// What is overwritten.
    pub bytes: &'a mut [u8],
    /// Where in the arena it comes from.
    pub offset: usize,
}

/// A part of the arena to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Where it begins.
    pub offset: usize,
    /// Its bytes.
    pub length: usize,
    /// What the bytes are.
    pub lane: Lane,
}

/// Copy every source to its place in the arena; return what was seen in each, in order.
///
/// # Errors
///
/// A source does not fit the arena, or the sources are not in the order of their offsets or overlap.
pub fn gather(
    sources: &[Source<'_>],
    arena: &mut [u8],
    threads: usize,
) -> Result<Vec<Seen>, Error> {
    let spans = sources.iter().map(|source| Span {
        offset: source.offset,
        length: source.bytes.len(),
        lane: source.lane,
    });
    let mut end = 0;
    for (piece, span) in spans.clone().enumerate() {
        if span.offset < end {
            let offset = span.offset;
            return Err(Error::Overlap { piece, offset, end });
        }
        end = within(piece, span.offset, span.length, arena.len())?;
    }
    let (mut rest, mut position) = (arena, 0);
    let mut work = Vec::new();
    for (piece, source) in sources.iter().enumerate() {
        let (_, from) = rest.split_at_mut(source.offset - position);
        let (room, behind) = from.split_at_mut(source.bytes.len());
        (rest, position) = (behind, source.offset + source.bytes.len());
        let parts = source.bytes.chunks(CHUNK).zip(room.chunks_mut(CHUNK));
        work.extend(parts.enumerate().map(|(index, (from, to))| Work {
            piece,
            start: index * CHUNK,
            lane: source.lane,
            job: Job::Copy(from, to),
        }));
    }
    Ok(run(work, spans.map(|span| span.length), threads))
}

/// Copy every target's bytes out of the arena; return what was seen on the way to each.
///
/// # Errors
///
/// A target asks for bytes that the arena does not have.
pub fn scatter(arena: &[u8], targets: Vec<Target<'_>>, threads: usize) -> Result<Vec<Seen>, Error> {
    for (piece, target) in targets.iter().enumerate() {
        within(piece, target.offset, target.bytes.len(), arena.len())?;
    }
    let lengths: Vec<usize> = targets.iter().map(|target| target.bytes.len()).collect();
    let mut work = Vec::new();
    for (piece, target) in targets.into_iter().enumerate() {
        let from = &arena[target.offset..][..target.bytes.len()];
        let parts = from.chunks(CHUNK).zip(target.bytes.chunks_mut(CHUNK));
        work.extend(parts.enumerate().map(|(index, (from, to))| Work {
            piece,
            start: index * CHUNK,
            lane: Lane::Opaque,
            job: Job::Copy(from, to),
        }));
    }
    Ok(run(work, lengths.into_iter(), threads))
}

/// Look at parts of the arena, which may overlap; return what was seen in each, in order.
///
/// # Errors
///
/// A span asks for bytes that the arena does not have.
pub fn inspect(arena: &[u8], spans: &[Span], threads: usize) -> Result<Vec<Seen>, Error> {
    let mut work = Vec::new();
    for (piece, span) in spans.iter().enumerate() {
        within(piece, span.offset, span.length, arena.len())?;
        let parts = arena[span.offset..][..span.length].chunks(CHUNK);
        work.extend(parts.enumerate().map(|(index, part)| Work {
            piece,
            start: index * CHUNK,
            lane: span.lane,
            job: Job::Look(part),
        }));
    }
    Ok(run(work, spans.iter().map(|span| span.length), threads))
}

/// Return the end of a piece, if the arena reaches that far.
fn within(piece: usize, offset: usize, length: usize, arena: usize) -> Result<usize, Error> {
    let end = offset.saturating_add(length);
    if end > arena {
        return Err(Error::Outside {
            piece,
            offset,
            end,
            arena,
        });
    }
    Ok(end)
}

/// One chunk of one piece.
struct Work<'a> {
    piece: usize,
    start: usize,
    lane: Lane,
    job: Job<'a>,
}

enum Job<'a> {
    Look(&'a [u8]),
    Copy(&'a [u8], &'a mut [u8]),
}

impl Work<'_> {
    /// Do it; return the sum of the terms and the first value that is not finite.
    fn done(self) -> (u64, Option<usize>) {
        let check = self.lane.check();
        match self.job {
            Job::Look(bytes) => look(bytes, self.start, check, |_, _| {}),
            Job::Copy(from, to) => {
                let found = look(from, self.start, check, |at, bytes| {
                    stream::copy(&mut to[at..][..bytes.len()], bytes);
                });
                stream::fence();
                found
            }
        }
    }
}

/// Add up the terms of bytes that begin at `start`, a multiple of a block, and hand each block on
/// after it was looked at.
///
/// In this order the block comes from memory once, for the checksum, and from the first-level cache
/// for the copy. Copied first, it takes a third longer.
fn look(
    bytes: &[u8],
    start: usize,
    check: Check,
    mut hand_on: impl FnMut(usize, &[u8]),
) -> (u64, Option<usize>) {
    let (mut sum, mut first) = (0_u64, None);
    let mut see = |block: &[u8; BLOCK], begin: usize| {
        let (term, bad) = term(block, (begin / BLOCK) as u64, check);
        sum = sum.wrapping_add(term);
        if bad && first.is_none() {
            first = Some(begin + place(block, check));
        }
    };
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (index, block) in blocks.iter().enumerate() {
        see(block, start + index * BLOCK);
        hand_on(index * BLOCK, block);
    }
    if !rest.is_empty() {
        let mut filled = [0; BLOCK];
        filled[..rest.len()].copy_from_slice(rest);
        see(&filled, start + blocks.len() * BLOCK);
        hand_on(blocks.len() * BLOCK, rest);
    }
    (sum, first)
}

/// Return where in a block the first value begins that is not finite.
#[cold]
fn place(block: &[u8; BLOCK], check: Check) -> usize {
    let alone = |value: &[u8]| {
        let mut word = [0; size_of::<u64>()];
        word[..value.len()].copy_from_slice(value);
        check.any(check.carries(u64::from_le_bytes(word)))
    };
    let first = block.chunks(check.width).position(alone);
    first.unwrap_or(0) * check.width
}

/// Do all the work on up to `threads` threads, this one among them, and add up what each piece gave.
fn run(
    work: Vec<Work<'_>>,
    lengths: impl ExactSizeIterator<Item = usize> + Clone,
    threads: usize,
) -> Vec<Seen> {
    let helpers = helpers(lengths.clone().sum(), threads);
    let mut total = vec![(0_u64, None); lengths.len()];
    for (piece, found) in in_order(work, helpers, |work| (work.piece, work.done())) {
        add(&mut total[piece], found);
    }
    let seen = total.into_iter().zip(lengths);
    seen.map(|((terms, nonfinite), length)| Seen {
        checksum: finish(terms, length),
        nonfinite,
    })
    .collect()
}

fn add(sum: &mut (u64, Option<usize>), part: (u64, Option<usize>)) {
    sum.0 = sum.0.wrapping_add(part.0);
    sum.1 = [sum.1, part.1].into_iter().flatten().min();
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::checksum::tests::naive;
    use super::*;
    use crate::share::WORTH_A_THREAD;

    fn whole(bytes: &[u8], lane: Lane) -> Seen {
        let span = Span {
            offset: 0,
            length: bytes.len(),
            lane,
        };
        inspect(bytes, &[span], 1).expect("the whole of it")[0]
    }

    /// Bytes that are no repetition.
    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    proptest! {
        #[test]
        fn the_checksum_is_the_one_that_is_defined(length in 0_usize..3 * BLOCK, seed: u64) {
            let bytes = bytes(length, seed);
            prop_assert_eq!(whole(&bytes, Lane::Opaque).checksum, naive(&bytes));
        }

        #[test]
        fn one_changed_word_changes_it(length in 1_usize..2 * BLOCK, at: prop::sample::Index, flip in 1_u8..) {
            let before = bytes(length, 7);
            let mut after = before.clone();
            after[at.index(length)] ^= flip;
            prop_assert_ne!(whole(&before, Lane::Opaque), whole(&after, Lane::Opaque));
        }

        #[test]
        fn the_first_value_that_is_not_finite_is_named(
            values in vec(prop_oneof![40 => -1e30_f32..1e30, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)], 0..4000)
        ) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let first = values.iter().position(|value| !value.is_finite());
            prop_assert_eq!(whole(&bytes, Lane::Float32).nonfinite, first.map(|index| 4 * index));
        }

        #[test]
        fn gather_and_scatter_copy_and_agree(
            lengths in vec(prop_oneof![0_usize..200, Just(BLOCK), Just(CHUNK + 24)], 0..6),
            gap in 0_usize..70,
            threads in 0_usize..4,
        ) {
            let pieces: Vec<Vec<u8>> = lengths.iter().map(|&length| bytes(length, length as u64)).collect();
            let mut sources = Vec::new();
            let mut offset = gap;
            for piece in &pieces {
                sources.push(Source { bytes: piece, offset, lane: Lane::Opaque });
                offset += piece.len() + gap;
            }
            let mut arena = vec![0xaa; offset];
            let seen = gather(&sources, &mut arena, threads).expect("fits");
            for (source, seen) in sources.iter().zip(&seen) {
                prop_assert_eq!(&arena[source.offset..][..source.bytes.len()], source.bytes);
                prop_assert_eq!(seen.checksum, naive(source.bytes));
            }
            prop_assert!(arena[..gap].iter().all(|&byte| byte == 0xaa));
            let mut back: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
            let targets = back.iter_mut().zip(&sources);
            let targets = targets.map(|(bytes, source)| Target { bytes, offset: source.offset }).collect();
            prop_assert_eq!(scatter(&arena, targets, threads).expect("fits"), seen);
            prop_assert_eq!(back, pieces);
        }
    }

    #[test]
    fn threads_do_not_change_what_is_seen() {
        let mut bytes = bytes(3 * WORTH_A_THREAD + 12, 3);
        for value in bytes.chunks_mut(4) {
            value[3] &= 0x3f;
        }
        let (late, early) = (2 * WORTH_A_THREAD + 8, WORTH_A_THREAD - 4);
        bytes[late..late + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes[early..early + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        let alone = whole(&bytes, Lane::Float32);
        assert_eq!(alone.nonfinite, Some(early));
        let span = Span {
            offset: 0,
            length: bytes.len(),
            lane: Lane::Float32,
        };
        for threads in [2, 3, 8] {
            assert_eq!(inspect(&bytes, &[span], threads), Ok(vec![alone]));
        }
    }

    #[test]
    fn the_same_bit_flipped_in_two_words_is_found() {
        let before = bytes(BLOCK, 5);
        for (one, other) in [(7, 15), (7, 135), (63, 4095)] {
            let mut after = before.clone();
            after[one] ^= 0x80;
            after[other] ^= 0x80;
            assert_ne!(whole(&before, Lane::Opaque), whole(&after, Lane::Opaque));
        }
    }

    #[test]
    fn swapped_blocks_and_missing_zeros_are_found() {
        let mut swapped = bytes(2 * BLOCK, 9);
        let before = whole(&swapped, Lane::Opaque);
        swapped.rotate_left(BLOCK);
        assert_ne!(whole(&swapped, Lane::Opaque), before);
        let zeros = |length| whole(&vec![0; length], Lane::Opaque).checksum;
        assert_ne!(zeros(0), zeros(1));
        assert_ne!(zeros(BLOCK), zeros(BLOCK + 1));
    }

    #[test]
    fn a_layout_that_does_not_fit_is_refused_before_anything_is_written() {
        let mut arena = vec![1; 8];
        let source = |offset| Source {
            bytes: &[9; 4],
            offset,
            lane: Lane::Opaque,
        };
        let overlap = gather(&[source(0), source(3)], &mut arena, 1);
        let (piece, offset) = (1, 3);
        assert_eq!(
            overlap,
            Err(Error::Overlap {
                piece,
                offset,
                end: 4
            })
        );
        let outside = gather(&[source(0), source(5)], &mut arena, 1);
        assert!(matches!(
            outside,
            Err(Error::Outside {
                piece: 1,
                end: 9,
                ..
            })
        ));
        let huge = inspect(
            &arena,
            &[Span {
                offset: usize::MAX,
                length: 2,
                lane: Lane::Opaque,
            }],
            1,
        );
        assert!(matches!(huge, Err(Error::Outside { .. })));
        assert_eq!(arena, [1; 8]);
    }
}

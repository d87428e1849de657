//! What can go wrong between an arena and the memory it mirrors.

/// A layout that does not fit its arena. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A piece that would end behind the arena.
    #[error(
        "piece {piece} needs bytes {offset} to {end}, but the arena has {arena}: lay the arena out again"
    )]
    Outside {
        /// The position in the list of pieces.
        piece: usize,
        /// Where it would begin.
        offset: usize,
        /// Where it would end.
        end: usize,
        /// The bytes there are.
        arena: usize,
    },
    /// A piece that begins before the one in front of it ends.
    #[error(
        "piece {piece} begins at byte {offset}, but the one before it ends at {end}: order the pieces by offset, without overlap"
    )]
    Overlap {
        /// The position in the list of pieces.
        piece: usize,
        /// Where it begins.
        offset: usize,
        /// Where the piece before it ends.
        end: usize,
    },
}

//! Long texts in pieces that overlap, so that memory is bounded by the piece.

use super::decode::decode;
use super::points;

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
    /// How many code points come before it.
    pub characters: usize,
}

/// Cut a text into windows of at most `most` code points.
///
/// Neighbours share a quarter of a window, so what is shorter than that lies whole in one of them. A window begins
/// and ends where a word does, if there is such a place within its overlap, so that no cut makes a word.
#[must_use]
pub fn windows(text: &[u8], most: usize) -> Vec<Window> {
    let most = most.max(4);
    let overlap = most / 4;
    let mut found = Vec::new();
    let mut start = Place { byte: 0, point: 0 };
    loop {
        let mut here = start;
        let mut last_gap = None; // the last place between words that the next window has too
        let mut next = None; // where the window after this one begins
        while here.byte < text.len() && here.point < start.point + most {
            let (point, length) = decode(&text[here.byte..]);
            let gap = !points::is_word(points::kind(point.min(points::LAST)));
            let inside = here.point - start.point;
            let due = inside >= most - overlap;
            if next.is_none()
                && inside > 0
                && (due || (gap && inside + overlap / 2 >= most - overlap))
            {
                next = Some(here);
            }
            if gap && next.is_some() {
                last_gap = Some(here);
            }
            here = Place {
                byte: here.byte + length,
                point: here.point + 1,
            };
        }
        let ends = here.byte >= text.len();
        let stop = if ends { here } else { last_gap.unwrap_or(here) };
        found.push(Window {
            start: start.byte,
            end: stop.byte,
            characters: start.point,
        });
        match next {
            Some(next) if !ends => start = next,
            _ => return found,
        }
    }
}

#[derive(Clone, Copy)]
struct Place {
    byte: usize,
    point: usize,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decode::characters;
    use super::*;

    proptest! {
        #[test]
        fn windows_cover_the_text_go_forward_and_overlap(text in "[a-zé \u{1F600}]{0,300}", most in 4_usize..64) {
            let bytes = text.as_bytes();
            let found = windows(bytes, most);
            prop_assert_eq!(found[0].start, 0);
            prop_assert_eq!(found[found.len() - 1].end, bytes.len());
            for window in &found {
                prop_assert!(characters(&bytes[window.start..window.end]) <= most);
                prop_assert_eq!(characters(&bytes[..window.start]), window.characters);
                prop_assert!(text.is_char_boundary(window.start) && text.is_char_boundary(window.end));
            }
            for pair in found.windows(2) {
                prop_assert!(pair[0].start < pair[1].start);
                prop_assert!(pair[1].start <= pair[0].end);
            }
        }
    }
}

//! From the bytes of a text to code points, whatever the bytes are.

/// What a byte that belongs to no character is read as; no rule can name it, as it is no code point.
pub(super) const MALFORMED: u32 = 0x0011_0000;

/// Read one code point; return it and how many bytes it has.
///
/// UTF-8, and surrogates written as three bytes, as Python's `surrogatepass` writes them. A byte that begins neither
/// stands for itself, as one character of no kind.
#[inline]
pub(super) fn decode(bytes: &[u8]) -> (u32, usize) {
    let byte = |at: usize| bytes.get(at).copied().map_or(0, u32::from);
    let tail = |at: usize| (byte(at) & 0xC0 == 0x80).then_some(byte(at) & 0x3F);
    let first = byte(0);
    let read = match first {
        0..0x80 => return (first, 1),
        0xC2..0xE0 => tail(1).map(|one| ((first & 0x1F) << 6 | one, 2)),
        0xE0..0xF0 => tail(1)
            .zip(tail(2))
            .map(|(one, two)| ((first & 0x0F) << 12 | one << 6 | two, 3))
            .filter(|&(point, _)| point >= 0x800),
        0xF0..0xF5 => tail(1)
            .zip(tail(2))
            .zip(tail(3))
            .map(|((one, two), three)| ((first & 0x07) << 18 | one << 12 | two << 6 | three, 4))
            .filter(|&(point, _)| (0x1_0000..0x11_0000).contains(&point)),
        _ => None,
    };
    read.unwrap_or((MALFORMED, 1))
}

/// Count the code points of a text.
#[must_use]
pub fn characters(text: &[u8]) -> usize {
    let mut rest = text;
    let mut count = 0;
    while let Some(&byte) = rest.first() {
        let ascii = if byte < 0x80 {
            rest.iter().take_while(|byte| byte.is_ascii()).count()
        } else {
            0
        };
        if ascii > 0 {
            count += ascii;
            rest = &rest[ascii..];
        } else {
            rest = &rest[decode(rest).1..];
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn valid_text_is_read_as_the_standard_library_reads_it(text: String) {
            let mut at = 0;
            for char in text.chars() {
                prop_assert_eq!(decode(&text.as_bytes()[at..]), (u32::from(char), char.len_utf8()));
                at += char.len_utf8();
            }
            prop_assert_eq!(characters(text.as_bytes()), text.chars().count());
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes: Vec<u8>) {
            let mut at = 0;
            while at < bytes.len() {
                at += decode(&bytes[at..]).1;
            }
            prop_assert_eq!(at, bytes.len());
        }
    }

    #[test]
    fn a_surrogate_is_a_code_point_and_an_overlong_form_is_not() {
        assert_eq!(decode(b"\xED\xA0\x80"), (0xD800, 3));
        assert_eq!(decode(b"\xC0\xAF"), (MALFORMED, 1));
        assert_eq!(decode(b"\xE0\x80\xAF"), (MALFORMED, 1));
        assert_eq!(decode(b"\xF4\x90\x80\x80"), (MALFORMED, 1));
    }
}

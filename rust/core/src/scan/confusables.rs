//! Letters of other scripts that look like Latin ones. Only what is drawn alike in common fonts is here.

/// A code point, and the Latin letter it is taken for.
#[rustfmt::skip]
pub(super) static CONFUSABLES: &[(u32, u8)] = &[
    // Cyrillic, small and capital
    (0x0430, b'a'), (0x0432, b'b'), (0x0435, b'e'), (0x043a, b'k'), (0x043c, b'm'), (0x043d, b'h'), (0x043e, b'o'),
    (0x0440, b'p'), (0x0441, b'c'), (0x0442, b't'), (0x0443, b'y'), (0x0445, b'x'), (0x0455, b's'), (0x0456, b'i'),
    (0x0458, b'j'), (0x0501, b'd'), (0x051b, b'q'), (0x051d, b'w'), (0x04bb, b'h'), (0x04cf, b'l'), (0x0475, b'v'),
    (0x0410, b'a'), (0x0412, b'b'), (0x0415, b'e'), (0x041a, b'k'), (0x041c, b'm'), (0x041d, b'h'), (0x041e, b'o'),
    (0x0420, b'p'), (0x0421, b'c'), (0x0422, b't'), (0x0423, b'y'), (0x0425, b'x'), (0x0405, b's'), (0x0406, b'i'),
    (0x0408, b'j'), (0x0451, b'e'), (0x0457, b'i'), (0x04ae, b'y'), (0x04c0, b'i'), (0x051a, b'q'), (0x051c, b'w'),
    // Greek
    (0x03b1, b'a'), (0x03b5, b'e'), (0x03b9, b'i'), (0x03ba, b'k'), (0x03bd, b'v'), (0x03bf, b'o'), (0x03c1, b'p'),
    (0x03c4, b't'), (0x03c5, b'u'), (0x03c7, b'x'), (0x03c9, b'w'), (0x03b3, b'y'), (0x03f2, b'c'), (0x03f3, b'j'),
    (0x0391, b'a'), (0x0392, b'b'), (0x0395, b'e'), (0x0396, b'z'), (0x0397, b'h'), (0x0399, b'i'), (0x039a, b'k'),
    (0x039c, b'm'), (0x039d, b'n'), (0x039f, b'o'), (0x03a1, b'p'), (0x03a4, b't'), (0x03a5, b'y'), (0x03a7, b'x'),
    (0x03f9, b'c'), (0x037f, b'j'),
    // Armenian
    (0x0570, b'h'), (0x0578, b'n'), (0x057d, b'u'), (0x0585, b'o'), (0x0581, b'g'), (0x0561, b'w'), (0x0563, b'q'),
    // Latin beside Latin: without a dot, with a stroke, small capitals
    (0x0237, b'j'), (0x0251, b'a'), (0x0261, b'g'), (0x0269, b'i'), (0x028b, b'u'), (0x026f, b'w'),
    (0x0142, b'l'), (0x00f8, b'o'), (0x00d8, b'o'), (0x0111, b'd'), (0x0180, b'b'), (0x0167, b't'), (0x0127, b'h'),
    (0x1d00, b'a'), (0x0299, b'b'), (0x1d04, b'c'), (0x1d05, b'd'), (0x1d07, b'e'), (0xa730, b'f'), (0x0262, b'g'),
    (0x029c, b'h'), (0x026a, b'i'), (0x1d0a, b'j'), (0x1d0b, b'k'), (0x029f, b'l'), (0x1d0d, b'm'), (0x0274, b'n'),
    (0x1d0f, b'o'), (0x1d18, b'p'), (0x0280, b'r'), (0xa731, b's'), (0x1d1b, b't'), (0x1d1c, b'u'), (0x1d20, b'v'),
    (0x1d21, b'w'), (0x028f, b'y'), (0x1d22, b'z'),
    // Cherokee and Lisu capitals that are drawn as Latin ones
    (0x13aa, b'g'), (0x13ac, b'e'), (0x13b3, b'w'), (0x13bb, b'h'), (0x13a0, b'd'), (0x13a1, b'r'), (0x13a2, b't'),
    (0x13a5, b'i'), (0x13b7, b'm'), (0x13c3, b'z'), (0x13cf, b'b'), (0x13d2, b'r'), (0x13de, b'l'),
    (0x13df, b'c'), (0x13e2, b'p'), (0x13e6, b'k'), (0x13f4, b'b'),
    // Regional and boxed letters are compatibility forms, or pictures: NFKC has the first, nobody reads the second.
];

/// Return the Latin letter that a code point is taken for.
pub(super) fn latin(point: u32) -> Option<u8> {
    CONFUSABLES
        .iter()
        .find(|&&(from, _)| from == point)
        .map(|&(_, to)| to)
}

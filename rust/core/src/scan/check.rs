//! Numbers that carry their own proof: a finding that does not pass is none.

/// What the text of a finding must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The check digit of payment cards (ISO/IEC 7812), 12 to 19 digits.
    Luhn,
    /// The remainder of international account numbers (ISO 13616).
    Iban,
    /// The ranges in which social security numbers of the United States are given out.
    Ssn,
    /// A key: enough different characters, from more than one class.
    Entropy,
}

/// Bits per character from which on a string is taken for random, and not for a word or a placeholder.
const BITS: f64 = 3.0;

impl Check {
    /// Read its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "luhn" => Self::Luhn,
            "iban" => Self::Iban,
            "ssn" => Self::Ssn,
            "entropy" => Self::Entropy,
            _ => return None,
        })
    }

    /// Return its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Luhn => "luhn",
            Self::Iban => "iban",
            Self::Ssn => "ssn",
            Self::Entropy => "entropy",
        }
    }

    /// Say whether a text passes.
    #[must_use]
    pub fn passes(self, text: &[u8]) -> bool {
        match self {
            Self::Luhn => luhn(&digits(text)),
            Self::Iban => iban(text),
            Self::Ssn => ssn(&digits(text)),
            Self::Entropy => entropy(text),
        }
    }
}

fn digits(text: &[u8]) -> Vec<u8> {
    text.iter()
        .filter(|byte| byte.is_ascii_digit())
        .map(|byte| byte - b'0')
        .collect()
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, u32::from(digit) * 2) {
            (0, _) => u32::from(digit),
            (_, twice) if twice > 9 => twice - 9,
            (_, twice) => twice,
        })
        .sum();
    // A row of one digit has the right remainder now and then, and is no card.
    let same = digits.iter().all(|digit| Some(digit) == digits.first());
    (12..=19).contains(&digits.len()) && sum.is_multiple_of(10) && !same
}

fn iban(text: &[u8]) -> bool {
    let signs: Vec<u8> = text
        .iter()
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(u8::to_ascii_uppercase)
        .collect();
    let form = (15..=34).contains(&signs.len())
        && signs[..2].iter().all(u8::is_ascii_uppercase)
        && signs[2..4].iter().all(u8::is_ascii_digit);
    if !form {
        return false;
    }
    let rest = signs[4..]
        .iter()
        .chain(&signs[..4])
        .fold(0_u32, |rest, &byte| match byte {
            b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
            _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
        });
    rest == 1
}

/// No area 000, 666 or 9xx, no group 00, no serial 0000, and none of the numbers printed in advertisements.
fn ssn(digits: &[u8]) -> bool {
    if digits.len() != 9 {
        return false;
    }
    let number = |part: &[u8]| {
        part.iter()
            .fold(0_u32, |sum, &digit| sum * 10 + u32::from(digit))
    };
    let (area, group, serial) = (
        number(&digits[..3]),
        number(&digits[3..5]),
        number(&digits[5..]),
    );
    let printed = [(78, 5, 1120), (219, 9, 9999), (457, 55, 5462)];
    area != 0
        && area != 666
        && area < 900
        && group != 0
        && serial != 0
        && !printed.contains(&(area, group, serial))
}

/// The longest run of letters, digits and `+/_-` has a digit, a letter, and many different signs.
fn entropy(text: &[u8]) -> bool {
    let key = text
        .split(|byte| !(byte.is_ascii_alphanumeric() || b"+/_-".contains(byte)))
        .max_by_key(|run| run.len())
        .unwrap_or_default();
    let mut counts = [0_u32; 256];
    for &byte in key {
        counts[usize::from(byte)] += 1;
    }
    let total = key.len() as f64;
    let bits: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum();
    key.iter().any(u8::is_ascii_digit) && key.iter().any(u8::is_ascii_alphabetic) && bits >= BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_numbers_pass() {
        for card in [
            "4111 1111 1111 1111",
            "5500-0000-0000-0004",
            "378282246310005",
        ] {
            assert!(Check::Luhn.passes(card.as_bytes()), "{card}");
        }
        for iban in [
            "DE89 3704 0044 0532 0130 00",
            "GB82WEST12345698765432",
            "fr14 2004 1010 0505 0001 3m02 606",
        ] {
            assert!(Check::Iban.passes(iban.as_bytes()), "{iban}");
        }
        assert!(Check::Ssn.passes(b"536-90-4399"));
        assert!(Check::Entropy.passes(b"token = \"ghp_9aK2mQ81xZrT0bLc7PvY\""));
    }

    #[test]
    fn what_only_looks_so_does_not_pass() {
        for ssn in [
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-4567",
            "123-45-0000",
            "078-05-1120",
            "12-3",
        ] {
            assert!(!Check::Ssn.passes(ssn.as_bytes()), "{ssn}");
        }
        for card in ["0000 0000 0000 0000", "4111", "4111111111111112"] {
            assert!(!Check::Luhn.passes(card.as_bytes()), "{card}");
        }
        for key in [
            "api_key = YOUR_API_KEY_HERE",
            "aaaaaaaaaaaaaaaa1111",
            "",
            "xxxxxxxxxxxxxxxxxxxx",
        ] {
            assert!(!Check::Entropy.passes(key.as_bytes()), "{key}");
        }
        assert!(!Check::Iban.passes("ДE89".as_bytes()));
    }

    proptest! {
        /// Every single wrong digit is noticed by both remainders.
        #[test]
        fn a_number_that_is_off_by_one_does_not_pass(place in 0_usize..16, card in "4[0-9]{14}", account in "[0-9]{18}") {
            let valid = |text: &str| (b'0'..=b'9').map(|digit| format!("{text}{}", digit as char)).find(|card| Check::Luhn.passes(card.as_bytes()));
            if let Some(card) = valid(&card) {
                let mut wrong = card.into_bytes();
                wrong[place] = b'0' + (wrong[place] - b'0' + 1) % 10;
                prop_assert!(!Check::Luhn.passes(&wrong));
            }
            let iban = (0..97).map(|check| format!("DE{check:02}{account}")).find(|iban| Check::Iban.passes(iban.as_bytes()));
            if let Some(iban) = iban {
                let mut wrong = iban.into_bytes();
                let last = wrong.len() - 1;
                wrong[last] = b'0' + (wrong[last] - b'0' + 1) % 10;
                prop_assert!(!Check::Iban.passes(&wrong));
            }
        }
    }
}

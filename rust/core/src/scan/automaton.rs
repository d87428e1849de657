//! One rule as an automaton of `regex-automata`, over codes that were written anew as bytes.
//!
//! It decides in linear time whatever the text is, and finds the matches that `re.finditer` finds. The fast path
//! is checked against it, and asks it where its own search would take too long.

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_automata::{Input, Match};
use regex_syntax::hir::{self, Hir};

use super::alphabet::{Alphabet, Codes, PAD};
use super::syntax::{Look, Node};

/// The bytes that stand for codes of word characters; ASCII's word boundary is then Python's.
const WORDS: &[u8; 63] = b"abcdefghijklmnopqrstuvwxyz0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// How codes are written as bytes.
#[derive(Debug, Clone)]
pub(super) struct Spelling {
    bytes: [u8; 64],
    newline: u8,
}

impl Spelling {
    pub(super) fn new(alphabet: &Alphabet) -> Self {
        let mut bytes = [0; 64];
        for (code, byte) in (0_u8..).zip(&mut bytes) {
            *byte = if (1..=alphabet.last_word).contains(&code) {
                WORDS[usize::from(code) - 1]
            } else {
                0x80 | code
            };
        }
        Self {
            bytes,
            newline: alphabet.newline,
        }
    }

    /// Write codes as bytes. A newline at the very end becomes the only `\n`, before which `$` holds.
    pub(super) fn write(&self, codes: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend(
            codes
                .iter()
                .map(|&code| self.bytes[usize::from(code & PAD)]),
        );
        if codes.last() == Some(&self.newline)
            && let Some(last) = out.last_mut()
        {
            *last = b'\n';
        }
    }

    fn class(&self, codes: Codes) -> Hir {
        let mut ranges: Vec<_> = (0..PAD)
            .filter(|&code| codes >> code & 1 == 1)
            .map(|code| self.bytes[usize::from(code)])
            .map(|byte| hir::ClassBytesRange::new(byte, byte))
            .collect();
        if codes >> self.newline & 1 == 1 {
            ranges.push(hir::ClassBytesRange::new(b'\n', b'\n'));
        }
        Hir::class(hir::Class::Bytes(hir::ClassBytes::new(ranges)))
    }

    fn translate(&self, node: &Node<Codes>) -> Hir {
        match node {
            Node::Empty => Hir::empty(),
            Node::Set(codes) => self.class(*codes),
            Node::Look(look) => Hir::look(match look {
                Look::Start => hir::Look::Start,
                Look::End => hir::Look::EndLF,
                Look::Boundary => hir::Look::WordAscii,
                Look::NotBoundary => hir::Look::WordAsciiNegate,
            }),
            Node::Concat(nodes) => {
                Hir::concat(nodes.iter().map(|node| self.translate(node)).collect())
            }
            Node::Alternate(nodes) => {
                Hir::alternation(nodes.iter().map(|node| self.translate(node)).collect())
            }
            Node::Repeat(node, repeat) => Hir::repetition(hir::Repetition {
                min: repeat.least,
                max: repeat.most,
                greedy: repeat.greedy,
                sub: Box::new(self.translate(node)),
            }),
        }
    }
}

/// The automaton of one rule.
#[derive(Debug)]
pub(super) struct Automaton(Regex);

impl Automaton {
    /// Build it; the error is a rule that is too large.
    pub(super) fn new(node: &Node<Codes>, spelling: &Spelling) -> Result<Self, String> {
        let config = Regex::config()
            .utf8_empty(false)
            .nfa_size_limit(Some(8 << 20))
            .hybrid_cache_capacity(1 << 20);
        Regex::builder()
            .configure(config)
            .syntax(syntax::Config::new().utf8(false).unicode(false))
            .build_from_hir(&spelling.translate(node))
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// Say whether it matches anywhere.
    pub(super) fn matches(&self, spelled: &[u8]) -> bool {
        self.0.is_match(spelled)
    }

    /// Return the first match that begins at or after `from`: leftmost, with the end that Python prefers.
    pub(super) fn find(&self, spelled: &[u8], from: usize) -> Option<(usize, usize)> {
        let found: Option<Match> = self.0.find(Input::new(spelled).range(from..));
        found.map(|found| (found.start(), found.end()))
    }
}

//! Slots: lists whose words follow each other in one sentence, with a few other words between them.

use std::cmp::Ordering;

use super::charset::{self, CharSet};
use super::lists::{Lists, Speller, turns};
use super::syntax::{Look, Node, Repeat};

/// The most words of a gap.
pub(super) const GAP: u32 = 12;
/// What a gap has if a rule does not say.
const USUAL_GAP: u32 = 3;
/// The slot for the beginning of a sentence.
pub(super) const BEGIN: &str = "^";
/// Signs and blanks between the end of a sentence and the first word of the next.
const BLANKS: u32 = 8;

/// Orders of slots, and the words that may stand between neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// Each is a way to say it: names of lists, with a form, alternatives, or a `?`.
    pub orders: Vec<Vec<String>>,
    /// For all orders or for each: one number for all gaps, one for each, or none for the usual.
    pub gaps: Vec<Vec<u32>>,
}

/// A slot as it is read.
struct Slot<'a> {
    name: &'a str,
    optional: bool,
}

impl Slots {
    /// The regex of the slots; the error says what is wrong with which slot.
    pub(super) fn node(
        &self,
        lists: &Lists,
        speller: &mut Speller,
    ) -> Result<Node<CharSet>, String> {
        if self.orders.is_empty() || self.orders.iter().any(Vec::is_empty) {
            return Err("has no slot: name a list".to_owned());
        }
        if self.gaps.len() > 1 && self.gaps.len() != self.orders.len() {
            let (gaps, orders) = (self.gaps.len(), self.orders.len());
            return Err(format!(
                "has {gaps} lists of gaps for {orders} orders: write one list for all, or one for each"
            ));
        }
        let gaps = |place: usize| {
            let written = self.gaps.get(place).or(self.gaps.first());
            written.map_or(&[][..], Vec::as_slice)
        };
        let orders = self
            .orders
            .iter()
            .enumerate()
            .map(|(place, order)| Self::order(order, gaps(place), lists, speller));
        let mut orders = orders.collect::<Result<Vec<_>, _>>()?;
        Ok(if orders.len() == 1 {
            orders.remove(0)
        } else {
            Node::Alternate(orders)
        })
    }

    fn order(
        order: &[String],
        gaps: &[u32],
        lists: &Lists,
        speller: &mut Speller,
    ) -> Result<Node<CharSet>, String> {
        let slots: Vec<Slot<'_>> = order
            .iter()
            .map(|slot| Slot {
                name: slot.strip_suffix('?').unwrap_or(slot),
                optional: slot.ends_with('?'),
            })
            .collect();
        let Some(anchor) = slots
            .iter()
            .position(|slot| !slot.optional && slot.name != BEGIN)
        else {
            return Err("has no slot that must be there: leave the `?` of one out".to_owned());
        };
        if slots
            .iter()
            .enumerate()
            .any(|(place, slot)| slot.name == BEGIN && (place > 0 || slot.optional))
        {
            return Err("has `^` behind another slot: it stands first, without a `?`".to_owned());
        }
        let gaps = Self::gaps_of(gaps, &slots)?;
        let mut parts = Vec::new();
        for (place, slot) in slots.iter().enumerate() {
            if slot.name == BEGIN {
                parts.push(begin());
                parts.push(fillers(gaps[0]));
                continue;
            }
            let words = speller.slot(slot.name, lists)?;
            // What may be absent takes the gap on its own side with it.
            let both = match place.cmp(&anchor) {
                Ordering::Less => vec![words, gap(gaps[place])],
                Ordering::Equal => vec![words],
                Ordering::Greater => vec![gap(gaps[place - 1]), words],
            };
            let both = Node::Concat(both);
            let absent = slot.optional && place != anchor;
            parts.push(if absent { maybe(both) } else { both });
        }
        Ok(Node::Concat(parts))
    }

    /// The gap behind each slot but the last.
    fn gaps_of(written: &[u32], slots: &[Slot<'_>]) -> Result<Vec<u32>, String> {
        let joints = slots.len() - 1;
        let begins = slots[0].name == BEGIN;
        if let Some(wide) = written.iter().find(|&&gap| gap > GAP) {
            return Err(format!(
                "has a gap of {wide} words: keep it to {GAP}, or it means nothing any more"
            ));
        }
        let mut gaps = match written[..] {
            [] => vec![USUAL_GAP; joints],
            [all] if joints != 1 || !begins => vec![all; joints],
            _ if written.len() == joints => return Ok(written.to_vec()),
            _ if begins && written.len() + 1 == joints => {
                let mut gaps = vec![0];
                gaps.extend_from_slice(written);
                gaps
            }
            _ => {
                return Err(format!(
                    "has {} gaps for {} slots: write one number for all, or {joints} of them",
                    written.len(),
                    slots.len()
                ));
            }
        };
        if begins && joints > 0 {
            gaps[0] = 0;
        }
        Ok(gaps)
    }
}

fn maybe(node: Node<CharSet>) -> Node<CharSet> {
    Node::Repeat(Box::new(node), turns(0, Some(1)))
}

/// The signs that end a sentence.
const ENDS: [(u32, u32); 3] = [(0x21, 0x21), (0x2E, 0x2E), (0x3F, 0x3F)];

/// What stands between two words of a sentence.
fn between() -> Node<CharSet> {
    Node::Repeat(
        Box::new(Node::Set(CharSet::new(&ENDS, charset::WORD, true))),
        turns(1, None),
    )
}

/// A word that no slot names, with an apostrophe in it or without.
fn filler() -> Node<CharSet> {
    let letters = || {
        Node::Repeat(
            Box::new(Node::Set(CharSet::new(&[], charset::WORD, false))),
            turns(1, None),
        )
    };
    let apostrophe = Node::Set(CharSet::new(&[(0x27, 0x27), (0x2019, 0x2019)], 0, false));
    Node::Concat(vec![
        letters(),
        maybe(Node::Concat(vec![apostrophe, letters()])),
    ])
}

/// Up to so many words, each with what stands behind it.
fn fillers(most: u32) -> Node<CharSet> {
    if most == 0 {
        return Node::Empty;
    }
    Node::Repeat(
        Box::new(Node::Concat(vec![filler(), between()])),
        Repeat {
            least: 0,
            most: Some(most),
            greedy: false,
        },
    )
}

fn gap(most: u32) -> Node<CharSet> {
    match fillers(most) {
        Node::Empty => between(),
        words => Node::Concat(vec![between(), words]),
    }
}

/// The beginning of a sentence, with signs and blanks up to its first word.
fn begin() -> Node<CharSet> {
    let signs = [
        (0x0A, 0x0A),
        (0x21, 0x21),
        (0x2E, 0x2E),
        (0x3A, 0x3B),
        (0x3F, 0x3F),
    ];
    let blanks = Node::Set(CharSet::new(&[], charset::NOT_WORD, false));
    Node::Concat(vec![
        Node::Alternate(vec![
            Node::Look(Look::Start),
            Node::Set(CharSet::new(&signs, 0, false)),
        ]),
        Node::Repeat(Box::new(blanks), turns(0, Some(BLANKS))),
    ])
}

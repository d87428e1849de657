//! What every match of a rule must contain: a string from a short list, by which the rule is searched.
//!
//! A rule is a concatenation. Each run of its parts that expands to few strings is a candidate; the one whose strings
//! are rarest in English is taken, and the rule is split there into what stands before and what follows. Where no run
//! is rare enough, an alternation is replaced by its branches, and each branch is searched by a run of its own.

use std::cell::RefCell;
use std::collections::HashMap;

use super::alphabet::Codes;
use super::english::{Model, window_share};
use super::program::Program;
use super::syntax::{Look, Node, Repeat};

/// The most strings of a run.
const STRINGS: usize = 512;
/// The most windows that a string with sets in it may stand for.
const WINDOWS: u64 = 4096;
/// The most branches that an alternation inside a rule is replaced by.
const BRANCHES: usize = 16;
/// Expected candidates in a text of one code from which on a split is tried.
const DEAR: f64 = 1.6e-4;
/// Expected candidates above which a run is no help.
const USELESS: f64 = 2e-2;
/// The codes of a window.
pub(super) const WINDOW: usize = 4;

/// A string that a match contains, each place a set of codes.
pub(super) type Text = Vec<Codes>;

/// One way to find a rule.
#[derive(Debug)]
pub(super) struct Sub {
    /// What stands before the string, read backward.
    pub(super) before: Program,
    /// What follows it.
    pub(super) after: Program,
    /// The strings, each with its window: its place in the string, and its codes.
    pub(super) strings: Vec<(Text, usize, [Codes; WINDOW])>,
    /// Whether the strings begin where a word does.
    pub(super) start: bool,
}

struct Choice {
    subs: Vec<Sub>,
    cost: f64,
}

/// Choose how a rule is searched; `None` if no run of it is rare enough.
///
/// Alternatives are looked into to a depth. A rule of `trees` is made of lists of words, each of which is a run, and only
/// its orders are alternatives: to look into the letters of its lists would cost much and find nothing.
pub(super) fn choose(
    node: &Node<Codes>,
    word: Codes,
    model: &Model,
    shares: &Shares,
    trees: bool,
) -> Option<Vec<Sub>> {
    let chooser = Chooser {
        word,
        model,
        shares,
    };
    let items = flat(node);
    let depth = match items.as_slice() {
        [Node::Alternate(_)] if trees => 1,
        _ if trees => 0,
        _ => 2,
    };
    let choice = chooser.choose(&items, depth)?;
    Some(choice.subs)
}

struct Chooser<'a> {
    word: Codes,
    model: &'a Model,
    shares: &'a Shares,
}

/// How common windows are that were asked about: rules share their words.
#[derive(Debug, Default)]
pub(super) struct Shares(RefCell<HashMap<([Codes; WINDOW], bool), f64>>);

impl Shares {
    fn get(&self, window: [Codes; WINDOW], start: bool, model: &Model) -> f64 {
        let mut known = self.0.borrow_mut();
        *known
            .entry((window, start))
            .or_insert_with(|| window_share(&window, start, model))
    }
}

impl Chooser<'_> {
    fn choose(&self, items: &[Node<Codes>], depth: usize) -> Option<Choice> {
        let best = self.run(items);
        if best.as_ref().is_some_and(|best| best.cost <= DEAR) || depth == 0 {
            return best;
        }
        let mut chosen = best;
        for (place, item) in items.iter().enumerate() {
            let branches: Vec<Node<Codes>> = match item {
                Node::Alternate(nodes) if nodes.len() <= BRANCHES || items.len() == 1 => {
                    nodes.clone()
                }
                Node::Repeat(
                    node,
                    Repeat {
                        least: 0,
                        most: Some(1),
                        ..
                    },
                ) => vec![Node::Empty, (**node).clone()],
                _ => continue,
            };
            let mut whole = Choice {
                subs: Vec::new(),
                cost: 0.0,
            };
            let split = branches.iter().try_for_each(|branch| {
                let mut items: Vec<Node<Codes>> = items[..place]
                    .iter()
                    .cloned()
                    .chain(flat(branch))
                    .chain(items[place + 1..].iter().cloned())
                    .collect();
                items.retain(|item| *item != Node::Empty);
                let part = self.choose(&items, depth - 1)?;
                whole.subs.extend(part.subs);
                whole.cost += part.cost;
                Some(())
            });
            if split.is_some()
                && chosen
                    .as_ref()
                    .is_none_or(|chosen| whole.cost < 0.7 * chosen.cost)
            {
                chosen = Some(whole);
            }
        }
        chosen
    }

    /// Take the cheapest run of a concatenation.
    fn run(&self, items: &[Node<Codes>]) -> Option<Choice> {
        let mut best: Option<(f64, usize, usize, Vec<Text>)> = None;
        for first in 0..items.len() {
            let mut strings: Vec<Text> = vec![Vec::new()];
            for last in first..items.len() {
                let Some(more) = expand(&items[last], STRINGS) else {
                    break;
                };
                let Some(joined) = product(&strings, &more, STRINGS) else {
                    break;
                };
                strings = joined;
                let start = self.starts(items, first, &strings);
                let end = self.ends(items, last + 1, &strings);
                let Some(cost) = self.cost(&strings, start, end) else {
                    continue;
                };
                if best.as_ref().is_none_or(|best| cost < best.0) {
                    best = Some((cost, first, last + 1, strings.clone()));
                }
            }
        }
        let (cost, first, last, strings) = best?;
        if cost > USELESS {
            return None;
        }
        let start = self.starts(items, first, &strings);
        let end = self.ends(items, last, &strings);
        let strings = strings
            .into_iter()
            .map(|string| {
                let (at, window, _) = self.window(&string, start, end)?;
                Some((string, at, window))
            })
            .collect::<Option<Vec<_>>>()?;
        let sub = Sub {
            before: Program::new(&backward(&items[..first]), true),
            after: Program::new(&items[last..], false),
            strings,
            start,
        };
        Some(Choice {
            subs: vec![sub],
            cost,
        })
    }

    fn cost(&self, strings: &[Text], start: bool, end: bool) -> Option<f64> {
        let mut total = 0.0;
        for string in strings {
            total += self.window(string, start, end)?.2;
        }
        Some(if start { total } else { total * 1.5 })
    }

    /// The window by which a string is searched: its first codes, or its rarest ones where it may stand anywhere.
    fn window(
        &self,
        string: &Text,
        start: bool,
        end: bool,
    ) -> Option<(usize, [Codes; WINDOW], f64)> {
        let places = if start {
            0..1
        } else {
            0..string.len().saturating_sub(WINDOW - 1).max(1)
        };
        let mut best: Option<(usize, [Codes; WINDOW], f64)> = None;
        for at in places {
            let mut window = [Codes::MAX; WINDOW];
            for (place, codes) in window.iter_mut().enumerate() {
                match string.get(at + place) {
                    Some(set) => *codes = *set,
                    // Behind the end of a word stands no word, and what follows that is unknown.
                    None if end && at + place == string.len() => {
                        *codes = !self.word; // also the end of the text
                    }
                    None => {}
                }
            }
            let product: u64 = window
                .iter()
                .map(|codes| u64::from(codes.count_ones()))
                .product();
            if product == 0 || product > WINDOWS {
                continue;
            }
            let share = self.shares.get(window, start, self.model);
            if best.as_ref().is_none_or(|best| share < best.2) {
                best = Some((at, window, share));
            }
        }
        best
    }

    /// Say whether every string begins a word wherever it matches.
    fn starts(&self, items: &[Node<Codes>], first: usize, strings: &[Text]) -> bool {
        let words = strings
            .iter()
            .all(|string| string.first().is_some_and(|set| set & !self.word == 0));
        words && self.edge(items[..first].iter().rev(), true)
    }

    fn ends(&self, items: &[Node<Codes>], behind: usize, strings: &[Text]) -> bool {
        let words = strings
            .iter()
            .all(|string| string.last().is_some_and(|set| set & !self.word == 0));
        words && self.edge(items[behind..].iter(), false)
    }

    /// Say whether parts, from the nearest on, leave no word character beside them.
    fn edge<'n>(&self, items: impl Iterator<Item = &'n Node<Codes>>, before: bool) -> bool {
        for item in items {
            match item {
                Node::Empty => {}
                Node::Set(set) => return set & self.word == 0,
                Node::Look(look) => return *look != Look::NotBoundary,
                Node::Alternate(nodes) => {
                    return nodes.iter().all(|node| self.edge_of(node, before));
                }
                // What may be absent leaves it to what stands behind it.
                Node::Repeat(node, repeat) if self.edge_of(node, before) => {
                    if repeat.least > 0 {
                        return true;
                    }
                }
                Node::Concat(_) | Node::Repeat(..) => return false,
            }
        }
        false
    }

    fn edge_of(&self, node: &Node<Codes>, before: bool) -> bool {
        let parts = flat(node);
        let parts: &mut dyn Iterator<Item = &Node<Codes>> = if before {
            &mut parts.iter().rev()
        } else {
            &mut parts.iter()
        };
        self.edge(parts, before)
    }
}

/// The parts of a concatenation, groups without a repeat dissolved.
fn flat(node: &Node<Codes>) -> Vec<Node<Codes>> {
    match node {
        Node::Concat(nodes) => nodes.iter().flat_map(flat).collect(),
        Node::Empty => Vec::new(),
        _ => vec![node.clone()],
    }
}

/// Parts that are read backward, with the strings of an alternation told apart by their ends.
fn backward(items: &[Node<Codes>]) -> Vec<Node<Codes>> {
    let ends = |item: &Node<Codes>| match item {
        Node::Alternate(_) => expand(item, STRINGS).map(|strings| by_ends(&strings)),
        _ => None,
    };
    items
        .iter()
        .map(|item| ends(item).unwrap_or_else(|| item.clone()))
        .collect()
}

/// A tree of strings whose root is their last sign.
fn by_ends(strings: &[Text]) -> Node<Codes> {
    let mut groups: Vec<(Codes, Vec<Text>)> = Vec::new();
    let mut ways = Vec::new();
    for string in strings {
        let Some((&last, rest)) = string.split_last() else {
            ways.push(Node::Empty);
            continue;
        };
        match groups.iter_mut().find(|(codes, _)| *codes == last) {
            Some((_, group)) => group.push(rest.to_vec()),
            None => groups.push((last, vec![rest.to_vec()])),
        }
    }
    for (last, group) in groups {
        ways.push(match by_ends(&group) {
            Node::Empty => Node::Set(last),
            before => Node::Concat(vec![before, Node::Set(last)]),
        });
    }
    if ways.len() == 1 {
        return ways.remove(0);
    }
    Node::Alternate(ways)
}

/// The strings that a part stands for, if they are few.
fn expand(node: &Node<Codes>, most: usize) -> Option<Vec<Text>> {
    match node {
        Node::Empty => Some(vec![Vec::new()]),
        Node::Set(set) => Some(vec![vec![*set]]),
        Node::Concat(nodes) => {
            let mut strings = vec![Vec::new()];
            for node in nodes {
                strings = product(&strings, &expand(node, most)?, most)?;
            }
            Some(strings)
        }
        Node::Alternate(nodes) => {
            let mut strings = Vec::new();
            for node in nodes {
                strings.extend(expand(node, most)?);
                if strings.len() > most {
                    return None;
                }
            }
            Some(strings)
        }
        Node::Repeat(
            node,
            Repeat {
                least,
                most: Some(top),
                ..
            },
        ) if *top <= 8 => {
            let one = expand(node, most)?;
            let mut turn = vec![Vec::new()];
            let mut strings = Vec::new();
            for count in 0..=*top {
                if count >= *least {
                    strings.extend(turn.iter().cloned());
                }
                if strings.len() > most {
                    return None;
                }
                if count < *top {
                    turn = product(&turn, &one, most)?;
                }
            }
            Some(strings)
        }
        Node::Look(_) | Node::Repeat(..) => None,
    }
}

fn product(left: &[Text], right: &[Text], most: usize) -> Option<Vec<Text>> {
    if left.len() * right.len() > most {
        return None;
    }
    let mut out = Vec::with_capacity(left.len() * right.len());
    for head in left {
        for tail in right {
            let string: Text = head.iter().chain(tail).copied().collect();
            if string.len() > 64 {
                return None; // as far as one looks back in a text's margin
            }
            out.push(string);
        }
    }
    Some(out)
}

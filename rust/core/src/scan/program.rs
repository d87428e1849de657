//! A part of a rule as steps over codes, forward or backward, and the search that answers "does it match here?".
//!
//! Only whether it matches is asked, so the order in which the search tries things is free. It counts its steps; who
//! calls it gives up above a bound and asks an automaton instead, so that the whole stays linear.

use super::alphabet::Codes;
use super::plan::Plan;
use super::syntax::{Look, Node, Repeat};

/// Codes in front of a text and behind it in the buffer that programs run over.
pub(super) const MARGIN: usize = 64;

const EVERY: Codes = u64::MAX;
const NO_LIMIT: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Op {
    Set(Codes),
    Look(Look),
    /// As many codes of a set as there are, then go on behind any of them that `follow` allows.
    Many {
        set: Codes,
        least: u32,
        most: u32,
        follow: Codes,
    },
    /// Go on at any of these whose first set has the next code.
    Split(Box<[(Codes, u32)]>),
    Jump(u32),
    Match,
}

/// Steps in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Program {
    ops: Vec<Op>,
}

/// A text among codes. Before it and behind it stand codes that no set holds, and [`MARGIN`] codes more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Haystack<'a> {
    codes: &'a [u8],
    pub(super) begin: usize,
    pub(super) end: usize,
    last_word: u8,
    newline: u8,
}

impl<'a> Haystack<'a> {
    pub(super) fn new(plan: &Plan, codes: &'a [u8], (begin, end): (usize, usize)) -> Self {
        Self {
            codes,
            begin,
            end,
            last_word: plan.alphabet.last_word,
            newline: plan.alphabet.newline,
        }
    }
    fn is_word(&self, at: usize) -> bool {
        self.codes[at].wrapping_sub(1) < self.last_word
    }

    fn holds(&self, look: Look, at: usize) -> bool {
        match look {
            Look::Start => at == self.begin,
            Look::End => at == self.end || (at + 1 == self.end && self.codes[at] == self.newline),
            Look::Boundary => self.is_word(at - 1) != self.is_word(at),
            Look::NotBoundary => self.is_word(at - 1) == self.is_word(at),
        }
    }
}

fn has(set: Codes, code: u8) -> bool {
    set >> (code & 63) & 1 == 1
}

impl Program {
    /// Compile nodes that follow each other; `backward` reads the text from right to left.
    pub(super) fn new(nodes: &[Node<Codes>], backward: bool) -> Self {
        let mut compiler = Compiler {
            ops: Vec::new(),
            backward,
        };
        compiler.concat(nodes);
        compiler.ops.push(Op::Match);
        let mut program = Self { ops: compiler.ops };
        program.look_ahead();
        program
    }

    /// Say whether it matches from `at` on. Every step is taken from `fuel`; without any, the answer is meaningless.
    #[inline]
    pub(super) fn matches<const BACKWARD: bool>(
        &self,
        text: Haystack<'_>,
        at: usize,
        stack: &mut Vec<(u32, u32)>,
        fuel: &mut usize,
    ) -> bool {
        stack.clear();
        let (mut pc, mut at) = (0, at);
        let next = |at: usize| {
            if BACKWARD {
                text.codes[at - 1]
            } else {
                text.codes[at]
            }
        };
        let moved = |at: usize, by: usize| if BACKWARD { at - by } else { at + by };
        loop {
            if *fuel == 0 {
                return false;
            }
            *fuel -= 1;
            let on = match &self.ops[pc] {
                Op::Match => return true,
                Op::Set(set) => {
                    let fits = has(*set, next(at));
                    at = moved(at, 1);
                    fits
                }
                Op::Look(look) => text.holds(*look, at),
                Op::Jump(target) => {
                    pc = *target as usize;
                    continue;
                }
                Op::Many {
                    set,
                    least,
                    most,
                    follow,
                } => {
                    let mut count = 0;
                    let mut held = None;
                    loop {
                        if count >= *least
                            && has(*follow, next(at))
                            && let Some(held) = held.replace(at)
                        {
                            stack.push((index(pc + 1), index(held)));
                        }
                        if count == *most || !has(*set, next(at)) {
                            break;
                        }
                        at = moved(at, 1);
                        count += 1;
                    }
                    *fuel = fuel.saturating_sub(count as usize);
                    held.is_some_and(|held| {
                        at = held;
                        true
                    })
                }
                Op::Split(ways) => {
                    let code = next(at);
                    let mut way = None;
                    for (first, target) in ways {
                        if has(*first, code)
                            && let Some(before) = way.replace(*target)
                        {
                            stack.push((before, index(at)));
                        }
                    }
                    *fuel = fuel.saturating_sub(ways.len());
                    if let Some(way) = way {
                        pc = way as usize;
                        continue;
                    }
                    false
                }
            };
            if on {
                pc += 1;
            } else {
                let Some((back, place)) = stack.pop() else {
                    return false;
                };
                (pc, at) = (back as usize, place as usize);
            }
        }
    }

    /// Fill in what may follow each repeat and begin each way.
    fn look_ahead(&mut self) {
        let mut firsts: Vec<Option<Codes>> = vec![None; self.ops.len()];
        for pc in 0..self.ops.len() {
            let first = |target: usize, firsts: &mut Vec<Option<Codes>>| self.first(target, firsts);
            let op = match &self.ops[pc] {
                Op::Many {
                    set, least, most, ..
                } => {
                    let follow = first(pc + 1, &mut firsts);
                    Op::Many {
                        set: *set,
                        least: *least,
                        most: *most,
                        follow,
                    }
                }
                Op::Split(ways) => {
                    let ways = ways
                        .iter()
                        .map(|&(_, target)| (first(target as usize, &mut firsts), target));
                    Op::Split(ways.collect())
                }
                _ => continue,
            };
            self.ops[pc] = op;
        }
    }

    /// Return the codes with which a match from `pc` on may go on, everything where it may end.
    fn first(&self, pc: usize, known: &mut Vec<Option<Codes>>) -> Codes {
        // Programs are as deep as their ways: walk the straight parts in a loop.
        let mut codes = 0;
        let mut here = pc;
        loop {
            if let Some(found) = known[here] {
                codes |= found;
                break;
            }
            match &self.ops[here] {
                Op::Set(set) => {
                    codes |= set;
                    break;
                }
                Op::Many { set, least, .. } => {
                    codes |= set;
                    if *least > 0 {
                        break;
                    }
                    here += 1;
                }
                Op::Jump(target) => here = *target as usize,
                Op::Split(ways) => {
                    for &(_, target) in ways {
                        codes |= self.first(target as usize, known);
                    }
                    break;
                }
                Op::Look(_) | Op::Match => {
                    codes = EVERY;
                    break;
                }
            }
        }
        known[pc] = Some(codes);
        codes
    }
}

fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

struct Compiler {
    ops: Vec<Op>,
    backward: bool,
}

impl Compiler {
    fn concat(&mut self, nodes: &[Node<Codes>]) {
        if self.backward {
            for node in nodes.iter().rev() {
                self.node(node);
            }
        } else {
            for node in nodes {
                self.node(node);
            }
        }
    }

    fn node(&mut self, node: &Node<Codes>) {
        match node {
            Node::Empty => {}
            Node::Set(set) => self.ops.push(Op::Set(*set)),
            Node::Look(look) => self.ops.push(Op::Look(*look)),
            Node::Concat(nodes) => self.concat(nodes),
            Node::Alternate(nodes) => {
                let split = self.ops.len();
                self.ops.push(Op::Split(Box::default()));
                let mut ways = Vec::with_capacity(nodes.len());
                let mut exits = Vec::with_capacity(nodes.len());
                for node in nodes {
                    ways.push((EVERY, index(self.ops.len())));
                    self.node(node);
                    exits.push(self.ops.len());
                    self.ops.push(Op::Jump(0));
                }
                let end = index(self.ops.len());
                for exit in exits {
                    self.ops[exit] = Op::Jump(end);
                }
                self.ops[split] = Op::Split(ways.into());
            }
            Node::Repeat(node, repeat) => self.repeat(node, *repeat),
        }
    }

    fn repeat(&mut self, node: &Node<Codes>, repeat: Repeat) {
        if let Node::Set(set) = node {
            self.ops.push(Op::Many {
                set: *set,
                least: repeat.least,
                most: repeat.most.unwrap_or(NO_LIMIT),
                follow: EVERY,
            });
            return;
        }
        for _ in 0..repeat.least {
            self.node(node);
        }
        match repeat.most {
            None => {
                let split = self.ops.len();
                self.ops.push(Op::Split(Box::default()));
                self.node(node);
                self.ops.push(Op::Jump(index(split)));
                let end = index(self.ops.len());
                self.ops[split] = Op::Split([(EVERY, index(split + 1)), (EVERY, end)].into());
            }
            Some(most) => {
                let mut splits = Vec::new();
                for _ in repeat.least..most {
                    splits.push(self.ops.len());
                    self.ops.push(Op::Split(Box::default()));
                    self.node(node);
                }
                let end = index(self.ops.len());
                for split in splits {
                    self.ops[split] = Op::Split([(EVERY, index(split + 1)), (EVERY, end)].into());
                }
            }
        }
    }
}

//! What a pack becomes: rules that share an alphabet, each with all that is needed to find it.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::alphabet::{Alphabet, Codes, ROOM};
use super::automaton::{Automaton, Spelling};
use super::charset::CharSet;
use super::kernel::{Kernel, SLACK};
use super::pack::PackError;
use super::syntax::Node;

/// The rules of one alphabet.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) alphabet: Alphabet,
    spelling: Spelling,
    /// The rules, by their place in the pack.
    pub(super) rules: Vec<PlannedRule>,
}

/// A rule as a pack writes it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) node: Node<CharSet>,
    /// Whether it is made of lists, each a tree of letters.
    pub(super) trees: bool,
}

/// One rule of a plan.
#[derive(Debug)]
pub(super) struct PlannedRule {
    /// Its place in the pack.
    pub(super) id: u16,
    pub(super) node: Node<Codes>,
    /// Whether it is made of lists, each a tree of letters.
    pub(super) trees: bool,
    /// Built when it is first asked for: most rules never match anything.
    automaton: OnceLock<Automaton>,
}

impl Plan {
    /// Plan rules: one plan, or several if they tell more characters apart than one alphabet can. `name` names a rule.
    pub(super) fn all(
        nodes: &[Written],
        name: &dyn Fn(usize) -> String,
    ) -> Result<Vec<Self>, PackError> {
        let mut plans = Vec::new();
        let every: Vec<usize> = (0..nodes.len()).collect();
        if !every.is_empty() {
            split(nodes, name, &every, &mut plans)?;
        }
        Ok(plans)
    }

    fn new(nodes: &[Written], members: &[usize], alphabet: Alphabet) -> Self {
        // A pack has few different sets, and each of them many times.
        let mut known: HashMap<&CharSet, Codes> = HashMap::new();
        let rules = members
            .iter()
            .map(|&rule| PlannedRule {
                id: u16::try_from(rule).unwrap_or(u16::MAX), // a pack has fewer rules
                trees: nodes[rule].trees,
                node: nodes[rule]
                    .node
                    .map_sets(&mut |set| *known.entry(set).or_insert_with(|| alphabet.codes(set))),
                automaton: OnceLock::new(),
            })
            .collect();
        Self {
            spelling: Spelling::new(&alphabet),
            alphabet,
            rules,
        }
    }

    /// Return the automaton of a rule.
    pub(super) fn automaton<'a>(&'a self, rule: &'a PlannedRule) -> &'a Automaton {
        rule.automaton.get_or_init(|| {
            // The limits of a rule's size are far below those of an automaton.
            Automaton::new(&rule.node, &self.spelling)
                .unwrap_or_else(|error| unreachable!("{error}"))
        })
    }

    /// Return an ASCII character that every match of a rule has.
    pub(super) fn necessary(&self, node: &Node<Codes>) -> Option<u8> {
        match node {
            Node::Set(codes) => self.alphabet.sign(*codes),
            Node::Concat(nodes) => nodes.iter().find_map(|node| self.necessary(node)),
            Node::Repeat(node, repeat) if repeat.least > 0 => self.necessary(node),
            _ => None,
        }
    }

    /// Write the codes of a text.
    pub(super) fn encode(&self, kernel: Kernel, text: &[u8], codes: &mut Vec<u8>) {
        codes.clear();
        codes.resize(text.len() + SLACK, 0);
        let (count, _) = kernel.fill(&self.alphabet, text, codes);
        codes.truncate(count);
    }

    /// Write codes as the automata read them.
    pub(super) fn spell(&self, codes: &[u8], out: &mut Vec<u8>) {
        self.spelling.write(codes, out);
    }
}

/// Halve the rules until each part has room in an alphabet.
fn split(
    nodes: &[Written],
    name: &dyn Fn(usize) -> String,
    members: &[usize],
    plans: &mut Vec<Plan>,
) -> Result<(), PackError> {
    let mut sets: Vec<&CharSet> = Vec::new();
    for &rule in members {
        nodes[rule].node.sets(&mut sets);
    }
    if let Some(alphabet) = Alphabet::new(sets) {
        plans.push(Plan::new(nodes, members, alphabet));
        return Ok(());
    }
    if let [rule] = members {
        return Err(PackError::new(format!(
            "{} tells apart more than {ROOM} characters beyond ASCII letters, digits and white space: split it into rules with fewer, or write a range where any character of it will do",
            name(*rule)
        )));
    }
    let (left, right) = members.split_at(members.len() / 2);
    split(nodes, name, left, plans)?;
    split(nodes, name, right, plans)
}

//! Word lists that rules share, and the regex that a list becomes.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::charset::{self, CharSet};
use super::inflect::{Form, noun, verb};
use super::points;
use super::syntax::{Look, Node, Repeat};

/// The most forms of one list.
const FORMS: usize = 4096;

/// A list as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// Words and phrases as they stand.
    pub words: Vec<String>,
    /// Verbs, to be inflected.
    pub verbs: Vec<String>,
    /// Nouns, to be inflected.
    pub nouns: Vec<String>,
    /// Lists that belong to this one.
    pub include: Vec<String>,
    /// Forms that are left out again.
    pub without: Vec<String>,
}

impl List {
    /// Add what another list has.
    pub(super) fn add(&mut self, other: &Self) {
        self.words.extend_from_slice(&other.words);
        self.verbs.extend_from_slice(&other.verbs);
        self.nouns.extend_from_slice(&other.nouns);
        self.include.extend_from_slice(&other.include);
        self.without.extend_from_slice(&other.without);
    }
}

/// Every list with all its forms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists(BTreeMap<String, Vec<(String, Form)>>);

impl Lists {
    /// Generate the forms of every list; the error names the list that is wrong, and says how.
    pub(super) fn new(raw: &BTreeMap<String, List>) -> Result<Self, (String, String)> {
        let mut lists = Self::default();
        for name in raw.keys() {
            lists.resolve(name, raw, &mut Vec::new())?;
        }
        Ok(lists)
    }

    fn resolve(
        &mut self,
        name: &str,
        raw: &BTreeMap<String, List>,
        open: &mut Vec<String>,
    ) -> Result<(), (String, String)> {
        if self.0.contains_key(name) {
            return Ok(());
        }
        let list = &raw[name];
        let refuse = |problem: String| (name.to_owned(), problem);
        open.push(name.to_owned());
        let mut forms: Vec<(String, Form)> = Vec::new();
        for entry in &list.words {
            forms.push((entry.clone(), Form::Fixed));
        }
        for entry in &list.verbs {
            forms.extend(verb(entry));
        }
        for entry in &list.nouns {
            forms.extend(noun(entry));
        }
        for (form, _) in &mut forms {
            *form =
                tidy(form).map_err(|problem| refuse(format!("list `{name}` holds {problem}")))?;
        }
        for other in &list.include {
            if open.contains(other) {
                let circle = open.join("` includes `");
                return Err(refuse(format!(
                    "list `{circle}` includes `{other}`: break the circle"
                )));
            }
            if !raw.contains_key(other) {
                let near = nearest(other, raw.keys());
                return Err(refuse(format!(
                    "list `{name}` includes `{other}`, which is no list{near}"
                )));
            }
            self.resolve(other, raw, open)?;
            forms.extend(self.0[other].iter().cloned());
        }
        open.pop();
        let without: HashSet<String> = list
            .without
            .iter()
            .filter_map(|form| tidy(form).ok())
            .collect();
        for form in &without {
            if !forms.iter().any(|(other, _)| other == form) {
                return Err(refuse(format!(
                    "list `{name}` is to be without `{form}`, which it does not have: leave it out"
                )));
            }
        }
        let mut seen = HashSet::new();
        forms.retain(|entry| !without.contains(&entry.0) && seen.insert(entry.clone()));
        if forms.is_empty() {
            return Err(refuse(format!("list `{name}` has no words: give it some")));
        }
        if forms.len() > FORMS {
            return Err(refuse(format!(
                "list `{name}` has {} forms: keep it to {FORMS}, or split it",
                forms.len()
            )));
        }
        self.0.insert(name.to_owned(), forms);
        Ok(())
    }

    /// Return the forms of a list.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[(String, Form)]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Return the names of all lists, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Return the forms that alternatives such as `kill:base|hurt:base` stand for.
    pub(super) fn select(&self, alternatives: &str) -> Result<Vec<&str>, String> {
        let mut forms = Vec::new();
        for alternative in alternatives.split('|') {
            let (name, form) = match alternative.split_once(':') {
                None => (alternative, None),
                Some((name, form)) => {
                    let known = Form::from_name(form).ok_or_else(|| {
                        format!("`{alternative}` asks for the form `{form}`: use base, s, past, ing or plural")
                    })?;
                    (name, Some(known))
                }
            };
            let list = self
                .get(name)
                .ok_or_else(|| format!("`{name}` is no list{}", nearest(name, self.names())))?;
            let before = forms.len();
            let wanted = |kind: Form| kind == Form::Fixed || form.is_none_or(|form| form == kind);
            forms.extend(
                list.iter()
                    .filter(|(_, kind)| wanted(*kind))
                    .map(|(form, _)| form.as_str()),
            );
            if forms.len() == before {
                return Err(format!(
                    "`{alternative}` selects no word of the list: check the form"
                ));
            }
        }
        forms.sort_unstable();
        forms.dedup();
        Ok(forms)
    }
}

/// Say which known name is meant, if one is near.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let best = known.map(|other| (distance(name, other), other)).min();
    match best {
        Some((far, other)) if far <= 1 + name.len() / 3 => format!(": `{other}` is"),
        _ => ": write it, or check the name".to_owned(),
    }
}

fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let cost = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// A word in lower case with single blanks, if it begins and ends as a word does.
pub(super) fn tidy(form: &str) -> Result<String, String> {
    let words: Vec<&str> = form.split_whitespace().collect();
    let tidied = words.join(" ").replace('\u{2019}', "'").to_lowercase();
    let is_word = |char: char| points::is_word(points::kind(u32::from(char)));
    let mut ends = tidied.chars();
    let (first, last) = (ends.next(), ends.next_back());
    if first.is_none() {
        return Err("an empty word: leave it out".to_owned());
    }
    if !first.is_some_and(is_word) || !last.or(first).is_some_and(is_word) {
        return Err(format!(
            "`{form}`, which does not begin and end with a letter or a digit: use a pattern"
        ));
    }
    Ok(tidied)
}

/// Turns words into regexes; characters that were seen are kept.
#[derive(Default)]
pub(super) struct Speller {
    known: HashMap<char, Node<CharSet>>,
    slots: HashMap<String, Node<CharSet>>,
}

impl Speller {
    /// A list's forms as one tree of letters, so that words with a common beginning are told apart late.
    pub(super) fn tree(&mut self, forms: &[&str]) -> Node<CharSet> {
        let mut sorted: Vec<&str> = forms.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        self.branch(&sorted, 0)
    }

    /// What follows the first `depth` bytes, which all of these have in common.
    fn branch(&mut self, forms: &[&str], depth: usize) -> Node<CharSet> {
        let mut depth = depth;
        let mut parts = Vec::new();
        loop {
            let Some(&first) = forms.first() else {
                return Node::Empty;
            };
            let Some(char) = first[depth..].chars().next() else {
                // Sorted, so the one that ends here is the first; a longer one is tried before it.
                if forms.len() > 1 {
                    let rest = self.branch(&forms[1..], depth);
                    parts.push(Node::Alternate(vec![rest, Node::Empty]));
                }
                break;
            };
            if forms.iter().all(|form| form[depth..].starts_with(char)) {
                parts.push(self.char(char));
                depth += char.len_utf8();
                continue;
            }
            let mut ways = Vec::new();
            let mut from = 0;
            while from < forms.len() {
                let char = forms[from][depth..].chars().next();
                let same = forms[from..]
                    .iter()
                    .take_while(|form| form[depth..].chars().next() == char)
                    .count();
                ways.push(self.branch(&forms[from..from + same], depth));
                from += same;
            }
            parts.push(Node::Alternate(ways));
            break;
        }
        if parts.len() == 1 {
            parts.remove(0)
        } else {
            Node::Concat(parts)
        }
    }

    fn char(&mut self, char: char) -> Node<CharSet> {
        self.known
            .entry(char)
            .or_insert_with(|| match char {
                ' ' => Node::Repeat(
                    Box::new(Node::Set(CharSet::new(&[], charset::SPACE, false))),
                    turns(1, Some(2)),
                ),
                '\'' => Node::Set(CharSet::new(&[(0x27, 0x27), (0x2019, 0x2019)], 0, false)),
                '-' => Node::Repeat(
                    Box::new(Node::Set(CharSet::new(
                        &[(0x2D, 0x2D)],
                        charset::SPACE,
                        false,
                    ))),
                    turns(0, Some(1)),
                ),
                _ => Node::Set(CharSet::literal(u32::from(char))),
            })
            .clone()
    }

    /// The words of a slot between the edges of words; many rules have the same one.
    pub(super) fn slot(&mut self, name: &str, lists: &Lists) -> Result<Node<CharSet>, String> {
        if let Some(node) = self.slots.get(name) {
            return Ok(node.clone());
        }
        let node = self.bounded(&lists.select(name)?);
        self.slots.insert(name.to_owned(), node.clone());
        Ok(node)
    }

    /// The words of a list between the edges of words.
    pub(super) fn bounded(&mut self, forms: &[&str]) -> Node<CharSet> {
        Node::Concat(vec![
            Node::Look(Look::Boundary),
            self.tree(forms),
            Node::Look(Look::Boundary),
        ])
    }
}

pub(super) fn turns(least: u32, most: Option<u32>) -> Repeat {
    Repeat {
        least,
        most,
        greedy: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_its_forms_and_those_it_includes() {
        let raw = BTreeMap::from([
            (
                "a".to_owned(),
                List {
                    verbs: vec!["kill".into()],
                    include: vec!["b".into()],
                    ..List::default()
                },
            ),
            (
                "b".to_owned(),
                List {
                    words: vec!["Shoot  Dead".into()],
                    nouns: vec!["bomb".into()],
                    ..List::default()
                },
            ),
        ]);
        let lists = Lists::new(&raw).expect("fine");
        assert_eq!(lists.select("a:ing"), Ok(vec!["killing", "shoot dead"]));
        assert_eq!(
            lists.select("b:plural|a:base"),
            Ok(vec!["bomb", "bombs", "kill", "shoot dead"])
        );
        assert!(
            lists
                .select("c")
                .is_err_and(|problem| problem.contains("`c` is no list"))
        );
    }
}

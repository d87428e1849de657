//! From the text of a pattern to nodes over sets of code points: what is accepted, and what is refused and why.
//!
//! Patterns are parsed by `regex_syntax::ast` and translated here, because that crate's own translation means
//! something else than Python by `\w`, `\s`, `$` and by folding. What the two would read differently is refused.

use regex_syntax::ast::{self, Ast};

use super::charset::{self, CharSet};

/// How deep groups may nest.
const NESTING: u32 = 16;
/// The longest pattern, in bytes.
pub(super) const SOURCE: usize = 4096;
/// The largest number in a repeat.
pub(super) const REPEAT: u32 = 256;
/// The most nodes of a rule, repeats written out.
pub(super) const SIZE: usize = 4096;

/// A regex over sets of characters, or over sets of codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node<S> {
    Empty,
    Set(S),
    Look(Look),
    Concat(Vec<Node<S>>),
    Alternate(Vec<Node<S>>),
    Repeat(Box<Node<S>>, Repeat),
}

/// How often, and which end Python tries first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) least: u32,
    pub(super) most: Option<u32>,
    pub(super) greedy: bool,
}

/// What must hold between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Look {
    Start,
    /// The end, or before a newline that is the last character.
    End,
    Boundary,
    NotBoundary,
}

impl<S> Node<S> {
    /// Replace every set.
    pub(super) fn map_sets<'a, T>(&'a self, to: &mut impl FnMut(&'a S) -> T) -> Node<T> {
        match self {
            Self::Empty => Node::Empty,
            Self::Set(set) => Node::Set(to(set)),
            Self::Look(look) => Node::Look(*look),
            Self::Concat(nodes) => {
                Node::Concat(nodes.iter().map(|node| node.map_sets(to)).collect())
            }
            Self::Alternate(nodes) => {
                Node::Alternate(nodes.iter().map(|node| node.map_sets(to)).collect())
            }
            Self::Repeat(node, repeat) => Node::Repeat(Box::new(node.map_sets(to)), *repeat),
        }
    }

    /// Collect the sets.
    pub(super) fn sets<'a>(&'a self, into: &mut Vec<&'a S>) {
        match self {
            Self::Empty | Self::Look(_) => {}
            Self::Set(set) => into.push(set),
            Self::Concat(nodes) | Self::Alternate(nodes) => {
                for node in nodes {
                    node.sets(into);
                }
            }
            Self::Repeat(node, _) => node.sets(into),
        }
    }

    /// Return the fewest characters that a match has.
    pub(super) fn least(&self) -> usize {
        match self {
            Self::Empty | Self::Look(_) => 0,
            Self::Set(_) => 1,
            Self::Concat(nodes) => nodes.iter().map(Self::least).fold(0, usize::saturating_add),
            Self::Alternate(nodes) => nodes.iter().map(Self::least).min().unwrap_or(0),
            Self::Repeat(node, repeat) => node.least().saturating_mul(repeat.least as usize),
        }
    }

    /// Return the number of nodes with repeats written out.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Empty | Self::Set(_) | Self::Look(_) => 1,
            Self::Concat(nodes) | Self::Alternate(nodes) => {
                nodes.iter().map(Self::size).fold(1, usize::saturating_add)
            }
            Self::Repeat(node, repeat) => {
                let copies = repeat.most.unwrap_or(repeat.least + 1).max(1) as usize;
                match **node {
                    Self::Set(_) => 1 + copies / 8, // a gap is one step, but its automaton has a state for each
                    _ => node.size().saturating_mul(copies).saturating_add(1),
                }
            }
        }
    }
}

/// Parse a pattern; the error says what to write instead.
pub(super) fn parse(pattern: &str, dot_matches_newline: bool) -> Result<Node<CharSet>, String> {
    if pattern.len() > SOURCE {
        return Err(format!(
            "has {} bytes: write at most {SOURCE}, or split it into two rules",
            pattern.len()
        ));
    }
    let pattern = pattern.strip_prefix("(?i)").unwrap_or(pattern); // it always holds
    let parsed = ast::parse::ParserBuilder::new()
        .nest_limit(NESTING)
        .build()
        .parse(pattern)
        .map_err(|error| refusal(&error, pattern))?;
    let node = Translator {
        pattern,
        dot_matches_newline,
    }
    .node(&parsed)?;
    finished(node)
}

/// A word or a phrase: its characters, with boundaries, and any white space where it has a blank.
pub(super) fn words(entries: &[String]) -> Result<Node<CharSet>, String> {
    let mut alternatives = Vec::with_capacity(entries.len());
    for entry in entries {
        let parts: Vec<&str> = entry.split_whitespace().collect();
        let (Some(first), Some(last)) = (
            entry.trim().chars().next(),
            entry.trim().chars().next_back(),
        ) else {
            return Err("holds an empty word: leave it out".to_owned());
        };
        let mut nodes = Vec::new();
        if is_word(first) {
            nodes.push(Node::Look(Look::Boundary));
        }
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                let space = Node::Set(CharSet::new(&[], charset::SPACE, false));
                let repeat = Repeat {
                    least: 1,
                    most: None,
                    greedy: true,
                };
                nodes.push(Node::Repeat(Box::new(space), repeat));
            }
            nodes.extend(
                part.chars()
                    .map(|char| Node::Set(CharSet::literal(u32::from(char)))),
            );
        }
        if is_word(last) {
            nodes.push(Node::Look(Look::Boundary));
        }
        alternatives.push(Node::Concat(nodes));
    }
    Ok(Node::Alternate(alternatives))
}

fn is_word(char: char) -> bool {
    super::points::is_word(super::points::kind(u32::from(char)))
}

fn finished(node: Node<CharSet>) -> Result<Node<CharSet>, String> {
    let size = node.size();
    if size > SIZE {
        return Err(format!(
            "has {size} parts when its repeats are written out: keep it to {SIZE}, or split it into two rules"
        ));
    }
    if node.least() == 0 {
        return Err(
            "can match nothing, and so it would match everywhere: make one part of it necessary"
                .to_owned(),
        );
    }
    Ok(node)
}

/// Say in a line what the parser found.
fn refusal(error: &ast::Error, pattern: &str) -> String {
    use ast::ErrorKind::{NestLimitExceeded, UnsupportedBackreference, UnsupportedLookAround};
    let span = error.span();
    let shown = pattern.get(span.start.offset..).unwrap_or("");
    let shown: String = shown.chars().take(12).collect();
    match error.kind() {
        UnsupportedLookAround => format!(
            "has a look-around at `{shown}`: it cannot be matched in linear time; write the words it looks for as part of the pattern, or exclude them by another rule"
        ),
        UnsupportedBackreference => format!(
            "has a back-reference at `{shown}`: it cannot be matched in linear time; write its alternatives out (a character by its number is `\\x07`)"
        ),
        NestLimitExceeded(limit) => format!("nests groups deeper than {limit}: flatten it"),
        kind => format!(
            "cannot be read at character {}, `{shown}`: {kind}",
            span.start.column
        ),
    }
}

struct Translator<'a> {
    pattern: &'a str,
    dot_matches_newline: bool,
}

impl Translator<'_> {
    fn text(&self, span: &ast::Span) -> &str {
        self.pattern
            .get(span.start.offset..span.end.offset)
            .unwrap_or("")
    }

    fn no<T>(&self, span: &ast::Span, remedy: &str) -> Result<T, String> {
        Err(format!("has `{}`: {remedy}", self.text(span)))
    }

    fn node(&self, tree: &Ast) -> Result<Node<CharSet>, String> {
        Ok(match tree {
            Ast::Empty(_) => Node::Empty,
            Ast::Flags(set) => {
                return self.no(
                    &set.span,
                    "case never matters here, and other flags are keys of the rule",
                );
            }
            Ast::Literal(literal) => Node::Set(CharSet::literal(self.literal(literal)?)),
            Ast::Dot(_) => {
                let newline: &[(u32, u32)] = if self.dot_matches_newline {
                    &[]
                } else {
                    &[(10, 10)]
                };
                Node::Set(CharSet::new(newline, 0, true))
            }
            Ast::Assertion(assertion) => Node::Look(self.look(assertion)?),
            Ast::ClassUnicode(class) => {
                return self.no(&class.span, "write the characters as ranges, as in `[а-я]`");
            }
            Ast::ClassPerl(class) => Node::Set(CharSet::new(&[], kind(class), false)),
            Ast::ClassBracketed(class) => Node::Set(self.class(class)?),
            Ast::Repetition(repetition) => self.repetition(repetition)?,
            Ast::Group(group) => self.group(group)?,
            Ast::Alternation(alternation) => {
                let nodes = alternation.asts.iter().map(|tree| self.node(tree));
                Node::Alternate(nodes.collect::<Result<_, _>>()?)
            }
            Ast::Concat(concat) => {
                let nodes = concat.asts.iter().map(|tree| self.node(tree));
                Node::Concat(nodes.collect::<Result<_, _>>()?)
            }
        })
    }

    fn group(&self, group: &ast::Group) -> Result<Node<CharSet>, String> {
        match &group.kind {
            ast::GroupKind::CaptureName {
                starts_with_p: false,
                ..
            } => {
                return self.no(&group.span, "name a group as `(?P<name>...)`");
            }
            ast::GroupKind::NonCapturing(flags) if !flags.items.is_empty() => {
                return self.no(&group.span, "flags hold for a whole rule: use its keys");
            }
            _ => {}
        }
        // A group keeps its own node, so that a repeat repeats all of it.
        self.node(&group.ast)
    }

    fn look(&self, assertion: &ast::Assertion) -> Result<Look, String> {
        use ast::AssertionKind::{EndLine, NotWordBoundary, StartLine, StartText, WordBoundary};
        Ok(match assertion.kind {
            StartLine | StartText => Look::Start,
            EndLine => Look::End,
            WordBoundary => Look::Boundary,
            NotWordBoundary => Look::NotBoundary,
            _ => {
                return self.no(
                    &assertion.span,
                    "use `\\b` for the edge of a word, `^` and `$` for those of the text",
                );
            }
        })
    }

    fn literal(&self, literal: &ast::Literal) -> Result<u32, String> {
        use ast::LiteralKind::{HexBrace, Octal};
        match literal.kind {
            HexBrace(_) | Octal => {
                self.no(&literal.span, "write `\\x41`, `\\u0041` or `\\U00000041`")
            }
            _ => Ok(u32::from(literal.c)),
        }
    }

    fn repetition(&self, repetition: &ast::Repetition) -> Result<Node<CharSet>, String> {
        use ast::RepetitionKind::{OneOrMore, Range, ZeroOrMore, ZeroOrOne};
        use ast::RepetitionRange::{AtLeast, Bounded, Exactly};
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return self.no(&repetition.span, "a repeat of a repeat means something else elsewhere: put the inner one in `(?:...)`");
        }
        let (least, most) = match &repetition.op.kind {
            ZeroOrOne => (0, Some(1)),
            ZeroOrMore => (0, None),
            OneOrMore => (1, None),
            Range(Exactly(count)) => (*count, Some(*count)),
            Range(AtLeast(count)) => (*count, None),
            Range(Bounded(least, most)) => (*least, Some(*most)),
        };
        if least > REPEAT || most.is_some_and(|most| most > REPEAT) {
            return self.no(
                &repetition.op.span,
                &format!("a repeat goes up to {REPEAT}"),
            );
        }
        if self.text(&repetition.op.span).starts_with("{,") {
            return self.no(&repetition.op.span, "write the lower bound, as in `{0,n}`");
        }
        let node = self.node(&repetition.ast)?;
        if node.least() == 0 && most != Some(1) {
            return self.no(
                &repetition.span,
                "it repeats what can match nothing: let each turn match something",
            );
        }
        if matches!(*repetition.ast, Ast::Assertion(_)) {
            return self.no(&repetition.span, "there is nothing to repeat");
        }
        let repeat = Repeat {
            least,
            most,
            greedy: repetition.greedy,
        };
        Ok(Node::Repeat(Box::new(node), repeat))
    }

    fn class(&self, class: &ast::ClassBracketed) -> Result<CharSet, String> {
        let mut ranges = Vec::new();
        let mut kinds = 0;
        match &class.kind {
            ast::ClassSet::Item(item) => self.item(item, &mut ranges, &mut kinds)?,
            ast::ClassSet::BinaryOp(operation) => {
                return self.no(
                    &operation.span,
                    "sets cannot be combined: escape the signs as in `\\&\\&`",
                );
            }
        }
        Ok(CharSet::new(&ranges, kinds, class.negated))
    }

    fn item(
        &self,
        item: &ast::ClassSetItem,
        ranges: &mut Vec<(u32, u32)>,
        kinds: &mut u8,
    ) -> Result<(), String> {
        use ast::ClassSetItem::{Ascii, Bracketed, Empty, Literal, Perl, Range, Unicode, Union};
        match item {
            Empty(_) => {}
            Literal(literal) => {
                let point = self.literal(literal)?;
                ranges.push((point, point));
            }
            Range(range) => ranges.push((self.literal(&range.start)?, self.literal(&range.end)?)),
            Perl(class) => *kinds |= kind(class),
            Union(union) => {
                for item in &union.items {
                    self.item(item, ranges, kinds)?;
                }
            }
            Ascii(class) => return self.no(&class.span, "write the characters as ranges"),
            Unicode(class) => {
                return self.no(&class.span, "write the characters as ranges, as in `[а-я]`");
            }
            Bracketed(class) => {
                return self.no(&class.span, "escape a bracket inside a class as `\\[`");
            }
        }
        Ok(())
    }
}

fn kind(class: &ast::ClassPerl) -> u8 {
    use ast::ClassPerlKind::{Digit, Space, Word};
    match (&class.kind, class.negated) {
        (Word, false) => charset::WORD,
        (Word, true) => charset::NOT_WORD,
        (Digit, false) => charset::DIGIT,
        (Digit, true) => charset::NOT_DIGIT,
        (Space, false) => charset::SPACE,
        (Space, true) => charset::NOT_SPACE,
    }
}

//! What stands around a finding: words that take it back, and frames that lower it.

use super::decode::decode;
use super::engine::Engine;
use super::kernel::Kernel;
use super::pack::{Frame, Pack, PackError, Side};
use super::plan::Plan;
use super::points;
use super::scanner::{FINDINGS, Scratch};

/// The frames and exclusions of a pack, ready to be found in a text that has findings.
#[derive(Debug)]
pub(super) struct Surroundings {
    plans: Vec<(Plan, Engine)>,
    kernel: Kernel,
    count: usize,
}

/// A stretch of a reading, in code points.
pub(super) type Span = (usize, usize);

impl Surroundings {
    pub(super) fn new(pack: &Pack, kernel: Kernel) -> Result<Self, PackError> {
        let name = |place: usize| match pack.frames().get(place) {
            Some(frame) => format!("frame `{}`", frame.id),
            None => "`exclude` of a rule".to_owned(),
        };
        let plans = Plan::all(pack.contexts(), &name)?.into_iter().map(|plan| {
            let engine = Engine::new(&plan, kernel);
            (plan, engine)
        });
        Ok(Self {
            plans: plans.collect(),
            kernel,
            count: pack.contexts().len(),
        })
    }

    /// Find every context in a reading: for each the stretches where it stands.
    pub(super) fn find(&self, reading: &[u8], scratch: &mut Scratch) -> Vec<Vec<Span>> {
        let mut found = vec![Vec::new(); self.count];
        for (plan, engine) in &self.plans {
            engine.scan(plan, &[reading], &mut scratch.work);
            if scratch.work.hits.is_empty() {
                continue;
            }
            plan.encode(self.kernel, reading, &mut scratch.codes);
            plan.spell(&scratch.codes, &mut scratch.spelled);
            for rule in &plan.rules {
                if !scratch.work.hits.iter().any(|&(_, hit)| hit == rule.id) {
                    continue;
                }
                let automaton = plan.automaton(rule);
                let mut from = 0;
                while let Some((start, end)) = automaton.find(&scratch.spelled, from) {
                    let spans = &mut found[usize::from(rule.id)];
                    spans.push((start, end));
                    from = end;
                    if spans.len() >= FINDINGS {
                        break;
                    }
                }
            }
        }
        found
    }
}

/// A reading of a text, with the byte of each of its characters.
pub(super) struct Reading<'a> {
    pub(super) bytes: &'a [u8],
    /// Nothing if every character has one byte.
    offsets: Option<Vec<usize>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let offsets = (!bytes.is_ascii()).then(|| {
            let (mut at, mut offsets) = (0, Vec::with_capacity(bytes.len()));
            while at < bytes.len() {
                offsets.push(at);
                at += decode(&bytes[at..]).1;
            }
            offsets.push(at);
            offsets
        });
        Self { bytes, offsets }
    }

    /// The byte at which a character begins.
    pub(super) fn at(&self, point: usize) -> usize {
        let at = self.offsets.as_ref().map_or(point, |offsets| {
            offsets.get(point).copied().unwrap_or(self.bytes.len())
        });
        at.min(self.bytes.len())
    }

    /// The bytes of a stretch.
    pub(super) fn text(&self, (start, end): Span) -> &'a [u8] {
        let (start, end) = (self.at(start), self.at(end));
        self.bytes.get(start..end.max(start)).unwrap_or_default()
    }

    /// A stretch without the signs before its first word.
    pub(super) fn trimmed(&self, (start, end): Span) -> Span {
        let mut start = start;
        let mut rest = self.text((start, end));
        while !rest.is_empty() {
            let (point, length) = decode(rest);
            if points::is_word(points::kind(point.min(points::LAST))) {
                break;
            }
            rest = &rest[length..];
            start += 1;
        }
        (start, end)
    }

    /// Say whether so few words stand between two stretches, and no end of a sentence.
    fn near(&self, first: Span, second: Span, window: usize) -> bool {
        let gap = self.text((first.1, second.0));
        let is_word = |byte: u8| {
            byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'\'' || byte >= 0x80
        };
        let (mut words, mut inside) = (0, false);
        for (place, &byte) in gap.iter().enumerate() {
            let next = gap.get(place + 1);
            let blank = next.is_some_and(u8::is_ascii_whitespace);
            if (matches!(byte, b'.' | b'!' | b'?') && blank)
                || (byte == b'\n' && next == Some(&b'\n'))
            {
                return false;
            }
            if is_word(byte) && !inside {
                words += 1;
                if words > window {
                    return false;
                }
            }
            inside = is_word(byte);
        }
        true
    }

    /// Say whether a word stands within a finding or so near it that it takes it back.
    pub(super) fn excludes(&self, word: Span, finding: Span, window: usize) -> bool {
        self.around(word, finding, window, Side::Around)
    }

    /// Say whether a frame at a stretch holds for a finding.
    pub(super) fn frames(&self, cue: Span, finding: Span, frame: &Frame) -> bool {
        frame.anywhere || self.around(cue, finding, frame.window, frame.side)
    }

    fn around(&self, cue: Span, finding: Span, window: usize, side: Side) -> bool {
        if cue.1 <= finding.0 {
            side != Side::After && self.near(cue, finding, window)
        } else if cue.0 >= finding.1 {
            side != Side::Before && self.near(finding, cue, window)
        } else {
            match side {
                Side::Around => true,
                Side::Before => cue.0 <= finding.0,
                Side::After => cue.1 >= finding.1,
            }
        }
    }
}

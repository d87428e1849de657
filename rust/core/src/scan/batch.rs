//! Many texts at once: chunks, threads, and a result that does not depend on either.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::judge::Judge;
use super::scanner::Scratch;

/// A chunk ends behind the text with which it has this many bytes.
const CHUNK: usize = 256 << 10;
/// Less than this is not worth a thread.
const WORTH_THREADS: usize = 1 << 20;
/// How often the calling thread asks whether to go on.
const PATIENCE: Duration = Duration::from_millis(50);

/// The rules of each text, one list behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// Text `i` has the rules `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<i64>,
    /// Rules by their place in the pack, ascending within a text.
    pub rules: Vec<u16>,
    /// Whether each text is flagged.
    pub flagged: Vec<bool>,
    /// Texts in which a word of the subtle score stands, and no rule matches.
    pub subtle: Vec<usize>,
    /// Texts that are not UTF-8, ascending; a surrogate is not.
    pub malformed: Vec<usize>,
}

impl Rows {
    /// Put rules into the row of a text that has none.
    pub fn insert(&mut self, text: usize, rules: impl IntoIterator<Item = u16>, flagged: bool) {
        if let Some(flag) = self.flagged.get_mut(text) {
            *flag = flagged;
        }
        let at = self
            .offsets
            .get(text)
            .map_or(0, |&at| usize::try_from(at).unwrap_or(0));
        let before = self.rules.len();
        self.rules.splice(at..at, rules);
        let more = place(self.rules.len() - before);
        self.offsets
            .iter_mut()
            .skip(text + 1)
            .for_each(|offset| *offset += more);
    }

    /// Return the rules of one text.
    #[must_use]
    pub fn row(&self, text: usize) -> &[u16] {
        let at = |text: usize| {
            self.offsets
                .get(text)
                .map_or(0, |&at| usize::try_from(at).unwrap_or(0))
        };
        self.rules.get(at(text)..at(text + 1)).unwrap_or_default()
    }

    /// Add the rules of one text behind the others.
    pub fn push(&mut self, rules: &[u16], flagged: bool) {
        self.flagged.push(flagged);
        self.rules.extend_from_slice(rules);
        self.offsets.push(place(self.rules.len()));
    }

    /// Add the texts of another list.
    pub fn append(&mut self, other: &Self) {
        let before = place(self.rules.len());
        let first = self.offsets.len() - 1;
        let malformed = other.malformed.iter().map(|text| first + text);
        self.malformed.extend(malformed);
        self.offsets
            .extend(other.offsets.iter().skip(1).map(|offset| before + offset));
        self.rules.extend_from_slice(&other.rules);
        let texts = self.flagged.len();
        self.flagged.extend_from_slice(&other.flagged);
        self.subtle
            .extend(other.subtle.iter().map(|text| texts + text));
    }

    fn of(judge: &Judge, texts: &[&[u8]], scratch: &mut Scratch) -> Self {
        let mut rows = Self {
            offsets: Vec::with_capacity(texts.len()),
            flagged: Vec::with_capacity(texts.len()),
            ..Self::default()
        };
        let (mut second, mut hits) = (Scratch::default(), Vec::new());
        let all = judge.scanner().all(texts, scratch);
        for of_text in all.chunk_by(|one, next| one.0 == next.0) {
            let text = of_text[0].0;
            // The texts between this one and the one before have nothing.
            rows.offsets.resize(text, place(rows.rules.len()));
            rows.flagged.resize(text, false);
            hits.clear();
            hits.extend(of_text.iter().map(|&(_, hit)| hit));
            let (found, flagged) = judge.row(texts[text], &hits, &mut second);
            if found.is_empty() {
                rows.subtle.push(text);
            }
            rows.flagged.push(flagged);
            rows.rules.extend(found);
            rows.offsets.push(place(rows.rules.len()));
        }
        rows.offsets.resize(texts.len(), place(rows.rules.len()));
        rows.flagged.resize(texts.len(), false);
        rows.malformed.extend_from_slice(scratch.malformed());
        rows
    }
}

fn place(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Scan texts on some threads; `None` if `proceed` said no, which the calling thread asks every 50 ms.
///
/// The result is that of one thread, byte for byte.
pub fn scan(
    judge: &Judge,
    texts: &[&[u8]],
    threads: usize,
    mut proceed: impl FnMut() -> bool,
) -> Option<Rows> {
    let chunks = chunks(texts);
    let total: usize = texts.iter().map(|text| text.len()).sum();
    let threads = if total < WORTH_THREADS {
        1
    } else {
        threads.clamp(1, chunks.len().max(1))
    };
    let stop = AtomicBool::new(false);
    let next = AtomicUsize::new(0);
    let parts: Mutex<Vec<Option<Rows>>> = Mutex::new(vec![None; chunks.len()]);
    // Each thread takes the next chunk; only the calling one may ask, as only it can hold Python's lock.
    let work = |ask: &mut dyn FnMut() -> bool| {
        let mut scratch = Scratch::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(number) else {
                break;
            };
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let rows = Rows::of(judge, &texts[chunk.clone()], &mut scratch);
            parts.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(rows);
            if !ask() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(&mut || true));
        }
        let mut asked = Instant::now();
        work(&mut || {
            if asked.elapsed() < PATIENCE {
                return true;
            }
            asked = Instant::now();
            proceed()
        });
    });
    if stop.load(Ordering::Relaxed) {
        return None;
    }
    let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut rows = Rows {
        offsets: Vec::with_capacity(texts.len() + 1),
        flagged: Vec::with_capacity(texts.len()),
        ..Rows::default()
    };
    rows.offsets.push(0);
    for part in parts.into_iter().flatten() {
        let before = place(rows.rules.len());
        let first = rows.offsets.len() - 1;
        let malformed = part.malformed.iter().map(|text| first + text);
        rows.malformed.extend(malformed);
        rows.offsets
            .extend(part.offsets.iter().map(|offset| before + offset));
        rows.rules.extend(part.rules);
        let first = rows.flagged.len();
        rows.subtle
            .extend(part.subtle.iter().map(|text| first + text));
        rows.flagged.extend(part.flagged);
    }
    Some(rows)
}

/// Ranges of texts with about [`CHUNK`] bytes each.
fn chunks(texts: &[&[u8]]) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut first, mut size) = (0, 0);
    for (place, text) in texts.iter().enumerate() {
        size += text.len() + 1;
        if size >= CHUNK || place + 1 == texts.len() {
            chunks.push(first..place + 1);
            (first, size) = (place + 1, 0);
        }
    }
    chunks
}

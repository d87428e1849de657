//! A fingerprint of everything that a pack holds.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::pack::{Parts, Source};

struct Fields(Sha256);

impl Fields {
    /// Each field with its length, so that no two packs write the same.
    fn add(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn list<T: AsRef<str>>(&mut self, items: &[T]) {
        self.add(&items.len().to_string());
        for item in items {
            self.add(item.as_ref());
        }
    }
}

/// SHA-256 over every field of every rule, list and frame, but not over where they are written.
pub(super) fn hash(parts: &Parts) -> String {
    let mut fields = Fields(Sha256::new());
    for text in [&parts.name, &parts.version, &parts.notes] {
        fields.add(text);
    }
    fields.add(parts.flag_at.name());
    for rule in &parts.rules {
        let severity = rule.severity.name().to_owned();
        for text in [
            &rule.id,
            &rule.category,
            &rule.family,
            &rule.intent,
            &severity,
            &rule.language,
            &rule.since,
            &rule.notes,
        ] {
            fields.add(text);
        }
        fields.add(rule.kind.name());
        fields.add(if rule.dot_matches_newline {
            "dotall"
        } else {
            ""
        });
        fields.add(rule.source.key());
        match &rule.source {
            Source::Pattern(pattern) => fields.add(pattern),
            Source::Patterns(all) | Source::Words(all) => fields.list(all),
            Source::Slots(slots) => {
                fields.add(&slots.orders.len().to_string());
                for order in &slots.orders {
                    fields.list(order);
                }
                fields.add(&slots.gaps.len().to_string());
                for gaps in &slots.gaps {
                    fields.list(&gaps.iter().map(u32::to_string).collect::<Vec<_>>());
                }
            }
        }
        for list in [
            &rule.exclude,
            &rule.exclude_patterns,
            &rule.matches,
            &rule.misses,
        ] {
            fields.list(list);
        }
        fields.add(&rule.exclude_window.to_string());
        fields.add(rule.validate.map_or("", super::check::Check::name));
        fields.add(if rule.frames.is_some() {
            "frames"
        } else {
            "all frames"
        });
        fields.list(rule.frames.as_deref().unwrap_or_default());
        fields.add(&rule.weight.to_bits().to_string());
    }
    for frame in &parts.frames {
        fields.add("frame");
        fields.add(&frame.id);
        fields.add(&frame.notes);
        for list in [&frame.words, &frame.lists, &frame.patterns] {
            fields.list(list);
        }
        let numbers = format!(
            "{} {} {:?} {}",
            frame.lowers, frame.window, frame.side, frame.anywhere
        );
        fields.add(&numbers);
    }
    for name in parts.lists.names() {
        fields.add("list");
        fields.add(name);
        for (form, kind) in parts.lists.get(name).unwrap_or_default() {
            fields.add(form);
            fields.add(kind.name());
        }
    }
    fields.add(&parts.subtle.threshold.to_bits().to_string());
    for (lemma, weight, forms) in &parts.subtle.lemmas {
        fields.add(lemma);
        fields.add(&weight.to_bits().to_string());
        fields.list(forms);
    }
    fields
        .0
        .finalize()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

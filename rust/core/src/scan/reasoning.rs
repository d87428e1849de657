//! A verdict in a sentence: made from what was found, so it cannot say anything else.

use std::collections::BTreeMap;

use super::judge::Verdict;
use super::pack::{Kind, Pack, Severity};

/// What is said of a text in which nothing was found.
const NOTHING: &str = "no rule matches";
/// The rules of a category that are named.
const SHOWN: usize = 3;

/// Return the worst severity that was found.
#[must_use]
pub fn worst(verdict: &Verdict) -> Option<Severity> {
    verdict.found.iter().map(|one| one.severity).max()
}

/// Return the categories that were found, in alphabetical order.
#[must_use]
pub fn categories<'a>(pack: &'a Pack, verdict: &Verdict) -> Vec<&'a str> {
    let mut all: Vec<&str> = verdict
        .found
        .iter()
        .map(|one| pack.rules()[usize::from(one.rule)].category.as_str())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Say what was found: the worst severity, each category with its rules, and what changes the reading of it.
#[must_use]
pub fn reasoning(pack: &Pack, verdict: &Verdict) -> String {
    let together = verdict.subtle > pack.subtle().threshold;
    let suspicious = format!(
        "words that are suspicious together (score {:.2})",
        verdict.subtle
    );
    let Some(worst) = worst(verdict) else {
        return if together {
            suspicious
        } else {
            NOTHING.to_owned()
        };
    };
    let mut by_category: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut frames: Vec<&str> = Vec::new();
    let mut help = false;
    for one in &verdict.found {
        let rule = &pack.rules()[usize::from(one.rule)];
        let rules = by_category.entry(&rule.category).or_default();
        if !rules.contains(&rule.id.as_str()) {
            rules.push(&rule.id);
        }
        help |= rule.kind == Kind::Help;
        if one.severity < rule.severity {
            frames.extend(
                one.frames
                    .iter()
                    .map(|&frame| pack.frames()[usize::from(frame)].id.as_str()),
            );
        }
    }
    let parts: Vec<String> = by_category
        .iter()
        .map(|(category, rules)| {
            let shown: Vec<String> = rules
                .iter()
                .take(SHOWN)
                .map(|rule| format!("`{rule}`"))
                .collect();
            let more = rules.len().saturating_sub(SHOWN);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("{category} ({}{more})", shown.join(", "))
        })
        .collect();
    let mut said = format!("{}: {}", worst.name(), parts.join("; "));
    frames.sort_unstable();
    frames.dedup();
    if !frames.is_empty() {
        said.push_str("; lowered by ");
        said.push_str(&frames.join(", "));
    }
    if verdict.found.iter().all(|one| one.obfuscated) {
        said.push_str("; written so as to hide it");
    }
    if together {
        said.push_str("; ");
        said.push_str(&suspicious);
    }
    if help {
        said.push_str(
            "; someone may be seeking help: answer with care, and point to people who can give it",
        );
    }
    said
}

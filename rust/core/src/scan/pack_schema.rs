//! The TOML of a pack, as serde reads it: every key there is, and nothing else.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::pack::{Kind, Severity};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) pack: RawHeader,
    #[serde(default)]
    pub(super) lists: BTreeMap<Spanned<String>, RawList>,
    #[serde(default)]
    pub(super) rule: Vec<Spanned<RawRule>>,
    #[serde(default)]
    pub(super) frame: Vec<Spanned<RawFrame>>,
    pub(super) subtle: Option<RawSubtle>,
    #[serde(default)]
    pub(super) disable: RawDisable,
    #[serde(default, rename = "override")]
    pub(super) overrides: BTreeMap<Spanned<String>, RawOverride>,
}

/// One of something, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHeader {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) extends: Option<Spanned<OneOrMany<String>>>,
    pub(super) flag_at: Option<Severity>,
    #[serde(default)]
    pub(super) language: String,
    #[serde(default)]
    pub(super) notes: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawList {
    pub(super) words: Vec<String>,
    pub(super) verbs: Vec<String>,
    pub(super) nouns: Vec<String>,
    pub(super) include: Vec<String>,
    pub(super) without: Vec<String>,
    pub(super) add: bool,
}

/// Gaps: one number for all, one for each joint, or a list for each order.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawGaps {
    One(u32),
    All(Vec<u32>),
    Each(Vec<Vec<u32>>),
}

impl RawGaps {
    pub(super) fn into_vec(self) -> Vec<Vec<u32>> {
        match self {
            Self::One(gap) => vec![vec![gap]],
            Self::All(gaps) => vec![gaps],
            Self::Each(orders) => orders,
        }
    }
}

/// Slots in one order, or several orders.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum RawSlots {
    One(Vec<String>),
    Many(Vec<Vec<String>>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) id: Spanned<String>,
    pub(super) category: String,
    #[serde(default)]
    pub(super) family: String,
    #[serde(default)]
    pub(super) intent: String,
    #[serde(default)]
    pub(super) severity: Severity,
    #[serde(default)]
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) language: String,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) patterns: Option<Spanned<Vec<String>>>,
    pub(super) words: Option<Spanned<Vec<String>>>,
    pub(super) slots: Option<Spanned<RawSlots>>,
    pub(super) gaps: Option<Spanned<RawGaps>>,
    #[serde(default)]
    pub(super) flags: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) exclude: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) exclude_patterns: Vec<Spanned<String>>,
    pub(super) exclude_window: Option<usize>,
    pub(super) validate: Option<Spanned<String>>,
    pub(super) frames: Option<Vec<Spanned<String>>>,
    pub(super) weight: Option<Spanned<f64>>,
    #[serde(default, rename = "match")]
    pub(super) matches: Vec<String>,
    #[serde(default, rename = "no_match")]
    pub(super) misses: Vec<String>,
    #[serde(default)]
    pub(super) since: String,
    #[serde(default)]
    pub(super) notes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFrame {
    pub(super) id: Spanned<String>,
    #[serde(default)]
    pub(super) words: Vec<String>,
    #[serde(default)]
    pub(super) lists: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) patterns: Vec<Spanned<String>>,
    pub(super) lowers: Option<u8>,
    pub(super) window: Option<usize>,
    pub(super) side: Option<Spanned<String>>,
    pub(super) scope: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) notes: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSubtle {
    pub(super) threshold: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) verbs: BTreeMap<Spanned<String>, f64>,
    #[serde(default)]
    pub(super) nouns: BTreeMap<Spanned<String>, f64>,
    #[serde(default)]
    pub(super) words: BTreeMap<Spanned<String>, f64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDisable {
    pub(super) rules: Vec<Spanned<String>>,
    pub(super) frames: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOverride {
    pub(super) severity: Option<Severity>,
    pub(super) weight: Option<Spanned<f64>>,
}

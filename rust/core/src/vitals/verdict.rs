//! What a detector says about one step.

use std::ops::{BitOr, BitOrAssign};

/// How bad a step is; the order is the order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to say.
    Ok,
    /// Worth a look; the update is applied.
    Watch,
    /// The update must not be applied.
    Anomaly,
    /// The state is no longer trusted: go back.
    Panic,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal,)*) => {
        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "only counts")]
        #[repr(u32)]
        enum Index { $($name,)* }

        /// A set of reasons. Its codes are stable: logs and rules may depend on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Reasons(u32);

        impl Reasons {
            $($(#[doc = $doc])* pub const $name: Self = Self(1 << Index::$name as u32);)*

            const CODES: &'static [(Self, &'static str)] = &[$((Self::$name, $code),)*];
        }
    };
}

reasons! {
    /// The loss or the gradient norm is NaN or infinite.
    NONFINITE = "nonfinite",
    /// The caller found a gradient that is not finite.
    NONFINITE_GRADIENTS = "nonfinite-gradients",
    /// The caller found a parameter that is not finite.
    NONFINITE_PARAMETERS = "nonfinite-parameters",
    /// The caller found a buffer that is not finite.
    NONFINITE_BUFFERS = "nonfinite-buffers",
    /// The caller found optimizer state that is not finite.
    NONFINITE_OPTIMIZER = "nonfinite-optimizer",
    /// The gradient scaler skips this step, as it is made to.
    AMP_SKIP = "amp-skip",
    /// The gradient scaler has skipped too many steps in a row.
    AMP_SKIPS = "amp-skips",
    /// The gradient scaler's scale is below its floor.
    AMP_SCALE = "amp-scale",
    /// Refusals in a row: the state, not a batch, is the likely cause.
    SUSTAINED = "sustained",
    /// Too many refusals among the last 128 steps.
    TOO_MANY = "too-many",
    /// Still refused after a PANIC that was not acted on.
    PENDING = "pending",
    /// The refused values are the new level.
    ADOPTED = "adopted",
    /// Taken in as data, while the thresholds are learnt anew.
    LEARNING = "learning",
    /// One of the steps of a shift that was announced.
    EXPECTED = "expected",
    /// The first negative loss after many positive ones.
    SIGN = "sign",
    /// The smoothed loss is three times its best.
    DRAWDOWN = "drawdown",
    /// Most of the progress of the run is lost.
    COLLAPSE = "collapse",
    /// The loss is far above its level.
    LOSS = "loss",
    /// The gradient norm is far above its level.
    NORM = "norm",
    /// Loss and norm together are.
    JOINT = "joint",
    /// The losses of the last steps together are.
    RUN = "run",
    /// As `loss`, by the lower threshold after an anomaly.
    LOSS_HOT = "loss-hot",
    /// As `norm`, by the lower threshold after an anomaly.
    NORM_HOT = "norm-hot",
    /// As `joint`, by the lower threshold after an anomaly.
    JOINT_HOT = "joint-hot",
    /// As `run`, by the lower threshold after an anomaly.
    RUN_HOT = "run-hot",
    /// A parameter group moves by too large a part of itself.
    UPDATE_RATIO = "update-ratio",
    /// A parameter group no longer moves at all.
    DEAD_GROUP = "dead-group",
}

impl Reasons {
    /// No reason at all.
    pub const NONE: Self = Self(0);

    /// Whether every reason of `other` is among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The codes, what was decided before what was seen.
    pub fn codes(self) -> impl Iterator<Item = &'static str> {
        let known = Self::CODES.iter();
        known.filter_map(move |&(reason, code)| self.contains(reason).then_some(code))
    }
}

impl BitOr for Reasons {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Reasons {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Which part of the detector a piece of evidence is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The loss.
    Loss,
    /// The gradient norm.
    Norm,
    /// Loss and norm together.
    Joint,
    /// The losses of the last steps together.
    Run,
    /// The slow watch for a loss that multiplies.
    Drawdown,
    /// The slow watch for progress that is lost.
    Collapse,
    /// The relative update of this parameter group.
    UpdateRatio(usize),
    /// This parameter group, which does not move.
    DeadGroup(usize),
    /// The scale of the gradient scaler.
    AmpScale,
    /// The steps that the gradient scaler skipped.
    AmpSkips,
}

impl Source {
    /// The name, and the parameter group where there is one.
    #[must_use]
    pub const fn name(self) -> (&'static str, Option<usize>) {
        match self {
            Self::Loss => ("loss", None),
            Self::Norm => ("norm", None),
            Self::Joint => ("joint", None),
            Self::Run => ("run", None),
            Self::Drawdown => ("drawdown", None),
            Self::Collapse => ("collapse", None),
            Self::UpdateRatio(group) => ("update-ratio", Some(group)),
            Self::DeadGroup(group) => ("dead-group", Some(group)),
            Self::AmpScale => ("amp-scale", None),
            Self::AmpSkips => ("amp-skips", None),
        }
    }
}

/// What one part of the detector saw, where it spoke.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Which part.
    pub source: Source,
    /// What it looked at: the loss, the norm, or a score of its own.
    pub value: f64,
    /// The recent level of the value, in the units of the value.
    pub baseline: Option<f64>,
    /// The size of the usual deviation: of ln value for a positive loss and for a norm.
    pub scale: Option<f64>,
    /// What `z` was compared with.
    pub threshold: Option<f64>,
    /// The deviation in scales.
    pub z: Option<f64>,
    /// How many earlier observations the threshold rests on, or how many steps in a row.
    pub count: u64,
}

impl Evidence {
    /// A value alone, without a level or a scale.
    pub(super) const fn bare(source: Source, value: f64, count: u64) -> Self {
        Self {
            source,
            value,
            baseline: None,
            scale: None,
            threshold: None,
            z: None,
            count,
        }
    }
}

/// What a detector says about one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// How bad it is.
    pub level: Level,
    /// Whether the update should be applied.
    pub apply: bool,
    /// Why.
    pub reasons: Reasons,
    /// The largest score over its full threshold: from 1 on an anomaly, from 0.5 on doubtful.
    /// Infinite where the step has no score because a value is not finite or has the wrong sign.
    pub rho: f64,
    /// What was seen; empty where there is nothing to say.
    pub evidence: Vec<Evidence>,
}

impl Verdict {
    pub(super) const fn quiet() -> Self {
        Self {
            level: Level::Ok,
            apply: true,
            reasons: Reasons::NONE,
            rho: 0.0,
            evidence: Vec::new(),
        }
    }

    /// Makes it at least this bad, for one more reason.
    pub(super) fn raise(&mut self, level: Level, reasons: Reasons) {
        self.level = self.level.max(level);
        self.apply &= level < Level::Anomaly;
        self.reasons |= reasons;
    }
}

#[cfg(test)]
mod tests {
    use super::Reasons;

    #[test]
    fn codes_are_distinct_and_in_order() {
        let all: Vec<_> = Reasons(u32::MAX).codes().collect();
        let mut distinct = all.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), all.len());
        let some = Reasons::LOSS | Reasons::SUSTAINED;
        assert_eq!(some.codes().collect::<Vec<_>>(), ["sustained", "loss"]);
        assert!(Reasons::NONE.is_empty() && !some.is_empty());
    }
}

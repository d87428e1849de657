//! The oracle: every rule over every text, one after the other, each by its own automaton.

use super::plan::Plan;

/// Call `each` with the place of every rule of the plan that matches.
pub(super) fn rules(plan: &Plan, spelled: &[u8], mut each: impl FnMut(u16)) {
    for rule in &plan.rules {
        if plan.automaton(rule).matches(spelled) {
            each(rule.id);
        }
    }
}
